"""Every field of the card, wrong in every way: either the file is refused in one line, or every
command works on it.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from anomaly.commands.main import main
from anomaly.detector.card import Card
from anomaly.detector.file import CARD_KEY, CalibrationImages, read_card, recalibrate
from anomaly.detector.trial import remember
from anomaly.errors import AnomalyError, DetectorError
from anomaly.imaging.mask import mask_facts, read_mask
from anomaly.quality.moved_threshold import largest_rank, with_rank
from anomaly.reporting.detector import card_text, guard_text, more_lines
from anomaly.statistics.calibration import Calibration, calibrate, rank
from tests.support.serving import serving
from training.options import TrainOptions

DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]
HUGE = 10**300
WRONG: dict[str, Any] = {
    "null": None,
    "empty": "",
    "text": "x",
    "number as text": "1",
    "minus one": -1,
    "zero": 0,
    "half": 0.5,
    "minus half": -0.5,
    "true": True,
    "infinity": math.inf,
    "not a number": math.nan,
    "a huge integer": HUGE,
    "a large integer": 2**63,
    "an empty list": [],
    "an empty object": {},
    "a list": [1, "x", None],
    "an object": {"a": [{}]},
    "nested deeply": DEEP,
    "a long text": "x" * 99_999,
    "a longer text": "x" * 3_000_000,
    "a lone surrogate": "a\ud800b",
    "control": "\x1b[2J\r\n\x00",
    "turned around": "\u202egnp.exe",
    "a path": "../../etc/passwd",
    "html": "<script>alert(1)</script>",
    "a slow expression": "(a+)+$",
    "a long number as text": "9" * 5000,
    "a superscript": "\u00b2",
}
Place = tuple[Any, ...]


@pytest.fixture(scope="module")
def full(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns a card with every fact that training, calibration and a moved threshold
    ever write.
    """
    folder = tmp_path_factory.mktemp("mask")
    mask = np.zeros((20, 30), np.uint8)
    mask[4:15, 5:25] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    card = read_card(run)
    assert card.calibration is not None
    found: dict[str, Any] = json.loads(json.dumps(card.to_json()))
    found["calibration"] = replace(card.calibration, review_rate=0.5).to_json()
    found["quality"] = {"auroc": 0.9}
    found["parent"] = "0" * 64
    found["training"] |= {
        "mask": mask_facts(folder / "mask.png", read_mask(folder / "mask.png")),
        "tiles": {"tile": 256, "down": 2, "across": 3, "height": 100, "width": 100},
        "by_unit": {"pattern": r"(\w+)_\d", "least": 1, "most": 4},
        "group_by": r"(lot\d)",
        "accepted_worse": ["rate"],
        "options": TrainOptions(
            Path("a"), Path("b"), good=("ok",), mask=Path("c"), tile=9
        ).to_json(),
        "choice": {"filters": 0.9, "pixels": 0.8},
        "min_area": 40,
        "warnings": ["one", "two"],
        "target_rate": 0.02,
        "recalibrated": "2026-01-01T00:00:00+00:00",
        "recalibrated_by": "me",
        "recalibrated_on": 90,
        "threshold_moved": "2026-01-02",
        "threshold_moved_by": "me",
        "grouped": True,
        "threshold_moved_from": float(card.calibration.scores[-2]),
    }
    found = json.loads(json.dumps(found))
    Card.from_json(found)
    return found


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yields where every value of a card stands, objects and lists too; of long lists the first and
    the last.
    """
    if at:
        yield at
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, inside in inner:
        if not (isinstance(value, list) and 1 < name < len(value) - 1):
            yield from places(inside, (*at, name))


def with_value(card: dict[str, Any], at: Place, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(card)
    place = changed
    for name in at[:-1]:
        place = place[name]
    place[at[-1]] = value
    return changed


def without(card: dict[str, Any], at: Place) -> dict[str, Any]:
    changed = copy.deepcopy(card)
    place = changed
    for name in at[:-1]:
        place = place[name]
    del place[at[-1]]
    return changed


def accepted(card: dict[str, Any]) -> Card | None:
    """Returns what is made of a card; None where it is refused in one line."""
    try:
        return Card.from_json(card)
    except AnomalyError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)[:2000]
        return None


def say_all(card: Card) -> None:
    """Says all that is said of a card; whatever is raised here is a bug."""
    for text in (
        card_text(card, "RUN"),
        *more_lines(card),
        guard_text(card.training.guard),
        card.identity,
    ):
        assert isinstance(text, str)
    assert Card.from_json(card.to_json()) == card
    json.dumps(card.to_json(), allow_nan=False)


MUST = (  # what no wrong value may stand in
    ("format",),
    ("size",),
    ("decode",),
    ("calibration", "k"),
    ("calibration", "n"),
    ("calibration", "scores"),
    ("calibration", "scores", 0),
    ("calibration", "threshold"),
    ("calibration", "guaranteed_rate"),
    ("calibration", "kind"),
    ("calibration", "m"),
    ("golden",),
    ("golden", "samples"),
    ("golden", "samples", 0),
    ("golden", "samples", 0, "height"),
    ("golden", "tolerance"),
    ("weights",),
    ("training",),
    ("licences",),
    ("training", "by_unit", "least"),
    ("training", "mask", "png"),
)


FINE = {  # but these, which say nothing or the same
    ("an empty object", ("training",)),
    ("an object", ("training",)),
    ("an empty object", ("licences",)),
    ("an empty object", ("decode",)),
    ("null", ("calibration", "target_rate")),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_value_replaced_by_a_wrong_one_is_refused_in_one_line_or_everything_can_be_said(
    what: str, full: dict[str, Any]
) -> None:
    for at in places(full):
        card = accepted(with_value(full, at, WRONG[what]))
        if card is not None:
            say_all(card)
            # is a score
            lower = at == ("calibration", "scores", 0) and what in (
                "minus one",
                "minus half",
                "zero",
            )
            assert at not in MUST or lower or (what, at) in FINE, at


def test_each_value_left_out_is_refused_or_everything_can_be_said(full: dict[str, Any]) -> None:
    kept = []
    for at in places(full):
        card = accepted(without(full, at))
        if card is not None:
            say_all(card)
            kept.append(at)
    needed = {(name,) for name in full}
    assert needed.isdisjoint(kept)


def test_a_name_that_stands_twice_is_refused(
    full: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    for at in [at for at in places(full) if isinstance(at[-1], str)]:
        place = full
        for name in at[:-1]:
            place = place[name]
        text = json.dumps(with_value(full, (*at[:-1], "TWICE"), place[at[-1]])).replace(
            '"TWICE"', json.dumps(at[-1])
        )
        path = written(run, tmp_path / "detector.onnx", text)
        with pytest.raises(DetectorError, match="no valid JSON"):
            read_card(path)


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "[" * 99_999]
)
def test_a_number_that_is_none_is_refused_wherever_it_stands(
    text: str, full: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    for at in (
        ("training", "unknown"),
        ("quality", "auroc"),
        ("golden", "samples", 0, "score"),
        ("calibration", "review", "threshold"),
    ):
        place = json.dumps(with_value(full, at, "HERE")).replace('"HERE"', text)
        path = written(run, tmp_path / "detector.onnx", place)
        with pytest.raises(DetectorError, match=r"damaged|golden") as caught:
            read_card(path)
        assert "\n" not in str(caught.value)


def written(run: Path, out: Path, text: str) -> Path:
    """Returns a copy of a detector with another card; its graph is that of a file that
    was tried.
    """
    model = onnx.load(run / "detector.onnx")
    onnx.helper.set_model_props(model, {CARD_KEY: text})
    out.write_bytes(model.SerializeToString())
    remember(out.read_bytes())
    return out


@pytest.fixture(scope="module")
def mutated(
    full: dict[str, Any], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Returns for each wrong value a run in whose card all the places that take it, have it at
    once.
    """
    root, found = tmp_path_factory.mktemp("mutated"), {}
    for number, what in enumerate(WRONG):
        card = copy.deepcopy(full)
        # else refused
        for at in [at for at in places(full) if at[0] not in ("calibration", "golden")]:
            try:
                both = with_value(card, at, WRONG[what])
            except (KeyError, IndexError, TypeError):  # what it stood in has become something else
                continue
            if accepted(both) is not None:
                card = both
        found[what] = root / f"run{number}"
        found[what].mkdir()
        written(run, found[what] / "detector.onnx", json.dumps(card))
        shutil.copy(run / "explain.onnx", found[what])
    return found


