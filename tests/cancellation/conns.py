"""Conns that misbehave on demand, and keep books that must balance.

A `Line` answers like a pipe: what is asked lies on the wire until it is answered, and who comes
after a call that was cut short would get the answer to that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from connpool import AsyncPool

from .loops import steps, until


class Line:
    """A conn that answers its payload.

    The attributes `on_init`, `on_methods`, `on_call`, `on_check` and `on_close` say how: an async function that
    is awaited, and may raise or hang; `on_saying` says it for calls with one payload.  On `hold` it
    answers once everybody whom the payload waits for is inside.
    """

    def __init__(
        self, resource: Any = "line", *, capacity: int = 1, survives_cancel: Any = False
    ) -> None:
        self.resource = resource
        self.capacity = capacity
        self.survives_cancel = survives_cancel
        self.on_init: Callable[[], Any] = nothing
        self.on_methods: Callable[[], Any] = nothing
        self.on_call: Callable[[], Any] = nothing
        self.on_check: Callable[[], Any] = nothing
        self.on_close: Callable[[], Any] = nothing
        self.on_saying: dict[Any, Callable[[], Any]] = {}
        self.opens = self.closes = self.inside = 0
        self.is_open = False
        self.initialising = False
        self.wire: deque[Any] = deque()
        self.said: list[Any] = []
        self.faults: list[str] = []

    def behave(self) -> None:
        """From now on everything goes well."""
        self.on_init = self.on_methods = self.on_call = self.on_check = self.on_close = nothing
        self.on_saying.clear()

    async def init(self) -> Any:
        if self.is_open or self.initialising:
            self.faults.append("init while open")
        self.initialising = True
        try:
            rest = await self.on_init()
        finally:
            self.initialising = False
        self.wire.clear()
        self.opens += 1
        self.is_open = True
        return rest

    async def methods(self) -> list[str]:
        await self.on_methods()
        return ["say", "hold"]

    async def call(self, method: str, payload: Any = None) -> Any:
        if not self.is_open:
            self.faults.append(
                f"called while it was not open, {self.inside} of {self.capacity} inside"
            )
        self.inside += 1
        if self.inside > self.capacity:
            self.faults.append("more users than places")
        try:
            if method == "hold":
                await payload.enter()
                return payload
            return await self._say(payload)
        finally:
            self.inside -= 1

    async def _say(self, payload: Any) -> Any:
        self.said.append(payload)
        act = self.on_saying.get(payload, self.on_call)
        if self.capacity > 1:  # its answers carry numbers
            return await act() or payload
        self.wire.append(payload)
        try:
            said = await act()
        except Exception:
            self.wire.pop()
            raise
        except BaseException:
            if self.survives_cancel is True:
                self.wire.pop()
            raise
        answer = self.wire.popleft()
        return answer if said is None else said

    async def check(self) -> Any:
        if not self.is_open or self.inside:
            self.faults.append("checked while it was closed or in use")
        return await self.on_check()

    async def close(self) -> None:
        self.closes += 1
        if not self.is_open:
            self.faults.append("closed while it was not open")
        self.is_open = False
        await self.on_close()

    def audit(self) -> None:
        """Fail where anything was done to it that must not be."""
        assert not self.faults, self.faults
        assert self.opens == self.closes + self.is_open


async def nothing() -> None:
    """All is well, at once."""


async def hang() -> None:
    """It never ends by itself."""
    await anyio.sleep_forever()


def slow(count: int) -> Callable[[], Any]:
    """It takes so many steps of the loop."""
    return lambda: steps(count)


def fail(error: Callable[[], BaseException]) -> Callable[[], Any]:
    """It raises."""

    async def act() -> None:
        raise error()

    return act


class House:
    """Where so many callers must be inside at the same time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside = 0
        self._full = anyio.Event()

    async def enter(self) -> None:
        """Wait until the house is full."""
        self.inside += 1
        if self.inside == self.size:
            self._full.set()
        await self._full.wait()


def at_rest(pool: AsyncPool) -> bool:
    """Whether nobody uses the pool or waits, and every conn is ready."""
    seen = pool.stats().now
    return seen.conns == seen.ready and not (
        seen.in_use or seen.waiting or seen.reviving or seen.draining or seen.opening
    )


async def fill(pool: AsyncPool, resource: Any = "line") -> int:
    """Have every place of a resource at once, none waiting for another; gives how many."""
    size = sum(info.capacity for info in pool.infos(resource))
    house = House(size)
    with anyio.fail_after(1):
        async with anyio.create_task_group() as group:
            for _ in range(size):
                group.start_soon(_hold, pool, resource, house)
    assert house.inside == size
    return size


async def _hold(pool: AsyncPool, resource: Any, house: House) -> None:
    await pool.call(resource, "hold", house, timeout=0)


async def fill_supply(pool: AsyncPool, resource: Any, size: int) -> None:
    """Have as many conns as a supply may make, all at the same time."""
    house = House(size)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(size):
                group.start_soon(pool.call, resource, "hold", house)
    assert house.inside == size


async def whole(pool: AsyncPool, places: int, resource: Any = "line") -> None:
    """See that, once all is calm, every one of so many places can be had."""
    await until(lambda: at_rest(pool), within=100)
    assert await fill(pool, resource) == places
    assert at_rest(pool)
