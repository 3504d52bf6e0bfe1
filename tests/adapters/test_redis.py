"""The conns to Redis on their own: what they take and reply, what they refuse, how they open."""

from __future__ import annotations

import asyncio
import math
import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trio

from connpool import CallError, Closed, InitError
from connpool.adapters.redis import AsyncRedisConn, ProtocolError, RedisConn
from connpool.conn import check_conn, describe
from tests.servers.redis import RedisServer

from . import eventually, soon
from .redis_fake import FakeRedis, bulk
from .redis_ways import WAYS, Asyncio, Way

SECRET = "hunter2-swordfish"


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server that wants a password."""
    with RedisServer(password=SECRET) as server:
        yield server


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as way:
        yield way


@pytest.fixture
def conn(way: Way, server: RedisServer) -> Any:
    return way.opened(*server.address)


# -- what it says of itself


def test_it_keeps_the_contract(way: Way, conn: Any, server: RedisServer) -> None:
    """It has the names of a conn, and says of itself what a pool wants to know."""
    check_conn(conn, awaits=isinstance(way, Asyncio))
    said = describe(conn, way.do(conn.methods))
    assert said.resources == (f"redis://127.0.0.1:{server.port}/0",)
    assert said.capacity == 1
    assert said.checks
    assert not getattr(conn, "survives_cancel", False)


def test_its_methods_are_the_servers_commands(way: Way, conn: Any, server: RedisServer) -> None:
    """In upper case, and "pipeline"."""
    commands = {entry[0].upper() for entry in server.ask("COMMAND")}
    assert {"GET", "SET", "PUBLISH", "CLIENT"} < commands
    assert way.do(conn.methods) == commands | {"pipeline"}


def test_commands_of_a_module_and_parts_of_commands(way: Way) -> None:
    """A server that knows COMMAND LIST names its modules' commands, and parts of commands too."""
    with FakeRedis() as fake:
        conn = way.opened(*fake.address)
        assert way.do(conn.methods) == {
            *("GET", "SET", "EVAL", "FT.SEARCH", "CLIENT", "PING", "PUBLISH", "pipeline"),
        }
        assert [b"COMMAND", b"LIST"] in fake.seen


def test_a_server_that_lists_what_is_no_list(way: Way) -> None:
    """It is no Redis server."""
    said = pytest.raises(ProtocolError, match=r"expected a list of commands, got \[1\]")
    with FakeRedis(COMMAND=b"*1\r\n:1\r\n") as fake, said:
        way.opened(*fake.address)


def test_only_the_commands_that_are_named(way: Way, server: RedisServer) -> None:
    """Where they are named the server is not asked, and others cannot be had."""
    conn = way.opened(*server.address, commands=["GET", "INCR"])
    assert way.do(conn.methods) == {"GET", "INCR"}
    assert way.do(conn.call, "INCR", "key") == 1
    for method in ("SET", "pipeline"):
        with pytest.raises(CallError, match=f"unknown command '{method}'"):
            way.do(conn.call, method, ("key", 1))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"timeout": 0}, ValueError, "timeout: expected more than 0 seconds, or None"),
        ({"connect_timeout": -1}, ValueError, "connect_timeout: expected seconds"),
        ({"timeout": "1"}, TypeError, "timeout: expected seconds"),
        ({"commands": "GET"}, TypeError, "commands: expected a collection of commands, got 'GET'"),
        ({"commands": [1]}, TypeError, "commands: expected each as a str, got 1"),
        ({"commands": ["get"]}, ValueError, "commands: .* in upper case, got 'get'"),
        ({"commands": ["CLIENT ID"]}, ValueError, "commands: expected each as one word"),
        ({"retry_on_timeout": True}, TypeError, "retry_on_timeout: expected none, the conn sees"),
        ({"protocol": 3}, TypeError, "protocol: expected none"),
        ({"path": "/socket", "ssl": True}, TypeError, "ssl: expected False with a unix socket"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_a_wrong_option(
    way: Way, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """It is named at once, with what was expected and what came."""
    with pytest.raises(error, match=text):
        way.Conn("127.0.0.1", 1, **options)


@pytest.mark.parametrize(
    ("options", "resource"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"host": "h", "port": 1, "db": 2}, "redis://h:1/2"),
        ({"ssl": True, "password": SECRET}, "rediss://localhost:6379/0"),
        ({"path": "/run/socket", "username": "me"}, "unix:///run/socket?db=0"),
        ({"resource": "cache"}, "cache"),
    ],
)
def test_what_callers_name(way: Way, options: dict[str, Any], resource: str) -> None:
    """A URL without user and password, or what they were told."""
    conn = way.conn(**options)
    assert conn.resource == resource
    assert repr(conn) == f"<{type(conn).__name__} {resource!r}, closed>"


