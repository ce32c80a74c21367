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
    given_names,
    say,
)
from anomaly.errors import AnomalyError

if TYPE_CHECKING:
    from anomaly.quality.recalibrate import GoodImages


def add_calibrate(commands: Any) -> None:
    p = command(
        commands,
        "calibrate",
        run_calibrate,
        "set a new threshold from good images, without training",
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
    import tempfile

    from anomaly.detector.file import read_card
    from anomaly.detector.guarantee import Guarantee
    from anomaly.files.left_out import left_out_lines
    from anomaly.quality.before_after import worse
    from anomaly.quality.recalibrate import recalibrate_on
    from anomaly.reporting.detector import card_text
    from anomaly.reporting.guarantee import change_rows, changes_text
    from anomaly.reporting.lines import line_of

    if (options.normal is None) == (options.verdicts is None):
        raise AnomalyError(
            "calibrate takes good images from one place: give --normal DIR or --verdicts DB"
        )
    check_folders(options.json)
    old = read_card(options.detector)
    if options.verdicts and (options.by_unit or old.training.by_unit):
        raise AnomalyError(
            "--verdicts and units found: an audit sample draws images: give whole units by "
            "--normal DIR"
        )
    with tempfile.TemporaryDirectory(prefix="anomaly-") as folder:
        manifest = Path(folder) / "audited.csv"
        normal = options.normal or audited(options.verdicts, options.run_number, manifest)
        card, out, left_out = recalibrate_on(
            options.detector,
            good_images(options, normal),
            out=options.out,
            target_rate=options.false_alarm_rate,
            portable=options.target == "portable",
            accept_worse=options.accept_worse,
            known=versions_in(options.verdicts) if options.verdicts else (),
            say=say,
        )
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
