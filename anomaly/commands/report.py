"""The command `anomaly report`, for whoever audits a detector."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command


def add_report(commands: Any) -> None:
    """Adds `report` to the command line."""
    p = command(
        commands,
        "report",
        run_report,
        "write a complete audit record of a detector, which can be verified",
        "anomaly report run --audit audit.zip --review review.db",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--audit", type=Path, required=True, metavar="ZIP", help="archive to write")
    p.add_argument(
        "--review",
        metavar="DB",
        help="review database: include its verdicts and threshold changes",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PEM",
        help="private key to sign it with: openssl genpkey -algorithm ed25519",
    )


def run_report(options: argparse.Namespace) -> None:
    from anomaly.quality.audit import write_audit
    from anomaly.reporting.audit import audit_text

    audit = write_audit(options.detector, options.audit, review=options.review, key=options.key)
    print(audit_text(audit))
