"""`anomaly report RUN --audit out.zip`: everything that an auditor asks of a detector, in one file that a command verifies.

manifest.json    who made it and when, the detector, what it was trained on and guarantees, and of every other file its
                 size and sha256; of what is left out for its size the sha256 too
manifest.sig     with a key: Ed25519 over manifest.json (see anomaly/detector/signature.py)
summary.txt      the same for people
card.json        the detector's card: options, versions, calibration scores, golden samples
run/...          detector.onnx and those it was recalibrated into, images.csv (which image was used for what, with its
                 sha256), report.html, train.jsonl, checks.jsonl, signatures
review/log.jsonl with a review database: verdicts, changes of the threshold and all else that was done with this detector; the
                 manifest has the digest of the whole log (see anomaly/review/chain.py)
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anomaly
from anomaly.detector.file import Card, find_detector, read_card, user
from anomaly.errors import AnomalyError
from anomaly.files.own_files import open_own, read_own
from anomaly.files.table import named, printable, whole_file
from anomaly.reporting.wording import card_text

FORMAT = 1
LARGEST_CHECKS = 1 << 26  # bytes of checks.jsonl
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
IMAGES, CHECKS = "images.csv", "checks.jsonl"
KEPT_FILES = (IMAGES, CHECKS, "report.html", "train.jsonl")
NAMED_ONLY = ("checkpoint.safetensors", "explain.onnx")
MAX_MANIFEST, MAX_SIGNATURE, PIECE = 64 << 20, 1 << 10, 1 << 20
MAX_MEMBERS, MAX_DIRECTORY = 10_000, 16 << 20  # files of an archive, and bytes of the zip's list of them
MAX_PROBLEMS_SHOWN = 20  # of what is wrong


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---- what was checked ----


def note_check(detector: Path, command: str, card: Card, found: Mapping[str, Any]) -> None:
    """Adds what a command found of a detector to RUN/checks.jsonl; nothing where it lies in no run folder."""
    folder = find_detector(detector).parent
    if not (folder / IMAGES).is_file() or not os.access(folder, os.W_OK):
        return
    entry = {"at": now(), "by": user(), "command": command, "detector": card.identity, "found": found}
    checks = folder / CHECKS
    with named(checks), open(checks, "a", encoding="utf-8", opener=open_own) as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_checks(path: Path) -> list[dict[str, Any]]:
    """Returns what ``note_check`` noted, [] without a file; AnomalyError for a line that it did not write."""
    if not os.path.lexists(path):
        return []
    found = []
    for number, line in enumerate(read_own(path, LARGEST_CHECKS).decode("utf-8", "replace").splitlines(), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("at", "by", "command")):
            raise AnomalyError(
                f"{path}, line {number}: {line[:40]!r} found, a check's JSON with at, by and command expected: it was "
                "changed or cut off; mend or remove that line"
            )
        found.append(entry)
    return found


# ---- writing ----


@dataclass(frozen=True)
class Audit:
    """What was written. ``digest``: sha256 of the manifest, by which two people can compare theirs; ``review``: of the log."""

    out: Path
    files: int
    digest: str
    signed: bool

    review: dict[str, Any] | None = None

    def text(self) -> str:
        signed = "signed" if self.signed else "not signed: --key signs it"
        log = "" if self.review is None else f"{'review log':<24}{review_text(self.review)}\n"
        return (
            f"{'written':<24}{self.out}   {self.files} files\n{log}{'manifest':<24}sha256:{self.digest}   ({signed})\n"
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
    log, chain = review_log(review, detectors_beside(detector, card)) if review else (None, None)
    made = {"summary.txt": summary(card, detector, log).encode(), "card.json": _json(card.to_json())}
    if log is not None:
        lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in log)
        made["review/log.jsonl"] = "".join(lines).encode()
    files: dict[str, dict[str, Any]] = {}
    with whole_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in kept_files(detector):
            data = path.read_bytes() if path == detector else read_own(path)
            files[f"run/{printable(path.name)}"] = _add(archive, f"run/{printable(path.name)}", data)
        for name, data in made.items():
            files[name] = _add(archive, name, data)
        manifest = _json({**described(card, detector, files), "review": chain})
        _add(archive, MANIFEST, manifest)
        if key is not None:
            from anomaly.detector.signature import sign_bytes

            _add(archive, SIGNATURE, sign_bytes(manifest, key))
    return Audit(out, len(files), hashlib.sha256(manifest).hexdigest(), key is not None, chain)


def kept_files(detector: Path) -> Iterator[Path]:
    """Yields the files of a run that go into the archive: detectors, signatures, and what tells of the training."""
    for path in sorted(detector.parent.iterdir()):
        if path == detector or path == detector.with_name(f"{detector.name}.sig"):
            yield path
        elif (detector.parent / IMAGES).is_file() and not path.name.startswith("."):
            own = path.name.removesuffix(".sig").endswith(".onnx") and path.name not in NAMED_ONLY
            if own or path.name in KEPT_FILES or path.name.endswith(f".{IMAGES}"):
                yield path


def detectors_beside(detector: Path, card: Card) -> set[str]:
    """Returns the digests of a detector and of all those in its folder."""
    found = {card.digest} | ({card.parent} if card.parent else set())
    others = (path for path in kept_files(detector) if path.suffix == ".onnx" and path != detector)
    return found | {hashlib.sha256(read_own(path)).hexdigest() for path in others}


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
        "guarantee": None
        if calibration is None
        else {"rate": calibration.guaranteed_rate, "k": calibration.k, "n": calibration.n},
        "files": files,
        "not_included": {
            path.name: {"sha256": _digest(path), "bytes": path.stat().st_size} for path in beside if os.path.lexists(path)
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
    done = read_checks(detector.with_name(CHECKS))
    lines.append(("checks since", f"{len(done)}" + (f", in run/{CHECKS}" if done else ": none was noted in the run folder")))
    lines += [("", f"{entry['at']} {entry['by']}: {entry['command']}") for entry in done]
    lines.append(("review", "no database was given (--review DB)" if log is None else _counted(log)))
    text = "\n".join(f"{label:<24}{text}" for label, text in lines)
    return printable(f"{text}\n{card_text(card, str(detector.parent))}\n")


def _counted(log: list[dict[str, Any]]) -> str:
    actions = [event["action"] for event in log]
    counts = ", ".join(f"{actions.count(action)} {action}" for action in sorted(set(actions)))
    return f"{len(log)} events in review/log.jsonl" + (f": {counts}" if log else "")


def review_text(review: Mapping[str, Any]) -> str:
    """Returns in words whether a review database's log was as it was written, and its digest."""
    whole = f"rewritten: {review['wrong'][0]}" if review["wrong"] else "each as it was written"
    return f"{review['events']} events, {whole}; head sha256:{review['head']}"


