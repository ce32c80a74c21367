"""The command `anomaly`. Each command is thin: it reads its arguments, calls one function and prints what that returns.

Exit status 0: done. 1: could not do it, one line says why. 2: usage. 3: done, but some images could not be judged.
4: `score --fail-on-anomaly` found one. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from anomaly import __version__
from anomaly.commands.check import add_check, add_compare, add_report, add_verify
from anomaly.commands.retrain import add_mark, add_retrain
from anomaly.commands.review import add_review
from anomaly.commands.serve import add_export, add_serve
from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.inputs.labels import given_names

NOT_ALL_JUDGED, FOUND_ANOMALY = 3, 4
MODELS = (
    "auto", "linear", "autoencoder", "dense-autoencoder", "vae", "dense-vae", "gan", "pixelcnn", "boltzmann",
    "hmm", "flow",
)  # fmt: skip
DEPTHS = (10, 12, 14, 16)  # as anomaly.imaging.decode has them, which imports Pillow
SPACES = ("auto", "pixels", "filters", "features", "both", "all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    interrupts: list[int] = []
    try:
        with _noted(interrupts):
            options = parser().parse_args(given)
            options.command_line = shlex.join(["anomaly", *given])
            status: int = options.run(options) or 0
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as interrupt:
        return _stopped(str(interrupt))
    except Exception as error:
        if interrupts:  # while it was being imported, say: some libraries turn Ctrl-C into an error of their own
            return _stopped("")
        return _failed(error)


@contextmanager
def _noted(interrupts: list[int]) -> Iterator[None]:
    """Notes each Ctrl-C before it is raised."""

    def note(number: int, frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _stopped(how: str) -> int:
    say(f"anomaly: {how or 'stopped'}")
    return 130


def _failed(error: Exception) -> int:
    """Says in one line what went wrong, and returns the exit status; what is a bug is raised again."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, AnomalyError):
        say(f"anomaly: {error}")
    elif isinstance(error, OSError):
        name = error.filename
        if name is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # every file is named
            name = "standard output"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # not tried again at the end
        where = "" if name is None else f"{name}: "
        say(f"anomaly: {where}{error.strerror or error}")
    else:
        raise error
    return 1


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="anomaly",
        description="Finds what is unlike good images. Train on good images only, get one ONNX file with a guaranteed "
        "false-alarm rate, score with it.",
    )
    whole.add_argument("--version", action="version", version=f"anomaly {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        add_train, add_mark, add_retrain, add_evaluate, add_score, add_bench, add_calibrate, add_check, add_compare,
        add_show, add_verify, add_sign,
        add_report, add_sample, add_reconstruct, add_review, add_serve, add_export, add_doctor, add_demo,
    ):  # fmt: skip
        add(commands)
    return whole


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], help: str, example: str
) -> argparse.ArgumentParser:
    """Adds a command with its one-line help and an example that can be typed as it is."""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"example:  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(run=run)
    return added


def rate(text: str) -> float:
    """Reads a false-alarm rate; 0.01 and 1% are the same."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)")
    return value


def number(least: int) -> Callable[[str], int]:
    """Returns a reader of whole numbers from ``least`` on (and below 2^32, which every generator takes as a seed)."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if not least <= value < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r} found, a whole number from {least} on expected")
        return value

    return read


def shard_of(text: str) -> tuple[int, int]:
    """Reads which of how many shards: 2/4 is the second of four."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    shard, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= shard <= of:
        raise argparse.ArgumentTypeError(f"{text!r} found, one of 1/N, 2/N ... N/N expected")
    return shard, of


def check_folders(*files: Path | None) -> None:
    """Raises AnomalyError where the folder of a file to write is not there: before the work, not after it."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise AnomalyError(f"{file.parent}: no such folder; make it first, or choose another name for {file.name}")


def answer(figures: dict[str, Any], text: str, file: Path | None) -> None:
    """Prints the text, and writes the figures as JSON where a file is given; ``-`` prints the figures alone."""
    written = json.dumps(figures, indent=2)
    if file is not None and file != Path("-"):
        from anomaly.files.table import named

        with named(file):
            file.write_text(written + "\n", encoding="utf-8")
    print(written if file == Path("-") else text)


