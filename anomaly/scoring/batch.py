"""Images -> score table: every core reads, decodes and judges, and a run that was killed goes on where it stopped.

While a run is under way the folder OUT.chunks holds

    run.json         what the rows depend on: detector, device, options, columns
    done.json        at the end: the same and all chunks, so that a run that is killed while it tidies up is known as done
    00001000.csv     the rows of the images from number 1000 on (the first has number 0)
    00001000.json    how many they are, the digest of their names, and what the summary counts

Each file appears whole or not at all, rows after their description, so that a chunk is there when its rows are. At the
end the chunks are joined into OUT, and the folder goes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from anomaly.detector.slow_images import now_judging
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError, ImageError
from anomaly.files.progress import Progress, duration, speed_text
from anomaly.files.table import (
    COLUMNS,
    Row,
    encode_rows,
    join_chunks,
    no_room,
    printable,
    shortest,
    table_suffix,
    utc_text,
    whole_file,
)
from anomaly.files.threads import in_order
from anomaly.imaging.decode import Decoded, mark_ours
from anomaly.imaging.listing import MARK, Passed, page_name, passed_text
from anomaly.inputs.sources import Source, as_source
from anomaly.inputs.stamps import stamp_of
from anomaly.reporting.wording import ordinary_text
from anomaly.scorer import Result, Scorer, available_cores
from anomaly.scoring.pictures import NO_PICTURES, Pictures
from anomaly.scoring.products import Project
from anomaly.scoring.units import UnitsSummary, units_table, write_units

__all__ = ["COLUMNS", "Pictures", "Summary", "largest_file", "score_lines", "score_table"]

FORMAT = 4
CHUNKS_AHEAD_PER_THREAD = 2  # chunks for each thread that wait for it or for an earlier one
CHUNK_SECONDS, LONGEST_CHUNK = 0.05, 16  # of work that a thread takes at a time, and images
HELD_BYTES = 1 << 24  # of decoded pixels that a thread holds before it judges them
SECONDS_A_CHUNK = 60.0  # of work that a kill can cost, however slow the model
LOCK_AT = 1 << 30  # where the byte lies that is locked on Windows
WHEN_IT_IS_BACK = (
    "what was finished is kept: run the same command again to go on when it is back, or with --keep-going to give such "
    "images error rows"
)
RUN, DONE, LOCK, ERROR = "run.json", "done.json", "lock", "error: "
OF = " of product "  # joins what is counted to the product that it is counted of
TRACES = (MARK, RUN, LOCK, DONE)  # removed last, in this order
PART = re.compile(r"\d{8,}\.(csv|jsonl|parquet)")
OURS = re.compile(rf"{PART.pattern}|\d{{8,}}\.json|\..*\.tmp|{re.escape(RUN)}|{re.escape(DONE)}|{LOCK}|{re.escape(MARK)}")


@dataclass(frozen=True)
class Summary:
    """What a finished table holds. ``errors``: number of images by kind. ``flagged`` is None without a threshold.

    ``expected`` and ``ordinary_up_to``: how many of the ``ok`` images would be flagged if all were good, on average and
    at most (95 %); None also where the guarantee is per unit, which ``units`` counts. ``resumed``: rows of an earlier run,
    which ``seconds`` and ``images_per_second`` leave out.
    ``products``: of a project, the same of each. ``per_unit``: the guarantee is one for units.
    ``passed_over``: what folders and archives hold besides images, by kind. ``moved``: rows of them that are no longer in
    ``out``, because another program moved or emptied it.
    ``again``: scored again, because what was kept of them, or an image, had been changed since.
    ``reading`` (with decoding) and ``judging``: seconds of all threads together that went into either.
    """

    out: Path
    images: int
    ok: int
    outside: int
    errors: dict[str, int]
    flagged: int | None
    expected: float | None
    ordinary_up_to: int | None
    resumed: int
    seconds: float
    reading: float
    judging: float
    units: UnitsSummary | None = None
    products: tuple[tuple[str, Summary], ...] = ()
    per_unit: bool = False
    passed_over: dict[str, int] = field(default_factory=dict)
    moved: int = 0
    again: int = 0

    @property
    def flagged_in_all(self) -> int:
        """Number of units flagged, and of images where the guarantee is per image."""
        images = [one.flagged or 0 for _, one in self._each() if not one.per_unit]
        return sum(images) + (self.units.flagged if self.units else 0)

    @property
    def without_verdict(self) -> int:
        """Number of units without a verdict, and of images where the guarantee is per image, or that are of no product."""
        images = [one.not_judged for _, one in self._each() if not one.per_unit]
        of_none = self.images - sum(one.images for _, one in self._each())
        return sum(images) + of_none + (self.units.not_judged if self.units else 0)

    def _each(self) -> Sequence[tuple[str, Summary]]:
        return self.products or (("flagged", self),)

    @property
    def not_judged(self) -> int:
        """Number of images without a verdict: unlike the training images, or not readable."""
        return self.outside + sum(self.errors.values())

    @property
    def images_per_second(self) -> float:
        return (self.images - self.resumed) / self.seconds if self.seconds > 0 else 0.0

    def text(self) -> str:
        """The summary in words, one fact a line, counts before percent."""
        lines = [("scored", self._scored()), *((name, one._flagged_said()) for name, one in self._each())]
        if self.not_judged:
            lines.append(("not judged", self._not_judged()))
        if self.passed_over:
            lines.append(("passed over", passed_text(self.passed_over)))
        if self.again:
            lines.append(("scored again", f"{_images(self.again)}: kept rows, or image files, were changed since the last run"))
        elsewhere = f" ({self.images - self.moved:,} rows; {self.moved:,} in tables that were moved away)" if self.moved else ""
        lines.append(("table", f"{self.out}{elsewhere}"))
        lines += self.units.rows() if self.units else []
        return printable("\n".join(f"{label:<24}{text}" for label, text in lines))

    def _scored(self) -> str:
        new = self.images - self.resumed
        pace = "reading and decoding" if self.reading > self.judging else "the model"
        how = f" ({speed_text(self.images_per_second)}; {pace} set the pace)" if new else ""
        before = f", {self.resumed:,} of them before this run" if self.resumed else ""
        return f"{_images(self.images)}{before}, in {duration(self.seconds)}{how}"

    def _flagged_said(self) -> str:
        if self.flagged is None:
            return "no threshold: this detector ranks only, without a guarantee"
        if self.expected is None or self.ordinary_up_to is None:
            return f"{self.flagged:,} of {_images(self.ok)} judged; the guarantee is per unit, not per image"
        return ordinary_text(self.flagged, self.ok, self.expected, self.ordinary_up_to)

    def _not_judged(self) -> str:
        kinds = ([("unlike the training images", self.outside)] if self.outside else []) + sorted(
            self.errors.items(), key=lambda item: (-item[1], item[0])
        )
        return f"{_images(self.not_judged)}: {', '.join(f'{n:,} {kind}' for kind, n in kinds)}; treat as not OK"


def _images(n: int) -> str:
    return f"{n:,} image{'' if n == 1 else 's'}"


@dataclass(frozen=True)
class Work:
    """What is done with every image."""

    scorer: Scorer
    keep_going: bool
    pictures: Pictures
    out: Path
    project: Project | None = None  # then its products' scorers judge

    def product_of(self, name: str) -> tuple[str, Scorer | None]:
        """Returns the product that an image of that name shows and who judges it, nobody where it is of no product."""
        if self.project is None:
            return "", self.scorer
        product = self.project.product_of(name)
        return ("", None) if product is None else (product.name, product.scorer)

    def pages(self, scorer: Scorer | None, name: str, data: bytes) -> Iterator[tuple[int | None, Decoded | ImageError]]:
        """Returns the pages that the scorer judges; ImageError where the name tells no product, or no chunk."""
        if scorer is None:
            file = "the project" if self.project is None else self.project.file.name
            raise ImageError("of no product", f"its path matches no product of {file}")
        rule = self.rules.get(scorer.card.identity)
        if rule is not None:
            rule.unit_of(name)
        return scorer.decode_pages(data)

    @cached_property
    def rules(self) -> dict[str, UnitRule | None]:
        return {scorer.card.identity: UnitRule.of(scorer.card.training) for scorer in scorers(self.scorer, self.project)}


def scorers(scorer: Scorer, project: Project | None) -> list[Scorer]:
    """Returns all who judge."""
    return [scorer] if project is None else [product.scorer for product in project.products]


Engine = Callable[["Work", Iterator[tuple[int, Source]]], Generator["Scored", None, None]]


def score_in_threads(
    work: Work, sources: Iterator[tuple[int, Source]], workers: int | None = None
) -> Generator[Scored, None, None]:
    """Yields the rows of numbered sources in order, from one thread for each core."""
    threads, chunks = workers or available_cores(), _Chunks(sources)
    with closing(in_order(partial(score_sources, work), chunks, threads, CHUNKS_AHEAD_PER_THREAD * threads)) as done:
        yield from chunks.watch(done)


def score_table(
    scorer: Scorer,
    sources: Iterable[Source | str | os.PathLike[str]],
    out: Path,
    *,
    engine: Engine = score_in_threads,
    chunk_rows: int = 1000,
    resume: bool = True,
    force: bool = False,
    keep_going: bool = False,
    pictures: Pictures = NO_PICTURES,
    then: Callable[[Summary], None] = lambda summary: None,
    progress: Progress | None = None,
    project: Project | None = None,
    passed: Passed | None = None,
) -> Summary:
    """Writes a row for every image of ``sources``, in order, to the table ``out``, and returns what it holds.

    ``sources`` may be an iterator of any length: it is read as the work goes on. An image that cannot be judged has its
    row. ``engine``: who reads, decodes and judges (default: a thread for each core; the scorer should compute with one
    thread then). A chunk of the table is safe after ``chunk_rows`` images or a minute.

    Where an image's disk or server has gone the run stops with an AnomalyError, to go on when it is back;
    ``keep_going`` gives such an image an error row.

    ``pictures`` of an image are there before its row is safe. ``then`` is called when the table is whole and before the
    traces of the run are removed: after a death in between it is called again.

    A run that was interrupted goes on; ``resume=False`` starts it over. A table that is there is an AnomalyError, as
    is an unfinished one of another detector, options or images; ``force`` replaces both. KeyboardInterrupt says in
    its message how to go on, a full disk is an AnomalyError that does.

    ``passed``: what ``sources`` counts of what it passes over, for the summary.
    ``project``: its products' detectors judge instead, each its images (not with an engine of other processes).
    """
    began, suffix, folder = time.monotonic(), table_suffix(out), out.with_name(f"{out.name}.chunks")
    judges = scorers(scorer, project)
    found = {one.card.identity: (UnitRule.of(one.card.training), one.card.calibration) for one in judges}
    rules = {identity: (rule, calibration) for identity, (rule, calibration) in found.items() if rule is not None}
    _refuse_to_overwrite(out, folder, force, bool(rules))
    for one in judges:
        pictures.check(one)
    chunks: list[_Chunk] = []
    again = 0
    reading = judging = 0.0
    with _sole_writer(out, folder), _says_how_to_go_on(folder, chunks):
        run = _run(scorer, pictures) | ({} if project is None else {"detector": project.to_json()})
        given: Iterator[Source] = map(as_source, sources)
        start_over = force or not resume
        finished = None if start_over or not out.exists() else _read_json(folder / DONE)  # the table may be gone since
        if finished is None:
            _begin(out, folder, run, pictures, start_over)
            kept, given, again = _finished_chunks(folder, suffix, given)
            chunks += kept
        else:
            chunks += _chunks_of(finished, out, folder, run, given)
        resumed, files = _rows(chunks), sum(chunk.files for chunk in chunks)
        if progress:
            progress.skip(resumed)
        if finished is None:
            with closing(engine(Work(scorer, keep_going, pictures, out, project), enumerate(given, files))) as done:
                for scored in _cut(done, chunk_rows, progress):
                    reading += sum(one.reading for one in scored)
                    judging += sum(one.judging for one in scored)
                    chunks.append(_write_chunk(out, folder, suffix, _rows(chunks), scored))
            _finish(out, folder, suffix, chunks)
        summary = _summary(scorer, out, chunks, resumed, time.monotonic() - began, reading, judging)
        summary = replace(summary, passed_over=dict(passed or {}), again=again)
        if project is not None:
            summary = replace(summary, products=_products(project, summary, chunks))
        if rules:
            with _writing(out):
                summary = replace(summary, units=write_units(out, rules, folder))
        then(summary)
        with _writing(out):
            _write_json(folder / DONE, {"run": run, "chunks": [asdict(chunk) for chunk in chunks]})
            _clear(folder, last=TRACES)
    return summary


def score_lines(
    scorer: Scorer,
    sources: Iterable[Source | str | os.PathLike[str]],
    out: BinaryIO,
    *,
    engine: Engine = score_in_threads,
    keep_going: bool = False,
    pictures: Pictures = NO_PICTURES,
    force: bool = False,
    progress: Progress | None = None,
    passed: Passed | None = None,
) -> Summary:
    """Writes a row for every image to a stream, as a line of JSON and as soon as it is known, and returns what they hold.

    There is nothing to go on from: who reads the stream keeps it. Parts are not joined. For the rest see `score_table`.
    """
    began = time.monotonic()
    pictures.check(scorer)
    pictures.begin(force)
    counts, rows, reading, judging = Counter[str](), 0, 0.0, 0.0
    work = Work(scorer, keep_going, pictures, Path("-"))
    with closing(engine(work, enumerate(map(as_source, sources)))) as done:
        for one in done:
            out.write(encode_rows(one.rows, ".jsonl"))
            out.flush()
            counts.update(one.counted)
            rows, reading, judging = rows + len(one.rows), reading + one.reading, judging + one.judging
            if progress:
                progress.advance(len(one.rows))
    chunk = _Chunk(0, rows, 0, "", dict(counts), 0, "", "")
    summary = _summary(scorer, Path("-"), [chunk], 0, time.monotonic() - began, reading, judging)
    return replace(summary, passed_over=dict(passed or {}))


def _refuse_to_overwrite(out: Path, folder: Path, force: bool, per_unit: bool) -> None:
    if out.is_dir():
        raise AnomalyError(f"{out}: a folder found, the name of a table to write expected")
    if not out.parent.is_dir():
        raise AnomalyError(f"{out.parent}: no such folder; make it first, or choose another --out")
    # With either of them there this table is being replaced, or the run was killed between its last steps.
    begun = force or (folder / RUN).exists() or (folder / DONE).exists()
    for table in (out, units_table(out)) if per_unit else (out,):
        if table.exists() and not begun:
            with suppress(OSError):  # empty, where a run was killed in its last act
                folder.rmdir()
            raise _finished(table)


def _finished(out: Path) -> AnomalyError:
    return AnomalyError(f"{out}: a finished table found; --force replaces it, or choose another --out")


# ---- images -> rows ----


@dataclass(frozen=True)
class Scored:
    """One file's rows (one for each page), what is counted of them, and the seconds that each half of the work took."""

    name: str
    rows: tuple[Row, ...]
    counted: list[str]
    reading: float
    judging: float
    stamp: str = ""


