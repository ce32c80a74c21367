"""The one-class benchmark, on scikit-learn's digits written as idx files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.experiments import one_class
from training.experiments.one_class import ALL_CLASSES, Case, divide, divide_sets, run, table

CASE = Case("linear", "pixels", 64, 0, 0, None, 16, False)


def test_a_class_is_told_from_the_others(digits: Path, tmp_path: Path) -> None:
    result = run(CASE, digits, tmp_path)
    assert set(result["auroc"]) == {"hottest", "mean", "complexity", "typicality"}
    assert result["auroc"]["mean"] > 0.98
    assert run(CASE, digits / "gone", tmp_path) == result, "a finished case is not done again"


def test_fit_validation_and_judged_images_are_disjoint(digits: Path) -> None:
    for case in (CASE, replace(CASE, development=True)):
        fit_on, validation, judged, anomalous = divide(case, digits)
        assert len(judged) == len(anomalous)
        assert len(fit_on) > 4 * len(validation) > 0
        if case.development:
            parts = [
                {bytes(image) for image in part.numpy().reshape(len(part), -1)}
                for part in (fit_on, validation, judged)
            ]
            assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        else:
            assert len(judged) == 597 and 0 < (~anomalous).sum() < 100


def test_cases_that_differ_do_not_share_a_file() -> None:
    others = [
        replace(CASE, model="vae"),
        replace(CASE, space="filters"),
        replace(CASE, space="filters", size=32),
        replace(CASE, one=1),
        replace(CASE, seed=1),
        replace(CASE, epochs=3),
        replace(CASE, development=True),
        CASE,
    ]
    assert len({case.name for case in others}) == len(others)


def test_the_table_puts_the_score_that_counts_first() -> None:
    row = {"one": 3, "seed": 0, "seconds": 2.0, "ms_an_image": 0.5}
    results = [
        {**row, "auroc": {"hottest": 0.9, "mean": 0.8}},
        {**row, "auroc": {"hottest": 0.7, "mean": 1.0}, "seed": 1},
    ]
    assert table(results, "mean").splitlines() == [
        "mean             0.9000 +- 0.1414   3: 0.900",
        "hottest          0.8000 +- 0.1414   3: 0.800",
        "1 classes, seeds [0, 1]: 2 s a fit, 0.50 ms an image",
    ]


def test_the_command_prints_the_table(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["one_class", str(digits), "--out", str(tmp_path), "--classes", "0", "1"]
    )
    one_class.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "hottest",
        "mean",
        "complexity",
        "typicality",
        "2",
    ]


def test_another_set_is_told_from_all_classes(digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for part in digits.iterdir():
        content = bytearray(part.read_bytes())
        if "images" in part.name:
            content[16:] = bytes(255 - value for value in content[16:])  # black on white
        (other / part.name).write_bytes(content)
    result = run(replace(CASE, one=ALL_CLASSES), digits, tmp_path, other)
    assert result["auroc"]["mean"] > 0.99
    fit_on, validation, judged, anomalous = divide_sets(CASE, digits, other)
    assert (len(fit_on) + len(validation), len(judged), anomalous.sum()) == (1200, 2 * 597, 597)
