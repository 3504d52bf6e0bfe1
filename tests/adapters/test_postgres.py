"""The conns to PostgreSQL on their own: what they take, what they reply, what they never show."""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import trio
from psycopg import sql
from psycopg.rows import dict_row

from connpool import CallError, Closed, InitError
from connpool.adapters.postgres import AsyncPostgresConn, ConnectionLost, PostgresConn
from tests.servers.postgres import PostgresServer

from . import eventually
from .postgres_ways import WAYS, Other, Way

SECRET = "hunter2-swordfish"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that wants a password."""
    with PostgresServer(password=SECRET) as server:
        yield server


@pytest.fixture
def other(server: PostgresServer) -> Other:
    other = Other(server)
    other.fetch("drop table if exists things")
    other.fetch("create table things (id int primary key deferrable initially deferred, name text)")
    return other


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as way:
        yield way


@pytest.fixture
def conn(way: Way, server: PostgresServer) -> Any:
    return way.opened(server.conninfo)


# -- what it replies


def test_execute_replies_how_many_rows_it_touched(way: Way, conn: Any, other: Other) -> None:
    """And what it did is committed when the reply comes."""
    insert = "insert into things values (%s, %s), (%s, %s)"
    assert way.do(conn.call, "execute", (insert, [1, "one", 2, "two"])) == 2
    assert other.fetch("select count(*) from things") == [(2,)]
    assert way.do(conn.call, "execute", "update things set name = 'x' where id > 7") == 0
    assert way.do(conn.call, "execute", "create temporary table gone (n int)") == -1


@pytest.mark.parametrize(
    ("method", "payload", "reply"),
    [
        ("fetch", "select * from generate_series(1, 3)", [(1,), (2,), (3,)]),
        ("fetch", "select 1 where false", []),
        ("fetch", "set lock_timeout = 0", []),
        ("fetch", b"select '%'", [("%",)]),
        ("fetch", ("select %s, %s", (1, "b")), [(1, "b")]),
        ("fetch", ["select %s::text", [None]], [(None,)]),
        ("fetch", ("select %(a)s::int", {"a": 7}), [(7,)]),
        ("fetch", sql.SQL("select {}").format(sql.Literal("x")), [("x",)]),
        ("fetchone", "select * from generate_series(1, 3)", (1,)),
        ("fetchone", "select 1 where false", None),
        ("fetchone", "set lock_timeout = 0", None),
        ("execute", "select * from generate_series(1, 3)", 3),
        ("fetch", "select 1; select 2", [(1,)]),
        ("transaction", [], []),
        ("transaction", ("select 1", "set local lock_timeout = 0"), [[(1,)], -1]),
    ],
)
def test_replies(way: Way, conn: Any, method: str, payload: Any, reply: Any) -> None:
    """A payload is a statement, or a pair of one and its parameters, in any of psycopg's forms."""
    assert way.do(conn.call, method, payload) == reply


def test_methods(way: Way, conn: Any) -> None:
    """There are four."""
    assert set(way.do(conn.methods)) == {"execute", "fetch", "fetchone", "transaction"}


def test_rows_are_what_the_row_factory_makes(way: Way, server: PostgresServer) -> None:
    """What psycopg.connect takes is passed on to it."""
    conn = way.opened(server.conninfo, row_factory=dict_row, application_name="tests")
    assert way.do(conn.call, "fetchone", "show application_name") == {"application_name": "tests"}


def test_the_server_can_tell_who_connects(way: Way, conn: Any) -> None:
    """A conn has a name among the sessions of the server, and looks after its connection."""
    assert way.do(conn.call, "fetchone", "show application_name") == ("connpool",)


# -- transactions and errors


def test_a_transaction_is_all_or_none(way: Way, conn: Any, other: Other) -> None:
    """Where one statement fails, none has happened; the error is psycopg's own."""
    good = ("insert into things values (%s, 'a')", [1])
    assert way.do(conn.call, "transaction", [good, "select name from things"]) == [1, [("a",)]]
    with pytest.raises(psycopg.errors.UndefinedTable):
        way.do(conn.call, "transaction", ["insert into things values (2)", "table nowhere"])
    assert other.fetch("select id from things") == [(1,)]
    assert way.do(conn.call, "fetch", "select id from things") == [(1,)]