def _cut(scored: Iterable[Scored], chunk_rows: int, progress: Progress | None) -> Iterator[list[Scored]]:
    """Gathers rows into chunks of ``chunk_rows``, or of what came in a minute, or until the work was stopped."""
    held: list[Scored] = []
    due = time.monotonic() + SECONDS_A_CHUNK
    try:
        for one in scored:
            held.append(one)
            if progress:
                progress.advance(len(one.rows))
            if sum(len(one.rows) for one in held) >= chunk_rows or time.monotonic() >= due:
                # Given up before it is handed on: stopped in between, rows may be lost and scored again, never doubled.
                chunk, held = held, []
                yield chunk
                due = time.monotonic() + SECONDS_A_CHUNK
    except (Exception, KeyboardInterrupt):
        if held:
            yield held
        raise
    if held:
        yield held


class _Chunks:
    """Numbered sources in lists of ``size``, which may be changed on the way.

    What came before an exception is given out first.
    """

    def __init__(self, sources: Iterator[tuple[int, Source]]) -> None:
        self.sources = sources
        self.size = 1

    def __iter__(self) -> Iterator[list[tuple[int, Source]]]:
        chunk: list[tuple[int, Source]] = []
        try:
            for numbered in self.sources:
                chunk.append(numbered)
                if len(chunk) >= self.size:
                    yield chunk
                    chunk = []
        except Exception:
            if chunk:
                yield chunk
            raise
        if chunk:
            yield chunk

    def watch(self, done: Iterable[list[Scored]]) -> Iterator[Scored]:
        """Yields what was done one by one, and makes the next chunks as long as CHUNK_SECONDS of such work.

        So large images go one by one, and all cores have some.
        """
        for chunk in done:
            seconds = sum(one.reading + one.judging for one in chunk) / len(chunk)
            self.size = max(1, min(LONGEST_CHUNK, int(CHUNK_SECONDS / seconds)))
            yield from chunk


