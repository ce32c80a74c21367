"""What a controller reads over OPC UA and Modbus, by real clients: the newest result, none that has
expired, and no heartbeat while the judge stands still.
"""

from __future__ import annotations

import asyncio
import math
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, Server, ua
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from anomaly.scorer import Scorer
from anomaly.station import modbus, opcua
from anomaly.station.backlog import Backlog
from anomaly.station.board import Board, Showing, StateSink
from anomaly.station.health import Health
from anomaly.station.judge import STILL_SECONDS, Judge
from anomaly.station.ledger import Ledger
from anomaly.station.modbus import ModbusServer
from anomaly.station.opcua import OpcuaServer
from anomaly.station.results import OUTCOMES, Actions
from anomaly.station.settings import ModbusSink, ModbusTrigger, OpcuaSink, OpcuaTrigger
from tests.support.review_server import free_port
from tests.support.stations import SECONDS, example, wait_until

Serve = Callable[[threading.Event, threading.Event], Coroutine[Any, Any, None]]
EXPIRES = 60.0  # longer than a busy machine takes


def health(name: str = "plc") -> Health:
    return Health(name, "kind", "sink", print)


@pytest.fixture
def board(tmp_path: Path, run: Path) -> Iterator[Board]:
    """Yields a board with a real judge that nothing keeps ticking, after 7 results."""
    ledger = Ledger(tmp_path, [])
    judge = Judge(
        "line", Scorer(run), ledger, Backlog(1, False), Actions(),
        units=None, keeping=None, health={},
    )  # fmt: skip
    counts = Counter(dict.fromkeys(OUTCOMES, 0), flagged=7)
    yield Board(
        judge, "image", lambda: "" if judge.works else "stands still", lambda: counts, (None, 0, 7)
    )
    ledger.close()


@contextmanager
def shown(sink: StateSink, board: Board) -> Iterator[None]:
    of = health()
    showing = Showing(sink, board, of)
    showing.start()
    try:
        wait_until(lambda: of.state == "ok", f"the server answers ({of.said})")
        yield
    finally:
        showing.finish(SECONDS)


def modbus_state(client: ModbusTcpClient) -> dict[str, Any]:
    """Returns what a controller makes of the coils and registers."""
    coils = client.read_coils(0, count=7, device_id=1).bits[:7]
    names = ("good", "look", "reject", "not judged", "heartbeat", "alarm", "stop")
    registers = client.read_input_registers(0, count=16, device_id=1).registers
    assert registers[0] & 0b1101111 == sum(on << bit for bit, on in enumerate(coils) if bit != 4)
    number, score, threshold = struct.unpack(">Iff", struct.pack(">6H", *registers[1:7]))
    on = {name for name, value in zip(names, coils, strict=True) if value} - {"heartbeat"}
    return {"on": on, "number": number, "score": score, "threshold": threshold,
            "heartbeat": registers[7], "flagged": registers[13]}  # fmt: skip


def test_modbus_shows_the_newest_result_and_none_that_has_expired(board: Board) -> None:
    port = free_port()
    with shown(ModbusServer(ModbusSink("plc", port=port, expires=EXPIRES)), board):
        client = ModbusTcpClient("127.0.0.1", port=port)
        assert client.connect()
        board.judge.tick()
        # a result of the process before is not shown again
        state = modbus_state(client)
        assert (state["on"], state["number"], state["flagged"]) == (set(), 7, 7)
        for outcome, on in (
            ("not flagged", {"good"}),
            ("flagged", {"reject"}),
            ("review", {"look", "reject"}),
            ("not judged", {"not judged", "reject"}),
        ):
            board.judge.tick()
            board.put(example(1, outcome))
            assert modbus_state(client)["on"] == on
        board.put(example(1, "flagged"))
        state = modbus_state(client)
        assert (state["number"], state["score"], state["threshold"]) == (12, 1.5, 1.0)
        board.newest = (board.newest[0], time.monotonic() - EXPIRES, board.newest[2])
        board.judge.tick()
        state = modbus_state(client)
        assert (state["on"], state["number"], state["score"]) == (set(), 12, 0.0)
        # a controller cannot write
        assert client.write_coil(modbus.GOOD, True, device_id=1).isError()
        client.close()


def test_modbus_shows_nothing_good_while_the_judge_stands_still(board: Board) -> None:
    port = free_port()
    with shown(ModbusServer(ModbusSink("plc", port=port, expires=EXPIRES)), board):
        client = ModbusTcpClient("127.0.0.1", port=port)
        assert client.connect()
        board.judge.tick()
        board.put(example(1))
        before = modbus_state(client)
        board.judge.tick()
        assert modbus_state(client)["heartbeat"] == before["heartbeat"] + 1
        board.judge.ticked -= STILL_SECONDS
        still = modbus_state(client)
        assert still["on"] == {"alarm"}
        assert modbus_state(client)["heartbeat"] == still["heartbeat"]
        client.close()


async def opcua_state(client: Client) -> dict[str, Any]:
    space = await client.get_namespace_index(opcua.NAMESPACE)
    nodes = {name: client.get_node(f"ns={space};s=Station.{name}") for name in opcua.VARIABLES}
    return {name: await node.read_value() for name, node in nodes.items()}


