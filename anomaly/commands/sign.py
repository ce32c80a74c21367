"""The command `anomaly sign`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command
from anomaly.reporting.lines import line_of


def add_sign(commands: Any) -> None:
    p = command(
        commands,
        "sign",
        run_sign,
        "sign a detector, so that others can verify its origin",
        "anomaly sign run --key key.pem",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="PEM",
        help="private key: openssl genpkey -algorithm ed25519",
    )


def run_sign(options: argparse.Namespace) -> None:
    from anomaly.detector.signature import sign

    signature = sign(options.detector, options.key)
    print(line_of("written", f"{signature}   keep it beside the detector"))