@dataclass(frozen=True)
class Read:
    """One image; ``data``: its file, where it may be wanted again; ``page``: of its file, None for the only one."""

    number: int
    source: Source
    sha256: str | None
    data: bytes
    image: Decoded | ImageError
    seconds: float
    product: str = ""
    scorer: Scorer | None = None  # None: the image is of no product
    page: int | None = None
    stamp: str = ""

    @property
    def name(self) -> str:
        """What the image is called in the table."""
        return page_name(printable(self.source.name), self.page)


def score_sources(work: Work, sources: Sequence[tuple[int, Source]]) -> list[Scored]:
    """Reads some images, then judges them, all in one thread.

    Where image after image is read and judged, decoder and model throw each other's data out of the processor's cache:
    with a small model and small images that took a third more time.
    """
    scored: list[tuple[int, Scored]] = []
    held: list[Read] = []
    for number, source in sources:
        for read in read_pages(work, number, source):
            held.append(read if work.pictures.flagged else replace(read, data=b""))
            if sum(one.image.pixels.nbytes for one in held if isinstance(one.image, Decoded)) > HELD_BYTES:
                scored += _judge(work, held)
                held = []
    return list(_files(scored + _judge(work, held)))


def _files(pages: Iterable[tuple[int, Scored]]) -> Iterator[Scored]:
    """Puts the pages of each file, which follow one another, together: its rows are safe together or not at all."""
    for _, numbered in groupby(pages, key=itemgetter(0)):
        first, *rest = (one for _, one in numbered)
        yield Scored(
            first.name,
            first.rows + tuple(row for one in rest for row in one.rows),
            first.counted + [name for one in rest for name in one.counted],
            first.reading + sum(one.reading for one in rest),
            first.judging + sum(one.judging for one in rest),
            first.stamp,
        )


