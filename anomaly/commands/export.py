"""The command `anomaly export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command, number
from anomaly.errors import AnomalyError
from anomaly.reporting.lines import line_of


def add_export(commands: Any) -> None:
    """Adds `export` to the command line."""
    p = command(
        commands, "export", run_export, "write a detector for another server",
        "anomaly export run --to triton models",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "--to",
        nargs=2,
        required=True,
        metavar=("triton", "DIR"),
        help="write a Triton model repository",
    )
    p.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device that Triton runs it on"
    )
    p.add_argument(
        "--batch",
        type=number(1),
        default=8,
        metavar="N",
        help="largest batch (8)",
    )
    p.add_argument(
        "--delay",
        type=number(0),
        default=2000,
        metavar="US",
        help="microseconds to wait for a batch (2000)",
    )


def run_export(options: argparse.Namespace) -> None:
    from anomaly.serve.triton import export_triton

    what, folder = options.to
    if what != "triton":
        raise AnomalyError(f"--to {what} found, --to triton DIR expected")
    out = export_triton(
        options.detector,
        Path(folder),
        device=options.device,
        batch=options.batch,
        delay=options.delay,
    )
    print(line_of("written", f"{out}   tritonserver --model-repository {folder}"))
