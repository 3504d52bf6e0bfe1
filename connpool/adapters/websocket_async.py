"""The conn that speaks JSON-RPC 2.0 over a websocket in tasks: `websocket` with tasks for threads.

Owns a connection and the task that reads it.  Refuses to know of pools; what messages mean is in
`websocket_rpc`, and what can be said without waiting in `websocket_client`.

Invariant: a call is sent at most once.  `Closed` and `Busy` say that it was not sent, or that the
server refused it; where it may have been carried out the caller gets another error.

The library waits through asyncio and nothing else, so on trio `init` refuses at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from functools import partial
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from ..errors import Busy, InitError
from .websocket_client import WebSocketClient, is_open, loss
from .websocket_rpc import Call, Calls, ProtocolError, listed

_tasks = itertools.count(1)


class AsyncWebSocketConn(WebSocketClient):
    """A conn to a JSON-RPC server over one websocket, for `AsyncPool` on asyncio.

    Parameters, payloads and replies are those of `WebSocketConn`; `on_push` is called in the task
    that reads, and `options` are those of ``websockets.asyncio.client.connect``.

    The conn itself retries nothing.  A cancelled call leaves the conn as it is, and its reply,
    should it come, is dropped.

    >>> conn = AsyncWebSocketConn("wss://me:password@api.example/v1?token=secret", methods=["add"])
    >>> conn
    <AsyncWebSocketConn 'wss://api.example/v1'>
    """

    _connect = staticmethod(connect)
    _link: _Link | None = None

    async def init(self) -> None:
        """Connect.  A connection that was open is closed first.

        OSError says that nobody is there, `InitError` that the server said no (with the time that
        it asks us to wait), ConnectionError that it does not speak as a websocket server does.
        Where asyncio does not run, `InitError` says that this can never be.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InitError(f"{self!r}: it needs asyncio", retry_after=math.inf) from None
        await self.close()
        try:
            ws = await connect(self._url, **self._setup())
        except OSError:
            raise
        except (WebSocketException, EOFError) as error:
            raise self._unopened(error) from None  # what it says may have a query in it
        self._link = _Link(self, ws)

    async def call(self, method: Any, payload: Any = None) -> Any:
        """Send a call and wait for its reply; nothing is ever sent twice.

        The connection lives on after `JsonRpcError` (the server's answer), `Busy` (one of
        `busy_codes`, or others have been sending for too long), `CallTimeout` (no reply in time,
        but the server was heard), TypeError and ValueError (what cannot be sent, and was not).  It
        is gone after `Closed` (not sent), `ReplyLost` (it may have been carried out) and
        TimeoutError (the server was not heard at all, not even when it was pinged).
        """
        link = self._link
        if link is None:
            raise self._not_sent("it is closed")
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        call = link.calls.begin(method, payload, partial(_wake, woken))
        due = loop.time() + (self.call_timeout or 0.0)
        try:
            await link.send(call)
            await link.wait(call, woken, due)
        finally:
            link.calls.forget(call)
        return call.reply()

    async def methods(self) -> Any:
        """The methods that were given, or those that the server lists; waits as `call` does."""
        if isinstance(self._methods, str):
            return listed(await self.call(self._methods))
        return self._methods

    async def check(self) -> bool:
        """Whether the connection is open and, within `check_timeout`, the server answers a ping."""
        return self._link is not None and await self._link.check()

    async def close(self) -> None:
        """Close the connection; calling it again is fine.  Calls in other tasks are woken.

        Waits at most `close_timeout` for the other side to say goodbye; cancelled, not at all.
        """
        link, self._link = self._link, None
        if link is not None:
            await link.close()


