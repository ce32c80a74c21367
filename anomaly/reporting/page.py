"""The page of a report: one HTML file that stands alone, bounded in size.

The page needs no network and no script: styles and drawings are inline, pictures are small JPEGs in
the page. The templates escape whatever comes from outside (paths, labels, cards), and a content
policy forbids the page to load or run anything.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomaly.detector.card import Card
from anomaly.detector.training_facts import MaskFacts
from anomaly.errors import RuntimeMissing
from anomaly.files.atomic import whole_file
from anomaly.imaging.overlay import shrink
from anomaly.reporting.detector import mask_text
from anomaly.reporting.drawings import calibration_chart, loss_charts, roc_chart, score_rows
from anomaly.reporting.figures import classes, counts_text, tiles
from anomaly.reporting.galleries import data_uri, galleries, legend_colours, legend_ticks
from anomaly.reporting.report import ROWS, Report
from anomaly.statistics.calibration import rate_word
from anomaly.version import __version__

if TYPE_CHECKING:
    import jinja2

Term = tuple[str, object]  # a label and what is said; no label: it goes on with the one before

MAX_WORDS = 20_000  # characters of a text that is shown as it is


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Writes the page; it appears whole or not at all, and stays below 8 MB whatever is in the
    report. RuntimeMissing without Jinja2.
    """
    templates()
    with whole_file(Path(path)) as file:
        file.write(page(report).encode())


def page(report: Report) -> str:
    """Returns the whole page."""
    return (
        templates()
        .get_template("report.html")
        .render(
            title=report.title,
            identity=_identity(report.card),
            notes=report.notes,
            tiles=tiles(report.figures) if report.figures else [],
            counts=counts_text(report.figures) if report.figures else "",
            figures_text=report.figures_text,
            figures_terms=_terms(report.figures_text),
            guarantee_text=report.guarantee,
            rate_word=_rate_word(report.card),
            guarantee_terms=_terms(report.guarantee),
            galleries=galleries(report.galleries),
            legend_colours=legend_colours(),
            legend_ticks=legend_ticks(),
            classes=classes(report),
            scores=score_rows(report),
            roc=roc_chart(report),
            calibration=calibration_chart(report),
            losses=loss_charts([report.curves], report.terms),
            detector=_detector(report.card),
            mask=_mask(report.card.training.mask),
            rules=_rules(report.card),
            version=__version__,
            max_rows=ROWS,
        )
    )


@functools.cache
def templates() -> jinja2.Environment:
    """Returns the templates of pages; RuntimeMissing without Jinja2.

    Whoever writes a page at the end of long work asks for them before it.
    """
    try:
        import jinja2
    except ImportError as error:
        raise RuntimeMissing.extra("Jinja2", "evaluate", "an HTML report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "visible": visible}
    return environment


# ---- words ----


def short(value: object, length: int = 300) -> str:
    """Returns anything as text on one line, its middle left out where it is long."""
    shown = _visible(str(value)[: 10 * length])
    if len(shown) > length:
        shown = f"{shown[: length // 2]} … {shown[-length // 2 :]}"
    return shown


def visible(text: str) -> str:
    """Returns lines as they are, the first ``MAX_WORDS`` characters."""
    return "\n".join(map(_visible, text[:MAX_WORDS].split("\n")))


def _visible(line: str) -> str:
    """Returns a line with what has no picture (control characters, turns of direction, lone
    surrogates) escaped.
    """
    return (
        line
        if line.isprintable()
        else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    )


def _terms(text: str) -> list[Term]:
    """Returns lines of labels and what is said as such; nothing for text of another form."""
    lines = [
        re.split(r"\s{2,}", line.rstrip(), maxsplit=1) for line in text.splitlines() if line.strip()
    ]
    if any(len(line) < 2 for line in lines):
        return []
    return [(label, said) for label, said in lines[:ROWS]]


# ---- the detector ----


def _identity(card: Card) -> str:
    return f"{card.name}@{card.version}" + (f" sha256:{card.digest}" if card.digest else "")


def _rate_word(card: Card) -> str:
    """What a page says of a detector's rate: guaranteed, or estimated."""
    return rate_word("split" if card.calibration is None else card.calibration.kind)


def _detector(card: Card) -> Sequence[Term]:
    """Returns what was trained on what, by the card."""
    training, calibration = card.training, card.calibration
    sets = ", ".join(f"{count} {name}" for name, count in (training.sets or {}).items())
    groups = f" in {training.groups} groups" if training.groups else ""
    versions = (training.versions or {}).items()
    rows = [
        ("detector", _identity(card)),
        ("model", f"{card.model} on {card.space}, {card.size} x {card.size} pixels"),
        ("score", card.score),
        ("trained on", f"{training.images} good images{groups}" + (f": {sets}" if sets else "")),
        ("digest of the images", training.digest),
        (
            "threshold",
            "none: rank only"
            if calibration is None
            else f"{calibration.threshold:.6g}, set by {calibration.n} images",
        ),
        ("made", training.created),
        ("mask", mask_text(training.mask)),
        ("command", training.command),
        ("seed", training.seed),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions)),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in card.licences.items())),
        ("made from", card.parent),
    ]
    return [(label, said) for label, said in rows if said not in (None, "")]


def _mask(facts: MaskFacts | None) -> str:
    """Returns the picture of what is inspected (white) and what is not (black), empty without a
    mask.
    """
    if facts is None:
        return ""
    return data_uri(shrink(np.repeat(facts.mask[..., None] * np.uint8(255), 3, 2)))


def _rules(card: Card) -> str:
    said = card.training.to_json()
    rules = {name: said[name] for name in ("ranges", "target", "target_rate") if name in said}
    return json.dumps(rules | {"decode": card.decode.to_json()}, indent=2)
