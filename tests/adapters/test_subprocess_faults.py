"""The conns to a program when things go wrong: what their callers get, and what becomes of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from connpool import Closed
from connpool.adapters.subprocess import (
    AsyncSubprocessConn,
    ProgramEnded,
    ProtocolError,
    SubprocessConn,
)
from connpool.adapters.subprocess_wire import Exchange, Pipes, Tail

from . import PATIENCE, eventually, soon
from .subprocess_ways import WAYS, Way, ended, gone, program


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with Way(request.param) as way:
        yield way


@pytest.fixture
def conn(way: Way) -> Any:
    return way.opened()


def assert_dead(way: Way, conn: Any, pid: int) -> None:
    """Its process is no more; whatever is called next did not happen, until another init."""
    assert gone(pid)
    assert not way.do(conn.check)
    with pytest.raises(Closed, match="nothing was written"):
        way.do(conn.call, "ask", "echo x")
    way.do(conn.init)
    assert way.do(conn.call, "ask", "echo y") == "y"


# -- before anything is written


def test_a_program_that_ended_while_it_was_idle(way: Way, conn: Any) -> None:
    """The call did not happen; its error says how the program ended."""
    for words, how in [
        ("later 0", "it had said what nobody had asked for.*"),
        ("echo x", "ended by signal 9"),
    ]:
        pid = conn.pid
        way.do(conn.call, "ask", words)
        if words == "echo x":
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not way.do(conn.check))
        with pytest.raises(Closed, match=f"nothing was written.*{how}|{how}nothing was written"):
            way.do(conn.call, "ask", "echo x")
        assert_dead(way, conn, pid)


def test_a_program_that_ends_at_once(way: Way) -> None:
    """Its first call finds that out, and has what it said."""
    conn = way.opened(program("echo 'I cannot work like this' >&2; exit 5"))
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match="exit code was 5; on stderr: I cannot work like this"):
        way.do(conn.call, "ask", "x")


def test_a_program_that_no_longer_listens(way: Way) -> None:
    """Nothing can be written to it, though it runs."""
    conn = way.opened()
    pid = conn.pid
    assert way.do(conn.call, "ask", "deaf") == "deaf"
    conn.grace = 0.05  # it will not end by itself
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match="it had ended its input, nothing was written"):
        way.do(conn.call, "ask", "echo x")
    assert_dead(way, conn, pid)


def test_it_ends_between_the_look_and_the_first_byte(
    way: Way, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was written, which is all that counts."""
    pid = conn.pid
    monkeypatch.setattr(way.kind, "_trouble", staticmethod(lambda _: ""))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: ended(pid))
    with pytest.raises(Closed, match="nothing was written"):
        way.do(conn.call, "ask", "echo x")
    monkeypatch.undo()
    assert_dead(way, conn, pid)


# -- after that


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("exit 7", 7, "it ended its output.*may have been.*exit code was 7; on stderr: so I leave"),
        ("cut", 0, "before the reply came: it may have been carried out.*exit code was 0"),
    ],
)
def test_a_program_that_leaves_in_a_call(
    way: Way, conn: Any, words: str, code: int, text: str
) -> None:
    """It may have been carried out: the caller is told so, and nobody tries again."""
    pid = conn.pid
    with pytest.raises(ProgramEnded, match=text) as caught:
        way.do(conn.call, "ask", words)
    assert caught.value.code == code
    assert caught.value.stderr == ("so I leave" if words != "cut" else "")
    assert_dead(way, conn, pid)


@pytest.mark.parametrize("words", ["hang", "half"])
def test_a_program_that_is_killed_in_a_call(way: Way, conn: Any, words: str) -> None:
    """The same; its signal is told."""
    pid = conn.pid
    with ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(way.do, conn.call, "ask", words)
        eventually(lambda: conn._child.pipes.tail.text or words == "half")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((ProgramEnded, Closed), match="ended by signal 9") as caught:
            call.result(PATIENCE)
    if words == "hang":  # of the other it is not known how far it came
        assert isinstance(caught.value, ProgramEnded)
        assert caught.value.code == -9
    assert_dead(way, conn, pid)