def read_pages(work: Work, number: int, source: Source) -> Iterator[Read]:
    """Reads a file once, for its digest and the pixels of each page, which are decoded as they are asked for."""
    began = time.perf_counter()
    sha256, data, name = None, b"", printable(source.name)
    product, scorer = work.product_of(name)
    pages: Iterable[tuple[int | None, Decoded | ImageError]]
    stamp = stamp_of(source)  # before it is read: a change in between is then noticed when the run goes on
    try:
        data = source.read(largest_file(work.scorer))
        sha256 = hashlib.sha256(data).hexdigest()
        pages = work.pages(scorer, name, data)
    except ImageError as error:
        if error.kind == "unreachable" and not work.keep_going:
            raise AnomalyError(f"{name}: {error}; {WHEN_IT_IS_BACK}") from error
        pages = [(None, error)]
    for page, image in pages:
        yield Read(number, source, sha256, data, image, time.perf_counter() - began, product, scorer, page, stamp)
        began = time.perf_counter()


def largest_file(scorer: Scorer) -> int:
    """Returns how many bytes an image file may have: an uncompressed one of the most pixels, and some metadata."""
    return 8 * scorer.max_pixels + (1 << 24)


def _judge(work: Work, held: Sequence[Read]) -> list[tuple[int, Scored]]:
    """Returns the rows of pages, each with the number of its file."""
    scored: list[tuple[int, Scored]] = []
    for scorer, reads in groupby(held, lambda read: read.scorer or work.scorer):
        while some := list(islice(reads, scorer.at_most_together)):
            began = time.perf_counter()
            now_judging(some[0].name)
            results = judged(scorer, [read.image for read in some])
            rows = [recorded(work, *one) for one in zip(some, results, strict=True)]
            seconds = (time.perf_counter() - began) / len(some)
            for row, read, result in zip(rows, some, results, strict=True):
                names = counted(result)
                if read.product:
                    names += [f"{name}{OF}{read.product}" for name in names]
                scored.append((read.number, Scored(read.source.name, (row,), names, read.seconds, seconds, read.stamp)))
    return scored