def say(line: str) -> None:
    """Prints news and warnings where they do not mix with the answer."""
    print(line, file=sys.stderr)


# --- train ------------------------------------------------------------------------------------------------------------
def add_train(commands: Any) -> None:
    p = command(
        commands, "train", run_train, "fit a model on good images, set the threshold, write RUN/detector.onnx",
        "anomaly train photos/good --out run",
    )  # fmt: skip
    p.add_argument("images", type=Path, help="folder of good images, a train/test folder, or a manifest (.csv, .tsv, .parquet)")
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    p.add_argument("--model", choices=MODELS, default="auto", help="auto: the closed-form linear autoencoder")
    p.add_argument("--space", choices=SPACES, default="auto", help="what is modelled; auto: features and filters (both)")
    p.add_argument("--quality", choices=("fast", "default", "best"), default="default", help="speed against detection")
    p.add_argument("--size", type=number(1), metavar="N", help="pixels a side that images are squashed to (256; pixels: 128)")
    p.add_argument("--error", choices=("l2", "ssim", "gradient"), help="what an autoencoder of pixels calls an error")
    p.add_argument("--score", metavar="NAME", help="what makes an image's score: hottest, mean, typicality, or the model's own")
    p.add_argument("--epochs", type=number(1), metavar="N", help="passes over the images, for models that are trained")
    p.add_argument("--seed", type=number(0), default=0, metavar="N", help="the same seed gives the same detector")
    p.add_argument("--false-alarm-rate", type=rate, metavar="R", help="share of good images flagged (default 0.01)")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--group-by", metavar="REGEX", help="images whose path matches alike (first group) are one part or lot")
    add_unit_arguments(p)
    add_good(p)
    add_independent(p)
    p.add_argument("--exclude", type=Path, metavar="FILE", help="a list of images to leave out, one path a line")
    p.add_argument("--tile", type=number(32), metavar="N", help="cut large images into tiles of N pixels a side (such as 512)")
    p.add_argument("--mask", type=Path, metavar="PNG", help="picture of any size: where it is black, images are ignored")
    p.add_argument(
        "--min-area", type=number(1), metavar="N", help="what is high in fewer pixels of the original does not count"
    )
    p.add_argument("--rank-only", action="store_true", help="order images, guarantee nothing (for very few images)")
    p.add_argument("--target", choices=("ort", "portable"), default="ort", help="portable: exact in OpenVINO too, slower")
    p.add_argument("--decode", choices=("full", "reduced"), default="full", help="reduced: large JPEG faster, in smaller scale")
    p.add_argument("--depth", type=int, choices=DEPTHS, help="true bits of 16-bit files (default: found in all of them)")
    p.add_argument("--resume", action="store_true", help="go on from RUN/checkpoint.safetensors")
    p.add_argument(
        "--dry-run", action="store_true", help="say what these images can guarantee and what would be done, and stop"
    )
    p.add_argument("--json", action="store_true", help="of --dry-run: print the figures")


def add_good(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--good", action="append", default=[], metavar="NAME",
        help="name of a folder or label of good images, where names do not tell (again, or several parted by commas)",
    )  # fmt: skip


def add_unit_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--by-unit", metavar="REGEX", help="guarantee per unit: images whose path matches alike (first group) are its views"
    )
    p.add_argument("--views", type=number(1), metavar="N", help="of --by-unit: only units with N images set the threshold")


def add_independent(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--independent",
        action="store_true",
        help="images that look alike show different parts: join only those of the same pixels",
    )


def run_train(options: argparse.Namespace) -> None:
    from anomaly.reporting.wording import card_text
    from training.options import TrainOptions

    names = (
        "images", "out", "model", "space", "quality", "size", "error", "score", "epochs", "seed", "false_alarm_rate", "device",
        "group_by", "by_unit", "views", "independent", "exclude", "tile", "mask", "min_area", "rank_only", "target", "decode",
        "depth", "resume",
    )  # fmt: skip
    given = {name: getattr(options, name) for name in names}
    chosen = TrainOptions(**given, good=given_names(options.good), command=options.command_line)
    if options.dry_run:
        from training.plan import dry_run

        plan = dry_run(chosen, say)
        print(json.dumps(plan.to_json(), indent=2) if options.json else plan.text())
        return
    card = import_training().train(chosen, say)
    if card is None:  # another process of a data-parallel run writes the detector
        return
    print(f"written                 {options.out / 'detector.onnx'}   {card.identity}")
    print(card_text(card, str(options.out)))


