"""An audit archive: the facts of one that was written or verified, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.files.table import printable
from anomaly.inputs.used_images import IMAGES
from anomaly.reporting.detector import card_text
from anomaly.reporting.lines import rows_text

if TYPE_CHECKING:
    from anomaly.detector.card import Card

Log = list[dict[str, Any]]  # events of a review database as JSON


@dataclass(frozen=True)
class Audit:
    """What was written. ``digest``: sha256 of the manifest, by which two people can compare theirs;
    ``review``: of the log.
    """

    out: Path
    files: int
    digest: str
    signed: bool
    review: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class VerifiedAudit:
    """A whole archive: its ``manifest`` with the sha256 of that, whether it is ``signed``, and the
    public ``key`` that it was checked with.

    ``compared``: the review database that still holds its log, and how many events that has now.
    """

    manifest: Mapping[str, Any]
    digest: str
    signed: bool
    key: Path | None = None
    compared: tuple[str, int] | None = None


def audit_text(audit: Audit) -> str:
    """Returns what was written, and how to verify it."""
    signed = "signed" if audit.signed else "not signed: --key signs it"
    key = " --key PUB" if audit.signed else ""
    return rows_text(
        [
            ("written", f"{audit.out}   {audit.files} files"),
            *([] if audit.review is None else [("review log", _log(audit.review))]),
            ("manifest", f"sha256:{audit.digest}   ({signed})"),
            ("to verify", f"anomaly verify --audit {audit.out}{key}"),
        ]
    )


def verified_text(audit: VerifiedAudit) -> str:
    """Returns what a whole archive holds, and who vouches for it."""
    manifest = audit.manifest
    made = f"made {manifest['made_at']} by {manifest['made_by']}"
    return rows_text(
        [
            ("whole", f"{len(manifest['files'])} files as the manifest says; {_signed(audit)}"),
            ("manifest", f"sha256:{audit.digest}, {made}"),
            ("detector", manifest["detector"]),
            *_compared(audit),
        ]
    )


def audit_summary(
    card: Card, run: str, checks: Sequence[Mapping[str, Any]], log: Log | None
) -> str:
    """Returns what an archive holds; ``checks``: noted in the run folder; ``log``: the events that
    tell of the detector.
    """
    training = card.training
    lines = [
        ("detector", card.identity),
        (
            "trained",
            f"{training.created} by {training.by or 'unknown'}, on {training.images} good images",
        ),
        ("images", f"digest {training.digest}; one by one in run/{IMAGES}"),
        ("command", str(training.command)),
    ]
    if training.recalibrated:
        by = training.recalibrated_by or "unknown"
        on = f"on {training.recalibrated_on} good images"
        lines.append(
            ("recalibrated", f"{training.recalibrated} by {by}, {on}; from sha256:{card.parent}")
        )
    lines += [("warning", line) for line in training.warnings or ()]
    lines.append(
        (
            "checks since",
            f"{len(checks)}"
            + (", in run/checks.jsonl" if checks else ": none was noted in the run folder"),
        )
    )
    lines += [("", f"{entry['at']} {entry['by']}: {entry['command']}") for entry in checks]
    lines.append(
        ("review", "no database was given (--review DB)" if log is None else _counted(log))
    )
    return printable(f"{rows_text(lines)}\n{card_text(card, run)}\n")


def _signed(audit: VerifiedAudit) -> str:
    if audit.key is not None:
        return f"signed with the key of {audit.key}"
    if audit.signed:
        return "signed; --key PUB checks by whom"
    return "not signed: shows accidents, not a forger"


def _compared(audit: VerifiedAudit) -> list[tuple[str, str]]:
    log = audit.manifest.get("review")
    if log is None:
        return []
    if audit.compared is None:
        return [("review log", f"{_log(log)}; --review DB compares")]
    database, events = audit.compared
    here = f"{log['events']} events of the archive are in {database} as they were"
    return [("review log", f"{here}, of {events}")]


def _log(review: Mapping[str, Any]) -> str:
    """Returns in words whether a review database's log was as it was written, and its digest."""
    whole = f"rewritten: {review['wrong'][0]}" if review["wrong"] else "each as it was written"
    return f"{review['events']} events, {whole}; head sha256:{review['head']}"


def _counted(log: Log) -> str:
    actions = [event["action"] for event in log]
    counts = ", ".join(f"{actions.count(action)} {action}" for action in sorted(set(actions)))
    return f"{len(log)} events in review/log.jsonl" + (f": {counts}" if log else "")
