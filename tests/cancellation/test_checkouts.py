"""Checkouts that are cancelled: at each step, in the tick of a hand-over, and in a great crowd."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Backoff, PoolTimeout

from .conns import Line, at_rest, fail, hang, nothing, whole
from .loops import now, on_both, run, start, steps, until
from .test_every_step import CONNECT, GOES, TIMEOUT, cancel_after, in_every_step
from .test_same_tick import Scene, in_every_order, in_every_way
from .ways import CUT, Way

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


class Desk(Line):
    """A conn that is lent and reset, and notes who has it when he should not."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.on_lend = self.on_reset = nothing
        self.held = 0
        self.dirty = False

    def behave(self) -> None:
        super().behave()
        self.on_lend = self.on_reset = nothing

    async def init(self) -> Any:
        rest = await super().init()
        self.dirty = False
        return rest

    async def lend(self) -> Desk:
        if not self.is_open or self.dirty:
            self.faults.append("lent while it was closed or dirty")
        await self.on_lend()
        return self

    async def reset(self) -> None:
        if not self.is_open or self.held:
            self.faults.append("reset while it was closed or held")
        await self.on_reset()
        self.dirty = False

    async def use(self, count: int, *, shared: bool) -> None:
        """What a block does."""
        self.held += 1
        if self.held > (self.capacity if shared else 1):
            self.faults.append("held by too many")
        self.dirty |= not shared
        try:
            await steps(count)
        finally:
            self.held -= 1


async def hold(pool: AsyncPool, count: int = 2, **how: Any) -> None:
    """Check a conn out, and use it for so many steps."""
    async with pool.checkout("line", **how) as desk:
        await desk.use(count, shared=how.get("shared", False))