def import_training() -> Any:
    """Returns the module training.pipeline, or raises RuntimeMissing where torch is not installed."""
    try:
        import training.pipeline
    except ImportError as error:
        if error.name and error.name.split(".")[0] in ("anomaly", "training"):
            raise
        raise RuntimeMissing.extra(error.name or "torch", "train", "this command") from error
    return training.pipeline


# --- evaluate ---------------------------------------------------------------------------------------------------------
def add_evaluate(commands: Any) -> None:
    p = command(
        commands, "evaluate", run_evaluate, "say how good a detector is on labelled images",
        "anomaly evaluate run photos --report report.html",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("labelled", type=Path, help="a train/test folder, or a manifest with a label column")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures (- for standard output)")
    p.add_argument("--report", type=Path, metavar="FILE", help="write an HTML report with pictures")
    p.add_argument("--group-by", metavar="REGEX", help="images whose path matches alike (first group) are one part or lot")
    add_good(p)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run_evaluate(options: argparse.Namespace) -> int:
    from anomaly.quality.audit import note_check
    from anomaly.quality.evaluate import evaluate_labelled, figures_text
    from anomaly.scorer import Scorer

    check_folders(options.json, options.report)
    scorer = Scorer(options.detector, device=options.device)
    judged = evaluate_labelled(
        scorer, options.labelled, options.group_by, report=options.report, good=given_names(options.good), say=say
    )
    figures = {**judged.to_json(), "passed_over": judged.passed_over}
    note_check(options.detector, options.command_line, scorer.card, figures)
    answer(figures, figures_text(judged), options.json)
    return NOT_ALL_JUDGED if judged.evaluation.not_inspected else 0


# --- score ------------------------------------------------------------------------------------------------------------
def add_score(commands: Any) -> None:
    p = command(
        commands, "score", run_score, "write a table with a row for each image",
        "anomaly score run photos/new --out scores.csv",
    )  # fmt: skip
    p.add_argument("detector", metavar="RUN", help="run folder or detector file; with --project the first INPUT")
    p.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="image, folder, 'pattern/**/*.png', archive (.zip, .tar ...), manifest (.csv, .tsv, .parquet), URL of any of "
        "these (s3://, gs://, https:// ...), or - for a list of images on standard input",
    )  # fmt: skip
    p.add_argument(
        "--project", type=Path, metavar="TOML", action=InsteadOfRun, help="instead of RUN: which detector judges which paths"
    )
    p.add_argument("-0", dest="null", action="store_true", help="the list of - ends each name by NUL (find -print0)")
    p.add_argument(
        "--shard", type=shard_of, default=(1, 1), metavar="I/N", help="only every N-th image from the I-th on (1/4 ... 4/4)"
    )
    p.add_argument("--workers", type=number(1), metavar="N", help="threads: more than cores where reading waits for a network")
    p.add_argument("--keep-going", action="store_true", help="an image whose server has gone gets a row; else the run stops")
    p.add_argument(
        "--out", type=Path, required=True, metavar="F", help="table to write: .csv, .jsonl or .parquet, or - for JSON lines"
    )
    p.add_argument("--flagged", type=Path, metavar="DIR", help="copy flagged images there")
    p.add_argument("--link", action="store_true", help="links instead of copies")
    p.add_argument("--heatmaps", type=Path, metavar="DIR", help="write each image's heatmap there (float32 TIFF)")
    p.add_argument("--overlays", type=Path, metavar="DIR", help="write each image with its heatmap laid over it there (JPEG)")
    p.add_argument("--force", action="store_true", help="start over, even if F or a part of it is there")
    p.add_argument(
        "--engine", choices=("threads", "ray"), default="threads", help="ray: on the cluster of RAY_ADDRESS, or here"
    )
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--max-pixels", type=number(1), default=100_000_000, metavar="N", help="refuse larger images (100000000)")
    p.add_argument("--key", type=Path, metavar="PUB", help="a public key by which the detector must be signed: anomaly sign")
    p.add_argument("--review", metavar="DB", help="also put the table into a review database (file or postgresql://)")
    p.add_argument("--fail-on-anomaly", action="store_true", help="exit with 4 if an image is anomalous")
    p.add_argument("--watch", action="store_true", help="INPUT is a folder: judge images as they arrive, until Ctrl-C")
    p.add_argument(
        "--patience", type=number(1), default=10, metavar="N",
        help="of --watch: seconds after which a file that is not whole gets an error row (10)",
    )  # fmt: skip