def test_opcua_shows_the_newest_result_and_none_that_has_expired(board: Board) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}/anomaly"

    async def look() -> None:
        async def until(**expected: Any) -> dict[str, Any]:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                if fresh:
                    board.judge.tick()
                state = await opcua_state(client)
                if {name: state[name] for name in expected} == expected:
                    return state
                await asyncio.sleep(0.05)
            raise AssertionError(f"{expected} expected, {state} found")

        fresh = True
        async with Client(url, timeout=SECONDS) as client:
            state = await until(Counter=7, Outcome="none", Action="none", CountFlagged=7)
            assert math.isnan(state["Score"])
            board.put(example(1, "flagged"))
            state = await until(Counter=8, Outcome="flagged", Action="reject", Id="a-1")
            assert (state["Score"], state["Threshold"], state["Serial"]) == (1.5, 1.0, "S1")
            board.put(example(2, "not judged"))
            await until(Counter=9, Outcome="not judged", Action="reject", Serial="S2")
            board.newest = (board.newest[0], time.monotonic() - EXPIRES, board.newest[2])
            await until(Counter=9, Outcome="none", Serial="", Alarm="")
            board.put(example(3))
            before = await until(Counter=10, Outcome="not flagged", Action="pass")
            fresh = False
            board.judge.ticked -= STILL_SECONDS
            still = await until(Outcome="none", Action="none", Alarm="stands still")
            assert still["Heartbeat"] >= before["Heartbeat"]
            assert (await opcua_state(client))["Heartbeat"] == still["Heartbeat"]
            space = await client.get_namespace_index(opcua.NAMESPACE)
            with pytest.raises(ua.UaStatusCodeError):  # a controller cannot write
                await client.get_node(f"ns={space};s=Station.Outcome").write_value("not flagged")

    with shown(OpcuaServer(OpcuaSink("plc", url, expires=EXPIRES)), board):
        asyncio.run(look())


# ---- triggers ------------------------------------------------------------------------------------
@contextmanager
def triggering(run: Any, settings: Any) -> Iterator[list[str | None]]:
    """Runs a trigger in a thread and yields what it fires."""
    fired: list[str | None] = []
    of = health("trigger")
    thread = threading.Thread(target=run, args=(settings, fired.append, of))
    thread.start()
    try:
        yield fired
    finally:
        of.closing.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


@contextmanager
def served(
    serve: Callable[[threading.Event, threading.Event], Coroutine[Any, Any, None]],
) -> Iterator[None]:
    """Runs a controller's server in a thread: it sets the first event, and ends at the second."""
    ready, end = threading.Event(), threading.Event()
    plc = threading.Thread(target=lambda: asyncio.run(serve(ready, end)))
    plc.start()
    try:
        assert ready.wait(SECONDS)
        yield
    finally:
        end.set()
        plc.join(SECONDS)


def test_a_modbus_coil_fires_once_with_the_serial_number_of_its_registers() -> None:
    port = free_port()
    coil = {"on": True}  # before the station looks: no new part

    async def fill(_: int, __: int, ___: int, ____: int, registers: list[int], _____: Any) -> None:
        registers[0] = int(coil["on"]) << 3
        registers[1:4] = struct.unpack(">3H", b"A0042\0")

    async def serve(ready: threading.Event, end: threading.Event) -> None:
        data = [SimData(0, count=8, datatype=DataType.REGISTERS)]
        device = SimDevice(1, data, use_bit_addressing=True, action=fill)
        server = ModbusTcpServer(device, address=("127.0.0.1", port))
        await server.serve_forever(background=True)
        ready.set()
        while not end.is_set():
            await asyncio.sleep(0.02)
        await server.shutdown()

    settings = ModbusTrigger(f"127.0.0.1:{port}", 3, serial_register=1, serial_registers=3)
    with served(serve), triggering(modbus.run_trigger, settings) as fired:
        time.sleep(1.0)
        coil["on"] = False
        time.sleep(1.0)
        assert fired == []
        coil["on"] = True
        wait_until(lambda: fired == ["A0042"], "the trigger fires")
        time.sleep(0.3)
        assert fired == ["A0042"]


def test_an_opcua_node_fires_once_with_the_value_of_another() -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}/plc"
    values = {"on": True, "serial": "ORDER-7"}

    async def serve(ready: threading.Event, end: threading.Event) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        objects = server.nodes.objects
        bit = await objects.add_variable(ua.NodeId("Part", 2), "Part", True)
        serial = await objects.add_variable(ua.NodeId("Serial", 2), "Serial", "")
        async with server:
            ready.set()
            while not end.is_set():
                await serial.write_value(str(values["serial"]))
                await bit.write_value(bool(values["on"]))
                await asyncio.sleep(0.02)

    settings = OpcuaTrigger(url, "ns=2;s=Part", "ns=2;s=Serial")
    with served(serve), triggering(opcua.run_trigger, settings) as fired:
        time.sleep(2.0)
        values["on"] = False
        time.sleep(1.0)
        assert fired == []
        values["on"] = True
        wait_until(lambda: fired == ["ORDER-7"], "the trigger fires")
