"""The client of the small text protocol for asyncio and trio: `text` with tasks for threads.

Owns the client's end of a connection.  Refuses to know of pools and of the wire format.

Invariant: a request is sent at most once.  `Closed` and `Busy` say that it was surely not carried
out; where it may have been, the caller gets an OSError, and nobody tries again.

It waits through anyio, but reads and writes its socket by itself.  A stream with buffers of its own
would hide the two things that have to be known for sure: whether a request has left in whole, and
whether something unasked lies there already, which would be taken for the next reply.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import anyio
import anyio.lowlevel

from ..conn import Reply
from ..errors import Closed
from .text_client import TextClient, make_ready, peek
from .text_wire import CHUNK, MAX_LINE, Exchange, ReplyLost


class AsyncTextConn(TextClient):
    """A conn to a server of the text protocol; its methods are the server's commands.

    A payload is the ARGS of the request, a str or None; a reply is the DATA, a str or None.

    Parameters:
        host, port: where the server listens.
        resource: what callers name; default: the pair (host, port).
        timeout: seconds that `init` may take for each address of the host, and that a call may
            take from its first byte sent to the last one received; None: no limit.
        max_line: bytes that a request or a reply may have.

    The conn itself retries nothing.  A pool moves a call that raised `Closed` or `Busy`, for then
    it was surely not carried out; any other error is its caller's.  A call that is cancelled while
    it waits for its reply may have been carried out: it leaves the conn closed, at once, so that
    the reply on its way reaches nobody else.

    >>> import asyncio
    >>> from connpool.adapters.text_server import TextServer
    >>> async def main(address):
    ...     conn = AsyncTextConn(*address)
    ...     await conn.init()
    ...     return await conn.call("INC", "2"), await conn.call("STOP")
    >>> with TextServer() as server:
    ...     asyncio.run(main(server.address))
    ('2', Reply(value=None, cooldown=0.0, closed=True))
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        resource: Any = None,
        timeout: float | None = 10.0,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(host, port, resource=resource, timeout=timeout, max_line=max_line)
        # Under a pool nobody ever waits for this; users of a shared conn stand in line here.
        self._turn = anyio.Lock()
        self._running: tuple[socket.socket, anyio.CancelScope] | None = None  # the call on the wire

    async def init(self) -> None:
        """Connect; an OSError says why that failed.  A connection that was open is closed first."""
        self._end()
        sock = await _connect(self.address, self.timeout)
        self._end()  # what another task opened meanwhile
        self._sock = sock

    async def call(self, method: Any, payload: Any = None) -> str | Reply[str | None] | None:
        """Send one request and wait for its reply; nothing is ever sent twice.

        The connection lives on after `CallError` (the server said err), `Busy` (it said err:busy),
        TypeError and ValueError (what cannot be sent, and was not).  It is closed by all others:
        `Closed`, the request was not sent in whole, so it was not carried out; `ReplyLost`, it may
        have been; TimeoutError and `ProtocolError`, whose text says which; and by a cancellation,
        for the reply on its way would be taken for that of the next call.  (A call cancelled while
        it waits for its turn has sent nothing, and closes nothing.)
        """
        exchange = Exchange(method, payload, max_line=self.max_line)
        async with self._turn:
            sock = self._idle()
            await self._carry(sock, exchange)
            reply = exchange.reply()
            if isinstance(reply, Reply):
                self._drop(sock)
            return reply

    async def methods(self) -> list[str]:
        """Ask the server for its commands; waits and raises as `call` does."""
        return self._listed(await self.call("COMMANDS"))

    async def check(self) -> bool:
        """Whether the connection is open and silent, as far as this side knows.

        Sends nothing, and waits only for a call that runs in another task.
        """
        async with self._turn:
            return self._sock is not None and peek(self._sock) is None

    async def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another task is woken.

        Never waits, so that it does the same whether its task is cancelled or not.
        """
        self._end()

    async def _carry(self, sock: socket.socket, exchange: Exchange) -> None:
        sent = done = taken = False
        try:
            with anyio.move_on_after(self.timeout) as scope:
                self._running = sock, scope
                await _send(sock, exchange.line)
                sent = True
                while not exchange.feed(await _receive(sock)):
                    pass
                done = True
        except OSError as error:
            if sent:
                raise
            # Its newline has not left, and without that it is no request.
            raise Closed(f"{self!r}: the request was not sent in whole: {error}") from error
        finally:
            self._running, taken = None, self._sock is not sock
            if taken or not done:
                self._drop(sock)
        if not done:
            raise self._cut_short(exchange.method, sent=sent, taken=taken)

    def _cut_short(self, method: str, *, sent: bool, taken: bool) -> Exception:
        """What became of a call that was ended by a close or, else, by the time limit."""
        if taken and not sent:
            return Closed(f"{self!r}: it was closed before the request was sent in whole")
        if taken:
            return ReplyLost(
                f"{self!r}: it was closed before the reply to {method} came: "
                f"it may have been carried out"
            )
        if not sent:
            return TimeoutError(f"{self!r}: not sent within {self.timeout} s")
        return TimeoutError(
            f"{self!r}: no reply to {method} within {self.timeout} s, it may have been carried out"
        )

    def _drop(self, sock: socket.socket) -> None:
        if self._sock is sock:
            self._sock = None
        if self._running is None or self._running[0] is not sock:
            sock.close()
        else:
            # A call waits for this very socket, and closes it on its way out.  Not before that may
            # the file number go to somebody else.
            self._running[1].cancel()


async def _send(sock: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            await anyio.wait_writable(sock)


async def _receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(sock)
        except OSError as error:
            raise ReplyLost(
                f"{error}, before the reply came: it may have been carried out"
            ) from error


async def _connect(address: tuple[str, int], timeout: float | None) -> socket.socket:
    """A socket to the first address of the host that answers; else the error of the last one."""
    failure = OSError(f"{address[0]} has no address")
    for family, kind, proto, _, where in await _addresses(*address):
        sock = None
        try:
            with anyio.fail_after(timeout):
                sock = socket.socket(family, kind, proto)
                await _dial(sock, where)
                make_ready(sock)
                return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
    try:
        raise failure
    finally:
        del failure  # its traceback holds this frame, and would hold itself through it


async def _addresses(host: str, port: int) -> list[Any]:
    await anyio.lowlevel.checkpoint()  # whoever tries again and again lets others run meanwhile
    try:  # an address in numbers needs no thread to look it up
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _dial(sock: socket.socket, where: Any) -> None:
    sock.setblocking(False)
    try:
        sock.connect(where)
    except BlockingIOError:
        await anyio.wait_writable(sock)
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code)) from None
