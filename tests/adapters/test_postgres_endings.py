"""The conns to PostgreSQL: what becomes of a call when its server, its wire or its caller fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import psycopg
import pytest

from connpool import Backoff, Closed
from connpool.adapters.postgres import AsyncPostgresConn, ConnectionLost, PostgresConn
from connpool.adapters.postgres_rules import Parameters
from connpool.testing import FaultProxy
from tests.servers.postgres import PostgresServer

from . import PATIENCE, eventually, soon
from .postgres_ways import WAYS, Other, Threads, Way, meanwhile

LONG = "select pg_sleep(600)"  # nobody waits that long: it is cut short, or the test fails
ALONE = "hung up or speaks unasked, nothing was sent"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def other(server: PostgresServer) -> Other:
    if not server.running:
        server.start()
    return Other(server)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, other: Other) -> Iterator[Way]:
    with request.param() as way:
        yield way


@pytest.fixture
def conn(way: Way, server: PostgresServer) -> Any:
    return way.opened(server.conninfo)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(*server.address) as proxy:
        yield proxy


def begun(other: Other, then: Callable[[int], object]) -> Callable[[], None]:
    """Once LONG runs: do something with its backend."""
    return lambda: (then(other.wait_running(LONG)), None)[1]


# -- the server ends


@pytest.mark.parametrize("at_once", [False, True])
def test_a_server_that_ended_while_the_conn_was_idle(
    way: Way, conn: Any, server: PostgresServer, at_once: bool
) -> None:
    """The call surely did not happen, and the conn can be initialised again."""
    server.stop(at_once=at_once)
    with pytest.raises(Closed, match=ALONE):
        way.do(conn.call, "execute", "create table lost ()")
    with pytest.raises(psycopg.OperationalError):
        way.do(conn.init)
    server.start()
    way.do(conn.init)
    assert way.do(conn.call, "fetchone", "select to_regclass('lost')") == (None,)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("method", "payload"), [("fetch", LONG), ("transaction", ["select 1", LONG])]
)
def test_a_server_that_ends_during_a_call(
    way: Way, server: PostgresServer, method: str, payload: Any, at_once: bool
) -> None:
    """The call may have happened, and the caller is told at once."""
    conn, other = way.opened(server.conninfo), Other(server)
    with (
        meanwhile(begun(other, lambda _: server.stop(at_once=at_once))),
        pytest.raises(ConnectionLost, match=f"during {method}, which may have been carri") as lost,
    ):
        way.do(conn.call, method, payload)
    assert isinstance(lost.value.__cause__, psycopg.Error)
    assert lost.value.sqlstate == lost.value.__cause__.sqlstate
    assert lost.value.sqlstate in ({"57P02", None} if at_once else {"57P01"})
    assert not way.do(conn.check)
    with pytest.raises(Closed):
        way.do(conn.call, "fetch", "select 1")


def test_a_session_that_is_ended_during_a_call(way: Way, conn: Any, other: Other) -> None:
    """To the conn it is all one whether the server ends, or just its session."""
    with meanwhile(begun(other, other.end)), pytest.raises(ConnectionLost) as lost:
        way.do(conn.call, "execute", LONG)
    assert lost.value.sqlstate == "57P01"
    assert not way.do(conn.check)


def test_a_query_that_somebody_cancels(way: Way, conn: Any, other: Other) -> None:
    """It is an error of the statement alone: the conn stays."""
    cancel = begun(other, lambda pid: other.fetch("select pg_cancel_backend(%s)", [pid]))
    with meanwhile(cancel), pytest.raises(psycopg.errors.QueryCanceled):
        way.do(conn.call, "fetch", LONG)
    assert way.do(conn.check)
    assert way.do(conn.call, "fetchone", "select 1") == (1,)


def test_a_statement_that_is_too_slow_for_the_server(way: Way, server: PostgresServer) -> None:
    """The server's own time limit is an error of the statement as well."""
    conn = way.opened(server.conninfo, options="-c statement_timeout=20")
    with pytest.raises(psycopg.errors.QueryCanceled):
        way.do(conn.call, "transaction", ["select 1", LONG])
    assert way.do(conn.call, "fetchone", "select 1") == (1,)