class InsteadOfRun(argparse.Action):
    """Takes --project: the first INPUT stands where RUN would, so that no other is required."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, values)
        next(action for action in parser._actions if action.dest == "inputs").required = False


def run_score(options: argparse.Namespace) -> int:
    if options.project:  # there is no RUN then
        options.inputs, options.detector = [options.detector, *(options.inputs or [])], None
        refused = {"--watch": options.watch, "--review": options.review, "--engine ray": options.engine == "ray"}
        refused["--out -"] = options.out == Path("-")
        for name in [name for name, given in refused.items() if given]:
            raise AnomalyError(f"{name} found, which --project cannot do: leave it out, or score each product by itself")
    if options.watch:
        return run_watch(options)
    from anomaly.detector.slow_images import SlowImages
    from anomaly.detector.unit_rule import UnitRule
    from anomaly.files.progress import Progress
    from anomaly.inputs.sources import list_sources, shard
    from anomaly.scorer import Scorer
    from anomaly.scoring.batch import Pictures, Summary, largest_file, score_in_threads, score_lines, score_table

    lines = options.out == Path("-")
    if lines and options.review:
        raise AnomalyError("--out -: --review needs a table: give a file name, or import the lines later")
    project = None
    if options.project:
        from anomaly.scoring.products import read_project

        project = read_project(options.project, device=options.device, max_pixels=options.max_pixels, key=options.key)
        scorer = project.products[0].scorer
    else:
        scorer = Scorer(options.detector, device=options.device, max_pixels=options.max_pixels, threads=1, key=options.key)
    end = b"\0" if options.null else b"\n"
    rule = UnitRule.of(scorer.card.training)
    refuse_lines_of_units(lines, scorer)
    unit_of = project.unit_of if project else None if rule is None else rule.unit_of
    number, of = options.shard
    passed = Counter[str]()
    sources = shard(list_sources(options.inputs, limit=largest_file(scorer), end=end, passed=passed), number, of, unit_of)
    pictures = Pictures(options.flagged, options.heatmaps, options.overlays, options.link)
    pictures.check_apart(options.inputs)
    engine = partial(score_in_threads, workers=options.workers)
    shared: dict[str, Any] = {
        "keep_going": options.keep_going, "pictures": pictures, "force": options.force, "engine": engine,
        "passed": passed,
    }  # fmt: skip
    if options.engine == "ray":
        from anomaly.scoring.cluster import import_ray, score_on_ray

        import_ray()
        shared["engine"] = score_on_ray

    def then(summary: Summary) -> None:
        progress.finish()
        print(summary.text(), flush=True)
        if options.review:
            from anomaly.commands.review import import_into

            print(import_into(options.review, options.out, Path(options.detector)), flush=True)

    def tell(line: str) -> None:
        progress.finish()
        say(f"anomaly: {line}")

    with Progress(None, "scoring") as progress, closing(SlowImages(tell)) as slow:
        for one in [product.scorer for product in project.products] if project else [scorer]:
            one.watch(slow)
        if lines:
            summary = score_lines(scorer, sources, sys.stdout.buffer, progress=progress, **shared)
        else:
            summary = score_table(scorer, sources, options.out, then=then, progress=progress, project=project, **shared)
    if lines:
        say(summary.text())
    if options.fail_on_anomaly and summary.flagged_in_all:
        return FOUND_ANOMALY
    return NOT_ALL_JUDGED if summary.without_verdict else 0


def run_watch(options: argparse.Namespace) -> int:
    """Judges images as they arrive."""
    from anomaly.detector.slow_images import SlowImages
    from anomaly.files.progress import Progress
    from anomaly.inputs.arrivals import check_folders as watched
    from anomaly.scorer import Scorer
    from anomaly.scoring.pictures import Pictures
    from anomaly.scoring.watch import FolderWatch

    refused = {"--review": options.review, "--engine ray": options.engine == "ray", "--shard": options.shard != (1, 1)}
    for name in [name for name, given in refused.items() if given]:
        raise AnomalyError(f"{name} found, which --watch cannot do: leave it out (anomaly review import takes the table later)")
    folders = watched(options.inputs)
    scorer = Scorer(options.detector, device=options.device, max_pixels=options.max_pixels, threads=1, key=options.key)
    lines = options.out == Path("-")
    refuse_lines_of_units(lines, scorer)
    pictures = Pictures(options.flagged, options.heatmaps, options.overlays, options.link)
    pictures.check_apart(options.inputs)

    def tell(line: str) -> None:
        progress.finish()
        say(line)

    with Progress(None, "watching") as progress, closing(SlowImages(tell)) as slow:
        scorer.watch(slow)
        watch = FolderWatch(
            scorer,
            folders,
            options.out,
            pictures=pictures,
            say=tell,
            patience=options.patience,
            workers=options.workers,
            stdout=sys.stdout.buffer if lines else None,
            advance=progress.advance,
            force=options.force,
        )
        summary = watch.run()
    (say if lines else print)(summary.text())
    if options.fail_on_anomaly and summary.flagged_in_all:
        return FOUND_ANOMALY
    return NOT_ALL_JUDGED if summary.without_verdict else 0


def refuse_lines_of_units(lines: bool, scorer: Any) -> None:
    """Raises AnomalyError where lines on standard output are asked for and the detector guarantees per unit."""
    if lines and scorer.card.training.get("by_unit"):
        raise AnomalyError("--out - found, but this detector guarantees per unit, and units need a table: give a file name")


# --- bench ------------------------------------------------------------------------------------------------------------
def add_bench(commands: Any) -> None:
    p = command(
        commands, "bench", run_bench, "say how fast a detector scores images here, and what bounds it",
        "anomaly bench run photos/new",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("inputs", nargs="+", metavar="IMAGES", help="as for score; up to 64 of the first 1,000 are used")
    p.add_argument("--seconds", type=number(1), default=30, metavar="N", help="of measuring throughput (30)")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures (- for standard output)")


def run_bench(options: argparse.Namespace) -> None:
    from anomaly.inputs.sources import list_sources
    from anomaly.quality.bench import bench

    check_folders(options.json)
    found = bench(options.detector, list_sources(options.inputs), device=options.device, seconds=options.seconds)
    answer(found.to_json(), found.text(), options.json)


# --- calibrate --------------------------------------------------------------------------------------------------------
def add_calibrate(commands: Any) -> None:
    p = command(
        commands, "calibrate", run_calibrate, "set a new threshold from good images, without training",
        "anomaly calibrate run --normal photos/good_new_lot --out run2/detector.onnx",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--normal", type=Path, metavar="DIR", help="good images that training did not see")
    p.add_argument("--verdicts", metavar="DB", help="instead: images of a review's audit sample that were judged normal")
    p.add_argument("--run", type=int, dest="run_number", metavar="N", help="of the review's run N (default: the newest)")
    p.add_argument("--out", type=Path, metavar="FILE", help="detector to write (default: RUN/detector-VERSION.onnx)")
    p.add_argument("--false-alarm-rate", type=rate, metavar="R", help="share of good images flagged (default 0.01)")
    p.add_argument("--group-by", metavar="REGEX", help="images whose path matches alike (first group) are one part or lot")
    add_unit_arguments(p)
    add_good(p)
    add_independent(p)
    p.add_argument("--target", choices=("ort", "portable"), default="ort", help="portable: exact in OpenVINO too, slower")
    p.add_argument("--seed", type=number(0), default=0, metavar="N", help="of the draw of one image from each group")
    p.add_argument("--accept-worse", action="store_true", help="write it even where the guaranteed rate gets worse")
    p.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write before and after as JSON (- or nothing: print)",
    )


def run_calibrate(options: argparse.Namespace) -> None:
    import tempfile

    from anomaly.detector.file import read_card
    from anomaly.detector.unit_rule import UnitRule
    from anomaly.files.left_out import left_out_lines
    from anomaly.quality.before_after import Guarantee, rows, table, worse
    from anomaly.quality.recalibrate import recalibrate_on
    from anomaly.reporting.wording import card_text

    if (options.normal is None) == (options.verdicts is None):
        raise AnomalyError("calibrate takes good images from one place: give --normal DIR or --verdicts DB")
    check_folders(options.json)
    old = read_card(options.detector)
    if options.verdicts and (options.by_unit or UnitRule.of(old.training)):
        raise AnomalyError("--verdicts and units found: an audit sample draws images: give whole units by --normal DIR")
    with tempfile.TemporaryDirectory(prefix="anomaly-") as folder:
        manifest = Path(folder) / "audited.csv"
        normal = options.normal or audited(options.verdicts, options.run_number, manifest)
        card, out, left_out = recalibrate_on(
            options.detector,
            normal,
            out=options.out,
            target_rate=options.false_alarm_rate,
            group_by=options.group_by,
            seed=options.seed,
            portable=options.target == "portable",
            by_unit=options.by_unit,
            views=options.views,
            accept_worse=options.accept_worse,
            known=versions_in(options.verdicts) if options.verdicts else (),
            good=given_names(options.good),
            say=say,
            independent=options.independent,
        )
    if options.verdicts:
        note_threshold(options.verdicts, options.run_number, card, out)
    before, after = Guarantee.of(old), Guarantee.of(card)
    for line in left_out_lines(left_out):
        say(line)
    changed = {"before": before.to_json(), "after": after.to_json(), "worse": worse(before, after)}
    made = {"detector": card.identity, "path": str(out), "left_out": left_out}
    text = f"written                 {out}   {card.identity}\n{card_text(card, str(out))}\n{table(rows(before, after))}"
    answer(changed | made, text, options.json)


def versions_in(database: str) -> list[tuple[str, str]]:
    """Returns name and version of all detectors that a review database knows."""
    from anomaly.review import Store

    with Store(database, create=False) as store:
        return store.identities()


def note_threshold(database: str, run: int | None, card: Any, out: Path) -> None:
    """Notes in a review's log that a threshold was set by its audit sample, so that its version is not given again."""
    from anomaly.detector.file import user
    from anomaly.review import Store, default_key

    with Store(database, create=False) as store:
        store.set_threshold(
            run or store.runs()[0].id, float(card.calibration.threshold), by=user(), key=default_key(), detector=card.digest,
            path=str(out.resolve()), identity=(card.name, card.version),
        )  # fmt: skip


