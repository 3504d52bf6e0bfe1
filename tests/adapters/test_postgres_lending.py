"""The conns to PostgreSQL, lent whole: what a borrower gets, and what the next one does not see."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, scalar_row

from connpool import Closed
from connpool.testing import FaultProxy
from tests.servers.postgres import PostgresServer

from .postgres_ways import WAYS, Asyncio, Other, Threads, Way


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"max_prepared_transactions": "2"}) as server:
        yield server


@pytest.fixture
def other(server: PostgresServer) -> Other:
    other = Other(server)
    other.fetch("drop table if exists things")
    other.fetch("create table things (id int)")
    return other


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, other: Other) -> Iterator[Way]:
    with request.param() as way:
        yield way


@pytest.fixture
def conn(way: Way, server: PostgresServer) -> Any:
    return way.opened(server.conninfo)


KINDS: dict[type[Way], Any] = {Threads: psycopg.Connection, Asyncio: psycopg.AsyncConnection}


# -- what a borrower gets


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_borrower_gets_the_psycopg_connection(
    way: Way, server: PostgresServer, autocommit: bool
) -> None:
    """In the mode that was asked for, whatever calls came before; and calls go on afterwards."""
    conn = way.opened(server.conninfo, autocommit=autocommit)
    for _ in range(2):
        assert way.do(conn.call, "transaction", ["select 1"]) == [[(1,)]]
        pg = way.do(conn.lend)
        assert isinstance(pg, KINDS[type(way)])
        assert pg.autocommit is autocommit
        assert way.do(way.do(pg.execute, "select 2").fetchone) == (2,)
        way.do(conn.reset)
        assert way.do(conn.call, "execute", "vacuum things") == -1  # not in a transaction


def test_what_was_not_committed_is_rolled_back(way: Way, conn: Any, other: Other) -> None:
    """And what was committed stays."""
    pg = way.do(conn.lend)
    way.do(pg.execute, "insert into things values (1)")
    way.do(pg.commit)
    way.do(pg.execute, "insert into things values (2)")
    way.do(conn.reset)
    assert other.fetch("select id from things") == [(1,)]
    assert way.do(conn.call, "fetch", "select id from things") == [(1,)]


def test_a_transaction_that_failed_is_rolled_back(way: Way, conn: Any) -> None:
    """The next borrower does not find a session that refuses everything."""
    pg = way.do(conn.lend)
    with pytest.raises(psycopg.errors.UndefinedTable):
        way.do(pg.execute, "table nowhere")
    way.do(conn.reset)
    pg = way.do(conn.lend)
    assert way.do(way.do(pg.execute, "select 1").fetchone) == (1,)


def test_a_clean_connection_costs_nothing(way: Way, server: PostgresServer) -> None:
    """Nothing is sent where there is nothing to roll back."""
    with FaultProxy(*server.address) as proxy:
        conn = way.opened(server.at(proxy.port))
        asked = proxy.asked
        for _ in range(3):
            way.do(conn.lend)
            assert way.do(conn.check)
            way.do(conn.reset)
        pg = way.do(conn.lend)
        way.do(pg.set_autocommit, True)
        way.do(conn.reset)
        assert proxy.asked == asked


def test_what_a_borrower_set_is_as_before(way: Way, server: PostgresServer) -> None:
    """On the connection object, that is; it is as the conn was told to make it."""
    conn = way.opened(server.conninfo, row_factory=scalar_row, prepare_threshold=3)
    pg = way.do(conn.lend)
    cursor = pg.cursor_factory
    way.do(pg.set_autocommit, True)
    way.do(pg.set_isolation_level, psycopg.IsolationLevel.SERIALIZABLE)
    way.do(pg.set_read_only, True)
    way.do(pg.set_deferrable, False)
    pg.row_factory, pg.prepare_threshold, pg.prepared_max = dict_row, None, 7
    pg.cursor_factory = psycopg.ClientCursor
    way.do(conn.reset)
    assert way.do(conn.call, "fetch", "select 1") == [1]
    pg = way.do(conn.lend)
    assert not pg.autocommit
    assert (pg.isolation_level, pg.read_only, pg.deferrable) == (None, None, None)
    assert (pg.row_factory, pg.cursor_factory) == (scalar_row, cursor)
    assert (pg.prepare_threshold, pg.prepared_max) == (3, 100)


@pytest.mark.parametrize("discard_all", [False, True])
def test_what_a_session_remembers(way: Way, server: PostgresServer, discard_all: bool) -> None:
    """Settings, temporary tables and locks outlive a borrower, unless all is to be discarded."""
    conn = way.opened(server.conninfo, discard_all=discard_all)
    pg = way.do(conn.lend)
    for statement in (
        "set application_name = 'mine'",
        "create temporary table mine (n int)",
        "select pg_advisory_lock(17)",
        "listen mine",
    ):
        way.do(pg.execute, statement)
    way.do(pg.commit)
    way.do(conn.reset)
    left = """
        select current_setting('application_name'), to_regclass('mine') is null,
               (select count(*) from pg_locks where locktype = 'advisory'
                and pid = pg_backend_pid()),
               (select count(*) from pg_listening_channels())
    """
    clean = ("connpool", True, 0, 0)
    assert way.do(conn.call, "fetchone", left) == (clean if discard_all else ("mine", False, 1, 1))


def test_discarding_keeps_step_with_psycopg(way: Way, server: PostgresServer) -> None:
    """What psycopg has prepared is discarded as well, and it knows; again and again."""
    conn = way.opened(server.conninfo, discard_all=True, prepare_threshold=1)
    for number in range(9):
        pg = way.do(conn.lend)
        for _ in range(3):
            cursor = way.do(pg.execute, "select %s::int", [number])
            assert way.do(cursor.fetchone) == (number,)
        way.do(conn.reset)
        assert way.do(conn.call, "fetchone", "select count(*) from pg_prepared_statements") == (0,)


# -- what comes back unfit


def stream(way: Way, pg: Any) -> Any:
    """A reader that has not come to its end."""
    rows = pg.cursor().stream("select generate_series(1, 100000)")
    assert way.do(next if isinstance(way, Threads) else anext, rows) == (1,)
    return rows


def notifies(way: Way, pg: Any) -> Any:
    """A listener that still listens."""
    way.do(pg.set_autocommit, True)
    way.do(pg.execute, "listen news")
    way.do(pg.execute, "notify news, 'extra'")
    news = pg.notifies()
    assert way.do(next if isinstance(way, Threads) else anext, news).payload == "extra"
    return news


def copy(way: Way, pg: Any) -> Any:
    """Half a copy."""
    copying = pg.cursor().copy("copy things from stdin")
    way.do(copying.__enter__ if isinstance(way, Threads) else copying.__aenter__)
    return copying.gen


def pipeline(way: Way, pg: Any) -> Any:
    """A pipeline that was never left."""
    lines = pg.pipeline()
    way.do(lines.__enter__ if isinstance(way, Threads) else lines.__aenter__)
    return lines


def transaction(way: Way, pg: Any) -> Any:
    """A block that was never left."""
    block = pg.transaction()
    way.do(block.__enter__ if isinstance(way, Threads) else block.__aenter__)
    return block


def two_phases(way: Way, pg: Any) -> Any:
    """A transaction that is prepared, and hangs in the balance."""
    way.do(pg.tpc_begin, "balance")
    way.do(pg.execute, "insert into things values (1)")
    way.do(pg.tpc_prepare)


def close(way: Way, pg: Any) -> Any:
    """Not the borrower's to do."""
    way.do(pg.close)


