"""What is delivered in the very tick in which its receiver is cancelled, in every order.

Each test lets both happen at one instant, each up to `LAGS` steps of the loop after it, and with
the deliverer asked first or last: so every order and every gap occurs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import pytest

from connpool import AsyncPool, Backoff, PoolClosed, PoolTimeout, ResourceError

from .conns import Line, fail, hang, whole
from .loops import Outcome, now, on_asyncio, on_both, run, start, steps, until
from .ways import CUT, NAMES, WAYS, Moment, Way

LAGS = 5

in_every_way = pytest.mark.parametrize(("backend", "way"), WAYS, ids=NAMES)
of_both_kinds = pytest.mark.parametrize("survives", [False, True], ids=["dies", "survives"])


class Scene:
    """A pool with one conn, on which the calls of a holder wait for `gate`, and those of the victim
    for ever."""

    def __init__(
        self, group: anyio.abc.TaskGroup, way: Way, order: tuple[int, int, bool], survives: bool
    ) -> None:
        self.group, self.way = group, way
        self.cancel_lag, self.lag, self.first = order
        self.pool = AsyncPool(timeout=None, backoff=Backoff(first=10))
        self.gate = anyio.Event()
        self.line = Line(survives_cancel=survives)
        self.line.on_saying = {"holder": self.gate.wait, "victim": hang}
        self.id = 0
        self.at = 0.0

    async def held(self) -> Outcome:
        """Somebody has the conn."""
        holder = self.start("holder")
        await until(lambda: self.line.inside)
        return holder

    def start(self, payload: str, **kwargs: Any) -> Outcome:
        """A call in a task of its own."""
        return start(self.group, self.pool.call, "line", "say", payload, **kwargs)

    async def collide(
        self, doing: Callable[[], Awaitable[Any]], deliver: Callable[[], Any]
    ) -> Outcome:
        """Somebody does this, and is cancelled at the instant at which that is delivered."""
        self.at = now() + 1
        if self.first:
            Moment(self.group, self.at, self.lag).then(deliver)
        moment = Moment(self.group, self.at, self.cancel_lag)
        victim = start(self.group, self.way, doing, moment)
        await steps(3)
        if not self.first:
            Moment(self.group, self.at, self.lag).then(deliver)
        return victim

    async def served_at_once(self, following: Outcome) -> None:
        """The next one gets a reply, the right one, and in the same tick."""
        await following.end()
        assert (following.value, following.error) == ("next", None)
        assert following.ended == self.at


Act = Callable[[Scene], Awaitable[None]]


def in_every_order(backend: str, way: Way, act: Act, *, survives: bool = True) -> None:
    """Play a scene in every order; each time every place can be had afterwards."""

    async def once(order: tuple[int, int, bool]) -> None:
        async with anyio.create_task_group() as group:
            scene = Scene(group, way, order, survives)
            async with scene.pool:
                scene.id = await scene.pool.init(scene.line, revive=True)
                await act(scene)
                scene.line.behave()
                await whole(scene.pool, len(scene.pool.infos()))
            scene.line.audit()
            assert not scene.line.is_open

    async def story() -> None:
        for order in itertools.product(range(LAGS), range(LAGS), (False, True)):
            await once(order)

    run(backend, story)


@of_both_kinds
@in_every_way
def test_a_place_comes_back(backend: str, way: Way, survives: bool) -> None:
    """Who waited for it sees the cancellation, and the next in line gets the place."""

    async def act(scene: Scene) -> None:
        await scene.held()
        victim = await scene.collide(
            lambda: scene.pool.call("line", "say", "victim"), scene.gate.set
        )
        following = scene.start("next")
        await victim.end(within=2)
        assert (victim.value, victim.error) == (CUT, None)
        await scene.served_at_once(following)

    in_every_order(backend, way, act, survives=survives)


@of_both_kinds
@in_every_way
def test_a_place_is_granted_by_somebody_else(backend: str, way: Way, survives: bool) -> None:
    """The same where no call has ended, but the conn has come to pass the filter."""

    async def act(scene: Scene) -> None:
        pool = scene.pool
        release = await hold_another(scene.group, pool)
        victim = await scene.collide(
            lambda: pool.call("line", "say", "victim", filter=wanted),
            lambda: pool.extra(scene.id, "wanted"),
        )
        following = scene.start("next", filter=wanted)
        await victim.end(within=2)
        assert (victim.value, victim.error) == (CUT, None)
        await scene.served_at_once(following)
        release()

    in_every_order(backend, way, act, survives=survives)


def wanted(info: Any) -> bool:
    """A filter."""
    return bool(info.extra == "wanted")


async def hold_another(group: anyio.abc.TaskGroup, pool: AsyncPool) -> Callable[[], None]:
    """Add a conn that passes the filter, and keep it in use until what this gives is called."""
    gate, line = anyio.Event(), Line()
    line.on_saying["holder"] = gate.wait
    await pool.init(line, extra="wanted")
    start(group, pool.call, "line", "say", "holder", filter=wanted)
    await until(lambda: line.inside)
    return gate.set


@of_both_kinds
@in_every_way
def test_a_reply_comes(backend: str, way: Way, survives: bool) -> None:
    """The caller gets it or sees the cancellation, and the next one gets a reply of its own."""
    seen = set()

    async def act(scene: Scene) -> None:
        scene.line.on_saying["victim"] = scene.gate.wait
        victim = await scene.collide(
            lambda: scene.pool.call("line", "say", "victim"), scene.gate.set
        )
        following = scene.start("next")
        await victim.end(within=2)
        assert victim.error is None
        assert victim.value in {CUT, "victim"}
        seen.add(victim.value)
        await scene.served_at_once(following)
        interrupted = scene.pool.stats().since_start.ended.get("interrupted", 0)
        assert interrupted == (victim.value == CUT and not survives)

    in_every_order(backend, way, act, survives=survives)
    assert CUT in seen


@in_every_way
def test_the_pools_own_timeout_ends_too(backend: str, way: Way) -> None:
    """Place, timeout and cancellation in one tick: the next one in line gets the place."""

    async def act(scene: Scene) -> None:
        await scene.held()
        victim = await scene.collide(
            lambda: scene.pool.call("line", "say", "victim", timeout=1), scene.gate.set
        )
        following = scene.start("next")
        await victim.end(within=2)
        assert victim.value == CUT or isinstance(victim.error, PoolTimeout)
        await scene.served_at_once(following)

    in_every_order(backend, way, act)


@in_every_way
def test_the_last_hope_dies(backend: str, way: Way) -> None:
    """Who waits for a conn that is given up sees the cancellation, or that none is left."""

    async def act(scene: Scene) -> None:
        await scene.held()
        scene.line.on_saying["holder"] = hang
        victim = await scene.collide(
            lambda: scene.pool.call("line", "say", "victim"),
            lambda: start(scene.group, scene.pool.pop, scene.id),
        )
        await victim.end(within=2)
        assert victim.value == CUT or isinstance(victim.error, ResourceError)
        scene.gate.set()
        await until(lambda: not scene.pool.infos() and not scene.line.inside)
        await scene.line.close()

    in_every_order(backend, way, act)


@in_every_way
def test_the_pool_is_closed(backend: str, way: Way) -> None:
    """Who waits sees the cancellation, or that the pool was closed."""

    async def act(scene: Scene) -> None:
        await scene.held()
        victim = await scene.collide(
            lambda: scene.pool.call("line", "say", "victim"),
            lambda: start(scene.group, scene.pool.close, 1),
        )
        await victim.end(within=2)
        assert victim.value == CUT or isinstance(victim.error, PoolClosed)
        scene.gate.set()
        await until(lambda: not scene.line.is_open)

    in_every_order(backend, way, act)


@in_every_way
def test_the_block_is_left(backend: str, way: Way) -> None:
    """Who waits for a conn that is being revived sees the cancellation, or that the pool closed."""
    seen = set()

    async def once(cancel_lag: int, lag: int) -> None:
        async with anyio.create_task_group() as group:
            scene = Scene(group, way, (cancel_lag, lag, True), True)
            async with scene.pool:
                await scene.pool.init(scene.line, revive=True)
                scene.line.on_call = scene.line.on_init = fail(lambda: OSError("torn"))
                with pytest.raises(OSError, match="torn"):
                    await scene.pool.call("line", "say")
                await steps(9)
                victim = await scene.collide(
                    lambda: scene.pool.call("line", "say", "victim"), scene.gate.set
                )
                await scene.gate.wait()
            await victim.end(within=2)
            assert victim.value == CUT or isinstance(victim.error, PoolClosed)
            seen.add(victim.value)
        scene.line.audit()
        assert not scene.line.is_open

    async def story() -> None:
        for lags in itertools.product(range(LAGS), range(LAGS)):
            await once(*lags)

    run(backend, story)
    assert CUT in seen


@in_every_way
def test_an_init_ends(backend: str, way: Way) -> None:
    """Who adds a conn has added it, or sees the cancellation and the conn is closed again."""
    seen = set()

    async def act(scene: Scene) -> None:
        line = Line()
        line.on_init = line.on_methods = scene.gate.wait
        adding = await scene.collide(lambda: scene.pool.init(line), scene.gate.set)
        await adding.end(within=2)
        await steps(9)
        seen.add(adding.value == CUT)
        assert line.is_open is (adding.value != CUT)
        assert len(scene.pool) == 1 + line.is_open
        line.audit()

    in_every_order(backend, way, act)
    assert True in seen


@in_every_way
def test_a_pop_is_done(backend: str, way: Way) -> None:
    """Who takes a conn out has it, or sees the cancellation and the conn is still in the pool."""

    async def act(scene: Scene) -> None:
        await scene.held()
        taking = await scene.collide(lambda: scene.pool.pop(scene.id), scene.gate.set)
        await taking.end(within=2)
        await steps(9)
        if taking.value is scene.line:
            assert scene.id not in scene.pool
            await scene.line.close()
        else:
            assert taking.value == CUT
            assert scene.id in scene.pool, "neither the caller nor the pool has the conn"

    in_every_order(backend, way, act)


@pytest.mark.parametrize("cancel_first", [False, True])
@on_both
def test_a_place_that_is_handed_on_and_on(backend: str, cancel_first: bool) -> None:
    """Each of ten waiters is cancelled in the step in which it is granted the place; the last one
    gets it, at once."""

    async def story() -> None:
        async with AsyncPool(timeout=None) as pool, anyio.create_task_group() as group:
            line = Line()
            line.on_saying["victim"] = hang
            id = await pool.init(line, revive=True)
            release = await hold_another(group, pool)
            victims, cancels = [], []
            for _ in range(10):
                victim, cancel = cancellable(group, pool)
                victims.append(victim)
                cancels.append(cancel)
                await steps(2)
            last = start(group, pool.call, "line", "say", "last", filter=wanted)
            await steps(2)
            assert pool.stats().now.waiting == 11
            for cancel in cancels[: 10 * cancel_first]:
                cancel()
            pool.extra(id, "wanted")
            for cancel in cancels:
                cancel()
            await last.end()
            assert last.value == "last"
            assert all(victim.cancelled for victim in victims)
            release()
            await whole(pool, 2)
        line.audit()

    run(backend, story)


def cancellable(group: anyio.abc.TaskGroup, pool: AsyncPool) -> tuple[Outcome, Callable[[], Any]]:
    """A waiter, and what cancels it in this very step."""
    if not on_asyncio():
        outcome = start(group, pool.call, "line", "say", "victim", filter=wanted)
        return outcome, outcome.scope.cancel
    outcome = Outcome()
    task = asyncio.ensure_future(
        outcome.keep(lambda: pool.call("line", "say", "victim", filter=wanted))
    )
    return outcome, task.cancel
