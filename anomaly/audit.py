"""`anomaly report RUN --audit out.zip`: everything that an auditor asks of a detector, in one file that a command verifies.

manifest.json    who made it and when, the detector, what it was trained on and promises, and of every other file its
                 size and sha256; of what is left out for its size the sha256 too
manifest.sig     with a key: Ed25519 over manifest.json (see anomaly/signature.py)
summary.txt      the same for people
card.json        the detector's card: options, versions, calibration scores, golden samples
run/...          detector.onnx and those it was recalibrated into, images.csv (which image was used for what, with its
                 sha256), report.html, train.jsonl, checks.jsonl, signatures
review/log.jsonl with a review database: verdicts, changes of the limit and all else that was done with this detector
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anomaly
from anomaly.detector import Card, find_detector, read_card, user
from anomaly.errors import AnomalyError
from anomaly.table import printable, whole_file
from anomaly.wording import card_text

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
IMAGES, CHECKS = "images.csv", "checks.jsonl"
KEPT = (IMAGES, CHECKS, "report.html", "train.jsonl")
NAMED_ONLY = ("checkpoint.safetensors", "explain.onnx")
MAX_MANIFEST, PIECE = 64 << 20, 1 << 20


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---- what was checked ----


def note_check(detector: Path, command: str, card: Card, found: Mapping[str, Any]) -> None:
    """Adds what a command found of a detector to RUN/checks.jsonl; nothing where it lies in no run folder."""
    folder = find_detector(detector).parent
    if not (folder / IMAGES).is_file() or not os.access(folder, os.W_OK):
        return
    entry = {"at": now(), "by": user(), "command": command, "detector": card.identity, "found": found}
    with open(folder / CHECKS, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


# ---- writing ----


@dataclass(frozen=True)
class Audit:
    """What was written. ``digest``: sha256 of the manifest, by which two people can compare theirs."""

    out: Path
    files: int
    digest: str
    signed: bool

    def text(self) -> str:
        signed = "signed" if self.signed else "not signed: --key signs it"
        return (
            f"{'written':<24}{self.out}   {self.files} files\n{'manifest':<24}sha256:{self.digest}   ({signed})\n"
            f"{'to verify':<24}anomaly verify --audit {self.out}{' --key PUB' if self.signed else ''}"
        )


def write_audit(run: Path, out: Path, *, review: str | None = None, key: Path | None = None) -> Audit:
    """Writes the archive; ``review``: a review database, ``key``: a private key. Raises AnomalyError, DetectorError."""
    if out.suffix.lower() != ".zip":
        raise AnomalyError(f"{out}: {out.suffix or 'no suffix'} found, the name of a .zip to write expected")
    if out.exists():
        raise AnomalyError(f"{out} is there already and stays as it is: choose another name")
    if not out.parent.is_dir():
        raise AnomalyError(f"{out.parent}: no such folder; make it first, or choose another name")
    detector, card = find_detector(run), read_card(run)
    log = review_log(review, detectors_beside(detector, card)) if review else None
    made = {"summary.txt": summary(card, detector, log).encode(), "card.json": _json(card.to_json())}
    if log is not None:
        lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in log)
        made["review/log.jsonl"] = "".join(lines).encode()
    files: dict[str, dict[str, Any]] = {}
    with whole_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in kept_files(detector):
            files[f"run/{printable(path.name)}"] = _add(archive, f"run/{printable(path.name)}", path.read_bytes())
        for name, data in made.items():
            files[name] = _add(archive, name, data)
        manifest = _json(described(card, detector, files))
        _add(archive, MANIFEST, manifest)
        if key is not None:
            from anomaly.signature import sign_bytes

            _add(archive, SIGNATURE, sign_bytes(manifest, key))
    return Audit(out, len(files), hashlib.sha256(manifest).hexdigest(), key is not None)


def kept_files(detector: Path) -> Iterator[Path]:
    """Yields the files of a run that go into the archive: detectors, signatures, and what tells of the training."""
    for path in sorted(detector.parent.iterdir()):
        if path == detector or path == detector.with_name(f"{detector.name}.sig"):
            yield path
        elif (detector.parent / IMAGES).is_file() and path.is_file() and not path.name.startswith("."):
            own = path.name.removesuffix(".sig").endswith(".onnx") and path.name not in NAMED_ONLY
            if own or path.name in KEPT or path.name.endswith(f".{IMAGES}"):
                yield path


def detectors_beside(detector: Path, card: Card) -> set[str]:
    """Returns the digests of a detector and of all those in its folder."""
    found = {card.digest} | ({card.parent} if card.parent else set())
    return found | {_digest(path) for path in kept_files(detector) if path.suffix == ".onnx"}


def described(card: Card, detector: Path, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the manifest."""
    training, calibration = card.training, card.calibration
    beside = [detector.with_name(name) for name in NAMED_ONLY]
    return {
        "format": FORMAT,
        "made_at": now(),
        "made_by": user(),
        "made_with": f"anomaly {anomaly.__version__}",
        "detector": card.identity,
        "trained": {name: training.get(name) for name in ("created", "by", "command", "images", "groups", "sets", "digest")},
        "recalibrated": {name: training.get(name) for name in ("recalibrated", "recalibrated_by", "recalibrated_on")},
        "promise": None if calibration is None else {"rate": calibration.promise, "k": calibration.k, "n": calibration.n},
        "files": files,
        "not_included": {
            path.name: {"sha256": _digest(path), "bytes": path.stat().st_size} for path in beside if path.is_file()
        },
    }


