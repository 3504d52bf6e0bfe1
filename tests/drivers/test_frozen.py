"""A frozen clock, in one thread: what a user's own tests with freezegun see."""

from __future__ import annotations

import time

import pytest
from freezegun import freeze_time

from connpool import Backoff, Busy, Pool, PoolTimeout, Reply, ResourceError
from connpool.testing import ManualClock, ScriptedConn


def test_a_ttl_is_over_when_the_frozen_clock_says_so() -> None:
    """Not before, and nobody waits for it."""
    with freeze_time("2030-01-01") as frozen, Pool() as pool:
        conn = ScriptedConn("line", ["fine"])
        id = pool.put(conn, ttl=3600)
        frozen.tick(3599)
        assert pool.call("line", "say") == "fine"
        frozen.tick(1)
        assert id not in pool
        with pytest.raises(ResourceError):
            pool.call("line", "say")
        pool.sweep()
        assert conn.closes == 1


def test_a_rest_is_over_when_the_frozen_clock_says_so() -> None:
    """Of a reply and of a refusal."""
    with freeze_time("2030-01-01") as frozen, Pool() as pool:
        id = pool.put(ScriptedConn("line", [Reply(1, cooldown=60), Busy(30), 2]))
        assert pool.call("line", "say") == 1
        assert pool.info(id).cooldown == 60.0
        with pytest.raises(PoolTimeout):
            pool.call("line", "say", timeout=0)
        frozen.tick(60)
        with pytest.raises(PoolTimeout):
            pool.call("line", "say", timeout=0)
        assert pool.sweep() == 30.0
        frozen.tick(30)
        assert pool.call("line", "say", timeout=0) == 2


def test_backoff_goes_by_the_frozen_clock() -> None:
    """A sweep does what is due, and says when the next thing is."""
    backoff = Backoff(first=10, factor=2, jitter=0)
    with freeze_time("2030-01-01") as frozen, Pool(backoff=backoff) as pool:
        script = [None, OSError(), OSError(), None]
        conn = ScriptedConn("line", [OSError(), "back"], init=script)
        pool.init(conn, revive=True)
        with pytest.raises(OSError):  # noqa: PT011 - it has no text
            pool.call("line", "say")
        assert pool.sweep() == 10.0
        frozen.tick(10)
        assert pool.sweep() == 20.0
        frozen.tick(20)
        assert pool.sweep() is None
        assert pool.call("line", "say") == "back"


def test_an_expired_conn_is_revived_by_a_sweep() -> None:
    """With a ttl that counts from its new init."""
    with freeze_time("2030-01-01") as frozen, Pool() as pool:
        conn = ScriptedConn("line")
        id = pool.init(conn, ttl=60, revive=True)
        for life in (1, 2, 3):
            frozen.tick(60)
            assert pool.sweep() == 60.0
            assert (conn.closes, conn.opened, id in pool) == (life, life + 1, True)


def test_a_manual_clock_leaves_the_time_module_alone() -> None:
    """Only the pools read it, and only until its with block is over."""
    with ManualClock(5) as clock, Pool() as pool:
        pool.put(ScriptedConn("line"))
        assert pool.infos()[0].last_init == clock.monotonic() == 5.0
        assert time.monotonic() != 5.0
        with pytest.raises(RuntimeError, match="in use"), clock:
            pass
    with Pool() as pool:
        before = time.monotonic()
        pool.put(ScriptedConn("line"))
        init = pool.infos()[0].last_init
        assert init is not None
        assert before <= init <= time.monotonic()
