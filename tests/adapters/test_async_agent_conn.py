"""AsyncAgentConn, on its own and in an AsyncPool."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connpool import AsyncPool
from connpool.adapters.async_agent import AsyncAgent, AsyncAgentConn
from connpool.conn import AsyncConn, Reply, check_conn, describe
from connpool.errors import Busy, CallError, Closed, InitError, ResourceError

from . import soon

pytestmark = pytest.mark.anyio


def same(value: Any) -> Any:
    return value


def unasked(value: Any) -> Any:
    raise AssertionError("this function was not to be called")


@pytest.fixture
def agent() -> AsyncAgent[int]:
    """One that is made before there is an event loop, as it may be."""
    return AsyncAgent(42)


@asynccontextmanager
async def held(agent: AsyncAgent[Any]) -> AsyncIterator[None]:
    """Nobody's turn comes: no function can hold an agent, for a plain one holds the loop too."""
    async with agent._turn:
        yield


async def awaited(value: Any) -> Any:
    raise AssertionError("a function to be awaited")


# -- AsyncAgentConn


@pytest.fixture
async def conn() -> AsyncAgentConn:
    conn = AsyncAgentConn(42, resource="number")
    await conn.init()
    return conn


async def test_an_agent_conn_keeps_the_contract(conn: AsyncAgentConn) -> None:
    """It is an AsyncConn, and says of itself what a pool wants to know."""
    typed: AsyncConn[Any] = conn
    check_conn(typed, awaits=True)
    said = describe(conn, await conn.methods())
    assert said.resources == ("number",)
    assert said.methods == {"get", "get_and_update", "update", "stop"}
    assert said.capacity == 1
    assert conn.survives_cancel is True


async def test_calls_are_those_of_the_agent(conn: AsyncAgentConn) -> None:
    """The payload is a function; stop takes none and ends the conn in good order."""
    assert await conn.call("get", same) == 42
    assert await conn.call("update", lambda value: value + 1) is None
    assert await conn.call("get_and_update", lambda value: (value, 0)) == 43
    assert await conn.check()
    assert await conn.call("stop") == Reply(None, closed=True)
    assert not await conn.check()
    for method, payload in (("get", unasked), ("stop", None)):
        with pytest.raises(Closed):
            await conn.call(method, payload)


@pytest.mark.parametrize(
    ("method", "payload", "error"),
    [
        ("set", same, CallError),
        (["get"], same, CallError),
        ("get", None, TypeError),
        ("update", awaited, TypeError),
        ("stop", same, TypeError),
    ],
)
async def test_a_wrong_call(
    conn: AsyncAgentConn, method: Any, payload: Any, error: type[Exception]
) -> None:
    """It names what was expected, and the conn stays."""
    with pytest.raises(error, match="expected"):
        await conn.call(method, payload)
    assert await conn.call("get", same) == 42


@pytest.mark.parametrize("error", [ValueError("no"), CallError("no"), Busy(0.5)])
async def test_a_functions_error_reaches_the_caller(conn: AsyncAgentConn, error: Exception) -> None:
    """It comes as it is, and the conn stays."""

    def fail(_: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await conn.call("get", fail)
    assert caught.value is error
    assert await conn.call("get", same) == 42


@pytest.mark.parametrize("error", [TimeoutError("late"), EOFError("end"), Closed("elsewhere")])
async def test_a_functions_error_is_not_taken_for_the_agents(
    conn: AsyncAgentConn, error: Exception
) -> None:
    """What would tell a pool that the conn is lost comes as the cause of a CallError."""

    def fail(_: int) -> None:
        raise error

    with pytest.raises(CallError, match=str(error)) as caught:
        await conn.call("update", fail)
    assert caught.value.__cause__ is error


async def test_where_the_agent_comes_from(agent: AsyncAgent[int]) -> None:
    """A given agent is the resource unless one is named; init takes a source as well."""
    given, named, made = (
        AsyncAgentConn(agent),
        AsyncAgentConn(agent, resource="n"),
        AsyncAgentConn(),
    )
    assert (given.resource, named.resource, made.resource) == (agent, "n", None)
    with pytest.raises(TypeError, match="expected an AsyncAgent, a value or a callable"):
        await made.init()
    for source, value in ((agent, 42), (1, 1), (lambda: 2, 2), (None, None)):
        await made.init(source)
        assert await made.call("get", same) == value
        assert made.resource is made.agent
    await agent.stop()
    with pytest.raises(InitError, match="will not start again") as caught:
        await given.init()
    assert caught.value.retry_after == math.inf


async def test_close_ends_only_what_the_conn_made(agent: AsyncAgent[int]) -> None:
    """An agent that was given belongs to its giver; closing twice is fine, init starts afresh."""
    for conn, survives in ((AsyncAgentConn(agent), True), (AsyncAgentConn(42), False)):
        await conn.init()
        asked = conn.agent
        assert asked is not None
        await conn.close()
        await conn.close()
        assert asked.alive is survives
        assert "closed" in repr(conn)
        with pytest.raises(Closed, match="never initialised"):
            await conn.call("get", same)
        await conn.init()
        assert await conn.call("get", same) == 42


# -- in a pool


async def test_many_tasks_lose_no_update() -> None:
    """Each number is given out once, whichever conn asks."""
    got: list[int] = []
    agent = AsyncAgent(0)

    async def work() -> None:
        for _ in range(20):
            got.append(await pool.call("n", "get_and_update", lambda n: (n, n + 1)))

    async with AsyncPool() as pool:
        for _ in range(3):
            await pool.init(AsyncAgentConn(agent, resource="n"))
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(work)
    assert sorted(got) == list(range(160))
    assert agent.alive


async def test_calls_move_away_from_an_agent_that_has_stopped() -> None:
    """Those that stood in line had not happened: the other agent serves them, once each."""
    first, second = AsyncAgent(0), AsyncAgent(0)

    async def ask() -> None:
        await pool.call("n", "update", lambda n: n + 1)

    async with AsyncPool() as pool:
        for agent in (first, second):
            await pool.init(AsyncAgentConn(agent, resource="n"))
        async with anyio.create_task_group() as tasks, held(first), held(second):
            for _ in range(10):
                tasks.start_soon(ask)
            await soon(lambda: pool.stats().now.waiting == 8)
            first.close()
        assert len(pool) == 1
        assert await second.get(same) == 10


async def test_a_cancelled_call_keeps_its_conn(agent: AsyncAgent[int]) -> None:
    """The conn survives it, and serves the next caller."""
    scope = anyio.CancelScope()

    async def ask() -> None:
        with scope:
            await pool.call("n", "get", unasked)

    async with AsyncPool() as pool:
        number = await pool.init(AsyncAgentConn(agent, resource="n"))
        async with anyio.create_task_group() as tasks, held(agent):
            tasks.start_soon(ask)
            await soon(lambda: agent.waiting == 1)
            scope.cancel()
        assert number in pool
        assert await pool.call("n", "get", same) == 42


async def test_a_stopped_agent_leaves_the_pool_or_is_made_anew() -> None:
    """With revive="force" the next caller finds a fresh value."""
    async with AsyncPool() as pool:
        await pool.init(AsyncAgentConn(list, resource="once"))
        await pool.init(AsyncAgentConn(list, resource="again"), revive="force")
        for resource in ("once", "again"):
            await pool.call(resource, "update", lambda value: [*value, 1])
            assert await pool.call(resource, "stop") is None
        assert await pool.call("again", "get", same) == []
        with pytest.raises(ResourceError):
            await pool.call("once", "get", same)
