"""What the tests of the HTTP conns have in common: one way to use them from threads and tasks."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import h2.config
import h2.connection
import h2.events
import httpx

from connpool.adapters.http import AsyncHttpConn, HttpConn
from connpool.conn import Reply

from . import PATIENCE

WAYS = ("threads", "asyncio", "trio")


class Way:
    """A conn in threads or in tasks; all that may wait is awaited here."""

    def __init__(self, way: str) -> None:
        self.tasks = way != "threads"
        self.kind: Any = AsyncHttpConn if self.tasks else HttpConn

    async def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What the function gives, or raises."""
        if inspect.iscoroutinefunction(function):
            return await function(*args, **options)
        return await anyio.to_thread.run_sync(partial(function, *args, **options))

    @asynccontextmanager
    async def opened(self, url: Any, **options: Any) -> AsyncIterator[Any]:
        """An initialised conn."""
        conn = self.kind(url, **{"timeout": PATIENCE} | options)
        await self.do(conn.init)
        try:
            yield conn
        finally:
            await self.do(conn.close)

    async def call(self, conn: Any, method: str, payload: Any = None) -> httpx.Response:
        """The response, without what it has to say to a pool."""
        reply: httpx.Response | Reply[httpx.Response] = await self.do(conn.call, method, payload)
        return reply.value if isinstance(reply, Reply) else reply


Serve = Callable[[socket.socket], None]


@contextmanager
def listening(*serve: Serve) -> Iterator[str]:
    """The url of a server that gives its first connection to the first function, and so on."""

    def run() -> None:
        for function in serve:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # the test is over
            with sock:
                sock.settimeout(PATIENCE)
                function(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            assert not thread.is_alive()


def hear_out(sock: socket.socket) -> None:
    """Until the other side has closed."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        pass


def hang_up_unanswered(sock: socket.socket) -> None:
    """Read the head of a request, and go away."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65_536)


def over_http2(
    *requests: Callable[[h2.connection.H2Connection, int], None],
) -> Serve:
    """Serve HTTP/2: the first request is given to the first function, with its stream, and so on.

    After the last one the rest is heard out.
    """

    def serve(sock: socket.socket) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        left = list(requests)
        while left:
            data = sock.recv(65_536)
            if not data:
                return
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    assert event.stream_id is not None
                    left.pop(0)(conn, event.stream_id)
            sock.sendall(conn.data_to_send())
        hear_out(sock)

    return serve


def answer(conn: h2.connection.H2Connection, stream: int) -> None:
    """200, and nothing more to say."""
    conn.send_headers(stream, [(":status", "200")], end_stream=True)
