"""A project file: each image goes to the one detector whose pattern its path matches, and to none
is never good.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from anomaly import Scorer
from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.files.table import read_table
from anomaly.inputs.sources import list_sources
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.reporting.scoring import summary_text
from anomaly.scoring.batch import RunOptions, score_table
from anomaly.scoring.products import Project, read_project


@pytest.fixture(scope="module")
def plant(
    run: Path, pixel_run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Returns a folder with two detectors, a project file, and images of both products and of
    neither.
    """
    root = tmp_path_factory.mktemp("plant")
    shutil.copytree(run, root / "runs" / "discs")
    shutil.copytree(pixel_run, root / "runs" / "rings")
    project(root, ("discs/", "runs/discs"), ("rings/", "runs/rings"))
    for number, folder in enumerate(("discs", "rings", "other", "discs", "rings")):
        (root / "in" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(
            parts / "test" / "good" / f"{number:04}.png", root / "in" / folder / f"{number}.png"
        )
    shutil.copy(next((parts / "test" / "missing").glob("*.png")), root / "in" / "discs" / "bad.png")
    (root / "in" / "rings" / "broken.png").write_text("no image")
    return root


def project(root: Path, *products: tuple[str, str]) -> Path:
    """Writes a project file of patterns and detectors."""
    tables = [
        f"[[product]]\npattern = '{pattern}'\ndetector = '{detector}'\n"
        for pattern, detector in products
    ]
    (root / "anomaly.toml").write_text("\n".join(tables))
    return root / "anomaly.toml"


def opened(file: Path) -> Project:
    return read_project(file, device="cpu", max_pixels=10**8)


def scored(plant: Path, out: Path) -> tuple[dict[str, object], str]:
    found = opened(plant / "anomaly.toml")
    summary = score_table(
        found.products[0].scorer, list_sources([plant / "in"]), out, project=found
    )
    rows = {"/".join(Path(row.path).parts[-2:]): row for row in read_table(out)}
    return rows, summary_text(summary)


def test_each_image_is_judged_by_its_own_detector_as_if_alone(plant: Path, tmp_path: Path) -> None:
    rows, said = scored(plant, tmp_path / "t.csv")
    assert list(rows) == [
        "discs/0.png",
        "discs/3.png",
        "discs/bad.png",
        "other/2.png",
        "rings/1.png",
        "rings/4.png",
        "rings/broken.png",
    ]
    for name, row in rows.items():
        product = name.split("/")[0]
        if row.status == "ok":
            alone = Scorer(plant / "runs" / product, device="cpu").score(plant / "in" / name)
            assert (row.score, row.p_value, row.is_anomaly) == (
                pytest.approx(alone.score),
                alone.p_value,
                alone.is_anomaly,
            )
        if product != "other":
            assert row.detector == read_card(plant / "runs" / product).identity
    other = rows["other/2.png"]
    assert (other.status, other.is_anomaly, other.score, other.threshold, other.detector) == (
        "error",
        None,
        None,
        None,
        "none",
    )
    assert other.error == "its path matches no product of anomaly.toml"
    assert other.sha256 is not None
    assert rows["rings/broken.png"].status == "error" and rows["discs/bad.png"].is_anomaly
    lines = said.splitlines()
    assert re.match(
        r"run                     1 of 3 images judged \(33 %\); if all are good expect 0\.049, up "
        r"to 0 is",
        lines[1],
    )
    assert lines[2].startswith("pixel-run               ")
    assert (
        lines[3]
        == "not judged              2 images: 1 not an image, 1 of no product; treat as not OK"
    )


def test_a_killed_run_goes_on_and_another_project_is_refused(plant: Path, tmp_path: Path) -> None:
    found, out = opened(plant / "anomaly.toml"), tmp_path / "t.jsonl"
    whole, _ = scored(plant, tmp_path / "whole.jsonl")

    def killed():
        for number, source in enumerate(list_sources([plant / "in"])):
            if number == 5:
                raise KeyboardInterrupt
            yield source

    with pytest.raises(KeyboardInterrupt):
        score_table(
            found.products[0].scorer, killed(), out, options=RunOptions(chunk_rows=2), project=found
        )
    shutil.copytree(plant / "runs", tmp_path / "runs")
    other = opened(project(tmp_path, ("discs/", "runs/discs"), ("ring", "runs/rings")))
    with pytest.raises(AnomalyError, match="an unfinished run with detector"):
        score_table(other.products[0].scorer, list_sources([plant / "in"]), out, project=other)
    again, said = scored(plant, out)
    assert {name: row._replace(scored_at="") for name, row in again.items()} == {
        name: row._replace(scored_at="") for name, row in whole.items()
    }
    assert "run                     1 of 3 images judged" in said


def test_two_products_for_one_image_stop_the_run(plant: Path, tmp_path: Path) -> None:
    shutil.copytree(plant / "runs", tmp_path / "runs")
    found = opened(project(tmp_path, (r"discs/", "runs/discs"), (r"\d\.png", "runs/rings")))
    with pytest.raises(
        AnomalyError,
        match=r"discs/0\.png matches the products run and pixel-run, one expected: make",
    ):
        score_table(
            found.products[0].scorer,
            list_sources([plant / "in"]),
            tmp_path / "t.csv",
            project=found,
        )


def test_paths_are_those_with_slashes_and_names_may_be_given(plant: Path) -> None:
    found = opened(plant / "anomaly.toml")
    assert [product.name for product in found.products] == ["run", "pixel-run"]
    assert found.product_of(r"C:\photos\discs\1.png") is found.products[0]
    assert found.product_of("photos/none/1.png") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[product", r"not a TOML file \(.*\): mend it$"),
        ("", r"nothing found, one or more tables \[\[product\]\] expected and nothing else$"),
        ("[product]\na = 1", r"'product' found, one or more tables"),
        (
            "x = 1\n[[product]]\npattern = 'a'\ndetector = 'runs/discs'",
            r"'x', 'product' found, one or more tables",
        ),
        (
            "[[product]]\npattern = 'a'",
            r"product 1: pattern found, pattern and detector expected, and name if wanted$",
        ),
        (
            "[[product]]\npattern = 'a'\ndetector = 'd'\nlimit = 1",
            r"product 1: pattern, detector, limit found, pattern and",
        ),
        (
            "[[product]]\npattern = 1\ndetector = 'd'",
            r"product 1: pattern is 1, one line of text expected$",
        ),
        (
            "[[product]]\npattern = '('\ndetector = 'd'",
            r"product 1: pattern '\(' found, a regular expression expected",
        ),
        (
            "[[product]]\npattern = 'a'\ndetector = 'runs/none'",
            r"product 1: .*runs/none: no such file or folder; a run folder",
        ),
        (
            "[[product]]\npattern = 'a'\ndetector = 'in/rings/broken.png'",
            r"product 1: .*broken\.png: not an ONNX file",
        ),
        (
            2 * "[[product]]\npattern = 'a'\ndetector = 'runs/discs'\n",
            r"two products named run found: give each a name",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_before_anything_is_scored(
    text: str, message: str, plant: Path
) -> None:
    file = plant / "wrong.toml"
    file.write_text(text)
    with pytest.raises(
        AnomalyError, match=rf"^{file}: {message}" if "product 1" in message else message
    ) as raised:
        opened(file)
    assert "\n" not in str(raised.value)


def test_the_command(
    plant: Path, run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object) -> tuple[int, str, str]:
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

    given = ("score", "--project", plant / "anomaly.toml", plant / "in")
    status, out, err = said(*given, "--out", tmp_path / "t.csv")
    assert (status, err) == (3, "") and "1 of no product" in out
    assert said(*given, "--out", tmp_path / "u.csv", "--fail-on-anomaly")[0] == 4
    good = plant / "in" / "discs" / "0.png"
    assert (
        said(
            "score",
            "--project",
            plant / "anomaly.toml",
            good,
            good,
            "--out",
            tmp_path / "v.csv",
            "--fail-on-anomaly",
        )[0]
        == 0
    )
    for option in (("--watch",), ("--review", "x.db"), ("--engine", "ray")):
        status, _, err = said(*given, "--out", tmp_path / "w.csv", *option)
        assert (
            status == 1
            and "found, which --project cannot do: leave it out, or score each product by itself"
            in err
        )
    one_after_another = (
        "score",
        "--project",
        plant / "anomaly.toml",
        good,
        "--out",
        tmp_path / "x.csv",
        good,
    )
    assert (
        said(*one_after_another)[0]
        == said("score", good, "--out", tmp_path / "y.csv", *given[1:3])[0]
        == 0
    )
    with pytest.raises(SystemExit) as stopped:
        main(["score", str(run), "--out", str(tmp_path / "w.csv")])
    assert (
        stopped.value.code == 2
        and "the following arguments are required: INPUT" in capsys.readouterr().err
    )


def test_products_may_have_parts(plant: Path, parts: Path, tmp_path: Path) -> None:
    for number, image in enumerate(sorted((parts / "train" / "good").iterdir())[:40]):
        (tmp_path / "good").mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / "good" / f"{number // 2:03}_{number % 2}.png")
    run = tmp_path / "alone" / "detector.onnx"  # without the list of images that trained it
    run.parent.mkdir()
    shutil.copy(plant / "runs" / "discs" / "detector.onnx", run)
    recalibrate_on(
        run,
        GoodImages(tmp_path / "good", by_unit=r"(\d+)_"),
        out=tmp_path / "per-part.onnx",
        asked=Asked(0.1),
    )
    shutil.copytree(plant / "runs" / "rings", tmp_path / "rings")
    found = opened(project(tmp_path, (r"good/", "per-part.onnx"), ("rings/", "rings")))
    (tmp_path / "good" / "stray.png").write_bytes((tmp_path / "good" / "000_0.png").read_bytes())
    images = [
        *sorted((tmp_path / "good").iterdir()),
        plant / "in" / "rings" / "1.png",
        plant / "in" / "other" / "2.png",
    ]
    summary = score_table(found.products[0].scorer, images, tmp_path / "t.jsonl", project=found)
    assert summary.units is not None
    assert (
        summary.units.units,
        summary.units.ok,
        summary.units.flagged,
        summary.units.of_no_unit,
    ) == (20, 20, 1, 1)
    # a part; an image of no unit and one of no product
    assert (summary.flagged, summary.without_result) == (1, 2)
    rows = [json.loads(line) for line in (tmp_path / "t-units.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and {row["detector"] for row in rows} == {
        found.products[0].scorer.card.identity
    }
    assert (
        found.unit_of("good/001_0.png")
        == found.unit_of("good/001_1.png")
        != found.unit_of("good/002_1.png")
    )
    assert found.unit_of("rings/1.png") == "rings/1.png"
