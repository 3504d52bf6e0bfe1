"""Conns for threads that a scheduler rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connpool import Busy, Closed, InitError

from .ledger import Book, Ledger, Trouble
from .scheduler import Scheduler


class World(Ledger):
    """What all conns of a story share."""

    interrupts = (KeyboardInterrupt, SystemExit)

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler.chance)
        self.scheduler = scheduler

    def wrong(self, what: str) -> None:
        def fail() -> None:
            raise AssertionError(what)

        self.scheduler.check(fail)

    def linger(self, doing: str) -> None:
        """Something takes a while, or not; others may go on meanwhile."""
        self.scheduler.switch("conn", doing)
        if not self.calm and self.chance.random() < 0.3:
            self.scheduler.sleep(self.chance.choice([0.0, 0.001, 0.02, 0.3]))


class Line(Book):
    """A conn.  Which of `check`, `lend` and `reset` it has depends on its class."""

    def __init__(self, world: World, resource: Any = "line", capacity: int = 1) -> None:
        super().__init__(world, capacity)
        self.world = world
        self.resource = resource
        self.survives_cancel = world.chance.random() < 0.3
        self.on_lost: Callable[..., Any] | None = None

    def linger(self, doing: str) -> None:
        self.world.linger(f"{self.number} {doing}")

    def init(self) -> float | None:
        self.opening()
        try:
            self.linger("init")
            self.fail(OSError("refused"), InitError("no"), Trouble())
        finally:
            self.initialising = False
        return self.opened()

    def methods(self) -> list[str]:
        self.world.scheduler.switch("conn", f"{self.number} methods")
        return ["say", "ask"]

    def call(self, method: str, payload: Any = None) -> Any:
        self.enter()
        try:
            self.linger("call")
            self.fail_before()
            self.world.done[payload] += 1
            self.fail_after()
        finally:
            self.leave()
        return self.reply(payload)

    def close(self) -> None:
        self.closing()
        self.linger("close")
        if self.dice() < 0.1:
            raise Trouble


class Checked(Line):
    """One that can be asked."""

    def check(self) -> bool | None:
        if not self.is_open:
            raise Closed
        if self.inside:
            self.wrong("checked while it is used")
        self.linger("check")
        self.fail(OSError("dead"), Trouble(), below=0.1)
        return False if self.dice() > 0.9 else None


class Lent(Checked):
    """One that hands something over, and is made clean."""

    def lend(self) -> Any:
        if not self.is_open:
            raise Closed
        self.linger("lend")
        self.fail(Closed(), Busy(0.01), Trouble(), OSError())
        return self

    def reset(self) -> None:
        if not self.is_open:
            raise Closed
        self.linger("reset")
        self.fail(OSError("dead"), Trouble())
