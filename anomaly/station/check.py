"""`anomaly run --check`: every source and sink of a station is tried, and nothing is judged, stored
or published.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.imaging.find import find_images
from anomaly.station import settings
from anomaly.station.addresses import host_and_port
from anomaly.station.health import line_of
from anomaly.station.parts import scorer_of
from anomaly.station.settings import KIND_OF, Station


def check_station(station: Station) -> Iterator[tuple[str, bool, str]]:
    """Yields of the detector and of each source and sink what it is, whether it works, and what was
    found.
    """
    yield _tried("detector", partial(_detector, station))
    for source in station.sources:
        label = f"source {source.name} ({KIND_OF[type(source)]})"
        yield _tried(label, partial(_source, source))
    for sink in station.sinks:
        label = f"sink {sink.name} ({KIND_OF[type(sink)]})"
        yield _tried(label, partial(_sink, sink))


def _tried(label: str, attempt: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return label, True, attempt()
    except Exception as error:  # libraries of cameras and brokers have errors of their own
        return label, False, line_of(error)


def _detector(station: Station) -> str:
    scorer = scorer_of(station)
    return f"{scorer.card.identity}, on {scorer.device}; its golden samples are right"


def _source(source: settings.Source) -> str:
    if isinstance(source, settings.FolderSource):
        return f"{len(find_images(source.path)):,} images in {source.path}"
    if isinstance(source, settings.HttpSource):
        from anomaly.serve.launch import listen
        from anomaly.station.backlog import Backlog
        from anomaly.station.posts import Posts

        Posts(source, Backlog(1, False))
        listen(source.host, source.port).close()
        return f"{source.host}:{source.port} is free"
    if isinstance(source, settings.MqttSource):
        return _broker(source)
    if isinstance(source, settings.GenicamSource):
        from anomaly.station.genicam import FETCH_SECONDS, acquiring, pixels_of

        with acquiring(source) as camera, camera.fetch(timeout=FETCH_SECONDS) as buffer:
            height, width = pixels_of(buffer.payload.components[0]).shape[:2]
        return f"a frame of {width} x {height} pixels"
    from anomaly.station.video import opened

    capture = opened(source.address)
    try:
        there, pixels = capture.read()
    finally:
        capture.release()
    if not there:
        raise OSError("it opens, but no frame comes")
    return f"a frame of {pixels.shape[1]} x {pixels.shape[0]} pixels"


def _broker(given: settings.MqttConnection) -> str:
    from anomaly.station.mqtt import Connection

    Connection(given, "").close()
    return f"connected to {given.broker}"


def _sink(sink: settings.Sink) -> str:
    if isinstance(sink, settings.MqttSink):
        return _broker(sink)
    if isinstance(sink, settings.WebhookSink):
        from anomaly.station.webhook import Webhook

        with closing(Webhook(sink)) as hook:
            hook.open()
        return f"{sink.url} can be connected to; nothing was posted"
    if isinstance(sink, settings.ReviewSink):
        from anomaly.review import Store

        if sink.create and "://" not in sink.database and not Path(sink.database).exists():
            return f"{sink.database} will be made"
        with Store(sink.database, create=False) as store:
            return f"{len(store.runs()):,} runs in {sink.database}"
    if isinstance(sink, settings.OpcuaSink):
        from anomaly.station.opcua import OpcuaServer

        OpcuaServer(sink)
        return _free(*host_and_port(sink.url.partition("://")[2].partition("/")[0], 4840))
    if isinstance(sink, settings.ModbusSink):
        from anomaly.station.modbus import ModbusServer

        ModbusServer(sink)
        return _free(sink.host, sink.port)
    return _writable(sink)


def _free(host: str, port: int) -> str:
    with socket.create_server((host, port)):
        pass
    return f"{host}:{port} is free"


def _writable(sink: settings.Sink) -> str:
    if isinstance(sink, settings.TableSink | settings.FolderSink):
        folder = sink.path.parent
        if not os.access(folder, os.W_OK):
            raise AnomalyError(f"{folder}: no folder that can be written: make it first")
        return f"{sink.path} can be written"
    return "ready"