def test_no_time_limit(way: Way, server: RedisServer) -> None:
    """None and infinity are the same: it waits as long as it takes."""
    for limit in (None, math.inf):
        conn = way.opened(*server.address, timeout=limit, connect_timeout=limit)
        assert conn.timeout is None
        assert way.do(conn.call, "BLPOP", ("nothing", 0.01)) is None


# -- calls


@pytest.mark.parametrize(
    ("method", "payload", "reply"),
    [
        ("PING", None, b"PONG"),
        ("ECHO", "hello", b"hello"),
        ("ECHO", b"\x00\xff\r\n", b"\x00\xff\r\n"),
        ("ECHO", memoryview(b"view"), b"view"),
        ("INCRBY", ("n", 41), 41),
        ("SET", ["key", 1.5], b"OK"),
        ("MSET", ("a", 1, "b", 2), b"OK"),
        ("GET", "nothing", None),
        ("MGET", ("nothing", "nobody"), [None, None]),
        ("CLIENT", "GETNAME", None),
        ("EVAL", ("return {1, {KEYS[1]}}", 1, "key"), [1, [b"key"]]),
    ],
)
def test_a_call_is_a_command(way: Way, conn: Any, method: str, payload: Any, reply: Any) -> None:
    """A payload is its argument, or all of them; a reply is what the server sent."""
    assert way.do(conn.call, method, payload) == reply
    assert way.do(conn.check)


def test_a_long_value_comes_back_whole(way: Way, conn: Any) -> None:
    """However many packets it takes."""
    value = bytes(range(256)) * 8_000
    way.do(conn.call, "SET", ("key", value))
    assert way.do(conn.call, "GET", "key") == value


def test_decoding_is_left_to_redis_py(way: Way, server: RedisServer) -> None:
    """Its options decode_responses and encoding."""
    conn = way.opened(*server.address, decode_responses=True, encoding="latin-1")
    assert way.do(conn.call, "ECHO", "\u00e9") == "\u00e9"
    server.ask("SET", "key", "\u00e9")
    assert way.do(conn.call, "GET", "key") == "\u00c3\u00a9"


@pytest.mark.parametrize(
    ("method", "payload", "told"),
    [
        ("LPUSH", ("key", 1), (redis.ResponseError, "WRONGTYPE")),
        ("GET", None, (redis.ResponseError, "wrong number of arguments")),
        ("EVALSHA", ("abc", 0), (redis.exceptions.NoScriptError, "No matching script")),
        (
            "EVAL",
            ("return redis.error_reply('MOVED 7 h:1')", 0),
            (redis.exceptions.MovedError, "7"),
        ),
        ("LEAP", None, (CallError, "unknown command 'LEAP': expected one of the server's")),
        ("get", "key", (CallError, "unknown command 'get'.*in upper case")),
        ("CLIENT ID", None, (CallError, "unknown command")),
        ("SET", ("key", None), (TypeError, "SET: expected str, bytes, int or float.*NoneType")),
        ("SET", ("key", True), (TypeError, "SET: expected str, bytes, int or float.*bool")),
        ("SET", ("key", [1]), (TypeError, "SET: expected str, bytes, int or float.*list")),
        ("SET", {"key": 1}, (TypeError, "SET: expected str, bytes, int or float.*dict")),
        ("pipeline", "GET", (TypeError, "pipeline: expected a list of commands, got 'GET'")),
        ("pipeline", [("GET", "key"), 7], (TypeError, "pipeline: expected each command .* got 7")),
        ("pipeline", [()], (TypeError, "pipeline: expected each command .* got \\(\\)")),
        ("pipeline", [("SET", "key", None)], (TypeError, "pipeline: expected str.*NoneType")),
        ("pipeline", ["LEAP"], (CallError, "unknown command 'LEAP'")),
        ("pipeline", ["pipeline"], (CallError, "unknown command 'pipeline'")),
    ],
)
def test_an_error_that_costs_the_call_alone(
    way: Way, conn: Any, method: str, payload: Any, told: tuple[type[Exception], str]
) -> None:
    """The caller gets the server's error, or is told what is wrong; the conn stays."""
    way.do(conn.call, "SET", ("key", "value"))
    with pytest.raises(told[0], match=told[1]):
        way.do(conn.call, method, payload)
    assert way.do(conn.check)
    assert way.do(conn.call, "GET", "key") == b"value"