def test_a_transaction_that_fails_at_its_commit(way: Way, conn: Any, other: Other) -> None:
    """The caller gets that error too, and the conn serves on."""
    twice = ["insert into things values (1)"] * 2
    with pytest.raises(psycopg.errors.UniqueViolation):
        way.do(conn.call, "transaction", twice)
    with pytest.raises(psycopg.errors.UniqueViolation):
        way.do(conn.call, "execute", twice[0] + ", (1)")
    assert way.do(conn.call, "fetch", "select id from things") == []
    assert way.do(conn.check)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ("sel 1", psycopg.errors.SyntaxError),
        ("select 1/0", psycopg.errors.DivisionByZero),
        ("select 1; select 1/0; select 2", psycopg.errors.DivisionByZero),
        (("select %s", [1, 2]), psycopg.ProgrammingError),
        (("select %s", [object()]), psycopg.ProgrammingError),
        ("begin; select 1/0", psycopg.errors.DivisionByZero),
        (
            "do $$ begin raise exception 'elsewhere' using errcode = '57P01'; end $$",
            psycopg.errors.AdminShutdown,
        ),
    ],
)
def test_an_error_of_a_statement(way: Way, conn: Any, payload: Any, error: Any) -> None:
    """It reaches the caller as it is, and leaves nothing to the next one."""
    backend = way.do(conn.call, "fetchone", "select pg_backend_pid()")
    for method in ("execute", "fetch"):
        with pytest.raises(error) as raised:
            way.do(conn.call, method, payload)
        assert not isinstance(raised.value, OSError)
        assert way.do(conn.check)
        assert way.do(conn.call, "fetchone", "select pg_backend_pid()") == backend


def test_a_statement_that_leaves_a_transaction_open(way: Way, conn: Any, other: Other) -> None:
    """Nobody would ever commit it: it is rolled back, and the caller is told."""
    with pytest.raises(CallError, match="execute: the statement left a transaction open"):
        way.do(conn.call, "execute", "begin; insert into things values (1)")
    assert other.fetch("select id from things") == []
    assert way.do(conn.call, "fetch", "select id from things") == []


def test_a_copy_has_no_place_in_a_call(way: Way, conn: Any, other: Other) -> None:
    """It would need somebody to talk to: the conn is dead, and its caller is told."""
    with pytest.raises(ConnectionLost, match="COPY cannot be used"):
        way.do(conn.call, "execute", "copy things from stdin")
    with pytest.raises(Closed):
        way.do(conn.call, "execute", "select 1")
    way.do(conn.init)
    assert way.do(conn.call, "fetch", "select id from things") == []


def test_a_changed_table_does_not_spoil_a_conn(way: Way, conn: Any, other: Other) -> None:
    """A statement prepared before the change fails once, not for the rest of the conn's life."""
    for _ in range(7):  # psycopg prepares what it has seen five times
        way.do(conn.call, "fetch", "select * from things")
    other.fetch("alter table things add size int")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        way.do(conn.call, "fetch", "select * from things")
    assert way.do(conn.call, "fetch", "select * from things") == []


