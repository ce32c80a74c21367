"""The command `anomaly doctor`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from anomaly.commands.arguments import command
from anomaly.errors import FAILED


def add_doctor(commands: Any) -> None:
    p = command(
        commands,
        "doctor",
        run_doctor,
        "test what is installed and what works on this machine",
        "anomaly doctor",
    )
    p.add_argument("--json", action="store_true")


def run_doctor(options: argparse.Namespace) -> int:
    from anomaly.quality.doctor import examine

    findings = examine()
    if options.json:
        print(
            json.dumps([{"what": f.what, "found": f.found, "ok": f.ok} for f in findings], indent=2)
        )
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else '-- '} {finding.what:<28}{finding.found}")
    return 0 if all(finding.ok for finding in findings if finding.needed) else FAILED
