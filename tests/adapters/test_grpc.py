"""The conns over gRPC channels, against a real server."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import grpc
import pytest

from connpool import AsyncPool, Backoff, Busy, CallError, Closed, InitError, Pool, PoolTimeout
from connpool.adapters.grpc import AsyncGrpcConn, GrpcConn, Method, ReplyLost
from connpool.adapters.grpc_client import HEALTH
from connpool.adapters.text_server import TextServer
from connpool.conn import check_conn, describe
from connpool.testing import FaultProxy

from ..servers.grpc import PLAIN, SERVICE, GrpcServer
from . import PATIENCE, eventually, soon
from .two_ways import Asyncio, Threads, Way

SHORT = 0.2  # seconds that a call may take, where that is what is tried

METHODS: dict[str, Any] = {
    **PLAIN,
    "Count": Method(f"/{SERVICE}/Count", str.encode, int, many_replies=True),
    "Sum": Method(f"/{SERVICE}/Sum", lambda n: b"%d" % n, int, many_requests=True),
    "Chat": Method(f"/{SERVICE}/Chat", many_requests=True, many_replies=True),
}


class BooksStub:
    """What generated code looks like."""

    def __init__(self, channel: Any) -> None:
        self.Echo = channel.unary_unary(f"/{SERVICE}/Echo", str.encode, bytes.decode)
        self.Count = channel.unary_stream(f"/{SERVICE}/Count", str.encode, int)
        self.Sum = channel.stream_unary(f"/{SERVICE}/Sum", str.encode, int)
        self.Chat = channel.stream_stream(f"/{SERVICE}/Chat", str.encode, bytes.decode)


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as server:
        yield server


@pytest.fixture
def proxy(server: GrpcServer) -> Iterator[FaultProxy]:
    with FaultProxy(*server.address) as proxy:
        yield proxy


@pytest.fixture(params=[(Threads, GrpcConn), (Asyncio, AsyncGrpcConn)])
def way(request: pytest.FixtureRequest, server: GrpcServer) -> Iterator[Way]:
    make, kind = request.param
    with make(kind) as way:
        yield way


def opened(way: Way, server: GrpcServer | FaultProxy, **options: Any) -> Any:
    """A conn, initialised."""
    host, port = server.address
    options = {"methods": METHODS, "call_timeout": PATIENCE, **options}
    return way.opened(f"{host}:{port}", **options)


@pytest.fixture
def conn(way: Way, server: GrpcServer) -> Any:
    return opened(way, server)


def held(server: GrpcServer) -> None:
    """Wait until one more call is held."""
    assert server.held.acquire(timeout=PATIENCE)


def fail(code: str, **more: Any) -> bytes:
    return json.dumps({"code": code, **more}).encode()


# -- calls


def test_it_keeps_the_contract(way: Way, conn: Any, server: GrpcServer) -> None:
    """It is a conn of its kind, and says of itself what a pool wants to know."""
    check_conn(conn, awaits=way.awaits)
    said = describe(conn, way.do(conn.methods))
    assert said.resources == (server.target,)
    assert said.methods == METHODS.keys()
    assert said.capacity == 100
    assert said.checks
    assert conn.survives_cancel is True


def test_each_kind_of_method(way: Way, conn: Any) -> None:
    """One request or many, one reply or many."""
    assert way.do(conn.call, "Echo", b"hello") == b"hello"
    assert way.do(conn.call, "Echo") == b""
    assert way.do(conn.call, "Count", "3") == [0, 1, 2]
    assert way.do(conn.call, "Count", "0") == []
    assert way.do(conn.call, "Sum", [1, 2, 3]) == 6
    assert way.do(conn.call, "Chat", (b"a", b"b")) == [b"a", b"b"]
    assert way.do(conn.check) is True


def test_generated_code(way: Way, server: GrpcServer) -> None:
    """The methods are those of the stub, and what is described besides."""
    conn = opened(way, server, stub=BooksStub, methods={"Do": PLAIN["Do"]})
    assert sorted(way.do(conn.methods)) == ["Chat", "Count", "Do", "Echo", "Sum"]
    assert way.do(conn.call, "Echo", "hello") == "hello"
    assert way.do(conn.call, "Count", "2") == [0, 1]
    assert way.do(conn.call, "Sum", ["4", "5"]) == 9
    assert way.do(conn.call, "Chat", ["a"]) == ["a"]
    assert way.do(conn.call, "Do", b"this") == b"this"
    assert isinstance(way.do(conn.lend), BooksStub)


def test_an_async_iterable_of_requests(server: GrpcServer) -> None:
    """Tasks may make their requests as they go."""

    async def numbers() -> Any:
        for number in (1, 2):
            yield number

    with Asyncio(AsyncGrpcConn) as way:
        assert way.do(opened(way, server).call, "Sum", numbers()) == 3


@pytest.mark.parametrize(
    ("method", "payload"),
    [("Echo", "text"), ("Sum", None), ("Sum", b"12"), ("Nothing", b""), (["Echo"], b"")],
)
def test_a_wrong_call(way: Way, conn: Any, server: GrpcServer, method: Any, payload: Any) -> None:
    """It says what was expected, nothing is sent, and the conn stays."""
    known = method in ("Echo", "Sum")
    with pytest.raises(TypeError if known else CallError, match="expected"):
        way.do(conn.call, method, payload)
    assert server.peers == []
    assert way.do(conn.call, "Echo", b"next") == b"next"


def test_many_calls_on_one_connection(way: Way, conn: Any, server: GrpcServer) -> None:
    """They do not wait for one another."""
    calls = [way.start(conn.call, "Hold", b"%d" % n) for n in range(20)]
    for _ in calls:
        held(server)
    assert way.do(conn.call, "Echo", b"now") == b"now"
    server.let_go()
    assert [call.result(PATIENCE) for call in calls] == [b"%d" % n for n in range(20)]
    assert len(set(server.peers)) == 1


def test_each_conn_is_a_connection_of_its_own(way: Way, server: GrpcServer) -> None:
    """The library would share one among all that lead to the same server."""
    for _ in range(3):
        way.do(opened(way, server).call, "Echo", b"")
    assert len(set(server.peers)) == 3


# -- statuses


@pytest.mark.parametrize(
    "code", ["NOT_FOUND", "UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED"]
)
@pytest.mark.parametrize("metadata", [[], [["why", "because"]]])
def test_a_status_of_the_server(
    way: Way, conn: Any, server: GrpcServer, code: str, metadata: Any
) -> None:
    """Its caller gets the library's own error; the conn is well."""
    with pytest.raises(grpc.RpcError) as caught:
        way.do(conn.call, "Fail", fail(code, metadata=metadata))
    error: Any = caught.value
    assert not isinstance(error, OSError)
    assert (error.code().name, error.details()) == (code, "told so")
    assert [list(pair) for pair in error.trailing_metadata()] == metadata
    assert way.do(conn.call, "Echo", b"next") == b"next"


