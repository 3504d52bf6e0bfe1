"""Conns that speak JSON-RPC 2.0 over websockets: `WebSocketConn` for threads, its twin for asyncio.

Owns a connection and the thread that reads it.  Refuses to know of pools; what messages mean is in
`websocket_rpc`, and what can be said without waiting in `websocket_client`.

Invariant: a call is sent at most once.  `Closed` and `Busy` say that it was not sent in whole, or
that the server refused it; where it may have been carried out the caller gets another error.
"""

from __future__ import annotations

import itertools
import math
import selectors
import socket
import threading
import time
from _thread import allocate_lock, get_ident
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import connect

from ..errors import Busy, Closed
from .websocket_async import AsyncWebSocketConn
from .websocket_client import WebSocketClient, is_open, loss
from .websocket_rpc import (
    Call,
    Calls,
    CallTimeout,
    JsonRpcError,
    ProtocolError,
    ReplyLost,
    listed,
)

__all__ = [
    "AsyncWebSocketConn",
    "CallTimeout",
    "JsonRpcError",
    "ProtocolError",
    "ReplyLost",
    "WebSocketConn",
]

GRACE = 0.5  # seconds for a thread that has nothing more to do

_threads = itertools.count(1)


class WebSocketConn(WebSocketClient):
    """A conn to a JSON-RPC server over one websocket, which carries many calls at once.

    ``pool.call(resource, "add", [1, 2])``: a payload is a list or a tuple of arguments, a dict of
    named ones, or None; a reply is the result, as JSON has it.  Replies may come in any order.

    Parameters:
        url: the server, ``ws://`` or ``wss://``.
        methods: the names of its methods; or, as a str, the method that lists them, such as
            "rpc.discover", which is called after each init.
        resource: what callers name; default: the url without user and query, which are secret.
        capacity: how many calls it carries at once.
        headers: more headers for the handshake; a function is called for them at each init, so
            that a token may change.  Never shown.
        on_push: called as ``on_push(method, params)`` with what the server sends unasked, in the
            thread that reads: short, and not calling this conn.  One that raises is logged.
        busy_codes: codes of errors that say "not now, and nothing was done", with the seconds to
            rest (0: the pool chooses); they become `Busy`.
        call_timeout: seconds that a call may take from here to its reply; None: no limit.
        connect_timeout: seconds that `init` may take.
        check_timeout: seconds for the answer to the ping that `check` sends; None: `check` only
            looks whether the connection is open.
        close_timeout: seconds that `close` waits for the other side.
        ping_interval, ping_timeout: seconds between pings, and for the answer, without which the
            connection is given up; None: none are sent, no limit.
        max_size: bytes that a message may have, either way; None: no limit.
        options: more options of ``websockets.sync.client.connect``, such as ssl or subprotocols.

    The conn itself retries nothing.  A call that is interrupted leaves the conn as it is, and its
    reply, should it come, is dropped; one that is interrupted while being sent ends the connection.
    Calls may come from any thread, without a pool too.

    >>> conn = WebSocketConn("wss://me:password@api.example/v1?token=secret", methods=["add"])
    >>> conn
    <WebSocketConn 'wss://api.example/v1'>
    """

    _connect = staticmethod(connect)
    _link: _Link | None = None

    def init(self) -> None:
        """Connect.  A connection that was open is closed first.

        OSError says that nobody is there, `InitError` that the server said no (with the time that
        it asks us to wait), ConnectionError that it does not speak as a websocket server does.
        """
        self.close()
        options = self._setup()
        if self._takes("legacy"):
            options["legacy"] = True  # a connection, not something to enter
        try:
            ws = connect(self._url, **options)
        except OSError:
            raise
        except (WebSocketException, EOFError) as error:
            raise self._unopened(error) from None  # what it says may have a query in it
        self._link = link = _Link(self, ws)
        link.reader.start()

    def call(self, method: Any, payload: Any = None) -> Any:
        """Send a call and wait for its reply; nothing is ever sent twice.

        The connection lives on after `JsonRpcError` (the server's answer), `Busy` (one of
        `busy_codes`, or others have been sending for too long), `CallTimeout` (no reply in time,
        but the server was heard), TypeError and ValueError (what cannot be sent, and was not).  It
        is gone after `Closed` (not sent in whole), `ReplyLost` (it may have been carried out) and
        TimeoutError (the server was not heard at all, not even when it was pinged).
        """
        link = self._link
        if link is None:
            raise self._not_sent("it is closed")
        woken = allocate_lock()
        woken.acquire()
        call = link.calls.begin(method, payload, woken.release)
        due = math.inf if self.call_timeout is None else time.monotonic() + self.call_timeout
        try:
            link.send(call)
            link.wait(call, woken, due)
        finally:
            link.calls.forget(call)
        return call.reply()

    def methods(self) -> Any:
        """The methods that were given, or those that the server lists; waits as `call` does."""
        if isinstance(self._methods, str):
            return listed(self.call(self._methods))
        return self._methods

    def check(self) -> bool:
        """Whether the connection is open and, within `check_timeout`, the server answers a ping."""
        return self._link is not None and self._link.check()

    def close(self) -> None:
        """Close the connection; calling it again is fine.  Calls in other threads are woken.

        Waits at most about `close_timeout` for the other side to say goodbye.
        """
        link, self._link = self._link, None
        if link is not None:
            link.close()


