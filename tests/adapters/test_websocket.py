"""The conns that speak JSON-RPC over a websocket, against a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Backoff, Busy, CallError, Closed, InitError, Pool
from connpool.adapters.websocket import (
    AsyncWebSocketConn,
    CallTimeout,
    JsonRpcError,
    ProtocolError,
    ReplyLost,
    WebSocketConn,
)
from connpool.conn import check_conn, describe
from connpool.testing import FaultProxy

from ..servers.websocket import METHODS, WebSocketServer
from . import PATIENCE, eventually, soon
from .two_ways import Asyncio, Threads, Way

SHORT = 0.2  # seconds that a call may take, where that is what is tried
HUGE = ["x" * 8_000_000]  # more than what the kernel takes for a server that does not read

# On threads the version before neither pings by itself, nor lets go of a reader that is stuck.
from_15 = pytest.mark.skipif(
    not WebSocketConn._takes("ping_interval"), reason="needs websockets 15 or later"
)


@pytest.fixture
def server() -> Iterator[WebSocketServer]:
    with WebSocketServer() as server:
        yield server


@pytest.fixture
def proxy(server: WebSocketServer) -> Iterator[FaultProxy]:
    with FaultProxy(*server.address) as proxy:
        yield proxy


class WebSocketWay:
    """A way, with what the conns here have in common."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.do, self.start, self.awaits = way.do, way.start, way.awaits

    def conn(self, url: str, **options: Any) -> Any:
        options = {"methods": METHODS, "call_timeout": PATIENCE, "close_timeout": 0.2, **options}
        return self.way.conn(url, **options)

    def opened(self, server: WebSocketServer, **options: Any) -> Any:
        conn = self.conn(server.url, **options)
        self.do(conn.init)
        return conn

    def through(self, proxy: FaultProxy, **options: Any) -> Any:
        conn = self.conn(f"ws://{proxy.host}:{proxy.port}/", **options)
        self.do(conn.init)
        return conn


@pytest.fixture(params=[(Threads, WebSocketConn), (Asyncio, AsyncWebSocketConn)])
def way(request: pytest.FixtureRequest, server: WebSocketServer) -> Iterator[WebSocketWay]:
    make, kind = request.param
    with make(kind) as way:
        yield WebSocketWay(way)


@pytest.fixture
def conn(way: WebSocketWay, server: WebSocketServer) -> Any:
    return way.opened(server)


def lost(conn: Any) -> list[Exception]:
    """What its on_lost is told."""
    told: list[Exception] = []
    conn.on_lost = told.append
    return told


# -- calls


def test_it_keeps_the_contract(way: WebSocketWay, conn: Any, server: WebSocketServer) -> None:
    """It is a conn of its kind, and says of itself what a pool wants to know."""
    check_conn(conn, awaits=way.awaits)
    said = describe(conn, way.do(conn.methods))
    assert said.resources == (server.url,)
    assert said.methods == set(METHODS)
    assert said.capacity == 100
    assert said.checks
    assert conn.survives_cancel is True
    assert conn.on_lost is None


def test_calls(way: WebSocketWay, conn: Any) -> None:
    """Params by place, by name or none; the reply is the result."""
    assert way.do(conn.call, "add", [1, 2]) == 3
    assert way.do(conn.call, "echo", {"a": [1, None]}) == {"a": [1, None]}
    assert way.do(conn.call, "echo") is None
    assert way.do(conn.check) is True


def test_the_server_lists_its_methods(way: WebSocketWay, server: WebSocketServer) -> None:
    """Where they are not given, they are asked for."""
    conn = way.opened(server, methods="rpc.methods")
    assert sorted(way.do(conn.methods)) == sorted(METHODS)
    other = way.opened(server, methods="echo")
    with pytest.raises(ProtocolError, match="expected a list of methods"):
        way.do(other.methods)