def test_a_program_that_leaves_somebody_behind(way: Way) -> None:
    """Who holds on to its pipes: nobody is told of its end, so it is the time limit that counts."""
    conn = way.opened(program("read -r _; sleep 2 & exit 3"), timeout=0.1, grace=0.05)
    pid = conn.pid
    with pytest.raises(TimeoutError, match="no reply to 'ask' within"):
        way.do(conn.call, "ask")
    assert gone(pid)


@pytest.mark.parametrize("words", ["hang", "half"])
def test_a_program_that_does_not_answer(way: Way, words: str) -> None:
    """It is killed when the time is over, and with it what it had begun to say."""
    conn = way.opened(timeout=0.1)
    pid = conn.pid
    with pytest.raises(TimeoutError, match=r"no reply to 'ask' within 0.1 s: it may have been"):
        way.do(conn.call, "ask", words)
    conn.timeout = PATIENCE
    assert_dead(way, conn, pid)


def test_a_program_that_does_not_read(way: Way) -> None:
    """The time limit is for writing too."""
    conn = way.opened(["sleep", "600"], timeout=0.1)
    pid = conn.pid
    with pytest.raises(TimeoutError, match="it may have been carried out"):
        way.do(conn.call, "ask", "x" * 200_000)
    assert gone(pid)


