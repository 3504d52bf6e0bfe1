"""What a call through an AsyncPool costs a task of asyncio, idle and in a crowd.

Owns the rows of asyncio, all against `asyncio.Queue` used as a pool, the least that tasks can share
conns with.  Refuses to know of threads.

A pool lives in one task, from opening to closing: so each workload has a host task, and the harness
hands it one job after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

import attrs

from connpool import AsyncPool

from .conns import TTL
from .harness import Bench, Heat, Row, at_most

Job = Callable[[int], Awaitable[None]]
Serve = Callable[[Job], Awaitable[None]]
Ask = Callable[[Any], Awaitable[Any]]

CROWD, CONNS = 1_000, 10


class Trivial:
    """A conn whose call costs nothing: it gives back what it got."""

    def __init__(self, resource: str = "r") -> None:
        self.resource = resource

    async def init(self) -> None:
        """Nothing to open."""

    async def call(self, method: str, payload: Any = None) -> Any:
        """Give back what came."""
        return payload

    async def methods(self) -> Collection[str]:
        """The one it has."""
        return ("m",)


class Yielding(Trivial):
    """A conn that lets all other tasks run once in each call."""

    async def call(self, method: str, payload: Any = None) -> Any:
        """Give back what came, one step of the loop later."""
        await asyncio.sleep(0)
        return payload


@attrs.frozen(eq=False)
class Guest:
    """What a host is asked for from outside: called with a count, it has the job done that often.

    `do` has the host run any function of its job, and gives what that gives.
    """

    do: Callable[[Callable[[Any], Awaitable[Any]]], Any]

    def __call__(self, count: int) -> None:
        self.do(lambda job: job(count))


@contextmanager
def hosted(host: Callable[[Serve], Awaitable[None]]) -> Iterator[Guest]:
    """Work done by a task that `host` is run in: it is given a function to serve jobs with."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        orders: asyncio.Queue[tuple[Ask, asyncio.Future[Any]] | None] = asyncio.Queue()

        async def serve(job: Job) -> None:
            while (order := await orders.get()) is not None:
                ask, done = order
                done.set_result(await ask(job))

        async def ask_host(ask: Ask) -> Any:
            done: asyncio.Future[Any] = loop.create_future()
            orders.put_nowait((ask, done))
            await asyncio.wait((done, task), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                task.result()  # the host has failed, and says why
                raise RuntimeError("the host has left")
            return done.result()

        async def begin() -> asyncio.Task[None]:
            async def live() -> None:
                await host(serve)

            return asyncio.create_task(live())

        task = runner.run(begin())
        try:
            yield Guest(lambda ask: runner.run(ask_host(ask)))
        finally:
            orders.put_nowait(None)
            loop.run_until_complete(asyncio.wait((task,)))
        task.result()


@contextmanager
def pooled(
    conns: int = CONNS, *, kind: type[Trivial] = Trivial, resources: int = 1, crowd: int = 1
) -> Iterator[Guest]:
    """Calls through an AsyncPool of conns, by `crowd` tasks."""

    async def host(serve: Serve) -> None:
        async with AsyncPool(name="benchmark", timeout=None if crowd == 1 else 3600) as pool:
            for number in range(conns):
                await pool.put(kind(f"r{number % resources}"), ttl=TTL)
            for number in range(conns):  # the first answer of a conn costs more than the rest
                await pool.call(f"r{number % resources}", "m", 5)

            async def calls(quota: Iterator[None]) -> None:
                for _ in quota:
                    await pool.call("r0", "m", 5)

            await serve(partial(shared_out, calls, crowd))

    with hosted(host) as work:
        yield work


@contextmanager
def queued(conns: int = CONNS, *, kind: type[Trivial] = Trivial, crowd: int = 1) -> Iterator[Guest]:
    """The same calls around an asyncio.Queue of conns."""

    async def host(serve: Serve) -> None:
        queue: asyncio.Queue[Trivial] = asyncio.Queue()
        for _ in range(conns):
            queue.put_nowait(kind())

        async def calls(quota: Iterator[None]) -> None:
            for _ in quota:
                conn = await queue.get()
                try:
                    await conn.call("m", 5)
                finally:
                    await queue.put(conn)

        await serve(partial(shared_out, calls, crowd))

    with hosted(host) as work:
        yield work


async def shared_out(
    calls: Callable[[Iterator[None]], Awaitable[None]], crowd: int, count: int
) -> None:
    """So many calls by a crowd of tasks: nobody is left to finish alone."""
    quota = repeat(None, count)
    if crowd == 1:
        await calls(quota)
    else:
        await asyncio.gather(*(calls(quota) for _ in range(min(crowd, count))))


@contextmanager
def lent(conns: int = CONNS) -> Iterator[Guest]:
    """Conns lent in an `async with` block, with no call in there."""

    async def host(serve: Serve) -> None:
        async with AsyncPool(name="benchmark", timeout=None) as pool:
            for _ in range(conns):
                await pool.put(Trivial("r0"), ttl=TTL)
            for _ in range(conns):
                await pool.call("r0", "m", 5)

            async def checkouts(count: int) -> None:
                for _ in repeat(None, count):
                    async with pool.checkout("r0"):
                        pass

            await serve(checkouts)

    with hosted(host) as work:
        yield work


@contextmanager
def borrowed(conns: int = CONNS) -> Iterator[Guest]:
    """Conns taken from an asyncio.Queue and put back, with no call between."""

    async def host(serve: Serve) -> None:
        queue: asyncio.Queue[Trivial] = asyncio.Queue()
        for _ in range(conns):
            queue.put_nowait(Trivial())

        async def pairs(count: int) -> None:
            for _ in repeat(None, count):
                await queue.put(await queue.get())

        await serve(pairs)

    with hosted(host) as work:
        yield work


BENCHES: list[Bench] = [
    Heat(
        {"asyncio.Queue": queued, "AsyncPool.call": pooled},
        [Row("async.call", "AsyncPool.call", "asyncio.Queue", at_most(1.0))],
    ),
    Heat(
        {"asyncio.Queue, no call": borrowed, "AsyncPool.checkout": lent},
        [Row("async.checkout", "AsyncPool.checkout", "asyncio.Queue, no call", at_most(1.7))],
    ),
    Heat(
        {
            "1 conn": partial(pooled, 1),
            "10,000 conns": partial(pooled, 10_000),
            "one of 10,000 resources": partial(pooled, 10_000, resources=10_000),
        },
        [
            Row("async.conns", "10,000 conns", "1 conn", at_most(1.15)),
            Row("async.resources", "one of 10,000 resources", "1 conn", at_most(1.15)),
        ],
    ),
    Heat(
        {
            "1,000 tasks over a Queue": partial(queued, kind=Yielding, crowd=CROWD),
            "1,000 tasks over AsyncPool": partial(pooled, kind=Yielding, crowd=CROWD),
        },
        [
            Row(
                "async.crowd",
                "1,000 tasks over AsyncPool",
                "1,000 tasks over a Queue",
                at_most(1.1),
            )
        ],
        sample=0.2,
    ),
    Heat(
        {
            "20 tasks wait": partial(pooled, kind=Yielding, crowd=20),
            "10,000 tasks wait": partial(pooled, kind=Yielding, crowd=10_000),
        },
        [Row("async.waiting", "10,000 tasks wait", "20 tasks wait", at_most(1.15))],
        sample=1.0,
        rounds=5,
    ),
]
