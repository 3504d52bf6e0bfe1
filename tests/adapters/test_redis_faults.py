"""The conns to Redis when things go wrong: what their callers get, and what becomes of the conn."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from connpool import Busy, CallError, Closed
from connpool.adapters.redis import (
    AsyncRedisConn,
    Loading,
    ProtocolError,
    RedisConn,
    ReplyLost,
    ScriptRuns,
)
from tests.servers.redis import RedisServer

from . import PATIENCE, eventually, soon
from .redis_fake import OK, FakeRedis, hang_up, reset
from .redis_ways import WAYS, Asyncio, Threads, Way

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
HUGE = b"x" * 20_000_000  # more than what the kernel takes for a server that does not read


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


@pytest.fixture
def fake() -> Iterator[FakeRedis]:
    with FakeRedis() as fake:
        yield fake


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as way:
        yield way


def assert_dead(way: Way, conn: Any) -> None:
    """It knows that it is, and whatever is called next did not happen."""
    assert not way.do(conn.check)
    with pytest.raises(Closed, match="nothing was sent"):
        way.do(conn.call, "GET", "key")
    assert repr(conn).endswith("closed>")
    way.do(conn.init)
    assert way.do(conn.check)


# -- what is found before anything is sent


def test_a_server_that_restarted_while_the_conn_was_idle(way: Way) -> None:
    """The call did not happen; after another init it does."""
    with RedisServer() as server:
        conn = way.opened(*server.address)
        for end in (server.kill, server.stop):
            end()
            assert not way.do(conn.check)
            server.start()
            with pytest.raises(Closed, match="nothing was sent"):
                way.do(conn.call, "INCR", "key")
            way.do(conn.init)
            assert way.do(conn.call, "INCR", "key") == 1


def test_a_connection_that_was_ended_while_it_was_idle(way: Way, server: RedisServer) -> None:
    """By a timeout of the server, say."""
    conn = way.opened(*server.address)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert_dead(way, conn)


@pytest.mark.parametrize("data", [OK, b"$5\r\nhel", b"-ERR bye\r\n"])
def test_what_comes_unasked(way: Way, fake: FakeRedis, data: bytes) -> None:
    """It would be taken for the next reply: so nobody reads it."""
    conn = way.opened(*fake.address)
    way.do(conn.call, "GET", "key")
    fake.say(data)
    eventually(lambda: not way.do(conn.check))
    assert_dead(way, conn)


@pytest.mark.parametrize("tail", [OK, b"$", b"-LOADING later\r\n"])
def test_more_than_was_asked_for(way: Way, fake: FakeRedis, tail: bytes) -> None:
    """What comes in one packet with a reply is left unread too."""
    conn = way.opened(*fake.address)
    fake.answers["GET"] = b":1\r\n" + tail
    assert way.do(conn.call, "GET", "key") == 1
    assert_dead(way, conn)


# -- what happens to a call


@pytest.mark.parametrize("method", ["GET", "pipeline"])
@pytest.mark.parametrize("end", [hang_up, reset])
@pytest.mark.parametrize("half", [b"", b"$5\r\nhel"])
def test_a_lost_reply(way: Way, fake: FakeRedis, method: str, end: Any, half: bytes) -> None:
    """It may have been carried out: the caller is told so, and nobody tries again."""

    def answer(sock: Any) -> None:
        sock.sendall(half)
        end(sock)

    conn = way.opened(*fake.address)
    fake.answers["GET"] = answer
    with pytest.raises(ReplyLost, match=f"before the reply to {method} came: it may have been"):
        way.do(conn.call, method, [("GET", "key")] if method == "pipeline" else "key")
    assert sum(words[0] == b"GET" for words in fake.seen) == 1
    assert_dead(way, conn)


@pytest.mark.parametrize("half", [b"", b"*2\r\n$3\r\nabc\r\n$3\r\nab"])
def test_a_reply_that_does_not_come(way: Way, fake: FakeRedis, half: bytes) -> None:
    """The caller gets a TimeoutError, and the reply, whenever it comes, nobody."""
    fake.answers["GET"] = half
    conn = way.opened(*fake.address, timeout=0.05)
    with pytest.raises(TimeoutError, match="before the reply to GET came: it may have been"):
        way.do(conn.call, "GET", "key")
    assert_dead(way, conn)


def test_a_server_that_hangs(way: Way, server: RedisServer) -> None:
    """The same with a real one; the command may well be carried out later."""
    conn = way.opened(*server.address, timeout=0.05)
    server.freeze()
    try:
        with pytest.raises(TimeoutError, match="it may have been carried out"):
            way.do(conn.call, "INCR", "key")
        assert not way.do(conn.check)
    finally:
        server.thaw()
    eventually(lambda: server.ask("GET", "key") == "1")


def test_a_reply_in_drops(fake: FakeRedis) -> None:
    """In tasks the limit is for all of a call, however much of its reply has come."""
    over = threading.Event()

    def drip(sock: Any) -> None:
        sock.sendall(b"$1000\r\n")
        while not over.wait(0.02):
            sock.sendall(b"x")

    fake.answers["GET"] = drip
    with Asyncio() as way:
        conn = way.opened(*fake.address, timeout=0.2)
        way.do(conn.lend)
        way.do(conn.reset)
        with pytest.raises(TimeoutError, match="it may have been carried out"):
            way.do(conn.call, "GET", "key")
        over.set()
        assert_dead(way, conn)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n", b"\x00\x01\r\n"])
def test_what_is_no_reply(way: Way, fake: FakeRedis, answer: bytes) -> None:
    """Nothing can be read behind it."""
    conn = way.opened(*fake.address)
    fake.answers["GET"] = answer
    with pytest.raises(ProtocolError, match="it may have been carried out"):
        way.do(conn.call, "GET", "key")
    assert_dead(way, conn)


def test_a_reply_that_cannot_be_decoded(way: Way, server: RedisServer) -> None:
    """Its caller is told, and the conn is not used again."""
    server.ask("EVAL", "redis.call('SET', 'key', '\\255\\254')", 0)
    conn = way.opened(*server.address, decode_responses=True)
    with pytest.raises(CallError, match="the reply to GET cannot be read: 'utf-8' codec") as caught:
        way.do(conn.call, "GET", "key")
    assert caught.value.closed
    assert_dead(way, conn)


def test_a_command_that_was_not_sent_in_whole(fake: FakeRedis) -> None:
    """On threads it is known that it was not, and so was not carried out."""
    with Threads() as way:
        conn = way.opened(*fake.address)
        fake.deaf = True
        with pytest.raises(Closed, match="SET was not sent in whole"):
            way.do(conn.call, "SET", ("key", HUGE))
        assert_dead(way, conn)


def test_a_command_of_which_some_was_sent(fake: FakeRedis) -> None:
    """In tasks, where others do the sending, and of a pipeline, it cannot be known."""
    for kind, method, payload in [
        (Asyncio, "SET", ("key", HUGE)),
        (Asyncio, "pipeline", [("SET", "key", HUGE)]),
        (Threads, "pipeline", [("SET", "a", 1), ("SET", "key", HUGE)]),
    ]:
        with kind() as way:
            conn = way.opened(*fake.address)
            fake.deaf = True
            with pytest.raises(ReplyLost, match="it may have been carried out"):
                way.do(conn.call, method, payload)
            assert_dead(way, conn)


def test_a_server_that_does_not_read(server: RedisServer) -> None:
    """The time limit is for sending too: what has not left was no command."""
    with Threads() as way:
        conn = way.opened(*server.address, timeout=0.05)
        server.freeze()
        try:
            with pytest.raises(TimeoutError, match="before SET was sent in whole"):
                way.do(conn.call, "SET", ("key", HUGE))
            assert not way.do(conn.check)
        finally:
            server.thaw()
        eventually(lambda: server.clients() == 0)
        assert server.ask("EXISTS", "key") == 0


# -- what a server says of itself


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (LOADING, "GET was refused: Redis is loading"),
        (b"-BUSY Redis is busy running a script\r\n", "GET was refused: Redis is busy"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "GET was refused: Link with MASTER"),
    ],
)
def test_not_now(way: Way, fake: FakeRedis, answer: bytes, text: str) -> None:
    """The call did not happen, and the conn is as good as before."""
    conn = way.opened(*fake.address)
    fake.answers["GET"] = answer
    for _ in range(2):
        with pytest.raises(Busy, match=text) as caught:
            way.do(conn.call, "GET", "key")
        assert caught.value.cooldown == 0  # nobody knows
        assert way.do(conn.check)
    fake.answers["GET"] = OK
    assert way.do(conn.call, "GET", "key") == b"OK"
    assert len(fake.socks) == 1


def test_a_pipeline_that_was_refused_as_a_whole(way: Way, fake: FakeRedis) -> None:
    """Nothing of it happened; but once anything may have, its caller is to decide."""
    conn = way.opened(*fake.address)
    fake.answers["GET"] = fake.answers["EVAL"] = LOADING
    with pytest.raises(Busy, match="the pipeline was refused as a whole"):
        way.do(conn.call, "pipeline", [("GET", "a"), ("GET", "b")])
    replies = way.do(conn.call, "pipeline", [("GET", "a"), ("SET", "a", 1)])
    assert [type(reply) for reply in replies] == [Loading, bytes]
    replies = way.do(conn.call, "pipeline", [("EVAL", "code", 0)])
    assert [type(reply) for reply in replies] == [Loading]
    assert way.do(conn.check)


@pytest.mark.parametrize("method", ["EVAL", "FT.SEARCH"])
def test_what_a_script_says_is_not_taken_for_the_servers(
    way: Way, fake: FakeRedis, method: str
) -> None:
    """It may have done half of its work before: so it is not tried again."""
    conn = way.opened(*fake.address)
    fake.answers[method] = b"-BUSY with other things\r\n"
    with pytest.raises(ScriptRuns):
        way.do(conn.call, method, "code")
    fake.answers[method] = b"-NOAUTH Authentication required.\r\n"
    with pytest.raises(ReplyLost, match="it may have been carried out"):
        way.do(conn.call, method, "code")


def test_a_login_that_is_no_longer_good(way: Way, fake: FakeRedis) -> None:
    """The call did not happen: it moves, and the next init logs in again."""
    conn = way.opened(*fake.address)
    fake.answers["GET"] = b"-NOAUTH Authentication required.\r\n"
    with pytest.raises(Closed, match="GET was refused: Authentication required"):
        way.do(conn.call, "GET", "key")
    assert_dead(way, conn)


def test_a_master_that_has_become_a_replica(way: Way, server: RedisServer) -> None:
    """The caller gets an error; the conn is given up, for its address may lead elsewhere now."""
    conn, other = way.opened(*server.address), way.opened(*server.address)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        assert way.do(conn.call, "GET", "key") is None
        with pytest.raises(CallError, match="READONLY You can't write") as caught:
            way.do(conn.call, "SET", ("key", 1))
        assert caught.value.closed
        assert isinstance(caught.value.__cause__, redis.exceptions.ReadOnlyError)
        replies = way.do(other.call, "pipeline", [("GET", "key"), ("SET", "key", 1)])
        assert isinstance(replies[1], redis.exceptions.ReadOnlyError)
        assert_dead(way, conn)
        assert_dead(way, other)
    finally:
        server.ask("REPLICAOF", "NO", "ONE")


def test_a_replica_without_its_master(way: Way, server: RedisServer) -> None:
    """It may refuse to serve old data: not now."""
    conn = way.opened(*server.address)
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(Busy, match="Link with MASTER is down"):
            way.do(conn.call, "GET", "key")
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
    assert way.do(conn.call, "GET", "key") is None


def test_a_server_that_runs_a_script(way: Way, server: RedisServer) -> None:
    """It refuses whatever else it is asked meanwhile: not now."""
    conn = way.opened(*server.address)
    server.ask("CONFIG", "SET", "lua-time-limit", "1")
    script = threading.Thread(target=run_for_ever, args=(server,))
    script.start()
    try:
        eventually(lambda: is_busy(way, conn))
    finally:
        server.ask("SCRIPT", "KILL")
        script.join(PATIENCE)
    assert way.do(conn.call, "GET", "key") is None


def run_for_ever(server: RedisServer) -> None:
    with pytest.raises(redis.ResponseError, match="killed"):
        server.ask("EVAL", "while true do end", 0)


def is_busy(way: Way, conn: Any) -> bool:
    try:
        way.do(conn.call, "GET", "key")
    except Busy:
        return True
    return False


# -- callers that leave


def test_an_interrupted_call(fake: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its conn closed: the reply on its way reaches nobody."""
    with Threads() as way:
        conn = way.opened(*fake.address)

        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(conn._conn, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            way.do(conn.call, "GET", "key")
        assert_dead(way, conn)


def test_a_cancelled_call(fake: FakeRedis) -> None:
    """The same; one that only waits for its turn closes nothing."""

    async def main() -> None:
        conn = AsyncRedisConn(*fake.address, timeout=PATIENCE)
        await conn.init()
        fake.answers["GET"] = b""
        call = asyncio.create_task(conn.call("GET", "key"))
        await soon(lambda: [b"GET", b"key"] in fake.seen)
        second = asyncio.create_task(conn.call("SET", ("key", 1)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert conn._conn is not None
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not await conn.check()
        with pytest.raises(Closed):
            await conn.call("SET", ("key", 1))
        assert not any(words[0] == b"SET" for words in fake.seen)
        await conn.init()
        assert await conn.call("SET", ("key", 1)) == b"OK"
        await conn.close()

    asyncio.run(main())


def test_a_cancelled_init(fake: FakeRedis) -> None:
    """It leaves no connection behind."""

    async def main() -> None:
        fake.answers["COMMAND"] = b""
        conn = AsyncRedisConn(*fake.address)
        opening = asyncio.create_task(conn.init())
        await soon(lambda: any(words[0] == b"COMMAND" for words in fake.seen))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not await conn.check()
        await soon(lambda: fake.left == 1)

    asyncio.run(main())


def test_a_close_wakes_the_call(fake: FakeRedis) -> None:
    """Of another thread or task, which is told that its call may have been carried out."""
    fake.answers["GET"] = b""
    conn = RedisConn(*fake.address, timeout=PATIENCE)
    conn.init()
    with ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(conn.call, "GET", "key")
        eventually(lambda: [b"GET", b"key"] in fake.seen)
        conn.close()
        with pytest.raises(ReplyLost):
            call.result(PATIENCE)
    assert not conn.check()

    async def main() -> None:
        conn = AsyncRedisConn(*fake.address, timeout=PATIENCE)
        await conn.init()
        call = asyncio.create_task(conn.call("GET", "other"))
        await soon(lambda: [b"GET", b"other"] in fake.seen)
        await conn.close()
        with pytest.raises(ReplyLost):
            await call

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_connection_to_the_parent(server: RedisServer) -> None:
    """In the child a call did not happen, and what is closed there goes on here."""
    conn = RedisConn(*server.address)
    conn.init()
    if (child := os.fork()) == 0:
        try:
            with pytest.raises(Closed):
                conn.call("INCR", "key")
            assert not conn.check()
            conn.close()
            conn.init()
            os._exit(0 if conn.call("INCR", "child") == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert conn.call("MGET", ("key", "child")) == [None, b"1"]
    client: Any = conn.lend()
    pubsub = client.pubsub()
    pubsub.subscribe("channel")
    if (child := os.fork()) == 0:
        try:
            conn.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert pubsub.get_message(timeout=PATIENCE)["type"] == "subscribe"
    assert server.ask("PUBLISH", "channel", "hello") == 1
    assert pubsub.get_message(timeout=PATIENCE)["data"] == b"hello"
    conn.close()


def test_callers_of_a_shared_conn_take_turns(way: Way, server: RedisServer) -> None:
    """As those do to whom it was routed: each gets his own reply."""
    conn = way.opened(*server.address)
    words = [f"word-{n}" for n in range(200)]
    if isinstance(way, Threads):
        with ThreadPoolExecutor(8) as crowd:
            replies = list(crowd.map(lambda word: conn.call("ECHO", word), words))
    else:

        async def main() -> list[Any]:
            return list(await asyncio.gather(*(conn.call("ECHO", word) for word in words)))

        replies = way.do(main)
    assert replies == [word.encode() for word in words]


def test_a_conn_from_a_loop_that_has_ended(server: RedisServer) -> None:
    """It can be initialised again, and closed, in another one."""
    conn = AsyncRedisConn(*server.address)

    async def main() -> None:
        await conn.init()
        assert await conn.call("ECHO", "x") == b"x"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody has closed the first one
        asyncio.run(main())
        asyncio.run(main())
        asyncio.run(conn.close())
        gc.collect()
    assert server.clients() == 0
