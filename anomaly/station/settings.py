"""What STATION.toml says of a station, as frozen dataclasses.

A table [[source]], [[sink]] or trigger names its ``kind``; its other keys are the fields of the
class of that kind below. Paths are relative to the file's folder. Secrets are kept in files of
their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class MqttConnection:
    """``topic`` of a ``broker`` (HOST or HOST:PORT). ``user``, and the file that holds the
    password; ``tls``: encrypted, by the system's certificates.
    """

    broker: str
    topic: str
    user: str = dataclasses.field(default="", kw_only=True)
    password_file: Path | None = dataclasses.field(default=None, kw_only=True)
    tls: bool = dataclasses.field(default=False, kw_only=True)


# ---- triggers: when a camera's frame is taken ----------------------------------------------------
@dataclass(frozen=True)
class FrameTrigger:
    """Every ``every``-th frame."""

    every: int = 1


@dataclass(frozen=True)
class ChangeTrigger:
    """A frame that differs from the last one taken: by more than ``grey_levels`` of 255 on
    average.
    """

    grey_levels: float = 4.0


@dataclass(frozen=True)
class TimeTrigger:
    """A frame every ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class MqttTrigger(MqttConnection):
    """A message on ``topic``; its payload (or the ``serial`` in a JSON object) is the serial
    number.
    """


@dataclass(frozen=True)
class OpcuaTrigger:
    """A Boolean ``node`` that turns true; ``serial_node``: its value is the serial number then."""

    url: str
    node: str
    serial_node: str = ""
    poll: float = 0.02


@dataclass(frozen=True)
class ModbusTrigger:
    """A ``coil`` of a Modbus TCP device that turns on; ``serial_register`` and
    ``serial_registers``: where its serial number stands as text, two characters a holding register.
    """

    address: str
    coil: int
    device: int = 1
    serial_register: int = 0
    serial_registers: int = 0
    poll: float = 0.02


@dataclass(frozen=True)
class KeyboardTrigger:
    """A line on standard input, for trials; what is typed before Enter is the serial number."""


Trigger: TypeAlias = (
    FrameTrigger
    | ChangeTrigger
    | TimeTrigger
    | MqttTrigger
    | OpcuaTrigger
    | ModbusTrigger
    | KeyboardTrigger
)
TRIGGERS = {
    "frame": FrameTrigger,
    "change": ChangeTrigger,
    "time": TimeTrigger,
    "mqtt": MqttTrigger,
    "opcua": OpcuaTrigger,
    "modbus": ModbusTrigger,
    "keyboard": KeyboardTrigger,
}


# ---- sources: where images come from -------------------------------------------------------------
@dataclass(frozen=True)
class FolderSource:
    """Image files that arrive in a folder. ``serial``: an expression whose first group, in the
    path, is the serial number. ``remove``: a file is removed when its result is safe.
    ``patience``: seconds until a file that never becomes whole is not judged.
    """

    name: str
    path: Path
    serial: str = ""
    remove: bool = False
    patience: float = 10.0


@dataclass(frozen=True)
class HttpSource:
    """Images posted to http://HOST:PORT/images?serial=S&id=ID; an ``id`` is judged once.
    ``keys``: a file with a line NAME KEY for each client.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path | None = None
    max_bytes: int = 32 << 20
    seconds: float = 30.0


@dataclass(frozen=True)
class MqttSource(MqttConnection):
    """MQTT messages on ``topic``: the bytes of an image, or JSON ``{"path" or "image" (base64),
    "serial", "id"}``. ``serial``: an expression whose first group, in the topic, is the serial
    number. ``paths``: the folder below which a ``path`` must lie.
    """

    name: str
    serial: str = ""
    paths: Path | None = None


@dataclass(frozen=True)
class VideoSource:
    """A video file, a camera's number (``"0"``) or an address (rtsp://...), read by OpenCV."""

    name: str
    address: str
    trigger: Trigger = FrameTrigger()


