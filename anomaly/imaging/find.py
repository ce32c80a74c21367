"""Finds the images of a folder, and knows the folders that the product wrote itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from anomaly.errors import DatasetError
from anomaly.imaging import listing
from anomaly.imaging.image_file import head_of, printable_text
from anomaly.imaging.listing import Passed, count, wanted


def find_images(folder: Path, passed: Passed | None = None) -> list[Path]:
    """Returns the images below ``folder``, as `walk_images` yields them; DatasetError where any of
    it cannot be listed.
    """
    found = list(walk_images(folder, passed))
    for path in found:
        if path.endswith("/"):
            _names(path, set(), Counter())  # says why
    return [Path(path) for path in found]


def walk_images(folder: str | Path, passed: Passed | None = None) -> Iterator[str]:
    """Yields the images below ``folder``, sorted; one folder's names are held at a time. What is
    none is counted.

    Images are told by suffix, and by content where the suffix does not decide (see `listing`).
    ``passed`` counts, by kind, what is not yielded: other files, hidden ones, and the folders below
    that this program has written. Links to folders are followed, but each folder is listed once, so
    that a loop of links ends. Images are never left out silently: if ``folder`` cannot be listed
    that is a `DatasetError`, and a folder in it is yielded, with a slash.
    """
    seen: set[tuple[int, int]] = set()
    root = "" if Path(folder) == Path() else os.path.join(Path(folder), "")
    counts = Counter[str]() if passed is None else passed
    return depth_first(root, lambda parent: _names(parent, seen, counts, parent == root))


def depth_first(root: str, names: Callable[[str], list[str]]) -> Iterator[str]:
    """Yields the files below ``root``: ``names`` returns what a folder holds, the first one last,
    folders with a slash.

    A folder of which ``names`` raises DatasetError is yielded itself, but for ``root``.
    """
    open_folders = [(root, names(root))]
    while open_folders:
        parent, left = open_folders[-1]
        if not left:
            open_folders.pop()
        elif (name := left.pop()).endswith("/"):
            try:
                open_folders.append((parent + name, names(parent + name)))
            except DatasetError:
                yield parent + name
        else:
            yield parent + name


def _names(
    folder: str, seen: set[tuple[int, int]], passed: Passed, given: bool = True
) -> list[str]:
    """Returns the images and folders (these end in a slash) in a folder that was not seen before,
    the first one last.

    ``given``: it is the one that was asked for, which is searched whoever has written it.
    """
    try:
        status = os.stat(folder or ".")
        if (status.st_dev, status.st_ino) in seen:
            count(passed, listing.AGAIN)
            return []
        seen.add((status.st_dev, status.st_ino))
        if not given and is_ours(folder):
            count(passed, listing.OURS)
            return []
        with os.scandir(folder or ".") as entries:
            return listed(
                (
                    (entry.name, _is_folder(entry), partial(head_of, entry.path))
                    for entry in entries
                ),
                passed,
            )
    except OSError as error:
        where = printable_text(folder.rstrip("/") or "/")
        raise DatasetError(
            f"{where}: cannot be listed ({error.strerror}), a folder of images expected"
        ) from error


def is_ours(folder: str) -> bool:
    """Whether this program has written a folder: pictures beside a table, a table's unfinished
    chunks, a run.
    """
    return os.path.lexists(os.path.join(folder, listing.MARK))


def mark_ours(folder: Path) -> None:
    """Leaves a mark in a folder that this program writes into, so that no search takes what is in
    it for images.
    """
    (folder / listing.MARK).touch()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def listed(
    entries: Iterable[tuple[str, bool, Callable[[], bytes | str]]], passed: Passed
) -> list[str]:
    """Returns the folders and images among names, as `depth_first` takes them, and counts the
    others.

    An entry: its name, whether it is a folder, and what returns its first bytes (see
    `listing.wanted`).
    """
    names = []
    for name, is_folder, head in entries:
        if is_folder and name[0] == ".":
            count(passed, listing.HIDDEN_FOLDER)
        elif is_folder:
            names.append(f"{name}/")
        elif name != listing.MARK and wanted(name, head, passed):
            names.append(name)
    return sorted(names, reverse=True)