def judged(scorer: Scorer, images: Sequence[Decoded | ImageError]) -> list[Result]:
    """Returns what the scorer says of images that were read, or the errors that they have instead."""
    # Decoded from bytes, an image is called "image" in the message; its path stands in the row already.
    return [
        replace(result, error=result.error.removeprefix("image: ")) if result.error else result
        for result in map(_checked, scorer.judge_all(images))
    ]


def recorded(work: Work, read: Read, result: Result) -> Row:
    """Writes an image's pictures and returns its row."""
    if isinstance(read.image, Decoded):
        with _writing(work.out):
            save = partial(work.pictures.save, read.number, read.source, read.data, read.image, result)
            save(read.scorer or work.scorer, read.page)
    return _row(read.scorer, read.name, read.sha256, result)


def _checked(result: Result) -> Result:
    """Returns the result, or an error where its score is not a finite number: nobody may take that for a verdict."""
    if result.status == "error" or (result.score is not None and math.isfinite(result.score)):
        return result
    message = f"the score is not a finite number ({result.score})"
    return Result("error", width=result.width, height=result.height, error=message, kind="not finite")


def _row(scorer: Scorer | None, name: str, sha256: str | None, result: Result) -> Row:
    x, y, width, height = result.box or (None, None, None, None)
    calibration = None if scorer is None else scorer.card.calibration
    return Row(
        path=name,
        sha256=sha256,
        width=result.width,
        height=result.height,
        score=None if result.score is None else shortest(result.score),
        p_value=result.p_value,
        threshold=None if calibration is None else shortest(float(calibration.threshold)),
        is_anomaly=result.is_anomaly if result.status == "ok" else None,
        box_x=x,
        box_y=y,
        box_w=width,
        box_h=height,
        area=result.area,
        status=result.status,
        error=None if result.error is None else printable(result.error),
        detector="none" if scorer is None else scorer.card.identity,
        scored_at=utc_text(datetime.now(UTC)),
    )


