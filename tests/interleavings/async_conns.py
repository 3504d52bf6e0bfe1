"""Conns for tasks that run in an order that chance decides."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import anyio

from connpool import Busy, Closed, InitError

from ..cancellation.loops import steps
from .ledger import Book, Ledger, Trouble


class World(Ledger):
    """What all conns of a story share."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.wrongs: list[str] = []

    def wrong(self, what: str) -> None:
        self.wrongs.append(what)  # and on with it: who is told would not know what to do

    async def linger(self) -> None:
        """Something takes a while, or not; others may go on meanwhile."""
        dice = self.chance.random()
        if not self.calm and dice < 0.2:
            await anyio.sleep(self.chance.choice([0.0, 0.001, 0.02, 0.3]))
        elif dice < 0.6:
            await steps(self.chance.randint(1, 3))


class AsyncLine(Book):
    """A conn.  Which of `check`, `lend` and `reset` it has depends on its class."""

    def __init__(self, world: World, resource: Any = "line", capacity: int = 1) -> None:
        super().__init__(world, capacity)
        self.world = world
        self.resource = resource
        self.survives_cancel = world.chance.random() < 0.3
        self.on_lost: Callable[..., Any] | None = None

    async def init(self) -> float | None:
        self.opening()
        try:
            await self.world.linger()
            self.fail(OSError("refused"), InitError("no"), Trouble())
        finally:
            self.initialising = False
        return self.opened()

    async def methods(self) -> list[str]:
        await self.world.linger()
        return ["say", "ask"]

    async def call(self, method: str, payload: Any = None) -> Any:
        self.enter()
        try:
            await self.world.linger()
            self.fail_before()
            self.world.done[payload] += 1
            self.fail_after()
        finally:
            self.leave()
        return self.reply(payload)

    async def close(self) -> None:
        self.closing()
        await self.world.linger()
        if self.dice() < 0.1:
            raise Trouble


class AsyncChecked(AsyncLine):
    """One that can be asked."""

    async def check(self) -> bool | None:
        if not self.is_open:
            raise Closed
        if self.inside:
            self.wrong("checked while it is used")
        await self.world.linger()
        self.fail(OSError("dead"), Trouble(), below=0.1)
        return False if self.dice() > 0.9 else None


class AsyncLent(AsyncChecked):
    """One that hands something over, and is made clean."""

    async def lend(self) -> Any:
        if not self.is_open:
            raise Closed
        await self.world.linger()
        self.fail(Closed(), Busy(0.01), Trouble(), OSError())
        return self

    async def reset(self) -> None:
        if not self.is_open:
            raise Closed
        await self.world.linger()
        self.fail(OSError("dead"), Trouble())
