"""Kills `anomaly run` at random moments while images come, and looks whether each is judged,
recorded and delivered, once and in order.

python -m tests.support.kill_station [--rounds 50] [--run RUN] [--seed N]

Images come as files in a folder, as posts (again until they are answered, with an id) and as MQTT
messages; results go to standard output, a table, a folder, a review database, MQTT and a webhook,
and two controllers look at Modbus and OPC UA. Afterwards every image has one result, the table and
the review hold each once, who listens to MQTT and the webhook has all in order, once those are
dropped whose id is known, and no controller saw a result that had expired or was of before a kill.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from anomaly.review import Store
from tests.support.controllers import Controllers
from tests.support.review_server import free_port
from tests.support.stations import (
    Broker,
    Listener,
    Receiver,
    Station,
    in_order_once,
    picture,
    station,
    wait_until,
)

TOML = """
waiting = 4
[[source]]
kind = "folder"
path = "incoming"
remove = {remove}
[[source]]
kind = "http"
port = {http}
[[source]]
kind = "mqtt"
broker = "127.0.0.1:{broker}"
topic = "camera/#"
[[sink]]
kind = "stdout"
[[sink]]
kind = "table"
path = "results.csv"
[[sink]]
kind = "folder"
path = "flagged"
[[sink]]
kind = "review"
database = "review.db"
create = true
audit_share = 0.3
[[sink]]
name = "broker"
kind = "mqtt"
broker = "127.0.0.1:{broker}"
topic = "line"
[[sink]]
kind = "webhook"
url = "http://127.0.0.1:{hook}/"
[[sink]]
kind = "modbus"
host = "127.0.0.1"
port = {modbus}
expires = {expires}
[[sink]]
kind = "opcua"
url = "{opcua}"
expires = {expires}
"""
EXPIRES = 0.5  # seconds: shorter than the pause between two images of one source


@dataclass
class Feeding:
    """Threads that bring images until they are stopped; ``sent``: what they are called."""

    station: Station
    http: int
    broker: int
    pause: float
    sent: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def coming(self) -> Iterator[Feeding]:
        threads = [
            threading.Thread(target=one) for one in (self._files, self._posts, self._messages)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def _files(self) -> None:
        number = 0
        while not self.stopping.wait(self.pause):
            name = f"file-{number}.png"
            hidden = self.station.home / "incoming" / f".{name}"
            hidden.write_bytes(picture(number, "missing" if number % 5 == 0 else None))
            self.sent.append(name)
            hidden.rename(hidden.with_name(name))
            number += 1

    def _posts(self) -> None:
        number = 0
        while not self.stopping.wait(self.pause):
            name = f"post-{number}"
            self.sent.append(name)
            body = picture(1000 + number)
            while True:
                with suppress(OSError):
                    query = f"?id={number}&serial=P{number}"
                    if self.station.post(self.http, body, query).status == 200:
                        break
                time.sleep(0.2)
            number += 1

    def _messages(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="camera")
        client.connect("127.0.0.1", self.broker)
        client.loop_start()
        number = 0
        while not self.stopping.wait(self.pause):
            name = f"camera/{number}"
            self.sent.append(name)
            client.publish(name, picture(2000 + number), 1).wait_for_publish()
            number += 1
        client.disconnect()
        client.loop_stop()


def kill(home: Path, run: Path, rounds: int, seed: int, remove: bool = False) -> Counter[str]:
    """Kills ``rounds`` times; returns how many images came, and how many results came twice."""
    choose, ports = random.Random(seed), [free_port() for _ in range(5)]
    http, broker_port, hook = ports[:3]
    controllers = Controllers(ports[3], f"opc.tcp://127.0.0.1:{ports[4]}/anomaly")
    (home / "incoming").mkdir()
    toml = TOML.format(
        http=http, broker=broker_port, hook=hook, remove=str(remove).lower(),
        modbus=controllers.modbus, opcua=controllers.opcua, expires=EXPIRES,
    )  # fmt: skip
    broker, receiver, listener = Broker(home, broker_port), Receiver(hook), Listener()
    broker.start()
    with ExitStack() as stack:
        stack.callback(broker.stop)
        stack.enter_context(receiver.receiving())
        stack.enter_context(listener.listening(broker_port, "line/result"))
        stack.enter_context(controllers.looking())
        line = stack.enter_context(station(home, run, toml))
        began = time.monotonic()
        line.start()
        took = time.monotonic() - began
        with Feeding(line, http, broker_port, pause=1.0).coming() as feeding:
            for number in range(rounds):
                print(f"kill {number + 1} of {rounds}: {len(feeding.sent)} images", flush=True)
                line.kill()
                line.launch()
                time.sleep(choose.choice((choose.uniform(0, took), took + choose.uniform(0, 3))))
            wait_until(line.works, "the station works again")
            wait_until(controllers.both_saw, "both controllers see a result")
            feeding.stopping.set()
        live = line.judged(len(feeding.sent))
        assert line.stop() == 0, line.log
        wait_until(lambda: len(in_order_once(listener.results())) == len(feeding.sent), "messages")
        assert sum(live["counts"].values()) == len(feeding.sent), live["counts"]
        check(line, feeding, listener, receiver)
        results = receiver.results()
        judged = {one["seq"]: datetime.fromisoformat(one["judged_at"]) for one in results}
        looks = controllers.check(judged, line.launches, EXPIRES)
    return Counter(
        images=len(feeding.sent),
        messages_again=len(listener.results()) - len(feeding.sent),
        posts_again=len(receiver.posts) - len(feeding.sent),
        lines_again=len(line.lines) - len(feeding.sent),
        looks_of_controllers=looks.total(),
    )


def check(line: Station, feeding: Feeding, listener: Listener, receiver: Receiver) -> None:
    """Compares what was sent with what is recorded and delivered."""
    with open(line.home / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["path"].rpartition("incoming/")[2] for row in rows]
    assert Counter(names) == Counter(feeding.sent), Counter(names) - Counter(feeding.sent)
    numbers = [int(row["seq"]) for row in rows]
    assert numbers == list(range(1, len(rows) + 1)), "the table has a gap, or another order"
    for results in (listener.results(), receiver.results(), line.lines):
        assert in_order_once(results) == numbers, "a gap or another order"
    with Store(line.home / "review.db") as store:
        assert sum(run.images for run in store.runs()) == len(rows)
        flagged = sum(row["outcome"] == "flagged" for row in rows)
        assert sum(run.flagged for run in store.runs()) == flagged > 0
    copies = list((line.home / "flagged").rglob("*.png"))
    assert len(copies) == flagged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--run", type=Path, help="a detector of discs (default: trained now)")
    parser.add_argument("--remove", action="store_true", help="files are removed when judged")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        run = options.run or trained_now(home)
        print(f"seed {options.seed}", flush=True)
        (home / "station").mkdir()
        counts = kill(
            home / "station", run.absolute(), options.rounds, options.seed, options.remove
        )
    print(f"killed {options.rounds} times: {dict(counts)}; each image once, all in order")


def trained_now(home: Path) -> Path:
    """Returns a run that is trained in a minute or two."""
    from data.synthetic import write_dataset
    from tests.support.runs import trained

    write_dataset(home / "parts", kind="disc", train=120, good=30, per_defect=4, size=64)
    return trained(home / "run", home / "parts", space="filters")


if __name__ == "__main__":
    main()
