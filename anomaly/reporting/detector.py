"""What a detector is, in words, by its card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from anomaly.detector.guarantee import Guarantee
from anomaly.detector.size_sensitivity import Cost, SizeSensitivity
from anomaly.detector.training_facts import (
    BackboneFacts,
    GuardFacts,
    MaskFacts,
    TileFacts,
    TrainingFacts,
)
from anomaly.files.numbers import percent
from anomaly.reporting.guarantee import guarantee_text, more_rows, preview_text, review_lines
from anomaly.reporting.known_defects import known_defect_lines
from anomaly.reporting.lines import line_of, lines_of
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.prospect import Calibrating

if TYPE_CHECKING:
    from anomaly.detector.card import Card


def detector_lines(card: Card, run: str) -> list[str]:
    """Returns what a detector is, what it was trained on and what it guarantees, a line each;
    ``run``: what the user calls it.
    """
    training = card.training
    sets = training.sets or {}
    rows = [
        ("detector", card.identity),
        (
            "model",
            f"{card.model} on {card.space}, {view_text(card)}; score: {card.score}",
        ),
        ("heatmap", heatmap_text(card.heatmap)),
        (
            "trained",
            (f"{training.created} on {training.images} good images, {training.groups} groups: ")
            + ", ".join(f"{count} {name}" for name, count in sets.items()),
        ),
        ("chosen", choice_text(training.choice)),
        ("backbone", backbone_text(training.backbone)),
        ("mask", mask_text(training.mask)),
        ("training range", guard_text(training.guard)),
        ("expected picture", expected_text(training)),
        ("command", training.command),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in card.licences.items())),
        ("parent", card.parent),
    ]
    rows += [("warning", line) for line in training.warnings or ()]
    known = [(label, said) for label, said in rows if said]
    return [*lines_of(known), *card_text(card, run).splitlines(), *more_lines(card)]


RECIPES_SHOWN = 3
FRAMES = {
    "whole": "the whole image",
    "part": "cropped to the part",
    "axis": "the part with its axis level",
    "match": "the part turned to match the training images",
}


def heatmap_text(heatmap: Calibration | None) -> str:
    """Returns what colours, outline and box go by, where the heatmap has a unit of its own."""
    if heatmap is None:
        return ""
    return (
        f"in a unit of its own: outlined from {float(heatmap.threshold):.4g} on; a typical good "
        f"image has {float(heatmap.median):.4g} at its hottest place"
    )


def expected_text(training: TrainingFacts) -> str:
    """Returns that there is no picture of what the model expected, where it was left out."""
    left_out = training.options is not None and training.options.expected_picture is False
    return "none: trained with --no-expected-picture" if left_out else ""


def view_text(card: Card) -> str:
    """Returns what of an image the model sees, and how large."""
    recipe = card.training.recipe
    if recipe is None or card.space == "pixels":
        return f"{card.size} x {card.size} pixels"
    words = [
        f"{recipe.width} x {recipe.height} pixels",
        FRAMES.get(recipe.frame, recipe.frame),
        f"{recipe.columns} x {recipe.rows} cells",
    ]
    words += ["exposure normalised"] if recipe.normalised else []
    return ", ".join(words)


def choice_text(choice: Mapping[str, float] | None) -> str:
    """Returns how the best recipes did of those that one was chosen from; empty: none was."""
    if not choice:
        return ""
    best = sorted(choice.items(), key=lambda entry: -entry[1])[:RECIPES_SHOWN]
    figures = "; ".join(f"{name}: {auroc:.3f}" for name, auroc in best)
    return f"of {len(choice)} recipes by their AUROC on synthetic defects, the best: {figures}"


def backbone_text(facts: BackboneFacts | None) -> str:
    """Returns which network the features are of, where the user chose one."""
    if facts is None:
        return ""
    return f"{facts.name}, stages {', '.join(facts.stages)}; weights sha256 {facts.sha256}"


def card_text(card: Card, run: str) -> str:
    """Returns what a detector's card guarantees, or estimates; ``run``: what the user calls the
    detector.
    """
    if card.calibration is None:
        return line_of(
            "rank only",
            "orders images by score; there is no threshold, so nothing is guaranteed",
        )
    facts = card.training
    images = facts.recalibrated_on or facts.images or card.calibration.n
    rule = facts.by_unit
    text = preview_text(card.calibration, facts, run) or guarantee_text(
        card.calibration,
        images,
        highest=facts.highest or (),
        grouped=bool(facts.grouped),
        run=run,
        views="" if rule is None else rule.views,
        known_defects=facts.known_defects is not None,
    )
    tiles = tiles_text(facts.tiles, card.size)
    return "\n".join(
        [
            text,
            *known_defect_lines(facts, run),
            *_cost(card, run),
            *review_lines(Guarantee.of(card)),
            *([line_of("tiles", tiles)] if tiles else []),
            *size_sensitivity_lines(facts),
        ]
    )


def _cost(card: Card, run: str) -> list[str]:
    """Returns what the images that set the threshold cost if they are defects, and where they are
    looked at; lines.
    """
    cost, calibration = card.training.cost, card.calibration
    said = "" if calibration is None else cost_text(cost, float(calibration.threshold))
    if not said or cost is None or card.training.threshold_moved:
        return []
    names, count = " ".join(cost.without), len(cost.without)
    label, these = (
        ("without it", "it shows a defect")
        if count == 1
        else (f"without these {count}", "they show defects")
    )
    first = (
        [("look at these first", names)] if calibration is not None and calibration.too_few else []
    )
    folder = PurePath(run).parent if run.endswith(".onnx") else PurePath(run)
    review = shlex.join(["anomaly", "review", "--detector", run])
    look = f"look before it is used: {folder / 'report.html'}, or {review}, page Calibration"
    rows = [
        *first,
        (label, f"if {these}: {said}"),
        *([] if card.training.recalibrated else [("", look)]),
    ]
    return lines_of(rows)


def cost_text(cost: Cost | None, threshold: float) -> str:
    """Returns in one line what the images that set a threshold cost, if they are defects; empty
    where it is not known.
    """
    if cost is None:
        return ""
    text = f"threshold {cost.threshold:.4g} instead of {threshold:.4g}"
    if cost.of:
        text += (
            f"; flags {cost.flagged:,} instead of {cost.flagged_now:,} of {cost.of:,} synthetic "
            "defects"
        )
    return text


def mask_text(mask: MaskFacts | None) -> str:
    """Returns in words what a detector looks at; empty where that is the whole image."""
    if mask is None:
        return ""
    return f"{mask.file}: {100 * mask.share:.0f} % of the image is inspected, the rest is ignored"


def tiles_text(tiles: TileFacts | None, size: int) -> str:
    """Returns how a detector cuts large images, by its card; empty where it does not.

    ``size``: pixels a side that the model sees of a tile, and of the whole image.
    """
    if tiles is None:
        return ""
    tile, down, across = tiles.tile, tiles.down, tiles.across
    seen = f"each seen at {size} x {size}; beside them the whole image at {size} x {size}"
    return (
        f"{down * across:,} ({across:,} across, {down:,} down) of {tile:,} pixels of yours a side, "
        f"{seen}"
    )


def size_sensitivity_lines(training: TrainingFacts) -> list[str]:
    """Returns which synthetic defects a detector flagged by their size, and the least area that
    counts, by its card; lines.
    """
    found = training.size_sensitivity
    lines = _sizes(found) if found is not None and found.sizes else []
    if training.min_area and training.min_cells:
        lines.append(("least area", _least_area(training.min_area, training.min_cells)))
    return lines_of(lines)


def _sizes(size_sensitivity: SizeSensitivity) -> list[tuple[str, str]]:
    rows = size_sensitivity.sizes
    seen = [row.pixels for row in rows if 2 * row.flagged >= row.of]
    if not seen:
        least = f"defects up to {rows[-1].pixels:,} pixels are likely unseen"
    elif seen[0] > rows[0].pixels:
        least = f"defects smaller than {seen[0]:,} pixels are likely unseen"
    else:
        least = "most of the smallest that were tried are seen"
    flagged = ", ".join(f"{row.pixels:,}: {row.flagged} of {row.of}" for row in rows)
    return [
        (
            "smallest defects",
            f"one pixel of the model is {size_sensitivity.pixel:.3g} of yours a side; {least}",
        ),
        ("", f"synthetic ones flagged, by their diameter in pixels: {flagged}"),
    ]


def _least_area(pixels: int, cells: int) -> str:
    if cells == 1:
        return f"{pixels:,} pixels changes nothing: one cell of the heatmap is larger"
    return (
        f"what is high in less than {pixels:,} pixels ({cells} cells of the heatmap) does not count"
    )


def guard_text(guard: GuardFacts | None) -> str:
    """Returns how well a detector's guard tells images that are unlike the training images; empty
    where the card does not say.
    """
    if not guard:
        return ""
    noticed = ", ".join(f"{change} {percent(share)}" for change, share in guard.noticed.items())
    return (
        f"on the training images, left out in turn: {percent(guard.refused)} of them not "
        f"judged; noticed: {noticed}"
    )


def more_lines(card: Card) -> list[str]:
    """Returns what more good images would bring to a detector, a line each; none where its card
    does not say on how many it stands.
    """
    facts, calibration = card.training, card.calibration
    if calibration is None:
        return []
    trained = facts.recalibrated_on is None
    groups = facts.groups if trained else calibration.n
    if groups is None or not groups < 2**32:
        return []
    rows = more_rows(groups, calibration.target_rate, _calibrating(card, trained))
    return lines_of(rows)


def _calibrating(card: Card, trained: bool) -> Calibrating:
    """Returns how more images would set the threshold: as these did, and by ``auto`` where that is
    what was asked for.
    """
    if not trained:
        return "fresh"
    if card.calibration is None or card.calibration.is_guaranteed:
        return "split"
    options = card.training.options
    return "auto" if options is not None and options.calibrate == "auto" else "cross"