def audited(database: str, run: int | None, manifest: Path) -> Path:
    """Writes and returns a manifest of the images that may set a threshold: those of the audit sample judged normal.

    Verdicts on flagged images were selected by their score: they would ratchet the threshold up until the detector is blind.
    """
    from anomaly.review import Store
    from anomaly.review.exports import write_calibration_manifest

    with Store(database, create=False) as store:
        runs = store.runs()
        if not runs:
            raise AnomalyError(f"{database}: no run found; import a score table first: anomaly review import TABLE")
        done = write_calibration_manifest(store, run or runs[0].id, manifest)
    if not done.written:
        raise AnomalyError(
            f"{database}: no image of an audit sample was judged normal; draw one (anomaly review audit) and judge it, or "
            "give good images by --normal. Verdicts on flagged images cannot set a threshold: they were selected by score"
        )
    return manifest


# --- show, verify, doctor ---------------------------------------------------------------------------------------------
def add_show(commands: Any) -> None:
    p = command(commands, "show", run_show, "say what a detector is and what it guarantees", "anomaly show run")
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--json", action="store_true", help="print the whole card")


def run_show(options: argparse.Namespace) -> None:
    from anomaly.detector.file import read_card
    from anomaly.imaging.mask import mask_said
    from anomaly.reporting.wording import card_text, guard_text, more_text

    card = read_card(options.detector)
    if options.json:
        print(json.dumps({**card.to_json(), "digest": card.digest}, indent=2))
        return
    training = card.training
    sets = training.get("sets", {})
    chosen = ", ".join(f"{name} {auroc:.3f}" for name, auroc in (training.get("choice") or {}).items())
    rows = [
        ("detector", card.identity),
        ("model", f"{card.model} on {card.space}, {card.size} x {card.size} pixels; score: {card.score}"),
        ("trained", f"{training.get('created')} on {training.get('images')} good images, {training.get('groups')} groups: "
                    + ", ".join(f"{count} {name}" for name, count in sets.items())),
        ("space chosen", chosen and f"{card.space}; AUROC on synthetic defects: {chosen}"),
        ("mask", mask_said(training)),
        ("input guard", guard_text(training.get("guard"))),
        ("command", training.get("command")),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in card.licences.items())),
        ("parent", card.parent),
    ]  # fmt: skip
    rows += [("warning", line) for line in training.get("warnings", [])]
    lines = [f"{label:<24}{text}" for label, text in rows if text] + card_text(card, str(options.detector)).splitlines()
    lines += more_text(card)
    for line in lines:  # a card from elsewhere may hold what moves a terminal's cursor
        print("".join(char if char.isprintable() else "?" for char in line))