def test_replies_come_in_any_order(way: WebSocketWay, conn: Any, server: WebSocketServer) -> None:
    """Many calls on one connection, the later ones answered first, each with its own reply."""
    held = [way.start(conn.call, "hold", [number]) for number in range(50)]
    for _ in held:
        assert server.held.acquire(timeout=PATIENCE)
    for number in range(50):
        assert way.do(conn.call, "echo", [number]) == [number]
    assert not any(call.done() for call in held)
    server.let_go()
    assert [call.result(PATIENCE) for call in held] == list(range(50))
    assert server.clients == 1


def test_an_error_of_the_server_leaves_the_conn_well(way: WebSocketWay, conn: Any) -> None:
    """Its caller gets all of it."""
    with pytest.raises(JsonRpcError) as caught:
        way.do(conn.call, "error", [{"code": 7, "message": "no", "data": {"why": "because"}}])
    assert (caught.value.code, caught.value.message) == (7, "no")
    assert caught.value.data == {"why": "because"}
    assert way.do(conn.call, "add", [1]) == 1


def test_what_cannot_be_said_is_not_sent(
    way: WebSocketWay, conn: Any, server: WebSocketServer
) -> None:
    """TypeError and ValueError come before anything leaves, and the conn is well."""
    for method, payload, error in (
        ("echo", "text", TypeError),
        ("echo", [object()], TypeError),
        ("echo", ["x" * 2**20], ValueError),
        (None, None, TypeError),
    ):
        with pytest.raises(error):
            way.do(conn.call, method, payload)
    assert server.seen == []
    assert way.do(conn.call, "add", [1]) == 1


def test_a_rate_limit_is_busy(way: WebSocketWay, server: WebSocketServer) -> None:
    """A code that is said to mean "not now" does not reach the caller."""
    conn = way.opened(server, busy_codes={-32005: 2})
    with pytest.raises(Busy, match="slow down") as caught:
        way.do(conn.call, "error", [{"code": -32005, "message": "slow down"}])
    assert caught.value.cooldown == 2.0


# -- what the server says unasked


def test_pushes_go_to_the_callback(way: WebSocketWay, server: WebSocketServer) -> None:
    """In order; and without a callback they are dropped."""
    heard: list[Any] = []
    conn = way.opened(server, on_push=lambda *push: heard.append(push))
    assert way.do(conn.call, "push", [3]) == 3
    assert heard == [("tick", [0]), ("tick", [1]), ("tick", [2])]
    assert way.do(way.opened(server).call, "push", [3]) == 3


