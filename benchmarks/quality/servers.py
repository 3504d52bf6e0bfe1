"""Servers, and conns to them, in invented time.

Owns what a server does with a connect and with a call, and who is hurt when it stops.  Refuses to
know pools.

A server works on each call at once, as many as there are conns that let them through (`lines` is
False), or on one after the other, in a line of its own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable
from typing import Any

from connpool.conn import Description

from .streams import Call

METHOD = "m"
METHODS = frozenset({METHOD})

# How long it takes to hear from somebody who has nothing to do: a refusal, an answer to a check.
ROUND_TRIP = 0.001


class Server:
    """One that conns talk to.

    Parameters:
        connect: seconds that a connect takes.
        slowness: how many times longer than others it needs for a call.
        fault: what it does with each call instead, at once: "fails" or "hangs up".
        lines: whether it works on one call at a time.
        logins: how many connects it can handle at once without becoming slower.
    """

    __slots__ = (
        "answered", "busy_until", "connect", "connects", "fault", "greeted", "greeting", "hangs",
        "life", "lines", "logins", "losses", "refused", "running", "slowness", "up", "worked",
    )  # fmt: skip

    def __init__(
        self,
        *,
        connect: float = 0.05,
        slowness: float = 1.0,
        fault: str = "",
        lines: bool = False,
        logins: float = math.inf,
    ) -> None:
        self.connect = connect
        self.slowness = slowness
        self.fault = fault
        self.lines = lines
        self.logins = logins
        self.up = True
        self.hangs = False  # takes connects, and never answers
        self.life = 0  # how often it was stopped
        self.greeting = 0  # connects that are under way
        self.greeted = 0  # the most there ever were
        self.busy_until = 0.0
        self.running: dict[Call, Callable[[Call], Any]] = {}  # and what to do if it stops
        self.losses: dict[Conn, Callable[[], Any]] = {}  # whom to tell that it stops
        self.connects = array("d")  # when each began, the refused ones too
        self.refused = 0
        self.answered = 0
        self.worked = 0.0

    def greet(self, now: float) -> float:
        """A connect has begun: seconds until its end, if the server lives so long."""
        self.connects.append(now)
        if self.hangs:
            return math.inf
        if not self.up:
            self.refused += 1
            return ROUND_TRIP
        self.greeting += 1
        self.greeted = max(self.greeted, self.greeting)
        return self.connect * max(1.0, self.greeting / self.logins)

    def accept(self, call: Call, now: float) -> float:
        """A call has come: the instant of its end.  Sets when the server begins with it."""
        if self.fault:
            call.begins = now
            return now
        begins = max(now, self.busy_until) if self.lines else now
        call.begins = begins
        self.busy_until = ends = begins + call.work * self.slowness
        return ends

    def stop(self) -> None:
        """It is down: all conns to it are dead, and so are the calls that run."""
        self.up = False
        self.life += 1
        self.greeting = 0
        self.busy_until = 0.0
        running, self.running = self.running, {}
        for call, act in running.items():
            act(call)
        losses, self.losses = self.losses, {}
        for tell in losses.values():
            tell()

    def start(self) -> None:
        """It is up again."""
        self.up = True


class Conn:
    """A conn to a server, alive as long as the server has not stopped since."""

    __slots__ = ("capacity", "life", "notices", "resource", "server")

    def __init__(
        self,
        server: Server,
        resource: Hashable = "r",
        capacity: int = 1,
        *,
        notices: bool = False,
    ) -> None:
        self.server = server
        self.resource = resource
        self.capacity = capacity
        self.notices = notices  # by itself that it is lost, idle or not
        self.life = server.life

    @property
    def alive(self) -> bool:
        """Whether the server still knows it."""
        return self.server.up and self.life == self.server.life

    def init(self) -> None:
        """Part of the contract; `drive` does the work."""

    def methods(self) -> frozenset[str]:
        """What it can."""
        return METHODS

    def call(self, method: str, payload: Any = None) -> Any:
        """Part of the contract; `drive` does the work."""

    def check(self) -> None:
        """Likewise: it can be asked whether it is alive."""

    def describe(self, resource: Hashable) -> Description:
        """What the core is told of it."""
        return Description(
            resource, (resource,), METHODS, self.capacity, checks=True, lends=False, resets=False
        )