def test_a_server_that_tires_of_an_idle_conn(
    way: Way, server: PostgresServer, other: Other
) -> None:
    """It says so to nobody, and the next call finds out before it sends anything."""
    conn = way.opened(server.conninfo, options="-c idle_session_timeout=50")
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match=ALONE):
        way.do(conn.call, "fetch", "select 1")


# -- the wire fails


def test_a_reply_that_is_cut_short(
    way: Way, proxy: FaultProxy, server: PostgresServer, other: Other
) -> None:
    """The statement was carried out, once, and its caller gets an error."""
    other.fetch("create table if not exists counted (n int)")
    other.fetch("truncate counted")
    conn = way.opened(server.at(proxy.port))
    proxy.cut_after(1)
    with pytest.raises(ConnectionLost, match="which may have been carried out"):
        way.do(conn.call, "execute", "insert into counted values (1)")
    proxy.heal()
    eventually(lambda: other.fetch("select n from counted") == [(1,)])
    assert not way.do(conn.check)


def test_a_commit_whose_reply_is_lost(
    way: Way, proxy: FaultProxy, server: PostgresServer, other: Other
) -> None:
    """The worst of it: the caller is told that it may have happened, and it has."""
    other.fetch("create table if not exists counted (n int)")
    other.fetch("truncate counted")
    conn = way.opened(server.at(proxy.port))
    way.do(conn.call, "transaction", ["insert into counted values (1)"])
    before = proxy.answered
    way.do(conn.call, "transaction", ["insert into counted values (2)"])
    proxy.cut_after(proxy.answered - before - 1)
    with pytest.raises(ConnectionLost):
        way.do(conn.call, "transaction", ["insert into counted values (3)"])
    eventually(lambda: other.fetch("select n from counted order by n")[-1] == (3,))


@pytest.mark.parametrize("end", ["reset", "drop", "half_close"])
def test_a_wire_that_is_cut_while_idle(
    way: Way, proxy: FaultProxy, server: PostgresServer, end: str
) -> None:
    """However it ends, that is seen before anything is sent."""
    conn = way.opened(server.at(proxy.port))
    getattr(proxy, end)()
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match=ALONE):
        way.do(conn.call, "fetch", "select 1")


def test_a_reply_that_takes_too_long(way: Way, proxy: FaultProxy, server: PostgresServer) -> None:
    """The caller is told when its time is up; the late reply reaches nobody."""
    conn = way.opened(server.at(proxy.port), timeout=0.2)
    assert way.do(conn.call, "fetchone", "select 'early'") == ("early",)
    proxy.stall_after(0)
    with pytest.raises(TimeoutError, match=r"no reply to fetchone within 0\.2 s, it may have been"):
        way.do(conn.call, "fetchone", "select 'late'")
    proxy.heal()
    with pytest.raises(Closed, match="left unfit, nothing was sent"):
        way.do(conn.call, "fetchone", "select 'next'")
    assert not way.do(conn.check)
    way.do(conn.init)
    assert way.do(conn.call, "fetchone", "select 'next'") == ("next",)


def test_a_call_that_is_out_of_time_is_cancelled_on_the_server(
    way: Way, server: PostgresServer, other: Other
) -> None:
    """close sees to it, so that nobody's query runs on for hours."""
    conn = way.opened(server.conninfo, timeout=0.2)
    with pytest.raises(TimeoutError):
        way.do(conn.call, "transaction", ["select 1", LONG])
    other.wait_running(LONG)
    way.do(conn.close)
    other.wait_over(LONG)


