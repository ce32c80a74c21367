"""What was left out, said in few lines: a line for each reason, with the number of images and the
first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

MAX_IMAGES_SHOWN = 5  # images in a line


def left_out_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yields one line for each reason of ``lines``, each of the form `image: reason`, in the order
    of their first images.
    """
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        name, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        if len(names) == 1:
            yield f"left out: {names[0]}: {reason}" if reason else f"left out: {names[0]}"
            continue
        shown = " ".join(str(Path(*Path(name).parts[-2:])) for name in names[:MAX_IMAGES_SHOWN])
        more = f" and {len(names) - MAX_IMAGES_SHOWN} more" if len(names) > MAX_IMAGES_SHOWN else ""
        yield f"left out: {len(names)} images: {reason}: {shown}{more}"
