"""MQTT: messages with images in, results and the station's state out, a message as a trigger."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from anomaly.errors import ImageError, RuntimeMissing
from anomaly.inputs.source import File
from anomaly.station.addresses import host_and_port, secret_in
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.results import StationResult
from anomaly.station.settings import MqttConnection, MqttSink, MqttSource, MqttTrigger

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
except ImportError as error:
    raise RuntimeMissing.extra("paho-mqtt", "mqtt", "MQTT") from error

CONNECT_SECONDS, CONFIRM_SECONDS, KEEP_ALIVE = 5.0, 10.0, 15
STATUS_SECONDS = 1.0
MAX_IMAGE_BYTES = 256 << 20


class Connection:
    """A connection to a broker, until it is closed or lost; OSError where there is none.

    ``client_id``: no two clients of a broker may share one; one that stays the same gets what was
    sent while it was away. ``will``: topic and payload that the broker tells others when this is
    lost.
    """

    def __init__(
        self,
        settings: MqttConnection,
        client_id: str,
        *,
        lasting: bool = False,
        will: tuple[str, str] | None = None,
        on_message: Callable[[Connection, Any], None] | None = None,
    ) -> None:
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=not lasting,
            manual_ack=lasting,
            reconnect_on_failure=False,
        )
        self._answered, self._refused = threading.Event(), ""
        self.lost = threading.Event()
        self.client.on_connect = self._connected
        self.client.on_disconnect = lambda *_: self.lost.set()
        if on_message is not None:
            self.client.on_message = lambda _, __, message: on_message(self, message)
        if settings.user:
            secret = settings.password_file
            self.client.username_pw_set(
                settings.user, None if secret is None else secret_in(secret)
            )
        if settings.tls:
            self.client.tls_set()
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        host, port = host_and_port(settings.broker, 8883 if settings.tls else 1883)
        self.client.connect_timeout = CONNECT_SECONDS
        self.client.connect(host, port, KEEP_ALIVE)
        self.client.loop_start()
        if not self._answered.wait(CONNECT_SECONDS) or self._refused:
            self.close()
            raise OSError(f"{settings.broker}: {self._refused or 'no answer from the broker'}")

    def _connected(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self._refused = str(reason) if reason.is_failure else ""
        self._answered.set()

    def publish(self, topic: str, messages: Sequence[str], retain: bool = False) -> None:
        """Returns when the broker has all of them; OSError where it has not in ten seconds."""
        sent = [self.client.publish(topic, message, 1, retain) for message in messages]
        for one in sent:
            try:
                one.wait_for_publish(CONFIRM_SECONDS)
                confirmed = one.is_published()
            except (RuntimeError, ValueError):
                confirmed = False
            if not confirmed:
                raise OSError("the broker does not confirm what is sent")

    def subscribe(self, topic: str) -> None:
        code, _ = self.client.subscribe(topic, 1)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise OSError(f"{topic}: cannot be subscribed to ({code})")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Publisher:
    """The sink: TOPIC/result, and TOPIC/status retained: at least once a second while the judge
    works.

    ``status``: what the state is now.
    """

    def __init__(
        self, settings: MqttSink, station_id: str, status: Callable[[], dict[str, Any]]
    ) -> None:
        self._settings, self._status = settings, status
        self._client_id = f"anomaly-{station_id}-sink-{settings.name}"
        self._connection: Connection | None = None
        self._said: dict[str, Any] = {}

    def open(self) -> None:
        gone = json.dumps({"state": "gone"})
        self._connection = Connection(
            self._settings, self._client_id, will=(f"{self._settings.topic}/status", gone)
        )
        self._said = {}
        self.idle()

    def send(self, results: Sequence[StationResult]) -> None:
        assert self._connection is not None
        lines = [json.dumps(result.message(), ensure_ascii=False) for result in results]
        self._connection.publish(f"{self._settings.topic}/result", lines)
        self.idle()

    def idle(self) -> None:
        assert self._connection is not None
        if self._connection.lost.is_set():
            raise OSError(f"{self._settings.broker}: the connection is lost")
        status = self._status()
        if status != self._said:
            text = json.dumps(status, ensure_ascii=False)
            self._connection.publish(f"{self._settings.topic}/status", [text], retain=True)
            self._said = status

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def run_source(settings: MqttSource, station_id: str, backlog: Backlog, health: Health) -> None:
    """Takes images from messages until the station is closing.

    A message is confirmed when its result is safe: a broker sends it again to a station that was
    killed, and one that was judged already is then confirmed without a second result.
    """
    inbox: SimpleQueue[tuple[Connection, Any]] = SimpleQueue()
    client_id = f"anomaly-{station_id}-source-{settings.name}"
    while not health.closing.is_set():
        with health.attempt():
            connection = Connection(
                settings, client_id, lasting=True, on_message=lambda c, m: inbox.put((c, m))
            )
            try:
                connection.subscribe(settings.topic)
                health.ok()
                while not connection.lost.is_set() and not health.closing.is_set():
                    try:
                        of, message = inbox.get(timeout=0.25)
                    except Empty:
                        continue
                    backlog.put(taken_of(settings, message, partial(_confirm, of, message)))
                if not health.closing.is_set():
                    raise OSError(f"{settings.broker}: the connection is lost")
            finally:
                # what waits for the judge is confirmed until the end
                if health.closing.is_set():
                    backlog.wait_empty(5.0)
                connection.close()


def _confirm(connection: Connection, message: Any, _: StationResult) -> None:
    connection.client.ack(message.mid, message.qos)


def taken_of(settings: MqttSource, message: Any, done: Callable[[StationResult], object]) -> Taken:
    """Returns the image of a message."""
    payload: bytes = message.payload
    found = re.search(settings.serial, message.topic) if settings.serial else None
    serial = found[1 if found.re.groups else 0] if found else None
    name, origin = message.topic, None
    image: bytes | ImageError = payload
    if payload[:1] == b"{":
        try:
            facts = json.loads(payload)
            serial = str(facts["serial"]) if facts.get("serial") is not None else serial
            origin = f"id {facts['id']}" if facts.get("id") is not None else None
            name = str(facts.get("path") or name)
            image = _image_of(settings, facts)
        except ImageError as error:
            image = error
        except (ValueError, TypeError, binascii.Error) as error:
            image = ImageError("damaged", f"the message's JSON cannot be read ({error})")
    # without an id the broker tells what it has sent before, and the content which one that was
    again = origin is not None or message.dup
    origin = origin or f"sha256 {hashlib.sha256(payload).hexdigest()}"
    return Taken(settings.name, name, image, origin, serial, again=again, done=done)


def _image_of(settings: MqttSource, facts: dict[str, Any]) -> bytes:
    if isinstance(facts.get("image"), str):
        return base64.b64decode(facts["image"], validate=True)
    if not isinstance(facts.get("path"), str):
        raise ImageError("missing", "neither path nor image (base64) found in the message")
    if settings.paths is None:
        raise ImageError("missing", "a path found, but the source has no folder (paths = ...)")
    place = (settings.paths / facts["path"]).resolve()
    if not place.is_relative_to(settings.paths.resolve()):
        raise ImageError("missing", f"{facts['path']} lies outside {settings.paths}")
    return File(str(place)).read(MAX_IMAGE_BYTES)


def run_trigger(
    settings: MqttTrigger, name: str, fire: Callable[[str | None], None], health: Health
) -> None:
    """Fires at each message until the station is closing."""

    def told(_: Connection, message: Any) -> None:
        fire(serial_in(message.payload))

    while not health.closing.is_set():
        with health.attempt():
            connection = Connection(settings, name, on_message=told)
            try:
                connection.subscribe(settings.topic)
                health.ok()
                while not connection.lost.wait(0.25):
                    if health.closing.is_set():
                        return
                raise OSError(f"{settings.broker}: the connection of the trigger is lost")
            finally:
                connection.close()


def serial_in(payload: bytes) -> str | None:
    """Returns the serial number that a message names: its text, or ``serial`` in its JSON."""
    text = payload.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            found = json.loads(text).get("serial")
        except ValueError:
            return None
        return None if found is None else str(found)
    return text or None
