"""The judge: an image that comes again has one result, a lost one too, and what is kept is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pytest

from anomaly.errors import ImageError
from anomaly.scorer import Scorer
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.deliver import Delivery
from anomaly.station.health import Health
from anomaly.station.judge import Judge, Keeping
from anomaly.station.ledger import Ledger, Noted
from anomaly.station.mqtt import taken_of
from anomaly.station.pictures import PictureThread
from anomaly.station.results import Actions, StationResult
from anomaly.station.settings import MqttSource
from tests.support.stations import SECONDS, example, picture, wait_until


@pytest.fixture(scope="module")
def scorer(run: Path) -> Scorer:
    return Scorer(run)


def judged(scorer: Scorer, home: Path, images: list[Taken], share: float = 0.0) -> Ledger:
    """Judges images as a station does that is stopped behind them, and returns its ledger."""
    ledger, backlog = Ledger(home, []), Backlog(100, False)
    pictures = PictureThread(home, scorer, ledger.last, print)
    judge = Judge(
        "line", scorer, ledger, backlog, Actions(),
        units=None, keeping=Keeping(home / "images", share),
        health={"left": Health("left", "mqtt", "source", print)},
    )  # fmt: skip
    judge.judged.append(pictures.put)
    for image in images:
        backlog.put(image)
    backlog.close()
    judge.run()
    pictures.close()
    return ledger


def message(dup: bool, payload: bytes) -> paho.MQTTMessage:
    made = paho.MQTTMessage(1, b"camera/A1")
    made.payload, made.dup, made.qos = payload, dup, 1
    return made


def test_a_message_that_the_broker_sends_again_is_judged_once(
    scorer: Scorer, tmp_path: Path
) -> None:
    settings = MqttSource("broker", "camera/#", "left", r"camera/(\w+)")
    told: list[StationResult] = []

    def taken(dup: bool, payload: bytes) -> Taken:
        return taken_of(settings, message(dup, payload), told.append)

    first, second = picture(1), picture(2)
    # the same picture twice on purpose is two images; sent again by the broker it is one
    images = [taken(False, first), taken(True, first), taken(False, second), taken(False, second)]
    ledger = judged(scorer, tmp_path, images)
    assert [one.seq for one in told] == [1, 1, 2, 3]
    ledger.close()
    # so it is after a restart
    ledger = judged(scorer, tmp_path, [taken(True, second), taken(True, picture(3))])
    assert [one.seq for one in told[4:]] == [2, 4]
    assert told[5].serial == "A1"


def test_what_is_not_plainly_good_is_kept_and_what_is_lost_is_not_judged(
    scorer: Scorer, tmp_path: Path
) -> None:
    lost = ImageError("lost", "lost: images come faster than they are judged")
    good, bad = (scorer.decode(picture(1, defect)).pixels for defect in (None, "missing"))
    images = [
        Taken("left", "a.png", good, frame=True),
        Taken("left", "b.png", bad, serial="../B 7", frame=True),
        Taken("left", "c.png", lost, frame=True),
        Taken("left", "d.bin", picture(2, "missing")),
        Taken("left", "e.png", b"no image"),
    ]
    ledger = judged(scorer, tmp_path, images)
    found = [*ledger.newest["image"]][::-1]
    assert [one.outcome for one in found] == [
        "not flagged", "flagged", "not judged", "flagged", "not judged",
    ]  # fmt: skip
    assert found[2].error == "lost: images come faster than they are judged"
    kept = {one.seq: (tmp_path / "images" / one.image) for one in found if one.image}
    assert {seq: path.name for seq, path in kept.items()} == {
        2: "000000002-.._B 7.png", 4: "000000004.png", 5: "000000005.img",
    }  # fmt: skip
    assert np.array_equal(scorer.decode(str(kept[2])).pixels, bad)
    assert kept[4].read_bytes() == picture(2, "missing")


def test_a_share_of_all_images_is_drawn_and_kept(scorer: Scorer, tmp_path: Path) -> None:
    images = [Taken("left", f"{number}.png", picture(1)) for number in range(60)]
    lots = [one.lot for one in judged(scorer, tmp_path, images, share=0.5).newest["image"]]
    drawn = [lot for lot in lots if lot is not None]
    assert all(lot < 0.5 for lot in drawn)
    assert 10 < len(drawn) < 40  # of 50; by chance less than once in a million


class Sink:
    """Takes results, and refuses them where it is told to."""

    def __init__(self, refusals: Iterator[bool]) -> None:
        self.taken: list[int] = []
        self._refusals = refusals

    def open(self) -> None: ...

    def send(self, results: list[StationResult]) -> None:
        if next(self._refusals, False):
            raise OSError("refused")
        self.taken += [one.seq for one in results]

    def idle(self) -> None: ...

    def close(self) -> None: ...


def test_results_are_delivered_once_and_in_order_while_others_come(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, ["sink"])
    sink = Sink(iter((False, True, False, False, True)))
    delivery = Delivery(sink, ledger, Health("sink", "test", "sink", print), "image")
    delivery.start()
    adding = threading.Thread(
        target=lambda: [
            ledger.add([example(seq, of="unit" if seq % 7 == 0 else "image")], Noted("left"))
            for seq in range(1, 301)
        ]
    )
    adding.start()
    adding.join(SECONDS)
    wait_until(lambda: ledger.waiting("sink") == 0, "all results")
    delivery.finish(SECONDS)
    assert sink.taken == [seq for seq in range(1, 301) if seq % 7]
