"""AsyncTextConn in an AsyncPool: what becomes of calls when a server dies or a caller leaves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from connpool import AsyncPool, Backoff
from connpool.adapters.async_text import AsyncTextConn
from connpool.adapters.text_wire import Inbox, ReplyLost, Request

from . import PATIENCE, soon
from .ledger import Ledger
from .tasks import Call

pytestmark = pytest.mark.anyio

TASKS = 8
CONNS = 3
KILLS = 5


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as ledger:
        yield ledger


def new_pool() -> AsyncPool:
    return AsyncPool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1))


async def connect(pool: AsyncPool, address: Any) -> int:
    """One more conn to a server, revived when it is lost."""
    conn = AsyncTextConn(*address, resource="ledger", timeout=PATIENCE)
    return await pool.init(conn, revive=True)


def start(tasks: TaskGroup, pool: AsyncPool, method: str, payload: str) -> Call:
    call = Call()
    tasks.start_soon(call.run, pool.call, "ledger", method, payload)
    return call


async def line_up(tasks: TaskGroup, pool: AsyncPool, method: str) -> dict[str, Call]:
    """Calls that wait in line, in order, by their payloads."""
    calls: dict[str, Call] = {}
    while len(calls) < TASKS - 1:
        payload = f"line-{len(calls)}"
        calls[payload] = start(tasks, pool, method, payload)
        await soon(lambda: pool.stats().now.waiting == len(calls))
    return calls


async def kill(ledger: Ledger) -> None:
    """Kill the server while the tasks run on; when it returns, the books are final."""
    await anyio.to_thread.run_sync(ledger.server.kill, PATIENCE)


async def wait_for_replies(ledger: Ledger, more: int) -> None:
    """Until so many more have come."""
    enough = len(ledger.replied) + more
    await soon(lambda: len(ledger.replied) >= enough)


async def test_a_killed_server_loses_and_doubles_no_call(ledger: Ledger) -> None:
    """Calls in the line move; those in flight, and no others, get an error that says so."""
    over = anyio.Event()

    async def work() -> None:
        while not over.is_set():
            token = ledger.token()
            try:
                ledger.reply(token, await pool.call("ledger", "DO", token))
            except OSError as error:
                ledger.loss(token, error)

    async with new_pool() as pool:
        for _ in range(CONNS):
            await connect(pool, ledger.server.address)
        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(work)
            for _ in range(KILLS):
                await wait_for_replies(ledger, 40)
                await kill(ledger)
                ledger.server.start()
            over.set()
    await kill(ledger)
    ledger.balance()
    assert len(ledger.lost) <= CONNS * KILLS


async def test_the_line_outlives_the_server(ledger: Ledger) -> None:
    """The call in flight fails; those behind it are served in order once the server is back."""
    async with new_pool() as pool, anyio.create_task_group() as tasks:
        await connect(pool, ledger.server.address)
        held = start(tasks, pool, "HOLD", "held")
        await soon(ledger.held.is_set)
        calls = await line_up(tasks, pool, "DO")
        ledger.server.kill(wait=0)
        await held.over.wait()
        assert isinstance(held.error, ReplyLost)
        assert "may have been carried out" in str(held.error)
        assert pool.stats().now.waiting == len(calls)
        assert ledger.done == []
        ledger.server.start()
        for call in calls.values():
            await call.over.wait()
        assert [call.reply for call in calls.values()] == list(calls)
        assert ledger.done == list(calls)
        ledger.over.set()
        await soon(lambda: ledger.done[-1] == "held")  # it was carried out, as the error said


async def test_the_line_moves_to_another_server(ledger: Ledger) -> None:
    """A call that stands in line when one server dies is served by the other, and there only."""
    with Ledger() as other:
        async with new_pool() as pool, anyio.create_task_group() as tasks:
            await connect(pool, ledger.server.address)
            first = start(tasks, pool, "HOLD", "first")
            await soon(ledger.held.is_set)
            await connect(pool, other.server.address)
            start(tasks, pool, "HOLD", "second")
            await soon(other.held.is_set)
            calls = await line_up(tasks, pool, "DO")
            ledger.server.kill(wait=0)
            await first.over.wait()
            assert isinstance(first.error, ReplyLost)
            other.over.set()
        assert [call.reply for call in calls.values()] == list(calls)
        assert other.done == ["second", *calls]
        assert ledger.done == []


async def test_a_server_that_died_unnoticed_costs_no_call(ledger: Ledger) -> None:
    """Calls on conns that were lost while idle had not happened: they move, and all are served."""
    async with new_pool() as pool:
        for _ in range(CONNS):
            await connect(pool, ledger.server.address)
        await kill(ledger)
        ledger.server.start()
        for _ in range(2 * CONNS):
            token = ledger.token()
            ledger.reply(token, await pool.call("ledger", "DO", token))
        assert 0 < pool.stats().since_start.moved <= CONNS
    await kill(ledger)
    ledger.balance()


# -- callers that leave


class Halves:
    """A server that sends the first half of a reply to SAY, then waits for `over`, each time."""

    def __init__(self) -> None:
        self.halves = 0  # sent so far
        self.over = anyio.Event()

    async def serve(self, client: SocketStream) -> None:
        inbox = Inbox()
        async with client:
            try:
                while True:
                    for message in inbox.feed(await client.receive()):
                        assert isinstance(message, Request)
                        await self._answer(client, message)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    async def _answer(self, client: SocketStream, request: Request) -> None:
        if request.command == "COMMANDS":
            await client.send(b"ok:SAY\n")
            return
        line = f"ok:{request.args}\n".encode()
        await client.send(line[: len(line) // 2])
        self.halves += 1
        await self.over.wait()
        await client.send(line[len(line) // 2 :])


@asynccontextmanager
async def halves() -> AsyncIterator[tuple[Halves, AsyncPool]]:
    """The server, and a pool with one conn to it."""
    server = Halves()
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, server.serve)
        async with new_pool() as pool:
            await connect(pool, listener.extra(SocketAttribute.local_address))
            yield server, pool
        tasks.cancel_scope.cancel()


async def test_a_call_cancelled_in_mid_reply_leaves_no_reply_behind() -> None:
    """Those who waited behind it, and whoever comes later, get their own."""
    async with halves() as (server, pool), anyio.create_task_group() as tasks:
        first = start(tasks, pool, "SAY", "first")
        await soon(lambda: server.halves == 1)
        calls = await line_up(tasks, pool, "SAY")
        first.scope.cancel()
        await soon(lambda: server.halves == 2)  # the next one is being served, by a new connection
        server.over.set()
        for call in calls.values():
            await call.over.wait()
        assert first.reply is None
        assert [call.reply for call in calls.values()] == list(calls)
        assert await pool.call("ledger", "SAY", "later") == "later"
        assert pool.stats().since_start.ended == {"interrupted": 1}


async def test_a_pool_that_closes_under_a_call() -> None:
    """The caller is told that his call may have happened, and the pool does not wait for it."""
    async with halves() as (server, pool), anyio.create_task_group() as tasks:
        call = start(tasks, pool, "SAY", "first")
        await soon(lambda: server.halves == 1)
        await pool.close(timeout=0)
        await call.over.wait()
        assert isinstance(call.error, ReplyLost)
        assert "may have been carried out" in str(call.error)


async def test_calls_cancelled_anywhere_lose_and_double_nothing(ledger: Ledger) -> None:
    """In the line, before the request, before the reply: what is not cancelled gets its own."""
    steps = itertools.cycle(range(12))

    async def ask(token: str) -> None:
        with anyio.CancelScope() as scope:
            tasks.start_soon(leave, scope, next(steps))
            ledger.reply(token, await pool.call("ledger", "DO", token))
            return
        ledger.cancelled.append(token)

    async def leave(scope: anyio.CancelScope, after: int) -> None:
        for _ in range(after):
            await anyio.lowlevel.checkpoint()
        if after % 3:  # the others stay
            scope.cancel()

    async def work() -> None:
        for _ in range(15):
            await ask(ledger.token())

    async with new_pool() as pool:
        for _ in range(CONNS):
            await connect(pool, ledger.server.address)
        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(work)
    await kill(ledger)
    assert ledger.cancelled
    assert ledger.replied
    ledger.balance()
