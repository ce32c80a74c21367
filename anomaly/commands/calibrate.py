"""The command `anomaly calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.commands.arguments import (
    add_draw_seed,
    add_good,
    add_group_by,
    add_independent,
    add_rate,
    add_target,
    add_unit_arguments,
    answer,
    check_folders,
    command,
    finite,
    review_rate,
    say,
)
from anomaly.errors import AnomalyError
from anomaly.training_options import given_names

if TYPE_CHECKING:
    from anomaly.detector.card import Card
    from anomaly.quality.recalibrate import Asked, GoodImages

# options that say how good images set a threshold, and their values where they are not given
OF_IMAGES = ("false_alarm_rate", "group_by", "by_unit", "views", "good", "independent", "target")
UNSET: tuple[object, ...] = (None, [], False, "ort")


def add_calibrate(commands: Any) -> None:
    p = command(
        commands,
        "calibrate",
        run_calibrate,
        "set a new threshold from good images, or a second one for review, without training",
        "anomaly calibrate run --normal photos/good_new_lot --out run2/detector.onnx",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--normal", type=Path, metavar="DIR", help="good images not used in training")
    p.add_argument(
        "--verdicts",
        metavar="DB",
        help="instead: images of a review's audit sample with the verdict normal",
    )
    p.add_argument(
        "--run",
        type=int,
        dest="run_number",
        metavar="N",
        help="run of the review (default: the newest)",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="detector to write (default: RUN/detector-VERSION.onnx)",
    )
    add_rate(p)
    p.add_argument(
        "--review-rate",
        type=review_rate,
        metavar="R",
        help="second threshold: at most this rate of good images is flagged or for review (such "
        "as 0.05; 0: none); without --normal, set by RUN's own calibration scores",
    )
    p.add_argument(
        "--review-threshold",
        type=finite,
        metavar="S",
        help="instead: the second threshold as a score; its rate is then an estimate",
    )
    add_group_by(p)
    add_unit_arguments(p)
    add_good(p)
    add_independent(p)
    add_target(p)
    add_draw_seed(p)
    p.add_argument(
        "--accept-worse",
        action="store_true",
        help="write it even if the guarantee gets worse",
    )
    p.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write the figures before and after as JSON (default: standard output)",
    )


def run_calibrate(options: argparse.Namespace) -> None:
    from anomaly.detector.file import read_card
    from anomaly.detector.guarantee import Guarantee
    from anomaly.files.left_out import left_out_lines
    from anomaly.quality.before_after import worse
    from anomaly.reporting.detector import card_text
    from anomaly.reporting.guarantee import change_rows, changes_text
    from anomaly.reporting.lines import line_of

    check_folders(options.json)
    old = read_card(options.detector)
    card, out, left_out = calibrated(options, old)
    if options.verdicts:
        note_threshold(options.verdicts, options.run_number, card, out)
    before, after = Guarantee.of(old), Guarantee.of(card)
    for line in left_out_lines(left_out):
        say(line)
    changed = {"before": before.to_json(), "after": after.to_json(), "worse": worse(before, after)}
    made = {"detector": card.identity, "path": str(out), "left_out": left_out}
    text = (
        f"{line_of('written', f'{out}   {card.identity}')}\n{card_text(card, str(out))}\n"
        f"{changes_text(change_rows(before, after))}"
    )
    answer(changed | made, text, options.json)


def calibrated(options: argparse.Namespace, old: Card) -> tuple[Card, Path, list[str]]:
    """Writes the new detector; returns its card, its path and what was left out."""
    import tempfile

    from anomaly.detector.file import user
    from anomaly.quality.moved_threshold import write_review_threshold
    from anomaly.quality.recalibrate import Asked, recalibrate_on

    asked = Asked(options.false_alarm_rate, options.review_rate, options.review_threshold)
    check_place(options, old, asked)
    if options.normal is None and options.verdicts is None:
        review = asked.review_of(None)
        return *write_review_threshold(options.detector, options.out, by=user(), **review), []
    with tempfile.TemporaryDirectory(prefix="anomaly-") as folder:
        manifest = Path(folder) / "audited.csv"
        normal = options.normal or audited(options.verdicts, options.run_number, manifest)
        return recalibrate_on(
            options.detector,
            good_images(options, normal),
            out=options.out,
            asked=asked,
            portable=options.target == "portable",
            accept_worse=options.accept_worse,
            known=versions_in(options.verdicts) if options.verdicts else (),
            say=say,
        )


def check_place(options: argparse.Namespace, old: Card, asked: Asked) -> None:
    """Raises AnomalyError unless the good images come from one place, or only the review threshold
    is asked for.
    """
    if asked.review_rate is not None and asked.review_score is not None:
        raise AnomalyError("--review-rate and --review-threshold found, one of them expected")
    places = (options.normal is not None) + (options.verdicts is not None)
    review_alone = asked.review_rate is not None or asked.review_score is not None
    if places == 2 or (not places and not review_alone):
        raise AnomalyError(
            "calibrate takes good images from one place: give --normal DIR or --verdicts DB; or "
            "neither, with --review-rate R or --review-threshold S alone, to set the second "
            "threshold by the detector's own calibration scores"
        )
    idle = [] if places else [name for name in OF_IMAGES if getattr(options, name) not in UNSET]
    if idle:
        raise AnomalyError(
            f"--{idle[0].replace('_', '-')} found, but no good images: give --normal DIR or "
            "--verdicts DB"
        )
    if options.verdicts and (options.by_unit or old.training.by_unit):
        raise AnomalyError(
            "--verdicts and units found: an audit sample draws images: give whole units by "
            "--normal DIR"
        )


def good_images(options: argparse.Namespace, place: Path) -> GoodImages:
    """Returns the good images that set the threshold."""
    from anomaly.quality.recalibrate import GoodImages

    return GoodImages(
        place,
        given_names(options.good),
        options.group_by,
        options.seed,
        options.by_unit,
        options.views,
        options.independent,
    )


def versions_in(database: str) -> list[tuple[str, str]]:
    """Returns name and version of all detectors that a review database knows."""
    from anomaly.review import Store

    with Store(database, create=False) as store:
        return store.identities()


def note_threshold(database: str, run: int | None, card: Any, out: Path) -> None:
    """Notes in a review's log that a threshold was set by its audit sample, so that its version is
    not given again.
    """
    from anomaly.detector.file import user
    from anomaly.review import Store, default_key

    with Store(database, create=False) as store:
        store.set_threshold(
            run or store.runs()[0].id,
            float(card.calibration.threshold),
            by=user(),
            key=default_key(),
            detector=card.digest,
            path=str(out.resolve()),
            identity=(card.name, card.version),
        )


def audited(database: str, run: int | None, manifest: Path) -> Path:
    """Writes and returns a manifest of the images that may set a threshold: those of the audit
    sample judged normal.

    Verdicts on flagged images were selected by their score: they would ratchet the threshold up
    until the detector is blind.
    """
    from anomaly.review import Store
    from anomaly.review.exports import write_calibration_manifest

    with Store(database, create=False) as store:
        runs = store.runs()
        if not runs:
            raise AnomalyError(
                f"{database}: no run found; import a score table first: anomaly review import TABLE"
            )
        done = write_calibration_manifest(store, run or runs[0].id, manifest)
    if not done.written:
        raise AnomalyError(
            f"{database}: no image of an audit sample was judged normal; draw one (anomaly review "
            "audit) and judge it, or give good images by --normal. Verdicts on flagged images "
            "cannot set a threshold: they were selected by score"
        )
    return manifest
