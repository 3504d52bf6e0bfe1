"""AsyncTextConn on its own: what a call says that is not answered, and what it leaves behind."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connpool.adapters.text_server import TextServer
from connpool.adapters.text_wire import ProtocolError, ReplyLost
from connpool.errors import Closed

from . import PATIENCE, soon
from .ledger import Ledger
from .tasks import HUGE, Call, calling, connected, ends, hear, hear_the_end

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[TextServer]:
    with TextServer({"SAY": lambda s: s}) as server:
        yield server


async def answered(*packets: bytes) -> Call:
    """A call of GET whose request is answered by these packets, one by one."""
    async with ends() as (conn, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            for packet in packets:
                sock.sendall(packet)
                await anyio.lowlevel.checkpoint()
        if call.error is not None:  # then the conn is of no more use, and has said so to the server
            await hear_the_end(sock)
            with pytest.raises(Closed):
                await conn.call("GET")
        return call


# -- what surely did not happen, and what may have


async def test_a_server_that_died_while_the_conn_was_idle(server: TextServer) -> None:
    """The call surely did not happen: Closed, not an error for the caller."""
    async with connected(server) as conn:
        server.kill(wait=PATIENCE)
        with pytest.raises(Closed, match="nothing was sent"):
            await conn.call("INC")
        server.start()
        await conn.init()
        assert await conn.call("INC") == "1"


async def test_a_server_that_is_killed_during_a_call() -> None:
    """The caller is told at once that the call may have happened, and it did."""
    with Ledger() as ledger:
        async with connected(ledger.server) as conn:
            async with calling(conn.call, "HOLD", "token") as call:
                await soon(ledger.held.is_set)
                ledger.server.kill(wait=0)
            assert isinstance(call.error, ReplyLost)
            assert "may have been carried out" in str(call.error)
            ledger.over.set()
            await soon(lambda: ledger.done == ["token"])
            assert not await conn.check()


async def test_a_request_that_could_not_leave_did_not_happen() -> None:
    """Without its newline it is no request, so an error in sending is a Closed."""
    async with ends(max_line=HUGE) as (conn, sock):
        async with calling(conn.call, "SAY", "x" * (HUGE - 5)) as call:
            assert await hear(sock)
            sock.close()
        assert isinstance(call.error, Closed)
        assert "not sent in whole" in str(call.error)
        assert not await conn.check()


async def test_a_connection_that_is_reset() -> None:
    """The call may have happened, whatever the way in which its connection ended."""
    async with ends() as (conn, sock):
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert isinstance(call.error, ReplyLost)
        assert "may have been carried out" in str(call.error)


async def test_split_packets() -> None:
    """A reply may come byte by byte."""
    call = await answered(*(bytes([byte]) for byte in b"ok:one\n"))
    assert (call.reply, call.error) == ("one", None)


@pytest.mark.parametrize(
    ("packets", "text"),
    [
        ([b"what?\n"], "expected a reply to GET, got Malformed"),
        ([b"\xff\n"], "not UTF-8"),
        ([b":GET\n"], "expected a reply to GET, got Request"),
        ([b"x" * 70_000], "more than 65536 bytes"),
        ([b"ok:", b"x" * 70_000], "more than 65536 bytes"),
        ([b"ok:1\nok:2\n"], "expected one reply to GET"),
        ([b"ok:1\nok"], "expected one reply to GET"),
    ],
)
async def test_a_server_that_talks_nonsense(packets: list[bytes], text: str) -> None:
    """The caller is told what came, and the conn is dead."""
    call = await answered(*packets)
    assert isinstance(call.error, ProtocolError)
    assert text in str(call.error)


async def test_a_reply_cut_short() -> None:
    """Half a reply is no reply."""
    async with ends() as (conn, sock):
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            sock.sendall(b"ok:1")
            sock.shutdown(socket.SHUT_WR)
        assert isinstance(call.error, ReplyLost)


async def test_a_server_that_talks_unasked() -> None:
    """What comes between two calls belongs to neither: the conn is dead, and nothing is sent."""
    async with ends() as (conn, sock):
        sock.sendall(b"ok:2\n")
        with pytest.raises(ProtocolError, match="nobody had asked for; nothing was sent"):
            await conn.call("GET")
        await hear_the_end(sock)


@pytest.mark.parametrize("steps", range(4))
async def test_a_server_that_replies_twice(steps: int) -> None:
    """However soon the second reply follows, the next call does not take it for its own."""
    async with ends() as (conn, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            sock.sendall(b"ok:" + b"1" * 60_000 + b"\n")
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            sock.sendall(b"ok:2\n")
        assert call.reply == "1" * 60_000 or isinstance(call.error, ProtocolError)
        with pytest.raises((ProtocolError, Closed)):
            await conn.call("GET")
        await hear_the_end(sock)


async def test_a_reply_that_takes_too_long() -> None:
    """TimeoutError says that the call may have happened; a late reply reaches nobody."""
    async with ends() as (conn, sock):
        conn.timeout = 0.02
        with pytest.raises(TimeoutError, match=r"no reply to GET within 0\.02 s, it may have been"):
            await conn.call("GET")
        assert await hear(sock) == b":GET\n"
        assert not await conn.check()
        await hear_the_end(sock)


async def test_a_request_that_takes_too_long_to_send() -> None:
    """A server that does not read is not waited for longer than the timeout."""
    async with ends(max_line=HUGE) as (conn, _):
        conn.timeout = 0.02
        with pytest.raises(TimeoutError, match=r"not sent within 0\.02 s"):
            await conn.call("SAY", "x" * (HUGE - 5))
        assert not await conn.check()


async def test_a_list_of_methods_that_is_none() -> None:
    """What is no list of commands is a ProtocolError, and no DATA is an empty list."""
    async with ends() as (conn, sock):
        for reply in (b"ok\n", b"ok:GET,,INC\n"):
            async with calling(conn.methods) as call:
                assert await hear(sock) == b":COMMANDS\n"
                sock.sendall(reply)
            if call.error is None:
                assert call.reply == []
        assert isinstance(call.error, ProtocolError)
        assert "expected a list of commands" in str(call.error)
        assert not await conn.check()


# -- several tasks at one conn, and cancellation


async def test_callers_of_one_conn_take_turns(server: TextServer) -> None:
    """Each gets its own reply."""
    replies: dict[str, Any] = {}

    async def say(word: str) -> None:
        replies[word] = await conn.call("SAY", word)

    async with connected(server) as conn, anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(say, f"word {number}")
    assert len(replies) == 50
    assert all(word == reply for word, reply in replies.items())


@pytest.mark.parametrize(
    ("method", "size", "error"), [("GET", None, ReplyLost), ("SAY", HUGE - 5, Closed)]
)
async def test_a_close_wakes_a_call(method: str, size: int | None, error: type[Exception]) -> None:
    """Waiting for its reply it may have happened, not sent in whole it has not."""
    async with ends(max_line=HUGE) as (conn, sock):
        async with calling(conn.call, method, size and "x" * size) as call:
            assert await hear(sock)
            await conn.close()
            await conn.close()
        assert isinstance(call.error, error)
        await hear_the_end(sock)


@pytest.mark.parametrize("steps", [*range(4), *[1] * 8])  # they meet at 1 or 2, on trio by chance
async def test_a_close_that_meets_the_reply(steps: int) -> None:
    """Whichever comes first, the call ends, and no socket stays open."""
    async with ends() as (conn, sock):
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            sock.sendall(b"ok:1\n")
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            await conn.close()
        assert call.reply == "1" or isinstance(call.error, ReplyLost)
        await hear_the_end(sock)


@pytest.mark.parametrize("half", [b"", b"ok:fir"])
async def test_a_cancelled_call_closes_the_conn(half: bytes) -> None:
    """At once, so that the rest of its reply reaches nobody; a later call did not happen."""
    async with ends() as (conn, sock):
        async with calling(conn.call, "GET") as call:
            assert await hear(sock) == b":GET\n"
            sock.sendall(half)
            await anyio.lowlevel.checkpoint()
            call.scope.cancel()
        assert (call.reply, call.error) == (None, None)
        await hear_the_end(sock)
        with pytest.raises(Closed, match="nothing was sent"):
            await conn.call("GET")
        await conn.close()


async def test_a_call_cancelled_in_line_harms_nobody() -> None:
    """It has sent nothing: the call before it and the one behind it get their replies."""
    async with ends() as (conn, sock):
        async with calling(conn.call, "FIRST") as first:
            assert await hear(sock) == b":FIRST\n"
            async with calling(conn.call, "SECOND") as second:
                await anyio.lowlevel.checkpoint()
                async with calling(conn.call, "THIRD") as third:
                    await soon(lambda: conn._turn.statistics().tasks_waiting == 2)
                    second.scope.cancel()
                    sock.sendall(b"ok:1\n")
                    assert await hear(sock) == b":THIRD\n"
                    sock.sendall(b"ok:3\n")
        assert (first.reply, second.reply, third.reply) == ("1", None, "3")