def test_a_black_hole(
    way: Way, proxy: FaultProxy, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a ping, a reset nor a close waits for it without end."""
    monkeypatch.setattr(Parameters, "patience", 0.2)  # less than libpq would take
    conn = way.opened(server.at(proxy.port), ping=True, cancel_timeout=0.2)
    pg = way.do(conn.lend)
    way.do(pg.execute, "select 1")
    proxy.black_hole()
    began = time.monotonic()
    with pytest.raises(Closed, match="could not be reset"):
        way.do(conn.reset)
    way.do(conn.close)
    proxy.heal()
    way.do(conn.init)
    proxy.black_hole()
    with pytest.raises(TimeoutError, match=r"no answer to a ping within 0\.2 s"):
        way.do(conn.check)
    way.do(conn.close)
    assert time.monotonic() - began < PATIENCE / 2


def test_an_error_whose_rollback_finds_no_server(
    way: Way, proxy: FaultProxy, server: PostgresServer, other: Other
) -> None:
    """A transaction that cannot be rolled back is not left to the next caller."""
    conn = way.opened(server.at(proxy.port))
    before = proxy.answered
    with pytest.raises(psycopg.errors.DivisionByZero):
        way.do(conn.call, "transaction", ["select 1/0"])
    proxy.cut_after(proxy.answered - before - 16)  # of the 20 bytes in which it says "ROLLBACK"
    with pytest.raises(ConnectionLost, match="division by zero"):
        way.do(conn.call, "transaction", ["select 1/0"])
    assert not way.do(conn.check)


# -- the conn is closed, or its caller leaves


def test_a_close_wakes_a_call_in_another_thread(server: PostgresServer, other: Other) -> None:
    """Its caller gets an error, and the query is cancelled on the server."""
    conn = PostgresConn(server.conninfo)
    conn.init()
    with (
        meanwhile(begun(other, lambda _: conn.close())),
        pytest.raises((psycopg.errors.QueryCanceled, ConnectionLost)),
    ):
        conn.call("fetch", LONG)
    other.wait_over(LONG)
    assert not conn.check()


def test_a_close_wakes_a_call_that_waits_for_nothing(
    way: Way, proxy: FaultProxy, server: PostgresServer
) -> None:
    """Even where the server can no longer be reached to cancel anything."""
    conn = way.opened(server.at(proxy.port), cancel_timeout=0.1)
    proxy.black_hole()
    asked = proxy.asked

    def close() -> None:
        eventually(lambda: proxy.asked > asked)
        conn.close()

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await soon(lambda: proxy.asked > asked)
            await conn.close()

    async def call() -> None:
        with pytest.raises(ConnectionLost):
            await conn.call("fetch", "select 1")

    if isinstance(way, Threads):
        with meanwhile(close), pytest.raises(ConnectionLost):
            conn.call("fetch", "select 1")
    else:
        way.do(both)
    assert not way.do(conn.check)


def test_an_interrupt_during_a_call(server: PostgresServer, other: Other) -> None:
    """psycopg has the query cancelled; what the conn does then is its own."""
    conn = PostgresConn(server.conninfo)
    conn.init()
    me = threading.main_thread().ident
    assert me is not None

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with (
            meanwhile(begun(other, lambda _: signal.pthread_kill(me, signal.SIGINT))),
            pytest.raises(KeyboardInterrupt),
        ):
            conn.call("transaction", ["select 1", LONG])
    finally:
        signal.signal(signal.SIGINT, before)
    other.wait_over(LONG)
    with pytest.raises(Closed, match="left unfit"):  # in the midst of a transaction
        conn.call("fetch", "select 1")
    conn.close()


async def by_task(call: Any, begins: Callable[[], object]) -> None:
    """Cancel once, as asyncio does."""
    task = asyncio.ensure_future(call)
    await soon(begins)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_scope(call: Any, begins: Callable[[], object]) -> None:
    """Cancel again and again, as anyio does."""

    async def run() -> None:
        with scope:
            await call

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await soon(begins)
        scope.cancel()
    assert scope.cancelled_caught


async def by_timeout(call: Any, begins: Callable[[], object]) -> None:
    """Cancel by a time limit."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            task = asyncio.current_task()
            assert task is not None

            async def expire() -> None:
                await soon(begins)
                limit.reschedule(asyncio.get_running_loop().time())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(expire)
                await call


@pytest.mark.parametrize("cancel", [by_task, by_scope, by_timeout])
@pytest.mark.parametrize("method", ["fetch", "transaction"])
def test_a_cancelled_call(
    server: PostgresServer, other: Other, cancel: Any, method: str, caplog: Any
) -> None:
    """Its caller is let go at once; the conn is unfit, and its close cancels on the server."""

    async def main() -> None:
        conn = AsyncPostgresConn(server.conninfo)
        await conn.init()
        payload = ["select 1", LONG] if method == "transaction" else LONG
        await cancel(conn.call(method, payload), lambda: other.running(LONG))
        assert other.running(LONG)  # nobody was asked to end it so far
        assert not await conn.check()
        with pytest.raises(Closed, match="left unfit, nothing was sent"):
            await conn.call("fetch", "select 1")
        await conn.close()
        await anyio.to_thread.run_sync(other.wait_over, LONG)
        await conn.init()
        assert await conn.call("fetchone", "select 1") == (1,)
        await conn.close()

    asyncio.run(main())
    assert caplog.text == ""


def test_a_cancelled_close_closes_all_the_same(
    proxy: FaultProxy, server: PostgresServer, other: Other
) -> None:
    """It only no longer waits for the server to cancel what runs there."""

    async def main() -> None:
        conn = AsyncPostgresConn(server.at(proxy.port), timeout=0.1)
        await conn.init()
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            await conn.call("fetch", "select 1")
        with anyio.move_on_after(0.05) as scope:
            await conn.close()
        assert scope.cancelled_caught
        assert repr(conn).endswith("closed>")
        proxy.heal()
        await soon(lambda: proxy.connections == 0)

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(12))
def test_no_reply_reaches_another_caller(server: PostgresServer, other: Other, steps: int) -> None:
    """However early or late a call is cancelled, the next one gets its own reply or none."""

    async def main() -> None:
        conn = AsyncPostgresConn(server.conninfo)
        await conn.init()
        for number in range(20):
            task = asyncio.ensure_future(conn.call("fetchone", ("select %s::int", [number])))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await task == (number,)
            try:
                reply = await conn.call("fetchone", ("select %s::int", [-number]))
            except Closed:
                await conn.init()
            else:
                assert reply == (-number,)
        await conn.close()

    asyncio.run(main())


