"""What there is to score: files, folders, globs, lists, archives, manifests and URLs become a
stream of sources.

A source is a name and a way to read it. Nothing is listed before it is asked for, and nothing is
read before its turn comes, except what can only be read in passing (a compressed tar, image bytes
in a manifest). What cannot be read has a source all the same, and so a row: nothing is left out
silently.
"""

from __future__ import annotations

import csv
import fnmatch
import glob
import os
import re
import sys
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from anomaly.errors import AnomalyError, DatasetError, ImageError
from anomaly.imaging import listing
from anomaly.imaging.find import is_ours, walk_images
from anomaly.imaging.listing import Passed, count, passed_text
from anomaly.inputs.remote import place_source
from anomaly.inputs.source import File, Refused, Source, is_url

ZIP = re.compile(r"\.zip$", re.IGNORECASE)
TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
MANIFEST = re.compile(r"\.(csv|tsv|parquet)$", re.IGNORECASE)
MAX_NAME_LENGTH = 1 << 20  # bytes in a list of names: more is something else
NO_IMAGE = "no image in it; JPEG, PNG, BMP, TIFF, WebP, GIF or PGM files expected"


def list_sources(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    limit: int = 1 << 30,
    end: bytes = b"\n",
    stdin: BinaryIO | None = None,
    passed: Passed | None = None,
) -> Iterator[Source]:
    """Yields what there is to score, in order, as it is asked for; DatasetError.

    ``inputs``: images, folders (searched recursively), globs (``**`` too), archives (.zip, .tar,
    .tar.gz ...), manifests (.csv, .tsv, .parquet), URLs of any of these, and ``-`` for names on
    ``stdin``, each followed by ``end``. An image is taken as it is: whether it can be read is said
    in its row. ``limit``: bytes of an image at most, as the reader will ask for. ``passed`` counts,
    by kind, what folders and archives hold besides images (see `listing`).
    """
    passed = Counter() if passed is None else passed
    for given in inputs:
        place = os.fspath(given)
        if place == "-":
            yield from map(place_source, _names_from(stdin or sys.stdin.buffer, end))
        else:
            yield from expand(place, limit, passed)


def shard(
    sources: Iterable[Source], number: int, of: int, unit_of: Callable[[str], str] | None = None
) -> Iterator[Source]:
    """Yields every ``of``-th source, beginning with the ``number``-th (from 1): together the shards
    hold all, each once.

    ``unit_of``: names the unit that an image shows (ImageError: none). Its images all come into one
    shard.
    """
    if unit_of is None or of == 1:
        return (source for index, source in enumerate(sources, 1) if index % of == number % of)
    return (source for source in sources if _drawn(source.name, unit_of, of) == number % of)


def _drawn(name: str, unit_of: Callable[[str], str], of: int) -> int:
    with suppress(ImageError):  # an image of no unit is its own
        name = unit_of(name)
    return zlib.crc32(name.encode(errors="surrogatepass")) % of


def expand(place: str, limit: int, passed: Passed | None = None) -> Iterator[Source]:
    """Yields the images of one place: a file, folder, glob, archive, manifest or URL."""
    passed = Counter() if passed is None else passed
    url = is_url(place)
    if url and not (place.startswith(("http:", "https:")) or "::" in place):
        from anomaly.inputs.remote import remote_glob, remote_kind

        if glob.has_magic(place):
            return _matches(place, remote_glob(place), limit, passed)
        if remote_kind(place) == "directory":
            return _folder(place, passed)
    elif not url and os.path.isdir(place):
        return _folder(place, passed)
    elif not url and glob.has_magic(place) and not os.path.lexists(place):
        return _matches(place, _local_glob(place, passed), limit, passed)
    return _opened(place, limit, passed)


def as_source(image: Source | str | os.PathLike[str]) -> Source:
    """Returns the source of an image that may be given by its path."""
    return File(os.fspath(image)) if isinstance(image, str | os.PathLike) else image


def _opened(place: str, limit: int, passed: Passed) -> Iterator[Source]:
    """Yields what is in an archive or manifest; anything else is an image itself."""
    path = urlsplit(place).path if place.startswith(("http:", "https:")) else place.split("::")[0]
    if TAR.search(path) or ZIP.search(path):
        from anomaly.inputs.archives import tar_sources, zip_sources

        found = (
            tar_sources(place, limit, passed) if TAR.search(path) else zip_sources(place, passed)
        )
        return _not_none(place, found, passed)
    if MANIFEST.search(path) or (path.lower().endswith(".txt") and _is_table(place)):
        from anomaly.inputs.manifests import manifest_sources

        return manifest_sources(place, limit)
    return iter([place_source(place)])


