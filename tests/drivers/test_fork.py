"""Forks: the child lets the parent's conns be, and its pools work; the parent notices nothing."""

from __future__ import annotations

import gc
import os
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Pool, ResourceError
from connpool.testing import Hang, ScriptedAsyncConn, ScriptedConn
from tests.drivers import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


class Session(ScriptedConn):
    """A conn that writes down who closes or resets it, and who lets it be collected."""

    def __init__(self, told: int) -> None:
        super().__init__("db")
        self.told = told
        self.finaliser = weakref.finalize(self, os.write, told, b"collected ")

    def close(self) -> Any:
        os.write(self.told, b"closed ")
        return super().close()

    def reset(self) -> None:
        os.write(self.told, b"reset ")


def in_child(story: Callable[[], Any]) -> None:
    """Run a story in a forked child, and fail if it fails there."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if not child:
        status = 1
        try:
            story()
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, text


def said(told: int) -> bytes:
    """What sessions have written so far."""
    os.set_blocking(told, False)
    try:
        return os.read(told, 10_000)
    except BlockingIOError:
        return b""


def test_a_child_neither_uses_nor_closes_what_it_inherits() -> None:
    """Idle and borrowed conns, with the collector run in the child; the parent goes on."""
    told, telling = os.pipe()
    with Pool() as pool:
        pool.init(Session(telling))
        pool.init(Session(telling))

        def story() -> None:
            gc.collect()
            assert len(pool) == 0
            with pytest.raises(ResourceError):
                pool.call("db", "say")
            pool.init(ScriptedConn("db"))
            assert pool.call("db", "say", "child") == "child"
            lease.__exit__(None, None, None)
            gc.collect()

        lease = pool.checkout("db")
        with lease:
            in_child(story)
            assert said(told) == b""
        assert said(told) == b"reset "
        assert len(pool) == 2
        assert pool.call("db", "say", "parent") == "parent"
    assert said(told) == b"closed closed "


def test_a_supply_works_again_in_the_child() -> None:
    """It begins with conns of its own, once the pool is used; the parent's stay as they are."""
    made: list[ScriptedConn] = []

    def make() -> ScriptedConn:
        made.append(ScriptedConn("db"))
        return made[-1]

    with Pool() as pool:
        pool.supply("db", make, min_size=1, max_size=2)
        pool.wait_ready()

        def story() -> None:
            assert pool.call("db", "say", 1) == 1
            assert made[0].calls == []
            assert len(made) == 2
            pool.close()
            assert made[0].closes == 0
            assert made[1].closes == 1

        in_child(story)
        assert pool.call("db", "say", 2) == 2
        assert len(made) == 1


def test_a_fork_while_other_threads_call() -> None:
    """The child finds every lock free, whatever the others were about."""
    stop = False

    def busy() -> None:
        while not stop:
            pool.call("db", "say")

    with Pool() as pool:
        for _ in range(2):
            pool.init(ScriptedConn("db"))
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:

            def story() -> None:
                assert pool.stats().now.waiting == 0
                pool.init(ScriptedConn("db"), ttl=60.0)
                assert pool.call("db", "say", 3) == 3
                assert pool.sweep() is not None
                pool.close()

            for _ in range(5):
                in_child(story)
        finally:
            stop = True
            for thread in threads:
                thread.join()
        assert pool.stats().now.in_use == 0


def test_a_fork_inside_a_call() -> None:
    """The call ends in both processes, in each as its own."""

    class Forking(ScriptedConn):
        def call(self, method: Any, payload: Any = None) -> Any:
            in_child(lambda: None)
            return super().call(method, payload)

    with Pool() as pool:
        pool.init(Forking("db"))
        assert pool.call("db", "say", 4) == 4
        assert pool.stats().now.in_use == 0


def test_a_closed_pool_is_closed_in_the_child_too() -> None:
    """Nothing opens it again."""
    pool = Pool()
    pool.close()
    in_child(lambda: _expect_closed(pool))


def _expect_closed(pool: Pool) -> None:
    with pytest.raises(Exception, match="closed"):
        pool.init(ScriptedConn("db"))


def test_a_connect_under_way_is_the_parents() -> None:
    """The child opens one of its own; the parent's arrives in the parent."""
    hang = Hang()
    first = [hang]

    def make() -> ScriptedConn:
        return ScriptedConn("db", init=[first.pop() if first else None])

    with Pool() as pool:
        pool.supply("db", make, min_size=1, max_size=1)
        hang.reached()

        def story() -> None:
            first.clear()
            assert pool.call("db", "say", 5) == 5

        in_child(story)
        hang.release()
        eventually(lambda: len(pool) == 1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pool_of_tasks_is_empty_and_not_open_in_the_child(backend: str) -> None:
    """Its loop is the parent's; it can be opened there, in a loop of the child's own."""

    async def main() -> None:
        async with pool:
            await pool.init(conn)
            in_child(story)
            assert await pool.call("db", "say", 6) == 6
            assert conn.closes == 0

    def story() -> None:
        assert "0 conns" in repr(pool)
        with pytest.raises(RuntimeError, match="not open"):
            len(pool)
        assert conn.closes == 0

    pool, conn = AsyncPool(), ScriptedAsyncConn("db")
    anyio.run(main, backend=backend)
    assert conn.closes == 1


def test_a_pool_of_tasks_opens_in_a_child() -> None:
    """As it did in the parent, which has left it."""
    pool = AsyncPool()

    async def main() -> None:
        async with pool:
            await pool.init(ScriptedAsyncConn("db"))
            assert await pool.call("db", "say", 7) == 7

    anyio.run(main)
    in_child(lambda: anyio.run(main))
