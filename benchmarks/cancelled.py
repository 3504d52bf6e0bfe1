"""What is left of a pool after many have been cancelled, and of those who gave up waiting.

Owns three ideas: a storm of cancellations, for connpool and its peers for asyncio; waiters that
time out; and waiters that are cancelled, these two by the time and the bytes that each costs.
Refuses to know of waiters that are served (`handoff`, `contended`).

In the storm, tasks take a conn, do something with it for a few steps of the loop and give it back,
again and again, as careful users would: by `async with` where the peer has that, else by `try` and
`finally`.  Each is cancelled once, after a number of steps that a generator draws from a seed: as
it waits, as it is handed a conn, as it works or as it gives back.  Afterwards all conns are asked
for at once.  The figure is how many come.

What those who gave up leave behind may be cleared away a little later, all at once; so the bytes
are those that further crowds add to what the first one left.

connpool closes a conn that was cancelled in use, since nobody knows its state, and its supply opens
another; peers that do so open another one, too.

The conns of these rows do nothing.  A peer that asks its server something when a conn is given back
has more places where a cancellation can hit it than are tried here, or else a good reason to close
the conn; how it fares with its own conns may be another matter.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import attrs

from connpool import AsyncPool, PoolTimeout

from . import field_tasks, field_threads, tasks
from .conns import TTL, one_resource, pool_of
from .field import Entrant
from .harness import Absent, Bench, Dial, Gauges, at_least, at_most

CONNS = 10
WAVES, WAVE = 50, 30  # so many tasks at once, so often: three for each conn
STEPS = 60  # of the loop, in which the tasks of a wave are cancelled
HOLD = 3  # steps of the loop that a conn is used for
PATIENCE = 2.0  # seconds for a conn that may never come
SEEDS = range(3)

#: Loops of peers that did not come to an end; who drops them is told of each task in them.
STRANDED: list[asyncio.AbstractEventLoop] = []

# -- the storm -------------------------------------------------------------------------------------


class Doing(tasks.Trivial):
    """A conn whose call does what it is told to."""

    async def call(self, method: str, payload: Any = None) -> Any:
        """Do it."""
        return await payload()


@attrs.frozen(eq=False)
class CallWay(field_tasks.Way):
    """Conns that are used by calls."""

    pool: Any = None

    async def use(self, job: Callable[[], Awaitable[Any]]) -> None:
        """Have a conn do it."""
        await self.pool.call("r", "m", job)


def ours(conns: int, *, by_calls: bool) -> field_tasks.Host:
    """A pool whose conns come from a supply."""

    async def host(serve: tasks.Serve) -> None:
        async with AsyncPool(name="benchmark", timeout=None, max_connecting=conns) as pool:
            await pool.supply("r", Doing, min_size=conns, max_size=conns)
            await pool.wait_ready()
            way = await field_tasks.in_blocks(partial(pool.checkout, "r"), conns)
            await serve(CallWay(way.take, way.give, None, pool) if by_calls else way)

    return host


ENTRANTS = [
    field_tasks.entrant("AsyncPool.call", "AsyncPool.call", partial(ours, by_calls=True), ""),
    field_tasks.entrant(
        "AsyncPool.checkout", "AsyncPool.checkout", partial(ours, by_calls=False), ""
    ),
    *field_tasks.ENTRANTS[2:],
]


def storm(entrant: Entrant, quick: bool) -> list[list[float]]:
    """Conns that are left, for each seed."""
    return [[in_a_loop(entrant, seed) for seed in (SEEDS[:1] if quick else SEEDS)]]


def in_a_loop(entrant: Entrant, seed: int) -> float:
    """A storm, in a loop that is then left as it is where the peer does not come to an end.

    One that has lost conns may wait for them for ever when it is closed.
    """
    assert entrant.host is not None, "a pool for threads"
    host, left = entrant.host(CONNS), []

    async def serve(way: Any) -> None:
        left.append(await survivors(way, random.Random(seed)))

    async def main() -> None:
        task = asyncio.ensure_future(host(serve))
        while not left and not task.done():
            await asyncio.wait((task,), timeout=0.1)
        await asyncio.wait((task,), timeout=PATIENCE)
        if not left:
            task.result()  # which says why

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    except Absent:
        raise
    except Exception as error:
        raise Absent(f"cannot be measured: {type(error).__name__}: {error}") from error
    finally:
        if asyncio.all_tasks(loop):
            loop.set_exception_handler(lambda *_: None)  # nobody waits for them any more
            STRANDED.append(loop)
        else:
            loop.close()
    return left[0]


async def survivors(way: Any, rng: random.Random) -> float:
    """How many conns can be had after all waves."""
    for _ in range(WAVES):
        team = [asyncio.create_task(go_on(way)) for _ in range(WAVE)]
        ends = sorted((rng.randrange(STEPS), number) for number in range(WAVE))
        for step in range(STEPS):
            await asyncio.sleep(0)
            while ends and ends[0][0] <= step:
                team[ends.pop(0)[1]].cancel()
        await ended(team)
    await asyncio.sleep(0.1)  # for what a pool does in the background
    return float(await at_hand(way))


async def go_on(way: Any) -> None:
    """Use a conn, again and again; where there is none at the moment, a little later."""
    while True:
        try:
            await way.use(pause)
        except Exception:
            await pause()


async def pause() -> None:
    """Some steps of the loop."""
    for _ in range(HOLD):
        await asyncio.sleep(0)


async def ended(team: list[asyncio.Task[None]]) -> None:
    """Wait for tasks that were cancelled; one that has not heard it is told again."""
    deaf = set(team)
    for _ in range(5):
        _, deaf = await asyncio.wait(deaf, timeout=0.2)
        if not deaf:
            return
        for task in deaf:
            task.cancel()
    raise Absent(f"{len(deaf)} tasks could not be cancelled")


async def at_hand(way: Any) -> int:
    """How many conns can be had at the same time."""
    asked = [asyncio.ensure_future(way.take()) for _ in range(CONNS)]
    await asyncio.wait(asked, timeout=PATIENCE)
    had = [task for task in asked if task.done() and not task.cancelled() and not task.exception()]
    for task in asked:
        if not task.done():
            task.cancel()
    await asyncio.wait(asked, timeout=PATIENCE)
    for task in had:
        await way.give(task.result())
    return len(had)


# -- those who gave up -----------------------------------------------------------------------------

GIVERS_UP, MORE = 2_000, 5


def timed_out(wait: Callable[[], object], count: int) -> tuple[float, float]:
    """Microseconds of the processor, and bytes left, of a thread's wait that ends at once."""

    def crowd() -> None:
        for _ in range(count):
            wait()

    began = time.process_time()
    crowd()
    took = time.process_time() - began
    tracemalloc.start()
    try:
        crowd()
        before = traced()
        for _ in range(MORE):
            crowd()
        return 1e6 * took / count, max(0.0, (traced() - before) / count / MORE)
    finally:
        tracemalloc.stop()


