"""Real threads: many callers of the same conns at once, errors out of a call, fair shares."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest

from connpool import Closed, Pool, PoolError, PoolTimeout, ResourceError
from connpool.testing import Do, Hang, ManualClock, ScriptedConn

from . import Crowd, eventually, in_background

needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="there are no signals here"
)


class Tiny:
    """A conn as small as it can be."""

    resource = "line"

    def init(self) -> None:
        pass

    def call(self, method: Any, payload: Any = None) -> Any:
        return payload

    def methods(self) -> tuple[str, ...]:
        return ("say",)


# -- many find the same --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 10, 50])
def test_many_find_the_same_conn_expired(size: int) -> None:
    """It is closed once and revived once, and each of them is served."""
    with ManualClock() as clock, Pool() as pool:
        conn = ScriptedConn("line")
        pool.init(conn, ttl=10, revive=True)
        clock.advance(10)
        crowd = Crowd(size, lambda number: pool.call("line", "say", number))
        assert crowd.join() == list(range(size))
        assert (conn.closes, conn.opened, conn.most) == (1, 2, 1)


@pytest.mark.parametrize("size", [2, 10, 50])
def test_many_find_the_same_conn_closed(size: int) -> None:
    """Nobody sees anything of it: each call is served once, by the conn revived."""
    with Pool() as pool:
        conn = ScriptedConn("line", [Closed(), *range(size)])
        pool.init(conn, revive=True)
        crowd = Crowd(size, lambda number: pool.call("line", "say", number))
        assert sorted(crowd.join()) == list(range(size))
        assert (conn.closes, conn.opened, conn.most, len(conn.calls)) == (1, 2, 1, size + 1)


@pytest.mark.parametrize("size", [2, 10, 50])
def test_many_find_the_same_conn_dead(size: int) -> None:
    """One of them gets the error, the others are told that there is no conn, with that cause."""
    with Pool() as pool:
        died = OSError("torn")
        conn = ScriptedConn("line", [died])
        pool.init(conn)
        results = Crowd(size, lambda number: pool.call("line", "say", number)).join()
        assert results.count(died) == 1
        assert sum(isinstance(error, ResourceError) for error in results) == size - 1
        assert len(pool) == 0
    assert (conn.closes, len(conn.calls)) == (1, 1)


def test_a_dead_conn_with_many_places() -> None:
    """All calls on it fail together: it is given up once."""
    with Pool() as pool:
        hang = Hang(then=OSError("torn"))
        conn = ScriptedConn("line", [hang] * 20 + ["back"] * 20, capacity=20)
        pool.init(conn, revive=True)
        crowd = Crowd(20, lambda number: pool.call("line", "say"))
        eventually(lambda: hang.inside == 20)
        hang.release()
        assert all(isinstance(error, OSError) for error in crowd.join())
        assert Crowd(20, lambda number: pool.call("line", "say")).join() == ["back"] * 20
        assert (conn.closes, conn.opened) == (1, 2)


# -- what comes out of a call --------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("queued", [False, True])
def test_what_is_no_exception_out_of_a_call(error: BaseException, queued: bool) -> None:
    """It reaches the caller; the conn, whose state is unknown, is closed and revived; no more."""
    with Pool() as pool:
        hang = Hang()
        conn = ScriptedConn("line", [hang, error, "next"] if queued else [error, "next"])
        pool.init(conn, revive=True)
        crowds = []
        if queued:
            crowds.append(in_background(lambda: pool.call("line", "say")))
            hang.reached()
        crowds.append(in_background(lambda: pool.call("line", "say")))
        eventually(lambda: pool.stats().now.waiting == queued)
        hang.release()
        assert crowds[-1].join() == [error]
        assert pool.call("line", "say") == "next"
        assert (conn.closes, conn.opened) == (1, 2)
        assert pool.stats().since_start.ended == {"interrupted": 1}


def interrupt_main() -> None:
    """As Ctrl-C does: a signal that ends a wait for a lock."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


@needs_signals
def test_an_interrupt_while_the_main_thread_waits() -> None:
    """It leaves the line, its call is never made, and no place is lost."""
    with Pool() as pool:
        hang = Hang()
        conn = ScriptedConn("line", [hang, "behind", "after"])
        pool.put(conn)
        running = in_background(lambda: pool.call("line", "say"))
        hang.reached()

        def interrupt() -> None:
            eventually(lambda: pool.stats().now.waiting == 1)
            interrupt_main()

        interrupting = in_background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.call("line", "say", "interrupted")
        interrupting.join()
        assert pool.stats().now.waiting == 0
        behind = in_background(lambda: pool.call("line", "say", "behind"))
        eventually(lambda: pool.stats().now.waiting == 1)
        hang.release()
        assert (running.join(), behind.join()) == ([None], ["behind"])
        assert pool.call("line", "say", "after") == "after"
        assert pool.stats().since_start.cancelled == 1
        assert [payload for _, payload in conn.calls] == [None, "behind", "after"]


