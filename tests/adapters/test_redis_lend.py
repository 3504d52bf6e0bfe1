"""What a checkout of a conn to Redis hands over, and in which state the conn comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from connpool import CallError, Closed
from connpool.adapters.redis import AsyncRedisConn, Loading
from tests.servers.redis import RedisServer

from . import PATIENCE, eventually
from .redis_fake import FakeRedis
from .redis_ways import WAYS, Way

SECRET = "hunter2-swordfish"


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as way:
        yield way


@pytest.fixture
def conn(way: Way, server: RedisServer) -> Any:
    return way.opened(*server.address, decode_responses=True)


def assert_retired(way: Way, conn: Any, error: type[Exception], text: str) -> None:
    """It comes back with an error that says why, and is closed."""
    with pytest.raises(error, match=text):
        way.do(conn.reset)
    assert not way.do(conn.check)
    way.do(conn.init)
    assert way.do(conn.call, "PING") == "PONG"


def test_it_lends_a_client(way: Way, conn: Any, server: RedisServer) -> None:
    """One of redis-py, over this very connection, which can be used again when it comes back."""
    number = way.do(conn.call, "CLIENT", "ID")
    client = way.do(conn.lend)
    assert isinstance(client, way.Client)
    assert way.do(client.set, "key", 1.5) is True
    assert way.do(client.hset, "hash", mapping={"a": 1, "b": 2}) == 2
    assert way.do(client.hgetall, "hash") == {"a": "1", "b": "2"}
    assert way.do(client.client_id) == number
    assert way.do(conn.reset) is None
    assert way.do(conn.call, "CLIENT", "ID") == number
    assert server.clients() == 1


def test_a_transaction(way: Way, conn: Any) -> None:
    """Begun and ended, it leaves no traces."""
    client = way.do(conn.lend)
    pipeline = client.pipeline()
    pipeline.set("key", 1)
    pipeline.incr("key")
    assert way.do(pipeline.execute) == [True, 2]
    way.do(conn.reset)
    assert way.do(conn.check)


def test_a_transaction_that_watches(way: Way, conn: Any, server: RedisServer) -> None:
    """It sees what others do meanwhile, and leaves no traces either."""
    client = way.do(conn.lend)
    pipeline = client.pipeline()
    way.do(pipeline.watch, "key")
    server.ask("SET", "key", "other")
    pipeline.multi()
    pipeline.set("key", 1)
    with pytest.raises(redis.WatchError):
        way.do(pipeline.execute)
    way.do(pipeline.reset)
    way.do(conn.reset)
    assert way.do(conn.call, "GET", "key") == "other"


def test_a_watch_that_was_given_up(way: Way, conn: Any) -> None:
    """UNWATCH and DISCARD clean up as well."""
    client = way.do(conn.lend)
    for words in [("WATCH", "key"), ("UNWATCH",), ("WATCH", "key"), ("MULTI",), ("DISCARD",)]:
        way.do(client.execute_command, *words)
    way.do(conn.reset)
    assert way.do(conn.check)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("SELECT", 3), "SELECT"),
        (("select", 3), "SELECT"),
        (("MULTI",), "MULTI"),
        (("WATCH", "key"), "WATCH"),
        (("CLIENT SETNAME", "me"), "CLIENT SETNAME"),
        (("CLIENT", "NO-EVICT", "on"), "CLIENT NO-EVICT"),
    ],
)
def test_what_would_be_felt_by_the_next(
    way: Way, conn: Any, words: tuple[Any, ...], name: str
) -> None:
    """The conn is given up: its state is not what others expect."""
    client = way.do(conn.lend)
    if words[0] != "CLIENT":  # of the last one this server knows nothing, but it may
        way.do(client.execute_command, *words)
    else:
        with pytest.raises(redis.ResponseError):
            way.do(client.execute_command, *words)
    assert_retired(way, conn, CallError, f"comes back unclean: what {name} did is still felt")


def test_what_it_opened_with_does_not_count(way: Way, server: RedisServer) -> None:
    """AUTH, SELECT and CLIENT SETNAME of its own init are as they shall be."""
    conn = way.opened(*server.address, db=2, client_name="me")
    client = way.do(conn.lend)
    way.do(client.set, "key", 1)
    way.do(conn.reset)
    assert way.do(conn.call, "DBSIZE") == 1


def test_a_pubsub_that_still_listens(way: Way, conn: Any, server: RedisServer) -> None:
    """It has the connection for itself; it is ended when the conn comes back."""
    client = way.do(conn.lend)
    pubsub = client.pubsub()
    way.do(pubsub.subscribe, "channel")
    assert way.do(pubsub.get_message, timeout=PATIENCE)["type"] == "subscribe"
    server.ask("PUBLISH", "channel", "hello")
    assert way.do(pubsub.get_message, timeout=PATIENCE)["data"] == "hello"
    with pytest.raises(redis.ConnectionError, match="one connection, and a pubsub or a pipeline"):
        way.do(client.get, "key")
    assert_retired(way, conn, CallError, "a pubsub or a pipeline still holds it")
    with pytest.raises(redis.ConnectionError):
        way.do(pubsub.subscribe, "channel")
    eventually(lambda: server.clients() == 1)
    way.do(conn.close)
    eventually(lambda: server.clients() == 0)


def test_a_pubsub_that_was_closed(way: Way, conn: Any) -> None:
    """It has closed the connection with it."""
    client = way.do(conn.lend)
    pubsub = client.pubsub()
    way.do(pubsub.subscribe, "channel")
    way.do(pubsub.aclose if hasattr(pubsub, "aclose") else pubsub.close)
    with pytest.raises(redis.ConnectionError, match="the connection was lost"):
        way.do(client.get, "key")
    assert_retired(way, conn, CallError, "what SUBSCRIBE did is still felt")


def test_a_client_after_its_checkout(way: Way, conn: Any) -> None:
    """It cannot reach the server any more, nor can what was made of it."""
    client = way.do(conn.lend)
    pipeline = client.pipeline()
    way.do(conn.reset)
    other = way.do(conn.lend)
    pipeline.set("a", 1)
    for use, *args in [(client.get, "key"), (pipeline.execute,)]:
        with pytest.raises(redis.ConnectionError, match="the checkout is over"):
            way.do(use, *args)
    assert way.do(other.get, "a") is None
    way.do(conn.reset)


def test_a_connection_that_is_lost_in_a_checkout(way: Way) -> None:
    """redis-py's error; it never connects again, though the server is back."""
    with RedisServer() as server:
        conn = way.opened(*server.address)
        client = way.do(conn.lend)
        assert way.do(client.incr, "key") == 1
        server.kill()
        server.start()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                way.do(client.incr, "key")
        assert server.ask("EXISTS", "key") == 0
        with pytest.raises(Closed, match="not open and silent"):
            way.do(conn.reset)
        with pytest.raises(Closed, match="nothing was sent"):
            way.do(conn.lend)


