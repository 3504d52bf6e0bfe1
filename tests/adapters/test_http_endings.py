"""How connections of the HTTP conns end: servers that go, callers that leave, conns that close."""

from __future__ import annotations

import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from connpool.adapters.http import AsyncHttpConn, ReplyLost
from connpool.adapters.http_rules import MAY_HAVE
from connpool.adapters.http_wire import Wire, hung_up, readable
from connpool.errors import Busy, CallError, Closed, ConnError
from tests.servers.http import HttpServer

from . import PATIENCE, soon
from .http_ways import (
    WAYS,
    Way,
    answer,
    hang_up_unanswered,
    hear_out,
    listening,
    over_http2,
)
from .tasks import Call

pytestmark = pytest.mark.anyio

SHORT = 0.1  # seconds that something takes on purpose


@pytest.fixture(params=WAYS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(name: str) -> str:
    return "trio" if name == "trio" else "asyncio"


@pytest.fixture
def way(name: str) -> Way:
    return Way(name)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@asynccontextmanager
async def calling(way: Way, conn: Any, method: str, payload: Any) -> AsyncIterator[Call]:
    """A call in a task of its own, that has ended when the block has."""
    call = Call()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run, way.do, conn.call, method, payload)
        yield call


async def held(server: HttpServer, calls: int = 1) -> None:
    """Until so many requests are being held."""
    for _ in range(calls):
        await soon(lambda: server.held.acquire(blocking=False))


async def stop(server: HttpServer) -> None:
    await anyio.to_thread.run_sync(server.stop)


both = pytest.mark.parametrize("http2", [False, True])


# -- servers that are not there, or no more


async def test_an_opening_where_nobody_listens(way: Way) -> None:
    """It fails with an OSError that has a cause, and leaves a conn that is closed."""
    with HttpServer() as gone:
        pass
    conn = way.kind(gone.url)
    with pytest.raises(ConnectionError) as caught:
        await way.do(conn.init)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert repr(conn).endswith("closed>")


@both
async def test_a_server_that_restarts_costs_no_call(
    way: Way, server: HttpServer, http2: bool
) -> None:
    """The connection was idle: it is seen to be dead, and replaced before anything is sent."""
    async with way.opened(server.url, http2=http2) as conn:
        for n in range(3):
            assert (await way.call(conn, "POST", f"/do/{n}")).text == f"{n}"
            assert await way.do(conn.check)
            await stop(server)
            server.start()
            assert not await way.do(conn.check)
    assert server.done == {"0": 1, "1": 1, "2": 1}


@both
async def test_a_server_that_is_gone(way: Way, server: HttpServer, http2: bool) -> None:
    """The call surely did not happen: it moves."""
    async with way.opened(server.url, http2=http2) as conn:
        await way.call(conn, "GET", "/echo")
        await stop(server)
        with pytest.raises(Closed, match="nothing was sent") as caught:
            await way.do(conn.call, "POST", "/do/it")
        assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert not server.done


@both
@pytest.mark.parametrize("path", ["/hold/it", "/half"])
async def test_a_server_that_goes_with_a_call(
    way: Way, server: HttpServer, http2: bool, path: str
) -> None:
    """It may have happened, whatever has come of its answer so far: nobody tries again."""
    async with way.opened(server.url, http2=http2) as conn:
        async with calling(way, conn, "GET", path) as call:
            await held(server)
            await stop(server)
        assert type(call.error) is ReplyLost
        assert MAY_HAVE in str(call.error)
        assert isinstance(call.error.__cause__, httpx.TransportError)


