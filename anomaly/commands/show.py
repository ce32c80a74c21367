"""The command `anomaly show`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command


def add_show(commands: Any) -> None:
    p = command(
        commands,
        "show",
        run_show,
        "describe a detector and what it guarantees",
        "anomaly show run",
    )
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
    sets, mask = training.sets or {}, training.mask
    chosen = ", ".join(f"{name} {auroc:.3f}" for name, auroc in (training.choice or {}).items())
    rows = [
        ("detector", card.identity),
        (
            "model",
            f"{card.model} on {card.space}, {card.size} x {card.size} pixels; score: {card.score}",
        ),
        (
            "trained",
            (f"{training.created} on {training.images} good images, {training.groups} groups: ")
            + ", ".join(f"{count} {name}" for name, count in sets.items()),
        ),
        ("space chosen", chosen and f"{card.space}; AUROC on synthetic defects: {chosen}"),
        ("mask", mask and mask_said(mask.file, mask.share)),
        ("input guard", guard_text(training.guard)),
        ("command", training.command),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in card.licences.items())),
        ("parent", card.parent),
    ]
    rows += [("warning", line) for line in training.warnings or ()]
    lines = [f"{label:<24}{text}" for label, text in rows if text] + card_text(
        card, str(options.detector)
    ).splitlines()
    lines += more_text(card)
    for line in lines:  # a card from elsewhere may hold what moves a terminal's cursor
        print("".join(char if char.isprintable() else "?" for char in line))
