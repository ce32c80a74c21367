"""OPC UA: a server that shows the newest result, and a node of another server as a trigger.

Object ``Station`` in the namespace urn:anomaly:station, for reading only. ``Counter`` is written
last: when it has changed, the others belong to the new result.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

from anomaly.errors import RuntimeMissing
from anomaly.station.board import Board
from anomaly.station.health import Health
from anomaly.station.results import OUTCOMES
from anomaly.station.settings import OpcuaSink, OpcuaTrigger

try:
    from asyncua import ua
    from asyncua.client.client import Client
    from asyncua.server.server import Server
except ImportError as error:
    raise RuntimeMissing.extra("asyncua", "opcua", "OPC UA") from error

NAMESPACE = "urn:anomaly:station"
TURN_SECONDS = 0.25  # between two looks at the judge
NONE = "none"  # there is no result now: none came, it has expired, or the judge stands still
_T = ua.VariantType
COUNTS = {outcome: f"Count {outcome}".title().replace(" ", "") for outcome in OUTCOMES}
VARIABLES: dict[str, tuple[Any, Any]] = {
    "Outcome": (NONE, _T.String),
    "Action": (NONE, _T.String),
    "Score": (math.nan, _T.Double),
    "Threshold": (math.nan, _T.Double),
    "Serial": ("", _T.String),
    "Id": ("", _T.String),
    "Heartbeat": (0, _T.UInt32),
    "Alarm": ("", _T.String),
    **dict.fromkeys(COUNTS.values(), (0, _T.UInt64)),
    "Counter": (0, _T.UInt64),
}


def _node(name: str, space: int) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={space};s={name}")


class OpcuaServer:
    """Shows the board as variables."""

    def __init__(self, settings: OpcuaSink) -> None:
        self._settings = settings
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what is wrong is raised as well
        self._shown: dict[str, Any] = {}

    async def serve(self, board: Board, health: Health) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(self._settings.url)
        server.set_server_name("anomaly station")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace(NAMESPACE)
        station = await server.nodes.objects.add_object(_node("Station", space), "Station")
        nodes = {
            name: await station.add_variable(
                _node(f"Station.{name}", space), name, value, varianttype=kind
            )
            for name, (value, kind) in VARIABLES.items()
        }
        self._shown = {}
        async with server:
            changed, forget = board.waker()
            try:
                health.ok()
                while not health.closing.is_set():
                    changed.clear()
                    await self._show(board, nodes)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), TURN_SECONDS)
            finally:
                forget()

    async def _show(self, board: Board, nodes: dict[str, Any]) -> None:
        result, number = board.now(self._settings.expires)
        counts = board.counts()
        values: dict[str, Any] = {name: value for name, (value, _) in VARIABLES.items()}
        if result is not None:
            values |= {
                "Outcome": result.outcome,
                "Action": result.action,
                "Score": math.nan if result.score is None else result.score,
                "Threshold": math.nan if result.threshold is None else result.threshold,
                "Serial": result.serial or "",
                "Id": result.id,
            }
        values["Heartbeat"] = board.judge.ticks & 0xFFFFFFFF
        values["Alarm"] = board.alarm()
        values |= {name: counts[outcome] for outcome, name in COUNTS.items()}
        values["Counter"] = number
        for name, value in values.items():
            if repr(value) != self._shown.get(name):  # NaN is not equal to itself
                await nodes[name].write_value(value, VARIABLES[name][1])
                self._shown[name] = repr(value)


def run_trigger(settings: OpcuaTrigger, fire: Callable[[str | None], None], health: Health) -> None:
    """Fires whenever a Boolean node turns true, until the station is closing."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    while not health.closing.is_set():
        with health.attempt():
            asyncio.run(_poll(settings, fire, health))


async def _poll(settings: OpcuaTrigger, fire: Callable[[str | None], None], health: Health) -> None:
    async with Client(settings.url) as client:
        node = client.get_node(settings.node)
        named = client.get_node(settings.serial_node) if settings.serial_node else None
        before = bool(await node.read_value())  # a bit that is on already is no new part
        health.ok()
        while not health.closing.is_set():
            now = bool(await node.read_value())
            if now and not before:
                serial = None if named is None else str(await named.read_value())
                fire(serial or None)
            before = now
            await asyncio.sleep(settings.poll)
