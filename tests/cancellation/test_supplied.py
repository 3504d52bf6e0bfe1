"""Conns that the pool makes, asks and replaces by itself, while everybody may give up."""

from __future__ import annotations

import anyio
import pytest

from connpool import AsyncPool, Backoff, PoolTimeout

from .conns import Line, fail, fill_supply, hang, whole
from .loops import now, on_both, run, start, steps, until


async def suspected(pool: AsyncPool, *, revive: bool = True) -> Line:
    """A conn whose peer has died: it is being asked whether it is well, and its check hangs."""
    dying, line = Line(), Line()
    await pool.init(dying, revive=revive)
    await pool.init(line, revive=revive)
    dying.on_call = fail(lambda: OSError("torn"))
    line.on_check = hang
    with pytest.raises(OSError, match="torn"):
        await pool.call("line", "say", filter=lambda info: info.conn is dying)
    dying.behave()
    await until(lambda: [i.state for i in pool.infos(filter=lambda i: i.conn is line)] != ["ready"])
    return line


@on_both
def test_left_while_a_conn_is_asked(backend: str) -> None:
    """A check that hangs does not hold up the leaving for longer than the timeout, and says
    nothing of its own in the end."""

    async def story() -> None:
        async with AsyncPool(timeout=1.0, connect_timeout=100.0) as pool:
            line = await suspected(pool)
            begun = now()
        assert now() - begun <= 2
        line.audit()
        assert not line.is_open

    run(backend, story)


@pytest.mark.parametrize("revive", [False, True])
@on_both
def test_a_check_that_takes_too_long(backend: str, revive: bool) -> None:
    """The conn is closed, and only after that initialised again."""

    async def story() -> None:
        async with AsyncPool(connect_timeout=1.0) as pool:
            line = await suspected(pool, revive=revive)
            line.on_init = line.on_close = lambda: steps(5)
            await until(lambda: line.closes, within=1.1)
            line.behave()
            await whole(pool, 2 * revive)
        line.audit()
        assert (line.opens, line.closes) == (1 + revive, 1 + revive)

    run(backend, story)


@on_both
def test_a_pop_is_given_up_while_the_conn_is_asked(backend: str) -> None:
    """The conn goes on being asked, is not lent meanwhile, and serves again after that."""

    async def story() -> None:
        async with AsyncPool(timeout=None) as pool:
            line = await suspected(pool)
            [info] = pool.infos("line", filter=lambda info: info.conn is line)
            with pytest.raises(PoolTimeout):
                await pool.pop(info.id, timeout=1)
            assert pool.info(info.id).state == "checking"
            line.behave()
            await until(lambda: len(pool) == 2, within=20)
            await whole(pool, 2)
        line.audit()

    run(backend, story)


@pytest.mark.parametrize("failing", [1, 2, 3])
@on_both
def test_after_a_failure_everybody_is_served(backend: str, failing: int) -> None:
    """While openings fail one is tried at a time; when one has succeeded the others follow."""

    async def story() -> None:
        lines: list[Line] = []

        def make() -> Line:
            lines.append(Line())
            if len(lines) <= failing:
                lines[-1].on_init = fail(lambda: OSError("refused"))
            return lines[-1]

        async with AsyncPool(backoff=Backoff(first=1)) as pool:
            await pool.supply("line", make, min_size=1, max_size=4)
            await until(lambda: len(lines) == 1)
            await steps(9)
            await fill_supply(pool, "line", 4)
        for line in lines:
            line.audit()
            assert not line.is_open

    run(backend, story)


@on_both
def test_an_opening_outlives_the_caller_it_was_begun_for(backend: str) -> None:
    """Who is cancelled while a conn is opened for him leaves it to the next one."""

    async def story() -> None:
        for count in range(12):
            line = Line()
            line.on_init = line.on_methods = lambda: steps(3)
            async with AsyncPool() as pool, anyio.create_task_group() as group:
                await pool.supply("line", lambda: line, max_size=1)  # noqa: B023
                victim = start(group, pool.call, "line", "say", "victim")
                await steps(count)
                victim.scope.cancel()
                following = start(group, pool.call, "line", "say", "next")
                await following.end()
                assert following.value == "next"
            line.audit()
            assert not line.is_open

    run(backend, story)