async def test_a_server_that_hangs_up_on_a_request(way: Way) -> None:
    """On a connection that had served before: nobody can know whether it had read that one."""

    def twice(sock: Any) -> None:
        hang_up_unanswered(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        hang_up_unanswered(sock)

    with listening(hear_out, twice) as url:
        async with way.opened(url) as conn:
            assert (await way.call(conn, "GET", "/")).status_code == 200
            with pytest.raises(ReplyLost, match=MAY_HAVE):
                await way.do(conn.call, "GET", "/")


@both
async def test_no_answer_in_time(way: Way, server: HttpServer, http2: bool) -> None:
    """It may have happened; and it is the end of the conn, for the answer may still come."""
    async with way.opened(server.url, http2=http2, timeout=SHORT) as conn:
        with pytest.raises(TimeoutError, match=MAY_HAVE):
            await way.do(conn.call, "GET", "/hold/it")


async def test_a_time_for_one_call(way: Way, server: HttpServer) -> None:
    """A payload may bring its own."""
    async with way.opened(server.url) as conn:
        with pytest.raises(TimeoutError):
            await way.do(conn.call, "GET", {"url": "/hold/it", "timeout": SHORT})


async def test_an_answer_that_is_none(way: Way) -> None:
    """What speaks there is not HTTP: the request has been read, whatever was made of it."""

    def babble(sock: Any) -> None:
        hang_up_unanswered(sock)
        sock.sendall(b"SSH-2.0-hello\r\n\r\n")

    with listening(hear_out, babble) as url:
        async with way.opened(url) as conn:
            with pytest.raises(ReplyLost, match=MAY_HAVE):
                await way.do(conn.call, "GET", "/")


async def test_a_mirror_that_goes_with_a_call(way: Way, server: HttpServer) -> None:
    """The next one is asked, if the method may be repeated; else the caller is told."""
    with listening(hear_out, hang_up_unanswered, hang_up_unanswered) as url:
        async with way.opened([url, server.url]) as conn:
            with pytest.raises(ReplyLost):
                await way.do(conn.call, "POST", "/do/it")
            assert not server.done
            assert (await way.call(conn, "GET", "/do/it")).text == "it"


@pytest.mark.parametrize("status", [429, 401])
async def test_a_loss_is_told_before_a_rest(way: Way, server: HttpServer, status: int) -> None:
    """What may have happened at one mirror must not look as if it had not because of another."""
    server.answers["/"] = [(status, {}, b"")]
    with listening(hear_out, hang_up_unanswered) as url:
        async with way.opened([url, server.url], closed=[401]) as conn:
            with pytest.raises(ReplyLost):
                await way.do(conn.call, "GET", "/")


# -- HTTP/2: what a server says that it has not done


def refuse(conn: Any, stream: int) -> None:
    conn.reset_stream(stream, error_code=7)


def fail(conn: Any, stream: int) -> None:
    conn.reset_stream(stream, error_code=2)


def leave(conn: Any, stream: int) -> None:
    conn.close_connection(last_stream_id=0)


def leave_after(conn: Any, stream: int) -> None:
    conn.close_connection(last_stream_id=stream)


@pytest.mark.parametrize(
    ("answers", "error"),
    [([refuse], Busy), ([leave], Busy), ([fail], CallError), ([leave_after], ReplyLost)],
)
async def test_what_an_http2_server_has_not_begun_with(
    way: Way, answers: Any, error: type[Exception]
) -> None:
    """REFUSED_STREAM, or GOAWAY with a stream before ours: it did not happen, the conn goes on.

    Of any other end it cannot be said; but where it is of one stream, the conn goes on as well.
    """
    with listening(over_http2(*answers), over_http2(answer)) as url:
        async with way.opened(url, http2=True) as conn:
            with pytest.raises((ConnError, OSError)) as caught:
                await way.do(conn.call, "POST", "/")
            assert type(caught.value) is error
    # (the second connection is never asked for, so that its server is left waiting)


async def test_a_server_that_leaves_in_good_order(way: Way) -> None:
    """GOAWAY after the last answer: the next call opens a new connection."""
    calls = []

    def last(conn: Any, stream: int) -> None:
        answer(conn, stream)
        calls.append(stream)
        conn.close_connection(last_stream_id=stream)

    with listening(over_http2(last), over_http2(last)) as url:
        async with way.opened(url, http2=True) as conn:
            for _ in range(2):
                while True:
                    try:
                        assert (await way.call(conn, "GET", "/")).status_code == 200
                        break
                    except Busy:
                        pass  # its farewell came together with our request
    assert calls == [1, 1]


# -- closing


@both
async def test_a_conn_that_is_closed_under_a_call(
    way: Way, server: HttpServer, http2: bool
) -> None:
    """Its caller is woken and told; closing does not wait for the server."""
    async with way.opened(server.url, http2=http2) as conn:
        async with calling(way, conn, "POST", "/hold/it") as call:
            await held(server)
            await way.do(conn.close)
        assert type(call.error) is ReplyLost
        with pytest.raises(Closed):
            await way.do(conn.call, "GET", "/")
        await way.do(conn.init)
        server.let_go()
        assert (await way.call(conn, "GET", "/do/more")).text == "more"


async def test_a_conn_that_is_closed_under_its_client(way: Way, server: HttpServer) -> None:
    """Whoever it was lent to is woken as well."""
    async with way.opened(server.url) as conn:
        client = await way.do(conn.lend)
        call = Call()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run, way.do, client.get, "/hold/it")
            await held(server)
            await way.do(conn.close)
        assert isinstance(call.error, httpx.TransportError)


