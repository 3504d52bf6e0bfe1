"""What becomes of a conn, and of those who come next, when a call on it is cut short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Busy, Closed

from .conns import Line, fail, slow, whole
from .loops import now, on_both, run, start, steps, until
from .ways import CUT, NAMES, WAYS, Moment, Way

in_every_way = pytest.mark.parametrize(("backend", "way"), WAYS, ids=NAMES)


async def cut(way: Way, doing: Callable[[], Awaitable[Any]], lag: int = 0) -> Any:
    """Do something, and cancel it a second from now and so many steps."""
    async with anyio.create_task_group() as group:
        return await way(doing, Moment(group, now() + 1, lag))


@pytest.mark.parametrize("survives", [False, None, 1, "yes", True])
@in_every_way
def test_a_conn_is_retired_unless_it_survives(backend: str, way: Way, survives: Any) -> None:
    """Only a `survives_cancel` that is True keeps a conn whose call was cut short."""

    async def story() -> None:
        line = Line(survives_cancel=survives)
        line.on_saying["cut"] = anyio.sleep_forever
        async with AsyncPool() as pool:
            id = await pool.init(line)
            assert await cut(way, lambda: pool.call("line", "say", "cut")) == CUT
            await steps(5)
            assert (id in pool) is (survives is True)
            assert line.closes == (survives is not True)
            assert pool.stats().since_start.ended.get("interrupted", 0) == line.closes
            await whole(pool, len(pool))
        line.audit()

    run(backend, story)


@pytest.mark.parametrize("survives", [False, True], ids=["dies", "survives"])
@in_every_way
def test_nobody_gets_the_reply_to_a_call_that_was_cut_short(
    backend: str, way: Way, survives: bool
) -> None:
    """A conn that answers like a pipe gives each of those who come next a reply of their own."""

    async def once(lag: int) -> None:
        line = Line(survives_cancel=survives)
        line.on_call = slow(5)
        async with AsyncPool() as pool, anyio.create_task_group() as group:
            await pool.init(line, revive=True)
            line.on_saying["cut"] = lambda: anyio.sleep(1)
            others = [start(group, pool.call, "line", "say", n) for n in range(3)]
            await until(lambda: line.inside)
            assert await cut(way, lambda: pool.call("line", "say", "cut"), lag) in {CUT, "cut"}
            others += [start(group, pool.call, "line", "say", n) for n in range(3, 6)]
            for number, other in enumerate(others):
                await other.end()
                assert other.value == number
            await whole(pool, 1)
        line.audit()

    async def story() -> None:
        for lag in range(12):
            await once(lag)

    run(backend, story)


@on_both
def test_a_moved_call_can_be_cut_short(backend: str) -> None:
    """A call that was moved, and waits for its second conn, leaves the line like any other."""

    async def story() -> None:
        for count in range(12):
            lines = [Line(survives_cancel=True) for _ in range(3)]
            async with AsyncPool() as pool, anyio.create_task_group() as group:
                for line in lines:
                    await pool.init(line, revive=True)
                    line.on_init = slow(2)
                    line.on_call = fail(lambda: Busy(1))
                lines[0].on_call = fail(Closed)
                victim = start(group, pool.call, "line", "say", "victim")
                await steps(count)
                victim.scope.cancel()
                await victim.end()
                assert victim.cancelled
                for line in lines:
                    line.behave()
                following = start(group, pool.call, "line", "say", "next")
                await following.end(within=2)
                assert following.value == "next"
                await until(lambda: pool.stats().now.cooling == 0, within=2)
                await whole(pool, 3)
            for line in lines:
                line.audit()

    run(backend, story)


@on_both
def test_a_call_that_had_not_begun_moves(backend: str) -> None:
    """Who was granted a place of a shared conn that is closed before he comes to use it is not
    called on it: he goes to another one."""

    async def story() -> None:
        line, other = Line(capacity=2), Line()
        async with AsyncPool(timeout=5) as pool, anyio.create_task_group() as group:
            id = await pool.init(line, extra="wanted")
            gates = {name: anyio.Event() for name in ("returns", "breaks", "other")}

            async def tear() -> None:
                await gates["breaks"].wait()
                raise OSError("torn")

            line.on_saying = {"returns": gates["returns"].wait, "breaks": tear}
            other.on_saying = {"other": gates["other"].wait}
            for count, name in enumerate(("returns", "breaks")):
                start(group, pool.call, "line", "say", name)
                await until(lambda: line.inside > count)  # noqa: B023
            await pool.init(other)
            start(group, pool.call, "line", "say", "other")
            await until(lambda: other.inside)
            waiting = start(group, pool.call, "line", "say", "waiting")
            await until(lambda: pool.stats().now.waiting)
            behind = start(group, pool.call, "line", "say", "behind")
            await until(lambda: pool.stats().now.waiting == 2)
            # Both ends in one step: the first grants the place, the second closes the conn.
            gates["returns"].set()
            gates["breaks"].set()
            await until(lambda: id not in pool)
            await steps(5)
            gates["other"].set()
            await waiting.end()
            await behind.end()
            assert (waiting.value, behind.value) == ("waiting", "behind")
            assert line.said == ["returns", "breaks"]
            assert other.said == ["other", "waiting", "behind"]
        line.audit()
        other.audit()

    run(backend, story)