# google.rpc.Status(code=8, details=[Any(RetryInfo(retry_delay=Duration(seconds=2, nanos=5e8)))])
RETRY_INFO = (
    b"\x08\x08\x1a\x33"
    b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo"
    b"\x12\x07\x0a\x05\x08\x02\x10\xff\x01"
)


@pytest.mark.parametrize(
    ("metadata", "rest"),
    [
        ([["retry-after", "3"]], 3.0),
        ([["grpc-retry-pushback-ms", "250"]], 0.25),
        ([["other", "x"], ["retry-after", "99999999"]], 3600.0),
    ],
)
def test_a_rate_limit_is_busy(way: Way, conn: Any, metadata: Any, rest: float) -> None:
    """Where the server says when to come back, the call did not happen and may move."""
    with pytest.raises(Busy, match="told so") as caught:
        way.do(conn.call, "Fail", fail("RESOURCE_EXHAUSTED", metadata=metadata))
    assert caught.value.cooldown == rest
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_rate_limit_in_detail(way: Way, conn: Any) -> None:
    """The same in the richer form that some servers use."""
    with pytest.raises(Busy) as caught:
        binary = [["grpc-status-details-bin", RETRY_INFO.hex()]]
        way.do(conn.call, "Fail", fail("RESOURCE_EXHAUSTED", binary=binary))
    assert caught.value.cooldown == pytest.approx(2 + 255e-9)


