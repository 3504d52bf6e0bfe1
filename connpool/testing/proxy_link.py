"""One connection through a FaultProxy: two sockets, what is on its way, and the rules for it.

Owns the bytes between a client and a server.  Refuses to know where the rules come from, and when
to look again: it says what it waits for, and is called when that is there.

Invariant: what is passed on is passed on in order, with no gap.  A connection out of which
something was swallowed is never used again.
"""

from __future__ import annotations

import math
import socket
import struct
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from .proxy_faults import Fault, Rules, Traffic

CHUNK = 65_536
MOST_HELD = 1 << 20  # bytes held for one side; then the other is no longer read
PIECES = 20  # a second's worth of a throttled reply goes out in so many pieces

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no seconds: a close is a reset

# Calls back: look at this socket for these events, 0: for none.
Watch = Callable[[socket.socket, int, "Link"], None]


class Link:
    """A client's connection, and the one to the server that goes with it.

    `due` is when `pump` has something to do though nothing comes; `held` are the bytes of replies
    that are here and have not gone on; `half_open` says that the client has got a FIN, `hung_up`
    that it has sent one.
    """

    def __init__(self, client: socket.socket, rules: Rules, traffic: Traffic, watch: Watch) -> None:
        client.setblocking(False)
        _hurry(client)
        self.rules = rules
        self.open = True
        self.due = math.inf
        self.held = 0
        self.half_open = self.hung_up = False
        self._traffic = traffic
        self._client = client
        self._server: socket.socket | None = None
        self._connected = False
        self._watch = watch
        self._up = bytearray()
        self._up_done = False  # the FIN of the client has been passed on
        self._down: deque[tuple[float, bytes | None]] = deque()  # b"": FIN, None: RST
        self._down_ended = False
        self._free_at = -math.inf  # a throttled reply goes on
        self._torn = False

    # -- what is done to it --------------------------------------------------------------------

    def dial(self, upstream: tuple[Any, Any]) -> None:
        """Begin to connect to the server; the client is reset where that fails."""
        family, address = upstream
        try:
            self._server = server = socket.socket(family, socket.SOCK_STREAM)
            server.setblocking(False)
            _hurry(server)
            server.connect(address)
        except BlockingIOError:
            pass
        except OSError:
            self._lose_server()

    @property
    def dialled(self) -> bool:
        """Whether it has begun to connect to the server."""
        return self._server is not None

    def strike(self, fault: Fault) -> None:
        """Let a fault happen to it."""
        if not self.open:
            return
        if fault.rule is not None:
            fault.bend(self.rules)
        elif fault.name == "half_close":
            self._forget_replies()
            self._end_client()
        elif fault.name == "drop":
            self.drop()
        else:
            self.reset()

    def heal(self, rules: Rules) -> None:
        """Go on under these rules: with what was held back, at once."""
        self.rules = rules
        self._free_at = -math.inf
        self._down = deque((-math.inf, data) for _, data in self._down)
        if self._torn:
            self.reset()

    def reset(self) -> None:
        """End it with a RST to both sides; what is on its way is lost."""
        for sock in self._sockets():
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # some systems refuse this where the other side has gone already
        self._close()

    def drop(self) -> None:
        """End it with a FIN to both sides; what is held back is lost."""
        for sock in self._sockets():
            try:
                for _ in range(MOST_HELD // CHUNK):
                    if not sock.recv(CHUNK):  # closed with input unread it would be a reset
                        break
            except OSError:
                pass
        self._close()

    # -- what comes and goes -------------------------------------------------------------------

    def ready(self, sock: socket.socket, events: int, now: float) -> None:
        """The sockets that were watched have something, or room for something."""
        if not self.open:
            return
        if sock is self._client:
            if events & EVENT_READ:
                self._hear_client()
        elif not self._connected:
            self._connected = True
            if not _reached(sock):
                self._lose_server()
        elif events & EVENT_READ:
            self._hear_server(now)

    def _lose_server(self) -> None:
        if self.rules.black_hole:
            self._torn = True  # nobody is to hear of it now
        else:
            self.reset()

    def pump(self, now: float) -> None:
        """Pass on what can be passed on, and say what to wait for."""
        self.due = math.inf
        if self.open and not self.rules.black_hole:
            self._pass_up()
            self._pass_down(now)
        if self.open and self._up_done and self.half_open and self._down_ended:
            self._close()
        if self.open:
            self._wait()

    def _hear_client(self) -> None:
        try:
            data = self._client.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        self._traffic.asked += len(data)
        if not self.rules.black_hole:
            self._up += data
            self.hung_up = not data
        elif data:
            self._torn = True
        else:
            self._close()  # it hung up, and needs no more holding

    def _hear_server(self, now: float) -> None:
        assert self._server is not None
        data: bytes | None
        try:
            data = self._server.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = None
        self._down_ended = not data
        size = len(data or b"")
        self._traffic.answered += size
        if self.rules.black_hole:
            self._torn = True
        elif not self.half_open:
            self._down.append((now + self.rules.delay, data))
            self.held += size
        elif data is None:
            self.reset()

    def _pass_up(self) -> None:
        if self._server is None or not self._connected or self._up_done:
            return
        if self._up:
            sent = self._send(self._server, self._up)
            del self._up[:sent]
        if self.open and self.hung_up and not self._up:
            self._up_done = True
            _shut(self._server)

    def _pass_down(self, now: float) -> None:
        while self.open and self._down:
            due, data = self._down[0]
            due = max(due, self._free_at)
            if due > now:
                self.due = due
                return
            if not self._pass_piece(data, now):
                return

    def _pass_piece(self, data: bytes | None, now: float) -> bool:
        """Pass on the first of `data`, which is the next reply; False where nothing can go on."""
        rules = self.rules
        if data and not rules.cut:
            self.drop()
            return False
        if not rules.stall:
            return False
        if data is None:
            self.reset()
            return False
        if not data:
            self._down.popleft()
            self._end_client()
            return True
        piece = int(min(len(data), rules.cut, rules.stall, max(1, rules.rate / PIECES)))
        sent = self._send(self._client, data[:piece])
        if not sent:
            return False
        rules.cut -= sent
        rules.stall -= sent
        self._free_at = now + sent / rules.rate
        self.held -= sent
        self._down.popleft()
        if sent < len(data):
            self._down.appendleft((-math.inf, data[sent:]))
        return True

    def _send(self, sock: socket.socket, data: bytes | bytearray) -> int:
        try:
            return sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.reset()
            return 0

    def _forget_replies(self) -> None:
        self._down.clear()
        self.held = 0

    def _end_client(self) -> None:
        self.half_open = True
        _shut(self._client)

    # -- waiting -------------------------------------------------------------------------------

    def _wait(self) -> None:
        hole = self.rules.black_hole
        events = 0
        if not self.hung_up and (hole or len(self._up) < MOST_HELD):
            events |= EVENT_READ
        if self._down and self.rules.stall and math.isinf(self.due) and not hole:
            events |= EVENT_WRITE
        self._watch(self._client, events, self)
        if self._server is None:
            return
        events = 0
        if not self._connected or (self._up and not hole):
            events |= EVENT_WRITE
        if self._connected and not self._down_ended and (hole or self.held < MOST_HELD):
            events |= EVENT_READ
        self._watch(self._server, events, self)

    # -- the end -------------------------------------------------------------------------------

    def _sockets(self) -> list[socket.socket]:
        return [sock for sock in (self._client, self._server) if sock is not None]

    def _close(self) -> None:
        self.open, self.due = False, math.inf
        self._forget_replies()
        self._up.clear()
        for sock in self._sockets():
            self._watch(sock, 0, self)
            sock.close()


def _reached(sock: socket.socket) -> bool:
    """Whether an attempt to connect, which is over, has come to somebody."""
    try:
        # Where nobody listens, the kernel may choose that very port for our side.
        return bool(sock.getsockname() != sock.getpeername())
    except OSError:
        return False  # refused, or over already


def _hurry(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # some systems refuse this where the other side has gone already


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has ended already
