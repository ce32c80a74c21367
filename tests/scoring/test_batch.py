from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import anomaly.scoring.batch
from anomaly.detector.card import Card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import AnomalyError, ImageError
from anomaly.files.progress import Progress
from anomaly.files.table import SUFFIXES, Row, read_table
from anomaly.imaging.decode import Decoded, DecodeRule, decode_pages
from anomaly.reporting.scoring import summary_text
from anomaly.scorer import Result
from anomaly.scoring.batch import (
    COLUMNS,
    Engine,
    Pictures,
    RunOptions,
    score_in_threads,
    score_lines,
    score_table,
)
from anomaly.scoring.run_files import DONE
from anomaly.statistics.calibration import Calibration, calibrate

LIMIT = calibrate(np.linspace(0.2, 0.6, 199))


def card(name: str = "brightness", threshold: Calibration | None = LIMIT) -> Card:
    return Card(
        name=name,
        version="1",
        model="brightness",
        space="pixels",
        size=8,
        score="mean",
        decode=DecodeRule(),
        calibration=threshold,
        training=TrainingFacts(),
        golden={},
        licences={},
        quality=None,
        parent=None,
        weights="",
        digest="00ff",
    )


@dataclass(frozen=True)
class Brightness:
    """Judges by brightness: white is anomalous. Images wider than 20 pixels are unlike the training
    images.
    """

    card: Card = field(default_factory=card)
    device: str = "cpu"
    max_pixels: int = 1_000_000
    seconds: float = 0.0  # an image takes
    at_most_together: int = 1

    def decode_pages(self, data: bytes) -> Iterator[tuple[int | None, Decoded | ImageError]]:
        return decode_pages(data, self.card.decode, self.max_pixels)

    def judge_all(self, images: Sequence[Decoded | ImageError]) -> list[Result]:
        assert len(images) <= self.at_most_together
        return [self._judge(image) for image in images]

    def _judge(self, image: Decoded | ImageError) -> Result:
        if isinstance(image, ImageError):
            return Result("error", error=str(image), kind=image.kind)
        time.sleep(self.seconds)
        score, threshold = np.float32(image.pixels.mean() / 255), self.card.calibration
        if score == 1:
            score = np.float32("nan")  # as a damaged model might say of a white image
        outside = image.width > 20
        return Result(
            status="outside" if outside else "ok",
            score=float(score),
            p_value=None if threshold is None else float(threshold.p_value(score)),
            is_anomaly=None if threshold is None else bool(threshold.is_anomaly(score)),
            width=image.width,
            height=image.height,
            box=(0, 0, image.width, image.height),
            area=image.width * image.height,
            error="wider than the training images" if outside else None,
            kind="outside" if outside else None,
        )


def threads(workers: int) -> Engine:
    """Returns the usual engine, with so many threads."""
    return partial(score_in_threads, workers=workers)