@pytest.mark.parametrize(
    ("method", "payload", "text"),
    [
        ("execute", None, "execute: expected a statement, or the pair .*, got None"),
        ("fetch", 5, "got an object of type int"),
        ("fetch", [SECRET], "got a list of 1"),
        ("fetch", ("select 1", [], SECRET), "got a tuple of 3"),
        ("fetchone", (["select 1"], []), "expected a statement"),
        ("fetch", ("select %s", SECRET), "as a sequence or a mapping, got an object of type str"),
        ("fetch", ("select %s", 5), "as a sequence or a mapping"),
        ("transaction", "select 1", "transaction: expected a list of statements, got .* type str"),
        ("transaction", {"select 1"}, "expected a list of statements"),
        ("transaction", ["select 1", None], "transaction: expected a statement"),
    ],
)
def test_a_payload_that_is_none(way: Way, conn: Any, method: str, payload: Any, text: str) -> None:
    """What cannot be sent is a TypeError, whose text gives nothing away; the conn stays."""
    with pytest.raises(TypeError, match=text) as raised:
        way.do(conn.call, method, payload)
    assert SECRET not in str(raised.value)
    assert way.do(conn.call, "fetchone", "select 1") == (1,)


def test_an_unknown_method(way: Way, conn: Any) -> None:
    """The text says which there are."""
    with pytest.raises(CallError, match="unknown method 'drop', expected one of execute, fetch"):
        way.do(conn.call, "drop", "table things")


# -- options


@pytest.mark.parametrize("kind", [PostgresConn, AsyncPostgresConn])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"conninfo": None}, TypeError, "conninfo: expected a string, got None"),
        ({"conninfo": f"{SECRET} host=x"}, ValueError, "expected what libpq reads"),
        ({"conninfo": f"hots={SECRET}"}, ValueError, "expected what libpq reads"),
        ({"conninfo": f"postgresql://h?{SECRET}=1"}, ValueError, "expected what libpq reads"),
        ({"passphrase": SECRET, "hosts": "x"}, TypeError, "psycopg.connect, got hosts, passphrase"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout: expected more than 0"),
        ({"connect_timeout": "5"}, TypeError, "connect_timeout: expected seconds"),
        ({"timeout": -1}, ValueError, "timeout: expected seconds"),
        ({"timeout": 0}, ValueError, "timeout: expected more than 0"),
        ({"cancel_timeout": None}, TypeError, "cancel_timeout: expected seconds"),
        ({"auth_retry": math.nan}, ValueError, "auth_retry: expected seconds"),
        ({"ping": 1}, TypeError, "ping: expected True or False, got 1"),
        ({"discard_all": "no"}, TypeError, "discard_all: expected True or False"),
        ({"autocommit": None}, TypeError, "autocommit: expected True or False"),
    ],
)
def test_wrong_options(kind: Any, options: Any, error: Any, text: str) -> None:
    """They are errors at once, which name what is wrong and quote nothing that may be secret."""
    with pytest.raises(error, match=text) as raised:
        kind(**options)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("conninfo", "more", "name"),
    [
        ("", {}, "postgresql://"),
        ("host=db", {}, "postgresql://db"),
        (f"postgresql://ada:{SECRET}@db:5433/x?sslmode=require", {}, "postgresql://ada@db:5433/x"),
        ("dbname='my db' host=/run/pg", {"user": "a@b"}, "postgresql://a%40b@%2Frun%2Fpg/my%20db"),
        ("host=a,b port=1,2", {"password": SECRET, "host": "c"}, "postgresql://c:1,2"),
    ],
)
@pytest.mark.parametrize("kind", [PostgresConn, AsyncPostgresConn])
def test_the_name_of_the_resource(kind: Any, conninfo: str, more: Any, name: str) -> None:
    """Where none is given it is made of what is known, and that is all that a repr shows."""
    conn = kind(conninfo, **more)
    assert conn.resource == name
    assert repr(conn) == f"<{kind.__name__} {name!r}, closed>"
    assert kind(conninfo, resource=("db", 1), **more).resource == ("db", 1)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 10),
        ({"connect_timeout": 0.1}, 2),
        ({"connect_timeout": 7.2}, 8),
        ({"conninfo": "connect_timeout=4"}, 4),
        ({"conninfo": "connect_timeout=4", "connect_timeout": 5}, 5),
        ({"conninfo": "connect_timeout=0"}, 10),
        ({"conninfo": "connect_timeout=soon"}, 2),
    ],
)
def test_how_long_a_ping_may_take(given: Any, seconds: float) -> None:
    """As long as connecting, which libpq counts in whole seconds from 2 up."""
    if "soon" in str(given):
        with pytest.raises(psycopg.ProgrammingError, match="bad value for connect_timeout"):
            PostgresConn(**given).init()
    else:
        assert PostgresConn(**given)._patience == seconds


