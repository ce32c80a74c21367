"""`anomaly review alerts`: mail and webhook when a light turns red or a station stops."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command
from anomaly.errors import AnomalyError
from anomaly.reporting.lines import line_of


def add_alerts(actions: Any) -> argparse.ArgumentParser:
    """Adds `review alerts` to the actions of `review`."""
    p = command(
        actions,
        "alerts",
        run_alerts,
        "tell by mail and webhook when a light turns red or a station stops",
        "anomaly review alerts --plant plant.toml --every 60",
        "each alert once until it clears; one look, as for cron, or a look every SECONDS",
    )
    p.add_argument(  # no default: it would replace what was given before the action
        "--plant", type=Path, default=argparse.SUPPRESS, metavar="TOML",
        help="with [mail] or [webhook]",
    )  # fmt: skip
    p.add_argument("--every", type=float, metavar="SECONDS", help="go on looking (5 or more)")
    p.add_argument("--try", action="store_true", dest="trial", help="only send a test message")
    return p


def run_alerts(options: argparse.Namespace) -> int:
    from anomaly.plant.alerts import look
    from anomaly.plant.settings import read_plant
    from anomaly.plant.tell import channels
    from anomaly.review import Store

    plant = read_plant(options.plant)
    if not channels(plant):
        where = options.plant or "without --plant"
        raise AnomalyError(f"{where}: no [mail] and no [webhook] found, one expected")
    if options.every is not None and not options.every >= 5:
        raise AnomalyError(f"--every {options.every:g} found, 5 or more seconds expected")
    if options.trial:
        return say_trial(channels(plant))
    with Store(options.db, create=False) as store:
        while True:
            status = 0
            try:
                told = look(store, plant)
                status = say(told.going_on, told.sent, told.failed, options.every is None)
            except AnomalyError as error:
                if options.every is None:
                    raise
                print(line_of("failed", error), flush=True)
            if options.every is None:
                return status
            time.sleep(options.every)


def say(going_on: Any, sent: Any, failed: Any, quiet_too: bool) -> int:
    """Prints what was told by which channel, and why something could not be; returns the exit
    status.
    """
    for channel, some in sent.items():
        for alert in some:
            print(line_of(channel, alert.said), flush=True)
    for channel, why in failed.items():
        print(line_of(f"{channel} failed", f"{why}: told at the next look"), flush=True)
    if quiet_too and not failed and not any(sent.values()):
        print(line_of("nothing new", f"{len(going_on)} alerts go on"), flush=True)
    return 1 if failed else 0


def say_trial(ways: Any) -> int:
    """Sends a test message by every channel and prints what came of it."""
    status, now = 0, datetime.now(UTC)
    for channel, tell in ways.items():
        try:
            tell(["A test: alerts of the inspection come this way."], now)
            print(line_of(channel, "sent"))
        except OSError as error:
            print(line_of(f"{channel} failed", error))
            status = 1
    return status
