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

from connpool import AsyncPool, Closed, Pool, Reply, ResourceError
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


class Splitting(Session):
    """A session whose calls and checks fork, and end in the child as they are told."""

    ends: Any

    def _split(self, well: Any) -> Any:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return well
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends

    def call(self, method: Any, payload: Any = None) -> Any:
        return self._split("parent")

    def check(self) -> Any:
        return self._split(True)


ENDS = (OSError("torn"), Closed(), KeyboardInterrupt(), Reply("child", closed=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: type(ends).__name__)
def test_a_call_that_forked_says_nothing_of_its_conn_in_the_child(ends: Any) -> None:
    """However it ends there: the conn is the parent's, and is neither closed nor kept."""
    told, telling = os.pipe()
    parent = os.getpid()
    pool = Pool()
    conn = Splitting(telling)
    conn.ends = ends
    pool.init(conn, revive=True)
    try:
        assert pool.call("db", "say") == ("parent" if os.getpid() == parent else "child")
    except BaseException as error:
        if os.getpid() == parent:
            raise
        fine = type(error) in (type(ends), ResourceError)  # the call that moves finds no conn
        os.write(telling, b"" if fine else repr(error).encode())
    if os.getpid() != parent:
        try:
            os.write(telling, b"" if not pool.stats().since_start.ended else b"ended ")
            pool.close(1.0)
        finally:
            os._exit(0)
    assert said(told) == b""
    pool.close()
    assert said(told) == b"closed "


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_checkout_that_forked_in_its_check_goes_on_in_the_child_with_another_conn() -> None:
    """And that one goes back to the child's pool, and so to who waits there."""
    told, telling = os.pipe()
    parent = os.getpid()
    pool = Pool(check_after=0)
    conn = Splitting(telling)
    conn.ends = OSError("torn")
    pool.init(conn, revive=True)
    pool.supply("db", lambda: ScriptedConn("db"), max_size=1)
    replies: list[Any] = []
    waiting = threading.Thread(target=lambda: replies.append(pool.call("db", "say", 1, timeout=9)))
    with pool.checkout("db") as given:
        if os.getpid() != parent:
            waiting.start()
            eventually(lambda: pool.stats().now.waiting == 1)
    if os.getpid() != parent:
        try:
            assert isinstance(given, ScriptedConn)
            assert not isinstance(given, Splitting)
            waiting.join()
            assert replies == [1]
            pool.close(1.0)
        except BaseException:
            os.write(telling, traceback.format_exc().encode())
        finally:
            os._exit(0)
    assert said(told) == b"reset "
    pool.close()
    assert said(told) == b"closed "


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
