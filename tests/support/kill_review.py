"""Kills a process that gives verdicts, at random moments, and looks whether everything it confirmed
is there.

python -m tests.support.kill_review [--rounds 50] [--database postgresql://...]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from anomaly.review import Filters, Store, default_key, schema
from anomaly.review.verdicts import resolve
from tests.benchmarks.bench_review import synthetic_rows, write_table


def give_verdict(database: str) -> None:
    """Gives verdicts, changes and undoes some, and prints the key of each once the store has
    confirmed it.
    """
    with Store(database) as store:
        run, choose = store.runs()[0].id, random.Random()
        while finding := store.next("ann", filters=Filters(run=run), count=3):
            for verdict in choose.choices(
                ("anomalous", "normal", "unsure", "skip"), k=choose.randint(1, 2)
            ):
                key = default_key()
                store.record("ann", finding[0].id, verdict, key=key)
                print(key, flush=True)
            if choose.random() < 0.2:
                key = default_key()
                store.undo("ann", key=key)
                print(key, flush=True)


def kill_once(database: str, seconds: float) -> list[str]:
    """Returns the keys that a process confirmed before it was killed, ``seconds`` after
    its first.
    """
    command = [sys.executable, "-m", "tests.support.kill_review", "--judge", database]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    assert process.returncode == -signal.SIGKILL, f"it ended by itself with {process.returncode}"
    # the last line may be cut off: its verdict was written, its confirmation was not
    return [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


def kill(database: str, rounds: int, seed: int = 0) -> int:
    """Kills ``rounds`` times and returns how many verdicts were confirmed; AssertionError where one
    of them is lost.
    """
    confirmed: list[str] = []
    choose = random.Random(seed)
    for _ in range(rounds):
        confirmed += [line.strip() for line in kill_once(database, choose.uniform(0, 0.4))]
        with Store(database) as store:
            check(store, confirmed)
    return len(confirmed)


def check(store: Store, confirmed: list[str]) -> None:
    """Everything that was confirmed is there once, and the findings' states are what the log comes
    to.
    """
    keys = [event.key for event in store.events(inspector="ann", limit=None)]
    lost = set(confirmed) - set(keys)
    assert not lost, f"{len(lost)} of {len(confirmed)} confirmed verdicts are lost"
    assert len(keys) == len(set(keys))
    said: dict[int | None, list[str]] = {}
    for event in store.standing():
        said.setdefault(event.finding, []).append(event.action)
    states = {finding.id: finding.state for finding in store.findings(limit=1_000_000)}
    assert states == {finding: resolve(said.get(finding, [])) for finding in states}
    with store._db.read() as c:
        log, kept = schema.verdicts.c, schema.current.c
        derived = c.execute(
            sa.select(log.finding, log.inspector, log.id, log.verdict).order_by(log.id)
        ).all()
        assert (
            c.execute(
                sa.select(kept.finding, kept.inspector, kept.event, kept.verdict).order_by(
                    kept.event
                )
            ).all()
            == derived
        )
        if c.dialect.name == "sqlite":
            assert c.scalar(sa.text("PRAGMA integrity_check")) == "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--database", help="a URL or a new file (default: a temporary file)")
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        give_verdict(options.judge)
        return
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or f"{folder}/review.db"
        with Store(database) as store:
            store.import_table(write_table(Path(folder, "scores.csv"), synthetic_rows(20_000)))
        print(
            f"killed {options.rounds} times: all {kill(database, options.rounds):,} confirmed "
            "verdicts are there"
        )


if __name__ == "__main__":
    main()