def counted(result: Result) -> list[str]:
    """Returns what a summary counts of an image."""
    if result.status == "error":
        return [f"{ERROR}{result.kind}"]
    return [result.status, "flagged"] if result.status == "ok" and result.is_anomaly else [result.status]


# ---- chunks ----


@dataclass(frozen=True)
class _Chunk:
    """A finished chunk of a table. ``first``: number of its first row; ``names``: digest of the names of its ``files``.

    ``sha256``: of its rows as they are in its file; ``stamps``: digest of what tells that a file of images was replaced.
    """

    first: int
    rows: int
    bytes: int
    names: str
    counts: dict[str, int]
    files: int
    sha256: str
    stamps: str

    @classmethod
    def of(cls, found: object) -> _Chunk | None:
        """Returns a chunk as it was written to JSON; None where that was damaged."""
        if not isinstance(found, dict) or found.keys() != cls.__dataclass_fields__.keys():
            return None
        whole = all(type(found[name]) is int and found[name] >= 0 for name in ("first", "rows", "bytes", "files"))
        text = all(isinstance(found[name], str) for name in ("names", "sha256", "stamps"))
        counts = found["counts"]
        if not whole or not text or not isinstance(counts, dict) or found["rows"] < 1:
            return None
        return cls(**found) if all(type(count) is int for count in counts.values()) else None


def _rows(chunks: Sequence[_Chunk]) -> int:
    return sum(chunk.rows for chunk in chunks)


def _run(scorer: Scorer, pictures: Pictures) -> dict[str, Any]:
    """What the rows depend on. The number of threads is not in it: scores agree whatever it is."""
    return {
        "format": FORMAT,
        "detector": scorer.card.identity,
        "device": scorer.device,
        "max_pixels": scorer.max_pixels,
        "columns": list(COLUMNS),
        "pictures": pictures.to_json(),
    }


def _begin(out: Path, folder: Path, run: dict[str, Any], pictures: Pictures, start_over: bool) -> None:
    """Makes the folder one of this run, or leaves it as it is for this run to go on."""
    found = None if start_over else _read_json(folder / RUN)
    if found is not None and found != run:
        name = next(name for name in [*run, *found] if found.get(name) != run.get(name))
        raise AnomalyError(
            f"{folder}: an unfinished run with {name} {found.get(name)} found, this one has {name} {run.get(name)}: "
            "--force starts over, another --out keeps both"
        )
    with _writing(out):
        if found is not None:
            pictures.go_on()
            return
        _clear(folder, first=(DONE, RUN))
        pictures.begin(start_over)
        _write_json(folder / RUN, run)