@pytest.mark.parametrize(
    ("method", "payload", "name"),
    [
        ("SELECT", 1, "SELECT"),
        ("MULTI", None, "MULTI"),
        ("EXEC", None, "EXEC"),
        ("WATCH", "key", "WATCH"),
        ("SUBSCRIBE", "channel", "SUBSCRIBE"),
        ("MONITOR", None, "MONITOR"),
        ("AUTH", SECRET, "AUTH"),
        ("CLIENT", ("REPLY", "OFF"), "CLIENT REPLY"),
        ("CLIENT", [b"reply", b"skip"], "CLIENT REPLY"),
        ("CLIENT", (bytearray(b"TRACKING"), "ON"), "CLIENT TRACKING"),
        ("SCRIPT", ("DEBUG", "YES"), "SCRIPT DEBUG"),
        ("pipeline", ["PING", ("SELECT", 1)], "SELECT"),
        ("pipeline", ["MULTI", ("SET", "key", 1), "EXEC"], "MULTI"),
    ],
)
def test_what_the_next_caller_would_feel_is_refused(
    way: Way, server: RedisServer, method: str, payload: Any, name: str
) -> None:
    """It needs a checkout; nothing is sent, and nothing of it is shown but its name."""
    conn = way.opened(*server.address)
    with pytest.raises(CallError, match=f"{name} would be felt.*it needs a checkout") as caught:
        way.do(conn.call, method, payload)
    assert SECRET not in str(caught.value)
    assert way.do(conn.call, "SET", ("key", 1)) == b"OK"
    assert server.ask("GET", "key") == "1"  # it is in the same database as ever


# -- pipelines


def test_a_pipeline_replies_in_order(way: Way, conn: Any) -> None:
    """The error of one command stands in the place of its reply, and the others are done."""
    replies = way.do(
        conn.call, "pipeline", [("SET", "a", 1), ["INCR", "a"], ("LPUSH", "a", "x"), "DBSIZE"]
    )
    assert replies[:2] == [b"OK", 2]
    assert isinstance(replies[2], redis.ResponseError)
    assert replies[3] == 1
    assert way.do(conn.check)


def test_an_empty_pipeline_is_not_sent(way: Way) -> None:
    """It has no replies."""
    with FakeRedis() as fake:
        conn = way.opened(*fake.address)
        seen = len(fake.seen)
        assert way.do(conn.call, "pipeline", ()) == []
        assert way.do(conn.call, "PING") == b"PONG"
        assert len(fake.seen) == seen + 1


def test_a_pipeline_takes_one_round_trip(way: Way) -> None:
    """The server has the last command before it has answered the first one."""
    with FakeRedis() as fake:

        def late(sock: socket.socket) -> None:
            if len(fake.seen) == before + 3:
                sock.sendall(b"+OK\r\n" * 3)

        conn = way.opened(*fake.address)
        before = len(fake.seen)
        fake.answers["SET"] = late
        assert way.do(conn.call, "pipeline", [("SET", "a", n) for n in range(3)]) == [b"OK"] * 3


