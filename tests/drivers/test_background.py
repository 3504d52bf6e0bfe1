"""What a pool does by itself: reviving, closing, keeping time, and the threads it has for that."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from connpool import Backoff, Pool, Reply
from connpool.testing import Do, Hang, ManualClock, ScriptedConn

from . import Crowd, eventually, in_background, threads_of

FAST = Backoff(first=0.005, factor=1.5, most=0.02)

# -- by itself -----------------------------------------------------------------------------------


def test_a_dead_conn_is_revived_without_a_sweep() -> None:
    """However often its init fails before."""
    with Pool(backoff=FAST) as pool:
        script = [None, *[OSError("refused")] * 4, None]
        conn = ScriptedConn("line", [OSError("torn")], init=script)
        id = pool.init(conn, revive=True)
        with pytest.raises(OSError, match="torn"):
            pool.call("line", "say")
        eventually(lambda: id in pool)
        conn.assert_drained()
        assert conn.closes == 1


def test_a_conn_expires_without_a_sweep() -> None:
    """Nobody has to call: it is closed and revived when its time is over."""
    with Pool() as pool:
        conn = ScriptedConn("line")
        pool.init(conn, ttl=0.06, revive=True)
        eventually(lambda: conn.opened >= 3)
        assert conn.closes in {conn.opened - 1, conn.opened}


def test_a_caller_is_served_when_a_rest_is_over() -> None:
    """Nobody has to sweep."""
    with Pool() as pool:
        pool.put(ScriptedConn("line", [Reply(1, cooldown=0.02), 2]))
        assert [pool.call("line", "say"), pool.call("line", "say")] == [1, 2]


def test_a_revival_runs_in_a_thread_of_the_pool() -> None:
    """And the first init in that of its caller."""
    with Pool(name="demo") as pool:
        names: list[str] = []

        def note(*args: Any) -> None:
            names.append(threading.current_thread().name)

        conn = ScriptedConn("line", [OSError(), "back"], init=[Do(note)] * 2, close=[Do(note)] * 2)
        pool.init(conn, revive=True)
        with pytest.raises(OSError):  # noqa: PT011 - it has no text
            pool.call("line", "say")
        assert pool.call("line", "say") == "back"
        assert names == ["MainThread", "connpool demo worker", "connpool demo worker"]
        assert all(thread.daemon for thread in threading.enumerate() if "demo" in thread.name)


# -- what hangs ----------------------------------------------------------------------------------


def test_a_hung_close_harms_nobody_else() -> None:
    """Other conns are closed, opened and called as ever, and its own caller has its answer."""
    hang = Hang()
    with Pool(timeout=5) as pool:
        stuck = ScriptedConn("stuck", [Reply("bye", closed=True)], close=[hang])
        conn = ScriptedConn("line", [OSError("torn"), "back"])
        pool.put(stuck)
        pool.init(conn, revive=True)
        assert pool.call("stuck", "say") == "bye"
        hang.reached()
        with pytest.raises(OSError, match="torn"):
            pool.call("line", "say")
        assert pool.call("line", "say") == "back"
        assert (len(pool), stuck.closes, conn.closes) == (1, 1, 1)
        hang.release()


def test_hung_inits_do_not_keep_others_from_being_revived() -> None:
    """One that takes too long frees its place in time; if it ever ends, it counts after all."""
    hang = Hang()
    with Pool(max_connecting=1, connect_timeout=0.02, backoff=FAST) as pool:
        stuck = [ScriptedConn(n, [OSError()], init=[None, hang]) for n in ("a", "b", "c")]
        well = ScriptedConn("line", [OSError(), "back"])
        for conn in (*stuck, well):
            pool.init(conn, revive=True)
            with pytest.raises(OSError):  # noqa: PT011 - it has no text
                pool.call(conn.resource, "say")
        assert pool.call("line", "say") == "back"
        hang.release()
        eventually(lambda: len(pool) == 4)
        assert [conn.opened for conn in stuck] == [2, 2, 2]


def test_hung_closes_do_not_keep_others_from_being_closed() -> None:
    """The pool needs a few more threads then, and no more patience than connect_timeout."""
    hang = Hang()
    with Pool(connect_timeout=0.02) as pool:
        conns = [ScriptedConn("line", [Reply(1, closed=True)], close=[hang]) for _ in range(6)]
        last = ScriptedConn("line", [Reply(1, closed=True)])
        for conn in (*conns, last):
            pool.put(conn)
        for _ in range(7):
            assert pool.call("line", "say") == 1
        eventually(lambda: last.closes == 1)
        hang.release()
        eventually(lambda: all(conn.closes == 1 for conn in conns))


def test_what_is_no_exception_out_of_a_revival() -> None:
    """It ends no worker that others wait for, and counts as a failed init."""
    with Pool(max_connecting=1, backoff=FAST, timeout=5) as pool:
        conns = [
            ScriptedConn(
                name, [OSError(), "back"], init=[None, SystemExit(), GeneratorExit(), None]
            )
            for name in "abcd"
        ]
        for conn in conns:
            pool.init(conn, revive=True)
            with pytest.raises(OSError):  # noqa: PT011 - it has no text
                pool.call(conn.resource, "say")
        for conn in conns:
            assert pool.call(conn.resource, "say") == "back"
            conn.assert_drained()


def test_what_is_no_exception_out_of_a_close() -> None:
    """The conn counts as closed, and is revived."""
    with Pool(timeout=5) as pool:
        conn = ScriptedConn("line", [OSError(), "back"], close=[SystemExit(), None])
        pool.init(conn, revive=True)
        with pytest.raises(OSError):  # noqa: PT011 - it has no text
            pool.call("line", "say")
        assert pool.call("line", "say") == "back"


# -- threads -------------------------------------------------------------------------------------


def test_a_pool_with_nothing_due_has_no_threads() -> None:
    """Neither when it is made, nor for conns that live for ever, nor for calls and waits."""
    with Pool() as pool:
        hang = Hang()
        pool.init(ScriptedConn("line", [hang, "b", "c"]))
        crowd = Crowd(3, lambda _: pool.call("line", "say", timeout=60))
        eventually(lambda: pool.stats().now.waiting == 2)
        hang.release()
        crowd.join()
        pool.pop_all("line")
        assert threads_of(pool) == []


def test_threads_come_when_something_is_due() -> None:
    """A keeper for a ttl, a worker for a closing; at most one more worker than may connect."""
    with Pool(name="demo", max_connecting=2) as pool:
        pool.put(ScriptedConn("line"), ttl=60)
        assert threads_of(pool) == ["connpool demo keeper"]
        hang = Hang()
        for _ in range(9):
            pool.put(ScriptedConn("else", [Reply(1, closed=True)], close=[hang]))
        for _ in range(9):
            pool.call("else", "say")
        eventually(lambda: hang.inside == 3)
        assert sorted(threads_of(pool)) == ["connpool demo keeper"] + ["connpool demo worker"] * 3
        hang.release()
    assert threads_of(pool) == []


def test_the_keeper_goes_when_nothing_is_due_any_more() -> None:
    """And comes again."""
    with Pool(connect_timeout=0.05) as pool:
        for _ in range(2):
            pool.put(ScriptedConn("line"), ttl=0.01)
            eventually(lambda: pool.empty("line"))
            eventually(lambda: not any("keeper" in name for name in threads_of(pool)))


def test_workers_go_when_they_have_had_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while."""
    monkeypatch.setattr("connpool.crew.IDLE", 0.01)
    with Pool(connect_timeout=0.05) as pool:
        conn = ScriptedConn("line", [Reply(1, closed=True)])
        pool.put(conn)
        pool.call("line", "say")
        eventually(lambda: conn.closes)
        eventually(lambda: threads_of(pool) == [])


