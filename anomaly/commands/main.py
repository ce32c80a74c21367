"""The command `anomaly`. Each command is thin: it reads its arguments, calls one function and
prints what that returns.

The exit statuses are in anomaly/errors.py. Heavy modules are imported by the command that needs
them.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from anomaly.commands.arguments import say
from anomaly.commands.bench import add_bench
from anomaly.commands.calibrate import add_calibrate
from anomaly.commands.check import add_check
from anomaly.commands.compare import add_compare
from anomaly.commands.demo import add_demo
from anomaly.commands.doctor import add_doctor
from anomaly.commands.evaluate import add_evaluate
from anomaly.commands.export import add_export
from anomaly.commands.gallery import add_gallery
from anomaly.commands.learn import add_learn
from anomaly.commands.mark import add_mark
from anomaly.commands.reconstruct import add_reconstruct
from anomaly.commands.report import add_report
from anomaly.commands.retrain import add_retrain
from anomaly.commands.review import add_review
from anomaly.commands.run import add_run
from anomaly.commands.sample import add_sample
from anomaly.commands.score import add_score
from anomaly.commands.serve import add_serve
from anomaly.commands.show import add_show
from anomaly.commands.sign import add_sign
from anomaly.commands.train import add_train
from anomaly.commands.verify import add_verify
from anomaly.errors import FAILED, INTERRUPTED, AnomalyError
from anomaly.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    interrupts: list[int] = []
    try:
        with _noted(interrupts):
            options = parser().parse_args(given)
            options.command_line = shlex.join(["anomaly", *given])
            status: int = options.run(options) or 0
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as interrupt:
        return _stopped(str(interrupt))
    except Exception as error:
        # while it was being imported, say: some libraries turn Ctrl-C into an error of their own
        if interrupts:
            return _stopped("")
        return _failed(error)


@contextmanager
def _noted(interrupts: list[int]) -> Iterator[None]:
    """Notes each Ctrl-C before it is raised."""

    def note(number: int, frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _stopped(how: str) -> int:
    say(f"anomaly: {how or 'stopped'}")
    return INTERRUPTED


def _failed(error: Exception) -> int:
    """Says in one line what went wrong, and returns the exit status; what is a bug is
    raised again.
    """
    if isinstance(error, BrokenPipeError):  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, AnomalyError):
        say(f"anomaly: {error}")
    elif isinstance(error, OSError):
        name = error.filename
        # every file is named
        if name is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            name = "standard output"
            # not tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = "" if name is None else f"{name}: "
        say(f"anomaly: {where}{error.strerror or error}")
    else:
        raise error
    return FAILED


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="anomaly",
        description="Visual anomaly detection. Train on good images only, get one ONNX file with a "
        "guaranteed false-alarm rate, and score images with it.",
    )
    whole.add_argument("--version", action="version", version=f"anomaly {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        add_train,
        add_mark,
        add_retrain,
        add_learn,
        add_evaluate,
        add_score,
        add_run,
        add_bench,
        add_calibrate,
        add_check,
        add_compare,
        add_show,
        add_verify,
        add_sign,
        add_report,
        add_sample,
        add_reconstruct,
        add_gallery,
        add_review,
        add_serve,
        add_export,
        add_doctor,
        add_demo,
    ):
        add(commands)
    return whole


if __name__ == "__main__":
    raise SystemExit(main())
