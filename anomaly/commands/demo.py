"""The command `anomaly demo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command
from anomaly.learning import import_training


def add_demo(commands: Any) -> None:
    p = command(
        commands,
        "demo",
        run_demo,
        "train, evaluate and score on real images (needs a checkout of the repository)",
        "anomaly demo",
    )
    p.add_argument("--data", choices=("solar-cells", "synthetic"), default="solar-cells")
    p.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")


def run_demo(options: argparse.Namespace) -> None:
    import_training()
    from training.demo import demo

    demo(options.data, options.out)