class _Link:
    """One connection of a conn, from the handshake to its end."""

    def __init__(self, conn: WebSocketConn, ws: Any) -> None:
        self.calls = Calls(conn._numbers, conn._busy_codes, conn.max_size)
        name = f"connpool-websocket-{next(_threads)}"
        self.reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._conn = conn
        self._ws = ws
        self._limit = conn.call_timeout
        self._lost: Exception | None = None
        self._leaving = False
        self._turn = threading.Lock()  # to send
        self._sending_since: float | None = None
        self._pongs: set[threading.Event] = set()

    # -- in the threads of callers -------------------------------------------------------------

    def send(self, call: Call) -> None:
        if get_ident() == self.reader.ident:
            raise RuntimeError(f"{self._conn!r}: on_push may not wait for the thread that runs it")
        if not self._turn.acquire(timeout=-1 if self._limit is None else self._limit):
            raise Busy(0.0, f"{self._conn!r}: others were sending for {self._limit} s")
        try:
            if self._lost is not None or not is_open(self._ws):
                raise self._conn._not_sent(self._lost or "the connection is ending")
            self._sending_since = time.monotonic()
            self._ws.send(call.text)
        except Closed:
            raise
        except ConnectionClosed as error:
            # The library raises this where nothing of it was sent, or where not all of it was.
            raise self._conn._not_sent(loss(error)) from error
        except BaseException:
            self.abort()  # part of a message may have been sent: what follows would be taken for it
            raise
        finally:
            self._sending_since = None
            self._turn.release()

    def wait(self, call: Call, woken: Any, due: float) -> None:
        """Until there is a reply, or until its time is over."""
        if self._limit is None:
            woken.acquire()
            return
        heard = self.calls.heard
        if woken.acquire(timeout=max(0.0, due - time.monotonic()) / 2):
            return
        # Half of the time is over; if without a word: is anybody there?
        pong = self._ping() if self.calls.heard == heard else None
        if woken.acquire(timeout=max(0.0, due - time.monotonic())) or call.over:
            return
        self.calls.forget(call)
        alive = self.calls.heard != heard or (pong is not None and pong.is_set())
        if pong is not None:
            self._pongs.discard(pong)
        if self._lost is not None:
            raise self._conn._lost_reply(call, self._lost)
        if not alive:
            self.abort()
        raise self._conn._timed_out(call, alive=alive)

    def check(self) -> bool:
        if self._lost is not None or not is_open(self._ws):
            return False
        if (limit := self._conn.check_timeout) is None:
            return True
        pong = self._ping()
        if pong is None:
            return False
        if self._lost is None:
            pong.wait(limit)
        self._pongs.discard(pong)
        return pong.is_set() and self._lost is None

    def _ping(self) -> threading.Event | None:
        """What is set once the server has answered; None where it cannot be asked."""
        pong: threading.Event
        if not self._turn.acquire(blocking=False):
            # Somebody is sending; the reader sees to it that he comes to an end.
            pong = threading.Event()
            pong.set()
            return pong
        try:
            self._sending_since = time.monotonic()
            self._pongs.add(pong := self._ws.ping())
            return pong
        except ConnectionClosed:
            return None
        finally:
            self._sending_since = None
            self._turn.release()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        self._leaving = True
        self._say_goodbye()
        if get_ident() != self.reader.ident:
            self.reader.join(GRACE)  # it may be in a callback that hangs

    def abort(self) -> None:
        """End the connection at once, from whatever thread; the reader learns of it."""
        sock = self._ws.socket
        # Not that of TLS, which would have others go on in plain text for a moment.
        plain = socket.socket if isinstance(sock, socket.socket) else type(sock)
        try:
            plain.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def _say_goodbye(self, code: CloseCode = CloseCode.NORMAL_CLOSURE) -> None:
        # Nobody may be stuck in sending, for then the library would wait for him without a limit.
        if not self._turn.acquire(blocking=False):
            self.abort()
            return
        try:
            if is_open(self._ws) and not _writable(self._ws.socket):
                self.abort()
            self._ws.close(code)
        finally:
            self._turn.release()

    # -- in the thread that reads --------------------------------------------------------------

    def _read(self) -> None:
        error = loss(None)
        try:
            while True:
                try:
                    data = self._ws.recv(timeout=self._limit)
                except TimeoutError:
                    self._watch()
                    continue
                for push in self.calls.feed(data):
                    self._conn._deliver(push)
                self._watch()
        except Exception as end:
            error = loss(end)
        finally:
            self._end(error)
        if isinstance(error, ProtocolError):
            self._say_goodbye(CloseCode.PROTOCOL_ERROR)

    def _watch(self) -> None:
        """End the connection where somebody has been sending for longer than a call may take."""
        since = self._sending_since
        if since is not None and time.monotonic() - since > (self._limit or math.inf):
            self.abort()

    def _end(self, error: Exception) -> None:
        self._lost = error
        conn = self._conn
        if not self._leaving and conn._link is self:
            conn._tell_lost(error)
        why = None if self._leaving else error
        self.calls.fail(lambda call: conn._lost_reply(call, why))
        for pong in tuple(self._pongs):
            pong.set()


def _writable(sock: Any) -> bool:
    """Whether something could be sent without waiting."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(sock, selectors.EVENT_WRITE)
            return bool(selector.select(0))
        except (OSError, ValueError):
            return False  # it is closed already
