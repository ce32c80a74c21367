"""Modbus TCP: a device that shows the newest result, and a coil of another one as a trigger.

    coil (or discrete input)            register (holding or input; all for reading only)
    0   good: pass                      0      the coils 0 to 15 as bits
    1   to be looked at                 1, 2   results so far, high word first: changes with each
    2   reject                          3, 4   score of the newest, float32, high word first
    3   not judged                      5, 6   the threshold, likewise (both 0: no result)
    4   heartbeat, on and off           7      heartbeat: counts up while the judge works
    5   alarm                           8, 9   results not flagged, since the counts began
    6   stop                            10...  likewise to be looked at, flagged, not judged

Coils are all off where there is no result: none came, it has expired, or the judge stands still.
They are made when they are read, so that no one ever reads an old one.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable

from anomaly.errors import RuntimeMissing
from anomaly.station.addresses import host_and_port
from anomaly.station.board import Board
from anomaly.station.health import Health
from anomaly.station.results import NOT_JUDGED, OUTCOMES, REVIEW
from anomaly.station.settings import ModbusSink, ModbusTrigger

try:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice
except ImportError as error:
    raise RuntimeMissing.extra("pymodbus", "modbus", "Modbus") from error

REGISTERS = 16
GOOD, LOOK, REJECT, NO_RESULT, HEARTBEAT, ALARM, STOP = range(7)
TURN_SECONDS = 0.25


class ModbusServer:
    """Shows the board as coils and registers."""

    def __init__(self, settings: ModbusSink) -> None:
        self._settings = settings
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

    async def serve(self, board: Board, health: Health) -> None:
        async def fill(
            _: int, __: int, ___: int, ____: int, registers: list[int], written: object
        ) -> None:
            registers[:REGISTERS] = registers_of(board, self._settings.expires)

        shown = SimData(0, count=REGISTERS, datatype=DataType.REGISTERS, readonly=True)
        device = SimDevice(self._settings.device, [shown], use_bit_addressing=True, action=fill)
        server = ModbusTcpServer(device, address=(self._settings.host, self._settings.port))
        try:
            await server.serve_forever(background=True)
            health.ok()
            while not health.closing.is_set():
                await asyncio.sleep(TURN_SECONDS)
        finally:
            await server.shutdown()


def registers_of(board: Board, expires: float) -> list[int]:
    """Returns all registers as they are now."""
    (result, number), counts = board.now(expires), board.counts()
    ticks = board.judge.ticks
    bits = {HEARTBEAT: ticks % 2 == 1, ALARM: board.alarm() != ""}
    score = threshold = 0.0
    if result is not None:
        bits |= {
            GOOD: result.action == "pass",
            REJECT: result.action == "reject",
            STOP: result.action == "stop",
            LOOK: result.outcome == REVIEW,
            NO_RESULT: result.outcome == NOT_JUDGED,
        }
        score, threshold = result.score or 0.0, result.threshold or 0.0
    numbers = [counts[outcome] & 0xFFFFFFFF for outcome in OUTCOMES]
    packed = struct.pack(
        ">HIffH4I",
        sum(1 << bit for bit, on in bits.items() if on),
        number & 0xFFFFFFFF,
        score,
        threshold,
        ticks & 0xFFFF,
        *numbers,
    )
    return list(struct.unpack(f">{REGISTERS}H", packed))


def run_trigger(
    settings: ModbusTrigger, fire: Callable[[str | None], None], health: Health
) -> None:
    """Fires whenever a coil turns on, until the station is closing."""
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    host, port = host_and_port(settings.address, 502)
    while not health.closing.is_set():
        with health.attempt():
            client = ModbusTcpClient(host, port=port, timeout=2, retries=0)
            try:
                if not client.connect():
                    raise OSError(f"{settings.address}: no answer from the Modbus device")
                before = _coil(client, settings)  # a coil that is on already is no new part
                health.ok()
                while not health.closing.is_set():
                    now = _coil(client, settings)
                    if now and not before:
                        fire(_serial(client, settings))
                    before = now
                    time.sleep(settings.poll)
            finally:
                client.close()


def _coil(client: ModbusTcpClient, settings: ModbusTrigger) -> bool:
    answer = client.read_coils(settings.coil, count=1, device_id=settings.device)
    if answer.isError():
        raise OSError(f"{settings.address}: coil {settings.coil} cannot be read ({answer})")
    return bool(answer.bits[0])


def _serial(client: ModbusTcpClient, settings: ModbusTrigger) -> str | None:
    if not settings.serial_registers:
        return None
    answer = client.read_holding_registers(
        settings.serial_register, count=settings.serial_registers, device_id=settings.device
    )
    if answer.isError():
        raise OSError(f"{settings.address}: the serial number cannot be read ({answer})")
    data = struct.pack(f">{len(answer.registers)}H", *answer.registers)
    return data.rstrip(b"\0 ").decode("utf-8", "replace") or None
