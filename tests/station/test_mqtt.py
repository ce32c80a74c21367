"""MQTT by a real mosquitto: images in, results out, over restarts of the broker and the station."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from anomaly.station import mqtt
from anomaly.station.health import Health
from anomaly.station.settings import MqttTrigger
from tests.support.review_server import free_port
from tests.support.stations import (
    SECONDS,
    Broker,
    Listener,
    find_mosquitto,
    in_order_once,
    picture,
    station,
    wait_until,
)

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
TOML = """
[[source]]
name = "line"  # as the sink: the broker takes them for two clients
kind = "mqtt"
broker = "127.0.0.1:{port}"
topic = "camera/#"
serial = 'camera/(\\w+)'
paths = "shared"
[[source]]
name = "post"
kind = "http"
port = {http}
[[sink]]
name = "line"
kind = "mqtt"
broker = "127.0.0.1:{port}"
topic = "line"
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    found = Broker(tmp_path, free_port())
    found.start()
    yield found
    found.stop()


def publish(port: int, messages: list[tuple[str, bytes]]) -> None:
    """Publishes messages as a camera does, and returns when the broker has them."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="camera")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, 1).wait_for_publish(SECONDS)
    client.disconnect()
    client.loop_stop()


def test_images_and_paths_come_as_messages_and_results_outlive_the_broker(
    tmp_path: Path, run: Path, broker: Broker
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.png").write_bytes(picture(1))
    encoded = base64.b64encode(picture(2, "missing")).decode()
    messages = [
        ("camera/A1", picture(0)),
        ("camera/A2", json.dumps({"path": "a.png", "id": 1}).encode()),
        ("camera/A3", json.dumps({"image": encoded, "serial": "B3", "id": 2}).encode()),
        ("camera/A3", json.dumps({"image": encoded, "serial": "B3", "id": 2}).encode()),
        ("camera/A4", json.dumps({"path": "../station.toml", "id": 3}).encode()),
        ("camera/A5", b"{no json"),
        ("camera/A6", picture(3)[:500]),
    ]
    http = free_port()
    listener = Listener()
    with (
        listener.listening(broker.port, "line/#"),
        station(tmp_path, run, TOML.format(port=broker.port, http=http)) as line,
    ):
        line.start()
        publish(broker.port, messages)
        live = line.judged(6)
        found = [(one["serial"], one["outcome"], one["error"]) for one in reversed(live["last"])]
        assert [(serial, outcome) for serial, outcome, _ in found] == [
            ("A1", "not flagged"), ("A2", "not flagged"), ("B3", "flagged"),
            ("A4", "not judged"), ("A5", "not judged"), ("A6", "not judged"),
        ]  # fmt: skip
        assert "lies outside" in found[3][2]
        assert "JSON cannot be read" in found[4][2]
        wait_until(lambda: len(listener.results()) >= 6, "six results")
        assert listener.heard[0][0] == "line/status"
        # the broker is away: what is judged meanwhile comes afterwards, in order
        broker.stop()
        for number in range(10):
            assert line.post(http, picture(10 + number)).status == 200
        wait_until(lambda: line.live["sinks"][0]["state"] == "gone", "the sink is gone")
        wait_until(lambda: line.live["sinks"][0]["waiting"] == 10, "ten results wait")
        broker.start()
        wait_until(lambda: len(in_order_once(listener.results())) == 16, "all results")
        assert in_order_once(listener.results()) == list(range(1, 17))
        # a message that the station was killed over comes again
        wait_until(line.works, "the source is back")
        line.kill()
        publish(broker.port, [("camera/A7", picture(30)), ("camera/A8", picture(31))])
        line.start()
        live = line.judged(18)
        assert [one["serial"] for one in live["last"][:2]] == ["A8", "A7"]
        assert "sink line: " in line.log
        line.kill()
    # who subscribes after the kill is told by the broker that the station is gone
    late = Listener()
    with late.listening(broker.port, "line/status"):
        wait_until(lambda: late.heard and late.heard[-1][1] == {"state": "gone"}, "the will")


def test_a_message_is_a_trigger_with_its_serial_number(broker: Broker) -> None:
    fired: list[str | None] = []
    health = Health("trigger", "mqtt", "source", print)
    settings = MqttTrigger(broker.address, "part/+")
    thread = threading.Thread(
        target=mqtt.run_trigger, args=(settings, "trigger", fired.append, health)
    )
    thread.start()
    messages = [b"A1", b'{"serial": 7}', b"", b'{"other": 1}', " Größe ".encode()]

    def told() -> bool:
        publish(broker.port, [("part/1", b"first")])
        return bool(fired)

    wait_until(told, "the trigger listens")
    publish(broker.port, [("part/1", message) for message in messages])
    wait_until(lambda: fired[-1] == "Größe", "all triggers")
    health.closing.set()
    thread.join(SECONDS)
    assert fired[-5:] == ["A1", "7", None, None, "Größe"]
