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
        "write what an auditor asks of a detector into one archive that can be verified",
        "anomaly report run --audit audit.zip --review review.db",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--audit", type=Path, required=True, metavar="ZIP", help="archive to write")
    p.add_argument(
        "--review",
        metavar="DB",
        help="a review database: its verdicts and changes of the threshold",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PEM",
        help="private key that signs it: openssl genpkey -algorithm ed25519",
    )


def run_report(options: argparse.Namespace) -> None:
    from anomaly.quality.audit import write_audit

    print(
        write_audit(options.detector, options.audit, review=options.review, key=options.key).text()
    )
