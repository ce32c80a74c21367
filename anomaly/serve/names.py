"""What a served detector is called."""

from __future__ import annotations

from pathlib import Path


def name_of(place: Path) -> str:
    """Returns a detector's name: that of its run folder, or the stem of its file."""
    place = place.absolute()
    return place.name if place.is_dir() else place.stem