def add_sign(commands: Any) -> None:
    p = command(
        commands, "sign", run_sign, "sign a detector, so that others can tell it is yours", "anomaly sign run --key key.pem"
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--key", type=Path, required=True, metavar="PEM", help="private key: openssl genpkey -algorithm ed25519")


def run_sign(options: argparse.Namespace) -> None:
    from anomaly.detector.signature import sign

    print(f"written                 {sign(options.detector, options.key)}   keep it beside the detector")


def add_doctor(commands: Any) -> None:
    p = command(commands, "doctor", run_doctor, "say what is installed and what really works here", "anomaly doctor")
    p.add_argument("--json", action="store_true")


def run_doctor(options: argparse.Namespace) -> int:
    from anomaly.quality.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([{"what": f.what, "found": f.found, "ok": f.ok} for f in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else '-- '} {finding.what:<28}{finding.found}")
    return 0 if all(finding.ok for finding in findings if finding.needed) else 1


# --- sample, reconstruct, demo ----------------------------------------------------------------------------------------
def add_sample(commands: Any) -> None:
    p = command(
        commands,
        "sample",
        run_sample,
        "draw new images from a generative model",
        "anomaly sample run --out samples.png",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument("--count", type=number(1), default=16, metavar="N")
    p.add_argument("--seed", type=number(0), default=0, metavar="N")


def run_sample(options: argparse.Namespace) -> None:
    import_training()
    from anomaly.reporting.report import grid, save_png
    from training.restore import sample

    check_folders(options.out)
    pictures = sample(options.detector, options.count, options.seed)
    save_png(options.out, grid(pictures, columns=max(1, round(len(pictures) ** 0.5))))
    print(f"written                 {options.out}   {len(pictures)} images drawn from the model, none of them is real")


def add_reconstruct(commands: Any) -> None:
    p = command(
        commands, "reconstruct", run_reconstruct, "show images beside what the model expected",
        "anomaly reconstruct run photos/new --out pairs.png",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("images", type=Path, help="image, folder or manifest")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument("--count", type=number(1), default=8, metavar="N", help="of images at the most")


def run_reconstruct(options: argparse.Namespace) -> int:
    from anomaly.quality.evaluate import reconstructions
    from anomaly.reporting.report import save_png
    from anomaly.scorer import Scorer

    check_folders(options.out)
    if options.images.is_dir() and Path(os.path.realpath(options.out)).is_relative_to(os.path.realpath(options.images)):
        raise AnomalyError(f"--out {options.out}: lies among the images, and would be judged as one; choose another folder")
    picture, shown, errors = reconstructions(Scorer(options.detector), options.images, options.count)
    for line in errors:
        say(line)
    save_png(options.out, picture)
    print(f"written                 {options.out}   {shown} images: original, expected, heatmap")
    return NOT_ALL_JUDGED if errors else 0


def add_demo(commands: Any) -> None:
    p = command(
        commands,
        "demo",
        run_demo,
        "the main job on real images, to the end (in a checkout of the repository)",
        "anomaly demo",
    )
    p.add_argument("--data", choices=("solar-cells", "synthetic"), default="solar-cells")
    p.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")


def run_demo(options: argparse.Namespace) -> None:
    import_training()
    from training.demo import demo

    demo(options.data, options.out)


if __name__ == "__main__":
    raise SystemExit(main())