def _chunks_in(folder: Path, suffix: str) -> Iterator[_Chunk]:
    """Yields the chunks of an earlier run, as far as they follow each other."""
    rows = 0
    while chunk := _read_chunk(folder, suffix, rows):
        yield chunk
        rows += chunk.rows


def _finished_chunks(folder: Path, suffix: str, sources: Iterator[Source]) -> tuple[list[_Chunk], Iterator[Source], int]:
    """Returns the chunks to go on from, the sources after them, and how many images are scored again.

    The sources must be the same ones. From a chunk on that was altered, or whose images were replaced, all is scored again.
    """
    kept: list[_Chunk] = []
    for chunk in _chunks_in(folder, suffix):
        taken = list(islice(sources, chunk.files))
        if _digest(source.name for source in taken) != chunk.names:
            raise AnomalyError(
                f"{folder}: an unfinished run over other images found (among images {chunk.first + 1:,} to "
                f"{chunk.first + chunk.rows:,}): --force starts over, another --out keeps both"
            )
        if _digest(map(stamp_of, taken)) != chunk.stamps:
            sources = chain(taken, sources)
            break
        kept.append(chunk)
    return kept, sources, _rows(_described(folder, suffix, _rows(kept)))


def _described(folder: Path, suffix: str, first: int) -> list[_Chunk]:
    """Returns the chunks from image ``first`` on that were finished once, whatever became of their rows."""
    found: list[_Chunk] = []
    while (chunk := _Chunk.of(_read_json(folder / f"{first:08d}.json"))) and _chunk_files(folder, suffix, first)[0].exists():
        found.append(chunk)
        first += chunk.rows
    return found


def _same(chunk: _Chunk, sources: Iterator[Source]) -> bool:
    return _digest(source.name for source in islice(sources, chunk.files)) == chunk.names


def _chunks_of(
    finished: dict[str, Any], out: Path, folder: Path, run: dict[str, Any], sources: Iterator[Source]
) -> list[_Chunk]:
    """Returns the chunks of a finished run that was killed while it tidied up; of any other run the table is a finished one."""
    listed = finished.get("chunks")
    chunks = [chunk for chunk in map(_Chunk.of, listed if isinstance(listed, list) else []) if chunk]
    whole = finished.get("run") == run and isinstance(listed, list) and len(chunks) == len(listed)
    if whole and all(_same(chunk, sources) for chunk in chunks) and next(sources, None) is None:
        return chunks
    _clear(folder, last=TRACES)
    raise _finished(out)


def _read_chunk(folder: Path, suffix: str, first: int) -> _Chunk | None:
    rows, description = _chunk_files(folder, suffix, first)
    found = _Chunk.of(_read_json(description)) if rows.exists() else None
    return found if found and found.first == first and _is_whole(rows, found) else None


