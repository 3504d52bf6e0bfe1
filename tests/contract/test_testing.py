"""The testing aids themselves: scripts, memories and the clock turned by hand."""

from __future__ import annotations

import importlib
import pkgutil
import time
from typing import Any

import anyio
import pytest

import connpool
from connpool import Pool, Reply
from connpool.conn import check_conn, describe
from connpool.testing import Do, Hang, ManualClock, ScriptedAsyncConn, ScriptedConn
from connpool.testing.clock import DRIVERS

BACKENDS = ["asyncio", "trio"]


def test_a_scripted_conn_keeps_the_contract() -> None:
    """It says what it was told to say of itself."""
    conn = ScriptedConn(["a", "b"], methods=["x", "y"], capacity=3)
    check_conn(conn, awaits=False)
    said = describe(conn, conn.methods())
    assert (said.resources, said.methods, said.capacity) == (("a", "b"), frozenset("xy"), 3)
    check_conn(ScriptedAsyncConn("a"), awaits=True)


def test_without_a_script_all_is_well() -> None:
    """Call answers its payload, check says yes, init and close do nothing; all is remembered."""
    conn = ScriptedConn("line")
    assert (conn.init(1, two=2), conn.check(), conn.close()) == (None, True, None)
    assert conn.call("say", "payload") == "payload"
    assert (conn.inits, conn.calls) == ([((1,), {"two": 2})], [("say", "payload")])
    assert (conn.opened, conn.checks, conn.closes, conn.running, conn.most) == (1, 1, 1, 0, 1)
    conn.assert_drained()


@pytest.mark.parametrize("what", ["init", "call", "check", "close"])
def test_what_the_script_did_not_foresee(what: str) -> None:
    """It is an AssertionError where it happens, and again at the end."""
    conn = ScriptedConn("line", **{what: ["once"]})  # type: ignore[arg-type]
    args = ("say",) if what == "call" else ()
    with pytest.raises(AssertionError, match=f"was not followed: 1 of {what} left"):
        conn.assert_drained()
    assert getattr(conn, what)(*args) == "once"
    conn.assert_drained()
    with pytest.raises(AssertionError, match=f"no more steps of {what}"):
        getattr(conn, what)(*args)
    with pytest.raises(AssertionError, match=f"of {what} missing"):
        conn.assert_drained()


def test_steps_may_lead_to_steps() -> None:
    """A Do gives the next one, and so does a Hang that is released."""
    hang = Hang(then=Do(lambda method, payload: OSError(payload)))
    hang.release()
    conn = ScriptedConn("line", [Do(lambda method, payload: hang), Reply(1)])
    with pytest.raises(OSError, match="torn"):
        conn.call("say", "torn")
    assert conn.call("say") == Reply(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scripted_async_conn_follows_its_script(backend: str) -> None:
    """In tasks of either kind; one that is cancelled in a hang leaves it."""

    async def given(method: Any, payload: Any) -> Any:
        return payload

    async def main() -> None:
        hang = Hang(then="late")
        conn = ScriptedAsyncConn("line", [Do(given), hang, hang, OSError("torn")], check=[False])
        assert await conn.init() is None
        assert await conn.call("say", "given") == "given"
        answers: list[Any] = []

        async def call() -> None:
            answers.append(await conn.call("say"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await hang.reached_async()
            with anyio.move_on_after(0):
                await conn.call("say")
            assert (hang.inside, conn.running, answers) == (1, 1, [])
            hang.release()
        assert answers == ["late"]
        with pytest.raises(OSError, match="torn"):
            await conn.call("say")
        assert await conn.check() is False
        assert await conn.methods() == ("say",)
        await conn.close()
        conn.assert_drained()

    anyio.run(main, backend=backend)


def test_a_clock_wants_seconds() -> None:
    """It goes on, never back."""
    clock = ManualClock()
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises((TypeError, ValueError), match=r"advance: expected seconds"):
            clock.advance(wrong)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match=r"start: expected seconds"):
            ManualClock(wrong)  # type: ignore[arg-type]


def test_small_steps_add_up() -> None:
    """What is due in 0.3 seconds is due after 0.1 and 0.2."""
    with ManualClock() as clock, Pool() as pool:
        conn = ScriptedConn("line")
        pool.put(conn, ttl=0.3)
        clock.advance(0.1, pool)
        clock.advance(0.2, pool)
        assert conn.closes == 1


def test_an_async_pool_is_advanced_by_await() -> None:
    """Plain advance says so instead of leaving a coroutine behind."""

    class Swept:
        swept = 0

        async def sweep(self) -> None:
            self.swept += 1

    pool, clock = Swept(), ManualClock()
    with pytest.raises(TypeError, match="advance_async"):
        clock.advance(1, pool)
    anyio.run(clock.advance_async, 1, pool)
    assert (pool.swept, clock.monotonic()) == (1, 1001.0)


def test_the_clock_knows_every_module_that_reads_the_time() -> None:
    """But for those that wait for real threads, and those that are no part of a pool."""
    excused = {"crew", "demo", "demo_keys", "demo_ledger", "demo_screen"}
    reading = set()
    for found in pkgutil.iter_modules(connpool.__path__):
        if not found.ispkg and found.name not in {"__main__", *excused}:
            module = importlib.import_module(f"connpool.{found.name}")
            if getattr(module, "time", None) is time:
                reading.add(found.name)
    assert reading <= set(DRIVERS)