def test_a_long_pipeline(way: Way, conn: Any) -> None:
    """Larger than all the buffers on its way."""
    value = "x" * 10_000
    replies = way.do(conn.call, "pipeline", [("ECHO", f"{n}:{value}") for n in range(1_000)])
    assert [reply.partition(b":")[0] for reply in replies] == [b"%d" % n for n in range(1_000)]


# -- opening and closing


def test_nobody_listens(way: Way) -> None:
    """init raises an OSError, and the conn stays closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    conn = way.conn(*address)
    with pytest.raises(ConnectionError, match="connecting to"):
        way.do(conn.init)
    assert not way.do(conn.check)


def test_a_server_that_says_nothing(way: Way) -> None:
    """init gives up after connect_timeout, and leaves no connection behind."""
    with FakeRedis(PING=b"") as fake:
        conn = way.conn(*fake.address, connect_timeout=0.05)
        with pytest.raises(TimeoutError):
            way.do(conn.init)
        eventually(lambda: fake.left == 1)
        assert not way.do(conn.check)


@pytest.mark.parametrize(
    ("pong", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectionError),
        (b"+PING\r\n", ProtocolError),
        (bulk("PING"), ProtocolError),  # as if we were connected to ourselves
    ],
)
def test_something_else_than_a_redis_server(way: Way, pong: bytes, error: type[Exception]) -> None:
    """init raises an OSError, and leaves no connection behind."""
    with FakeRedis(PING=pong) as fake:
        with pytest.raises(error):
            way.opened(*fake.address)
        eventually(lambda: fake.left == 1)


def test_a_server_that_is_loading(way: Way) -> None:
    """init raises InitError, with nothing said of when: the pool has its own idea of that."""
    with FakeRedis(PING=b"-LOADING Redis is loading the dataset in memory\r\n") as fake:
        with pytest.raises(InitError, match="loading the dataset") as caught:
            way.opened(*fake.address)
        assert caught.value.retry_after is None


def test_a_database_that_is_not_there(way: Way, server: RedisServer) -> None:
    """The server's reason is that of the InitError."""
    with pytest.raises(InitError, match="out of range"):
        way.opened(*server.address, db=99)
    assert server.clients() == 0


def test_another_database(way: Way, server: RedisServer) -> None:
    """It is the conn's from the beginning."""
    conn = way.opened(*server.address, db=3, client_name="me")
    way.do(conn.call, "SET", ("key", 1))
    assert server.ask("DBSIZE") == 0
    assert way.do(conn.call, "CLIENT", "GETNAME") == b"me"


def test_init_again_connects_anew(way: Way, conn: Any, server: RedisServer) -> None:
    """The connection before is closed."""
    way.do(conn.init)
    assert way.do(conn.call, "PING") == b"PONG"
    eventually(lambda: server.clients() == 1)


def test_two_inits_at_once(server: RedisServer) -> None:
    """One connection is left of them."""

    async def main() -> None:
        conn = AsyncRedisConn(*server.address)
        await asyncio.gather(conn.init(), conn.init())
        await soon(lambda: server.clients() == 1)
        assert await conn.call("PING") == b"PONG"
        await conn.close()

    asyncio.run(main())


def test_the_limit_of_the_opening_ends_with_it(server: RedisServer) -> None:
    """From then on it is that of the calls."""
    conn = RedisConn(*server.address, connect_timeout=7, timeout=9)
    conn.init()
    assert conn._conn.sock.gettimeout() == 9
    conn.close()


def test_close_may_be_called_again(way: Way, server: RedisServer) -> None:
    """Before init too; calls of a closed conn did not happen."""
    conn = way.conn(*server.address)
    for _ in range(2):
        way.do(conn.close)
        way.do(conn.close)
        assert not way.do(conn.check)
        with pytest.raises(Closed, match="nothing was sent"):
            way.do(conn.call, "PING")
        way.do(conn.init)
        assert repr(conn).endswith("open>")
    way.do(conn.close)
    eventually(lambda: server.clients() == 0)


