"""The thread of a FaultProxy: it accepts, watches every socket, and does what it is ordered to.

Owns the listening socket, the connections and the selector, all of which only its thread touches.
Refuses to know what faults mean: that is `proxy_link` and `proxy_faults`.

Invariant: an order has been carried out, and all that follows from it, when `order` returns; the
thread waits in one place only, for sockets, for an order or for the next thing due.
"""

from __future__ import annotations

import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from .proxy_faults import Fault, Rules, Traffic
from .proxy_link import Link

PATIENCE = 30.0  # seconds for the thread to answer; it only ends a hang
PAUSE = 0.05  # seconds after a connection could not be accepted


class Loop:
    """Serves a listening socket until it is stopped.

    Parameters:
        listener: a socket that listens; it is closed at the end.
        where: the family and the address of the server.
        traffic: what to count in.
    """

    def __init__(self, listener: socket.socket, where: Any, traffic: Traffic) -> None:
        self.where = where
        self.links: set[Link] = set()
        self.script: deque[Fault | None] = deque()
        self.rules = Rules()
        self._address = listener.getsockname()[:2]
        self._listener: socket.socket | None = listener
        self._refusing = False
        self._accept_at = math.inf
        self._traffic = traffic
        self._guard = threading.Lock()
        self._orders: list[_Order] = []
        self._stopping = self._over = False
        self._failure: BaseException | None = None  # of the thread itself
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._ear, self._alarm = socket.socketpair()
        for sock in (self._ear, self._alarm, listener):
            sock.setblocking(False)
        self._watch(self._ear, selectors.EVENT_READ)
        self._watch(listener, selectors.EVENT_READ)
        name = f"connpool-fault-proxy-{self._address[1]}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- for all threads -----------------------------------------------------------------------

    def order(self, work: Callable[[], None]) -> None:
        """Have the thread do something, and wait until it has."""
        order = _Order(work)
        with self._guard:
            if self._over:
                raise RuntimeError("the proxy is closed") from self._failure
            self._orders.append(order)
            self._wake()
        if not order.done.wait(PATIENCE):
            raise RuntimeError("the thread of the proxy does not answer")
        if order.error is not None:
            raise order.error

    def stop(self) -> None:
        """Reset all connections, and end the thread."""
        with self._guard:
            self._stopping = True
            if not self._over:
                self._wake()
        self._thread.join(PATIENCE)

    def _wake(self) -> None:
        try:
            self._alarm.send(b"!")
        except BlockingIOError:
            pass  # so full of alarms that it will wake

    # -- orders, in the thread -----------------------------------------------------------------

    def strike(self, fault: Fault) -> None:
        """Let a fault happen to all connections, and one that lasts to new ones too."""
        if fault.rule is not None:
            fault.bend(self.rules)
        for link in self.links:
            link.strike(fault)

    def heal(self) -> None:
        """End all faults; an OSError where the port cannot be had again."""
        self.script.clear()
        self.rules = Rules()
        for link in self.links:
            link.heal(Rules())
            self._dial(link)
        self._open_door()

    def shut_door(self) -> None:
        """Listen no more, but keep the port."""
        if self._refusing:
            return
        self._refusing = True
        if self._listener is not None:
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = None
        # Bound, and not listening: who knocks is refused, and nobody else can have the port.
        self._listener = bind(self._address)

    def _open_door(self) -> None:
        if not self._refusing:
            return
        if self._listener is None:
            self._listener = bind(self._address)
        self._listener.setblocking(False)
        self._listener.listen()
        self._watch(self._listener, selectors.EVENT_READ)
        self._refusing = False

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._end()

    def _turn(self) -> None:
        touched = set()
        for key, events in self._selector.select(self._time_left()):
            now = time.monotonic()
            if isinstance(key.data, Link):
                assert isinstance(key.fileobj, socket.socket)
                key.data.ready(key.fileobj, events, now)
                touched.add(key.data)
            elif key.fileobj is self._ear:
                self._ear.recv(4096)
            else:
                touched.update(self._accept())
        with self._guard:
            orders, self._orders = self._orders, []
        for order in orders:
            order.carry_out()
        now = time.monotonic()
        self._pump(self.links if orders else touched | self._due(now), now)
        for order in orders:
            order.done.set()

    def _time_left(self) -> float | None:
        due = min((link.due for link in self.links), default=math.inf)
        due = min(due, self._accept_at)
        return None if math.isinf(due) else max(0.0, due - time.monotonic())

    def _due(self, now: float) -> set[Link]:
        if now >= self._accept_at:
            self._accept_at = math.inf
            if self._listener is not None and not self._refusing:
                self._watch(self._listener, selectors.EVENT_READ)
        return {link for link in self.links if link.due <= now}

    def _pump(self, links: set[Link], now: float) -> None:
        ended = []
        for link in links:
            link.pump(now)
            if not link.open:
                ended.append(link)
        self.links.difference_update(ended)

    def _accept(self) -> list[Link]:
        """All who knock."""
        links: list[Link] = []
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                break
            except OSError:
                # Out of file numbers, say: it would be told of this client again and again.
                self._watch(self._listener, 0)
                self._accept_at = time.monotonic() + PAUSE
                break
            links.append(self._admit(client))
        return links

    def _admit(self, client: socket.socket) -> Link:
        link = Link(client, attrs.evolve(self.rules), self._traffic, self._watch)
        self.links.add(link)
        self._traffic.accepted += 1
        if self.script and (fault := self.script.popleft()) is not None:
            link.strike(fault)
        self._dial(link)
        return link

    def _dial(self, link: Link) -> None:
        if link.open and not link.dialled and not link.rules.black_hole:
            link.dial(self.where)

    def _watch(self, sock: socket.socket, events: int, link: Link | None = None) -> None:
        before = self._watched.pop(sock, 0)
        if events:
            self._watched[sock] = events
        if events == before:
            return
        if not before:
            self._selector.register(sock, events, link)
        elif not events:
            self._selector.unregister(sock)
        else:
            self._selector.modify(sock, events, link)

    def _end(self) -> None:
        with self._guard:
            self._over = True
            orders, self._orders = self._orders, []
            self._alarm.close()
        for link in self.links:
            link.reset()
        self.links.clear()
        self._selector.close()
        self._ear.close()
        if self._listener is not None:
            self._listener.close()
        for order in orders:
            order.error = RuntimeError("the proxy was closed")
            order.done.set()


class _Order:
    """Something for the thread to do, and a caller who waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.done = threading.Event()
        self.error: Exception | None = None

    def carry_out(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error


def bind(address: tuple[str, int]) -> socket.socket:
    """A socket with this address, not listening yet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere this would let two have the port at once
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
