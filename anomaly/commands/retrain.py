"""The command `anomaly retrain`: train again without the images marked as defects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.commands.arguments import command, say
from anomaly.learning import import_training

if TYPE_CHECKING:
    from anomaly.detector.card import Card


def add_retrain(commands: Any) -> None:
    """Adds `retrain` to the command line."""
    p = command(
        commands,
        "retrain",
        run_retrain,
        "train a run again without the images marked as defects",
        "anomaly retrain run --out run2",
        "train a run again by the options of its card, without the images marked as "
        "defects and their groups",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="NEW", help="folder to write")
    p.add_argument(
        "--images",
        type=Path,
        metavar="IMAGES",
        help="where the images are now (default: as in training)",
    )
    p.add_argument(
        "--only",
        type=Path,
        metavar="FILE",
        help="leave out only these (one path per line), each marked as a defect",
    )
    p.add_argument("--json", action="store_true", help="print before and after as JSON")


def run_retrain(options: argparse.Namespace) -> None:
    """Trains again, and says before and after."""
    import_training()
    from training.retrain import train_again

    old, new = train_again(
        options.detector,
        options.out,
        images=options.images,
        only=options.only,
        command=options.command_line,
        say=say,
    )
    say_change(old, new, options.out, as_json=options.json)


def say_change(old: Card, new: Card, out: Path, as_json: bool = False) -> None:
    """Prints what a new detector guarantees and flags, beside the one that it was made from."""
    from anomaly.detector.guarantee import Guarantee
    from anomaly.reporting.detector import card_text
    from anomaly.reporting.guarantee import change_rows, changes_text
    from anomaly.reporting.lines import line_of

    before, after = Guarantee.of(old), Guarantee.of(new)
    defects = [flagged_of(card) for card in (old, new)]
    if as_json:
        figures = [
            {**g.to_json(), "flagged_synthetic": d}
            for g, d in zip((before, after), defects, strict=True)
        ]
        print(
            json.dumps(
                {"before": figures[0], "after": figures[1], "detector": new.identity}, indent=2
            )
        )
        return
    print(line_of("written", f"{out / 'detector.onnx'}   {new.identity}"))
    print(card_text(new, str(out)))
    said = ["unknown" if d is None else f"{d[0]:,} of {d[1]:,}" for d in defects]
    print(
        changes_text(
            [*change_rows(before, after), ("synthetic defects", said[0], f"{said[1]} flagged")]
        )
    )


def flagged_of(card: Card) -> tuple[int, int] | None:
    """Returns how many synthetic defects a detector flags, of how many, by its card; None where
    that is not known.
    """
    sizes = card.training.size_sensitivity
    if card.calibration is None or sizes is None:
        return None
    return sizes.flagged(float(card.calibration.threshold))
