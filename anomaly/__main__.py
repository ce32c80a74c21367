"""The command `anomaly`, and `python -m anomaly`."""

from __future__ import annotations

import sys


def run() -> int:
    """Runs one command and returns its exit status; Ctrl-C before the command has begun is no traceback."""
    try:
        from anomaly.cli import main

        return main()
    except KeyboardInterrupt:
        print("anomaly: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(run())