@needs_signals
def test_an_interrupt_during_the_main_threads_call() -> None:
    """The conn goes, and whoever waits is served by the next one."""
    with Pool() as pool:

        def interrupted(method: Any, payload: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        conn = ScriptedConn("line", [Do(interrupted), "next"])
        pool.init(conn, revive=True)
        with pytest.raises(KeyboardInterrupt):
            pool.call("line", "say")
        assert pool.call("line", "say") == "next"
        assert conn.closes == 1


@needs_signals
def test_an_interrupt_while_the_main_thread_pops() -> None:
    """The conn stays in the pool."""
    with Pool() as pool:
        hang = Hang()
        id = pool.put(ScriptedConn("line", [hang, "next"]))
        running = in_background(lambda: pool.call("line", "say"))
        hang.reached()

        def interrupt() -> None:
            eventually(lambda: pool.stats().now.draining == 1)
            interrupt_main()

        interrupting = in_background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.pop(id, timeout=None)
        interrupting.join()
        hang.release()
        running.join()
        assert id in pool
        assert pool.call("line", "say") == "next"


def test_a_filter_that_exits_harms_no_lock() -> None:
    """Whoever is hit by it, the pool goes on."""
    pool, hang = Pool(), Hang()  # not in a with block, and asked by threads: a bug would lock it up
    id = pool.put(ScriptedConn("line", [hang, "next"]))

    def exits(info: Any) -> bool:
        if info.in_use:
            return True
        raise SystemExit

    running = in_background(lambda: pool.call("line", "say"))
    hang.reached()
    waiting = in_background(lambda: pool.call("line", "say", filter=exits, timeout=None))
    eventually(lambda: pool.stats().now.waiting == 1)
    hang.release()
    running.join()
    assert in_background(lambda: pool.info(id).in_use).join() == [0]
    assert in_background(pool.close).join() == [None]
    assert isinstance(waiting.join()[0], (PoolError, SystemExit))


def test_callers_that_have_given_up_are_not_run_later() -> None:
    """Their calls are never made, however many there were."""
    with ManualClock() as clock, Pool() as pool:
        hang = Hang()
        conn = ScriptedConn("line", [hang, "patient"])
        pool.put(conn)
        running = in_background(lambda: pool.call("line", "say", "first"))
        hang.reached()
        crowd = Crowd(20, lambda number: pool.call("line", "say", "late", timeout=5))
        eventually(lambda: pool.stats().now.waiting == 20)
        patient = in_background(lambda: pool.call("line", "say", "patient", timeout=50))
        eventually(lambda: pool.stats().now.waiting == 21)
        clock.advance(5, pool)
        assert all(isinstance(error, PoolTimeout) for error in crowd.join())
        hang.release()
        assert (running.join(), patient.join()) == ([None], ["patient"])
        assert [payload for _, payload in conn.calls] == ["first", "patient"]


def test_a_wait_ends_by_itself() -> None:
    """Nobody has to sweep: the caller sees for itself that its time is over."""
    with Pool() as pool:
        hang = Hang()
        pool.put(ScriptedConn("line", [hang]))
        running = in_background(lambda: pool.call("line", "say"))
        hang.reached()
        with pytest.raises(PoolTimeout):
            pool.call("line", "say", timeout=0.02)
        hang.release()
        running.join()


def test_a_pop_that_takes_too_long_says_how_long() -> None:
    """Its own timeout, not the pool's."""
    with Pool(timeout=60) as pool:
        hang = Hang()
        id = pool.put(ScriptedConn("line", [hang]))
        running = in_background(lambda: pool.call("line", "say"))
        hang.reached()
        with pytest.raises(PoolTimeout) as caught:
            pool.pop(id, timeout=0.01)
        assert caught.value.timeout == 0.01
        assert caught.value.waited >= 0.01
        hang.release()
        running.join()


# -- shares --------------------------------------------------------------------------------------


def test_32_threads_over_2_conns_get_fair_shares() -> None:
    """In a tight loop nobody starves: Jain's index over what each got is 0.99 at least."""
    served: Counter[int] = Counter()
    enough = threading.Event()
    pool = Pool(timeout=None)
    both = threading.Barrier(2)

    class Crowded(Tiny):
        def call(self, method: Any, number: Any = None) -> None:
            """Returns when both conns are called and all the others stand in line, however the
            machine switches."""
            while pool.stats().now.waiting < 30 and not enough.is_set():
                time.sleep(0)
            try:
                both.wait()
            except threading.BrokenBarrierError:  # it is over
                return
            served[number] += 1
            if served[number] == 25:
                enough.set()
                both.abort()

    def loop(number: int) -> None:
        while not enough.is_set():
            pool.call("line", "say", number)

    with pool:
        for _ in range(2):
            pool.put(Crowded())
        Crowd(32, loop).join()
    shares = [served[number] for number in range(32)]
    assert sum(shares) ** 2 / (32 * sum(share * share for share in shares)) >= 0.99, shares


def test_a_line_of_threads_is_served_in_order() -> None:
    """50 threads queue one after the other and are served in that order."""
    with Pool() as pool:
        hang = Hang()
        conn = ScriptedConn("line", [hang] * 51)
        pool.put(conn)
        crowds = [in_background(lambda: pool.call("line", "say", -1))]
        hang.reached()
        for number in range(50):
            crowds.append(in_background(partial(pool.call, "line", "say", number)))
            eventually(lambda: pool.stats().now.waiting == len(crowds) - 1)
        hang.release()
        for crowd in crowds:
            crowd.join()
        assert [payload for _, payload in conn.calls] == list(range(-1, 50))


def test_ids_are_unique_over_threads() -> None:
    """8 threads add conns as fast as they can."""
    pool = Pool()
    crowd = Crowd(8, lambda _: [pool.put(Tiny()) for _ in range(4000)])
    ids = list(itertools.chain.from_iterable(crowd.join()))
    assert len(set(ids)) == len(ids) == len(pool) == 32_000


def test_ids_are_unique_over_threads_in_the_long_run() -> None:
    """8 threads take 100,000 each, as every put does, for conns that are not kept."""
    pool = Pool()
    refused = OSError("refused")

    def take() -> int:
        with pool._turn as now:
            permit = pool._core.admit(Tiny(), now=now)
            pool._core.open_failed(permit, refused, now)
        return permit.entry.id

    crowd = Crowd(8, lambda _: [take() for _ in range(100_000)])
    ids = list(itertools.chain.from_iterable(crowd.join()))
    assert len(set(ids)) == len(ids) == 800_000