def test_a_callback_that_raises_hurts_nobody(
    way: WebSocketWay, server: WebSocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and replies come as ever."""

    def fail(method: str, params: Any) -> None:
        raise ValueError("my own fault")

    conn = way.opened(server, on_push=fail)
    assert way.do(conn.call, "push", [2]) == 2
    assert way.do(conn.call, "add", [1]) == 1
    assert caplog.text.count("on_push failed") == 2
    assert "my own fault" in caplog.text


def test_a_callback_may_not_wait_for_its_own_thread(server: WebSocketServer) -> None:
    """A call from within is refused at once, instead of waiting for itself."""
    errors: list[Exception] = []

    def call_back(method: str, params: Any) -> None:
        try:
            mine.call("add", [1])
        except RuntimeError as error:
            errors.append(error)

    mine = WebSocketConn(server.url, methods=METHODS, on_push=call_back)
    mine.init()
    assert mine.call("push", [1]) == 1
    assert "on_push may not wait" in str(errors[0])
    mine.close()


@from_15
def test_a_callback_that_hangs_harms_its_own_conn_only(server: WebSocketServer) -> None:
    """Its conn's calls time out, and it can be closed all the same."""
    over = threading.Event()
    conn = WebSocketConn(
        server.url,
        methods=METHODS,
        on_push=lambda *_: over.wait(PATIENCE),
        call_timeout=SHORT,
        close_timeout=0.1,
    )
    conn.init()
    with pytest.raises(TimeoutError):
        conn.call("push", [100])
    conn.close()
    over.set()
    with pytest.raises(Closed):
        conn.call("add", [1])


# -- the connection ends

ENDINGS: dict[str, Callable[[WebSocketServer], object]] = {
    "stopped": lambda server: server.stop(),
    "killed": lambda server: server.kill(),
    "cut": lambda server: server.cut(),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_calls_in_flight_are_lost(
    way: WebSocketWay, conn: Any, server: WebSocketServer, ending: str
) -> None:
    """Each gets an error that says that it may have been carried out; whoever listens is told."""
    told = lost(conn)
    calls = [way.start(conn.call, "hold", [number]) for number in range(5)]
    for _ in calls:
        assert server.held.acquire(timeout=PATIENCE)
    ENDINGS[ending](server)
    for call in calls:
        with pytest.raises(ReplyLost, match="may have been carried out"):
            call.result(PATIENCE)
    assert len(told) == 1
    assert isinstance(told[0], ConnectionError)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_idle_conn_learns_of_its_end(
    way: WebSocketWay, conn: Any, server: WebSocketServer, ending: str
) -> None:
    """It says so by itself; later calls surely did not happen, and init mends it."""
    told = lost(conn)
    ENDINGS[ending](server)
    eventually(lambda: told)
    assert way.do(conn.check) is False
    with pytest.raises(Closed, match="not sent"):
        way.do(conn.call, "do", [1])
    if ending != "cut":
        with pytest.raises(OSError, match=r"refused|Connect"):
            way.do(conn.init)
        server.start()
    way.do(conn.init)
    assert way.do(conn.call, "do", [2]) == 2
    assert server.done == {2: 1}
    assert len(told) == 1


def test_the_server_says_why(way: WebSocketWay, conn: Any) -> None:
    """Code and reason of its close are in the error."""
    with pytest.raises(ReplyLost, match=r"4000.*back soon"):
        way.do(conn.call, "close", [4000, "back soon"])


@pytest.mark.parametrize("nonsense", ["garbage", "[]", '{"id": 999, "result": 1}', '{"id": 1}'])
def test_nonsense_ends_the_connection(way: WebSocketWay, conn: Any, nonsense: str) -> None:
    """What comes after it cannot be trusted: the error quotes it."""
    told = lost(conn)
    with pytest.raises(ReplyLost, match="got") as caught:
        way.do(conn.call, "raw", [nonsense])
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert isinstance(told[0], ProtocolError)
    with pytest.raises(Closed):
        way.do(conn.call, "add", [1])


def test_a_message_that_is_too_big_ends_the_connection(
    way: WebSocketWay, server: WebSocketServer
) -> None:
    """It is not even read."""
    conn = way.opened(server, max_size=1000)
    assert len(way.do(conn.call, "big", [900])) == 900
    with pytest.raises(ReplyLost, match="too big"):
        way.do(conn.call, "big", [1000])


def test_close_wakes_calls(way: WebSocketWay, conn: Any, server: WebSocketServer) -> None:
    """They are lost; nobody is told of an end that was asked for; closing again is fine."""
    told = lost(conn)
    call = way.start(conn.call, "hold", [1])
    assert server.held.acquire(timeout=PATIENCE)
    way.do(conn.close)
    way.do(conn.close)
    with pytest.raises(ReplyLost, match="it was closed, before the reply to hold came"):
        call.result(PATIENCE)
    with pytest.raises(Closed, match="it is closed"):
        way.do(conn.call, "add", [1])
    assert way.do(conn.check) is False
    assert told == []
    eventually(lambda: not server.clients)


def test_close_leaves_no_thread(server: WebSocketServer) -> None:
    """Neither ours nor the library's."""
    before = threading.active_count()
    conn = WebSocketConn(server.url, methods=METHODS)
    for _ in range(3):
        conn.init()
        assert conn.call("add", [1]) == 1
    conn.close()
    eventually(lambda: threading.active_count() == before)


def test_on_lost_that_raises_hurts_nobody(
    way: WebSocketWay, conn: Any, server: WebSocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the calls in flight learn what there is to learn."""

    def fail(error: Exception) -> None:
        raise ValueError("my own fault")

    conn.on_lost = fail
    call = way.start(conn.call, "hold", [1])
    assert server.held.acquire(timeout=PATIENCE)
    server.cut()
    with pytest.raises(ReplyLost):
        call.result(PATIENCE)
    assert "my own fault" in caplog.text


# -- nobody answers


def test_a_slow_call_does_not_end_the_connection(
    way: WebSocketWay, server: WebSocketServer
) -> None:
    """The server answers pings, so it is the call that is slow; its reply is dropped."""
    conn = way.opened(server, call_timeout=SHORT)
    with pytest.raises(CallTimeout, match="may have been carried out"):
        way.do(conn.call, "hold", [1])
    server.let_go()
    eventually(lambda: server.done == {1: 1})
    assert way.do(conn.call, "echo", [2]) == [2]
    assert way.do(conn.check) is True
    assert server.clients == 1


def test_a_silent_server_is_given_up(
    way: WebSocketWay, server: WebSocketServer, proxy: FaultProxy
) -> None:
    """Not even a ping was answered: the conn is dead, and so are its other calls."""
    conn = way.through(proxy, call_timeout=SHORT)
    told = lost(conn)
    proxy.black_hole()
    with pytest.raises(TimeoutError, match="nor any other sign of life") as caught:
        way.do(conn.call, "add", [1])
    assert not isinstance(caught.value, CallError)
    eventually(lambda: told)
    with pytest.raises(Closed):
        way.do(conn.call, "add", [1])


def test_check_pings(way: WebSocketWay, server: WebSocketServer, proxy: FaultProxy) -> None:
    """A connection that looks open but leads nowhere is found out, unless check is not to ask."""
    conn = way.through(proxy, check_timeout=SHORT)
    trusting = way.through(proxy, check_timeout=None)
    assert way.do(conn.check) is True
    proxy.black_hole()
    assert way.do(conn.check) is False
    assert way.do(trusting.check) is True


def test_check_ends_with_the_connection(
    way: WebSocketWay, server: WebSocketServer, proxy: FaultProxy
) -> None:
    """It does not wait for a ping that cannot be answered any more."""
    conn = way.through(proxy, check_timeout=10 * PATIENCE)
    proxy.stall_after(0)
    check = way.start(conn.check)
    eventually(lambda: proxy.held)
    proxy.reset()
    assert check.result(PATIENCE) is False


@from_15
def test_the_library_pings(way: WebSocketWay, server: WebSocketServer, proxy: FaultProxy) -> None:
    """Where nobody calls, its pings find out that the other side is gone."""
    conn = way.through(proxy, ping_interval=0.05, ping_timeout=0.05)
    told = lost(conn)
    proxy.black_hole()
    eventually(lambda: told)
    assert "ping timeout" in str(told[0])


def test_a_server_that_does_not_read(way: WebSocketWay, server: WebSocketServer) -> None:
    """A call that cannot be sent ends with its time; those behind it were never sent."""
    conn = way.opened(server, call_timeout=SHORT, max_size=None, compression=None)
    server.stop_reading()
    first = way.start(conn.call, "do", HUGE)
    behind = [way.start(conn.call, "do", [number]) for number in range(3)]
    with pytest.raises((TimeoutError, Closed)):
        first.result(PATIENCE)
    for call in behind:
        with pytest.raises((Busy, Closed, TimeoutError)):
            call.result(PATIENCE)
    eventually(lambda: way.do(conn.check) is False)
    assert not server.done


def test_close_does_not_wait_for_who_is_stuck(way: WebSocketWay, server: WebSocketServer) -> None:
    """Somebody sends to a server that does not read, and nothing limits him: close does."""
    conn = way.opened(server, call_timeout=None, max_size=None, compression=None)
    server.stop_reading()
    stuck = way.start(conn.call, "do", HUGE)
    with pytest.raises(TimeoutError):
        stuck.result(SHORT)
    way.do(conn.close)
    with pytest.raises((Closed, ReplyLost)):
        stuck.result(PATIENCE)


def test_without_a_limit_a_call_waits(way: WebSocketWay, server: WebSocketServer) -> None:
    """None means for as long as it takes."""
    conn = way.opened(server, call_timeout=None)
    call = way.start(conn.call, "hold", [1])
    assert server.held.acquire(timeout=PATIENCE)
    server.let_go()
    assert call.result(PATIENCE) == 1


# -- init


def test_nobody_listens(way: WebSocketWay, server: WebSocketServer) -> None:
    """The OSError of the system."""
    server.stop()
    with pytest.raises(OSError, match=r"refused|Connect"):
        way.do(way.conn(server.url).init)
    server.start()


def test_init_starts_afresh(way: WebSocketWay, conn: Any, server: WebSocketServer) -> None:
    """A connection that was open is closed, and leaves nothing behind."""
    way.do(conn.init)
    eventually(lambda: server.clients == 1)
    assert way.do(conn.call, "add", [1]) == 1


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (401, {}, None),
        (429, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "soon"}, None),
        (503, {"Retry-After": "1e300"}, 3600.0),
    ],
)
def test_the_server_says_no(
    way: WebSocketWay,
    server: WebSocketServer,
    status: int,
    headers: dict[str, str],
    after: float | None,
) -> None:
    """The status is told, and when it asks us to come back."""
    server.refuse = status, headers
    with pytest.raises(InitError, match=str(status)) as caught:
        way.do(way.conn(server.url).init)
    assert caught.value.retry_after == after


def test_what_listens_is_no_websocket(way: WebSocketWay, server: WebSocketServer) -> None:
    """It hangs up, or says something else."""
    server.refuse = 200, {"Upgrade": "nothing"}
    with pytest.raises((InitError, ConnectionError)):
        way.do(way.conn(server.url).init)


def test_an_init_that_hangs(way: WebSocketWay, server: WebSocketServer, proxy: FaultProxy) -> None:
    """It is given up after `connect_timeout`."""
    proxy.black_hole()
    conn = way.conn(f"ws://{proxy.host}:{proxy.port}/", connect_timeout=SHORT)
    with pytest.raises(TimeoutError):
        way.do(conn.init)


def test_trio_is_refused(server: WebSocketServer) -> None:
    """At once, and for good: the library has nothing but asyncio."""
    conn = AsyncWebSocketConn(server.url, methods=METHODS)
    with pytest.raises(InitError, match="needs asyncio") as caught:
        anyio.run(conn.init, backend="trio")
    assert caught.value.retry_after == math.inf


# -- options and secrets


def test_secrets_are_sent_and_not_shown(
    way: WebSocketWay, server: WebSocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    """User, query and headers reach the server, and no text; headers may be made anew."""
    caplog.set_level(logging.DEBUG)
    tokens = iter(("token-one", "token-two", "token-three"))
    url = f"ws://secret-user:secret-word@{server.host}:{server.port}/rpc?key=secret-key"
    conn = way.conn(url, headers=lambda: {"X-Token": next(tokens)})
    way.do(conn.init)
    way.do(conn.init)
    first, second = server.handshakes
    assert first.path == "/rpc?key=secret-key"
    assert first.headers["Authorization"].startswith("Basic ")
    assert [first.headers["X-Token"], second.headers["X-Token"]] == ["token-one", "token-two"]
    assert conn.resource == server.url
    texts = [repr(conn), str(conn.resource)]
    with pytest.raises(ReplyLost) as caught:
        way.do(conn.call, "close", [4000])
    texts.append(repr(caught.value))
    server.refuse = 401, {}
    with pytest.raises(InitError) as refused:
        way.do(conn.init)
    texts += [repr(refused.value), caplog.text]
    for text in texts:
        for secret in ("secret", "token-", first.headers["Authorization"]):
            assert secret not in text


def test_a_redirect_shows_no_secrets(way: WebSocketWay, server: WebSocketServer) -> None:
    """Where the library names a URL, it is without its query."""
    server.refuse = 302, {"Location": "http://elsewhere/?key=secret-key"}
    with pytest.raises((InitError, ConnectionError)) as caught:
        way.do(way.conn(server.url).init)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["http://secret@a/", "ws://", "ws://a/?secret#part", "secret@", ""])
def test_a_wrong_url(url: str) -> None:
    """It is refused at once, and what may be secret in it is not shown."""
    with pytest.raises(ValueError, match="expected ws:// or wss://") as caught:
        WebSocketConn(url, methods=[])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"methods": None}, TypeError),
        ({"methods": [1]}, TypeError),
        ({"capacity": 0}, ValueError),
        ({"call_timeout": 0}, ValueError),
        ({"connect_timeout": -1}, ValueError),
        ({"check_timeout": "5"}, TypeError),
        ({"close_timeout": None}, TypeError),
        ({"ping_interval": 0}, ValueError),
        ({"max_size": 0}, ValueError),
        ({"busy_codes": [1]}, TypeError),
        ({"on_push": "print"}, TypeError),
        ({"on_push": asyncio.sleep}, TypeError),
    ],
)
@pytest.mark.parametrize("kind", [WebSocketConn, AsyncWebSocketConn])
def test_a_wrong_option(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    """It is found when the conn is made, and named."""
    with pytest.raises(error, match=next(iter(options))):
        kind("ws://a/", **{"methods": [], **options})


def test_more_options_go_to_the_library(way: WebSocketWay) -> None:
    """Subprotocols, for one."""
    with WebSocketServer(subprotocols=["v1.rpc"]) as server:
        conn = way.opened(server, subprotocols=["v1.rpc"])
        assert way.do(conn.call, "add", [1]) == 1
        assert server.handshakes[0].headers["Sec-WebSocket-Protocol"] == "v1.rpc"


# -- in a pool


def test_threads_share_a_conn(server: WebSocketServer) -> None:
    """Many callers at once, one connection."""
    with Pool(timeout=PATIENCE) as pool, Threads(WebSocketConn) as way:
        pool.init(WebSocketConn(server.url, methods=METHODS, capacity=20))
        held = [way.start(pool.call, server.url, "hold", [number]) for number in range(19)]
        for _ in held:
            assert server.held.acquire(timeout=PATIENCE)
        assert pool.call(server.url, "add", [1, 2]) == 3
        server.let_go()
        assert [call.result(PATIENCE) for call in held] == list(range(19))
        with pytest.raises(JsonRpcError):
            pool.call(server.url, "error", [{"code": 1, "message": "no"}])
        assert len(pool) == server.clients == 1


def test_a_restart_moves_what_was_not_sent(server: WebSocketServer) -> None:
    """A call that finds its conn gone waits until it is revived, and happens once."""
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        conn = WebSocketConn(server.url, methods=METHODS)
        pool.init(conn, revive=True)
        server.stop()
        eventually(lambda: not conn.check())
        server.start()
        assert pool.call(server.url, "do", [1]) == 1
        assert server.done == {1: 1}


def test_a_pool_is_told_of_a_loss(server: WebSocketServer) -> None:
    """A conn that nobody uses is revived before anybody does."""
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        number = pool.init(WebSocketConn(server.url, methods=METHODS), revive=True)
        server.cut()
        eventually(lambda: len(server.handshakes) == 2)
        eventually(lambda: pool.info(number).state == "ready")
        assert pool.call(server.url, "do", [1]) == 1
        assert pool.stats().since_start.moved == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pool_of_tasks_is_told_of_a_loss(server: WebSocketServer) -> None:
    """The same in tasks."""
    async with AsyncPool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        number = await pool.init(AsyncWebSocketConn(server.url, methods=METHODS), revive=True)
        server.cut()
        await soon(lambda: len(server.handshakes) == 2)
        await soon(lambda: pool.info(number).state == "ready")
        assert await pool.call(server.url, "do", [1]) == 1
        assert pool.stats().since_start.moved == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_call_keeps_its_conn(server: WebSocketServer) -> None:
    """The conn serves on, and the late reply reaches nobody."""
    async with AsyncPool(timeout=PATIENCE) as pool:
        conn = AsyncWebSocketConn(server.url, methods=METHODS, resource="rpc", capacity=2)
        number = await pool.init(conn)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.call, "rpc", "hold", ["late"])
            await soon(lambda: server.seen)
            tasks.cancel_scope.cancel()
        assert number in pool
        server.let_go()
        await soon(lambda: server.done["late"])
        for text in ("a", "b", "c"):
            assert await pool.call("rpc", "echo", [text]) == [text]
        assert server.clients == 1
    assert [task for task in asyncio.all_tasks() if "connpool" in task.get_name()] == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_storm_of_cancellations(server: WebSocketServer) -> None:
    """Half of the callers leave, each at a moment of its own; the others get their own replies."""
    wrong: list[Any] = []

    async def work(number: int) -> None:
        with anyio.move_on_after(0.0005 * (number % 20) if number % 2 else PATIENCE):
            reply = await pool.call("rpc", "echo", [number])
            if reply != [number]:
                wrong.append((number, reply))

    async with AsyncPool(timeout=PATIENCE) as pool:
        conn = AsyncWebSocketConn(server.url, methods=METHODS, resource="rpc", capacity=5)
        await pool.init(conn)
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(work, number)
        assert await pool.call("rpc", "echo", ["end"]) == ["end"]
        assert server.clients == 1
    assert wrong == []


def test_an_interrupt_while_waiting_keeps_the_conn(
    server: WebSocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C in the wait for a reply: the reply is dropped, the connection stays."""
    conn = WebSocketConn(server.url, methods=METHODS)
    conn.init()
    link: Any = conn._link

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(link, "wait", interrupt)
        conn.call("do", ["mine"])
    assert conn.call("echo", ["next"]) == ["next"]
    assert len(link.calls) == 0
    conn.close()


def test_an_interrupt_while_sending_ends_the_connection(
    server: WebSocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a message may be out: nothing must follow it."""
    conn = WebSocketConn(server.url, methods=METHODS)
    conn.init()
    told = lost(conn)
    link: Any = conn._link

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(link._ws, "send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        conn.call("do", ["mine"])
    eventually(lambda: told)
    with pytest.raises(Closed):
        conn.call("do", ["next"])
    conn.close()
    assert not server.done


def test_messages_are_what_json_rpc_says(conn: Any, way: WebSocketWay, server: Any) -> None:
    """A server that reads the specification can read us."""
    way.do(conn.call, "add", [1, 2])
    assert [json.loads(text) for text in server.seen] == [
        {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2]}
    ]


def test_the_clock_is_not_read_for_nothing(server: WebSocketServer) -> None:
    """A time limit counts from the call, whatever sending it took."""
    with FaultProxy(*server.address) as proxy, Threads(WebSocketConn) as way:
        conn = way.conn(f"ws://{proxy.host}:{proxy.port}/", methods=METHODS, call_timeout=SHORT)
        conn.init()
        started = time.monotonic()
        with pytest.raises(CallTimeout):
            conn.call("hold", [1])
        assert time.monotonic() - started >= SHORT
