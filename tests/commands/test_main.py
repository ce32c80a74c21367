"""The command line as a user meets it: exit statuses, one line for what went wrong, never a
traceback.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from anomaly import __version__
from anomaly.commands.arguments import check_folders, number, rate
from anomaly.commands.main import main, parser
from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.files.table import COLUMNS, read_table
from anomaly.imaging.decode import decode
from anomaly.reporting.detector import size_sensitivity_lines
from data.synthetic import make
from tests.test_scorer import ROOT, alone, in_a_fresh_process


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, str]:
        """What was answered, by the label in the first 24 columns."""
        return {line[:24].strip(): line[24:] for line in self.out.splitlines() if line[:24].strip()}


class Shell:
    """Runs commands in this process, as they would be typed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Said:
        self.capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's usage errors, --help and --version
            status = int(stop.code or 0)
        captured = self.capsys.readouterr()
        return Said(status, captured.out, captured.err)

    def refuses(self, *words: object) -> str:
        """Returns the one line that a command that cannot be done says."""
        said = self(*words)
        assert said.status == 1 and said.out == "" and "Traceback" not in said.err
        assert (
            said.err.startswith("anomaly: ")
            and said.err.count("\n") == 1
            and said.err.endswith("\n")
        )
        return said.err[len("anomaly: ") : -1]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 20 small good discs."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(20):
        Image.fromarray(make("disc", 100 + seed, 64)[0]).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture
def mixed(photos: Path, tmp_path: Path) -> Path:
    """Returns a folder of four good discs and a file that is no image."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(4):
        shutil.copy(photos / f"{i:02}.png", folder)
    (folder / "broken.png").write_text("no image")
    return folder


TINY = ("--space", "pixels", "--size", "32", "--calibrate", "split")
TOO_FEW = (
    "20 good images: 10 set the threshold. Lowest guaranteed rate 9 % (could be 26 %). 1 % needs "
    "99 to set the threshold. Add images, or --false-alarm-rate 0.1, or --rank-only (order, no "
    "guarantee)."
)


# --- the program itself ---------------------------------------------------------------------------
def commands() -> dict[str, object]:
    (action,) = [
        action for action in parser()._actions if hasattr(action, "choices") and action.choices
    ]
    return dict(action.choices)


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_an_example_that_it_understands(
    name: str, shell: Shell
) -> None:
    said = shell(name, "--help")
    assert said.status == 0 and said.out.startswith(f"usage: anomaly {name}")
    (example,) = re.findall(r"^example:  (anomaly .+)$", said.out, re.MULTILINE) or [
        f"anomaly {name} --help"
    ]
    if not example.endswith("--help"):
        words = shlex.split(example)
        assert words[:2] == ["anomaly", name]
        parser().parse_args(words[1:])


def test_usage_errors_are_2_and_help_is_0(shell: Shell) -> None:
    assert (shell("--help").status, shell("--version").out) == (0, f"anomaly {__version__}\n")
    assert shell("--help").out.count("\n  ") > 10
    for words in (
        [],
        ["frobnicate"],
        ["train"],
        ["score", "run", "in"],
        ["train", "a", "--out", "b", "--model", "resnet"],
    ):
        said = shell(*words)
        assert said.status == 2 and said.err.startswith("usage: anomaly") and said.out == ""


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--seed", "-1", "'-1' found, a whole number from 0 on expected"),
        ("--seed", "4294967296", "'4294967296' found, a whole number from 0 on expected"),
        ("--size", "0", "'0' found, a whole number from 1 on expected"),
        ("--epochs", "0", "'0' found, a whole number from 1 on expected"),
        ("--epochs", "1.5", "'1.5' found, a whole number from 1 on expected"),
        (
            "--false-alarm-rate",
            "0",
            "'0' found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)",
        ),
        (
            "--false-alarm-rate",
            "60%",
            "'60%' found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)",
        ),
        (
            "--false-alarm-rate",
            "nan",
            "'nan' found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)",
        ),
        (
            "--false-alarm-rate",
            "few",
            "'few' found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_usage_errors(
    option: str, value: str, expected: str, shell: Shell
) -> None:
    said = shell("train", "photos", "--out", "run", f"{option}={value}")
    assert (said.status, said.out) == (2, "")
    assert said.err.splitlines()[-1] == f"anomaly train: error: argument {option}: {expected}"


def test_numbers_are_read_as_they_are_written() -> None:
    assert [rate(text) for text in ("0.01", "1%", "0.5", "50%", "1e-3")] == [
        0.01,
        0.01,
        0.5,
        0.5,
        0.001,
    ]
    assert (number(0)("0"), number(1)("256"), number(0)("4294967295")) == (0, 256, 2**32 - 1)


def test_help_and_the_import_load_nothing_heavy() -> None:
    brought = importlib.metadata.packages_distributions()
    code = (
        "before = set(sys.modules)\n{}\nprint(*{{name.partition('.')[0] for name in "
        "set(sys.modules) - before}})"
    )
    for what in (
        "import anomaly",
        (
            "from anomaly.commands.main import main\ntry:\n    main(['--help'])\nexcept "
            "SystemExit:\n    pass"
        ),
        (
            "from anomaly.commands.main import main\ntry:\n    main(['train', '--help'])\nexcept "
            "SystemExit:\n    pass"
        ),
    ):
        loaded = in_a_fresh_process(code.format(what))[-1].split()
        assert {
            name for name in loaded if name in brought and set(brought[name]) != {"anomaly"}
        } == set()


def test_folders_are_checked_before_the_work(tmp_path: Path) -> None:
    check_folders(None, tmp_path / "a.json", Path("relative.html"))
    with pytest.raises(
        AnomalyError,
        match=r"none: no such folder; make it first, or choose another name for a\.json$",
    ):
        check_folders(tmp_path / "none" / "a.json")


# --- train ----------------------------------------------------------------------------------------
def test_twenty_images_without_a_rate_make_a_detector_and_say_what_it_is_worth(
    photos: Path, tmp_path: Path, shell: Shell
) -> None:
    run = tmp_path / "first run"
    said = shell("train", photos, "--out", run, *TINY)
    card = read_card(run)
    assert said.status == 0
    suspects = said.err.splitlines()
    assert (
        suspects[0].startswith("suspects                5 of 20 good images are the most unusual")
        and len(suspects) == 8
    )
    again = f"anomaly train {photos} --exclude '{run / 'suspects.txt'}' --out NEW"
    assert suspects[-1] == f"{'':<24}{run / 'suspects.txt'}, then {again}"
    written = f"written                 {run / 'detector.onnx'}   {card.identity}"
    cost = card.training.cost.to_json()
    flags = (
        f"flags {cost['flagged']} instead of {cost['flagged_now']} of {cost['of']} synthetic "
        "defects"
    )
    threshold = f"threshold {cost['threshold']:.4g} instead of {card.calibration.threshold:.4g}"
    assert cost["without"] == [card.training.highest[0]] and cost["threshold"] == float(
        card.calibration.scores[-2]
    )
    first = [
        f"look at these first     {cost['without'][0]}",
        f"without it              if it shows a defect: {threshold}; {flags}",
        (
            f"{'':<24}look before it is used: {run / 'report.html'}, or anomaly review --detector "
            f"'{run}', page Calibration"
        ),
    ]
    assert said.out.splitlines() == [
        written,
        TOO_FEW,
        *first,
        *size_sensitivity_lines(card.training),
    ]
    given = "--space pixels --size 32 --calibrate split"
    assert card.training.command == f"anomaly train {photos} --out '{run}' {given}"
    shown = shell("show", run)
    assert shown.fields["detector"] == card.identity
    assert (
        shown.fields["model"]
        == "linear on pixels, 32 x 32 pixels; score: mean of the hottest 5 % of the heatmap"
    )
    assert shown.fields["trained"].endswith(
        "on 20 good images, 20 groups: 8 fit, 2 validation, 10 calibration"
    )
    assert shown.fields["licences"] == "weights: none used; data: not stated"
    more = [
        "20 more: guarantee 4.8 %, could be 14 %; 20 of 40 set the threshold",
        "80 more: guarantee 2 %, could be 6 %; 50 of 100 set the threshold",
    ]
    assert shown.out.splitlines()[-9:-1] == [
        TOO_FEW,
        *first,
        *size_sensitivity_lines(card.training),
        f"{'more good images':<24}{more[0]}",
        " " * 24 + more[1],
    ]
    message = (
        "holds a finished detector already, a new folder expected: choose another --out, or delete "
        "it"
    )
    assert message in shell.refuses("train", photos, "--out", run, *TINY)


def test_rank_only_orders_images_and_guarantees_nothing(
    photos: Path, tmp_path: Path, shell: Shell
) -> None:
    run = tmp_path / "run"
    said = shell("train", photos, "--out", run, "--rank-only", *TINY)
    assert said.status == 0
    assert (
        said.fields["rank only"]
        == "orders images by score; there is no threshold, so nothing is guaranteed"
    )
    scored = shell("score", run, photos, "--out", tmp_path / "scores.csv")
    assert (scored.status, scored.fields["flagged"]) == (
        0,
        "no threshold: this detector ranks only, without a guarantee",
    )
    rows = list(read_table(tmp_path / "scores.csv"))
    assert {(row.status, row.p_value, row.threshold, row.is_anomaly) for row in rows} == {
        ("ok", None, None, None)
    }
    message = shell.refuses("calibrate", run, "--normal", photos)
    assert (
        message.startswith(f"no good image of {photos} can be used (")
        and "was trained on it" in message
    )
    assert shell("verify", run).status == 0


def test_images_that_cannot_be_trained_on_are_one_line(
    photos: Path, tmp_path: Path, shell: Shell
) -> None:
    for name, count in (("empty", 0), ("one", 1), ("same", 9)):
        (tmp_path / name).mkdir()
        for i in range(count):
            shutil.copy(photos / "00.png", tmp_path / name / f"{i}.png")
    out = ("--out", tmp_path / "run", *TINY)
    assert (
        shell.refuses("train", tmp_path / "none", *out)
        == f"{tmp_path}/none: no such folder or manifest: check the path"
    )
    assert shell.refuses("train", tmp_path / "empty", *out).startswith(
        f"{tmp_path}/empty: no images found, "
    )
    assert shell.refuses("train", tmp_path / "one", *out).startswith(
        "1 good image (or groups) found, at least 5 expected"
    )
    assert shell.refuses("train", tmp_path / "same", *out).startswith(
        "1 good image (or groups) found, at least 5 expected"
    )
    assert shell.refuses("train", photos / "00.png", *out).startswith(
        f"{photos}/00.png: a file found, a folder of images or"
    )
    assert shell.refuses("train", photos, *out, "--false-alarm-rate", "1%") == (
        "20 good images (or groups) found: 10 of them can set the threshold, so the lowest "
        "guaranteed rate is 9 %. 1 % needs 99 to set the threshold. That takes 198 in all: "
        "add images, or --false-alarm-rate 0.1, or --rank-only (order, no guarantee)"
    )
    assert shell.refuses("train", photos, *out, "--exclude", tmp_path / "list.txt").startswith(
        f"{tmp_path}/list.txt: cannot be read (No such file or directory), a file expected"
    )
    assert shell.refuses("train", photos, *out, "--group-by", "(").startswith(
        "--group-by '(' found, a regular expression"
    )


def test_a_dry_run_leaves_nothing(photos: Path, tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "list.txt").write_text("00.png\n01.png\n")
    said = shell(
        "train",
        photos,
        "--out",
        tmp_path / "run",
        *TINY,
        "--dry-run",
        "--exclude",
        tmp_path / "list.txt",
        "--group-by",
        r"\d(\d)\.png",
        "--false-alarm-rate",
        "20%",
        "--json",
    )
    found = json.loads(said.out)
    assert said.status == 0 and not (tmp_path / "run").exists()
    assert (found["images"], found["groups"], found["guarantee"]["n"], found["target_rate"]) == (
        18,
        10,
        4,
        0.2,
    )
    said = shell("train", photos, "--out", tmp_path / "run", *TINY, "--dry-run")
    assert (
        said.status,
        said.fields["effective number"][:3],
        said.fields["lowest guaranteed rate"][:7],
    ) == (
        0,
        "20:",
        "1 in 11",
    )
    refused = shell.refuses(
        "train", photos, "--out", tmp_path / "run", *TINY, "--dry-run", "--false-alarm-rate", "1%"
    )
    assert refused.startswith(
        "20 good images (or groups) found: 10 of them can set the threshold, so the lowest "
        "guaranteed rate is 9 %."
    )


# --- score ----------------------------------------------------------------------------------------
def without_time(path: Path) -> list[object]:
    return [row._replace(scored_at="") for row in read_table(path)]


def test_the_three_tables_hold_the_same_rows(
    pixel_run: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    tables = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    for table in tables:
        said = shell("score", pixel_run, mixed, "--out", table)
        assert (said.status, said.err) == (3, "")
        assert said.fields["not judged"] == "1 image: 1 not an image; treat as not OK"
        assert said.fields["table"] == str(table)
    rows = without_time(tables[0])
    assert rows == without_time(tables[1]) == without_time(tables[2])
    assert [Path(row.path).name for row in rows] == [
        "00.png",
        "01.png",
        "02.png",
        "03.png",
        "broken.png",
    ]
    assert [row.status for row in rows] == ["ok"] * 4 + ["error"]
    assert rows[4].error.startswith("begins with b'no image', which is none of")
    assert rows[0].detector == read_card(pixel_run).identity
    with open(tables[0], newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


def test_score_says_by_its_status_what_it_met(
    run: Path, parts: Path, photos: Path, tmp_path: Path, shell: Shell
) -> None:
    bad = [parts / "test" / "stain" / f"{i:04}.png" for i in range(4)]
    assert shell("score", run, *bad, "--out", tmp_path / "a.csv").status in (0, 3)
    flagged = [Path(row.path) for row in read_table(tmp_path / "a.csv") if row.is_anomaly]
    assert flagged, "none of four stains is flagged"
    assert shell("score", run, flagged[0], "--out", tmp_path / "b.csv").status == 0
    assert (
        shell("score", run, flagged[0], "--out", tmp_path / "c.csv", "--fail-on-anomaly").status
        == 4
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert (
        shell(
            "score", run, flagged[0], broken, "--out", tmp_path / "d.csv", "--fail-on-anomaly"
        ).status
        == 4
    )
    assert (
        shell("score", run, broken, tmp_path / "none.png", "--out", tmp_path / "e.csv").status == 3
    )
    said = shell("score", run, photos / "00.png", "--out", tmp_path / "f.csv", "--max-pixels", 4095)
    assert said.status == 3 and "1 too large" in said.fields["not judged"]


def test_score_refuses_what_it_cannot_do(
    run: Path, photos: Path, tmp_path: Path, shell: Shell
) -> None:
    table = tmp_path / "scores.csv"
    assert shell("score", run, photos, "--out", table).status == 0
    message = shell.refuses("score", run, photos, "--out", table)
    assert (
        message == f"{table}: a finished table found; --force replaces it, or choose another --out"
    )
    assert shell("score", run, photos, "--out", table, "--force").status == 0
    assert ".txt found, .parquet, .csv or .jsonl expected" in shell.refuses(
        "score", run, photos, "--out", tmp_path / "a.txt"
    )
    assert "no such folder; make it first" in shell.refuses(
        "score", run, photos, "--out", tmp_path / "none" / "a.csv"
    )
    (tmp_path / "empty").mkdir()
    assert "empty: no image in this folder" in shell.refuses(
        "score", run, tmp_path / "empty", "--out", tmp_path / "c.csv"
    )
    message = shell.refuses("score", tmp_path / "empty", photos, "--out", tmp_path / "d.csv")
    assert "empty: a folder without detector.onnx; a run folder or a detector file" in message
    (tmp_path / "fake.onnx").write_bytes(b"\x08\x08")
    message = shell.refuses("score", tmp_path / "fake.onnx", photos, "--out", tmp_path / "e.csv")
    assert message == f"{tmp_path}/fake.onnx: not an ONNX file, or a truncated one: copy it again"


# --- evaluate -------------------------------------------------------------------------------------
def test_evaluate_writes_exactly_the_guaranteed_json(
    run: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    said = shell(
        "evaluate",
        run,
        parts,
        "--json",
        tmp_path / "figures.json",
        "--report",
        tmp_path / "report.html",
    )
    assert said.status == 0
    assert list(said.fields)[:6] == [
        "ranking (AUROC)",
        "average precision",
        "defects flagged",
        "good images flagged",
        "needs a person",
        "pixels",
    ]
    figures = json.loads((tmp_path / "figures.json").read_text())
    interval = {"value", "low", "high"}
    counted = {*interval, "flagged", "n"}
    assert list(figures) == [
        "image_auroc",
        "average_precision",
        "false_alarms",
        "recall",
        "pixel_auroc",
        "aupro",
        "per_class",
        "n_normal",
        "n_anomalous",
        "detector",
        "review",
        "needs_a_person",
        "left_out_as_used",
        "left_out_good",
        "checked_for_used",
        "masks",
        "passed_over",
    ]
    assert figures["image_auroc"].keys() == figures["average_precision"].keys() == interval
    assert figures["false_alarms"].keys() == {
        "guaranteed_rate",
        "estimated_rate",
        "upper_bound",
        "n",
        "flagged",
        "ordinary_up_to",
    }
    assert figures["recall"].keys() == counted
    assert list(figures["per_class"]) == ["chip", "crack", "dent", "missing", "scratch", "stain"]
    for of_class in figures["per_class"].values():
        assert of_class.keys() == {"image_auroc", "recall", "n", "missed_at_most"}
        assert (of_class["image_auroc"].keys(), of_class["recall"].keys(), of_class["n"]) == (
            interval,
            counted,
            4,
        )
    assert (figures["n_normal"], figures["n_anomalous"], figures["detector"]) == (
        30,
        24,
        read_card(run).identity,
    )
    assert 0 < figures["pixel_auroc"] < 1 and 0 < figures["aupro"] < 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org/", "") and "<script" not in page
    printed = shell("evaluate", run, parts, "--json", "-")
    assert (printed.status, json.loads(printed.out)) == (0, figures)


def test_evaluate_without_masks_and_with_an_unreadable_image(
    run: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    said = shell("evaluate", run, mixed, "--json", "-")
    figures = json.loads(said.out)
    assert said.status == 3
    assert (
        figures["pixel_auroc"],
        figures["aupro"],
        figures["image_auroc"],
        figures["recall"],
    ) == (None,) * 4
    assert (figures["n_normal"], figures["n_anomalous"], figures["per_class"]) == (4, 0, {})
    assert "NOT INSPECTED" in shell("evaluate", run, mixed).fields
    message = shell.refuses("evaluate", run, mixed, "--json", tmp_path / "none" / "a.json")
    assert (
        message
        == f"{tmp_path}/none: no such folder; make it first, or choose another name for a.json"
    )
    assert "no such folder or manifest" in shell.refuses("evaluate", run, tmp_path / "none")


def test_good_names_the_folder_wherever_one_is_read(
    run: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    photos = tmp_path / "photos"
    for name, source in (("blue", "good"), ("NG", "missing")):
        shutil.copytree(parts / "test" / source, photos / name)
    commands = (
        ["train", photos, "--out", tmp_path / "run", *TINY, "--dry-run"],
        ["calibrate", run, "--normal", photos, "--out", tmp_path / "new.onnx", "--accept-worse"],
        ["check", run, photos],
        ["evaluate", run, photos],
        ["compare", run, run, photos],
    )
    for arguments in commands:
        message = shell.refuses(*arguments)
        assert message.startswith(
            f"{photos}: folders found: bad by name: NG (4); good or bad: blue (30)? Say which hold "
            "good"
        )
        said = shell(*arguments, "--good", "blue")
        assert (
            said.status == 0
            and "read as good: blue (30)\n" in said.err
            and ": NG (4)\n" in said.err
        )
    assert (
        shell("verify", run, "--challenge", photos, "--good", "blue")
        .fields["challenge parts"]
        .startswith("0 of 4 missed")
    )


# --- calibrate ------------------------------------------------------------------------------------
def test_calibrate_writes_a_new_file_beside_the_old_one(
    run: Path, photos: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    folder = alone(run, tmp_path / "run").parent
    said = shell(
        "calibrate", folder, "--normal", photos, "--false-alarm-rate", "10%", "--accept-worse"
    )
    card = read_card(folder / "detector-2.onnx")
    assert (said.status, said.err) == (0, "")
    assert said.fields["written"] == f"{folder / 'detector-2.onnx'}   {card.identity}"
    assert said.fields[f"threshold {card.calibration.threshold:.4g}"] == "set by 20 good images"
    assert (card.calibration.n, card.calibration.k, card.calibration.target_rate) == (20, 2, 0.1)
    assert shell("show", folder / "detector-2.onnx").fields["parent"] == read_card(folder).digest
    twice = (
        "calibrate",
        folder,
        "--normal",
        photos,
        "--out",
        folder / "detector-2.onnx",
        "--accept-worse",
    )
    assert "detector-2.onnx is there already" in shell.refuses(*twice)
    said = shell(
        "calibrate", folder, "--normal", mixed, "--out", tmp_path / "new.onnx", "--accept-worse"
    )
    assert said.status == 0
    assert said.err.startswith(
        f"left out: {mixed}/broken.png: begins with b'no image', which is none of "
    )
    assert said.out.splitlines()[1].startswith(
        "4 good images: 4 set the threshold. Lowest guaranteed rate 20 %"
    )
    nowhere = shell.refuses(
        "calibrate", folder, "--normal", photos, "--out", tmp_path / "none" / "new.onnx"
    )
    assert nowhere == f"{tmp_path}/none: no such folder; make it first, or choose another --out"
    assert "needs 99: add images" in shell.refuses(
        "calibrate",
        folder,
        "--normal",
        photos,
        "--out",
        tmp_path / "x.onnx",
        "--false-alarm-rate",
        "1%",
    )


def test_calibrate_sets_a_review_threshold_from_the_detector_s_own_scores(
    run: Path, photos: Path, tmp_path: Path, shell: Shell
) -> None:
    folder = alone(run, tmp_path / "run").parent
    old = read_card(folder).calibration
    said = shell("calibrate", folder, "--review-rate", "0.5")
    found = read_card(folder / "detector-2.onnx").calibration
    assert said.status == 0 and found.threshold == old.threshold
    assert found.review.is_guaranteed and found.review.k == (old.n + 1) // 2
    assert f"review above {found.review.threshold:.4g}" in said.fields
    none = shell("calibrate", folder / "detector-2.onnx", "--review-rate", "0", "--json").out
    assert json.loads(none)["after"]["review"] is None
    assert json.loads(none)["before"]["review"] == found.review.to_json()
    named = float(found.review.threshold)
    shell("calibrate", folder, "--review-threshold", named, "--out", tmp_path / "named.onnx")
    review = read_card(tmp_path / "named.onnx").calibration.review
    assert (review.threshold, review.is_guaranteed) == (found.review.threshold, False)
    before = sorted(folder.iterdir())
    for words, message in [
        (["--review-rate", f"{old.rate:.6f}"], "no lower one for that rate: give --review-rate"),
        (["--review-threshold", "1e9"], "one below the threshold"),
        (["--review-threshold", "-99999"], "a person would look at"),
        (["--review-rate", "0.5", "--review-threshold", "0.1"], "one of them expected"),
        (["--review-rate", "0.5", "--target", "portable"], "--target found, but no good images"),
        (["--review-rate", "0.5", "--false-alarm-rate", "0.1"], "--false-alarm-rate found, but"),
        (["--review-rate", "0.5", "--normal", photos, "--verdicts", "r.db"], "from one place"),
    ]:
        assert message in shell.refuses("calibrate", folder, *words)
    for wrong in (["--review-rate", "many"], ["--review-rate", "-1"], ["--review-threshold", "x"]):
        assert shell("calibrate", folder, *wrong).status == 2
    assert sorted(folder.iterdir()) == before


# --- show, verify ---------------------------------------------------------------------------------
def test_show_prints_the_whole_card_as_json(run: Path, shell: Shell) -> None:
    card = json.loads(shell("show", run, "--json").out)
    assert card == {
        **read_card(run).to_json(),
        "digest": read_card(run).digest,
    }
    assert list(card)[:7] == ["format", "name", "version", "model", "space", "size", "score"]
    shown = shell("show", run / "detector.onnx")
    assert list(shown.fields)[:4] == ["detector", "model", "trained", "training range"]
    assert "no such file or folder" in shell.refuses("show", run / "none.onnx")
    assert shown.out.splitlines()[-3:] == [
        "more good images        78 more: guarantee 1 %, could be 3 %; 99 of 198 set the threshold",
        (
            "                        120 more: guarantee 1 %, could be 3 %; 99 of 240 set the "
            "threshold"
        ),
        (
            "                        480 more: guarantee 1 %, could be 2.4 %; 199 of 600 set the "
            "threshold"
        ),
    ]


def test_verify_repeats_the_check_on_golden_samples_and_own_images(
    run: Path, photos: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    said = shell("verify", run, "--device", "cpu")
    assert said.status == 0
    assert re.fullmatch(
        r"5 of 5 right on cpu, within [\d.e-]+ of the tolerance", said.fields["golden samples"]
    )
    said = shell("verify", run, mixed, "--device", "cpu")
    assert said.status == 0 and said.fields["torch against ONNX"].startswith(
        "4 of your images: scores agree to "
    )
    detector = alone(run, tmp_path / "alone")
    message = (
        "no checkpoint found; this needs the run folder that `anomaly train` wrote, not the "
        "detector alone"
    )
    said = shell("verify", detector, photos)
    assert said.status == 1 and said.err.endswith(f"{message}\n") and said.err.count("\n") == 1


# --- sample, reconstruct, doctor ------------------------------------------------------------------
def test_sample_draws_a_grid(pixel_run: Path, run: Path, tmp_path: Path, shell: Shell) -> None:
    said = shell("sample", pixel_run, "--out", tmp_path / "samples.png", "--count", 5)
    assert said.status == 0
    drawn = "5 images drawn from the model (seed 0), none of them is real: latents from a Gaussian"
    assert said.fields["written"].startswith(f"{tmp_path / 'samples.png'}   {drawn} fitted to")
    picture = decode(tmp_path / "samples.png").pixels
    assert picture.shape == (3 * 21 + 8 + 3 * 196 + 4, 640, 3)  # 64 pixels enlarged to 192
    with Image.open(tmp_path / "samples.png") as image:
        assert image.text["Source"] == read_card(pixel_run).identity
        assert "vae of pixels" in image.text["Description"]
    standard = ("sample", pixel_run, "--out", tmp_path / "standard.png", "--count", 5, "--prior")
    assert "may never have been" in shell(*standard, "standard").fields["written"]
    assert (decode(tmp_path / "standard.png").pixels != picture).any()
    refused = shell.refuses("sample", run, "--out", tmp_path / "a.png", "--prior", "standard")
    assert "--prior standard found, which is for a VAE" in refused
    missing = shell.refuses("sample", tmp_path / "gone", "--out", tmp_path / "a.png")
    assert f"{tmp_path / 'gone'}: no such run found" in missing
    assert shell("sample", run, "--out", tmp_path / "filters.png").status == 0
    assert decode(tmp_path / "filters.png").pixels.any()
    assert "no such folder" in shell.refuses(
        "sample", pixel_run, "--out", tmp_path / "none" / "a.png"
    )
    for count in ("0", "-3"):
        assert (
            shell("sample", pixel_run, "--out", tmp_path / "a.png", f"--count={count}").status == 2
        )


def test_reconstruct_shows_what_was_expected(
    run: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    said = shell("reconstruct", run, mixed, "--out", tmp_path / "pairs.png")
    assert said.status == 3 and said.err.startswith(f"{mixed}/broken.png: begins with b'no image'")
    assert (
        said.fields["written"]
        == f"{tmp_path / 'pairs.png'}   4 images: original, expected, heatmap"
    )
    row = 21 + 8 + 256 + 2 * 4
    assert decode(tmp_path / "pairs.png").pixels.shape == (2 * 21 + 8 + 4 * row, 3 * 260 + 4, 3)
    said = shell("reconstruct", run, mixed / "00.png", "--out", tmp_path / "one.png")
    assert (said.status, said.err) == (0, "")
    message = shell.refuses(
        "reconstruct", alone(run, tmp_path / "alone"), mixed, "--out", tmp_path / "a.png"
    )
    assert "what it expects is not available" in message


def test_doctor_finds_this_installation_sound(shell: Shell) -> None:
    said = shell("doctor")
    assert said.status == 0
    assert all(line[:3] in ("ok ", "-- ") for line in said.out.splitlines())
    assert f"ok  {'anomaly':28}{__version__}" in said.out.splitlines()
    assert {"what", "found", "ok"} == set(json.loads(shell("doctor", "--json").out)[0])


def test_without_torch_the_commands_that_train_name_the_extra(run: Path, photos: Path) -> None:
    said = in_a_fresh_process(
        "sys.modules['torch'] = None\nfrom anomaly.commands.main import main\nsys.stderr = "
        "sys.stdout\n"
        "for words in ('train a --out b', 'sample a --out b', "
        f"{shlex.join(['verify', str(run), 'a'])!r}, 'demo'):\n"
        "    print(main(words.split()))\n"
        f"print(main(['show', {str(run)!r}]))"
    )
    found = [line for line in said if not line.startswith("golden samples")][:8]
    missing = "anomaly: training needs torch, which is not installed: pip install 'anomaly[train]'"
    assert found == [missing, "1"] * 4
    assert said[-1] == "0"


# --- as a process ---------------------------------------------------------------------------------
def start(*words: object, first: Path | None = None, **options: object) -> subprocess.Popen[str]:
    """Starts the command; modules in the folder ``first`` go before those that are installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (first, ROOT) if path),
    }
    command = [sys.executable, "-m", "anomaly", *(str(word) for word in words)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_process_ends_with_the_status_and_writes_answers_and_news_apart(
    run: Path, mixed: Path, tmp_path: Path
) -> None:
    process = start("score", run, mixed, "--out", tmp_path / "scores.csv")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (3, "")
    assert out.startswith("scored                  5 images, in ")
    process = start("show", tmp_path / "none")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert (
        err.startswith(f"anomaly: {tmp_path}/none: no such file or folder; a run folder or ")
        and err.count("\n") == 1
    )


def test_who_reads_the_answer_may_stop_reading(run: Path) -> None:
    with start("show", run, "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(timeout=120), process.stderr.read()) == (0, "")


def test_ctrl_c_is_one_line(run: Path, photos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "slow.csv"  # a manifest that never comes: the command waits, wherever it is
    os.mkfifo(pipe)
    process = start("score", run, pipe, "--out", tmp_path / "scores.csv")
    writer = os.open(pipe, os.O_WRONLY)  # returns when the command has begun to read
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    os.close(writer)
    assert process.returncode == 130
    assert err.startswith("anomaly: stopped") and err.count("\n") == 1


def test_json_lines_on_standard_output(
    run: Path, mixed: Path, tmp_path: Path, shell: Shell
) -> None:
    process = start(
        "score",
        run,
        "-",
        "--out",
        "-",
        "--flagged",
        tmp_path / "flagged",
        "-0",
        stdin=subprocess.PIPE,
    )
    names = [*sorted(str(path) for path in mixed.iterdir()), str(tmp_path / "not there\n.png")]
    out, err = process.communicate("\0".join(names), timeout=120)
    rows = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 3 and [row["path"] for row in rows] == names
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["error"] * 2
    assert err.startswith("scored                  6 images, in ")
    assert len(list((tmp_path / "flagged").glob("0*"))) == sum(
        row["is_anomaly"] is True for row in rows
    )
    shell("score", run, mixed, "--out", tmp_path / "t.csv")
    scores = [row.score for row in read_table(tmp_path / "t.csv")]
    assert [row["score"] for row in rows[:5]] == [scores[index] for index in range(5)]
    assert "--review needs a table" in shell.refuses(
        "score", run, mixed, "--out", "-", "--review", tmp_path / "r.db"
    )


def test_who_reads_json_lines_may_stop_reading(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("\n".join(str(path) for path in sorted(photos.iterdir()) * 200))
    with (
        open(tmp_path / "names", "rb") as names,
        start("score", run, "-", "--out", "-", stdin=names) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["status"] == "ok"
        process.stdout.close()
        assert (process.wait(timeout=120), process.stderr.read()) == (0, "")


def test_shards_together_hold_every_image_once(
    run: Path, photos: Path, tmp_path: Path, shell: Shell
) -> None:
    paths: list[str] = []
    for shard in (1, 2, 3):
        assert (
            shell(
                "score", run, photos, "--out", tmp_path / f"{shard}.csv", "--shard", f"{shard}/3"
            ).status
            == 0
        )
        paths += [row.path for row in read_table(tmp_path / f"{shard}.csv")]
    assert sorted(paths) == sorted(str(path) for path in photos.iterdir())
    for wrong in ("0/3", "4/3", "1", "x/y", "-1/2"):
        assert (
            shell("score", run, photos, "--out", tmp_path / "t.csv", f"--shard={wrong}").status == 2
        )


def test_a_server_that_has_gone_stops_the_run_unless_it_shall_keep_going(
    run: Path, photos: Path, tmp_path: Path, shell: Shell
) -> None:
    (tmp_path / "list.csv").write_text(
        f"path\n{photos}/00.png\nhttp://127.0.0.1:9/x.png\n{photos}/01.png\n"
    )
    command = ("score", run, tmp_path / "list.csv", "--out", tmp_path / "t.csv")
    message = shell.refuses(*command)
    assert (
        message.startswith("http://127.0.0.1:9/x.png: cannot be reached (")
        and "run the same command again" in message
    )
    said = shell(*command, "--keep-going")
    assert (
        said.status == 3 and said.fields["not judged"] == "1 image: 1 unreachable; treat as not OK"
    )
    assert [row.status for row in read_table(tmp_path / "t.csv")] == ["ok", "error", "ok"]


def test_ctrl_c_in_an_import_says_nothing_of_what_is_installed(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    """A stand-in for ONNX Runtime that is interrupted and says, as NumPy's C code does, that its
    import failed.
    """
    (tmp_path / "onnxruntime.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    raise ImportError('numpy._core.multiarray failed to "
        "import') from None\n"
    )
    process = start("score", run, photos, "--out", tmp_path / "t.csv", first=tmp_path)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "anomaly: stopped\n")


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback() -> None:
    program = (
        "import sys\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'anomaly.commands.review':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, CtrlC())\n"
        "from anomaly.__main__ import run\n"
        "raise SystemExit(run())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "anomaly: stopped\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_behind_standard_output_is_one_line(run: Path) -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "anomaly", "show", str(run)]
        found = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (found.returncode, found.stderr) == (
        1,
        "anomaly: standard output: No space left on device\n",
    )


def test_pictures_are_not_written_among_the_images(run: Path, photos: Path, shell: Shell) -> None:
    assert "lies among the images" in shell.refuses(
        "reconstruct", run, photos, "--out", photos / "pairs.png"
    )
    assert "is the input" in shell.refuses("score", run, photos, "--out", "-", "--overlays", photos)
    assert not (photos / "pairs.png").exists()