async def test_a_conn_that_is_closed_between_two_mirrors(way: Way, server: HttpServer) -> None:
    """The second one is not asked any more."""
    async with way.opened([server.url + "/hold", server.url + "/do"]) as conn:
        async with calling(way, conn, "GET", "/it") as call:
            await held(server)
            await way.do(conn.close)
        assert type(call.error) is ReplyLost
    assert not server.done


# -- callers that leave (tasks only: nobody can make a thread leave)


class TestLeaving:
    """What a cancelled call leaves behind."""

    @pytest.fixture(params=WAYS[1:])
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    async def test_http1_is_closed(self, way: Way, server: HttpServer) -> None:
        """The answer on its way is nobody's: the next call has a connection of its own."""
        async with way.opened(server.url) as conn:
            async with calling(way, conn, "GET", "/hold/first") as call:
                await held(server)
                call.scope.cancel()
            assert conn.survives_cancel is False
            server.let_go()
            assert (await way.call(conn, "GET", "/do/second")).text == "second"
        first, second = server.asked
        assert first.port != second.port

    async def test_http2_is_left_to_the_others(self, way: Way, server: HttpServer) -> None:
        """They get their answers; the next call opens a new connection, and the old one ends."""
        async with way.opened(server.url, http2=True) as conn:
            assert conn.survives_cancel is True
            async with (
                calling(way, conn, "GET", "/hold/other") as other,
                calling(way, conn, "GET", "/hold/first") as first,
            ):
                await held(server, 2)
                first.scope.cancel()
                await first.over.wait()
                assert (await way.call(conn, "GET", "/do/next")).text == "next"
                assert len(conn._wires) == 2
                server.let_go()
            assert other.reply.text == "other"
            assert len(conn._wires) == 1
            assert (await way.call(conn, "GET", "/do/last")).text == "last"
        held_both, third, fourth = (asked.port for asked in server.asked[1:])
        assert third == fourth != held_both

    async def test_http2_carries_many_at_once(self, way: Way, server: HttpServer) -> None:
        """All over one connection."""
        calls = [Call() for _ in range(50)]
        async with way.opened(server.url, http2=True) as conn:
            await way.call(conn, "GET", "/echo")  # the server tells how many it takes
            async with anyio.create_task_group() as tasks:
                for n, call in enumerate(calls):
                    tasks.start_soon(call.run, conn.call, "GET", f"/hold/{n}")
                await held(server, len(calls))
                server.let_go()
        assert [call.reply.text for call in calls] == [f"{n}" for n in range(50)]
        assert len({asked.port for asked in server.asked}) == 1

    async def test_cancelled_over_and_over(self, way: Way, server: HttpServer) -> None:
        """At whatever step: no neighbour waits in vain, and no connection is left open."""
        server.let_go()
        async with way.opened(server.url, http2=True, capacity=8) as conn:
            for steps in range(40):
                first, other = Call(), Call()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(other.run, conn.call, "GET", f"/do/{steps}")
                    tasks.start_soon(first.run, conn.call, "GET", "/echo")
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    first.scope.cancel()
                assert not other.error, steps
                assert other.reply.text == f"{steps}"
                assert not other.error
            assert len(conn._wires) <= 1
        assert set(server.done.values()) == {1}

    async def test_a_client_that_is_lent_is_not_closed(self, way: Way, server: HttpServer) -> None:
        """A call that is cancelled beside it leaves it to whom it was lent."""
        async with way.opened(server.url, http2=True) as conn:
            client = await conn.lend()
            async with calling(way, conn, "GET", "/hold/first") as call:
                await held(server)
                call.scope.cancel()
            server.let_go()
            assert (await client.get("/do/mine")).text == "mine"

    async def test_an_opening_that_is_cancelled(self, way: Way) -> None:
        """It leaves a conn that is closed, and nothing open."""
        with listening(hear_out) as url:
            conn: AsyncHttpConn = way.kind(url, probe="/", timeout=PATIENCE)
            with anyio.move_on_after(SHORT):
                await conn.init()
            assert repr(conn).endswith("closed>")
            assert not conn._wires


def test_the_kernel_tells_that_the_other_side_has_gone() -> None:
    """What `check` of HTTP/2 rests on: a connection that has ended is told from one with data."""
    mine, theirs = socket.socketpair()
    with mine, theirs:

        def tell(name: str) -> Any:
            return mine if name == "socket" else select.select([mine], [], [], 0)[0]

        wire = Wire(None, SimpleNamespace(get_extra_info=tell))
        assert not hung_up(wire)
        assert not readable(wire)
        theirs.sendall(b"ping")
        assert readable(wire)
        assert not hung_up(wire)
        theirs.close()
        assert hung_up(wire)
    assert not hung_up(wire)  # we have closed it ourselves, and know