def summary(card: Card, detector: Path, log: list[dict[str, Any]] | None) -> str:
    """Returns the archive's content in words."""
    training = card.training
    lines = [
        ("detector", card.identity),
        ("trained", f"{training.get('created')} by {training.get('by') or 'unknown'}, on {training.get('images')} good images"),
        ("images", f"digest {training.get('digest')}; one by one in run/{IMAGES}"),
        ("command", str(training.get("command"))),
    ]
    if training.get("recalibrated"):
        by = training.get("recalibrated_by") or "unknown"
        on = f"on {training.get('recalibrated_on')} good images"
        lines.append(("recalibrated", f"{training['recalibrated']} by {by}, {on}; from sha256:{card.parent}"))
    lines += [("warning", line) for line in training.get("warnings", [])]
    checks = detector.with_name(CHECKS)
    done = checks.read_text(encoding="utf-8").splitlines() if checks.is_file() else []
    lines.append(("checks since", f"{len(done)}" + (f", in run/{CHECKS}" if done else ": none was noted in the run folder")))
    for entry in map(json.loads, done):
        lines.append(("", f"{entry['at']} {entry['by']}: {entry['command']}"))
    lines.append(("review", "no database was given (--review DB)" if log is None else _counted(log)))
    text = "\n".join(f"{label:<24}{text}" for label, text in lines)
    return printable(f"{text}\n{card_text(card, str(detector.parent))}\n")


def _counted(log: list[dict[str, Any]]) -> str:
    actions = [event["action"] for event in log]
    counts = ", ".join(f"{actions.count(action)} {action}" for action in sorted(set(actions)))
    return f"{len(log)} events in review/log.jsonl" + (f": {counts}" if log else "")


def review_log(database: str, detectors: set[str]) -> list[dict[str, Any]]:
    """Returns the log of a review database, the oldest event first, as far as it tells of these detectors."""
    from anomaly.review import Store

    with Store(database, create=False) as store:
        runs = {run.id for run in store.runs() if run.detector in detectors}
        events = store.events(limit=None)[::-1]
    kept = [event for event in events if event.detector in detectors or event.run in runs]
    ours = {event.id for event in kept}
    return [asdict(event) for event in events if event.id in ours or event.undoes in ours]


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> dict[str, Any]:
    archive.writestr(name, data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- verifying ----


def verify_audit(path: Path, key: Path | None = None) -> str:
    """Returns in words what a whole archive holds; AnomalyError naming every file that was changed, added or is missing.

    ``key``: a public key by which the manifest must be signed. Without one the digests show accidents, but nobody who makes
    a new manifest.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest, data = _manifest(archive, path)
            wrong = [*_wrong_members(archive, manifest), *_wrong_detector(manifest)]
            signature = archive.read(SIGNATURE) if SIGNATURE in archive.namelist() else None
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, KeyError) as error:
        raise AnomalyError(f"{path}: not an audit archive, or a damaged one ({str(error)[:200]}): get it again") from error
    if wrong:
        raise AnomalyError(f"{path}: not whole: {'; '.join(wrong)}")
    signed = "not signed: shows accidents, not a forger"
    if signature is not None:
        signed = "signed; --key PUB checks by whom"
    if key is not None:
        from anomaly.signature import is_signed

        if signature is None or not is_signed(data, signature, key):
            found = "no signature" if signature is None else "a signature of another key or of another manifest"
            raise AnomalyError(f"{path}: {found} found, one by the key of {key} expected: get it again from whom you trust")
        signed = f"signed with the key of {key}"
    return (
        f"{'whole':<24}{len(manifest['files'])} files as the manifest says; {signed}\n"
        f"{'manifest':<24}sha256:{hashlib.sha256(data).hexdigest()}, made {manifest['made_at']} by {manifest['made_by']}\n"
        f"{'detector':<24}{manifest['detector']}"
    )


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
        raise AnomalyError(f"{path}: format {str(manifest.get('format'))[:20]!r} found, {FORMAT} expected: update this program")
    facts = [manifest.get(name) for name in ("detector", "made_at", "made_by")]
    entries = [(name, *(entry.get(kind) for kind in ("sha256", "bytes"))) for name, entry in _tables(manifest["files"])]
    if not all(isinstance(fact, str) and fact.isprintable() for fact in facts) or not all(
        isinstance(digest, str) and type(size) is int for _, digest, size in entries
    ):
        raise ValueError(f"{MANIFEST} is damaged")
    return manifest, data


def _tables(files: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, entry if isinstance(entry, dict) else {}) for name, entry in files.items())


def _wrong_members(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each file that is not as the manifest says, and for bytes that belong to no file."""
    names, files = archive.namelist(), manifest["files"]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            yield f"{printable(name)!r} is there {names.count(name)} times"
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