@pytest.mark.parametrize("what", WRONG)
def test_every_command_works_on_a_file_that_is_not_refused(
    what: str,
    mutated: dict[str, Path],
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, images = mutated[what], sorted((parts / "test").rglob("*.png"))
    labelled = tmp_path / "labelled"
    for kind, image in (("good", images[0]), ("good", images[-1]), ("bent", images[1])):
        (labelled / "test" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(
            image, labelled / "test" / kind / f"A{len(list(labelled.rglob('*.png')))}_1.png"
        )
    shutil.copytree(labelled / "test" / "good", labelled / "train" / "good")
    for arguments, status in (
        (["show", str(folder)], {0}),
        (["show", str(folder), "--json"], {0}),
        (["verify", str(folder), "--device", "cpu"], {0}),
        (
            [
                "score",
                str(folder),
                str(labelled),
                "--out",
                str(tmp_path / "a.csv"),
                "--device",
                "cpu",
            ],
            {0, 3},
        ),
        (["report", str(folder), "--audit", str(tmp_path / "audit.zip")], {0}),
        (
            ["evaluate", str(folder), str(labelled), "--report", str(tmp_path / "page.html")],
            {0, 1, 3},
        ),
        (
            [
                "compare",
                str(folder),
                str(folder),
                str(labelled),
                "--report",
                str(tmp_path / "flips.html"),
            ],
            {0, 3},
        ),
    ):
        found = main(arguments)
        said = capsys.readouterr()
        assert found in status, (arguments, said.err)
        assert "Traceback" not in said.err and "\x1b" not in said.out and "\u202e" not in said.out
    new = tmp_path / "new.onnx"
    recalibrate(
        folder,
        calibrate(np.arange(40)),
        new,
        CalibrationImages(highest=["a"], count=40, groups=40),
        version="2",
    )
    assert read_card(new).parent == read_card(folder).digest


def test_a_service_answers_for_every_file_that_is_not_refused(
    mutated: dict[str, Path], parts: Path, tmp_path: Path
) -> None:
    image = next((parts / "test").rglob("*.png")).read_bytes()
    with serving(tmp_path / "log", *mutated.values()) as service:
        for folder in mutated.values():
            metadata = service.get(f"/v2/models/{folder.name}")
            answer = service.post(f"/score?detector={folder.name}", image)
            assert (metadata.status, answer.status) == (200, 200), (
                folder,
                metadata.data,
                answer.data,
            )
        assert service.get("/metrics").status == 200


def sizes(*rows: tuple[int, int, int, int, int]) -> dict[str, Any]:
    """Returns a table by size: of each row the diameter, how many are flagged, of how many, met,
    and how many scores.
    """
    names = ("pixels", "flagged", "of", "met")
    return {
        "pixel": 1.0,
        "sizes": [dict(zip(names, row, strict=False)) | {"scores": [1e6] * row[4]} for row in rows],
    }


def low_rank(card: dict[str, Any]) -> dict[str, Any]:
    found = Calibration(np.array(card["calibration"]["scores"], np.float32), 1, 0.4).to_json()
    return with_value(card, ("calibration",), found)


T = "training"
CONTRADICTIONS: dict[str, tuple[Place, Any]] = {
    "no upper bound": (("calibration", "upper_bound"), 0.0),
    "an upper bound of text": (("calibration", "upper_bound"), "1"),
    "another upper bound": (("calibration", "upper_bound"), 0.06),
    "another n": (("calibration", "n"), 61),
    "flagged more than there are": ((T, "size_sensitivity"), sizes((2, 5, 1, 0, 1))),
    "met more than flagged": ((T, "size_sensitivity"), sizes((2, 1, 1, 2, 1))),
    "met more than flagged, of several": (
        (T, "size_sensitivity"),
        sizes((2, 3, 3, 3, 3), (4, 2, 2, 3, 2)),
    ),
    "sizes that fall": ((T, "size_sensitivity"), sizes((4, 1, 1, 1, 1), (2, 1, 1, 1, 1))),
    "a size twice": ((T, "size_sensitivity"), sizes((4, 1, 1, 1, 1), (4, 1, 1, 1, 1))),
    "fewer scores than defects": ((T, "size_sensitivity"), sizes((2, 2, 3, 1, 2))),
    "more scores than defects": ((T, "size_sensitivity"), sizes((2, 2, 2, 1, 3))),
    "fewer flagged than by their scores": ((T, "size_sensitivity"), sizes((2, 1, 3, 1, 3))),
    "no pixel": ((T, "size_sensitivity", "pixel"), 0),
    "a cost of no image": ((T, "cost", "without"), []),
    "a cost of another image": ((T, "cost", "without", 0), "another.png"),
    "a cost of too many images": ((T, "cost", "without"), ["a", "b"]),
    "a cost that flags more than there are": ((T, "cost", "flagged"), 10**6),
    "a cost that now flags more than there are": ((T, "cost", "flagged_now"), 10**6),
    "a cost with other synthetic defects": ((T, "cost", "of"), 10**6),
    "a cost of an unknown number": ((T, "cost", "of"), None),
    "a cost with a threshold below all": ((T, "cost", "threshold"), -1.0),
    "a cost with another rate": ((T, "cost", "rate"), 0.5),
    "no images": ((T, "images"), 0),
    "no groups": ((T, "groups"), 0),
    "more groups than images": ((T, "groups"), 121),
    "other sets": ((T, "sets", "fit"), 1000),
    "fewer images than sets": ((T, "images"), 119),
    "more scores than images that set the threshold": ((T, "recalibrated_on"), 59),
    "not grouped": ((T, "grouped"), False),
    "units of more views than there are images": ((T, "by_unit", "least"), 4),
    "units of fewer views than there are images": ((T, "by_unit", "most"), 1),
    "units of falling views": ((T, "by_unit"), {"pattern": "a", "least": 3, "most": 2}),
    "recalibrated in words": ((T, "recalibrated"), "yesterday"),
    "moved in words": ((T, "threshold_moved"), "yesterday"),
    "moved on a day that is none": ((T, "threshold_moved"), "2026-02-30"),
    "trained in words": ((T, "created"), "last week"),
    "moved by two lines": ((T, "threshold_moved_by"), "a\nb"),
    "moved by nobody": ((T, "threshold_moved_by"), ""),
    "moved without a date": ((T, "threshold_moved"), None),
    "moved from the threshold": ((T, "threshold_moved_from"), "THRESHOLD"),
    "moved from no score": ((T, "threshold_moved_from"), 1234.5),
    "recalibrated by a blank": ((T, "recalibrated_by"), " "),
    "trained by a control": ((T, "by"), "a\x1b[2J"),
    "a figure above 1": (("quality", "auroc"), 7),
    "a figure of text": (("quality", "auroc"), "high"),
    "a rate of more than there are": (
        ("quality",),
        {"recall": {"value": 2, "low": 0, "high": 1, "flagged": 2, "n": 1}},
    ),
    "a rate of other counts": (
        ("quality",),
        {"recall": {"value": 0.9, "low": 0, "high": 1, "flagged": 1, "n": 2}},
    ),
    "an AUROC above 1": ((T, "choice", "filters"), 1.5),
    "a share above 1": ((T, "guard", "refused"), 1.5),
    "a share below 0": ((T, "guard", "noticed"), {"blurred": -0.5}),
    "another share of the mask": ((T, "mask", "share"), 0.99),
    "tiles that do not cover": ((T, "tiles", "down"), 1),
    "no tiles": ((T, "tiles", "across"), 0),
    "more tiles than pixels": ((T, "tiles", "across"), 101),
    "falling aspects": ((T, "ranges", "aspect"), [2.0, 1.0]),
    "no aspect": ((T, "ranges", "aspect"), [0.0, 1.0]),
    "falling numbers of pixels": ((T, "ranges", "pixels"), [9, 4]),
    "no bits": ((T, "ranges", "bits"), []),
    "bits twice": ((T, "ranges", "bits"), [8, 8]),
    "bits of none": ((T, "ranges", "bits"), [0]),
    "a difference below 0": ((T, "parity"), -1),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_facts_that_contradict_each_other_are_refused(what: str, full: dict[str, Any]) -> None:
    at, value = CONTRADICTIONS[what]
    wrong = full["calibration"]["threshold"] if value == "THRESHOLD" else value
    assert accepted(with_value(full, at, wrong)) is None


def test_a_rank_that_is_not_that_of_the_target_rate_is_refused_by_every_command(
    full: dict[str, Any], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(run, tmp_path / "detector.onnx", json.dumps(low_rank(full)))
    images = str(run.parent / "parts" / "test")
    for command, *others in (
        ["show"],
        ["verify"],
        ["report", "--audit", str(tmp_path / "a.zip")],
        ["check", images],
    ):
        assert main([command, str(tmp_path), *others]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        assert (
            "rank k = 1 of 60 calibration scores found, 24 by the target rate of 40 % expected"
            in said.err
        )


def test_a_target_rate_other_than_that_of_the_calibration_is_refused(run: Path) -> None:
    card = json.loads(json.dumps(read_card(run).to_json()))
    assert (
        accepted(card) is not None and accepted(with_value(card, (T, "target_rate"), 0.3)) is None
    )


@pytest.mark.parametrize("change", [1e-9, -1e-9])
def test_an_upper_bound_of_another_machine_is_read(change: float, full: dict[str, Any]) -> None:
    upper_bound = full["calibration"]["upper_bound"] * (1 + change)
    assert accepted(with_value(full, ("calibration", "upper_bound"), upper_bound)) is not None


@pytest.mark.parametrize("n", [1, 2, 19, 60, 99, 100, 199, 1000])
def test_every_threshold_that_can_be_chosen_is_read_again(n: int) -> None:
    start = calibrate(np.arange(n))
    for k in range(1, largest_rank(n) + 1):
        found = json.loads(json.dumps(with_rank(start, k).to_json()))
        assert Calibration.from_json(found).k == k
    for target_rate in (None, 0.5, 0.29, 0.07, 0.01, 0.003):
        if target_rate is None or rank(target_rate, n):
            assert (
                Calibration.from_json(
                    json.loads(json.dumps(calibrate(np.arange(n), target_rate).to_json()))
                ).target_rate
                == target_rate
            )
