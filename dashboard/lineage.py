"""Where a detector comes from and what was made of it, as a picture: the cards name the digest of
the file that each was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from anomaly.detector.file import read_card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import AnomalyError
from anomaly.review import Run
from dashboard.desk import Desk

WIDTH, HEIGHT, GAP_X, GAP_Y = 210, 66, 46, 14  # of a box, and between boxes
MOST_FILES = 20  # of a folder that are looked at
MOST_SHOWN = 40


@dataclass(frozen=True)
class Made:
    """A detector and what it was made from. ``how``: in a few words."""

    digest: str
    name: str
    parent: str | None
    how: str


def lineage(desk: Desk, run: Run) -> None:
    """Shows the detectors that the one of a run comes from and those made of it."""
    family = family_of(run.detector, known(desk))
    if len(family) < 2:
        return
    used = desk.store.runs()[0].detector
    st.markdown("###### Where it comes from")
    said = "; ".join(f"{one.name} {one.digest[:12]}, {one.how}" for _, one in family)
    st.image(picture(family, run.detector, used), alt=said)


def in_use(desk: Desk) -> str:
    """Returns which detector scored the newest run, in words."""
    newest = desk.store.runs()[0]
    at = newest.imported_at[:16].replace("T", " ")
    return f"In use: {desk.detector(newest.detector).short}, by the newest run {newest.name} ({at})"


def known(desk: Desk) -> dict[str, Made]:
    """Returns all detectors with a card in the database, or whose file lies beside one of theirs or
    was made by a job, by digest.
    """
    found = {
        detector.digest: made(detector.digest, detector.card, detector.training or TrainingFacts())
        for detector in desk.store.detectors()
        if detector.card is not None
    }
    for file in files(desk):
        try:
            one = of_file(str(file), file.stat().st_mtime_ns)
        except (AnomalyError, OSError):  # no detector, or gone meanwhile
            continue
        found.setdefault(one.digest, one)
    return found


def files(desk: Desk) -> Iterator[Path]:
    """Yields the files that may be detectors of the same family."""
    folders = [Path(place) for place in desk.settings.detectors]
    folders += [file.parent for run in desk.store.runs()[:20] if (file := desk.files.find(run))]
    if desk.jobs is not None:
        folders += [Path(job.given["out"]) for job in desk.jobs.queue.all() if "out" in job.given]
    for folder in dict.fromkeys(one if one.is_dir() else one.parent for one in folders):
        yield from sorted(folder.glob("detector*.onnx"))[:MOST_FILES]


@st.cache_data(max_entries=500, show_spinner=False)
def of_file(file: str, changed: int) -> Made:
    """Returns what a file's card says; ``changed`` is part of the key."""
    card = read_card(Path(file))
    said = {"name": card.name, "version": card.version, "parent": card.parent}
    return made(card.digest, said, card.training)


def made(digest: str, card: dict[str, Any], training: TrainingFacts) -> Made:
    """Returns a detector as the picture has it."""
    parent = card.get("parent")
    if training.threshold_moved is not None:
        how = f"threshold moved {str(training.threshold_moved)[:10]}"
    elif training.recalibrated is not None:
        how = f"recalibrated {str(training.recalibrated)[:10]}"
    else:
        how = f"{'learnt' if parent else 'trained'} {str(training.created or '')[:10]}"
    return Made(digest, f"{card.get('name')} {card.get('version')}", parent, how.strip())


def family_of(digest: str, known: dict[str, Made]) -> list[tuple[int, Made]]:
    """Returns the detectors of one origin with how many steps each is away from it, in order. A
    parent that nothing is known of is one too.
    """
    first, seen = digest, {digest}
    while (one := known.get(first)) is not None and one.parent and one.parent not in seen:
        first = one.parent
        seen.add(first)
    origin = known.get(first) or Made(first, "not here", None, "only its digest is known")
    return list(_below(origin, 0, list(known.values()), set()))[:MOST_SHOWN]


def _below(
    one: Made, depth: int, everything: list[Made], seen: set[str]
) -> Iterator[tuple[int, Made]]:
    if one.digest in seen:
        return
    seen.add(one.digest)
    yield depth, one
    for child in everything:
        if child.parent == one.digest:
            yield from _below(child, depth + 1, everything, seen)


def picture(family: Iterable[tuple[int, Made]], chosen: str, used: str) -> str:
    """Returns the chain as SVG: each column one step; the chosen one has a thick frame."""
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    parts, row, before = [], 0, -1
    for depth, one in family:
        row += depth <= before  # a first child stands beside its parent
        before = depth
        x, y = 4 + depth * (WIDTH + GAP_X), 4 + row * (HEIGHT + GAP_Y)
        places[one.digest] = (x, y)
        rows[depth] = x + WIDTH
        if one.parent in places:
            parts.append(_line(*places[one.parent], x, y))
        parts.append(_box(one, x, y, one.digest == chosen, one.digest == used))
    width, height = max(rows.values()) + 4, 8 + (row + 1) * HEIGHT + row * GAP_Y
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" rx="4" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _line(x: int, y: int, to_x: int, to_y: int) -> str:
    start, end, middle = x + WIDTH, to_x, to_x - GAP_X // 2
    down, to = y + HEIGHT // 2, to_y + HEIGHT // 2
    way = f"M{start} {down}H{middle}V{to}H{end - 6}"
    head = f"M{end} {to}l-7 -4v8z"
    return f'<path d="{way}" fill="none" stroke="#333"/><path d="{head}"/>'


def _box(one: Made, x: int, y: int, chosen: bool, used: bool) -> str:
    lines = (one.name[:30], one.digest[:12], one.how + (", in use" if used else ""))
    texts = "".join(
        f'<text x="{x + 10}" y="{y + 19 + 18 * at}" font-weight="{400 if at else 600}">'
        f"{escape(text)}</text>"
        for at, text in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="none" '
        f'stroke="#333" stroke-width="{3 if chosen else 1}"/>{texts}'
    )
