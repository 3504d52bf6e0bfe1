"""A conn that speaks a small text protocol over TCP; `text_wire` says how it looks.

Owns the client's end of a connection.  Refuses to know of pools and of the wire format.

Invariant: a request is sent at most once.  `Closed` and `Busy` say that it was surely not carried
out; where it may have been, the caller gets an OSError, and nobody tries again.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from ..conn import Reply
from ..errors import Closed
from .text_client import TextClient, make_ready, peek
from .text_wire import CHUNK, MAX_LINE, Exchange, ReplyLost


class TextConn(TextClient):
    """A conn to a server of this protocol; its methods are the server's commands.

    A payload is the ARGS of the request, a str or None; a reply is the DATA, a str or None.

    Parameters:
        host, port: where the server listens.
        resource: what callers name; default: the pair (host, port).
        timeout: seconds that `init` may take for each address of the host, and that a call may
            take from its first byte sent to the last one received; None: no limit.
        max_line: bytes that a request or a reply may have.

    The conn itself retries nothing.  A pool moves a call that raised `Closed` or `Busy`, for then
    it was surely not carried out; any other error is its caller's.  A call that is interrupted
    while it waits for its reply may have been carried out: it leaves the conn closed.

    >>> from connpool.adapters.text_server import TextServer
    >>> with TextServer() as server:
    ...     conn = TextConn(*server.address)
    ...     conn.init()
    ...     conn.call("INC", "2"), sorted(conn.methods()), conn.call("STOP")
    ('2', ['GET', 'INC', 'STOP'], Reply(value=None, cooldown=0.0, closed=True))
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
        self._lock = threading.RLock()

    def init(self) -> None:
        """Connect; an OSError says why that failed.  A connection that was open is closed first."""
        self.close()
        sock = socket.create_connection(self.address, self.timeout)
        try:
            make_ready(sock)
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def call(self, method: Any, payload: Any = None) -> str | Reply[str | None] | None:
        """Send one request and wait for its reply; nothing is ever sent twice.

        The connection lives on after `CallError` (the server said err), `Busy` (it said err:busy),
        TypeError and ValueError (what cannot be sent, and was not).  It is closed by all others:
        `Closed`, the request was not sent in whole, so it was not carried out; `ReplyLost`, it may
        have been; TimeoutError and `ProtocolError`, whose text says which; and by whatever
        interrupts the wait, for the reply on its way would be taken for that of the next call.
        """
        exchange = Exchange(method, payload, max_line=self.max_line)
        with self._lock:
            sock = self._idle()
            try:
                self._carry(sock, exchange)
            except BaseException:
                self._drop(sock)
                raise
            reply = exchange.reply()
            if isinstance(reply, Reply):
                self._drop(sock)
            return reply

    def methods(self) -> list[str]:
        """Ask the server for its commands; waits and raises as `call` does."""
        return self._listed(self.call("COMMANDS"))

    def check(self) -> bool:
        """Whether the connection is open and silent, as far as this side knows.

        Sends nothing, and waits only for a call that runs in another thread.
        """
        with self._lock:
            sock = self._sock
            return sock is not None and peek(sock) is None

    def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another thread is woken."""
        self._end()

    def _carry(self, sock: socket.socket, exchange: Exchange) -> None:
        due = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            sock.settimeout(_left(due))
            sock.sendall(exchange.line)
        except TimeoutError as error:
            raise TimeoutError(f"{self!r}: not sent within {self.timeout} s") from error
        except OSError as error:
            # Its newline has not left, and without that it is no request.
            raise Closed(f"{self!r}: the request was not sent in whole: {error}") from error
        try:
            while not exchange.feed(_receive(sock, due)):
                pass
        except TimeoutError as error:
            raise TimeoutError(
                f"{self!r}: no reply to {exchange.method} within {self.timeout} s, "
                f"it may have been carried out"
            ) from error

    def _drop(self, sock: socket.socket) -> None:
        if self._sock is sock:
            self._sock = None
        if not self._lock.acquire(blocking=False):
            # A call in another thread: it must be woken, and be out before the file number is
            # free for others.  Only then: a shutdown ends the connection of a forked parent too.
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
            self._lock.acquire()
        try:
            sock.close()
        finally:
            self._lock.release()


def _left(due: float | None) -> float | None:
    if due is None:
        return None
    # Never 0, which to a socket means "do not wait at all".
    return max(due - time.monotonic(), 1e-6)


def _receive(sock: socket.socket, due: float | None) -> bytes:
    try:
        sock.settimeout(_left(due))
        return sock.recv(CHUNK)
    except TimeoutError:
        raise
    except OSError as error:
        raise ReplyLost(f"{error}, before the reply came: it may have been carried out") from error
