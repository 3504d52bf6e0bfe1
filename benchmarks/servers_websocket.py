"""A real websocket server: JSON-RPC calls of many tasks at once over few conns.

Owns the rows of websockets.  Refuses to know how a server is got (`servers`).

One operation is a thousand calls, each in a task of its own, so many of them at once.  The
library has no pool: what connpool is held against is the least that a program could write by hand,
a dict of futures for each connection and a task that reads, without any time limit.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count, cycle
from typing import Any

from connpool import AsyncPool

from .field import find
from .harness import Bench, Heat, Row, Work, at_most
from .servers import Shared, apart, at_once, warm
from .tasks import Serve, hosted

CALLS, CONNS = 1_000, 4

Build = Callable[[str, int, Serve], Awaitable[None]]


def promptly(connection: Any, request: Any, response: Any) -> None:
    """The server sends each reply at once, however small: else those that come singly wait 40 ms
    for an acknowledgement of the one before, and small crowds look dear."""
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


SERVER = Shared(partial(apart, "websocket", "WebSocketServer", process_response=promptly))


async def called(capacity: int, url: str, crowd: int, serve: Serve) -> None:
    """`AsyncPool.call`, over conns that carry so many calls each."""
    adapter = find("connpool.adapters.websocket", "websockets")
    async with AsyncPool(name="benchmark") as pool:
        for _ in range(CONNS):
            conn = adapter.AsyncWebSocketConn(url, methods=["add"], capacity=capacity)
            await pool.init(conn)
        call = partial(pool.call, url, "add", [1, 2])
        await serve(partial(at_once, call, crowd, CALLS))


async def direct(url: str, crowd: int, serve: Serve) -> None:
    """The same conns in turns, without a pool."""
    adapter = find("connpool.adapters.websocket", "websockets")
    conns = [adapter.AsyncWebSocketConn(url, methods=["add"]) for _ in range(CONNS)]
    for conn in conns:
        await conn.init()
    turns = cycle(conns)
    await serve(partial(at_once, lambda: next(turns).call("add", [1, 2]), crowd, CALLS))
    for conn in conns:
        await conn.close()


class ByHand:
    """What a program could write by hand."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.reader = asyncio.create_task(self._read())

    async def call(self, method: str, params: Any) -> Any:
        """Send, and wait for the reply with the same number."""
        number = next(self._numbers)
        self._waiting[number] = reply = asyncio.get_running_loop().create_future()
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await self._ws.send(json.dumps(message))
        return await reply

    async def _read(self) -> None:
        async for text in self._ws:
            message = json.loads(text)
            self._waiting.pop(message["id"]).set_result(message["result"])


async def by_hand(url: str, crowd: int, serve: Serve) -> None:
    """The library alone, in turns over as many connections."""
    library = find("websockets.asyncio.client", "websockets")
    clients = [ByHand(await library.connect(url)) for _ in range(CONNS)]
    turns = cycle(clients)
    await serve(partial(at_once, lambda: next(turns).call("add", [1, 2]), crowd, CALLS))
    for client in clients:
        await client._ws.close()
        await client.reader


@contextmanager
def crowded(build: Build, crowd: int) -> Iterator[Work]:
    """So many calls at once."""
    find("websockets", "websockets")
    with SERVER() as url, hosted(partial(build, url, crowd)) as cold, warm(cold, 1) as work:
        yield work


FEW, MANY = f"100 at once, {CONNS} conns", f"1,000 at once, {CONNS} conns"
WIDE = "1,000 at once, none waits"
DIRECT, HAND = "conns without a pool", "websockets by hand"
IN_LINE = partial(called, 100)  # 400 of a thousand are under way, the others wait in line
NO_LINE = partial(called, 250)

BENCHES: list[Bench] = [
    Heat(
        {
            FEW: partial(crowded, IN_LINE, 100),
            MANY: partial(crowded, IN_LINE, 1_000),
            WIDE: partial(crowded, NO_LINE, 1_000),
            DIRECT: partial(crowded, direct, 1_000),
            HAND: partial(crowded, by_hand, 1_000),
        },
        [
            Row("websocket.1000", MANY, FEW, at_most(1.3)),
            Row("websocket.1000.wide", WIDE, FEW, at_most(1.3)),
            Row("websocket.1000.direct", MANY, DIRECT),
            Row("websocket.1000.hand", MANY, HAND),
        ],
        sample=0.4,
        rounds=9,
        processes=2,
        clock=time.perf_counter,
    ),
]
