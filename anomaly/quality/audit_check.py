"""Checks an audit file: `anomaly report --verify`."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.files.table import printable
from anomaly.quality.audit import (
    FORMAT,
    MANIFEST,
    MAX_DIRECTORY,
    MAX_MEMBERS,
    MAX_PROBLEMS_SHOWN,
    SIGNATURE,
)
from anomaly.reporting.audit import VerifiedAudit

MAX_MANIFEST, MAX_SIGNATURE, PIECE = 64 << 20, 1 << 10, 1 << 20


def verify_audit(path: Path, key: Path | None = None, review: str | None = None) -> VerifiedAudit:
    """Returns what a whole archive holds; AnomalyError naming every file that was changed,
    added or is missing.

    ``key``: a public key by which the manifest must be signed. Without one the digests show
    accidents, but nobody who makes a new manifest. ``review``: the review database, whose log must
    still hold what the archive says of it.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            manifest, data = _manifest(archive, path)
            wrong = [
                *_wrong_members(archive, manifest),
                *_wrong_detector(manifest),
                *_wrong_log(manifest),
            ]
            signature = _signature(archive)
    except (
        OSError,
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        NotImplementedError,
        ValueError,
        KeyError,
    ) as error:
        raise AnomalyError(
            f"{path}: not an audit archive, or a damaged one ({str(error)[:200]}): get it again"
        ) from error
    if wrong:
        more = (
            f"; and {len(wrong) - MAX_PROBLEMS_SHOWN:,} more"
            if len(wrong) > MAX_PROBLEMS_SHOWN
            else ""
        )
        raise AnomalyError(f"{path}: not whole: {'; '.join(wrong[:MAX_PROBLEMS_SHOWN])}{more}")
    if key is not None:
        from anomaly.detector.signature import is_signed

        if signature is None or not is_signed(data, signature, key):
            found = (
                "no signature"
                if signature is None
                else "a signature of another key or of another manifest"
            )
            raise AnomalyError(
                f"{path}: {found} found, one by the key of {key} expected: get it again from whom "
                "you trust"
            )
    return VerifiedAudit(
        manifest,
        hashlib.sha256(data).hexdigest(),
        signature is not None,
        key,
        None if review is None else (review, _compared_log(path, manifest, review)),
    )


def _check_directory(path: Path) -> None:
    """Raises ValueError where a zip lists too many files, before the list is read."""
    if not path.is_file():
        raise ValueError("no regular file")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        end = file.read().rpartition(b"PK\x05\x06")[2]
    members, directory = int.from_bytes(end[6:8], "little"), int.from_bytes(end[8:12], "little")
    # zip64, for more than 65,534, says 65,535 here
    if members > MAX_MEMBERS or directory > MAX_DIRECTORY:
        raise ValueError(f"more than {MAX_MEMBERS:,} files")


def _signature(archive: zipfile.ZipFile) -> bytes | None:
    if SIGNATURE not in archive.namelist():
        return None
    if archive.getinfo(SIGNATURE).file_size > MAX_SIGNATURE:
        raise ValueError(f"{SIGNATURE} is too large")
    return archive.read(SIGNATURE)


def _wrong_log(manifest: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each event that was not as it was written when the archive was made."""
    for line in (manifest.get("review") or {}).get("wrong", []):
        yield f"the review log was rewritten before the archive was made: {printable(str(line))}"


def _compared_log(path: Path, manifest: dict[str, Any], review: str) -> int:
    """Returns how many events a review database has; AnomalyError where it does not hold the
    archive's log any more.
    """
    said = manifest.get("review")
    if said is None:
        raise AnomalyError(
            f"{path}: no review log in it, one to compare with {review} expected: report it with "
            "--review"
        )
    from anomaly.review import Store
    from anomaly.review.chain import in_words

    with Store(review, create=False) as store:
        chain = store.log_chain()
    missing = chain.missing(said["events"], said["head"])
    wrong = [*chain.wrong, *([missing] if missing else [])]
    if wrong:
        raise AnomalyError(
            f"{review}: the log is not that of {path}: {in_words(wrong)}: restore a backup"
        )
    return len(chain.digests)


def _manifest(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], bytes]:
    if MANIFEST not in archive.namelist():
        raise ValueError(f"{MANIFEST} is missing")
    if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
        raise ValueError(f"{MANIFEST} is too large")
    data = archive.read(MANIFEST)
    manifest = json.loads(data)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{MANIFEST} lists no files")
    if manifest.get("format") != FORMAT:
        raise AnomalyError(
            f"{path}: format {str(manifest.get('format'))[:20]!r} found, {FORMAT} expected: update "
            "this program"
        )
    facts = [manifest.get(name) for name in ("detector", "made_at", "made_by")]
    entries = [
        (name, *(entry.get(kind) for kind in ("sha256", "bytes")))
        for name, entry in _tables(manifest["files"])
    ]
    if not all(isinstance(fact, str) and fact.isprintable() for fact in facts) or not all(
        isinstance(digest, str) and type(size) is int for _, digest, size in entries
    ):
        raise ValueError(f"{MANIFEST} is damaged")
    if not _fits(manifest.get("review")) or len(manifest["files"]) > MAX_MEMBERS:
        raise ValueError(f"{MANIFEST} is damaged")
    return manifest, data


def _fits(review: object) -> bool:
    if review is None:
        return True
    if not isinstance(review, dict) or not isinstance(review.get("wrong"), list):
        return False
    return (
        type(review.get("events")) is int
        and review["events"] >= 0
        and isinstance(review.get("head"), str)
    )


def _tables(files: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, entry if isinstance(entry, dict) else {}) for name, entry in files.items())


def _wrong_members(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each file that is not as the manifest says, and for bytes that belong to no
    file.
    """
    names, files = Counter(archive.namelist()), manifest["files"]
    for name, count in sorted(names.items()):
        if count > 1:
            yield f"{printable(name)!r} is there {count} times"
        elif name not in files and name not in (MANIFEST, SIGNATURE):
            yield f"{printable(name)!r} was added"
    for name, expected in sorted(files.items()):
        if name not in names:
            yield f"{name!r} is missing"
        elif not _is_same(archive, name, expected):
            yield f"{name!r} was changed"
    if archive.comment or min(info.header_offset for info in archive.infolist()):
        yield "bytes that belong to no file"


def _is_same(archive: zipfile.ZipFile, name: str, expected: dict[str, Any]) -> bool:
    if archive.getinfo(name).file_size != expected["bytes"]:
        return False
    digest, left = hashlib.sha256(), int(expected["bytes"])
    try:
        with archive.open(name) as member:
            while (piece := member.read(PIECE)) and left >= 0:
                digest.update(piece)
                left -= len(piece)
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError, NotImplementedError, ValueError):
        return False  # whatever its bytes are, they are not those that were written
    except Exception as error:  # zlib's own, which is no public base
        if type(error).__module__ == "zlib":
            return False
        raise
    return left == 0 and digest.hexdigest() == expected["sha256"]


def _wrong_detector(manifest: dict[str, Any]) -> Iterator[str]:
    digest = str(manifest["detector"]).rpartition("sha256:")[2]
    if digest not in {entry["sha256"] for entry in manifest["files"].values()}:
        yield f"the detector of digest {digest[:16]} is not among its files"