# -- in a pool


def test_a_server_that_died_unnoticed_costs_no_call(way: Way, server: PostgresServer) -> None:
    """Calls on conns that were lost while idle had not happened: they move, and are served."""

    async def play() -> None:
        pool = way.Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1))
        async with entered(pool):
            for _ in range(3):
                conn = way.Conn(server.conninfo, resource="db")
                await given(pool.init(conn, revive=True))
            server.stop()
            server.start()
            for number in range(6):
                reply = await given(pool.call("db", "fetchone", ("select %s::int", [number])))
                assert reply == (number,)
            assert pool.stats().since_start.moved >= 1

    asyncio.run(play())


def test_a_wrong_password_is_no_busy_loop(way: Way) -> None:
    """A supply waits as long as the conn says; its callers get the reason."""

    async def play() -> None:
        with PostgresServer(password="right") as server:
            pool = way.Pool(timeout=0.2)
            async with entered(pool):
                made = lambda: way.Conn(server.conninfo, password="wrong")  # noqa: E731
                await given(pool.supply("db", made, connect_timeout=math.inf))
                with pytest.raises(TimeoutError) as raised:
                    await given(pool.call("db", "fetch", "select 1"))
                assert "password authentication failed" in repr(raised.value.__cause__)

    asyncio.run(play())


async def given(value: Any) -> Any:
    """What a pool of either kind gives."""
    return await value if hasattr(value, "__await__") else value


@contextlib.asynccontextmanager
async def entered(pool: Any) -> Any:
    """The block of a pool of either kind."""
    if hasattr(pool, "__aenter__"):
        async with pool:
            yield
    else:
        with pool:
            yield
