"""One `anomaly` command that ends with whoever started it: `python -m anomaly.commands.followed`.

The first line of its standard input holds the arguments, as JSON. When that closes, the starter is
gone or wants an end: the command is stopped as by Ctrl-C, so that it can be resumed.
"""

from __future__ import annotations

import _thread
import json
import os
import sys
import threading
import time

from anomaly.commands.main import main
from anomaly.errors import INTERRUPTED
from anomaly.files import progress

PATIENCE = 10.0  # seconds that a stopped command has to finish what it writes
LINE_SECONDS = 5.0  # between two lines of progress: somebody is watching


def follow() -> None:
    """Ends this process once its standard input is closed."""
    # not by sys.stdin: its lock would be held when Python ends
    while os.read(sys.stdin.fileno(), 1):
        pass
    _thread.interrupt_main()
    time.sleep(PATIENCE)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    progress.LONGEST_GAP = LINE_SECONDS
    arguments = json.loads(sys.stdin.readline())
    try:
        threading.Thread(target=follow, daemon=True).start()
        status = main(arguments)
    except KeyboardInterrupt:  # before the command has begun
        status = INTERRUPTED
    raise SystemExit(status)
