"""Many callers in one moment, and many conns born in one moment.

Owns two storms: callers that come all at once to a supply with few conns, where opening a new one
takes longer than the whole crowd would need with those that are there; and conns with one ttl that
were all born together.  Refuses to know what a call costs when all is calm (`calls`).

The ideal is computed: so many rounds of work by the conns that are there.  A clock that sleeps too
long spoils it for everybody; so beside it stands what the same work takes without a pool, each conn
in one pair of hands, timed in the same rounds.
"""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, Event
from typing import Any

from connpool import AsyncPool, Pool
from connpool.conn import describe
from connpool.core import Core, Options, Permit, Supply, Work

from . import tasks
from .conns import Trivial
from .harness import Bench, Dial, Gauges, at_most

CALLERS, WARM, MOST = 50, 5, 50
CONNECT, BUSY = 0.15, 0.002
IDEAL = CALLERS / WARM * BUSY

# Conns of one age, as many as a large service would open when it starts.
BORN = 100

# A storm: seconds until the last caller is done, and how many conns were opened for it.
Storm = tuple[float, int]


class Opened:
    """A conn that takes its time to open, unless it is among the first."""

    def __init__(self, opened: list[Any]) -> None:
        opened.append(self)
        self.connect = 0.0 if len(opened) <= WARM else CONNECT


class Working(Opened, Trivial):
    """Such a conn for threads, that works for a moment with each call."""

    resource = "r"

    def init(self) -> None:
        """Connect."""
        time.sleep(self.connect)

    def call(self, method: str, payload: Any = None) -> Any:
        """Work."""
        time.sleep(BUSY)


class AsyncWorking(Opened, tasks.Trivial):
    """The same for tasks."""

    resource = "r"

    async def init(self) -> None:
        """Connect."""
        await asyncio.sleep(self.connect)

    async def call(self, method: str, payload: Any = None) -> Any:
        """Work."""
        await asyncio.sleep(BUSY)


# -- threads ---------------------------------------------------------------------------------------


def threads_storm() -> Storm:
    """All callers at once, over a supply."""
    opened: list[Any] = []
    with Pool(name="benchmark") as pool:
        pool.supply("r", partial(Working, opened), min_size=WARM, max_size=MOST)
        pool.wait_ready()
        took = in_threads([partial(pool.call, "r", "m")] * CALLERS)
        while pool.stats().now.opening:
            time.sleep(0.01)
    return took, len(opened) - WARM


def threads_alone() -> float:
    """The same work by as many threads as there are conns."""

    def job() -> None:
        conn = Working([])
        for _ in range(CALLERS // WARM):
            conn.call("m")

    return in_threads([job] * WARM)


def in_threads(jobs: Sequence[Callable[[], Any]]) -> float:
    """Seconds from the word until the last of these jobs is done, each in a thread of its own."""
    ready, word = Barrier(len(jobs) + 1), Event()

    def do(job: Callable[[], Any]) -> float:
        ready.wait()
        word.wait()
        job()
        return time.perf_counter()

    with ThreadPoolExecutor(len(jobs)) as team:
        futures = [team.submit(do, job) for job in jobs]
        ready.wait()
        started = time.perf_counter()
        word.set()
        return max(future.result() for future in futures) - started


# -- tasks -----------------------------------------------------------------------------------------


def tasks_storm() -> Storm:
    """All callers at once, over a supply."""
    opened: list[Any] = []

    async def main() -> float:
        async with AsyncPool(name="benchmark") as pool:
            await pool.supply("r", partial(AsyncWorking, opened), min_size=WARM, max_size=MOST)
            await pool.wait_ready()
            took = await in_tasks([partial(pool.call, "r", "m")] * CALLERS)
            while pool.stats().now.opening:
                await asyncio.sleep(0.01)
            return took

    return asyncio.run(main()), len(opened) - WARM


def tasks_alone() -> float:
    """The same work by as many tasks as there are conns."""

    async def job() -> None:
        conn = AsyncWorking([])
        for _ in range(CALLERS // WARM):
            await conn.call("m")

    return asyncio.run(in_tasks([job] * WARM))


async def in_tasks(jobs: Sequence[Callable[[], Awaitable[Any]]]) -> float:
    """Seconds until the last of these jobs is done, each in a task of its own."""
    started = time.perf_counter()
    await asyncio.gather(*(job() for job in jobs))
    return time.perf_counter() - started


def weather(
    storm: Callable[[], Storm], alone: Callable[[], float], quick: bool
) -> list[list[float]]:
    """Storms, in turns with the same work alone: against the ideal, against alone, and the most
    conns that any of them had opened."""
    against_ideal, against_alone, extra = [], [], 0
    for _ in range(3 if quick else 9):
        took, conns = storm()
        against_ideal.append(took / IDEAL)
        against_alone.append(took / alone())
        extra = max(extra, conns)
    return [against_ideal, against_alone, [float(extra)]]


# -- conns -----------------------------------------------------------------------------------------


def deaths(conns: int, ttl: float, seed: int) -> list[float]:
    """When conns expire that a supply has made all in one moment; the time is invented."""
    core = Core(
        Options(name="benchmark", max_connecting=conns), random.Random(seed).random, lambda: None
    )
    supply = Supply(
        "r", Trivial, ttl=ttl, min_size=conns, max_size=conns, max_idle=None, connect_timeout=None
    )
    core.supply(supply, now=0.0)
    for step in core.drain():
        if isinstance(step, Permit) and step.work is Work.OPEN:
            conn = Trivial()
            core.adopt(step, conn)
            core.opened(step, describe(conn, conn.methods(), resource="r"), 0.0, now=0.0)
    ends: list[float] = []
    while len(ends) < conns:
        due = core.next_due()
        assert due is not None  # a conn is left, and it has a ttl
        core.tick(due)
        for step in core.drain():  # those that are to replace the dead are never opened
            if isinstance(step, Permit) and step.work is Work.CLOSE:
                core.closed_one(step, due)
                ends.append(due)
    return ends


def densest(instants: Collection[float], part: float) -> float:
    """The largest share of all instants that lies in any such part of the time they span."""
    times = sorted(instants)
    width = (times[-1] - times[0]) * part
    return max(
        (bisect_right(times, first + width) - at) / len(times) for at, first in enumerate(times)
    )


def shares(quick: bool) -> list[list[float]]:
    """The densest tenth of each of many generations, and the worst of them all."""
    of_each = [
        densest(deaths(BORN, ttl=3600.0, seed=seed), part=0.1)
        for seed in range(20 if quick else 200)
    ]
    return [of_each, [max(of_each)]]


def dials(name: str, who: str) -> list[Dial]:
    """The rows of a storm."""
    storm = f"{CALLERS} {who} at once, {WARM} conns"
    return [
        Dial(f"storm.{name}", f"{storm} / {1000 * IDEAL:g} ms", at_most(2), unit="x"),
        Dial(f"storm.{name}.alone", f"{storm} / {WARM} {who}, no pool", unit="x"),
        Dial(f"storm.{name}.extra", "most conns opened on top of those", at_most(3), unit="conns"),
    ]


BENCHES: list[Bench] = [
    Gauges(dials("threads", "threads"), partial(weather, threads_storm, threads_alone)),
    Gauges(dials("tasks", "tasks"), partial(weather, tasks_storm, tasks_alone)),
    Gauges(
        [
            Dial("storm.expiry", f"share of {BORN} conns dying in any tenth", at_most(0.25)),
            Dial("storm.expiry.worst", "the same, of the worst generation of many"),
        ],
        shares,
    ),
]