@pytest.mark.parametrize(
    "metadata", [[], [["retry-after", "soon"]], [["grpc-retry-pushback-ms", "-1"]]]
)
def test_a_limit_without_a_time_is_an_error(way: Way, conn: Any, metadata: Any) -> None:
    """It may mean that the request is too big, today and tomorrow."""
    with pytest.raises(grpc.RpcError) as caught:
        way.do(conn.call, "Fail", fail("RESOURCE_EXHAUSTED", metadata=metadata))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_requests_that_are_used_up_do_not_move(way: Way, conn: Any) -> None:
    """A list can be sent again, an iterator cannot: its caller gets the error."""
    with pytest.raises(Busy):
        way.do(conn.call, "Sum", [1, -2])
    with pytest.raises(grpc.RpcError):
        way.do(conn.call, "Sum", iter([1, -2]))


# -- the connection ends


@pytest.mark.parametrize("method", ["Hold", "Count"])
def test_calls_in_flight_are_lost(
    way: Way, server: GrpcServer, proxy: FaultProxy, method: str
) -> None:
    """Each gets an error that says that it may have been carried out."""
    conn = opened(way, proxy)
    payload = b"x" if method == "Hold" else "2h"
    calls = [way.start(conn.call, method, payload) for _ in range(3)]
    for _ in calls:
        held(server)
    proxy.reset()
    for call in calls:
        with pytest.raises(ReplyLost, match="may have been carried out") as caught:
            call.result(PATIENCE)
        assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert way.do(conn.check) is False


@pytest.mark.parametrize("how", ["reset", "drop", "stop"])
def test_an_idle_conn_that_was_lost(
    way: Way, server: GrpcServer, proxy: FaultProxy, how: str
) -> None:
    """What comes later surely did not happen; the library does not connect again by itself."""
    conn = opened(way, proxy)
    assert way.do(conn.call, "Echo", b"1") == b"1"
    if how == "stop":
        server.stop()
        server.start()
    else:
        getattr(proxy, how)()
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match="nothing was sent"):
        way.do(conn.call, "Do", b"2")
    with pytest.raises(Closed):
        way.do(conn.lend)
    way.do(conn.init)
    assert way.do(conn.call, "Do", b"3") == b"3"
    assert server.done == {b"3": 1}
    assert proxy.accepted == 2


def test_a_server_that_stops_while_it_works(way: Way, conn: Any, server: GrpcServer) -> None:
    """It says so itself, or the connection ends: the conn is lost either way."""
    call = way.start(conn.call, "Hold", b"x")
    held(server)
    server.stop()
    with pytest.raises(ReplyLost):
        call.result(PATIENCE)
    server.start()


def test_tasks_are_told_of_a_loss(server: GrpcServer, proxy: FaultProxy) -> None:
    """As soon as it happens, and once; not where the conn was closed."""
    told: list[Any] = []
    with Asyncio(AsyncGrpcConn) as way:
        conn, other = opened(way, proxy), opened(way, proxy)
        conn.on_lost = other.on_lost = told.append
        way.do(other.close)
        proxy.reset()
        eventually(lambda: told)
        way.do(conn.init)
        way.do(conn.close)
    assert len(told) == 1
    assert isinstance(told[0], ConnectionError)


