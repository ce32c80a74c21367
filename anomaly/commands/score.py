"""The command `anomaly score`, with `--watch`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.commands.arguments import (
    add_device,
    command,
    number,
    say,
    shard_of,
)
from anomaly.errors import FOUND_ANOMALY, NOT_ALL_JUDGED, AnomalyError

if TYPE_CHECKING:
    from anomaly.inputs.source import Source
    from anomaly.scorer import Scorer
    from anomaly.scoring.batch import RunOptions
    from anomaly.scoring.pictures import Pictures
    from anomaly.scoring.products import Project
    from anomaly.scoring.summary import Summary


def add_score(commands: Any) -> None:
    p = command(
        commands, "score", run_score, "write a table with a row for each image",
        "anomaly score run photos/new --out scores.csv",
    )  # fmt: skip
    p.add_argument(
        "detector",
        metavar="RUN",
        help="run folder or detector file; with --project the first INPUT",
    )
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder, 'pattern/**/*.png', archive (.zip, .tar ...), manifest (.csv, .tsv, "
        ".parquet), URL of any of these (s3://, gs://, https:// ...), or - for a list of images on "
        "standard input",
    )
    p.add_argument(
        "--project",
        type=Path,
        metavar="TOML",
        action=InsteadOfRun,
        help="instead of RUN: file that assigns detectors to paths",
    )
    p.add_argument(
        "-0",
        dest="null",
        action="store_true",
        help="names on standard input end with NUL (find -print0)",
    )
    p.add_argument(
        "--shard",
        type=shard_of,
        default=(1, 1),
        metavar="I/N",
        help="only every N-th image, starting with the I-th (1/4 ... 4/4)",
    )
    p.add_argument(
        "--workers",
        type=number(1),
        metavar="N",
        help="number of threads; more than cores if reading waits for a network",
    )
    p.add_argument(
        "--keep-going",
        action="store_true",
        help="write an error row if a server is unreachable, instead of stopping",
    )
    add_outputs(p)
    p.add_argument(
        "--engine",
        choices=("threads", "ray"),
        default="threads",
        help="ray: on the cluster at RAY_ADDRESS, or on this machine",
    )
    add_device(p)
    p.add_argument(
        "--max-pixels",
        type=number(1),
        default=100_000_000,
        metavar="N",
        help="refuse larger images (100000000)",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PUB",
        help="public key; the detector must be signed with it (anomaly sign)",
    )
    p.add_argument(
        "--review",
        metavar="DB",
        help="also write the table to a review database (file or postgresql://)",
    )
    p.add_argument(
        "--fail-on-anomaly",
        action="store_true",
        help="exit with 4 if an image is flagged, or in review",
    )
    p.add_argument(
        "--watch",
        action="store_true",
        help="INPUT is a folder: judge images as they arrive, until Ctrl-C",
    )
    p.add_argument(
        "--patience", type=number(1), default=10, metavar="N",
        help="with --watch: seconds until an incomplete file gets an error row (10)",
    )  # fmt: skip


def add_outputs(p: argparse.ArgumentParser) -> None:
    """Adds what is written, and where."""
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="F",
        help="table to write: .csv, .jsonl or .parquet, or - for JSON lines",
    )
    p.add_argument(
        "--flagged",
        type=Path,
        metavar="DIR",
        help="copy flagged images, and those for review, to this folder",
    )
    p.add_argument("--link", action="store_true", help="with --flagged: link instead of copying")
    p.add_argument(
        "--heatmaps",
        type=Path,
        metavar="DIR",
        help="write the heatmaps to this folder (float32 TIFF)",
    )
    p.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="write the images with heatmap overlays to this folder (JPEG)",
    )
    p.add_argument(
        "--force", action="store_true", help="start over, even if F or a part of it exists"
    )


class InsteadOfRun(argparse.Action):
    """Takes --project: the first INPUT stands where RUN would, so that no other is required."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: Any = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        next(action for action in parser._actions if action.dest == "inputs").required = False


def run_score(options: argparse.Namespace) -> int:
    if options.project:
        take_project(options)
    if options.watch:
        return run_watch(options)
    from anomaly.detector.slow_images import SlowImages
    from anomaly.files.progress import Progress
    from anomaly.reporting.scoring import summary_text
    from anomaly.scoring.batch import score_lines, score_table
    from anomaly.scoring.rows import scorers

    lines = options.out == Path("-")
    if lines and options.review:
        raise AnomalyError(
            "--out -: --review needs a table: give a file name, or import the lines later"
        )
    project = project_of(options)
    scorer = project.products[0].scorer if project else scorer_of(options)
    refuse_lines_of_units(lines, scorer)
    passed = Counter[str]()
    sources = sources_of(options, scorer, project, passed)
    how = how_to_run(options)

    def then(summary: Summary) -> None:
        progress.finish()
        print(summary_text(summary), flush=True)
        if options.review:
            from anomaly.commands.review import import_into

            print(import_into(options.review, options.out, Path(options.detector)), flush=True)

    def tell(line: str) -> None:
        progress.finish()
        say(f"anomaly: {line}")

    with Progress(None, "scoring") as progress, closing(SlowImages(tell)) as slow:
        for one in scorers(scorer, project):
            one.watch(slow)
        if lines:
            stdout = sys.stdout.buffer
            summary = score_lines(scorer, sources, stdout, how, progress=progress, passed=passed)
        else:
            summary = score_table(
                scorer,
                sources,
                options.out,
                how,
                then=then,
                progress=progress,
                project=project,
                passed=passed,
            )
    if lines:
        say(summary_text(summary))
    return status_of(summary, options)


