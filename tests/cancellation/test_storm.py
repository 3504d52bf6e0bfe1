"""A storm of calls and checkouts that are cancelled, over conns that misbehave; then the pool must
be whole.

Six seeds by default.  For a hundred, of ten thousand calls each::

    CONNPOOL_STORM=100x10000 python -m pytest tests/cancellation/test_storm.py
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from connpool import (
    AsyncPool,
    Backoff,
    Busy,
    CallError,
    Closed,
    InitError,
    PoolFull,
    Reply,
    ResourceError,
)
from connpool.core import Timeout

from .conns import Line, at_rest, fill, fill_supply, hang, nothing
from .loops import now, on_asyncio, on_both, run, steps, until

SEEDS, CALLS = map(int, os.environ.get("CONNPOOL_STORM", "6x1000").split("x"))
WORKERS = 24
CONNS = 8

Doing = Callable[[], Awaitable[Any]]
Way = Callable[["Storm", Doing], Awaitable[Any]]


class Trouble(Exception):
    """What a conn raises that stays well."""


class Boom(Exception):
    """What a sibling fails with."""


# How long callers may wait; mostly the pool's own timeout.
PATIENCE: tuple[Timeout, ...] = (..., ..., ..., ..., 0, 0.005)

# What a caller may get instead of its answer.  A PoolTimeout is a TimeoutError, and an OSError.
EXPECTED = (OSError, CallError, InitError, Trouble, PoolFull)


class Cloud:
    """Chooses what each act of a conn does, and lets the sun out in the end."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False

    def over(self, line: Line) -> Line:
        """Let the conn be under this cloud."""
        line.on_init = self.chosen(self._init)
        line.on_methods = self.chosen(self._methods)
        line.on_call = self.chosen(self._call)
        line.on_check = self.chosen(self._check)
        line.on_close = self.chosen(self._close)
        return line

    def chosen(self, act: Callable[[float], Awaitable[Any]]) -> Doing:
        """The act, unless it is calm."""
        return lambda: nothing() if self.calm else act(self.chance.random())

    async def _linger(self) -> None:
        if self.chance.random() < 0.8:
            await steps(self.chance.randint(1, 5))
        else:
            await anyio.sleep(self.chance.choice([0, 0.001, 0.01]))

    async def _init(self, dice: float) -> float | None:
        if dice < 0.15:
            raise self.chance.choice([OSError, Trouble, InitError])()
        if dice < 0.2:
            await hang()
        if dice < 0.5:
            await self._linger()
        return 0.01 if dice > 0.9 else None

    async def _methods(self, dice: float) -> None:
        if dice < 0.05:
            await hang()
        if dice < 0.1:
            raise Trouble
        if dice < 0.3:
            await self._linger()

    async def _check(self, dice: float) -> bool:
        if dice < 0.03:
            await hang()
        if dice < 0.1:
            raise self.chance.choice([OSError, Trouble])
        if dice < 0.5:
            await self._linger()
        return dice < 0.9

    async def _close(self, dice: float) -> None:
        if dice < 0.05:
            await hang()
        if dice < 0.2:
            raise Trouble
        if dice < 0.6:
            await self._linger()

    async def _call(self, dice: float) -> Any:
        if dice < 0.01:
            await hang()
        if dice < 0.4:
            await self._linger()
        if self.chance.random() < 0.1:
            raise self.chance.choice(
                [
                    OSError("torn"),
                    Closed(),
                    Busy(),
                    Busy(0.002),
                    CallError("no"),
                    CallError("no", cooldown=0.002),
                    CallError("no", closed=True),
                    Trouble(),
                ]
            )
        return None

    async def lend(self, dice: float) -> None:
        """An act of those that can be lent."""
        if dice < 0.02:
            await hang()
        if dice < 0.12:
            raise self.chance.choice([Closed(), Trouble(), OSError("torn")])
        if dice < 0.4:
            await self._linger()

    async def reset(self, dice: float) -> None:
        """An act of those that can be made clean."""
        if dice < 0.02:
            await hang()
        if dice < 0.1:
            raise self.chance.choice([Trouble(), OSError("torn")])
        if dice < 0.5:
            await self._linger()

    async def block(self) -> None:
        """What somebody does who has checked a conn out."""
        await self._linger()
        if self.chance.random() < 0.1:
            raise self.chance.choice([Trouble(), OSError("torn"), CallError("no", closed=True)])

    def reply(self, value: Any) -> Any:
        """An answer, now and then in a wrapping."""
        dice = 0.5 if self.calm else self.chance.random()
        if dice < 0.02:
            return Reply(value, closed=True)
        return Reply(value, cooldown=0.001) if dice < 0.05 else value


