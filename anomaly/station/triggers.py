"""When a camera's frame is taken: by its own kind of trigger, for a part with a serial number or
without.

A trigger from outside takes the next frame that comes. A part whose trigger came, but no frame
within ``FRAME_SECONDS``, is lost: it is recorded as not judged.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from anomaly.station.health import Health
from anomaly.station.settings import (
    KIND_OF,
    ChangeTrigger,
    FrameTrigger,
    KeyboardTrigger,
    ModbusTrigger,
    MqttTrigger,
    OpcuaTrigger,
    TimeTrigger,
    Trigger,
)

FRAME_SECONDS = 2.0
SIDE = 64  # pixels of the picture that changes are looked for in
Serials = list[str | None]


class Triggered:
    """Says of each frame which serial numbers it is taken for: none, one (None: nobody knows), or
    more where triggers came faster than frames.
    """

    def __init__(self, trigger: Trigger, name: str, health: Health) -> None:
        self._trigger, self._frames = trigger, 0
        self._next, self._before = 0.0, np.empty(0, np.float32)
        self._fired: deque[tuple[str | None, float]] = deque()
        kind = KIND_OF[type(trigger)]
        own = Health(f"{health.name} ({kind})", kind, "trigger", health.say, closing=health.closing)
        health.trigger = own
        run = self._outside(trigger, name, own)
        if run is not None:
            threading.Thread(target=run, name=f"trigger {health.name}", daemon=True).start()

    def _outside(self, trigger: Trigger, name: str, health: Health) -> Callable[[], None] | None:
        if isinstance(trigger, MqttTrigger):
            from anomaly.station import mqtt

            return partial(mqtt.run_trigger, trigger, name, self.fire, health)
        if isinstance(trigger, OpcuaTrigger):
            from anomaly.station import opcua

            return partial(opcua.run_trigger, trigger, self.fire, health)
        if isinstance(trigger, ModbusTrigger):
            from anomaly.station import modbus

            return partial(modbus.run_trigger, trigger, self.fire, health)
        return partial(_keyboard, self.fire) if isinstance(trigger, KeyboardTrigger) else None

    def fire(self, serial: str | None) -> None:
        """A part is there: the next frame is its own. Threads may call it."""
        self._fired.append((serial, time.monotonic()))

    def takes(self, frame: npt.NDArray[np.uint8]) -> Serials:
        """Returns the serial numbers that this frame is taken for."""
        trigger, self._frames = self._trigger, self._frames + 1
        if isinstance(trigger, FrameTrigger):
            return [None] if (self._frames - 1) % max(1, trigger.every) == 0 else []
        if isinstance(trigger, TimeTrigger):
            now = time.monotonic()
            if now < self._next:
                return []
            # the same rhythm again, but no burst after a pause
            self._next = max(self._next + trigger.seconds, now)
            return [None]
        if isinstance(trigger, ChangeTrigger):
            return [None] if self._changed(frame, trigger.grey_levels) else []
        return [self._fired.popleft()[0] for _ in range(len(self._fired))]

    def _changed(self, frame: npt.NDArray[np.uint8], grey_levels: float) -> bool:
        steps = [max(1, side // SIDE) for side in frame.shape[:2]]
        small = frame[:: steps[0], :: steps[1]].astype(np.float32)
        same = small.shape == self._before.shape
        if same and float(np.abs(small - self._before).mean()) <= grey_levels:
            return False
        self._before = small
        return True

    def missed(self) -> Serials:
        """Returns the serial numbers of triggers that no frame followed in time."""
        found: Serials = []
        while self._fired and time.monotonic() - self._fired[0][1] > FRAME_SECONDS:
            found.append(self._fired.popleft()[0])
        return found


def _keyboard(fire: Callable[[str | None], None]) -> None:
    for line in sys.stdin or ():
        fire(line.strip() or None)