class _Link:
    """One connection of a conn, from the handshake to its end."""

    def __init__(self, conn: AsyncWebSocketConn, ws: Any) -> None:
        self.calls = Calls(conn._numbers, conn._busy_codes, conn.max_size)
        self._conn = conn
        self._ws = ws
        self._limit = conn.call_timeout
        self._lost: Exception | None = None
        self._leaving = False
        self._turn = asyncio.Lock()  # to send
        name = f"connpool-websocket-{next(_tasks)}"
        self._reader = asyncio.create_task(self._read(), name=name)

    # -- in the tasks of callers ---------------------------------------------------------------

    async def send(self, call: Call) -> None:
        sent = False
        try:
            async with asyncio.timeout(self._limit), self._turn:
                if self._lost is not None or not self._open():
                    raise self._conn._not_sent(self._lost or "the connection is ending")
                sent = True  # all of it is handed to the transport before anything is awaited
                await self._ws.send(call.text)
        except ConnectionClosed as error:
            raise self._conn._lost_reply(call, loss(error)) from error
        except TimeoutError:
            if not sent:
                busy = f"{self._conn!r}: others were sending for {self._limit} s"
                raise Busy(0.0, busy) from None
            self.abort()  # the other side does not read
            raise self._conn._timed_out(call, alive=False) from None

    async def wait(self, call: Call, woken: asyncio.Future[None], due: float) -> None:
        """Until there is a reply, or until its time is over."""
        if self._limit is None:
            await woken
            return
        heard, loop = self.calls.heard, asyncio.get_running_loop()
        await asyncio.wait([woken], timeout=max(0.0, due - loop.time()) / 2)
        if woken.done():
            return
        # Half of the time is over; if without a word: is anybody there?
        asked = asyncio.create_task(self._answers()) if self.calls.heard == heard else None
        try:
            await asyncio.wait([woken], timeout=max(0.0, due - loop.time()))
            alive = self.calls.heard != heard or (asked is not None and _true(asked))
        finally:
            if asked is not None:
                asked.cancel()
        if not woken.done():
            if not alive:
                self.abort()
            raise self._conn._timed_out(call, alive=alive)

    async def check(self) -> bool:
        if self._lost is not None or not self._open():
            return False
        if (limit := self._conn.check_timeout) is None:
            return True
        try:
            async with asyncio.timeout(limit):
                return await self._answers()
        except TimeoutError:
            return False

    def _open(self) -> bool:
        return is_open(self._ws) and not self._ws.transport.is_closing()

    async def _answers(self) -> bool:
        """Wait for the answer to a ping; False where the connection ended instead."""
        if self._turn.locked():
            return True  # somebody is sending, and has a time limit of his own
        try:
            async with self._turn:
                pong = await self._ws.ping()
            await pong
        except ConnectionClosed:
            return False
        return True

    # -- the end -------------------------------------------------------------------------------

    async def close(self) -> None:
        self._leaving = True
        await self._say_goodbye()
        if self._reader is not asyncio.current_task():
            await asyncio.wait([self._reader])

    def abort(self) -> None:
        """End the connection at once; the reader learns of it."""
        self._ws.transport.abort()

    async def _say_goodbye(self, code: CloseCode = CloseCode.NORMAL_CLOSURE) -> None:
        try:
            async with asyncio.timeout(self._conn.close_timeout):
                await self._ws.close(code)
        except TimeoutError:
            pass
        finally:
            self.abort()

    # -- in the task that reads ----------------------------------------------------------------

    async def _read(self) -> None:
        error = loss(None)
        try:
            while True:
                for push in self.calls.feed(await self._ws.recv()):
                    self._conn._deliver(push)
        except asyncio.CancelledError:  # the loop ends
            self._leaving = True
            self.abort()
            raise
        except Exception as end:
            error = loss(end)
        finally:
            self._end(error)
        if isinstance(error, ProtocolError):
            await self._say_goodbye(CloseCode.PROTOCOL_ERROR)

    def _end(self, error: Exception) -> None:
        self._lost = error
        conn = self._conn
        if not self._leaving and conn._link is self:
            conn._tell_lost(error)
        why = None if self._leaving else error
        self.calls.fail(lambda call: conn._lost_reply(call, why))


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():  # its task may have been cancelled in this very moment
        woken.set_result(None)


def _true(asked: asyncio.Task[bool]) -> bool:
    return asked.done() and not asked.cancelled() and asked.result()
