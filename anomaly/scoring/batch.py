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
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from anomaly.detector.session import available_cores
from anomaly.errors import AnomalyError
from anomaly.files.numbers import images_text
from anomaly.files.progress import Progress
from anomaly.files.table import (
    COLUMNS,
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

__all__ = ["COLUMNS", "Pictures", "Summary", "largest_file", "score_lines", "score_table"]

FORMAT = 4
CHUNKS_AHEAD_PER_THREAD = 2  # chunks for each thread that wait for it or for an earlier one
CHUNK_SECONDS, LONGEST_CHUNK = 0.05, 16  # of work that a thread takes at a time, and images
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
    """Writes a row for every image of ``sources``, in order, to the table ``out``, and returns what
    it holds.

    ``sources`` may be an iterator of any length: it is read as the work goes on. An image that
    cannot be judged has its row. ``engine``: who reads, decodes and judges (default: a thread for
    each core; the scorer should compute with one thread then). A chunk of the table is safe after
    ``chunk_rows`` images or a minute.

    Where an image's disk or server has gone the run stops with an AnomalyError, to go on when it is
    back; ``keep_going`` gives such an image an error row.

    ``pictures`` of an image are there before its row is safe. ``then`` is called when the table is
    whole and before the traces of the run are removed: after a death in between it is called again.

    A run that was interrupted goes on; ``resume=False`` starts it over. A table that is there is an
    AnomalyError, as is an unfinished one of another detector, options or images; ``force`` replaces
    both. KeyboardInterrupt says in its message how to go on, a full disk is an AnomalyError that
    does.

    ``passed``: what ``sources`` counts of what it passes over, for the summary.
    ``project``: its products' detectors judge instead, each its images (not with an engine of other
    processes).
    """
    began, suffix, folder = time.monotonic(), table_suffix(out), out.with_name(f"{out.name}.chunks")
    judges = scorers(scorer, project)
    found = {one.card.identity: (one.card.training.by_unit, one.card.calibration) for one in judges}
    rules = {
        identity: (rule, calibration)
        for identity, (rule, calibration) in found.items()
        if rule is not None
    }
    _refuse_to_overwrite(out, folder, force, bool(rules))
    for one in judges:
        pictures.check(one)
    chunks: list[TableChunk] = []
    again = 0
    reading = judging = 0.0
    with sole_writer(out, folder), _says_how_to_go_on(folder, chunks):
        run = _run(scorer, pictures) | ({} if project is None else {"detector": project.to_json()})
        given: Iterator[Source] = map(as_source, sources)
        start_over = force or not resume
        # the table may be gone since
        finished = None if start_over or not out.exists() else read_json(folder / DONE)
        if finished is None:
            begin_run(out, folder, run, pictures, start_over)
            kept, given, again = finished_chunks(folder, suffix, given)
            chunks += kept
        else:
            chunks += chunks_of(finished, out, folder, run, given)
        resumed, files = row_count(chunks), sum(chunk.files for chunk in chunks)
        if progress:
            progress.skip(resumed)
        if finished is None:
            with closing(
                engine(Work(scorer, keep_going, pictures, out, project), enumerate(given, files))
            ) as done:
                for scored in _cut(done, chunk_rows, progress):
                    reading += sum(one.reading for one in scored)
                    judging += sum(one.judging for one in scored)
                    chunks.append(write_chunk(out, folder, suffix, row_count(chunks), scored))
            finish_table(out, folder, suffix, chunks)
        summary = _summary(scorer, out, chunks, resumed, time.monotonic() - began, reading, judging)
        summary = replace(summary, passed_over=dict(passed or {}), again=again)
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
    """Writes a row for every image to a stream, as a line of JSON and as soon as it is known, and
    returns what they hold.

    There is nothing to go on from: who reads the stream keeps it. Parts are not joined. For the
    rest see `score_table`.
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
            rows, reading, judging = (
                rows + len(one.rows),
                reading + one.reading,
                judging + one.judging,
            )
            if progress:
                progress.advance(len(one.rows))
    chunk = TableChunk(0, rows, 0, "", dict(counts), 0, "", "")
    summary = _summary(scorer, Path("-"), [chunk], 0, time.monotonic() - began, reading, judging)
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
    held: list[Scored] = []
    due = time.monotonic() + SECONDS_A_CHUNK
    try:
        for one in scored:
            held.append(one)
            if progress:
                progress.advance(len(one.rows))
            if sum(len(one.rows) for one in held) >= chunk_rows or time.monotonic() >= due:
                # Given up before it is handed on: stopped in between, rows may be lost and scored
                # again, never doubled.
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
        """Yields what was done one by one, and makes the next chunks as long as CHUNK_SECONDS of
        such work.

        So large images go one by one, and all cores have some.
        """
        for chunk in done:
            seconds = sum(one.reading + one.judging for one in chunk) / len(chunk)
            self.size = max(1, min(LONGEST_CHUNK, int(CHUNK_SECONDS / seconds)))
            yield from chunk


# ---- chunks ----


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
    scorer: Scorer,
    out: Path,
    chunks: Sequence[TableChunk],
    resumed: int,
    seconds: float,
    reading: float,
    judging: float,
) -> Summary:
    counts = Counter({name: n for name, n in _counts(chunks).items() if OF not in name})
    return summary_of(scorer, out, counts, row_count(chunks), resumed, seconds, reading, judging)


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
        images = sum(n for name, n in own.items() if name != "flagged")
        found.append(
            (product.name, summary_of(product.scorer, whole.out, own, images, 0, 0.0, 0.0, 0.0))
        )
    return tuple(found)