def traced() -> int:
    """Bytes that are there now, of those that were added since the tracing began."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def our_thread() -> Iterator[Callable[[], object]]:
    """A wait for the only conn of a pool, which somebody has."""
    with pool_of(one_resource(1)) as pool, pool.checkout("r"):

        def wait() -> None:
            with suppress(PoolTimeout):
                pool.call("r", "m", timeout=1e-6)

        yield wait


@contextmanager
def psycopg_thread() -> Iterator[Callable[[], object]]:
    """The same of a psycopg_pool."""
    with field_threads.psycopg_pool(1) as pool:
        conn = pool.getconn()

        def wait() -> None:
            with suppress(Exception):
                pool.getconn(timeout=1e-6)

        yield wait
        pool.putconn(conn)


def in_a_thread(build: Callable[[], Any], quick: bool) -> list[list[float]]:
    """The two figures, a few times."""
    figures = []
    for _ in range(1 if quick else 3):
        with build() as wait:
            figures.append(timed_out(wait, GIVERS_UP // 10 if quick else GIVERS_UP))
    return [list(rounds) for rounds in zip(*figures, strict=True)]


async def many_cancelled(wait: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Microseconds, and bytes left, of a task that is cancelled as it waits; its own included."""

    async def live() -> None:
        with suppress(asyncio.CancelledError):
            await wait()

    async def crowd() -> None:
        team = [asyncio.create_task(live()) for _ in range(GIVERS_UP)]
        for _ in range(5):
            await asyncio.sleep(0)
        for task in team:
            task.cancel()
        await asyncio.wait(team)

    await crowd()
    began = time.process_time()
    await crowd()
    took = time.process_time() - began
    tracemalloc.start()
    try:
        await crowd()
        before = traced()
        for _ in range(MORE):
            await crowd()
        return 1e6 * took / GIVERS_UP, max(0.0, (traced() - before) / GIVERS_UP / MORE)
    finally:
        tracemalloc.stop()


async def our_tasks() -> tuple[float, float]:
    """Tasks that wait for the only conn of a pool, which somebody has."""
    async with AsyncPool(name="benchmark", timeout=3600) as pool:
        await pool.put(tasks.Trivial(), ttl=TTL)
        async with pool.checkout("r"):
            return await many_cancelled(partial(pool.call, "r", "m"))


async def tasks_at_a_queue() -> tuple[float, float]:
    """Tasks that wait at an empty asyncio.Queue."""
    line: asyncio.Queue[None] = asyncio.Queue()
    return await many_cancelled(line.get)


def in_tasks(measure: Callable[[], Any], quick: bool) -> list[list[float]]:
    """The two figures, a few times."""
    figures = [asyncio.run(measure()) for _ in range(1 if quick else 3)]
    return [list(rounds) for rounds in zip(*figures, strict=True)]


def gave_up(name: str, what: str, measure: Callable[[bool], Any], limit: float | None) -> Gauges:
    """The rows of one kind of waiter."""
    aim = None if limit is None else at_most(limit)
    return Gauges(
        [
            Dial(f"{name}.took", f"{what}: processor time of each", unit="us"),
            Dial(f"{name}.left", f"{what}: left behind by each", aim, unit="bytes"),
        ],
        measure,
    )


LEFT = 64  # bytes for each: what is cleared now and then, and nothing that stays

BENCHES: list[Bench] = [
    *(
        Gauges(
            [
                Dial(
                    f"cancelled.{entrant.name}",
                    f"{entrant.what}, left of {CONNS} after {WAVES * WAVE:,} cancelled",
                    at_least(CONNS) if entrant in ENTRANTS[:2] else None,
                    unit="conns",
                )
            ],
            partial(storm, entrant),
        )
        for entrant in ENTRANTS
    ),
    gave_up("timeout.pool.call", "pool.call timed out", partial(in_a_thread, our_thread), LEFT),
    gave_up(
        "timeout.psycopg_pool", "psycopg_pool timed out", partial(in_a_thread, psycopg_thread), None
    ),
    gave_up("waiter.AsyncPool", "AsyncPool.call cancelled", partial(in_tasks, our_tasks), LEFT),
    gave_up("waiter.Queue", "asyncio.Queue cancelled", partial(in_tasks, tasks_at_a_queue), None),
]