# -- init, close, check


def test_init_again_leaves_no_session_behind(way: Way, conn: Any, other: Other) -> None:
    """The connection that was open is closed first, and close may be called again."""
    (first,) = way.do(conn.call, "fetchone", "select pg_backend_pid()")
    way.do(conn.init)
    (second,) = way.do(conn.call, "fetchone", "select pg_backend_pid()")
    assert first != second
    alive = "select pid from pg_stat_activity where pid = any(%s)"
    eventually(lambda: other.fetch(alive, [[first, second]]) == [(second,)])
    assert repr(conn).endswith("open>")
    way.do(conn.close)
    way.do(conn.close)
    assert repr(conn).endswith("closed>")
    with pytest.raises(Closed, match="nothing was sent"):
        way.do(conn.call, "fetch", "select 1")
    with pytest.raises(Closed):
        way.do(conn.lend)
    with pytest.raises(Closed):
        way.do(conn.reset)
    assert not way.do(conn.check)


def test_nobody_listens(way: Way) -> None:
    """init raises what psycopg says, and the conn is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    conn = way.conn(f"host=127.0.0.1 port={port} user=x password={SECRET}")
    with pytest.raises(psycopg.OperationalError, match="onnection refused") as raised:
        way.do(conn.init)
    assert raised.value.__context__ is None
    assert raised.value.pgconn is None
    assert not way.do(conn.check)


def test_the_async_conn_needs_asyncio() -> None:
    """psycopg waits through nothing else: on trio there is no use in trying again."""
    with pytest.raises(InitError, match="needs asyncio") as raised:
        trio.run(AsyncPostgresConn("host=127.0.0.1").init)
    assert raised.value.retry_after == math.inf


def test_the_lock_is_not_bound_to_a_loop(server: PostgresServer) -> None:
    """A conn may be initialised in one event loop after the other."""
    conn = AsyncPostgresConn(server.conninfo)

    async def crowd() -> list[Any]:
        await conn.init()
        replies = await asyncio.gather(
            *(conn.call("fetchone", ("select %s::int", [n])) for n in range(5))
        )
        await conn.close()
        return replies

    for _ in range(2):
        assert asyncio.run(crowd()) == [(n,) for n in range(5)]


@pytest.mark.parametrize("ping", [False, True])
def test_check_sees_that_the_server_ended_the_session(
    way: Way, server: PostgresServer, other: Other, ping: bool
) -> None:
    """psycopg's own fields still say that all is well; and nothing is sent into the void."""
    conn = way.opened(server.conninfo, ping=ping)
    (pid,) = way.do(conn.call, "fetchone", "select pg_backend_pid()")
    assert way.do(conn.check)
    pg = way.do(conn.lend)
    other.end(pid)
    assert not pg.closed
    assert pg.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert not way.do(conn.check)
    with pytest.raises(Closed, match="hung up or speaks unasked, nothing was sent"):
        way.do(conn.call, "fetch", "select 1")
    with pytest.raises(Closed, match="hung up or speaks unasked"):
        way.do(conn.lend)


@pytest.mark.parametrize("before", ["transaction", "lease"])
def test_a_ping_leaves_no_transaction(way: Way, server: PostgresServer, before: str) -> None:
    """Though psycopg would begin one, in the mode that a transaction or a borrower leaves."""
    conn = way.opened(server.conninfo, ping=True)
    if before == "transaction":
        way.do(conn.call, "transaction", ["select 1"])
    else:
        way.do(conn.lend)
        way.do(conn.reset)
    assert way.do(conn.check)
    assert way.do(conn.call, "fetchone", "select 2") == (2,)


