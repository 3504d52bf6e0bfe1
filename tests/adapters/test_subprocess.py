"""The conns to a program on their own: what they take and reply, how they start and end it."""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from connpool import Busy, CallError, Closed
from connpool.adapters.subprocess import AsyncSubprocessConn, SubprocessConn
from connpool.conn import check_conn, describe

from . import eventually
from .subprocess_ways import PROGRAM, WAYS, Way, gone, program

SECRET = "hunter2-swordfish"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with Way(request.param) as way:
        yield way


@pytest.fixture
def conn(way: Way) -> Any:
    return way.opened()


# -- what it says of itself


def test_it_keeps_the_contract(way: Way) -> None:
    """It has the names of a conn, and says of itself what a pool wants to know."""
    conn = way.opened(["cat"])
    check_conn(conn, awaits=way.awaits)
    said = describe(conn, way.do(conn.methods))
    assert said.resources == ("cat",)
    assert said.methods == {"ask"}
    assert said.capacity == 1
    assert said.checks
    assert not getattr(conn, "survives_cancel", False)


def test_neither_arguments_nor_environment_are_shown(way: Way, tmp_path: Path) -> None:
    """Only the program is, and its process."""
    conn = way.opened(["/bin/sh", "-c", PROGRAM, SECRET], env={"SECRET": SECRET}, cwd=tmp_path)
    assert repr(conn) == f"<{way.kind.__name__} '/bin/sh', pid {conn.pid}>"
    assert way.do(conn.call, "ask", "env") == SECRET
    with pytest.raises(EOFError) as caught:
        way.do(conn.call, "ask", "exit 3")
    assert SECRET not in str(caught.value) + repr(conn) + str(conn.resource)
    assert repr(conn) == f"<{way.kind.__name__} '/bin/sh', closed>"
    with pytest.raises(TypeError) as wrong:
        way.conn(["sh", b"-c"], env=[SECRET])
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"command": "cat"}, TypeError, "command: expected a list of a program .* got a str"),
        ({"command": {"cat"}}, TypeError, "command: expected a list .* got a set"),
        ({"command": []}, ValueError, "command: expected a program"),
        ({"command": ["cat", 1]}, TypeError, "command: expected each word as a str, got a int"),
        ({"framing": "words"}, ValueError, "framing: expected lines or frames, got 'words'"),
        ({"methods": "ask"}, TypeError, r"methods\(\) of .*: expected a collection"),
        ({"methods": []}, ValueError, "methods: expected at least one"),
        ({"methods": ["a", "b"]}, ValueError, "encode: expected a function, or the program is not"),
        ({"encode": "utf-8"}, TypeError, "encode: expected a function, got 'utf-8'"),
        ({"decode": "utf-8"}, TypeError, "decode: expected a function, got 'utf-8'"),
        ({"env": ["A=b"]}, TypeError, "env: expected a mapping, got a list"),
        ({"timeout": 0}, ValueError, "timeout: expected more than 0 seconds"),
        ({"grace": None}, TypeError, "grace: expected seconds"),
        ({"max_size": 0}, ValueError, "max_size: expected a whole number from 1 up"),
    ],
)
def test_a_wrong_option(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """It is named at once, with what was expected and what came."""
    with pytest.raises(error, match=text):
        SubprocessConn(**{"command": ["cat"], **options})


# -- calls


def test_lines(way: Way) -> None:
    """A payload is a line, and so is a reply."""
    conn = way.opened(["cat"], timeout=None)
    for text in ("hello", "", "\u00e9: \x00\r", "x" * 10_000):
        assert way.do(conn.call, "ask", text) == text
    assert way.do(conn.call, "ask", b"bytes") == "bytes"
    assert way.do(conn.call, "ask") == ""
    assert way.do(conn.check)


def test_frames(way: Way) -> None:
    """Any bytes at all, behind four that count them."""
    conn = way.opened(["cat"], framing="frames", decode=bytes)
    for data in (b"hello", b"", b"\x00\n\xff", bytes(range(256)) * 1_000):
        assert way.do(conn.call, "ask", data) == data
    assert way.do(conn.check)


def test_what_a_frame_looks_like(way: Way, tmp_path: Path) -> None:
    """The highest byte of its length comes first."""
    conn = way.opened(["tee", str(tmp_path / "said")], framing="frames")
    assert way.do(conn.call, "ask", "x" * 258) == "x" * 258
    frame = b"\x00\x00\x01\x02" + b"x" * 258
    eventually(lambda: (tmp_path / "said").read_bytes() == frame)


@pytest.mark.parametrize("framing", ["lines", "frames"])
def test_more_than_a_pipe_holds(way: Way, framing: str) -> None:
    """It is read while it is written, or both sides would wait for each other."""
    conn = way.opened(["cat"], framing=framing)
    text = "x" * conn.max_size
    assert way.do(conn.call, "ask", text) == text
    assert way.do(conn.call, "ask", "y") == "y"


def test_methods_of_ones_own(way: Way) -> None:
    """encode is told the method, and decode makes what the caller gets."""
    conn = way.opened(
        ["cat"],
        resource="sums",
        methods=["add", "negate"],
        encode=lambda method, payload: f"{method} {payload}".encode(),
        decode=lambda data: tuple(data.split()),
    )
    assert conn.resource == "sums"
    assert way.do(conn.methods) == {"add", "negate"}
    assert way.do(conn.call, "add", 1) == (b"add", b"1")
    with pytest.raises(CallError, match=r"unknown method 'ask', expected one of '(add|negate)'"):
        way.do(conn.call, "ask", "x")


def fail(error: Exception) -> Any:
    def function(*_: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("options", "payload", "error", "text"),
    [
        ({}, "two\nlines", ValueError, "expected one line, without a newline"),
        ({}, 1, TypeError, "expected a str or bytes, got 1; encode= takes others"),
        ({"max_size": 3}, "four", ValueError, "a request of at most 3 bytes, got 4"),
        ({"encode": lambda *_: "text"}, 1, TypeError, "encode: expected bytes, got 'text'"),
        ({"encode": fail(KeyError("x"))}, 1, KeyError, "x"),
        ({"encode": fail(OSError("x"))}, 1, CallError, r"encode raised OSError\('x'\)"),
        ({"encode": fail(Closed("x"))}, 1, CallError, r"encode raised Closed\('x'\)"),
        ({"decode": fail(ValueError("x"))}, "a", ValueError, "x"),
        ({"decode": fail(EOFError("x"))}, "a", CallError, r"decode raised EOFError\('x'\)"),
        ({"decode": fail(Busy(1, "x"))}, "a", CallError, "decode raised Busy"),
        ({"decode": fail(CallError("no"))}, "a", CallError, "no"),
        ({}, b"\xff", UnicodeDecodeError, "invalid start byte"),
    ],
)
def test_an_error_that_costs_the_call_alone(
    options: dict[str, Any], payload: Any, error: type[Exception], text: str
) -> None:
    """What is wrong with a request or a reply is its caller's; the program stays."""
    with Way("threads") as way:
        conn = way.opened(["cat"], **options)
        pid = conn.pid
        with pytest.raises(error, match=text):
            way.do(conn.call, "ask", payload)
        assert way.do(conn.check)
        assert conn.pid == pid


def test_the_same_in_tasks() -> None:
    """Nothing is written of what cannot be, and a reply that cannot be read was read."""
    with Way("asyncio") as way:
        conn = way.opened(["cat"])
        for payload in ("two\nlines", b"\xff"):
            with pytest.raises(ValueError, match=r"one line|start byte"):
                way.do(conn.call, "ask", payload)
            assert way.do(conn.check)


def test_environment_and_folder(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, where nothing else is said."""
    monkeypatch.setenv("SECRET", "ours")
    conn = way.opened()
    assert way.do(conn.call, "ask", "env") == "ours"
    assert way.do(conn.call, "ask", "pwd") == os.getcwd()
    conn = way.opened(env={"SECRET": "theirs"}, cwd=tmp_path)
    assert way.do(conn.call, "ask", "env") == "theirs"
    assert os.path.samefile(way.do(conn.call, "ask", "pwd"), tmp_path)


def test_a_flood_on_stderr_blocks_nobody(way: Way) -> None:
    """It is read all the time, and only the last of it is kept."""
    script = 'read -r _; yes "far too much to say" | head -c 2000000 >&2; echo ready; read -r _'
    conn = way.opened(program(script + "; exit 4"))
    assert way.do(conn.call, "ask", "go") == "ready"
    with pytest.raises(EOFError, match="too much to say") as caught:
        way.do(conn.call, "ask", "on")
    assert len(str(caught.value)) < 5_000
    assert getattr(caught.value, "code", None) == 4


# -- start and end


@pytest.mark.parametrize("command", [["/nowhere/at/all"], ["/"]])
def test_a_program_that_is_not_there(way: Way, command: list[str]) -> None:
    """init raises an OSError, and leaves neither a pipe nor a thread behind."""
    conn = way.conn(command)
    with pytest.raises(OSError, match=command[0]):
        way.do(conn.init)
    before = len(os.listdir("/dev/fd")), threading.active_count()
    for _ in range(3):
        with pytest.raises(OSError, match=command[0]):
            way.do(conn.init)
    eventually(lambda: (len(os.listdir("/dev/fd")), threading.active_count()) == before)
    assert not way.do(conn.check)


def test_nothing_is_left_of_it(way: Way) -> None:
    """Neither a process, dead or alive, nor a pipe, nor a thread."""
    conn = way.opened(["cat"])
    way.do(conn.close)
    gc.collect()
    before = len(os.listdir("/dev/fd")), threading.active_count()
    for _ in range(3):
        way.do(conn.init)
        pid = conn.pid
        assert way.do(conn.call, "ask", "x") == "x"
        way.do(conn.close)
        assert gone(pid)
    eventually(lambda: (len(os.listdir("/dev/fd")), threading.active_count()) == before)


def test_init_again_starts_anew(way: Way, conn: Any) -> None:
    """The process before is ended."""
    pid = conn.pid
    way.do(conn.init)
    assert conn.pid != pid
    assert gone(pid)
    assert way.do(conn.call, "ask", "echo x") == "x"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_inits_at_once(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program is left of them."""
    pids: list[int] = []
    start = anyio.open_process

    async def start_and_note(*args: Any, **options: Any) -> Any:
        process = await start(*args, **options)
        pids.append(process.pid)
        await anyio.sleep(0.01)
        return process

    async def main() -> None:
        conn = AsyncSubprocessConn(["cat"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.init)
            tasks.start_soon(conn.init)
        assert len(pids) == 2
        assert [gone(pid) for pid in pids].count(True) == 1
        assert await conn.call("ask", "x") == "x"
        await conn.close()

    monkeypatch.setattr(anyio, "open_process", start_and_note)
    anyio.run(main, backend=backend)
    assert all(map(gone, pids))


def test_close_may_be_called_again(way: Way) -> None:
    """Before init too; calls of a closed conn did not happen."""
    conn = way.conn()
    for _ in range(2):
        way.do(conn.close)
        way.do(conn.close)
        assert conn.pid is None
        assert not way.do(conn.check)
        with pytest.raises(Closed, match="it is not running, nothing was written"):
            way.do(conn.call, "ask", "echo x")
        with pytest.raises(Closed):
            way.do(conn.reset)
        way.do(conn.init)


def test_a_program_may_end_in_good_order(way: Way, tmp_path: Path) -> None:
    """It gets a SIGTERM, and time to do something about it."""
    note = tmp_path / "note"
    script = f"trap 'sleep 0.05; echo bye > {note}; exit' TERM; echo ready"
    conn = way.opened(program(f"read -r _; {script}; while :; do sleep 0.01; done"))
    assert way.do(conn.call, "ask", "go") == "ready"
    pid = conn.pid
    way.do(conn.close)
    assert note.read_text() == "bye\n"
    assert gone(pid)


def test_a_program_that_does_not_end(way: Way) -> None:
    """It is killed, with what it has started, once its time is over; one that is stopped too."""
    conn = way.opened(grace=0.05)
    assert way.do(conn.call, "ask", "stubborn") == "no"
    pid = conn.pid
    os.kill(pid, signal.SIGSTOP)
    way.do(conn.close)
    assert gone(pid)


def test_what_the_program_has_started(way: Way, tmp_path: Path) -> None:
    """It is killed with it, though it takes no notice of any signal but that."""
    held = tmp_path / "held"
    os.mkfifo(held)
    with open(os.open(held, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        script = f"trap '' TERM; read -r _; exec 3>{held}; sleep 600 & echo ready; wait"
        conn = way.opened(program(script), grace=0.05)
        assert way.do(conn.call, "ask") == "ready"
        pid = conn.pid
        assert pipe.read(1) is None  # somebody holds the other end
        way.do(conn.close)
        assert gone(pid)
        eventually(lambda: pipe.read(1) == b"")


def test_reset_is_for_those_who_come_next(way: Way, conn: Any) -> None:
    """It raises where the program cannot be asked any more."""
    assert way.do(conn.reset) is None
    os.kill(conn.pid, signal.SIGKILL)
    eventually(lambda: not way.do(conn.check))
    with pytest.raises(Closed, match="nothing was written"):
        way.do(conn.reset)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_program_to_the_parent() -> None:
    """In the child a call did not happen, and a close ends nothing."""
    conn = SubprocessConn(["cat"])
    conn.init()
    if (child := os.fork()) == 0:
        try:
            with pytest.raises(Closed, match="the parent's"):
                conn.call("ask", "x")
            assert not conn.check()
            conn.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert conn.call("ask", "x") == "x"
    conn.close()


def test_a_program_in_python(way: Way) -> None:
    """As in the manual: it must not keep its replies to itself."""
    script = "import sys\nfor line in sys.stdin: print(eval(line), flush=True)"
    conn = way.opened([sys.executable, "-c", script])
    assert way.do(conn.call, "ask", "6 * 7") == "42"
    assert way.do(conn.check)


def test_a_frame_in_two_parts(way: Way) -> None:
    """It is one all the same."""
    head = struct.pack(">I", 6)
    octal = "".join(f"\\{byte:03o}" for byte in head)
    script = f"read -r _; printf '{octal[:8]}'; sleep 0.02; printf '{octal[8:]}abc'; sleep 0.02"
    conn = way.opened(program(f"{script}; printf def; read -r _"), framing="frames", encode=line)
    assert way.do(conn.call, "ask", "x") == "abcdef"


def line(_: Any, payload: str) -> bytes:
    """For a program that reads lines and writes frames."""
    return payload.encode() + b"\n"
