"""The end of a pool for threads: it comes in bounded time, and leaves nothing behind."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from connpool import Pool, PoolClosed, Reply
from connpool.testing import Hang, ScriptedConn

from . import PATIENCE, Crowd, eventually, in_background, threads_of


def test_a_close_with_everything_hung_ends_in_time() -> None:
    """A hung call, a hung init, a hung close and 100 waiters: all are told, nothing is left."""
    hang = Hang()
    pool = Pool(name="hung")
    calling = ScriptedConn("line", [hang])
    opening = ScriptedConn("b", [OSError()], init=[None, hang])
    closing = ScriptedConn("c", [Reply(1, closed=True)], close=[hang])
    well = ScriptedConn("d")
    for conn in (calling, opening, closing, well):
        pool.init(conn, revive=True, ttl=3600)
    caller = in_background(lambda: pool.call("line", "say"))
    with pytest.raises(OSError):  # noqa: PT011 - it has no text
        pool.call("b", "say")
    assert pool.call("c", "say") == 1
    eventually(lambda: hang.inside == 3)
    crowd = Crowd(100, lambda _: pool.call("line", "say", timeout=None))
    eventually(lambda: pool.stats().now.waiting == 100)

    closer = in_background(lambda: pool.close(0.1))
    assert all(isinstance(error, PoolClosed) for error in crowd.join())
    assert closer.join() == [None]
    assert (hang.inside, well.closes, calling.closes) == (3, 1, 1)
    assert threads_of(pool) == ["abandoned by closed connpool hung"] * 2

    hang.release()
    caller.join()
    eventually(lambda: threads_of(pool) == [])
    assert [conn.closes - conn.opened for conn in (calling, opening, closing, well)] == [0] * 4


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_many_hung_closes_cost_no_more_time_than_one(timeout: float) -> None:
    """And every other conn is closed within it."""
    hang = Hang()
    pool = Pool()
    stuck = [ScriptedConn("line", close=[hang]) for _ in range(20)]
    well = [ScriptedConn("line") for _ in range(100)]
    for conn in stuck + well:
        pool.put(conn)
    begun = time.monotonic()
    pool.close(timeout)
    assert time.monotonic() - begun < 5  # one after the other they would take 10 s
    assert [conn.closes for conn in well] == [1] * 100
    hang.release()
    eventually(lambda: threads_of(pool) == [])
    assert [conn.closes for conn in stuck] == [1] * 20


def test_a_close_waits_for_running_calls() -> None:
    """Until its timeout: they end well, and nothing is logged."""
    hang = Hang("finished")
    pool = Pool()
    conn = ScriptedConn("line", [hang])
    pool.put(conn)
    caller = in_background(lambda: pool.call("line", "say"))
    hang.reached()
    closer = in_background(lambda: pool.close(None))
    eventually(lambda: "closed" in repr(pool))
    assert conn.closes == 0
    hang.release()
    assert (caller.join(), closer.join()) == (["finished"], [None])
    assert conn.closes == 1


def test_only_conns_in_use_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A close without patience warns of the calls it cuts short, and of nothing else."""
    hang = Hang("late")
    pool = Pool(name="demo")
    conns = [ScriptedConn("line", [hang]), *(ScriptedConn("else") for _ in range(9))]
    for conn in conns:
        pool.put(conn)
    caller = in_background(lambda: pool.call("line", "say"))
    hang.reached()
    with caplog.at_level(logging.WARNING, "connpool"):
        pool.close(0)
    assert [record.getMessage() for record in caplog.records] == [
        "demo: closed while conn 1 was in use"
    ]
    assert [conn.closes for conn in conns] == [1] * 10
    hang.release()
    assert caller.join() == ["late"]


def test_many_close_at_once() -> None:
    """Every conn is closed once."""
    pool = Pool()
    conns = [ScriptedConn("line") for _ in range(50)]
    for conn in conns:
        pool.put(conn, ttl=60)
    assert Crowd(8, lambda _: pool.close()).join() == [None] * 8
    assert [conn.closes for conn in conns] == [1] * 50
    assert threads_of(pool) == []


def test_close_meets_callers_that_never_stop() -> None:
    """Each call is served or refused, every conn is closed once, and none is used after that."""
    for _ in range(5):
        pool = Pool()
        conns = [ScriptedConn("line") for _ in range(3)]
        for conn in conns:
            pool.put(conn, ttl=60, revive=True)
        served = threading.Semaphore(0)

        def call(number: int, pool: Pool = pool, served: threading.Semaphore = served) -> None:
            while True:
                assert pool.call("line", "say", number) == number
                served.release()

        crowd = Crowd(8, call)
        for _ in range(200):
            assert served.acquire(timeout=PATIENCE)
        pool.close()
        assert all(isinstance(error, PoolClosed) for error in crowd.join())
        assert [(conn.closes, conn.running) for conn in conns] == [(1, 0)] * 3
        assert threads_of(pool) == []


def test_a_conn_added_while_the_pool_closes() -> None:
    """Its init may last longer than the close: it is closed by whoever added it."""
    hang = Hang()
    pool = Pool()
    conn = ScriptedConn("line", init=[hang])
    opener = in_background(lambda: pool.init(conn))
    hang.reached()
    pool.close(0)
    hang.release()
    assert isinstance(opener.join()[0], PoolClosed)
    assert (conn.opened, conn.closes) == (1, 1)


def test_an_interpreter_exits_with_a_busy_pool() -> None:
    """No hang and no traceback, whatever hangs in the pool's threads."""
    program = """
        import threading
        from connpool import Pool, Reply
        from connpool.testing import Hang, ScriptedConn

        pool, hang = Pool(), Hang()
        pool.init(ScriptedConn("a", [OSError()], init=[None, hang]), revive=True)
        pool.init(ScriptedConn("b", [Reply(1, closed=True)], close=[hang]), revive="force")
        pool.init(ScriptedConn("c", [hang, 1]), ttl=0.05, revive=True)
        pool.init(ScriptedConn("d"), ttl=0.05, revive=True)
        try:
            pool.call("a", "say")
        except OSError:
            pool.call("b", "say")
        for _ in range(3):
            threading.Thread(target=pool.call, args=("c", "say"), daemon=True).start()
        while hang.inside < 3:
            pass
        print("done")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