@pytest.mark.parametrize("ttl", [None, 3600.0])
def test_a_dropped_pool_does_not_live_for_ever(
    monkeypatch: pytest.MonkeyPatch, ttl: float | None
) -> None:
    """Nothing that the pool has started keeps it alive, and its threads end after it."""
    monkeypatch.setattr("connpool.crew.IDLE", 0.01)
    monkeypatch.setattr("connpool.crew.GLANCE", 0.01)
    pool = Pool(name="dropped")
    pool.init(ScriptedConn("line", [OSError(), "back"]), ttl=ttl, revive=True)
    with pytest.raises(OSError):  # noqa: PT011 - it has no text
        pool.call("line", "say")
    assert pool.call("line", "say") == "back"
    gone = weakref.ref(pool)
    del pool
    eventually(lambda: gc.collect() is not None and gone() is None)
    eventually(lambda: not any("dropped" in thread.name for thread in threading.enumerate()))


def test_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool serves on, and does what is due when it is swept."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Pool() as pool:
        conn = ScriptedConn("line", [OSError(), "back"])
        pool.init(conn, revive=True, ttl=60)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError):  # noqa: PT011 - it has no text
            pool.call("line", "say")
        pool.sweep()
        assert pool.call("line", "say") == "back"
        assert "cannot start a worker" in caplog.text
        monkeypatch.undo()


# -- sweep ---------------------------------------------------------------------------------------


def test_a_sweep_waits_for_what_runs_in_the_background() -> None:
    """When it returns, what was due is done, whoever has done it."""
    with ManualClock() as clock, Pool() as pool:
        conns = [ScriptedConn("line") for _ in range(20)]
        for conn in conns:
            pool.init(conn, ttl=10, revive=True)
        clock.advance(10, pool)
        assert [(conn.closes, conn.opened) for conn in conns] == [(1, 2)] * 20
        assert len(pool) == 20


def test_many_sweep_at_once() -> None:
    """Everything is done once."""
    with ManualClock() as clock, Pool() as pool:
        conns = [ScriptedConn("line") for _ in range(20)]
        for conn in conns:
            pool.init(conn, ttl=10, revive=True)
        clock.advance(10)
        assert Crowd(8, lambda _: pool.sweep()).join() == [10.0] * 8
        assert [(conn.closes, conn.opened) for conn in conns] == [(1, 2)] * 20


def test_callbacks_may_call_and_close_the_pool() -> None:
    """They run in whatever thread, and hold nothing."""
    seen: list[Any] = []
    pool = Pool(
        on_connect=lambda info: seen.append(pool.call("line", "say", "connected")),
        on_disconnect=lambda info, reason: pool.close(),
    )
    conn = ScriptedConn("line", ["connected", Reply("bye", closed=True)])
    pool.put(conn)
    assert pool.call("line", "say") == "bye"
    eventually(lambda: threads_of(pool) == [])
    assert (seen, conn.closes) == (["connected"], 1)
    assert "closed" in repr(pool)


def test_a_slow_callback_holds_up_nobody_else() -> None:
    """Others call meanwhile."""
    hang = Hang()
    with Pool(on_connect=lambda info: hang._pass() if info.extra else None) as pool:
        putting = in_background(lambda: pool.put(ScriptedConn("slow"), extra=True))
        hang.reached()
        pool.put(ScriptedConn("line", ["fine"]))
        assert pool.call("line", "say") == "fine"
        assert pool.call("slow", "say", "too") == "too"
        hang.release()
        putting.join()