def picture(path: Path, grey: int, width: int = 8) -> Path:
    Image.new("L", (width, 6), grey).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """60 inputs, every tenth of which is not an image."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(60):
        picture(folder / f"{i:02}.png", 50 + 2 * i)
    for i in range(5, 60, 10):
        (folder / f"{i:02}.png").write_bytes(b"no image")
    return [folder / f"{i:02}.png" for i in range(60)]


def undated(table: Path) -> list[Row]:
    return [row._replace(scored_at="") for row in read_table(table)]


def test_every_input_has_its_row_in_order(tmp_path: Path) -> None:
    good, white = picture(tmp_path / "good.png", 100), picture(tmp_path / "white.png", 255)
    bright, wide = (
        picture(tmp_path / "bright.png", 200),
        picture(tmp_path / "wide.png", 100, width=30),
    )
    (tmp_path / "text.png").write_bytes(b"hello")
    paths = [good, tmp_path / "none.png", bright, wide, tmp_path / "text.png", white, tmp_path]
    summary = score_table(Brightness(), paths, tmp_path / "t.jsonl")

    def row(path: Path, *values: object) -> Row:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        left = ("review_threshold", "result", "defect_type", "type_score")
        named = [name for name in COLUMNS[2:-2] if name not in left]
        found = dict(zip(named, values, strict=True))
        said = {True: "flagged", False: "not flagged", None: "not judged"}[found["is_anomaly"]]
        return Row(
            path=str(path),
            sha256=digest,
            **found,
            review_threshold=None,
            result=said,
            defect_type=None,
            type_score=None,
            detector="brightness@1 sha256:00ff",
            scored_at="",
        )

    threshold, box = 0.5979798, (0, 0, 8, 6, 48)
    none = (None,) * 5
    assert undated(tmp_path / "t.jsonl") == [
        row(good, 8, 6, 0.39215687, 0.52, threshold, False, *box, "ok", None),
        row(
            tmp_path / "none.png",
            None,
            None,
            None,
            None,
            threshold,
            None,
            *none,
            "error",
            "no such file",
        ),
        row(bright, 8, 6, 0.78431374, 0.005, threshold, True, *box, "ok", None),
        row(
            wide,
            30,
            6,
            0.39215687,
            0.52,
            threshold,
            None,
            0,
            0,
            30,
            6,
            180,
            "outside",
            "wider than the training images",
        ),
        row(
            tmp_path / "text.png",
            None,
            None,
            None,
            None,
            threshold,
            None,
            *none,
            "error",
            "begins with b'hello', which is none of JPEG, PNG, BMP, TIFF, WEBP, GIF, PPM, DIB: "
            "convert it",
        ),
        row(
            white,
            8,
            6,
            None,
            None,
            threshold,
            None,
            *none,
            "error",
            "the score is not a finite number (nan)",
        ),
        row(
            tmp_path,
            None,
            None,
            None,
            None,
            threshold,
            None,
            *none,
            "error",
            "is a folder, an image file expected",
        ),
    ]
    assert summary.errors == {"missing": 1, "not an image": 1, "not finite": 1, "not a file": 1}
    assert (summary.images, summary.ok, summary.outside, summary.flagged, summary.not_judged) == (
        7,
        2,
        1,
        1,
        5,
    )
    assert not (tmp_path / "t.jsonl.chunks").exists()


def test_the_three_formats_hold_the_same_rows(tmp_path: Path, pictures: list[Path]) -> None:
    tables = []
    for suffix in SUFFIXES:
        score_table(Brightness(), pictures, tmp_path / f"t{suffix}")
        tables.append(undated(tmp_path / f"t{suffix}"))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(("chunk_rows", "workers"), [(1, 1), (10, 2), (1000, 5), (3, 3)])
def test_parts_and_threads_do_not_show(
    tmp_path: Path, pictures: list[Path], chunk_rows: int, workers: int
) -> None:
    score_table(Brightness(), pictures, tmp_path / "plain.csv")
    score_table(
        Brightness(),
        iter(pictures),
        tmp_path / "t.csv",
        options=RunOptions(chunk_rows=chunk_rows, engine=threads(workers)),
    )
    assert undated(tmp_path / "t.csv") == undated(tmp_path / "plain.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_images_make_an_empty_table(tmp_path: Path, suffix: str) -> None:
    summary = score_table(Brightness(), [], tmp_path / f"t{suffix}")
    assert list(read_table(tmp_path / f"t{suffix}")) == []
    assert summary_text(summary).splitlines()[1] == "flagged                 0 of 0 images judged"


def test_a_detector_without_a_threshold_stops_nothing(tmp_path: Path, pictures: list[Path]) -> None:
    summary = score_table(Brightness(card(threshold=None)), pictures, tmp_path / "t.csv")
    assert {
        (row.threshold, row.p_value, row.is_anomaly) for row in read_table(tmp_path / "t.csv")
    } == {(None,) * 3}
    assert (summary.flagged, summary.expected, summary.ordinary_up_to) == (None, None, None)
    assert (
        "flagged                 no threshold: this detector ranks only, without a guarantee"
        in summary_text(summary)
    )


def test_names_that_are_not_utf8_or_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fsencode(tmp_path) + b"/=a\xff.png"
    Path(os.fsdecode(path)).write_bytes(picture(tmp_path / "x.png", 100).read_bytes())
    monkeypatch.chdir(tmp_path)
    score_table(Brightness(), [os.fsdecode(b"=a\xff.png")], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text("utf-8").splitlines()[1].startswith("'=a%FF.png,")
    assert next(read_table(tmp_path / "t.csv")).path == "=a%FF.png"


def test_scores_are_dated_in_utc(tmp_path: Path, pictures: list[Path]) -> None:
    # A second to spare on both sides: milliseconds are rounded, and clocks are set.
    before = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 1))
    score_table(Brightness(), pictures, tmp_path / "t.jsonl")
    after = time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime(time.time() + 1))
    assert all(before <= row.scored_at <= after for row in read_table(tmp_path / "t.jsonl"))


# ---- what is there already ----


def test_a_finished_table_is_replaced_only_by_force(tmp_path: Path, pictures: list[Path]) -> None:
    out = tmp_path / "t.csv"
    score_table(Brightness(), pictures[:10], out)
    with pytest.raises(
        AnomalyError,
        match=r"t\.csv: a finished table found; --force replaces it, or choose another --",
    ):
        score_table(Brightness(), pictures, out)
    assert len(undated(out)) == 10
    score_table(Brightness(), pictures, out, options=RunOptions(force=True))
    assert len(undated(out)) == 60
    assert os.listdir(tmp_path) == ["t.csv"]


def test_an_out_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(
        AnomalyError, match=r"folder\.csv: a folder found, the name of a table to write expected$"
    ):
        score_table(Brightness(), [], tmp_path / "folder.csv")
    with pytest.raises(
        AnomalyError, match=r"none: no such folder; make it first, or choose another --out$"
    ):
        score_table(Brightness(), [], tmp_path / "none" / "t.csv")
    with pytest.raises(AnomalyError, match=r"\.xls found, \.parquet, \.csv or \.jsonl expected"):
        score_table(Brightness(), [], tmp_path / "t.xls")


class Stop(Exception):
    """The list of images ends in an error here; what it gave before is scored."""


def stopping(paths: Sequence[Path], after: int, how: type[BaseException] = Stop) -> Iterator[Path]:
    yield from paths[:after]
    raise how


def unfinished(
    out: Path, paths: Sequence[Path], after: int, scorer: Brightness | None = None
) -> Path:
    with pytest.raises(Stop):
        score_table(
            scorer or Brightness(),
            stopping(paths, after),
            out,
            options=RunOptions(chunk_rows=10, engine=threads(2)),
        )
    return out.with_name(f"{out.name}.chunks")


def test_an_unfinished_run_goes_on_where_it_stopped(tmp_path: Path, pictures: list[Path]) -> None:
    out = tmp_path / "t.csv"
    parts = unfinished(out, pictures, 37)
    assert not out.exists()
    assert sorted(file.name for file in parts.glob("*.csv")) == [
        "00000000.csv", "00000010.csv", "00000020.csv", "00000030.csv",
    ]  # fmt: skip
    kept = (parts / "00000000.csv").read_text("utf-8")
    summary = score_table(Brightness(), pictures, out, options=RunOptions(chunk_rows=7))
    assert summary.resumed == 37
    assert kept in out.read_text("utf-8")  # with its times: it was not scored again
    score_table(Brightness(), pictures, tmp_path / "plain.csv")
    assert undated(out) == undated(tmp_path / "plain.csv")
    assert summary.errors == {"not an image": 6}
    assert sorted(os.listdir(tmp_path)) == ["plain.csv", "t.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"card": card("other")},
            "detector brightness@1 sha256:00ff found, this one has detector other@1 sha256:00ff",
        ),
        ({"device": "cuda"}, "device cpu found, this one has device cuda"),
        ({"max_pixels": 7}, "max_pixels 1000000 found, this one has max_pixels 7"),
    ],
)
def test_another_detector_or_other_options_are_refused(
    tmp_path: Path, pictures: list[Path], change: dict[str, object], message: str
) -> None:
    out = tmp_path / "t.csv"
    parts = unfinished(out, pictures, 25)
    before = sorted(os.listdir(parts))
    with pytest.raises(AnomalyError) as error:
        score_table(Brightness(**change), pictures, out)  # type: ignore[arg-type]
    assert str(error.value) == (
        f"{parts}: an unfinished run with {message}: --force starts over, another --out keeps both"
    )
    assert sorted(os.listdir(parts)) == before
    score_table(Brightness(**change), pictures, out, options=RunOptions(force=True))  # type: ignore[arg-type]
    assert len(undated(out)) == 60


def test_other_images_are_refused(tmp_path: Path, pictures: list[Path]) -> None:
    out = tmp_path / "t.csv"
    parts = unfinished(out, pictures, 25)
    changed = [*pictures[:15], *pictures[16:]]
    message = (
        f"{parts}: an unfinished run over other images found (among images 11 to 20): --force "
        "starts over, another --out keeps both"
    )
    for paths in (changed, pictures[:15]):
        with pytest.raises(AnomalyError) as error:
            score_table(Brightness(), paths, out)
        assert str(error.value) == message
    score_table(Brightness(), changed, out, options=RunOptions(force=True))
    assert [row.path for row in read_table(out)] == [str(path) for path in changed]


def test_a_run_is_started_over_without_resume(tmp_path: Path, pictures: list[Path]) -> None:
    unfinished(tmp_path / "t.csv", pictures, 25)
    assert (
        score_table(
            Brightness(), pictures, tmp_path / "t.csv", options=RunOptions(resume=False)
        ).resumed
        == 0
    )


def test_a_replacement_goes_on_and_the_old_table_stays_until_then(
    tmp_path: Path, pictures: list[Path]
) -> None:
    out = tmp_path / "t.csv"
    score_table(Brightness(), pictures[:10], out)
    with pytest.raises(Stop):
        score_table(
            Brightness(), stopping(pictures, 25), out, options=RunOptions(chunk_rows=10, force=True)
        )
    assert len(undated(out)) == 10
    assert score_table(Brightness(), pictures, out).resumed == 25
    assert len(undated(out)) == 60


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 0}'])
def test_a_run_of_another_kind_is_refused(
    tmp_path: Path, pictures: list[Path], damage: str
) -> None:
    parts = unfinished(tmp_path / "t.csv", pictures, 25)
    (parts / "run.json").write_text(damage)
    with pytest.raises(
        AnomalyError, match=r"unfinished run with format (None|0) found, this one has format 4"
    ):
        score_table(Brightness(), pictures, tmp_path / "t.csv")


@pytest.mark.parametrize("at", [0, 100, -30])
def test_a_part_altered_at_the_same_size_is_scored_again_and_said(
    tmp_path: Path, pictures: list[Path], at: int
) -> None:
    """Its size tells nothing, and a changed verdict in it would be in the finished table."""
    out = tmp_path / "t.csv"
    score_table(Brightness(), pictures, tmp_path / "plain.csv")
    parts = unfinished(out, pictures, 37)
    data = bytearray((parts / "00000010.csv").read_bytes())
    data[at] ^= 1
    (parts / "00000010.csv").write_bytes(data)
    summary = score_table(Brightness(), pictures, out)
    assert (summary.resumed, summary.again) == (10, 27)
    assert undated(out) == undated(tmp_path / "plain.csv")


@pytest.mark.parametrize("change", ["content", "same size", "removed"])
def test_an_image_that_changed_before_the_run_went_on_is_scored_again(
    tmp_path: Path, pictures: list[Path], change: str
) -> None:
    folder = tmp_path / "copies"
    shutil.copytree(pictures[0].parent, folder)
    copies = [folder / path.relative_to(pictures[0].parent) for path in pictures]
    out, changed, other = tmp_path / "t.csv", copies[12], copies[14]
    unfinished(out, copies, 37)
    if change == "removed":
        changed.unlink()
    elif change == "same size":
        data = changed.read_bytes()
        changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        changed.write_bytes(other.read_bytes() + b" ")
    summary = score_table(Brightness(), copies, out)
    assert (summary.resumed, summary.again) == (10, 27)
    assert "27 images: kept rows, or image files, were changed since the last run" in summary_text(
        summary
    )
    score_table(Brightness(), copies, tmp_path / "plain.csv")
    assert undated(out) == undated(tmp_path / "plain.csv")


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"first": 10}',
        "[" * 100_000,
        '{"first":10,"rows":"x","bytes":1,"names":1,"counts":[]}',
    ],
)
@pytest.mark.parametrize("name", ["00000010.json", "done.json"])
def test_broken_notes_of_a_run_are_no_bug(
    tmp_path: Path, pictures: list[Path], name: str, damage: str
) -> None:
    out = tmp_path / "t.csv"
    parts = unfinished(out, pictures, 25)
    (parts / name).write_text(damage)
    assert score_table(Brightness(), pictures, out).images == 60
    parts.mkdir()
    (parts / name).write_text(damage)  # beside a table that is there
    with pytest.raises(AnomalyError, match="a finished table found"):
        score_table(Brightness(), pictures, out)


@pytest.mark.parametrize("name", ["00000010.csv", "00000010.json"])
def test_a_damaged_part_is_scored_again(tmp_path: Path, pictures: list[Path], name: str) -> None:
    parts = unfinished(tmp_path / "t.csv", pictures, 25)
    (parts / name).write_bytes((parts / name).read_bytes()[:-5])
    assert score_table(Brightness(), pictures, tmp_path / "t.csv").resumed == 10
    assert len(undated(tmp_path / "t.csv")) == 60


def test_what_is_not_ours_is_never_deleted(tmp_path: Path, pictures: list[Path]) -> None:
    (tmp_path / "t.csv.chunks").mkdir()
    (tmp_path / "t.csv.chunks" / "thesis.txt").write_text("only copy")
    with pytest.raises(
        AnomalyError,
        match=r"t\.csv\.chunks: thesis\.txt found, only chunks of a table expected: move",
    ):
        score_table(Brightness(), pictures, tmp_path / "t.csv", options=RunOptions(force=True))
    assert os.listdir(tmp_path / "t.csv.chunks") == ["thesis.txt"]


def test_two_runs_do_not_write_one_table(tmp_path: Path, pictures: list[Path]) -> None:
    go_on, started = threading.Event(), threading.Event()

    def paths() -> Iterator[Path]:
        started.set()
        go_on.wait(10)
        yield from pictures

    first = threading.Thread(target=score_table, args=(Brightness(), paths(), tmp_path / "t.csv"))
    first.start()
    started.wait(10)
    with pytest.raises(
        AnomalyError, match=r"t\.csv: another process is writing this table: wait for it"
    ):
        score_table(Brightness(), pictures, tmp_path / "t.csv", options=RunOptions(force=True))
    go_on.set()
    first.join()
    assert len(undated(tmp_path / "t.csv")) == 60


def test_interruption_says_how_to_go_on(tmp_path: Path, pictures: list[Path]) -> None:
    with pytest.raises(KeyboardInterrupt) as error:
        score_table(
            Brightness(),
            stopping(pictures, 35, KeyboardInterrupt),
            tmp_path / "t.csv",
            options=RunOptions(engine=threads(2)),
        )
    said = re.fullmatch(
        r"stopped; (\d+) images kept in (.*): run the same command again \(without --force\) to go "
        r"on",
        str(error.value),
    )
    assert said and said[2] == f"{tmp_path}/t.csv.chunks"
    assert score_table(Brightness(), pictures, tmp_path / "t.csv").resumed == int(said[1]) > 0


def test_interruption_before_the_first_image_leaves_nothing(
    tmp_path: Path, pictures: list[Path]
) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^stopped before the first image was scored$"):
        score_table(Brightness(), stopping(pictures, 0, KeyboardInterrupt), tmp_path / "t.csv")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_at_any_moment_doubles_and_loses_nothing(
    tmp_path: Path, pictures: list[Path]
) -> None:
    folder, out, draw = pictures[0].parent, tmp_path / "t.csv", random.Random(0)
    score_table(Brightness(), pictures, tmp_path / "whole.csv")
    for _ in range(3):
        run = start(folder, out, 1000, seconds=0.04)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(draw.uniform(0.15, 0.3))
        run.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in run.communicate()[1]
    assert score_table(Brightness(), pictures, out).resumed > 0
    assert undated(out) == undated(tmp_path / "whole.csv")


# ---- summary and progress ----


def test_progress_counts_every_image(tmp_path: Path, pictures: list[Path]) -> None:
    unfinished(tmp_path / "t.csv", pictures, 25)
    progress = Progress(60, "scoring images", quiet=True)
    score_table(Brightness(), pictures, tmp_path / "t.csv", progress=progress)
    assert progress.done == 60


# ---- memory and time ----


def test_memory_is_flat_and_a_list_is_streamed(tmp_path: Path) -> None:
    image = picture(tmp_path / "x.png", 100)
    taken, ahead = itertools.count(), []

    @dataclass(frozen=True)
    class Counting(Brightness):
        def judge_all(self, images: Sequence[Decoded | ImageError]) -> list[Result]:
            position = next(judged)
            ahead.append(last[0] - position)
            return super().judge_all(images)

    judged, last = itertools.count(), [0]

    def paths() -> Iterator[Path]:
        for _ in range(3000):
            last[0] = next(taken)
            yield image

    score_table(Counting(), paths(), tmp_path / "t.csv", options=RunOptions(engine=threads(2)))
    # two chunks at work, four that wait, one that is gathered; of 16 images
    assert max(ahead) <= (2 + 2 * 2 + 1) * 16


def test_workers_share_reading_and_judging(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Slow(Brightness):
        def decode_pages(self, data: bytes) -> Iterator[tuple[int | None, Decoded | ImageError]]:
            time.sleep(0.03)
            return super().decode_pages(data)

    paths = [picture(tmp_path / "x.png", 100)] * 40
    found = score_table(
        Slow(seconds=0.02), paths, tmp_path / "t.csv", options=RunOptions(engine=threads(4))
    )
    assert found.seconds < 40 * 0.05 * 0.8
    assert found.reading > 40 * 0.03 and found.judging > 40 * 0.02


def test_an_image_on_which_the_runtime_fails_has_its_row(
    tmp_path: Path, pictures: list[Path]
) -> None:
    @dataclass(frozen=True)
    class Failing(Brightness):
        def _judge(self, image: Decoded | ImageError) -> Result:
            if isinstance(image, Decoded) and image.pixels.mean() < 53:
                image = ImageError("runtime", "ONNX Runtime failed on this image: out of memory")
            return super()._judge(image)

    summary = score_table(Failing(), pictures, tmp_path / "t.csv")
    assert summary.errors == {"not an image": 6, "runtime": 2}
    assert (
        next(read_table(tmp_path / "t.csv")).error
        == "ONNX Runtime failed on this image: out of memory"
    )


def test_large_images_are_held_one_by_one(tmp_path: Path) -> None:
    """After small ones, when threads take 16 at a time: of 9 MB each, two at most are decoded
    before they are judged.
    """
    small, large = picture(tmp_path / "small.png", 100), tmp_path / "large.png"
    Image.new("L", (2000, 1500), 90).save(large)
    held, most = {True: 0, False: 0}, {True: 0, False: 0}

    @dataclass(frozen=True)
    class Counting(Brightness):
        max_pixels: int = 3_000_000

        def decode_pages(self, data: bytes) -> Iterator[tuple[int | None, Decoded | ImageError]]:
            for page, decoded in super().decode_pages(data):
                is_large = isinstance(decoded, Decoded) and decoded.width == 2000
                held[is_large] += 1
                most[is_large] = max(most[is_large], held[is_large])
                yield page, decoded

        def _judge(self, image: Decoded | ImageError) -> Result:
            held[isinstance(image, Decoded) and image.width == 2000] -= 1
            return super()._judge(image)

    score_table(
        Counting(),
        [small] * 300 + [large] * 32,
        tmp_path / "t.csv",
        options=RunOptions(engine=threads(1)),
    )
    assert 1 < most[False] <= 16 and most[True] <= 2


def test_slow_work_is_safe_every_minute(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anomaly.scoring.batch, "SECONDS_A_CHUNK", 0.05)
    with pytest.raises(Stop):
        score_table(Brightness(seconds=0.01), stopping(pictures, 40), tmp_path / "t.csv")
    assert score_table(Brightness(), pictures, tmp_path / "t.csv").resumed >= 20


# ---- killed, and out of room ----

KILLS = {".csv": 12, ".jsonl": 4, ".parquet": 4}


def start(
    folder: Path, out: Path, chunk_rows: int, *, seconds: float = 0, dies_before: int = 0
) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, folder, out, chunk_rows, seconds, dies_before]
    home = Path(__file__).parents[2]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(home)},
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_run_ends_like_a_whole_one(
    tmp_path: Path, pictures: list[Path], suffix: str
) -> None:
    """SIGKILL at random moments, again and again: the table is that of an undisturbed run but for
    ``scored_at``.
    """
    folder, seed = pictures[0].parent, random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    score_table(Brightness(), pictures, whole, options=RunOptions(chunk_rows=3))
    kills = 0
    while kills < KILLS[suffix]:
        run = start(folder, out, 3, seconds=0.008)
        assert run.stdout is not None
        run.stdout.readline()  # scoring has begun
        time.sleep(draw.uniform(0, 0.08))
        run.send_signal(signal.SIGKILL)
        stderr = run.communicate()[1]
        assert run.returncode in (-signal.SIGKILL, 0), stderr
        kills += run.returncode != 0
        if out.exists():  # then it is whole, and the next runs start anew
            assert undated(out) == undated(whole)
            out.unlink()
    run = start(folder, out, 3)
    stderr = run.communicate()[1]
    assert (run.returncode, stderr) == (0, "")
    assert undated(out) == undated(whole)
    assert sorted(os.listdir(tmp_path)) == sorted([whole.name, out.name])


def test_a_death_at_every_change_of_the_disk_loses_nothing(
    tmp_path: Path, pictures: list[Path]
) -> None:
    """Dies before the 1st, 2nd, 3rd ... rename or removal, each time in the middle of a fresh run,
    and goes on.
    """
    folder = pictures[0].parent
    score_table(Brightness(), pictures, tmp_path / "whole.csv", options=RunOptions(chunk_rows=25))
    for change in itertools.count(1):
        out = tmp_path / f"{change}.csv"
        run = start(folder, out, 25, dies_before=change)
        stderr = run.communicate()[1]
        assert (run.returncode, stderr) in [(9, ""), (0, "")]
        try:
            score_table(Brightness(), pictures, out, options=RunOptions(chunk_rows=25))
        except AnomalyError as error:  # it died in its last act, or not at all
            assert "a finished table found" in str(error)
        assert not (tmp_path / f"{change}.csv.chunks").exists()
        assert undated(out) == undated(tmp_path / "whole.csv")
        if run.returncode == 0:
            break
    # What another run may have left (2 files), run.json, 3 parts of 2 files, the table, done.json;
    # then all of it goes, with the mark and the lock, what an empty run may have left (3) and the
    # folder. The run that follows dies no more.
    assert change == 2 + 1 + 3 * 2 + 1 + 1 + 3 * 2 + 4 + 3 + 1 + 1


@pytest.mark.parametrize("change", [12, 15, 19])
def test_a_table_that_is_gone_after_a_death_in_the_tidying_is_made_again(
    tmp_path: Path, pictures: list[Path], change: int
) -> None:
    """What the finished run left says that it was finished: without its table that is no longer
    true.
    """
    score_table(Brightness(), pictures, tmp_path / "whole.csv", options=RunOptions(chunk_rows=25))
    out = tmp_path / "t.csv"
    run = start(pictures[0].parent, out, 25, dies_before=change)
    run.communicate()
    assert run.returncode == 9 and out.exists() and (tmp_path / "t.csv.chunks" / DONE).exists()
    out.unlink()
    score_table(Brightness(), pictures, out, options=RunOptions(chunk_rows=25))
    assert undated(out) == undated(tmp_path / "whole.csv")
    assert sorted(os.listdir(tmp_path)) == ["t.csv", "whole.csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_loses_nothing(
    small_disk: Path, tmp_path: Path, pictures: list[Path], suffix: str
) -> None:
    out, paths = small_disk / f"t{suffix}", pictures * 10
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 60_000)
    with pytest.raises(AnomalyError) as error:
        score_table(Brightness(), paths, out, options=RunOptions(chunk_rows=20))
    assert str(error.value) == (
        f"{out}: no room left to write it (No space left on device); what was finished is kept in "
        f"t{suffix}.chunks: make room and run the same command again (without --force) to go on"
    )
    assert not list(small_disk.glob("**/*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    found = score_table(Brightness(), paths, out, options=RunOptions(chunk_rows=20))
    assert found.resumed > 0
    score_table(Brightness(), paths, tmp_path / f"t{suffix}")
    assert undated(out) == undated(tmp_path / f"t{suffix}")


def test_a_quota_loses_nothing(tmp_path: Path, pictures: list[Path]) -> None:
    """A threshold on the size of files, which stops the join and none of the parts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
        with pytest.raises(
            AnomalyError, match=r"t\.csv: no room left to write it \(File too large\); what was "
        ):
            score_table(
                Brightness(), pictures, tmp_path / "t.csv", options=RunOptions(chunk_rows=10)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert score_table(Brightness(), pictures, tmp_path / "t.csv").resumed == 60
    assert len(undated(tmp_path / "t.csv")) == 60


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv.chunks").write_text("a file in the folder's place")
    with pytest.raises(
        AnomalyError, match=r"t\.csv: cannot be written \(File exists\): choose another --out$"
    ):
        score_table(Brightness(), [], tmp_path / "t.csv")


# ---- files of several pages ----


def pages(path: Path, *greys: int) -> Path:
    first, *others = (Image.new("L", (8, 6), grey) for grey in greys)
    first.save(path, save_all=True, append_images=others)
    return path


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """20 files, some of which have 2 to 40 pages; one page of one file cannot be read."""
    folder = tmp_path_factory.mktemp("paged")
    found = [pages(folder / f"{i:02}.tif", *range(50, 51 + (i % 3) * (i % 2))) for i in range(19)]
    pages(folder / "07.tif", *[200] * 40)
    found.append(pages(folder / "19.tif", 60, 61, 62))
    data = bytearray(found[-1].read_bytes())
    at = data.rindex(struct.pack("<HHIHH", 259, 3, 1, 1, 0))  # Compression of the last page
    data[at + 8 : at + 10] = struct.pack("<H", 9999)
    found[-1].write_bytes(data)
    return found


def test_every_page_has_a_row_behind_that_of_the_page_before(
    tmp_path: Path, paged: list[Path]
) -> None:
    summary = score_table(Brightness(), paged, tmp_path / "t.csv")
    rows = list(read_table(tmp_path / "t.csv"))
    expected = [
        str(path) if count == 1 else f"{path}#{page}"
        for path in paged
        for count in [pages_in(path)]
        for page in range(1, count + 1)
    ]
    assert [row.path for row in rows] == expected
    assert (summary.images, summary.errors) == (len(rows), {"damaged": 1})
    assert [row.status for row in rows[-3:]] == ["ok", "ok", "error"] and rows[
        -1
    ].is_anomaly is None
    assert [row.is_anomaly for row in rows if "07.tif" in row.path] == [True] * 40
    assert len({row.sha256 for row in rows[-3:]}) == 1  # of the file


def pages_in(path: Path) -> int:
    if path.name == "19.tif":
        return 3
    with Image.open(path) as image:
        return int(getattr(image, "n_frames", 1))


@pytest.mark.parametrize("after", [1, 8, 13])
@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
def test_a_run_over_pages_goes_on_where_it_stopped(
    tmp_path: Path, paged: list[Path], after: int, chunk_rows: int
) -> None:
    options = RunOptions(threads(2), Pictures(tmp_path / "flagged"), chunk_rows=chunk_rows)
    with pytest.raises(Stop):
        score_table(Brightness(), stopping(paged, after), tmp_path / "t.csv", options)
    summary = score_table(Brightness(), paged, tmp_path / "t.csv", options)
    score_table(Brightness(), paged, tmp_path / "plain.csv")
    assert undated(tmp_path / "t.csv") == undated(tmp_path / "plain.csv")
    assert summary.resumed == sum(map(pages_in, paged[:after]))
    # once, with all its pages
    assert [path.name for path in (tmp_path / "flagged").glob("0*")] == ["00000007-07.tif"]


def test_pages_as_lines(tmp_path: Path, paged: list[Path]) -> None:
    out = io.BytesIO()
    summary = score_lines(Brightness(), paged, out)
    score_table(Brightness(), paged, tmp_path / "plain.csv")
    paths = [json.loads(line)["path"] for line in out.getvalue().splitlines()]
    assert paths == [
        row.path for row in read_table(tmp_path / "plain.csv")
    ] and summary.images == len(paths)


def main(folder: str, out: str, chunk_rows: str, seconds: str, dies_before: str) -> None:
    """A run that tells when it begins, and dies before the given change of the disk (0: it does
    not).
    """
    changes = itertools.count(1)

    def dying(change: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **options: Any) -> None:
            if next(changes) == int(dies_before):
                os._exit(9)
            change(*arguments, **options)

        return wrapped

    os.replace, os.unlink, os.rmdir = dying(os.replace), dying(os.unlink), dying(os.rmdir)
    print("begin", flush=True)
    try:
        score_table(
            Brightness(seconds=float(seconds)),
            sorted(Path(folder).iterdir()),
            Path(out),
            options=RunOptions(chunk_rows=int(chunk_rows)),
        )
    except AnomalyError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(*sys.argv[1:])
