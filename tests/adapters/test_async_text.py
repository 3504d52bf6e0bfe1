"""AsyncTextConn on its own, over loopback: what it says and how it opens and closes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connpool.adapters import async_text
from connpool.adapters.async_text import AsyncTextConn
from connpool.adapters.text_server import TextServer
from connpool.adapters.text_wire import Malformed, Ok
from connpool.conn import AsyncConn, Reply, check_conn, describe
from connpool.errors import Busy, CallError, Closed

from . import soon
from .tasks import calling, connected, ends, hear_the_end

pytestmark = pytest.mark.anyio


def refuse(args: str) -> str:
    raise ValueError(args)


def rest(args: str) -> str:
    raise Busy(float(args))


COMMANDS: dict[str, Callable[[str], str | None]] = {
    "SAY": lambda s: s,
    "FAIL": refuse,
    "REST": rest,
}


@pytest.fixture
def server() -> Iterator[TextServer]:
    with TextServer(COMMANDS) as server:
        yield server


async def test_a_text_conn_keeps_the_contract(server: TextServer) -> None:
    """It is an AsyncConn, and says of itself what a pool wants to know."""
    async with connected(server) as conn:
        typed: AsyncConn[str | None] = conn
        check_conn(typed, awaits=True)
        said = describe(conn, await conn.methods())
        assert said.resources == (server.address,)
        assert said.methods == {"INC", "GET", "STOP", "SAY", "FAIL", "REST"}
        assert said.capacity == 1
        assert not getattr(conn, "survives_cancel", False)
        assert AsyncTextConn("h", 1, resource="name").resource == "name"


async def test_calls_are_those_of_the_server(server: TextServer) -> None:
    """A payload is a request's ARGS, a reply is its DATA."""
    async with connected(server, timeout=None) as conn:
        assert await conn.call("GET") == "0"
        assert await conn.call("INC", "41") == "41"
        assert await conn.call("SAY", "\u00e9:\u2028 ") == "\u00e9:\u2028 "


@pytest.mark.parametrize(
    ("method", "payload", "error"),
    [
        ("LEAP", None, CallError),
        ("FAIL", "no luck", CallError),
        ("REST", "0.25", Busy),
        ("SAY", "one\n:INC", ValueError),
        ("INC", 1, TypeError),
    ],
)
async def test_an_err_fails_the_call_alone(
    server: TextServer, method: str, payload: Any, error: type[Exception]
) -> None:
    """The caller gets the server's reason, or his own error, and the conn stays."""
    async with connected(server) as conn:
        with pytest.raises(error):
            await conn.call(method, payload)
        assert await conn.check()
        assert await conn.call("INC") == "1"


async def test_stop_ends_the_conn_in_good_order(server: TextServer) -> None:
    """The reply says that the conn is closed; init connects it again."""
    async with connected(server) as conn:
        assert await conn.call("STOP") == Reply(None, closed=True)
        assert not await conn.check()
        with pytest.raises(Closed):
            await conn.call("INC")
        await conn.init()
        assert await conn.call("INC") == "1"


# -- init and close


async def test_a_refused_connection(server: TextServer) -> None:
    """init raises an OSError, and the conn is closed, also one that was open before."""
    async with connected(server) as conn:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            conn.address = listener.getsockname()
        with pytest.raises(ConnectionRefusedError):
            await conn.init()
        assert not await conn.check()
        await soon(lambda: server.clients == 0)


async def test_init_again_connects_anew(server: TextServer) -> None:
    """The connection before is closed, and so is one that another task opens meanwhile."""
    async with connected(server) as conn:
        await conn.call("INC")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.init)
            tasks.start_soon(conn.init)
        assert await conn.call("GET") == "1"
        await soon(lambda: server.clients == 1)


async def test_a_host_by_its_name(server: TextServer) -> None:
    """Its addresses are tried in turn."""
    conn = AsyncTextConn("localhost", server.address[1])
    await conn.init()
    assert await conn.call("GET") == "0"
    await conn.close()


async def test_the_last_addresss_error_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no address answers, or there is none at all."""
    conn = AsyncTextConn("nowhere", 1)
    found: list[Any] = []

    async def addresses(*_: Any) -> list[Any]:
        return found

    monkeypatch.setattr(async_text, "_addresses", addresses)
    with pytest.raises(OSError, match="nowhere has no address"):
        await conn.init()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()
    found += [(-1, -1, 0, "", dead), (socket.AF_INET, socket.SOCK_STREAM, 0, "", dead)]
    with pytest.raises(ConnectionRefusedError):
        await conn.init()


async def test_a_connection_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may connect a socket to its own port; there is no server in that."""

    async def echo(sock: socket.socket, where: Any) -> None:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())

    monkeypatch.setattr(async_text, "_dial", echo)
    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        await AsyncTextConn("127.0.0.1", 1).init()


@pytest.mark.parametrize("cancels", [True, False])
async def test_an_init_that_hangs(monkeypatch: pytest.MonkeyPatch, cancels: bool) -> None:
    """Its timeout is a TimeoutError; cancelled or late, it leaves no socket behind."""
    socks: list[socket.socket] = []

    async def hang(sock: socket.socket, _: Any) -> None:
        socks.append(sock)
        await anyio.sleep_forever()

    monkeypatch.setattr(async_text, "_dial", hang)
    conn = AsyncTextConn("127.0.0.1", 1, timeout=None if cancels else 0.01)
    async with calling(conn.init) as call:
        await soon(lambda: socks)
        if cancels:
            call.scope.cancel()
    assert isinstance(call.error, TimeoutError) is not cancels
    assert socks[0].fileno() == -1
    assert not await conn.check()


async def test_close_may_be_called_again(server: TextServer) -> None:
    """Before init too; the server sees the connection go, and calls did not happen."""
    conn = AsyncTextConn(*server.address)
    for _ in range(2):
        await conn.close()
        with pytest.raises(Closed, match="nothing was sent"):
            await conn.call("GET")
        assert "closed" in repr(conn)
        await conn.init()
        assert "open" in repr(conn)
    await conn.close()
    await conn.close()
    await soon(lambda: server.clients == 0)


async def test_close_in_a_task_that_is_cancelled() -> None:
    """It closes as well as ever, and raises nothing."""
    async with ends() as (conn, sock):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await conn.close()
        await hear_the_end(sock)


@pytest.mark.parametrize("option", [{"timeout": 0}, {"timeout": "1"}, {"max_line": 63}])
async def test_a_wrong_option(option: dict[str, Any]) -> None:
    """It is named at once, with what was expected and what came."""
    with pytest.raises((ValueError, TypeError), match=rf"{next(iter(option))}: expected .* got"):
        AsyncTextConn("127.0.0.1", 1, **option)


async def test_parse_is_the_conns_too() -> None:
    """A conn reads its wire format, with its own longest line."""
    conn = AsyncTextConn("127.0.0.1", 1, max_line=64)
    assert conn.parse(b"ok:1\nok") == (Ok("1"), b"ok")
    assert isinstance(conn.parse(b"x" * 65)[0], Malformed)
