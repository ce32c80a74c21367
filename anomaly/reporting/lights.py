"""Lights of lines and days in words, and as a table that is read from across the room."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from anomaly.files.numbers import count_text
from anomaly.statistics.lights import AMBER, GREEN, RED, Light

SIGNS = {RED: "✕", AMBER: "!", GREEN: "✓"}  # colours alone are not seen by all
COLOURS = {  # background, text
    RED: ("#b3261e", "#ffffff"),
    AMBER: ("#ffc233", "#1b1b1b"),
    GREEN: ("#1b7f3b", "#ffffff"),
}


def light_text(light: Light) -> str:
    """Returns a light in a sentence: the counts, and what is ordinary."""
    count, up_to = light.count, light.flagged_up_to
    judged = count.images - count.not_judged
    ordinary = (
        ""
        if up_to is None or light.expected is None
        else f" (if all are good expect {count_text(light.expected)}, up to {up_to:,} is ordinary)"
    )
    flagged = f"{count.flagged:,} of {judged:,} {count.what}s flagged{ordinary}; "
    blind = (
        f"{count.not_judged:,} of {count.images:,} not judged (up to {light.not_judged_up_to:,} is "
        "ordinary)"
    )
    kinds = f", {' and '.join(light.because)}" if light.because else ""
    return (
        f"{count.line}, {count.day}: {light.colour}{kinds}. "
        f"{'' if up_to is None else flagged}{blind}"
    )


def lights_table(lights: Sequence[Light]) -> str:
    """Returns an HTML table: a row for each line, a column for each day, the light's sign with the
    counts of flagged and all images, and the sentence for who points at it.
    """
    days = sorted({one.count.day for one in lights})
    lines = sorted({one.count.line for one in lights})
    of = {(one.count.line, one.count.day): one for one in lights}
    head = "".join(f'<th scope="col">{day[5:]}</th>' for day in days)
    rows = "".join(
        f'<tr><th scope="row">{escape(line)}</th>'
        + "".join(_cell(of.get((line, day))) for day in days)
        + "</tr>"
        for line in lines
    )
    return (
        f"<table><caption>Flagged of judged; below it what was not judged</caption>"
        f'<thead><tr><th scope="col">Line</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _cell(light: Light | None) -> str:
    if light is None:
        return "<td>no image</td>"
    count, (back, front) = light.count, COLOURS[light.colour]
    blind = f"<br>{count.not_judged:,} not judged" if count.not_judged else ""
    return (
        f'<td style="background: {back}; color: {front}" title="{escape(light_text(light))}">'
        f'{SIGNS[light.colour]} <span style="position: absolute; opacity: 0">{light.colour}</span>'
        f"{count.flagged:,} of {count.images - count.not_judged:,}{blind}</td>"
    )
