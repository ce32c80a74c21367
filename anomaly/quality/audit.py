"""`anomaly report RUN --audit out.zip`: everything that an auditor asks of a detector, in one file
that a command verifies.

manifest.json    who made it and when, the detector, what it was trained on and guarantees, and of
                 every other file its size and sha256; of what is left out for its size the sha256
                 too
manifest.sig     with a key: Ed25519 over manifest.json (see anomaly/detector/signature.py)
summary.txt      the same for people
card.json        the detector's card: options, versions, calibration scores, golden samples
run/...          detector.onnx and those it was recalibrated into, images.csv (which image was used
                 for what, with its sha256), report.html, train.jsonl, checks.jsonl, signatures
review/log.jsonl with a review database: verdicts, changes of the threshold and all else that was
                 done with this detector; the manifest has the digest of the whole log (see
                 anomaly/review/chain.py)
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, read_card, user
from anomaly.errors import AnomalyError
from anomaly.files.atomic import errors_naming, whole_file
from anomaly.files.regular_files import open_own, read_own
from anomaly.files.table import printable
from anomaly.reporting.audit import Audit, audit_summary
from anomaly.statistics.calibration import named_rate
from anomaly.version import __version__

FORMAT = 1
LARGEST_CHECKS = 1 << 26  # bytes of checks.jsonl
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
IMAGES, CHECKS = "images.csv", "checks.jsonl"
KEPT_FILES = (IMAGES, CHECKS, "report.html", "train.jsonl")
NAMED_ONLY = ("checkpoint.safetensors", "explain.onnx")
# files of an archive, and bytes of the zip's list of them
MAX_MEMBERS, MAX_DIRECTORY = 10_000, 16 << 20
MAX_PROBLEMS_SHOWN = 20  # of what is wrong


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---- what was checked ----


def note_check(detector: Path, command: str, card: Card, found: Mapping[str, Any]) -> None:
    """Adds what a command found of a detector to RUN/checks.jsonl; nothing where it lies in no run
    folder.
    """
    folder = find_detector(detector).parent
    if not (folder / IMAGES).is_file() or not os.access(folder, os.W_OK):
        return
    entry = {
        "at": now(),
        "by": user(),
        "command": command,
        "detector": card.identity,
        "found": found,
    }
    checks = folder / CHECKS
    with errors_naming(checks), open(checks, "a", encoding="utf-8", opener=open_own) as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_checks(path: Path) -> list[dict[str, Any]]:
    """Returns what ``note_check`` noted, [] without a file; AnomalyError for a line that it did not
    write.
    """
    if not os.path.lexists(path):
        return []
    found = []
    for number, line in enumerate(
        read_own(path, LARGEST_CHECKS).decode("utf-8", "replace").splitlines(), 1
    ):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(name), str) for name in ("at", "by", "command")
        ):
            raise AnomalyError(
                f"{path}, line {number}: {line[:40]!r} found, a check's JSON with at, by and "
                "command expected: it was changed or cut off; mend or remove that line"
            )
        found.append(entry)
    return found


# ---- writing ----


def write_audit(
    run: Path, out: Path, *, review: str | None = None, key: Path | None = None
) -> Audit:
    """Writes the archive; ``review``: a review database, ``key``: a private key. Raises
    AnomalyError, DetectorError.
    """
    _check_name(out)
    detector, card = find_detector(run), read_card(run)
    log, chain = review_log(review, detectors_beside(detector, card)) if review else (None, None)
    made = {
        "summary.txt": audit_summary(
            card, str(detector.parent), read_checks(detector.with_name(CHECKS)), log
        ).encode(),
        "card.json": _json(card.to_json()),
    }
    if log is not None:
        lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in log)
        made["review/log.jsonl"] = "".join(lines).encode()
    files: dict[str, dict[str, Any]] = {}
    with whole_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in kept_files(detector):
            data = path.read_bytes() if path == detector else read_own(path)
            files[f"run/{printable(path.name)}"] = _add(
                archive, f"run/{printable(path.name)}", data
            )
        for name, data in made.items():
            files[name] = _add(archive, name, data)
        manifest = _json({**described(card, detector, files), "review": chain})
        _add(archive, MANIFEST, manifest)
        if key is not None:
            from anomaly.detector.signature import sign_bytes

            _add(archive, SIGNATURE, sign_bytes(manifest, key))
    return Audit(out, len(files), hashlib.sha256(manifest).hexdigest(), key is not None, chain)


def _check_name(out: Path) -> None:
    """Raises AnomalyError where no new archive can be written to ``out``."""
    if out.suffix.lower() != ".zip":
        raise AnomalyError(
            f"{out}: {out.suffix or 'no suffix'} found, the name of a .zip to write expected"
        )
    if out.exists():
        raise AnomalyError(f"{out} is there already and stays as it is: choose another name")
    if not out.parent.is_dir():
        raise AnomalyError(f"{out.parent}: no such folder; make it first, or choose another name")


def kept_files(detector: Path) -> Iterator[Path]:
    """Yields the files of a run that go into the archive: detectors, signatures, and what tells of
    the training.
    """
    for path in sorted(detector.parent.iterdir()):
        if path == detector or path == detector.with_name(f"{detector.name}.sig"):
            yield path
        elif (detector.parent / IMAGES).is_file() and not path.name.startswith("."):
            own = path.name.removesuffix(".sig").endswith(".onnx") and path.name not in NAMED_ONLY
            if own or path.name in KEPT_FILES or path.name.endswith(f".{IMAGES}"):
                yield path


def detectors_beside(detector: Path, card: Card) -> set[str]:
    """Returns the digests of a detector and of all those in its folder."""
    recalibrated = card.parent is not None and card.training.recalibrated is not None
    found = {card.digest} | ({card.parent} if card.parent and recalibrated else set())
    others = (path for path in kept_files(detector) if path.suffix == ".onnx" and path != detector)
    return found | {hashlib.sha256(read_own(path)).hexdigest() for path in others}


def described(card: Card, detector: Path, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the manifest."""
    stated, calibration = card.training.to_json(), card.calibration
    beside = [detector.with_name(name) for name in NAMED_ONLY]
    return {
        "format": FORMAT,
        "made_at": now(),
        "made_by": user(),
        "made_with": f"anomaly {__version__}",
        "detector": card.identity,
        "trained": {
            name: stated.get(name)
            for name in ("created", "by", "command", "images", "groups", "sets", "digest")
        },
        "recalibrated": {
            name: stated.get(name)
            for name in ("recalibrated", "recalibrated_by", "recalibrated_on")
        },
        "guarantee": None
        if calibration is None
        else {
            **named_rate(calibration.rate, calibration.kind),
            "k": calibration.k,
            "n": calibration.n,
        },
        "files": files,
        "not_included": {
            path.name: {"sha256": _digest(path), "bytes": path.stat().st_size}
            for path in beside
            if os.path.lexists(path)
        },
    }


def review_log(database: str, detectors: set[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the log of a review database, the oldest event first, as far as it tells of these
    detectors, and of the whole log the number of events, its digest, and which events are not as
    they were written.
    """
    from anomaly.review import Store

    with Store(database, create=False) as store:
        chain = store.log_chain()
        runs = {run.id for run in store.runs() if run.detector in detectors}
        events = store.events(limit=None)[::-1]
    kept = [event for event in events if event.detector in detectors or event.run in runs]
    ours = {event.id for event in kept}
    log = [asdict(event) for event in events if event.id in ours or event.undoes in ours]
    return log, {
        "events": len(chain.digests),
        "head": chain.head,
        "before": chain.before,
        "wrong": chain.wrong[:MAX_PROBLEMS_SHOWN],
    }


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> dict[str, Any]:
    archive.writestr(name, data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _digest(path: Path) -> str:
    with open(path, "rb", opener=open_own) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
