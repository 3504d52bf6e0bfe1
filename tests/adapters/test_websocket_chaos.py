"""JSON-RPC over websockets in the chaos that every adapter has to survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from connpool.adapters.websocket import AsyncWebSocketConn, WebSocketConn

from ..servers.websocket import WebSocketServer
from . import chaos
from .chaos import Rig, Scenario

DRIVERS = ("threads", "asyncio")


def make(kind: Any, host: str, port: int, timeout: float) -> Any:
    """A conn that is a little shared, and in no hurry to find out by itself what is wrong."""
    return kind(
        f"ws://{host}:{port}/rpc",
        methods="rpc.methods",
        capacity=2,
        call_timeout=timeout,
        close_timeout=0.2,
        ping_interval=None,
    )


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with WebSocketServer() as server:
        yield Rig(
            name="websocket",
            server=server,
            ask=lambda number: ("do", [number]),
            replied=lambda number, reply: reply == number,
            carried_out=lambda number: server.done[number],
            conn=lambda *args: make(WebSocketConn, *args),
            async_conn=lambda *args: make(AsyncWebSocketConn, *args),
            drivers=DRIVERS,
        )


@pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases(DRIVERS))
def test_chaos(rig: Rig, scenario: Scenario, driver: str, seed: int) -> None:
    """Nothing is lost, mixed up or done twice, whatever becomes of the wire and the server."""
    chaos.run(rig, scenario, driver, seed)