def take_project(options: argparse.Namespace) -> None:
    """Puts the first INPUT where it belongs: with --project there is no RUN. Raises AnomalyError
    for what a project cannot do.
    """
    options.inputs, options.detector = [options.detector, *(options.inputs or [])], None
    refuse(
        {
            "--watch": options.watch,
            "--review": options.review,
            "--engine ray": options.engine == "ray",
            "--out -": options.out == Path("-"),
        },
        "which --project cannot do: leave it out, or score each product by itself",
    )


def refuse(given: dict[str, Any], why: str) -> None:
    """Raises AnomalyError for the first option that was given."""
    for name in [name for name, value in given.items() if value]:
        raise AnomalyError(f"{name} found, {why}")


def project_of(options: argparse.Namespace) -> Project | None:
    """Returns the project that assigns detectors to paths, None where one RUN judges all."""
    if not options.project:
        return None
    from anomaly.scoring.products import read_project

    return read_project(
        options.project, device=options.device, max_pixels=options.max_pixels, key=options.key
    )


def scorer_of(options: argparse.Namespace) -> Scorer:
    """Returns who judges; the threads of the run share the cores."""
    from anomaly.scorer import Scorer

    return Scorer(
        options.detector,
        device=options.device,
        max_pixels=options.max_pixels,
        threads=1,
        key=options.key,
    )


def sources_of(
    options: argparse.Namespace, scorer: Scorer, project: Project | None, passed: Counter[str]
) -> Iterator[Source]:
    """Yields what there is to score of this shard; ``passed`` counts what is passed over."""
    from anomaly.inputs.sources import list_sources, shard
    from anomaly.scoring.rows import largest_file

    rule = scorer.card.training.by_unit
    unit_of = project.unit_of if project else None if rule is None else rule.unit_of
    number, of = options.shard
    end = b"\0" if options.null else b"\n"
    found = list_sources(options.inputs, limit=largest_file(scorer), end=end, passed=passed)
    return shard(found, number, of, unit_of)


def pictures_of(options: argparse.Namespace) -> Pictures:
    """Returns which pictures are written, and where."""
    from anomaly.scoring.pictures import Pictures

    pictures = Pictures(options.flagged, options.heatmaps, options.overlays, options.link)
    pictures.check_apart(options.inputs)
    return pictures


def how_to_run(options: argparse.Namespace) -> RunOptions:
    """Returns the options of the run itself."""
    from anomaly.scoring.batch import RunOptions, score_in_threads

    pictures = pictures_of(options)
    engine: Any = partial(score_in_threads, workers=options.workers)
    if options.engine == "ray":
        from anomaly.scoring.cluster import import_ray, score_on_ray

        import_ray()
        engine = score_on_ray
    return RunOptions(engine, pictures, options.keep_going, options.force)


def status_of(summary: Summary, options: argparse.Namespace) -> int:
    """Returns the exit status."""
    if options.fail_on_anomaly and (summary.flagged_in_all or summary.review_in_all):
        return FOUND_ANOMALY
    return NOT_ALL_JUDGED if summary.without_result else 0


def run_watch(options: argparse.Namespace) -> int:
    """Judges images as they arrive."""
    from anomaly.detector.slow_images import SlowImages
    from anomaly.files.progress import Progress
    from anomaly.inputs.watcher import check_folders as watched
    from anomaly.reporting.scoring import summary_text
    from anomaly.scoring.watch import FolderWatch, WatchOptions

    refuse(
        {
            "--review": options.review,
            "--engine ray": options.engine == "ray",
            "--shard": options.shard != (1, 1),
        },
        "which --watch cannot do: leave it out (anomaly review import takes the table later)",
    )
    folders = watched(options.inputs)
    scorer = scorer_of(options)
    lines = options.out == Path("-")
    refuse_lines_of_units(lines, scorer)
    how = WatchOptions(pictures_of(options), options.patience, options.workers, options.force)

    def tell(line: str) -> None:
        progress.finish()
        say(line)

    with Progress(None, "watching") as progress, closing(SlowImages(tell)) as slow:
        scorer.watch(slow)
        watch = FolderWatch(
            scorer,
            folders,
            options.out,
            how,
            say=tell,
            stdout=sys.stdout.buffer if lines else None,
            advance=progress.advance,
        )
        summary = watch.run()
    (say if lines else print)(summary_text(summary))
    return status_of(summary, options)


def refuse_lines_of_units(lines: bool, scorer: Any) -> None:
    """Raises AnomalyError where lines on standard output are asked for and the detector guarantees
    per unit.
    """
    if lines and scorer.card.training.by_unit:
        raise AnomalyError(
            "--out - found, but the rate of this detector is per unit, and units need a table: "
            "give a file name"
        )
