"""Images in archives: zip, and tar as WebDataset writes its shards. Nothing is ever unpacked to the
disk.

A member's name is an address that fsspec opens, and `anomaly score` too:
``zip://a/b.png::photos.zip``. Listed are images as in a folder (see `listing`); hidden ones and
other files are counted. Members of a zip and of an uncompressed tar on this machine are read by
many threads when their turn comes; a compressed or remote tar is read in passing.
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import IO, BinaryIO, NamedTuple

from anomaly.errors import AnomalyError, ImageError
from anomaly.imaging import listing
from anomaly.imaging.listing import Passed, count, wanted
from anomaly.inputs.remote import open_place
from anomaly.inputs.source import Held, Refused, Source, is_url, too_large

MAX_HEADER_BYTES = 1 << 20  # bytes of a tar's extended header: names, not images
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RecursionError,
    struct.error,
)


def _damaged(name: str, error: Exception) -> Refused:
    return Refused(
        name, "damaged", f"an archive that is damaged or ends early ({_line(error)}): copy it again"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---- zip ----


class ZipMember(NamedTuple):
    """A file in a zip archive; ``entry``: its place in the archive's directory."""

    name: str
    archive: str
    entry: int

    def read(self, limit: int) -> bytes:
        try:
            archive = _open_zip(self.archive, _stamp(self.archive))
            return _read_member(archive, archive.infolist()[self.entry], limit)
        except (NotImplementedError, RuntimeError) as error:
            what = f"compressed or encrypted in a way that is not read ({_line(error)})"
            raise ImageError("unsupported", f"{what}: pack the archive again") from error
        except DAMAGED as error:
            raise ImageError(
                "damaged", f"a member that is damaged ({_line(error)}): copy the archive again"
            ) from error


def zip_sources(place: str, passed: Passed) -> Iterator[Source]:
    """Yields the images in a zip archive, in the order of its directory."""
    try:
        archive = _open_zip(place, _stamp(place))
        members = archive.infolist()
    except FileNotFoundError:
        yield Refused(place, "missing", "no such file")
    except (NotImplementedError, *DAMAGED) as error:
        yield _damaged(place, error)
    else:
        ours = tuple(
            _folder_of(m.filename) for m in members if m.filename.endswith(f"/{listing.MARK}")
        )
        for entry, member in enumerate(members):
            folder = _folder_of(member.filename)
            name = member.filename[len(folder) :]
            if name == listing.MARK and folder:
                count(passed, listing.OURS)
            elif (
                name
                and folder not in ours
                and wanted(name, partial(_head, archive, member), passed)
            ):
                yield ZipMember(f"zip://{member.filename}::{place}", place, entry)


def _folder_of(member: str) -> str:
    """Returns what comes before a member's own name, with its slash; nothing where it lies in no
    folder.
    """
    return member[: member.rfind("/") + 1]


def _head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | str:
    try:
        with archive.open(member) as file:
            return file.read(listing.HEAD)
    # encrypted, or packed in a way that is not read
    except (NotImplementedError, RuntimeError, *DAMAGED):
        return listing.UNREADABLE


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.file_size > limit:  # what it claims: no more than that is ever unpacked
        raise too_large(member.file_size, limit)
    with archive.open(member) as file:
        return file.read()


@lru_cache(maxsize=4)
def _open_zip(place: str, stamp: tuple[int, ...]) -> zipfile.ZipFile:
    """Returns the archive, opened once in a process: its directory may take seconds to read.
    Threads may share it.
    """
    return zipfile.ZipFile(open_place(place) if is_url(place) else place)


def _stamp(place: str) -> tuple[int, ...]:
    """Returns what changes when a file is replaced."""
    if is_url(place):
        return ()
    status = os.stat(place)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


# ---- tar ----


