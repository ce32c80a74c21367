"""What tells, without reading it, that an image was replaced since it was scored: size and time of
the file it lies in.
"""

from __future__ import annotations

import hashlib
import os

from anomaly.inputs.source import Held, Source, is_url


def stamp_of(source: Source) -> str:
    """Returns what changes when a source's file or archive is replaced, or its bytes in a list;
    empty where nothing tells.
    """
    if isinstance(source, Held):
        return hashlib.sha256(source.data).hexdigest()
    place = getattr(source, "archive", source.name)
    if is_url(place):
        return ""
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
