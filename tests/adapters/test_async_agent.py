"""AsyncAgent: whoever asks is answered, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connpool.adapters.async_agent import AsyncAgent
from connpool.errors import Closed

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


async def test_requests_are_answered(agent: AsyncAgent[int]) -> None:
    """get replies, update changes the value, get_and_update does both."""
    assert await agent.get(lambda value: value + 1) == 43
    assert await agent.get(same) == 42
    await agent.update(lambda value: value - 2)
    assert await agent.get_and_update(lambda value: (f"was {value}", 0)) == "was 40"
    assert await agent.get(same) == 0


@pytest.mark.parametrize("wrong", [None, 1, (1,), (1, 2, 3), [1, 2]])
async def test_get_and_update_wants_a_pair(agent: AsyncAgent[int], wrong: Any) -> None:
    """Anything but a pair is a TypeError for the caller, and the value stays."""
    with pytest.raises(TypeError, match="expected the pair"):
        await agent.get_and_update(lambda _: wrong)
    assert await agent.get(same) == 42


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no")])
@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
async def test_an_error_reaches_the_caller(
    agent: AsyncAgent[int], method: str, error: Exception
) -> None:
    """A function that raises harms neither the value nor the agent."""

    def fail(_: int) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        await getattr(agent, method)(fail)
    assert caught.value is error
    assert await agent.get(same) == 42


async def awaited(value: Any) -> Any:
    raise AssertionError("a function to be awaited")


@pytest.mark.parametrize("wrong", [1, None, awaited])
@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
async def test_a_request_is_a_plain_function(
    agent: AsyncAgent[int], method: str, wrong: Any
) -> None:
    """Anything else is refused, a coroutine function too."""
    with pytest.raises(TypeError, match=f"{method}: expected a function"):
        await getattr(agent, method)(wrong)


async def test_a_callable_makes_the_value() -> None:
    """It is called once; its error is raised by AsyncAgent()."""
    assert await AsyncAgent(list).get(same) == []
    with pytest.raises(ZeroDivisionError):
        AsyncAgent(lambda: 1 // 0)
    with pytest.raises(TypeError, match="initial: expected a function"):
        AsyncAgent(awaited)


async def test_requests_are_served_in_order_of_arrival() -> None:
    """Whatever the event loop makes of it."""
    agent = AsyncAgent(list[int])
    arrived: list[int] = []

    async def ask(number: int) -> None:
        arrived.append(number)
        await agent.update(lambda served: [*served, number])

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(ask, number)
    assert len(arrived) == 50
    assert await agent.get(same) == arrived


@pytest.mark.parametrize("last", range(0, 20, 3))
async def test_stop_takes_its_turn(last: int) -> None:
    """Requests before a stop are served, those behind it raise Closed and are not run."""
    agent = AsyncAgent(0)
    arrived: list[int] = []
    served: list[int] = []
    refused: list[int] = []

    async def ask(number: int) -> None:
        arrived.append(number)
        try:
            if number == last:
                await agent.stop()
            served.append(await agent.get(lambda _: number))
        except Closed:
            refused.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, number)
    place = arrived.index(last)
    assert served == arrived[:place]
    assert set(refused) == set(arrived[place:])
    assert not agent.alive
    assert "stopped" in repr(agent)


@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
async def test_a_request_after_stop_did_not_happen(agent: AsyncAgent[int], method: str) -> None:
    """It raises Closed, and its function is never called; nor does a second stop happen."""
    await agent.stop()
    with pytest.raises(Closed, match="has stopped"):
        await getattr(agent, method)(unasked)
    with pytest.raises(Closed):
        await agent.stop()


async def test_close_turns_away_those_in_line(agent: AsyncAgent[int]) -> None:
    """It may be called again, and says nothing of an agent that has stopped."""
    refused: list[Closed] = []

    async def ask() -> None:
        with pytest.raises(Closed) as caught:
            await agent.get(unasked)
        refused.append(caught.value)

    async with anyio.create_task_group() as tasks, held(agent):
        for _ in range(3):
            tasks.start_soon(ask)
        await soon(lambda: agent.waiting == 3)
        agent.close()
        agent.close()
    assert len(refused) == 3


async def test_a_function_may_close_its_own_agent(agent: AsyncAgent[int]) -> None:
    """The caller of such a function still gets its reply."""

    def close(value: int) -> int:
        agent.close()
        return value

    assert await agent.get(close) == 42
    assert not agent.alive


async def test_a_block_closes_its_agent() -> None:
    """Also where it ends with an error."""
    agent = AsyncAgent(42)
    with pytest.raises(ZeroDivisionError):
        async with agent:
            await agent.get(lambda value: value // 0)
    assert not agent.alive


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_request_was_not_run(agent: AsyncAgent[int], steps: int) -> None:
    """Whenever it is cancelled: either its caller has the reply, or its function was not run."""
    ran: list[int] = []
    told: list[int] = []
    scope = anyio.CancelScope()

    def run(value: int) -> int:
        ran.append(value)
        return value

    async def ask() -> None:
        with scope:
            told.append(await agent.get(run))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    assert ran == told
    assert await agent.get(same) == 42


@pytest.mark.parametrize("steps", range(6))
def test_a_request_cancelled_by_asyncio_itself_was_not_run(steps: int) -> None:
    """The same holds for a task's own cancel, which does not stop at a shield."""

    async def main() -> None:
        ran: list[int] = []
        agent = AsyncAgent(42)
        asking = [asyncio.create_task(agent.get(ran.append)) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        asking[1].cancel()
        await asyncio.wait(asking)
        assert len(ran) == 3 - asking[1].cancelled()
        assert await agent.get(same) == 42

    asyncio.run(main())


async def test_a_cancelled_request_leaves_the_line(agent: AsyncAgent[int]) -> None:
    """Those behind it move up."""
    scope = anyio.CancelScope()

    async def ask() -> None:
        with scope:
            await agent.get(unasked)

    async with anyio.create_task_group() as tasks, held(agent):
        tasks.start_soon(ask)
        await soon(lambda: agent.waiting == 1)
        tasks.start_soon(agent.update, lambda value: value + 1)
        await soon(lambda: agent.waiting == 2)
        scope.cancel()
        await soon(lambda: agent.waiting == 1)
    assert await agent.get(same) == 43


class Thing:
    pass


@pytest.mark.parametrize("ends", ["stop", "close"])
async def test_an_agent_that_has_ended_lets_go_of_its_value(ends: str) -> None:
    """It goes when nobody else has it, as it would with a task."""
    agent = AsyncAgent(Thing())
    thing = await agent.get(weakref.ref)
    assert thing() is not None
    if ends == "stop":
        await agent.stop()
    else:
        agent.close()
    gc.collect()
    assert thing() is None
