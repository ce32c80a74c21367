"""The detector, the sources and the sinks that STATION.toml names, each with its library, which is
imported only here and only then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from anomaly.errors import AnomalyError
from anomaly.scorer import Scorer
from anomaly.station import settings
from anomaly.station.backlog import Backlog
from anomaly.station.board import Board, Showing
from anomaly.station.deliver import Delivery, MessageSink
from anomaly.station.folders import Folder
from anomaly.station.health import Health
from anomaly.station.ledger import Ledger
from anomaly.station.lines import ImageFolder, Stdout, Table
from anomaly.station.live import Live
from anomaly.station.pictures import PictureThread


@dataclass(frozen=True)
class Parts:
    """What sources and sinks are made with."""

    station: settings.Station
    scorer: Scorer
    ledger: Ledger
    backlog: Backlog
    board: Board
    live: Live
    pictures: PictureThread

    def status(self) -> dict[str, Any]:
        """Returns what is published of the station's state; it changes at least once a second
        while the judge works.
        """
        judge = self.live.judge
        return {
            "state": "ok" if judge.works else "stands still",
            "heartbeat": judge.ticks // 4,
            "alarm": self.live.alarm,
            "waiting": self.backlog.waiting,
            "counts": self.live.counts(),
        }


def scorer_of(station: settings.Station) -> Scorer:
    """Returns who judges, after its golden samples; AnomalyError without a threshold."""
    scorer = Scorer(
        station.detector, device=station.device, seconds=station.image_seconds, verify=True
    )
    if scorer.card.calibration is None:
        raise AnomalyError(
            f"{scorer.path}: a detector without a threshold found, which cannot say what to "
            "reject: calibrate it first (anomaly calibrate)"
        )
    return scorer


class Sending(Protocol):
    """A sink's thread."""

    def start(self) -> None: ...

    def finish(self, seconds: float) -> None:
        """Delivers what there is, for so many seconds at most, and ends."""


def sink_of(parts: Parts, sink: settings.Sink, health: Health) -> Sending:
    """Returns a sink's thread, not started; RuntimeMissing where its library is not installed."""
    if isinstance(sink, settings.OpcuaSink):
        from anomaly.station.opcua import OpcuaServer

        return Showing(OpcuaServer(sink), parts.board, health)
    if isinstance(sink, settings.ModbusSink):
        from anomaly.station.modbus import ModbusServer

        return Showing(ModbusServer(sink), parts.board, health)
    of_images = isinstance(sink, settings.TableSink | settings.FolderSink | settings.ReviewSink)
    of = "image" if of_images else parts.station.per
    return Delivery(_message_sink(parts, sink, health), parts.ledger, health, of)


def _message_sink(parts: Parts, sink: settings.Sink, health: Health) -> MessageSink:
    images, wait_for = parts.station.state / "images", parts.pictures.wait_for
    if isinstance(sink, settings.TableSink):
        return Table(sink.path)
    if isinstance(sink, settings.FolderSink):
        return ImageFolder(sink, images, wait_for)
    if isinstance(sink, settings.ReviewSink):
        from anomaly.station.review import Review

        station = (parts.station.name, parts.ledger.station_id)
        return Review(sink, images, parts.scorer.card, station, wait_for, health.say)
    if isinstance(sink, settings.MqttSink):
        from anomaly.station.mqtt import Publisher

        return Publisher(sink, parts.ledger.station_id, parts.status)
    if isinstance(sink, settings.WebhookSink):
        from anomaly.station.webhook import Webhook

        return Webhook(sink)
    return Stdout()


def source_of(parts: Parts, source: settings.Source, health: Health) -> threading.Thread:
    """Returns a source's thread, not started; RuntimeMissing where its library is not installed."""
    run = _runner(parts, source, health)
    return threading.Thread(target=run, name=f"source {source.name}", daemon=True)


def _runner(parts: Parts, source: settings.Source, health: Health) -> Callable[[], None]:
    station_id, backlog = parts.ledger.station_id, parts.backlog
    if isinstance(source, settings.FolderSource):
        return Folder(source, parts.scorer, parts.ledger, backlog, health).run
    if isinstance(source, settings.HttpSource):
        from anomaly.station import posts

        return partial(posts.run_source, posts.Posts(source, backlog), health)
    if isinstance(source, settings.MqttSource):
        from anomaly.station import mqtt

        return partial(mqtt.run_source, source, station_id, backlog, health)
    if isinstance(source, settings.GenicamSource):
        from anomaly.station import genicam

        return partial(genicam.run_source, source, station_id, backlog, health)
    from anomaly.station import video

    reader = parts.ledger.reader()
    return partial(video.run_source, source, station_id, backlog, health, reader)