def test_on_lost_that_raises_is_logged(
    server: GrpcServer, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """And that is all."""
    with Asyncio(AsyncGrpcConn) as way:
        opened(way, proxy).on_lost = lambda error: 1 // 0
        proxy.reset()
        eventually(lambda: "on_lost failed" in caplog.text)


@pytest.mark.parametrize("method", ["Hold", "Count", "Sum", "Chat"])
def test_close_ends_calls(way: Way, conn: Any, server: GrpcServer, method: str) -> None:
    """They are cancelled, on the server too, and lost; closing again is fine."""
    over = threading.Event()

    def requests() -> Iterator[Any]:
        yield 1 if method == "Sum" else b"1"
        server.held.release()
        over.wait(PATIENCE)

    async def requests_in_tasks() -> Any:
        yield 1 if method == "Sum" else b"1"
        server.held.release()
        await asyncio.to_thread(over.wait, PATIENCE)

    many = requests_in_tasks() if way.awaits else requests()
    call = way.start(conn.call, method, {"Hold": b"x", "Count": "1h"}.get(method, many))
    held(server)
    way.do(conn.close)
    way.do(conn.close)
    with pytest.raises(ReplyLost, match=f"before the reply to {method} came"):
        call.result(PATIENCE)
    with pytest.raises(Closed, match="is closed"):
        way.do(conn.call, "Echo", b"")
    with pytest.raises(Closed):
        way.do(conn.lend)
    assert way.do(conn.check) is False
    assert conn.channel is None
    # Chat's server has nothing to notice it by, and Sum's may never have heard of the call.
    if method in {"Hold", "Count"}:
        eventually(lambda: server.over == [False])
    over.set()


def test_a_failure_that_is_remembered_keeps_nothing_open(
    way: Way, server: GrpcServer, proxy: FaultProxy
) -> None:
    """Errors of the library hold calls, and these hold connections: ours do not."""
    kept: list[BaseException] = []

    lone = opened(way, proxy, call_timeout=SHORT)

    def ask() -> None:
        try:
            lone.call("Echo", b"x")
        except TimeoutError as error:
            kept.append(error)

    async def ask_in_a_task() -> None:
        try:
            await lone.call("Echo", b"x")
        except TimeoutError as error:
            kept.append(error)

    proxy.black_hole()
    gc.disable()
    try:
        way.do(ask_in_a_task if way.awaits else ask)
        way.do(lone.close)
        eventually(lambda: not proxy.connections)
    finally:
        gc.enable()
    assert isinstance(kept[0].__cause__, grpc.RpcError)


# -- deadlines


def test_a_slow_call_does_not_end_the_connection(way: Way, server: GrpcServer) -> None:
    """The deadline is over, but the server lives: its status says so."""
    conn = opened(way, server, timeouts={"Hold": SHORT})
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            way.do(conn.call, "Hold", b"x")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not isinstance(caught.value, OSError)
    assert way.do(conn.call, "Echo", b"next") == b"next"
    eventually(lambda: server.over == [False, False])


def test_a_silent_server_is_given_up(way: Way, server: GrpcServer, proxy: FaultProxy) -> None:
    """The deadline is over, and nothing is heard: the conn is dead."""
    conn = opened(way, proxy, call_timeout=SHORT)
    proxy.black_hole()
    with pytest.raises(TimeoutError, match="nor any other sign of life"):
        way.do(conn.call, "Echo", b"x")


def test_a_deadline_reaches_the_server(way: Way, server: GrpcServer) -> None:
    """It is told that nobody waits any more; None sets none."""
    conn = opened(way, server, call_timeout=SHORT, timeouts={"Hold": None})
    call = way.start(conn.call, "Hold", b"x")
    held(server)
    with pytest.raises(grpc.RpcError):
        way.do(conn.call, "Count", "1h")
    assert not call.done()
    server.let_go()
    assert call.result(PATIENCE) == b"x"


def test_check_may_ask(way: Way, server: GrpcServer, proxy: FaultProxy) -> None:
    """A connection that looks well and leads nowhere is found out, if check is to ask."""
    asking, trusting = opened(way, proxy, check_timeout=SHORT), opened(way, proxy)
    assert way.do(asking.check) is True
    assert way.do(trusting.check) is True
    proxy.black_hole()
    assert way.do(asking.check) is False
    assert way.do(trusting.check) is True


# -- init


def test_nobody_listens(way: Way, server: GrpcServer) -> None:
    """At once, and with the library's reason."""
    server.stop()
    with pytest.raises(ConnectionError, match="failed to connect"):
        opened(way, server)
    server.start()


def test_what_listens_is_no_grpc_server(way: Way) -> None:
    """The same."""
    with TextServer() as other, pytest.raises((ConnectionError, TimeoutError)):
        host, port = other.address
        way.opened(f"{host}:{port}", methods=METHODS, connect_timeout=1)


def test_an_init_that_hangs(way: Way, server: GrpcServer, proxy: FaultProxy) -> None:
    """It is given up after `connect_timeout`, and leaves no connection behind."""
    proxy.black_hole()
    with pytest.raises(TimeoutError, match="not connected within"):
        opened(way, proxy, connect_timeout=SHORT)
    proxy.heal()
    eventually(lambda: not proxy.connections)


def test_init_starts_afresh(way: Way, server: GrpcServer, proxy: FaultProxy) -> None:
    """The channel that was there is closed."""
    conn = opened(way, proxy)
    way.do(conn.init)
    eventually(lambda: proxy.connections == 1)
    assert way.do(conn.call, "Echo", b"x") == b"x"


def test_a_stub_that_is_none(way: Way, server: GrpcServer, proxy: FaultProxy) -> None:
    """It is found when the channel is there, and that is closed again."""
    with pytest.raises(TypeError, match="expected a class of generated code"):
        opened(way, proxy, stub=lambda channel: object.__new__(BooksStub))
    eventually(lambda: not proxy.connections)


def test_trio_is_refused(server: GrpcServer) -> None:
    """At once, and for good: the library has nothing but asyncio."""
    conn = AsyncGrpcConn(server.target, methods=METHODS)
    with pytest.raises(InitError, match="needs asyncio") as caught:
        anyio.run(conn.init, backend="trio")
    assert caught.value.retry_after == math.inf


# -- options and secrets


def test_metadata_is_sent_and_not_shown(
    way: Way, server: GrpcServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With each call; a function is asked each time."""
    tokens = iter(["secret-1", "secret-2", "secret-3"])
    conn = opened(way, server, metadata=lambda: {"authorization": next(tokens)})
    other = opened(way, server, metadata=[("authorization", "secret-0")])
    for caller in (conn, conn, other):
        way.do(caller.call, "Echo", b"")
    assert [said["authorization"] for said in server.metadata] == [
        "secret-1",
        "secret-2",
        "secret-0",
    ]
    with pytest.raises(grpc.RpcError) as caught:
        way.do(conn.call, "Fail", fail("NOT_FOUND"))
    wrong = opened(way, server, metadata=lambda: "secret")
    with pytest.raises(TypeError) as refused:
        way.do(wrong.call, "Echo", b"")
    for text in (repr(conn), repr(caught.value), str(refused.value), caplog.text):
        assert "secret" not in text


def test_credentials(way: Way) -> None:
    """A channel with them leads to a server that wants them."""
    with GrpcServer(grpc.local_server_credentials()) as server:
        conn = opened(way, server, credentials=grpc.local_channel_credentials())
        assert way.do(conn.call, "Echo", b"x") == b"x"


def test_options_of_the_channel(way: Way, server: GrpcServer) -> None:
    """They go to the library, beside those of the adapter."""
    conn = opened(way, server, options={"grpc.max_send_message_length": 10})
    with pytest.raises(grpc.RpcError) as caught:
        way.do(conn.call, "Echo", b"x" * 11)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert way.do(conn.call, "Echo", b"x") == b"x"


class Tag(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Sends something along."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[("tag", "on")]), request)


class AsyncTag(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(
            details._replace(metadata=grpc.aio.Metadata(("tag", "on"))), request
        )


def test_interceptors(way: Way, server: GrpcServer) -> None:
    """Calls go through them; what was lost is lost all the same."""
    conn = opened(way, server, interceptors=[AsyncTag() if way.awaits else Tag()])
    assert way.do(conn.call, "Echo", b"x") == b"x"
    assert server.metadata[0]["tag"] == "on"
    call = way.start(conn.call, "Hold", b"x")
    held(server)
    server.stop()
    with pytest.raises(ReplyLost):
        call.result(PATIENCE)
    server.start()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"methods": None}, "expected a stub, or methods"),
        ({"methods": ["Echo"]}, "methods: expected a mapping"),
        ({"methods": {"Echo": "Echo"}}, "path: expected /package.Service/Method"),
        ({"stub": "BooksStub"}, "stub: expected"),
        ({"capacity": 0}, "capacity: expected"),
        ({"call_timeout": 0}, "call_timeout: expected"),
        ({"timeouts": {"Echo": -1}}, r"timeouts\['Echo'\]: expected"),
        ({"connect_timeout": None}, "connect_timeout: expected"),
        ({"check_timeout": 0}, "check_timeout: expected"),
        ({"metadata": "secret"}, "metadata: expected"),
        ({"metadata": [(1, "secret")]}, "metadata: expected"),
        ({"options": 7}, "options: expected"),
    ],
)
@pytest.mark.parametrize("kind", [GrpcConn, AsyncGrpcConn])
def test_a_wrong_option(kind: Any, options: dict[str, Any], match: str) -> None:
    """It is found when the conn is made, and named."""
    with pytest.raises((TypeError, ValueError), match=match) as caught:
        kind("127.0.0.1:1", **{"methods": PLAIN, **options})
    assert "secret" not in str(caught.value)


def test_a_wrong_target() -> None:
    """It is a str."""
    with pytest.raises(TypeError, match="target: expected a str"):
        GrpcConn(None, methods=PLAIN)  # type: ignore[arg-type]


# -- callers that leave


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("method", "payload"), [("Hold", b"x"), ("Count", "2h")])
async def test_a_cancelled_call_is_cancelled_on_the_server(
    server: GrpcServer, method: str, payload: Any
) -> None:
    """Its stream ends, nothing else does, and whoever cancelled knows it again."""
    async with AsyncPool(timeout=PATIENCE) as pool:
        conn = AsyncGrpcConn(server.target, methods=METHODS, resource="books", capacity=2)
        number = await pool.init(conn)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.call, "books", method, payload)
            await anyio.to_thread.run_sync(held, server)
            tasks.cancel_scope.cancel()
        assert tasks.cancel_scope.cancelled_caught
        await soon(lambda: server.over == [False])
        assert number in pool
        assert await pool.call("books", "Echo", b"next") == b"next"
        with anyio.move_on_after(0.01) as scope:
            await pool.call("books", "Hold", b"y")
        assert scope.cancelled_caught
        assert await pool.call("books", "Echo", b"last") == b"last"
    assert len(set(server.peers)) == 1
    assert server.done == {}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_plain_asyncio_cancels_as_well(server: GrpcServer) -> None:
    """A task that is cancelled is cancelled, and leaves no other behind."""
    before = asyncio.all_tasks()
    conn = AsyncGrpcConn(server.target, methods=METHODS)
    await conn.init()
    task = asyncio.create_task(conn.call("Hold", b"x"))
    await anyio.to_thread.run_sync(held, server)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert await conn.call("Echo", b"next") == b"next"
    await conn.close()
    await soon(lambda: asyncio.all_tasks() == before)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_storm_of_cancellations(server: GrpcServer) -> None:
    """Half of the callers leave, each at a moment of its own; the others get their own replies."""
    wrong: list[Any] = []

    async def work(number: int) -> None:
        request = b"%d" % number
        with anyio.move_on_after(0.0005 * (number % 20) if number % 2 else PATIENCE):
            reply = await pool.call("books", "Echo", request)
            if reply != request:
                wrong.append((number, reply))

    async with AsyncPool(timeout=PATIENCE) as pool:
        conn = AsyncGrpcConn(server.target, methods=METHODS, resource="books", capacity=5)
        await pool.init(conn)
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(work, number)
        assert await pool.call("books", "Echo", b"end") == b"end"
    assert wrong == []
    assert len(set(server.peers)) == 1


def wait_for_rest(thread: int) -> None:
    """Until a thread has stood still for a while."""
    seen: list[Any] = []

    def rests() -> bool:
        frame = sys._current_frames()[thread]
        seen.append((frame.f_code, frame.f_lasti))
        return len(set(seen[-20:])) == 1 and len(seen) > 20

    eventually(rests)


@pytest.mark.parametrize(("method", "payload"), [("Hold", b"x"), ("Count", "2h"), ("Sum", None)])
def test_an_interrupted_call_is_cancelled_on_the_server(
    server: GrpcServer, method: str, payload: Any
) -> None:
    """A Ctrl-C in the wait ends its stream, and the conn serves on."""
    more = threading.Event()

    def requests() -> Iterator[int]:
        yield 1
        server.held.release()
        more.wait(PATIENCE)

    main = threading.get_ident()

    def interrupt() -> None:
        held(server)
        wait_for_rest(main)
        signal.pthread_kill(main, signal.SIGINT)

    with Pool(timeout=PATIENCE) as pool:
        number = pool.init(GrpcConn(server.target, methods=METHODS))
        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            pool.call(server.target, method, requests() if payload is None else payload)
        helper.join(PATIENCE)
        eventually(lambda: server.over == [False] or server.sums)
        more.set()
        assert number in pool
        assert pool.call(server.target, "Echo", b"next") == b"next"
    assert len(set(server.peers)) == 1


# -- in a pool


def test_a_restart_moves_what_was_not_sent(server: GrpcServer) -> None:
    """A call that finds its conn gone waits until it is revived, and happens once."""
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        conn = GrpcConn(server.target, methods=METHODS)
        pool.init(conn, revive=True)
        server.stop()
        eventually(lambda: not conn.check())
        server.start()
        assert pool.call(server.target, "Do", b"1") == b"1"
        assert server.done == {b"1": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pool_of_tasks_is_told_of_a_loss(server: GrpcServer, proxy: FaultProxy) -> None:
    """A conn that nobody uses is revived before anybody does."""
    target = f"{proxy.host}:{proxy.port}"
    async with AsyncPool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        number = await pool.init(AsyncGrpcConn(target, methods=METHODS), revive=True)
        proxy.reset()
        await soon(lambda: proxy.accepted == 2)
        await soon(lambda: pool.info(number).state == "ready")
        assert await pool.call(target, "Do", b"1") == b"1"
        assert pool.stats().since_start.moved == 0


def test_a_rate_limit_moves_the_call(server: GrpcServer) -> None:
    """The conn rests; who will not wait is told so."""
    with Pool(timeout=PATIENCE) as pool:
        number = pool.init(GrpcConn(server.target, methods=METHODS))
        limit = fail("RESOURCE_EXHAUSTED", metadata=[["retry-after", "60"]])
        with pytest.raises(PoolTimeout):
            pool.call(server.target, "Fail", limit, timeout=0)
        assert pool.info(number).state == "cooling"


def test_live_streams_are_for_a_checkout(server: GrpcServer) -> None:
    """The stub is handed over; replies are read as they come."""
    with Pool(timeout=PATIENCE) as pool:
        pool.init(GrpcConn(server.target, stub=BooksStub, resource="books"))
        with pool.checkout("books", shared=True) as stub:
            assert list(stub.Count("3")) == [0, 1, 2]
        pool.init(GrpcConn(server.target, methods=METHODS, resource="bare"))
        with pool.checkout("bare", shared=True) as channel:
            assert channel.unary_unary(f"/{SERVICE}/Echo")(b"x") == b"x"
        with pytest.raises(grpc.RpcError) as caught:
            pool.route("bare").channel.unary_unary(HEALTH)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