def test_a_connection_that_was_lost_before(way: Way, conn: Any, server: RedisServer) -> None:
    """It is not lent."""
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(Closed, match="nothing was sent"):
        way.do(conn.lend)
    with pytest.raises(Closed):
        way.do(conn.reset)


def test_a_reply_that_was_not_read(way: Way) -> None:
    """The conn is given up, for it would be taken for that of the next caller."""
    with FakeRedis(GET=b"$1\r\na\r\n$1\r\nb\r\n") as fake:
        conn = way.opened(*fake.address)
        client = way.do(conn.lend)
        assert way.do(client.get, "key") == b"a"
        with pytest.raises(Closed, match="not open and silent"):
            way.do(conn.reset)


def test_a_time_limit_in_a_checkout(way: Way) -> None:
    """It is the conn's; and a conn that comes back has the limit of calls again."""
    with FakeRedis(GET=b"") as fake:
        conn = way.opened(*fake.address, timeout=0.05)
        client = way.do(conn.lend)
        with pytest.raises(redis.TimeoutError):
            way.do(client.get, "key")
        with pytest.raises(Closed):
            way.do(conn.reset)
        way.do(conn.init)
        way.do(conn.lend)
        way.do(conn.reset)
        with pytest.raises(TimeoutError, match="it may have been carried out"):
            way.do(conn.call, "GET", "key")


def test_loading_in_a_checkout(way: Way) -> None:
    """It comes as a ResponseError of ours: the connection goes on."""
    with FakeRedis(GET=b"-LOADING just a moment\r\n") as fake:
        conn = way.opened(*fake.address)
        client = way.do(conn.lend)
        with pytest.raises(Loading):
            way.do(client.get, "key")
        way.do(conn.reset)
        assert way.do(conn.check)


def test_a_client_shows_no_secret(way: Way) -> None:
    """Whatever is printed of it."""
    with RedisServer(password=SECRET) as server:
        conn = way.opened(*server.address, password=SECRET)
        client = way.do(conn.lend)
        way.do(client.ping)
        shown = [client, client.connection_pool, client.connection_pool.connection_kwargs, conn]
        assert SECRET not in repr(shown)
        way.do(conn.reset)


def test_closing_while_a_client_waits(way: Way) -> None:
    """Whoever holds the connection finds it at its end."""
    with FakeRedis(GET=b"") as fake:
        conn = way.opened(*fake.address)
        client = way.do(conn.lend)
        if isinstance(conn, AsyncRedisConn):

            async def main() -> None:
                call = asyncio.create_task(client.get("key"))
                while not fake.seen or fake.seen[-1][0] != b"GET":
                    await asyncio.sleep(0)
                await conn.close()
                with pytest.raises(redis.ConnectionError):
                    await call

            way.do(main)
        else:
            with ThreadPoolExecutor(1) as crowd:
                call = crowd.submit(client.get, "key")
                eventually(lambda: fake.seen[-1][0] == b"GET")
                conn.close()
                with pytest.raises(redis.ConnectionError):
                    call.result(PATIENCE)
        eventually(lambda: fake.left == 1)
        assert not way.do(conn.check)