def test_a_fork_leaves_the_connection_to_the_parent(server: PostgresServer) -> None:
    """The child cannot use it, and its close does not end the parent's session."""
    code = f"""
import asyncio, os
from connpool import Closed
from connpool.adapters.postgres import AsyncPostgresConn, PostgresConn

def refused(call):
    try:
        call()
    except Closed as error:
        return "parent process" in str(error)
    return False

runner = asyncio.Runner()
conn, twin = PostgresConn({server.conninfo!r}), AsyncPostgresConn({server.conninfo!r})
conn.init(), runner.run(twin.init())
if (child := os.fork()) == 0:
    good = refused(lambda: conn.call("fetch", "select 1"))
    good &= refused(lambda: runner.run(twin.call("fetch", "select 1")))
    conn.close(), runner.run(twin.close())
    os._exit(not good)
assert os.waitpid(child, 0)[1] == 0
assert conn.call("fetch", "select 1") == runner.run(twin.call("fetch", "select 1")) == [(1,)]
conn.close(), runner.run(twin.close())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- secrets


def told(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """All that anybody could read of an error: with its causes, pickled, and in the logs."""
    pickled = str(pickle.dumps(error))
    return "".join(traceback.format_exception(error)) + repr(error) + pickled + caplog.text


@pytest.mark.parametrize("user", ["postgres", "nobody-we-know"])
@pytest.mark.parametrize("secret", ["wrong-password", None])
def test_a_refusal_is_tried_again_late(
    way: Way, guarded: PostgresServer, user: str, secret: str | None, caplog: Any
) -> None:
    """Soon would be no use, never would be too much: passwords change, and roles are made."""
    caplog.set_level(logging.DEBUG)
    given = {"password": secret} if secret else {}
    conn = way.conn(guarded.conninfo, user=user, auth_retry=33, **given)
    with pytest.raises(InitError, match="password") as raised:
        way.do(conn.init)
    assert raised.value.retry_after == 33
    assert raised.value.__context__ is None
    text = told(raised.value, caplog)
    assert "wrong-password" not in text
    assert not way.do(conn.check)


def test_a_secret_in_an_error_of_libpq_is_struck_out(way: Way, caplog: Any) -> None:
    """Whatever libpq or psycopg quote, a password that they were given is not among it."""
    caplog.set_level(logging.DEBUG)
    conn = way.conn(f"host=127.0.0.1 port={SECRET} password={SECRET} user=x")
    with pytest.raises(psycopg.OperationalError, match=r'invalid integer value "\*\*\*"') as raised:
        way.do(conn.init)
    assert SECRET not in told(raised.value, caplog)


def test_a_password_is_never_shown(
    way: Way, guarded: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a repr, a log, an error of a statement, or one of a lost connection."""
    caplog.set_level(logging.DEBUG)
    conn = way.opened(f"{guarded.conninfo} password={SECRET}")
    pg = way.do(conn.lend)
    shown = repr(conn) + str(conn) + repr(pg) + repr(conn._parameters)
    way.do(conn.reset)
    with pytest.raises(psycopg.Error) as refused:
        way.do(conn.call, "fetch", "select 1/0")
    with pytest.raises(ConnectionLost) as lost:
        way.do(conn.call, "fetch", "select pg_terminate_backend(pg_backend_pid())")
    assert lost.value.sqlstate == "57P01"
    for error in (refused.value, lost.value):
        shown += told(error, caplog)
    assert SECRET not in shown


def test_the_error_of_a_lost_connection_is_of_both_families() -> None:
    """Whoever catches psycopg's errors gets it, and so does a pool; and it travels."""
    lost = PostgresConn()._lost("fetch", psycopg.errors.AdminShutdown("goodbye"))
    again = pickle.loads(pickle.dumps(lost))
    for error in (lost, again):
        assert isinstance(error, ConnectionLost)
        assert isinstance(error, psycopg.OperationalError)
        assert isinstance(error, ConnectionError)
        assert error.sqlstate == "57P01"
        assert "which may have been carried out: goodbye" in str(error)