async def hold_all(pool: AsyncPool, size: int) -> None:
    """Have every conn at the same time, none waiting for another, and one after the other."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(size):
            await stack.enter_async_context(pool.checkout("line", timeout=0))
        assert pool.stats().now.ready == 0 or pool.stats().now.in_use >= size
        with pytest.raises(PoolTimeout):
            await stack.enter_async_context(
                pool.checkout("line", timeout=0, filter=lambda info: info.in_use)
            )
    for _ in range(size):
        await hold(pool, timeout=0)
    assert at_rest(pool)


# -- at each step --------------------------------------------------------------------------------

each_check = pytest.mark.parametrize("check", GOES)
each_lend = pytest.mark.parametrize("lend", GOES)


@each_lend
@each_check
@on_both
def test_cancelled_at_each_step(backend: str, check: str, lend: str) -> None:
    """In line, in check, in lend, in the block, in reset: the conn can be had again, whole and
    clean, and was closed as often as it was opened."""

    async def once(count: int, native: bool, reset: str, how: dict[str, Any]) -> None:
        desk = Desk(capacity=2, survives_cancel=count % 3 == 0)
        pool = AsyncPool(
            timeout=TIMEOUT,
            connect_timeout=CONNECT,
            check_after=0,
            backoff=Backoff(first=0.01, jitter=0),
        )

        async def live() -> None:
            for _ in range(2):
                try:
                    await hold(pool, **how)
                except Exception:
                    await steps(1)

        async with pool, anyio.create_task_group() as group:
            await pool.init(desk, revive=True)
            desk.on_check, desk.on_lend, desk.on_reset = GOES[check], GOES[lend], GOES[reset]
            await cancel_after(count, native)(group, live)
            desk.behave()
            await whole(pool, 2)
            await hold_all(pool, 1)
        desk.audit()
        assert not desk.is_open

    async def story(count: int, native: bool) -> None:
        for reset in GOES:
            await once(count, native, reset, {})
        await once(count, native, "ok", {"shared": True})

    in_every_step(backend, story)


@pytest.mark.parametrize("shared", [False, True])
@on_both
def test_cancelled_in_line_at_each_step(backend: str, shared: bool) -> None:
    """While others come and go: whoever stands behind is served, and no place is lost."""

    async def story(count: int, native: bool) -> None:
        desk = Desk(capacity=2)
        pool = AsyncPool(timeout=None)
        async with pool, anyio.create_task_group() as group:
            await pool.init(desk, revive=True)
            first = start(group, hold, pool, 4)
            await steps(2)
            victim = cancel_after(count, native)
            behind = [start(group, hold, pool, 1, shared=shared) for _ in range(2)]
            await victim(group, lambda: hold(pool, 3, shared=shared))
            for one in (first, *behind):
                assert await one.end(within=1) is None
            await whole(pool, 2)
        desk.audit()

    in_every_step(backend, story, thorough=True)


@pytest.mark.parametrize("what", ["on_lend", "on_reset"])
@pytest.mark.parametrize("error", [OSError, ValueError], ids=["OSError", "ValueError"])
@on_both
def test_cancelled_while_another_is_looked_for(backend: str, what: str, error: Any) -> None:
    """Of several conns that fail one after the other, none is lost."""

    async def story(count: int, native: bool) -> None:
        desks = [Desk() for _ in range(3)]
        pool = AsyncPool(timeout=1, check_after=0, backoff=Backoff(first=0.01, jitter=0))
        async with pool, anyio.create_task_group() as group:
            for desk in desks:
                await pool.init(desk, revive=True)
                setattr(desk, what, fail(error))
                desk.on_check = fail(lambda: OSError("torn"))
                desk.on_init = lambda: steps(2)

            async def live() -> None:
                with contextlib.suppress(Exception):
                    await hold(pool)

            await cancel_after(count, native)(group, live)
            for desk in desks:
                desk.behave()
            await whole(pool, 3)
            await hold_all(pool, 3)
        for desk in desks:
            desk.audit()

    in_every_step(backend, story)


# -- in the tick of a hand-over ------------------------------------------------------------------


@pytest.mark.parametrize("survives", [False, True], ids=["dies", "survives"])
@in_every_way
def test_handed_over_and_cancelled_in_one_tick(backend: str, way: Way, survives: bool) -> None:
    """In every order: who waited sees the cancellation, and the next in line is served at once."""

    async def act(scene: Scene) -> None:
        async def holder() -> None:
            async with scene.pool.checkout("line"):
                await scene.gate.wait()

        async def victim() -> None:
            async with scene.pool.checkout("line"):
                await hang()

        start(scene.group, holder)
        await until(lambda: scene.pool.stats().now.in_use)
        waiting = await scene.collide(victim, scene.gate.set)
        following = scene.start("next")
        await waiting.end(within=2)
        assert (waiting.value, waiting.error) == (CUT, None)
        await scene.served_at_once(following)

    in_every_order(backend, way, act, survives=survives)


@in_every_way
def test_ended_and_cancelled_in_one_tick(backend: str, way: Way) -> None:
    """A block that ends by itself in the tick in which it is cancelled: the conn is back, or it
    was closed and is revived; either way the next in line has it at once."""
    seen = set()

    async def act(scene: Scene) -> None:
        async def victim() -> str:
            async with scene.pool.checkout("line"):
                await scene.gate.wait()
            return "ended"

        waiting = await scene.collide(victim, scene.gate.set)
        following = scene.start("next")
        await waiting.end(within=2)
        assert waiting.error is None
        seen.add(waiting.value)
        assert (scene.line.closes > 0) <= (waiting.value == CUT)
        await scene.served_at_once(following)

    in_every_order(backend, way, act)
    assert CUT in seen


# -- a crowd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 3])
@on_both
def test_1500_tasks_with_random_cancels(backend: str, capacity: int) -> None:
    """After that every slot can be had at once, and one after the other: none was lost."""
    slots = 5

    async def story() -> None:
        chance = random.Random(capacity)
        desks: list[Desk] = []
        pool = AsyncPool(timeout=None, connect_timeout=1.0)
        ended = 0

        def make() -> Desk:
            desks.append(Desk(capacity=capacity, survives_cancel=chance.random() < 0.5))
            desks[-1].on_init = desks[-1].on_reset = lambda: steps(chance.randint(0, 3))
            return desks[-1]

        async def live(lag: int, cancelled: int | None, shared: bool) -> None:
            nonlocal ended
            with anyio.CancelScope() as scope:
                if cancelled is not None:
                    group.start_soon(cancel_later, scope, cancelled)
                await steps(lag)
                await hold(pool, chance.randint(0, 3), shared=shared)
                ended += 1

        async def cancel_later(scope: anyio.CancelScope, lag: int) -> None:
            await steps(lag)
            scope.cancel()

        async with pool:
            await pool.supply("line", make, max_size=slots)
            async with anyio.create_task_group() as group:
                for number in range(1500):
                    cancelled = chance.randint(0, 300) if number % 3 else None
                    group.start_soon(live, chance.randint(0, 200), cancelled, chance.random() < 0.5)
            assert 500 <= ended < 1500
            await until(lambda: at_rest(pool), within=10)
            for _ in range(slots):  # the supply makes up for what was closed
                await hold(pool)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(slots):
                    await stack.enter_async_context(pool.checkout("line", timeout=5))
                assert len(pool) == slots
            await hold_all(pool, slots)
            assert pool.stats().now.waiting == 0
        for desk in desks:
            desk.audit()
            assert not desk.is_open

    run(backend, story)


@pytest.mark.parametrize("survives", [False, True])
@on_both
def test_a_block_that_outlives_the_pool(backend: str, survives: bool) -> None:
    """Cancelled or not, after the pool was left its conn is closed, once, and not reset."""

    async def story() -> None:
        for cancel in (False, True):
            desk = Desk(survives_cancel=survives)
            gate = anyio.Event()
            pool = AsyncPool(timeout=0)

            async def live() -> None:
                async with pool.checkout("line"):  # noqa: B023
                    await gate.wait()  # noqa: B023

            async with anyio.create_task_group() as group:
                async with pool:
                    await pool.init(desk)
                    holds = start(group, live)
                    await steps(3)
                    begun = now()
                assert (now() - begun, desk.closes) == (0, 1)
                desk.dirty = False
                if cancel:
                    holds.scope.cancel()
                gate.set()
                error = await holds.end()
                assert (error is not None) is cancel
                async with pool:
                    await pool.init(desk)
                    await hold_all(pool, 1)
            desk.audit()

    run(backend, story)
