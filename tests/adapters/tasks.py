"""What the tests of the async adapters have in common: two ends of a connection, calls in tasks."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from connpool.adapters.async_text import AsyncTextConn
from connpool.adapters.text_server import TextServer

from . import PATIENCE


@asynccontextmanager
async def connected(server: TextServer, **options: Any) -> AsyncIterator[AsyncTextConn]:
    """An initialised conn."""
    conn = AsyncTextConn(*server.address, **{"timeout": PATIENCE, **options})
    await conn.init()
    try:
        yield conn
    finally:
        await conn.close()


HUGE = 20_000_000  # more than what the kernel takes for a server that does not read


@asynccontextmanager
async def ends(**options: Any) -> AsyncIterator[tuple[AsyncTextConn, socket.socket]]:
    """A conn and the server's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn = AsyncTextConn(*listener.getsockname(), timeout=PATIENCE, **options)
        await conn.init()
        sock, _ = listener.accept()
        with sock:
            try:
                yield conn, sock
            finally:
                await conn.close()


async def hear(sock: socket.socket) -> bytes:
    """What the other side sends."""
    await anyio.wait_readable(sock)
    return sock.recv(65_536)


async def hear_the_end(sock: socket.socket) -> None:
    """Until the other side has closed."""
    try:
        while await hear(sock):
            pass
    except ConnectionResetError:
        pass  # it was closed with our data unread: gone all the same


class Call:
    """A call in a task of its own, and what came of it."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        self.reply: Any = None
        self.error: Exception | None = None

    async def run(self, function: Callable[..., Any], *args: Any) -> None:
        with self.scope:
            try:
                self.reply = await function(*args)
            except Exception as error:
                self.error = error
        self.over.set()


@asynccontextmanager
async def calling(function: Callable[..., Any], *args: Any) -> AsyncIterator[Call]:
    """A call that has ended when the block has."""
    call = Call()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run, function, *args)
        yield call
