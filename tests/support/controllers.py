"""Controllers that look at a station's Modbus and OPC UA all the time, over its restarts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from asyncua.client.client import Client
from pymodbus.client import ModbusTcpClient

from anomaly.station import modbus, opcua

RESULT_COILS = (modbus.GOOD, modbus.LOOK, modbus.REJECT, modbus.NO_RESULT, modbus.STOP)
LOOK_SECONDS = 0.05
LATE_SECONDS = 2.0  # until a result is safe and shown, and withdrawn, on a busy machine


@dataclass
class Controllers:
    """``seen``: which protocol showed which result (its number), and when it was asked."""

    modbus: int
    opcua: str
    seen: list[tuple[str, datetime, int]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def looking(self) -> Iterator[Controllers]:
        for name in ("pymodbus", "asyncua"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        opcua_look = threading.Thread(target=lambda: asyncio.run(self._look_at_opcua()))
        threads = [threading.Thread(target=self._look_at_modbus), opcua_look]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def _look_at_modbus(self) -> None:
        while not self.stopping.wait(LOOK_SECONDS):
            client = ModbusTcpClient("127.0.0.1", port=self.modbus, timeout=5, retries=0)
            with suppress(Exception):  # it is gone, and comes again
                while client.connect() and not self.stopping.wait(LOOK_SECONDS):
                    asked = datetime.now(UTC)
                    answer = client.read_input_registers(0, count=3, device_id=1)
                    coils, high, low = answer.registers
                    if any(coils >> coil & 1 for coil in RESULT_COILS):
                        self.seen.append(("Modbus", asked, (high << 16) + low))
            client.close()

    async def _look_at_opcua(self) -> None:
        while not self.stopping.is_set():
            with suppress(Exception):
                async with Client(self.opcua, timeout=5) as client:
                    space = await client.get_namespace_index(opcua.NAMESPACE)
                    node = client.get_node(f"ns={space};s=Station.Id")
                    while not self.stopping.is_set():
                        asked = datetime.now(UTC)
                        if shown := await node.read_value():
                            self.seen.append(("OPC UA", asked, int(shown.rpartition("-")[2])))
                        await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def both_saw(self) -> bool:
        """Whether each protocol showed a result."""
        return {protocol for protocol, _, _ in self.seen} == {"Modbus", "OPC UA"}

    def check(
        self, judged: Mapping[int, datetime], launches: Sequence[datetime], expires: float
    ) -> Counter[str]:
        """Returns how often each protocol showed a result; AssertionError where one had expired, or
        came from a process before the one that was asked. ``judged``: when each result was made.
        """
        longest = timedelta(seconds=expires + LATE_SECONDS)
        for protocol, asked, number in self.seen:
            age = asked - judged[number]
            assert age < longest, f"{protocol} showed result {number}, {age} old"
            launched = max(at for at in launches if at < asked)
            assert judged[number] > launched, f"{protocol} showed result {number} of before a kill"
        return Counter(protocol for protocol, _, _ in self.seen)