def _is_whole(rows: Path, chunk: _Chunk) -> bool:
    if rows.stat().st_size != chunk.bytes:
        return False
    with open(rows, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == chunk.sha256


def _write_chunk(out: Path, folder: Path, suffix: str, first: int, scored: Sequence[Scored]) -> _Chunk:
    rows = [row for one in scored for row in one.rows]
    data = encode_rows(rows, suffix)
    counts = Counter(name for one in scored for name in one.counted)
    names, stamps = (_digest(getattr(one, kind) for one in scored) for kind in ("name", "stamp"))
    digest = hashlib.sha256(data).hexdigest()
    chunk = _Chunk(first, len(rows), len(data), names, dict(counts), len(scored), digest, stamps)
    written, description = _chunk_files(folder, suffix, first)
    with _writing(out):
        _write_json(description, asdict(chunk))
        with whole_file(written) as file:
            file.write(data)
    return chunk


def _chunk_files(folder: Path, suffix: str, first: int) -> tuple[Path, Path]:
    return folder / f"{first:08d}{suffix}", folder / f"{first:08d}.json"


def _finish(out: Path, folder: Path, suffix: str, chunks: Sequence[_Chunk]) -> None:
    with _writing(out), whole_file(out, inside=folder) as file:
        join_chunks([_chunk_files(folder, suffix, chunk.first)[0] for chunk in chunks], suffix, file)


def _clear(folder: Path, *, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
    """Removes what a run has written, some of it first or last: what is left at any moment tells how far the run was."""
    files = list(folder.iterdir())
    foreign = [file.name for file in files if not OURS.fullmatch(file.name)]
    if foreign:
        expected = "only chunks of a table expected: move it, or choose another --out"
        raise AnomalyError(f"{folder}: {foreign[0]} found, {expected}")
    names = [*first, *(file.name for file in files if file.name not in (LOCK, MARK, *first, *last)), *last]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(content).encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    """Returns what a file holds, nothing where there is none, and an empty dict where it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ---- one writer, and what is said when it stops ----


@contextmanager
def _sole_writer(out: Path, folder: Path) -> Iterator[None]:
    """Holds the folder for this process alone; afterwards it is there only if it has chunks to go on from."""
    with _writing(out):
        folder.mkdir(exist_ok=True)
        if all(OURS.fullmatch(file.name) for file in folder.iterdir()):
            mark_ours(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        lock(handle, out)
        try:
            yield
        finally:
            if not any(PART.fullmatch(file.name) for file in folder.iterdir()):
                (folder / RUN).unlink(missing_ok=True)
                (folder / LOCK).unlink(missing_ok=True)
                (folder / MARK).unlink(missing_ok=True)
                with suppress(OSError):  # something of another's is in it
                    folder.rmdir()
    finally:
        os.close(handle)


def lock(file: int, out: Path) -> None:
    """Takes a lock that ends with this process, however it ends; none where the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, LOCK_AT, os.SEEK_SET)  # far behind the end: what is locked there nobody else may read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            what = "another process is writing this table: wait for it, or choose another --out"
            raise AnomalyError(f"{out}: {what}") from error


@contextmanager
def _says_how_to_go_on(folder: Path, chunks: Sequence[_Chunk]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not chunks:
            raise KeyboardInterrupt("stopped before the first image was scored") from None
        kept = f"stopped; {_images(_rows(chunks))} kept in {folder}"
        raise KeyboardInterrupt(f"{kept}: run the same command again (without --force) to go on") from None


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Says what could not be written, and why, in one line."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else str(out)
        where = out if named.startswith(str(out)) else named  # a picture, say
        if no_room(error):
            raise AnomalyError(
                f"{where}: no room left to write it ({error.strerror}); what was finished is kept in "
                f"{out.name}.chunks: make room and run the same command again (without --force) to go on"
            ) from error
        raise AnomalyError(f"{where}: cannot be written ({error.strerror or error}): choose another --out") from error


def _summary(
    scorer: Scorer, out: Path, chunks: Sequence[_Chunk], resumed: int, seconds: float, reading: float, judging: float
) -> Summary:
    counts = Counter({name: n for name, n in _counts(chunks).items() if OF not in name})
    return summary_of(scorer, out, counts, _rows(chunks), resumed, seconds, reading, judging)


def _counts(chunks: Sequence[_Chunk]) -> Counter[str]:
    return sum((Counter(chunk.counts) for chunk in chunks), Counter[str]())


def _products(project: Project, whole: Summary, chunks: Sequence[_Chunk]) -> tuple[tuple[str, Summary], ...]:
    """Returns each product's share of a summary, by its name."""
    counts = _counts(chunks)
    found = []
    for product in project.products:
        end = f"{OF}{product.name}"
        own = Counter({name.removesuffix(end): n for name, n in counts.items() if name.endswith(end)})
        images = sum(n for name, n in own.items() if name != "flagged")
        found.append((product.name, summary_of(product.scorer, whole.out, own, images, 0, 0.0, 0.0, 0.0)))
    return tuple(found)


def summary_of(
    scorer: Scorer, out: Path, counts: Counter[str], rows: int, resumed: int, seconds: float, reading: float, judging: float
) -> Summary:
    """Returns the summary of a table of so many rows, whose ``counts`` are the sum of what ``counted`` returned."""
    calibration, ok = scorer.card.calibration, counts["ok"]
    per_image = calibration if UnitRule.of(scorer.card.training) is None else None
    return Summary(
        out=out,
        images=rows,
        ok=ok,
        outside=counts["outside"],
        errors={name.removeprefix(ERROR): n for name, n in counts.items() if name.startswith(ERROR)},
        flagged=None if calibration is None else counts["flagged"],
        expected=None if per_image is None else per_image.expected(ok),
        ordinary_up_to=None if per_image is None else per_image.ordinary_up_to(ok),
        resumed=resumed,
        seconds=seconds,
        reading=reading,
        judging=judging,
        per_unit=calibration is not None and per_image is None,
    )