LEFT: list[tuple[Callable[[Way, Any], Any], str]] = [
    (stream, "in the middle of a query or a copy"),
    (notifies, "something still reads from it"),
    (copy, "in the middle of a query or a copy"),
    (pipeline, "left in pipeline mode"),
    (transaction, "could not be reset: Explicit rollback"),
    (two_phases, "could not be reset"),
    (close, "it was closed"),
]


@pytest.mark.parametrize(("leave", "text"), LEFT)
def test_a_connection_that_comes_back_unfit(
    way: Way, conn: Any, other: Other, leave: Callable[[Way, Any], Any], text: str
) -> None:
    """reset says so, and does not hang; close ends the session, and init begins a new one."""
    (pid,) = way.do(conn.call, "fetchone", "select pg_backend_pid()")
    left = leave(way, way.do(conn.lend))
    with pytest.raises(Closed, match=text):
        way.do(conn.reset)
    way.do(conn.init)
    if left is not None:
        with contextlib.suppress(psycopg.Error):
            way.do(getattr(left, "close", None) or getattr(left, "aclose", None) or list)
    other.fetch("select pg_terminate_backend(%s, 30000)", [pid])  # it has gone by itself, or soon
    with contextlib.suppress(psycopg.errors.UndefinedObject):
        other.fetch("rollback prepared 'balance'")
    assert way.do(conn.call, "fetch", "select id from things") == []


def test_a_session_that_ended_in_a_borrowers_hands(way: Way, conn: Any, other: Other) -> None:
    """It is found out when the transaction is to be rolled back, or before the next one sends."""
    pg = way.do(conn.lend)
    way.do(pg.execute, "insert into things values (1)")
    other.end(pg.info.backend_pid)
    with pytest.raises(Closed, match="could not be reset: terminating connection"):
        way.do(conn.reset)
    way.do(conn.init)
    pg = way.do(conn.lend)
    other.end(pg.info.backend_pid)
    way.do(conn.reset)
    assert not way.do(conn.check)
    with pytest.raises(Closed):
        way.do(conn.lend)
