"""The command `anomaly`, and `python -m anomaly`."""

from __future__ import annotations

import os
import sys
import threading
import time

LEAVING_SECONDS = 1.0


def run() -> int:
    """Runs one command and returns its exit status; Ctrl-C before the command has begun is no
    traceback.
    """
    try:
        from anomaly.commands.main import main

        status = main()
    except KeyboardInterrupt:
        print("anomaly: stopped", file=sys.stderr)
        status = 130
    leave(status)
    return status


def leave(status: int) -> None:
    """Ends the process where threads go on for more than a second after the command is done.

    Python would wait for them, and one that is inside an operator of a graph may not come back for
    days.
    """
    until = time.monotonic() + LEAVING_SECONDS
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    raise SystemExit(run())
