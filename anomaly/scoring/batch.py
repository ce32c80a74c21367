"""Images -> score table: every core reads, decodes and judges, and a run that was killed goes on
where it stopped.

While a run is under way the folder OUT.chunks holds

    run.json         what the rows depend on: detector, device, options, columns
    done.json        at the end: the same and all chunks, so that a run that is killed while it
                     tidies up is known as done
    00001000.csv     the rows of the images from number 1000 on (the first has number 0)
    00001000.json    how many they are, the digest of their names, and what the summary counts

Each file appears whole or not at all, rows after their description, so that a chunk is there when
its rows are. At the end the chunks are joined into OUT, and the folder goes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from anomaly.detector.session import available_cores
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError
from anomaly.files.numbers import images_text
from anomaly.files.progress import Progress
from anomaly.files.table import (
    COLUMNS,
    COUNTED,
    encode_rows,
    table_suffix,
)
from anomaly.files.threads import in_order
from anomaly.imaging.listing import Passed
from anomaly.inputs.source import Source
from anomaly.inputs.sources import as_source
from anomaly.scorer import Scorer
from anomaly.scoring.locks import sole_writer
from anomaly.scoring.pictures import NO_PICTURES, Pictures
from anomaly.scoring.products import Project
from anomaly.scoring.rows import Scored, Work, largest_file, score_sources, scorers
from anomaly.scoring.run_files import DONE, OF, RUN, TRACES, already_finished, says_when_unwritable
from anomaly.scoring.summary import Summary, summary_of
from anomaly.scoring.table_chunks import (
    TableChunk,
    begin_run,
    chunks_of,
    clear_folder,
    finish_table,
    finished_chunks,
    read_json,
    row_count,
    write_chunk,
    write_json,
)
from anomaly.scoring.units import units_table, write_units
from anomaly.statistics.calibration import Calibration

__all__ = ["COLUMNS", "Pictures", "Summary", "largest_file", "score_lines", "score_table"]

FORMAT = 4
CHUNKS_AHEAD_PER_THREAD = 2  # chunks for each thread that wait for it or for an earlier one
CHUNK_SECONDS, MAX_CHUNK_IMAGES = 0.05, 16  # of work that a thread takes at a time, and images
SECONDS_A_CHUNK = 60.0  # of work that a kill can cost, however slow the model


Engine = Callable[["Work", Iterator[tuple[int, Source]]], Generator["Scored", None, None]]


def score_in_threads(
    work: Work, sources: Iterator[tuple[int, Source]], workers: int | None = None
) -> Generator[Scored, None, None]:
    """Yields the rows of numbered sources in order, from one thread for each core."""
    threads, chunks = workers or available_cores(), _Chunks(sources)
    with closing(
        in_order(partial(score_sources, work), chunks, threads, CHUNKS_AHEAD_PER_THREAD * threads)
    ) as done:
        yield from chunks.watch(done)


@dataclass(frozen=True)
class RunOptions:
    """How a run scores images.

    ``engine``: who reads, decodes and judges (default: a thread for each core; the scorer should
    compute with one thread then). ``pictures`` of an image are there before its row is safe.

    Where an image's disk or server has gone the run stops with an AnomalyError, to go on when it is
    back; ``keep_going`` gives such an image an error row.

    A run that was interrupted goes on; ``resume=False`` starts it over. A table that is there is an
    AnomalyError, as is an unfinished one of another detector, options or images; ``force`` replaces
    both. A chunk of the table is safe after ``chunk_rows`` images or a minute.
    """

    engine: Engine = score_in_threads
    pictures: Pictures = NO_PICTURES
    keep_going: bool = False
    force: bool = False
    resume: bool = True
    chunk_rows: int = 1000


DEFAULTS = RunOptions()


def score_table(
    scorer: Scorer,
    sources: Iterable[Source | str | os.PathLike[str]],
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    then: Callable[[Summary], None] = lambda summary: None,
    progress: Progress | None = None,
    project: Project | None = None,
    passed: Passed | None = None,
) -> Summary:
    """Writes a row for every image of ``sources``, in order, to the table ``out``, and returns what
    it holds.

    ``sources`` may be an iterator of any length: it is read as the work goes on. An image that
    cannot be judged has its row. ``then`` is called when the table is whole and before the traces
    of the run are removed: after a death in between it is called again. ``passed``: what
    ``sources`` counts of what it passes over, for the summary. ``project``: its products' detectors
    judge instead, each its images (not with an engine of other processes).

    KeyboardInterrupt says in its message how to go on, a full disk is an AnomalyError that does.
    """
    began, _ = time.monotonic(), table_suffix(out)
    folder = out.with_name(f"{out.name}.chunks")
    work = Work(scorer, options.keep_going, options.pictures, out, project)
    judges = scorers(scorer, project)
    rules = _unit_rules(judges)
    _refuse_to_overwrite(out, folder, options.force, bool(rules))
    for one in judges:
        options.pictures.check(one)
    chunks: list[TableChunk] = []
    with sole_writer(out, folder), _says_how_to_go_on(folder, chunks):
        run = _what_rows_depend_on(work)
        added = _score_missing(work, map(as_source, sources), options, run, chunks, progress)
        summary = _summary(scorer, out, chunks, added, time.monotonic() - began)
        summary = replace(summary, passed_over=dict(passed or {}), again=added.again)
        if project is not None:
            summary = replace(summary, products=_products(project, summary, chunks))
        if rules:
            with says_when_unwritable(out):
                summary = replace(summary, units=write_units(out, rules, folder))
        then(summary)
        with says_when_unwritable(out):
            write_json(folder / DONE, {"run": run, "chunks": [asdict(chunk) for chunk in chunks]})
            clear_folder(folder, last=TRACES)
    return summary


def _unit_rules(judges: Sequence[Scorer]) -> dict[str, tuple[UnitRule, Calibration | None]]:
    """Returns the rule and calibration of each detector that guarantees per unit."""
    return {
        one.card.identity: (one.card.training.by_unit, one.card.calibration)
        for one in judges
        if one.card.training.by_unit is not None
    }


@dataclass(frozen=True)
class _Added:
    """What a run added to what was there: ``resumed`` rows were, ``again`` images were scored once
    more; seconds of reading and judging of all threads together.
    """

    resumed: int = 0
    again: int = 0
    reading: float = 0.0
    judging: float = 0.0


def _score_missing(
    work: Work,
    sources: Iterator[Source],
    options: RunOptions,
    run: dict[str, Any],
    chunks: list[TableChunk],
    progress: Progress | None,
) -> _Added:
    """Scores the images that no chunk holds yet, and joins all chunks into the table.

    ``chunks``: gets those that are there, and then each one that is written.
    """
    out, suffix = work.out, table_suffix(work.out)
    folder = out.with_name(f"{out.name}.chunks")
    start_over = options.force or not options.resume
    # the table may be gone since
    finished = None if start_over or not out.exists() else read_json(folder / DONE)
    again, files = 0, 0
    if finished is None:
        begin_run(out, folder, run, options.pictures, start_over)
        kept, sources, again = finished_chunks(folder, suffix, sources)
        chunks += kept
        files = sum(chunk.files for chunk in kept)
    else:
        chunks += chunks_of(finished, out, folder, run, sources)
    resumed, reading, judging = row_count(chunks), 0.0, 0.0
    if progress:
        progress.skip(resumed)
    if finished is None:
        with closing(options.engine(work, enumerate(sources, files))) as done:
            for scored in _cut(done, options.chunk_rows, progress):
                reading += sum(one.reading for one in scored)
                judging += sum(one.judging for one in scored)
                chunks.append(write_chunk(out, folder, suffix, row_count(chunks), scored))
        finish_table(out, folder, suffix, chunks)
    return _Added(resumed, again, reading, judging)


def score_lines(
    scorer: Scorer,
    sources: Iterable[Source | str | os.PathLike[str]],
    out: BinaryIO,
    options: RunOptions = DEFAULTS,
    *,
    progress: Progress | None = None,
    passed: Passed | None = None,
) -> Summary:
    """Writes a row for every image to a stream, as a line of JSON and as soon as it is known, and
    returns what they hold.

    There is nothing to go on from: who reads the stream keeps it. Units are not joined. For the
    rest see `score_table`.
    """
    began = time.monotonic()
    options.pictures.check(scorer)
    options.pictures.begin(options.force)
    counts, rows, reading, judging = Counter[str](), 0, 0.0, 0.0
    work = Work(scorer, options.keep_going, options.pictures, Path("-"))
    with closing(options.engine(work, enumerate(map(as_source, sources)))) as done:
        for one in done:
            out.write(encode_rows(one.rows, ".jsonl"))
            out.flush()
            counts.update(one.counted)
            rows += len(one.rows)
            reading += one.reading
            judging += one.judging
            if progress:
                progress.advance(len(one.rows))
    chunk = TableChunk(0, rows, 0, "", dict(counts), 0, "", "")
    added = _Added(reading=reading, judging=judging)
    summary = _summary(scorer, Path("-"), [chunk], added, time.monotonic() - began)
    return replace(summary, passed_over=dict(passed or {}))


def _refuse_to_overwrite(out: Path, folder: Path, force: bool, per_unit: bool) -> None:
    if out.is_dir():
        raise AnomalyError(f"{out}: a folder found, the name of a table to write expected")
    if not out.parent.is_dir():
        raise AnomalyError(f"{out.parent}: no such folder; make it first, or choose another --out")
    # With either of them there this table is being replaced, or the run was killed between its last
    # steps.
    begun = force or (folder / RUN).exists() or (folder / DONE).exists()
    for table in (out, units_table(out)) if per_unit else (out,):
        if table.exists() and not begun:
            with suppress(OSError):  # empty, where a run was killed in its last act
                folder.rmdir()
            raise already_finished(table)


# ---- images -> rows ----


def _cut(
    scored: Iterable[Scored], chunk_rows: int, progress: Progress | None
) -> Iterator[list[Scored]]:
    """Gathers rows into chunks of ``chunk_rows``, or of what came in a minute, or until the work
    was stopped.
    """
    held, rows = list[Scored](), 0
    due = time.monotonic() + SECONDS_A_CHUNK
    try:
        for one in scored:
            held.append(one)
            rows += len(one.rows)
            if progress:
                progress.advance(len(one.rows))
            if rows >= chunk_rows or time.monotonic() >= due:
                # Given up before it is handed on: stopped in between, rows may be lost and scored
                # again, never doubled.
                chunk, held, rows = held, [], 0
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
        """Yields what was done one by one, and makes the next chunks as long as CHUNK_SECONDS of
        such work.

        So large images go one by one, and all cores have some.
        """
        for chunk in done:
            seconds = sum(one.reading + one.judging for one in chunk) / len(chunk)
            self.size = max(1, min(MAX_CHUNK_IMAGES, int(CHUNK_SECONDS / seconds)))
            yield from chunk


# ---- chunks ----


def _what_rows_depend_on(work: Work) -> dict[str, Any]:
    """The number of threads is not in it: scores agree whatever it is."""
    return {
        "format": FORMAT,
        "detector": work.scorer.card.identity,
        "device": work.scorer.device,
        "max_pixels": work.scorer.max_pixels,
        "columns": list(COLUMNS),
        "pictures": work.pictures.to_json(),
        **({} if work.project is None else {"detector": work.project.to_json()}),
    }


# ---- one writer, and what is said when it stops ----


@contextmanager
def _says_how_to_go_on(folder: Path, chunks: Sequence[TableChunk]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not chunks:
            raise KeyboardInterrupt("stopped before the first image was scored") from None
        kept = f"stopped; {images_text(row_count(chunks))} kept in {folder}"
        raise KeyboardInterrupt(
            f"{kept}: run the same command again (without --force) to go on"
        ) from None


def _summary(
    scorer: Scorer, out: Path, chunks: Sequence[TableChunk], added: _Added, seconds: float
) -> Summary:
    counts = Counter({name: n for name, n in _counts(chunks).items() if OF not in name})
    rows = row_count(chunks)
    return summary_of(
        scorer, out, counts, rows, added.resumed, seconds, added.reading, added.judging
    )


def _counts(chunks: Sequence[TableChunk]) -> Counter[str]:
    return sum((Counter(chunk.counts) for chunk in chunks), Counter[str]())


def _products(
    project: Project, whole: Summary, chunks: Sequence[TableChunk]
) -> tuple[tuple[str, Summary], ...]:
    """Returns each product's share of a summary, by its name."""
    counts = _counts(chunks)
    found = []
    for product in project.products:
        end = f"{OF}{product.name}"
        own = Counter(
            {name.removesuffix(end): n for name, n in counts.items() if name.endswith(end)}
        )
        images = sum(n for name, n in own.items() if name not in COUNTED)
        found.append(
            (product.name, summary_of(product.scorer, whole.out, own, images, 0, 0.0, 0.0, 0.0))
        )
    return tuple(found)