class Weathered(Line):
    """A conn under a cloud."""

    cloud: Cloud
    whole = False  # somebody has it for himself

    async def call(self, method: str, payload: Any = None) -> Any:
        if self.whole:
            self.faults.append("called while somebody had it for himself")
        return self.cloud.reply(await super().call(method, payload))

    async def use(self, *, shared: bool) -> None:
        """What is done in a block."""
        self.inside += 1
        if self.inside > (self.capacity if shared else 1) or self.whole:
            self.faults.append("held by too many")
        self.whole = not shared
        try:
            await self.cloud.block()
        finally:
            self.inside -= 1
            if not shared:
                self.whole = False


class Lent(Weathered):
    """One that is asked when it is lent, and made clean when it is back."""

    async def lend(self) -> Lent:
        await self.cloud.chosen(self.cloud.lend)()
        return self

    async def reset(self) -> None:
        if not self.is_open or self.inside:
            self.faults.append("reset while it was closed or in use")
        await self.cloud.chosen(self.cloud.reset)()


class Storm:
    """One run."""

    def __init__(self, seed: int, calls: int) -> None:
        self.chance = random.Random(seed)
        self.cloud = Cloud(self.chance)
        self.left = calls
        self.made = CONNS // 2 * (seed % 2)  # the conns that are made on demand
        self.lines: list[Line] = []
        self.ends: Counter[str] = Counter()
        self.pool = AsyncPool(
            name="storm",
            timeout=2.0,
            connect_timeout=0.5,
            check_after=self.chance.choice([None, 0, 0.05]),
            max_size=None if self.made else 2 * CONNS,
            backoff=Backoff(first=0.01, factor=1.5, jitter=0.2, most=0.1),
        )
        self.pool._core._rng = self.chance.random  # the same seed, the same storm
        self.ways: list[Way] = [in_peace, by_scope, by_deadline, by_sibling]
        if on_asyncio():
            self.ways += [by_task, by_wait_for, by_timeout, by_native_sibling]

    async def run(self) -> Counter[str]:
        """From the first conn to the last check."""
        async with self.pool, anyio.create_task_group() as self.group:
            self.cloud.calm = True
            for number in range(CONNS):
                await self.pool.init(self.line(), revive="force", ttl=0.5 if number % 3 else None)
            if self.made:
                await self.pool.supply(
                    "made", self.line_of_one, min_size=2, max_size=self.made, revive=True,
                    max_idle=0.1, ttl=0.3, ping_interval=0.02, connect_timeout=0.1,
                )  # fmt: skip
            self.cloud.calm = False
            async with anyio.create_task_group() as workers:
                for _ in range(WORKERS):
                    workers.start_soon(self.work)
            self.cloud.calm = True
            await until(lambda: at_rest(self.pool), within=30)
            assert await fill(self.pool) >= CONNS
            await self.have_all("line")
            if self.made:
                await fill_supply(self.pool, "made", self.made)
                await until(lambda: at_rest(self.pool), within=30)
                await self.have_all("made")
            assert at_rest(self.pool)
            for line in self.lines:
                line.audit()
        for line in self.lines:
            line.audit()
            assert not line.is_open
        return self.ends

    async def have_all(self, resource: str) -> None:
        """Check out every conn at the same time, each for oneself."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in self.pool.infos(resource):
                line = await stack.enter_async_context(self.pool.checkout(resource, timeout=0))
                assert not line.inside

    def line_of_one(self) -> Line:
        """One more conn, that carries one call at once."""
        return self.line(1)

    def line(self, capacity: int = 0) -> Line:
        """One more conn."""
        line = self.chance.choice([Weathered, Lent])(
            capacity=capacity or self.chance.choice([1, 1, 3]),
            survives_cancel=self.chance.random() < 0.2,
        )
        line.cloud = self.cloud
        self.lines.append(line)
        self.cloud.over(line)
        return line

    async def work(self) -> None:
        """Call and call again."""
        while self.left > 0:
            self.left -= 1
            acts = [self.call, self.hold, self.add, self.take_out]
            doing = self.chance.choices(acts, [65, 30, 4, 1])[0]
            try:
                await self.chance.choice(self.ways)(self, doing)
                self.ends["done"] += 1
            except BaseExceptionGroup as errors:
                others = errors.split(EXPECTED)[1]
                if others is not None:
                    raise others from None
            except EXPECTED as error:
                self.ends[type(error).__name__] += 1

    async def call(self) -> None:
        """A call; what it is answered must be its own."""
        asked = object()
        resource = "made" if self.made and self.chance.random() < 0.4 else "line"
        timeout = self.chance.choice(PATIENCE)
        try:
            answered = await self.pool.call(resource, "say", asked, timeout=timeout)
        except ResourceError:  # at this moment all conns are being opened or revived
            assert timeout is not ...  # who has time would wait for one
            return
        assert answered is asked, "it got somebody else's answer"
        self.ends["answered"] += 1

    async def hold(self) -> None:
        """A checkout, of a whole conn or of a place."""
        resource = "made" if self.made and self.chance.random() < 0.4 else "line"
        timeout, shared = self.chance.choice(PATIENCE), self.chance.random() < 0.5
        try:
            async with self.pool.checkout(resource, timeout=timeout, shared=shared) as line:
                await line.use(shared=shared)
        except ResourceError:
            assert timeout is not ...
            return
        self.ends["held"] += 1

    async def add(self) -> None:
        """One more conn, for a while."""
        await self.pool.init(self.line(), ttl=0.2)

    async def take_out(self) -> None:
        """A conn leaves."""
        infos = self.pool.infos("line", filter=lambda info: not info.revive)
        if infos:
            conn = await self.pool.pop(self.chance.choice(infos).id, timeout=0.01)
            conn.behave()
            if conn.is_open:
                await conn.close()

    def later(self, act: Callable[[], Any]) -> None:
        """Do something a few steps from now, wherever everybody is by then."""

        async def wait_and_act(count: int) -> None:
            await steps(count)
            act()

        self.group.start_soon(wait_and_act, self.chance.randint(0, 20))

    def soon(self) -> float:
        """A short time."""
        return self.chance.choice([0, 0.001, 0.01, 0.05, 0.2, 1])


# -- ways to be cancelled ------------------------------------------------------------------------


async def in_peace(storm: Storm, doing: Doing) -> None:
    """Not at all, unless it hangs."""
    with anyio.move_on_after(3) as scope:
        await doing()
    storm.ends["hung"] += scope.cancelled_caught


async def by_scope(storm: Storm, doing: Doing) -> None:
    """By scope.cancel()."""
    with anyio.CancelScope() as scope:
        storm.later(scope.cancel)
        await doing()
    storm.ends["scope"] += scope.cancelled_caught


async def by_deadline(storm: Storm, doing: Doing) -> None:
    """By a deadline."""
    with anyio.fail_after(storm.soon()):
        await doing()


async def by_sibling(storm: Storm, doing: Doing) -> None:
    """By the failure of another task of the group."""

    async def fail() -> None:
        await steps(storm.chance.randint(0, 20))
        raise Boom

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await doing()
    except* Boom:
        storm.ends["sibling"] += 1


async def by_task(storm: Storm, doing: Doing) -> None:
    """By task.cancel(): whoever is told that the task will be cancelled sees it cancelled."""
    task = asyncio.ensure_future(doing())
    told: list[bool] = []
    storm.later(lambda: told.append(task.cancel()))
    await until(lambda: told)
    try:
        await task
    except asyncio.CancelledError:
        storm.ends["task"] += 1
    except EXPECTED:
        assert told == [False]
        raise
    assert task.cancelled() is told[0], "it swallowed its cancellation"


async def by_wait_for(storm: Storm, doing: Doing) -> None:
    """By asyncio.wait_for."""
    await asyncio.wait_for(doing(), storm.soon())


async def by_timeout(storm: Storm, doing: Doing) -> None:
    """By asyncio.timeout."""
    async with asyncio.timeout(storm.soon()):
        await doing()


async def by_native_sibling(storm: Storm, doing: Doing) -> None:
    """By the failure of another task of asyncio's own group."""

    async def fail() -> None:
        await steps(storm.chance.randint(0, 20))
        raise Boom

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await doing()
    except* Boom:
        storm.ends["sibling"] += 1