def test_last_words_that_are_read_late(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are waited for, if not for long."""
    read = Tail._read

    def read_late(tail: Tail) -> None:
        time.sleep(0.05)
        read(tail)

    monkeypatch.setattr(Tail, "_read", read_late)
    conn = way.opened()
    with pytest.raises(ProgramEnded, match="on stderr: so I leave"):
        way.do(conn.call, "ask", "exit 1")


def test_a_program_that_ends_its_output(way: Way) -> None:
    """It runs, but nothing will come of it."""
    conn = way.opened()
    pid = conn.pid
    conn.grace = 0.05
    with pytest.raises(ProgramEnded, match="the program was ended") as caught:
        way.do(conn.call, "ask", "mute")
    assert caught.value.code is None
    assert_dead(way, conn, pid)


def test_two_replies_to_one_request(way: Way, conn: Any) -> None:
    """Which of them is the right one is not known, now and for all that follow."""
    pid = conn.pid
    with pytest.raises(ProtocolError, match=r"more than one reply.*may have been"):
        way.do(conn.call, "ask", "twice")
    assert_dead(way, conn, pid)


def test_a_reply_that_comes_too_early(way: Way) -> None:
    """Before it can have read what it was asked."""
    conn = way.opened(program("head -c 1 >/dev/null; echo early; exec sleep 600"))
    pid = conn.pid
    with pytest.raises(ProtocolError, match="a reply before the request was written in whole"):
        way.do(conn.call, "ask", "x" * 500_000)
    assert gone(pid)


@pytest.mark.parametrize(
    ("framing", "script", "text"),
    [
        ("lines", "head -c 100000 /dev/zero", "a line of more than 50 bytes"),
        ("lines", "head -c 100 /dev/zero; echo", "a line of more than 50 bytes"),
        ("frames", r"printf '\177\177\177\177'", "a frame of 2139062143 bytes, where at most 50"),
    ],
)
def test_a_reply_that_is_too_long(way: Way, framing: str, script: str, text: str) -> None:
    """It is not waited for."""
    options = {"framing": framing, "max_size": 50, "encode": lambda *_: b"\n"[framing == "lines" :]}
    conn = way.opened(program(f"read -r _; {script}; read -r _"), **options)
    pid = conn.pid
    with pytest.raises(ProtocolError, match=text):
        way.do(conn.call, "ask")
    assert gone(pid)


# -- callers that leave


def test_an_interrupted_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program is killed: the reply on its way reaches nobody."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with Way("threads") as way:
        conn = way.opened()
        pid = conn.pid
        monkeypatch.setattr(Pipes, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            way.do(conn.call, "ask", "half")
        monkeypatch.undo()
        assert_dead(way, conn, pid)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_call(backend: str) -> None:
    """The same; one that only waits for its turn ends nothing."""

    async def main() -> None:
        conn = AsyncSubprocessConn(program(), timeout=PATIENCE)
        await conn.init()
        pid = conn.pid
        first, second = anyio.CancelScope(), anyio.CancelScope()
        replies: list[Any] = []

        async def ask(scope: anyio.CancelScope, words: str) -> None:
            with scope:
                replies.append(await conn.call("ask", words))

        async with anyio.create_task_group() as tasks:
            replies.append(await conn.call("ask", "echo now"))
            tasks.start_soon(ask, first, "half")
            await soon(lambda: conn._running is not None)
            tasks.start_soon(ask, second, "echo x")
            await anyio.wait_all_tasks_blocked()
            second.cancel()
            await anyio.wait_all_tasks_blocked()
            assert conn.pid == pid
            first.cancel()
        assert pid is not None
        assert gone(pid)
        assert replies == ["now"]
        with pytest.raises(Closed):
            await conn.call("ask", "echo x")
        await conn.init()
        assert await conn.call("ask", "echo y") == "y"
        await conn.close()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_close(backend: str) -> None:
    """The program gets no time then, and is waited for all the same."""

    async def main() -> None:
        conn = AsyncSubprocessConn(program(), grace=PATIENCE)
        await conn.init()
        assert await conn.call("ask", "stubborn") == "no"
        pid = conn.pid
        with anyio.CancelScope() as scope:
            scope.cancel()
            await conn.close()
        assert pid is not None
        assert gone(pid)

    anyio.run(main, backend=backend)


def test_a_close_wakes_the_call() -> None:
    """Of another thread, which is told that its call may have been carried out."""
    conn = SubprocessConn(program(), timeout=None)
    conn.init()
    pid = conn.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(conn.call, "ask", "hang")
        eventually(lambda: "now I hang" in conn._child.pipes.tail.text)
        conn.close()
        with pytest.raises(ProgramEnded, match="it may have been carried out"):
            call.result(PATIENCE)
    assert gone(pid)
    assert not conn.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_close_wakes_the_call_of_a_task(backend: str) -> None:
    """The same."""

    async def main() -> None:
        conn = AsyncSubprocessConn(program(), timeout=None)
        await conn.init()
        pid = conn.pid
        errors: list[Exception] = []

        async def ask() -> None:
            try:
                await conn.call("ask", "hang")
            except Exception as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await soon(lambda: conn._child and "now I hang" in conn._child.pipes.tail.text)
            await conn.close()
        assert [type(error) for error in errors] == [ProgramEnded]
        assert pid is not None
        assert gone(pid)
        assert not await conn.check()

    anyio.run(main, backend=backend)


# Answers nothing, and leaves somebody behind who holds on to its pipes.
LEAVES = """
import subprocess, sys
sys.stdin.readline()
left = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(left.pid, file=sys.stderr, flush=True)
sys.stdin.read()
"""


def test_a_close_where_somebody_holds_the_pipes(way: Way) -> None:
    """The end of the program cannot be seen then; who waits for its reply is woken all the same."""
    conn = way.opened([sys.executable, "-c", LEAVES], timeout=None, grace=0.05)
    tail = conn._child.pipes.tail
    with ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(way.do, conn.call, "ask", "x")
        eventually(lambda: tail.text)
        way.do(conn.close)
        try:
            with pytest.raises(ProgramEnded, match="the conn was closed"):
                call.result(PATIENCE)
        finally:
            os.kill(int(tail.text), signal.SIGKILL)


def test_a_close_as_the_reply_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited gets it, and ends the program for the one who closes."""
    pull = Exchange.pull

    def pull_and_close(exchange: Exchange, pipes: Pipes) -> bool:
        pulled = pull(exchange, pipes)
        if exchange.over:
            with pytest.raises(StopIteration):  # it does not wait
                closing.close().send(None)
        return pulled

    async def main() -> None:
        await closing.init()
        pid = closing.pid
        assert await closing.call("ask", "echo x") == "x"
        assert pid is not None
        assert gone(pid)
        assert closing.pid is None

    closing = AsyncSubprocessConn(program())
    monkeypatch.setattr(Exchange, "pull", pull_and_close)
    anyio.run(main)


def test_callers_of_a_shared_conn_take_turns(way: Way, conn: Any) -> None:
    """As those do to whom it was routed: each gets his own reply."""
    words = [f"word-{n}" for n in range(100)]
    with ThreadPoolExecutor(8) as crowd:
        replies = list(crowd.map(lambda word: way.do(conn.call, "ask", f"echo {word}"), words))
    assert replies == words
