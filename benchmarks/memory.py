"""What the pool keeps for each conn, and for each who waits.

Owns the rows in bytes.  Refuses to count the conns themselves, and the threads and tasks that wait:
they are there beforehand, or would be without a pool.

A thread that waits for a conn is compared with one that waits for a lock of its own, and a task
with one that waits for a future of its own: the difference is what the pool needs to know of it.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock, Thread

from connpool import AsyncPool

from . import tasks
from .conns import TTL, Trivial, many_resources, one_resource, pool_of
from .harness import Bench, Gauge, at_most

CONNS = 10_000
THREADS, TASKS = 200, 2_000


class Meter:
    """What tracemalloc found to be added inside `measured`."""

    added = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what is there at the end of the block and was not at its beginning."""
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            yield
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.added = after - before


# -- conns -----------------------------------------------------------------------------------------


def idle(quick: bool) -> float:
    """Bytes for each conn that was put into a pool, and no more."""
    return bytes_per_conn(one_resource(CONNS + 1))


def called(quick: bool) -> float:
    """Bytes for each conn that has answered a call since."""
    return bytes_per_conn(one_resource(CONNS + 1), called=True)


def apart(quick: bool) -> float:
    """Bytes for each conn that is the only one to its resource."""
    return bytes_per_conn(many_resources(CONNS + 1))


def bytes_per_conn(conns: Sequence[Trivial], *, called: bool = False) -> float:
    """What is added by all the conns but the first."""
    first, *rest = conns
    meter = Meter()
    with pool_of([first]) as pool, meter.measured():
        for conn in rest:
            pool.put(conn, ttl=TTL)
        for _ in rest if called else ():  # each has its turn
            pool.call("r", "m")
    return meter.added / CONNS


# -- threads that wait -----------------------------------------------------------------------------


def threads(quick: bool) -> float:
    """Bytes for each thread that waits for a conn, beside what a thread needs that waits."""
    with pool_of(one_resource(1)) as pool:
        lease = pool.checkout("r")
        lease.__enter__()
        ours = bytes_per_thread(
            lambda: pool.call("r", "m"),
            lambda: pool.stats().now.waiting,
            lambda: lease.__exit__(None, None, None),
        )
    locks = [Lock() for _ in range(THREADS)]
    for lock in locks:
        lock.acquire()
    free, taken = iter(locks), iter(range(THREADS))
    at_work: list[int] = []

    def wait() -> None:
        at_work.append(next(taken))
        next(free).acquire()

    def wake() -> None:
        for lock in locks:
            lock.release()

    return ours - bytes_per_thread(wait, lambda: len(at_work), wake)


def bytes_per_thread(
    wait: Callable[[], object], waiting: Callable[[], int], wake: Callable[[], object]
) -> float:
    """What is added by threads that wait, until they are woken."""

    team = [Thread(target=wait) for _ in range(THREADS)]
    meter = Meter()
    with meter.measured():
        for thread in team:
            thread.start()
        while waiting() < THREADS:
            time.sleep(0.001)
        time.sleep(0.05)
    wake()
    for thread in team:
        thread.join()
    return meter.added / THREADS


# -- tasks that wait -------------------------------------------------------------------------------


def in_tasks(quick: bool) -> float:
    """Bytes for each task that waits for a conn, beside what a task needs that waits."""

    async def ours() -> float:
        async with AsyncPool(name="benchmark", timeout=3600) as pool:
            await pool.put(tasks.Trivial(), ttl=TTL)
            async with pool.checkout("r"):
                return await bytes_per_task(partial(pool.call, "r", "m"))

    async def theirs() -> float:
        loop = asyncio.get_running_loop()
        return await bytes_per_task(lambda: waits(loop.create_future()))

    return asyncio.run(ours()) - asyncio.run(theirs())


async def waits(future: asyncio.Future[None]) -> None:
    """Wait for this."""
    await future


async def bytes_per_task(wait: Callable[[], Awaitable[object]]) -> float:
    """What is added by tasks that wait."""

    async def live() -> None:
        await wait()

    meter = Meter()
    with meter.measured():
        team = [asyncio.create_task(live()) for _ in range(TASKS)]
        for _ in range(10):
            await asyncio.sleep(0)
    for task in team:
        task.cancel()
    await asyncio.gather(*team, return_exceptions=True)
    return meter.added / TASKS


CONN, WAITER = at_most(350), at_most(600)

BENCHES: list[Bench] = [
    Gauge("memory.idle", "kept for an idle conn", idle, CONN, unit="bytes"),
    Gauge("memory.called", "the same once it was called", called, CONN, unit="bytes"),
    Gauge("memory.apart", "for an idle conn with its own resource", apart, unit="bytes"),
    Gauge("memory.thread", "for a thread that waits for a conn", threads, WAITER, unit="bytes"),
    Gauge("memory.task", "for a task that waits for a conn", in_tasks, WAITER, unit="bytes"),
]