# -- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(SEEDS))
@on_both
def test_a_storm_of_cancellations_loses_no_place(backend: str, seed: int) -> None:
    """However calls are cancelled: every place can be had again, every conn is closed once."""

    async def story() -> Counter[str]:
        return await Storm(seed, CALLS).run()

    ends = run(backend, story, seed=seed)
    # It was a storm: calls were answered, and each way of cancelling hit some.
    assert (
        min(ends[end] for end in ("done", "held", "scope", "TimeoutError", "sibling"))
        > CALLS // 100
    )
    assert backend == "trio" or ends["task"] > CALLS // 100


@on_both
def test_a_crowd_of_which_half_is_cancelled_serves_the_other_half(backend: str) -> None:
    """Who is not cancelled is answered, in no time, however many others give up around him."""

    async def story() -> None:
        chance = random.Random(1)
        pool, line = AsyncPool(timeout=None), Line(survives_cancel=True)
        line.on_call = lambda: steps(chance.randint(0, 2))
        answered: list[int] = []

        async def call(number: int) -> None:
            with anyio.CancelScope() as scope:
                if number % 2:
                    group.start_soon(cancel_soon, scope)
                answered.append(await pool.call("line", "say", number))

        async def cancel_soon(scope: anyio.CancelScope) -> None:
            await steps(chance.randint(0, 600))
            scope.cancel()

        async with pool:
            await pool.init(line)
            begun = now()
            async with anyio.create_task_group() as group:
                for number in range(1, 1001):
                    group.start_soon(call, number)
            assert now() == begun
            kept = [number for number in answered if not number % 2]
            assert len(kept) == 500
            assert len(answered) < 1000
            assert pool.stats().now.waiting == pool.stats().now.in_use == 0
            assert await fill(pool) == 1
        line.audit()

    run(backend, story)