def review_log(database: str, detectors: set[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the log of a review database, the oldest event first, as far as it tells of these detectors, and of the
    whole log the number of events, its digest, and which events are not as they were written.
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
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def _digest(path: Path) -> str:
    with open(path, "rb", opener=open_own) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- verifying ----


def verify_audit(path: Path, key: Path | None = None, review: str | None = None) -> str:
    """Returns in words what a whole archive holds; AnomalyError naming every file that was changed, added or is missing.

    ``key``: a public key by which the manifest must be signed. Without one the digests show accidents, but nobody who makes
    a new manifest. ``review``: the review database, whose log must still hold what the archive says of it.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            manifest, data = _manifest(archive, path)
            wrong = [*_wrong_members(archive, manifest), *_wrong_detector(manifest), *_wrong_log(manifest)]
            signature = _signature(archive)
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, KeyError) as error:
        raise AnomalyError(f"{path}: not an audit archive, or a damaged one ({str(error)[:200]}): get it again") from error
    if wrong:
        more = f"; and {len(wrong) - MAX_PROBLEMS_SHOWN:,} more" if len(wrong) > MAX_PROBLEMS_SHOWN else ""
        raise AnomalyError(f"{path}: not whole: {'; '.join(wrong[:MAX_PROBLEMS_SHOWN])}{more}")
    signed = "not signed: shows accidents, not a forger"
    if signature is not None:
        signed = "signed; --key PUB checks by whom"
    if key is not None:
        from anomaly.detector.signature import is_signed

        if signature is None or not is_signed(data, signature, key):
            found = "no signature" if signature is None else "a signature of another key or of another manifest"
            raise AnomalyError(f"{path}: {found} found, one by the key of {key} expected: get it again from whom you trust")
        signed = f"signed with the key of {key}"
    log = _compared_log(path, manifest, review)
    return (
        f"{'whole':<24}{len(manifest['files'])} files as the manifest says; {signed}\n"
        f"{'manifest':<24}sha256:{hashlib.sha256(data).hexdigest()}, made {manifest['made_at']} by {manifest['made_by']}\n"
        f"{'detector':<24}{manifest['detector']}{log}"
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
    if members > MAX_MEMBERS or directory > MAX_DIRECTORY:  # zip64, for more than 65,534, says 65,535 here
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


def _compared_log(path: Path, manifest: dict[str, Any], review: str | None) -> str:
    """Returns what is said of the review log; AnomalyError where ``review`` does not hold the archive's any more."""
    said = manifest.get("review")
    if review is None:
        return "" if said is None else f"\n{'review log':<24}{review_text(said)}; --review DB compares"
    if said is None:
        raise AnomalyError(f"{path}: no review log in it, one to compare with {review} expected: report it with --review")
    from anomaly.review import Store
    from anomaly.review.chain import in_words

    with Store(review, create=False) as store:
        chain = store.log_chain()
    missing = chain.missing(said["events"], said["head"])
    wrong = [*chain.wrong, *([missing] if missing else [])]
    if wrong:
        raise AnomalyError(f"{review}: the log is not that of {path}: {in_words(wrong)}: restore a backup")
    return f"\n{'review log':<24}{said['events']} events of the archive are in {review} as they were, of {len(chain.digests)}"


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
    if not _fits(manifest.get("review")) or len(manifest["files"]) > MAX_MEMBERS:
        raise ValueError(f"{MANIFEST} is damaged")
    return manifest, data


def _fits(review: object) -> bool:
    if review is None:
        return True
    if not isinstance(review, dict) or not isinstance(review.get("wrong"), list):
        return False
    return type(review.get("events")) is int and review["events"] >= 0 and isinstance(review.get("head"), str)


def _tables(files: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, entry if isinstance(entry, dict) else {}) for name, entry in files.items())


def _wrong_members(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each file that is not as the manifest says, and for bytes that belong to no file."""
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
