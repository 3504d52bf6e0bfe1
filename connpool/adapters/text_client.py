"""What a client of the text protocol does without waiting, on threads and in tasks alike.

Owns a client's options, and what can be asked of its socket at once.  Refuses to know how a client
waits.

Invariant: nothing is sent over a connection that has ended, or on which something unasked came.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from ..conn import seconds
from ..errors import Closed, show
from .text_wire import COMMAND, MAX_LINE, Message, ProtocolError, line_limit, parse


class TextClient:
    """The half of a text conn that never waits."""

    capacity = 1

    def __init__(
        self,
        host: str,
        port: int,
        *,
        resource: Any = None,
        timeout: float | None = 10.0,
        max_line: int = MAX_LINE,
    ) -> None:
        self.address = (host, port)
        self.resource = self.address if resource is None else resource
        self.timeout = None if timeout is None else _not_0(seconds(timeout, "timeout"))
        self.max_line = line_limit(max_line)
        self._sock: socket.socket | None = None

    def parse(self, data: bytes) -> tuple[Message | None, bytes]:
        """`parse`, with this conn's longest line."""
        return parse(data, max_line=self.max_line)

    def __repr__(self) -> str:
        state = "open" if self._sock is not None else "closed"
        return f"<{type(self).__name__} {show(self.resource)}, {state}>"

    def _drop(self, sock: socket.socket) -> None:
        """Close `sock`, and wake the call that runs on it."""
        raise NotImplementedError

    def _end(self) -> None:
        if (sock := self._sock) is not None:
            self._drop(sock)

    def _idle(self) -> socket.socket:
        """The socket, open and silent; else the error of a call that surely did not happen."""
        sock = self._sock
        if sock is None:
            raise Closed(f"{self!r}: nothing was sent")
        if (seen := peek(sock)) is None:
            return sock
        self._drop(sock)
        if seen:
            raise ProtocolError(f"{self!r} received what nobody had asked for; nothing was sent")
        raise Closed(f"{self!r}: the server had ended the connection, nothing was sent")

    def _listed(self, names: Any) -> list[str]:
        """The reply to COMMANDS as a list."""
        listed = names.split(",") if names else []
        if not all(map(COMMAND.fullmatch, listed)):
            self._end()
            raise ProtocolError(f"expected a list of commands, got {show(names)}")
        return listed


def _not_0(timeout: float) -> float:
    if not timeout:
        raise ValueError("timeout: expected more than 0 seconds, or None for no limit, got 0")
    return timeout


def peek(sock: socket.socket) -> bytes | None:
    """None: open and silent; b"": ended; anything else: the first byte of what nobody asked for."""
    try:
        sock.settimeout(0)
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def make_ready(sock: socket.socket) -> None:
    """Prepare a socket that has just connected; an OSError where there is no server behind it."""
    # Where nobody listens on a port of this machine, the kernel may choose that very port for our
    # side, and connect us to ourselves.
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
