"""The conns to PostgreSQL, checked out of a pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import psycopg
import pytest

from connpool import AsyncPool, Backoff, Pool, PoolTimeout
from connpool.adapters.postgres import AsyncPostgresConn, PostgresConn
from tests.servers.postgres import PostgresServer

from . import PATIENCE, eventually, soon
from .postgres_ways import Other

LONG = "select pg_sleep(600)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def other(server: PostgresServer) -> Other:
    other = Other(server)
    other.fetch("drop table if exists things")
    other.fetch("create table things (id int)")
    return other


@pytest.fixture
def pool(server: PostgresServer, other: Other) -> Iterator[Pool]:
    """With one conn."""
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        pool.init(PostgresConn(server.conninfo, resource="db"), revive=True)
        yield pool


def backend(pool: Pool) -> Any:
    """Which session the pool's conn has now."""
    return pool.call("db", "fetchone", "select pg_backend_pid()")


def test_a_borrower_has_the_connection_alone(pool: Pool) -> None:
    """What it gets is psycopg's own, and nobody else is served on it meanwhile."""
    before = backend(pool)
    with pool.checkout("db") as pg:
        assert isinstance(pg, psycopg.Connection)
        assert pg.execute("select pg_backend_pid()").fetchone() == before
        with pytest.raises(PoolTimeout), pool.checkout("db", timeout=0):
            pass
    assert backend(pool) == before


def test_what_was_not_committed_is_gone(pool: Pool, other: Other) -> None:
    """The block's end commits nothing; the conn is the same as before, and clean."""
    before = backend(pool)
    with pool.checkout("db") as pg:
        pg.execute("insert into things values (1)")
        pg.commit()
        pg.execute("insert into things values (2)")
    assert pool.call("db", "fetch", "select id from things") == [(1,)]
    with pytest.raises(psycopg.errors.DivisionByZero), pool.checkout("db") as pg:
        pg.execute("insert into things values (3)")
        pg.execute("select 1/0")
    assert other.fetch("select id from things") == [(1,)]
    assert backend(pool) == before


def test_a_conn_that_comes_back_unfit_is_replaced(pool: Pool) -> None:
    """The next borrower gets another session."""
    before = backend(pool)
    with pool.checkout("db") as pg:
        pg.close()
    with pool.checkout("db") as pg:
        assert pg.execute("select pg_backend_pid()").fetchone() != before


def test_a_session_that_ended_while_idle_is_never_lent(pool: Pool, other: Other) -> None:
    """A borrower gets one that lives, however lately the other was used."""
    for _ in range(3):
        other.end(backend(pool)[0])
        with pool.checkout("db") as pg:
            assert pg.execute("select 1").fetchone() == (1,)


def test_borrowers_and_callers_share_conns(server: PostgresServer, other: Other) -> None:
    """Money moved by transactions is neither made nor lost, whoever moves it, and how."""
    other.fetch("insert into things select 0 from generate_series(1, 10)")

    def work(number: int) -> None:
        for turn in range(20):
            if (number + turn) % 2:
                pool.call("db", "execute", "update things set id = id + 1")
            else:
                with pool.checkout("db") as pg:
                    pg.execute("update things set id = id + 1")
                    if turn % 4 < 2:
                        pg.commit()
                    else:
                        rolled_back.append(turn)

    rolled_back: list[int] = []
    with Pool(timeout=PATIENCE) as pool:
        for _ in range(3):
            pool.init(PostgresConn(server.conninfo, resource="db"))
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert other.fetch("select distinct id from things") == [(120 - len(rolled_back),)]


def test_the_same_in_tasks(server: PostgresServer, other: Other) -> None:
    """An AsyncPool lends a psycopg.AsyncConnection, and takes it back clean."""

    async def main() -> None:
        async with AsyncPool(timeout=PATIENCE) as pool:
            await pool.init(AsyncPostgresConn(server.conninfo, resource="db"), revive=True)
            async with pool.checkout("db") as pg:
                assert isinstance(pg, psycopg.AsyncConnection)
                await pg.execute("insert into things values (1)")
                await pg.commit()
                await pg.execute("insert into things values (2)")
            assert await pool.call("db", "fetch", "select id from things") == [(1,)]
            async with pool.checkout("db") as pg:
                other.end(pg.info.backend_pid)
            async with pool.checkout("db") as pg:
                cursor = await pg.execute("select 1")
                assert await cursor.fetchone() == (1,)

    asyncio.run(main())


def test_a_cancelled_borrower(server: PostgresServer, other: Other) -> None:
    """Whatever psycopg made of the cancellation, the next borrower gets a session that answers."""

    async def main() -> None:
        async with AsyncPool(timeout=PATIENCE) as pool:
            await pool.init(AsyncPostgresConn(server.conninfo, resource="db"), revive=True)

            async def borrow() -> None:
                async with pool.checkout("db") as pg:
                    with scope:
                        await pg.execute(LONG)

            for _ in range(3):
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(borrow)
                    await soon(lambda: other.running(LONG))
                    for pid in other.running(LONG):
                        assert pid
                    scope.cancel()
                async with pool.checkout("db") as pg:
                    cursor = await pg.execute("select 1")
                    assert await cursor.fetchone() == (1,)
                for pid in other.running(LONG):
                    other.end(pid)

    asyncio.run(main())
    eventually(lambda: not other.running(LONG))