def test_a_unix_socket(way: Way, tmp_path: Path) -> None:
    """In place of host and port, with a database and a user like any other."""
    path = str(tmp_path / "socket")
    with RedisServer("--unixsocket", path, password=SECRET) as server:
        conn = way.opened(path=path, db=2, username="default", password=SECRET)
        assert conn.resource == f"unix://{path}?db=2"
        assert way.do(conn.call, "SET", ("key", 1)) == b"OK"
        assert server.ask("DBSIZE") == 0
        assert way.do(conn.check)
        with pytest.raises(InitError, match="the login was refused"):
            way.opened(path=path, password="no")
        server.kill()
        assert not way.do(conn.check)
    with pytest.raises(ConnectionError, match="socket"):
        way.do(conn.init)


def test_a_host_by_its_name(way: Way, server: RedisServer) -> None:
    """Its addresses are tried in turn."""
    conn = way.opened("localhost", server.port)
    assert way.do(conn.call, "PING") == b"PONG"


def test_tls_with_a_server_that_has_none(way: Way, server: RedisServer) -> None:
    """It waits for more of what it takes for a command; init gives up after connect_timeout."""
    with pytest.raises(TimeoutError, match="rediss://"):
        way.opened(*server.address, ssl=True, connect_timeout=0.05, timeout=None)
    eventually(lambda: server.clients() == 0)


# -- users and secrets


def test_users_and_passwords(way: Way, guarded: RedisServer) -> None:
    """The default user with a password, another by name."""
    guarded.ask("ACL", "SETUSER", "ada", "on", f">{SECRET}", "~*", "+@all")
    for user in (None, "default", "ada"):
        conn = way.opened(*guarded.address, username=user, password=SECRET)
        assert way.do(conn.call, "ACL", "WHOAMI") == (user or "default").encode()


@pytest.mark.parametrize(
    "options",
    [
        {"password": f"not-{SECRET}"},
        {"username": f"u-{SECRET}", "password": SECRET},
        {},
    ],
)
def test_a_refused_login(way: Way, guarded: RedisServer, options: dict[str, Any]) -> None:
    """It is an InitError, to be tried again, that shows neither name nor password."""
    conn = way.conn(*guarded.address, **options)
    with pytest.raises(InitError, match="the login was refused") as caught:
        way.do(conn.init)
    assert caught.value.retry_after is None
    told = "".join(traceback.format_exception(caught.value)) + repr(conn) + str(conn.resource)
    assert SECRET not in told
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert guarded.clients() == 0


def test_a_user_who_may_do_little(way: Way, guarded: RedisServer) -> None:
    """He may have neither PING nor COMMAND: then his commands have to be named."""
    guarded.ask("ACL", "SETUSER", "bob", "on", f">{SECRET}", "~*", "+get")
    options = {"username": "bob", "password": SECRET}
    with pytest.raises(InitError, match="name some with commands="):
        way.opened(*guarded.address, **options)
    conn = way.opened(*guarded.address, **options, commands={"GET", "SET"})
    assert way.do(conn.call, "GET", "key") is None
    with pytest.raises(redis.exceptions.NoPermissionError):
        way.do(conn.call, "SET", ("key", 1))
    assert way.do(conn.check)


def test_arguments_are_not_shown(way: Way, guarded: RedisServer) -> None:
    """Not in the errors of a call that was refused, or whose connection is lost."""
    conn = way.opened(*guarded.address, password=SECRET)
    guarded.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for method, payload in [("SET", ("key", SECRET)), ("pipeline", [("SET", "key", SECRET)])]:
        with pytest.raises(Closed) as caught:
            way.do(conn.call, method, payload)
        assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))


# -- without asyncio


def test_on_trio_it_says_what_it_needs(server: RedisServer) -> None:
    """An InitError that is never tried again: redis-py knows asyncio only."""
    conn = AsyncRedisConn(*server.address)
    with pytest.raises(InitError, match="AsyncRedisConn needs asyncio") as caught:
        trio.run(conn.init)
    assert caught.value.retry_after == math.inf