def _is_table(place: str) -> bool:
    """Returns whether a text file begins as a manifest does, with a column `path`: spreadsheets
    name tables so.
    """
    from anomaly.files.delimited import read_delimited

    if not os.path.isfile(place):
        return False
    try:
        with open(place, "rb") as file:
            return "path" in read_delimited(file, ("path",)).header
    except (csv.Error, OSError, UnicodeError):
        return False


def _not_none(place: str, sources: Iterable[Source], passed: Passed) -> Iterator[Source]:
    found = False
    for source in sources:
        found = True
        yield source
    if not found:
        yield Refused(place, "empty", _nothing(NO_IMAGE, passed))


def _nothing(what: str, passed: Passed) -> str:
    return f"{what} ({passed_text(passed)} found)" if passed else what


# ---- folders and globs ----


def _folder(folder: str, passed: Passed) -> Iterator[Source]:
    found, masks = False, _masks_in(folder)
    for path in _walk(folder, passed):
        if masks and path.startswith(masks):
            count(passed, listing.MASK)
            continue
        found = True
        yield (
            Refused(path, "unreadable", "a folder that cannot be listed")
            if path.endswith("/")
            else place_source(path)
        )
    if not found:
        raise DatasetError(f"{folder}: {_nothing(NO_IMAGE.replace('it;', 'this folder;'), passed)}")


def _masks_in(folder: str) -> str:
    """Returns the folder of the masks, with a slash, where a folder has MVTec AD's layout: masks
    are no images to judge.
    """
    masks = Path(folder) / "ground_truth"
    return os.path.join(masks, "") if masks.is_dir() and (masks.parent / "test").is_dir() else ""


def _walk(folder: str, passed: Passed) -> Iterator[str]:
    if is_url(folder):
        from anomaly.inputs.remote import walk_remote

        return walk_remote(folder, passed)
    return walk_images(folder, passed)


def _matches(pattern: str, places: Iterable[str], limit: int, passed: Passed) -> Iterator[Source]:
    """Yields the images of every place that a pattern matches. With ** their folders match too:
    these are left out.
    """
    found = False
    for place in places:
        found = True
        if "**" in pattern:
            if not place.endswith("/"):
                yield from _opened(place, limit, passed)
        else:
            yield from expand(place, limit, passed)
    if not found:
        raise DatasetError(f"{pattern}: nothing matches this pattern")


def _local_glob(pattern: str, passed: Passed) -> Iterator[str]:
    """Yields what matches, sorted, hidden names left out; held at a time: the folders, and the
    names in one of them.

    Folders that this program has written are left out where a pattern matches them, and not where
    they are named.
    """
    head, tail = os.path.split(pattern)
    seen: set[tuple[int, int]] = set()
    folders = set(glob.iglob(os.path.join(head, ""), recursive=True)) | (
        {""} if head in ("", "**") else set()
    )
    for folder in sorted(folders, key=lambda path: (path.count("/"), path)):
        status = os.stat(folder or ".")
        if (status.st_dev, status.st_ino) in seen:  # a loop of links
            continue
        seen.add((status.st_dev, status.st_ino))
        if glob.has_magic(head) and is_ours(folder):
            count(passed, listing.OURS)
            continue
        for name in sorted(fnmatch.filter(os.listdir(folder or "."), tail)):
            if name[0] == "." and tail[0] != ".":
                continue
            if not os.path.isdir(folder + name):
                yield folder + name
            elif is_ours(folder + name) and glob.has_magic(tail) and "**" not in pattern:
                count(passed, listing.OURS)
            else:
                yield os.path.join(folder, name, "")


# ---- names on standard input ----


def _names_from(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Yields the names of a list as they come; empty ones are left out."""
    rest, begun = b"", False
    while piece := _read_some(stream):
        piece, begun = piece if begun else _unmarked(piece), True
        *whole, rest = (rest + piece).split(end)
        yield from (os.fsdecode(name) for line in whole if (name := _bare(line, end)))
        if len(rest) > MAX_NAME_LENGTH:
            raise DatasetError(
                f"standard input: a name of more than {MAX_NAME_LENGTH:,} bytes found, paths of "
                "images expected"
            )
    if name := _bare(rest, end):
        yield os.fsdecode(name)


def _unmarked(head: bytes) -> bytes:
    """Returns the beginning of a list without the byte-order mark that Windows writes."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DatasetError(
            "standard input: a list in UTF-16 found, UTF-8 expected: save the list as UTF-8"
        )
    return head.removeprefix(BOM_UTF8)


def _bare(line: bytes, end: bytes) -> bytes:
    return line.removesuffix(b"\r") if end == b"\n" else line


def _read_some(stream: BinaryIO) -> bytes:
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    try:
        return read(1 << 16)
    except OSError as error:
        raise AnomalyError(
            f"standard input: cannot be read ({error.strerror}), paths of images expected"
        ) from error