@dataclass(frozen=True)
class GenicamSource:
    """A GenICam camera behind any GenTL producer (``producer``: its .cti file). ``device``: its
    id, the first one if empty. ``features``: nodes that are set before the start.
    """

    name: str
    producer: Path
    device: str = ""
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    trigger: Trigger = FrameTrigger()


Source: TypeAlias = FolderSource | HttpSource | MqttSource | VideoSource | GenicamSource
SOURCES = {
    "folder": FolderSource,
    "http": HttpSource,
    "mqtt": MqttSource,
    "video": VideoSource,
    "genicam": GenicamSource,
}


# ---- sinks: where results go ---------------------------------------------------------------------
@dataclass(frozen=True)
class StdoutSink:
    """A JSON line for each result on standard output."""

    name: str


@dataclass(frozen=True)
class TableSink:
    """A row for each image in ``path`` (.csv): the score table, and serial number and outcome."""

    name: str
    path: Path


@dataclass(frozen=True)
class FolderSink:
    """Copies of the images whose outcome is one of ``outcomes``."""

    name: str
    path: Path
    outcomes: tuple[str, ...] = ("flagged",)


@dataclass(frozen=True)
class ReviewSink:
    """Everything but what is not flagged, and a random ``audit_share`` of all images, in the
    review database ``database``. ``create``: it is made where it is not there.
    """

    name: str
    database: str
    audit_share: float = 0.01
    create: bool = False


@dataclass(frozen=True)
class MqttSink(MqttConnection):
    """Results on ``topic``/result (QoS 1), the station's state on ``topic``/status (retained)."""

    name: str


@dataclass(frozen=True)
class WebhookSink:
    """POST of each result to ``url``, signed with the secret in ``key_file`` (HMAC-SHA256).
    ``ca_file``: certificates (PEM) that its own is checked by, instead of the system's.
    """

    name: str
    url: str
    key_file: Path | None = None
    ca_file: Path | None = None
    seconds: float = 10.0


@dataclass(frozen=True)
class OpcuaSink:
    """An OPC UA server with the newest result. ``expires``: seconds after which it is withdrawn."""

    name: str
    url: str = "opc.tcp://127.0.0.1:4840/anomaly"
    expires: float = 5.0


@dataclass(frozen=True)
class ModbusSink:
    """A Modbus TCP server with the newest result. ``expires``: seconds after which it is
    withdrawn.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 5020
    device: int = 1
    expires: float = 5.0


Sink: TypeAlias = (
    StdoutSink
    | TableSink
    | FolderSink
    | ReviewSink
    | MqttSink
    | WebhookSink
    | OpcuaSink
    | ModbusSink
)
SINKS = {
    "stdout": StdoutSink,
    "table": TableSink,
    "folder": FolderSink,
    "review": ReviewSink,
    "mqtt": MqttSink,
    "webhook": WebhookSink,
    "opcua": OpcuaSink,
    "modbus": ModbusSink,
}


KIND_OF = {kind: name for table in (TRIGGERS, SOURCES, SINKS) for name, kind in table.items()}


# ---- the station ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class UnitSettings:
    """``views``: the sources that each see one side of a unit; ``seconds``: from the first view
    until a view that is not there is missing.
    """

    views: tuple[str, ...]
    seconds: float = 5.0


@dataclass(frozen=True)
class Station:
    """A station: who judges, where images come from, where results go.

    ``not_judged`` and ``review``: what the controller does with such a part (``reject``, ``pass``,
    and for the first ``stop``). ``when_behind``: what happens while images come faster than they
    are judged (``drop oldest``: a camera's oldest waiting frame is not judged; ``stop the line``:
    the alarm is on, and nothing is dropped). ``waiting``: images that may wait before that.
    """

    file: Path
    name: str
    detector: Path
    state: Path
    sources: tuple[Source, ...]
    sinks: tuple[Sink, ...]
    unit: UnitSettings | None = None
    device: str = "auto"
    not_judged: str = "reject"
    review: str = "reject"
    when_behind: str = "drop oldest"
    waiting: int = 16
    image_seconds: float = 10.0

    @property
    def per(self) -> str:
        """What a result for the controller is of: ``image`` or ``unit``."""
        return "image" if self.unit is None else "unit"