class TarMember(NamedTuple):
    """A file in an uncompressed tar archive on this machine: a piece of a file."""

    name: str
    archive: str
    offset: int
    size: int

    def read(self, limit: int) -> bytes:
        if self.size > limit:
            raise too_large(self.size, limit)
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise ImageError(
                "unreadable", f"{self.archive} cannot be read ({error.strerror})"
            ) from error
        if len(data) < self.size:
            raise ImageError("truncated", f"{self.archive} ends early: copy it again")
        return data


def tar_sources(place: str, limit: int, passed: Passed) -> Iterator[Source]:
    """Yields the images in a tar archive, in its order. One that breaks off has a last source that
    says so.
    """
    ended: list[Exception] = []
    try:
        with _open(place) as file:
            archive, in_passing = _open_tar(file, place, _header(ended))
            ended.clear()  # of the first try
            with archive:
                yield from _members(archive, place, limit, in_passing, passed)
    except AnomalyError:
        raise
    except FileNotFoundError:
        yield Refused(place, "missing", "no such file")
    except DAMAGED as error:
        yield _damaged(place, error)
    else:
        # tarfile takes whatever is no header for the end; the true end is a block of zeros.
        if ended:
            yield _damaged(place, ended[-1])


def _open(place: str) -> BinaryIO:
    return open_place(place) if is_url(place) else open(place, "rb")


def _open_tar(
    file: BinaryIO, place: str, header: type[tarfile.TarInfo]
) -> tuple[tarfile.TarFile, bool]:
    """Returns the archive, and whether its members must be read as they come."""
    if not is_url(place):
        try:
            return tarfile.open(fileobj=file, mode="r:", tarinfo=header), False
        except tarfile.ReadError:
            file.seek(0)
    return tarfile.open(fileobj=file, mode="r|*", tarinfo=header), True


def _members(
    archive: tarfile.TarFile, place: str, limit: int, in_passing: bool, passed: Passed
) -> Iterator[Source]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        if member.size < 0:  # tarfile would go round in circles
            raise tarfile.HeaderError("a member of less than no bytes")
        if in_passing and member.size > limit:
            yield Refused(
                place,
                "too large",
                f"{too_large(member.size, limit)}; the rest of this archive was not read",
            )
            return
        if member.isdir():
            continue
        content = archive.extractfile(member) if member.isfile() else None
        begun: list[bytes] = []
        if wanted(member.name.rpartition("/")[2], partial(_begin, content, begun), passed):
            yield _member(member, content, b"".join(begun), place, limit, in_passing)


def _begin(content: IO[bytes] | None, begun: list[bytes]) -> bytes | str:
    """Returns how a member begins, and keeps it: what is read in passing cannot be read again."""
    if content is None:
        return listing.DEVICE
    begun.append(content.read(listing.HEAD))
    return begun[0]


def _member(
    member: tarfile.TarInfo,
    content: IO[bytes] | None,
    begun: bytes,
    place: str,
    limit: int,
    in_passing: bool,
) -> Source:
    """Returns the source of a member; ``begun``: what was read of it already."""
    name = f"tar://{member.name}::{place}"
    if not member.isfile():
        return Refused(
            name, "not a file", "is a link or a device in an archive, an image file expected"
        )
    if not in_passing and not member.issparse():
        return TarMember(name, place, member.offset_data, member.size)
    if member.size > limit:
        return Refused(name, "too large", str(too_large(member.size, limit)))
    return Held(name, begun + (content.read() if content else b""))


def _header(ended: list[Exception]) -> type[tarfile.TarInfo]:
    """Returns a reader of headers that notes what ended the archive, if not its proper end, and
    takes no endless ones.
    """

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
            try:
                found = super().frombuf(buf, encoding, errors)
                if found.size < 0 or (found.type in EXTENDED and found.size > MAX_HEADER_BYTES):
                    raise tarfile.HeaderError(f"a header of {found.size:,} bytes")
            except tarfile.HeaderError as error:
                if any(buf) or not buf:
                    ended.append(error)
                raise
            return found

    return Header
