"""Threads that outnumber the conns: how much they get done, how long they wait, how evenly.

Owns the rows of 8 threads over 4 conns, for connpool and its peers, where a conn is given back at
once and where it is held for 100 us.  Refuses to know what a conn costs that nobody waits for
(`calls`, `peers`), and of a crowd in which many starve (`fairness`).

Two scales: `queue.LifoQueue`, the standard library's line of threads, where nothing is held; and
where conns are held, as many threads as there are conns with one of their own each, since no pool
can get more done than that.

A wait is the time from asking for a conn to having it, as its thread sees it.  With nothing held it
says more of the interpreter than of the pool: a thread goes on until it is switched, every 5 ms,
and one that never has to wait gets thousands of conns meanwhile.

With nothing held, a run has to be long.  Whoever is started first has all conns to himself until
the interpreter switches, and all threads have had a turn only after 8 times 5 ms.  A crowd that is
timed for a few milliseconds is one thread that nobody disturbs: that flatters a pool that is cheap
while nobody waits, by so much that it turns the verdict round.

A wait counts once, however long it is.  Where some threads are hardly ever served, theirs are too
few to be seen in the 99th of 100, and what is seen are the short ones of the others: waits say
something only beside Jain's index.

The figures depend on how an operating system schedules threads; with something else running beside
them they are worth little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from statistics import quantiles
from threading import Event
from typing import Any

from . import field_threads
from .conns import Holding, Trivial, pool_of
from .fairness import jain
from .field import Entrant, tried
from .harness import Bench, Dial, Gauges, Heat, Row, Work, at_least, at_most

THREADS, CONNS = 8, 4
HOLD = 0.0001
# Seconds of one timing: many turns of all threads, and where each sleeps anyway, some of them.
LONG, SHORT = 2.0, 0.4
ROUND, SETTLE = 0.6, 0.1  # seconds that are counted, and those before

Call = Callable[[], Any]
#: Takes a conn, holds it, gives it back; gives the seconds that it waited.
Timed = Callable[[], float]


@contextmanager
def together(jobs: Sequence[Call]) -> Iterator[Work]:
    """Each job in a thread of its own, again and again, until all have done so many in all."""
    with ThreadPoolExecutor(len(jobs)) as threads:

        def work(count: int) -> None:
            quota = repeat(None, count)  # shared: nobody is left to finish alone
            futures = [threads.submit(_use_up, quota, job) for job in jobs]
            for future in futures:
                future.result()

        yield work


def _use_up(quota: Iterator[None], job: Call) -> None:
    for _ in quota:
        job()


# -- one operation of each -------------------------------------------------------------------------


@contextmanager
def crowd(entrant: Entrant, hold: float) -> Iterator[Work]:
    """Threads that take a peer's conns, hold them, and give them back."""
    with tried(entrant.build, CONNS) as way, together([_job(way, hold)] * THREADS) as work:
        yield work


def _job(way: Any, hold: float) -> Call:
    take, give = way.take, way.give

    def at_once() -> None:
        give(take())

    def later() -> None:
        conn = take()
        time.sleep(hold)
        give(conn)

    return later if hold else at_once


@contextmanager
def callers(hold: float) -> Iterator[Work]:
    """The same by calls, whose conns do the holding."""
    with (
        pool_of([Holding() if hold else Trivial() for _ in range(CONNS)]) as pool,
        together([lambda: pool.call("r", "m", 5)] * THREADS) as work,
    ):
        yield work


@contextmanager
def without_pool(hold: float) -> Iterator[Work]:
    """As many threads as there are conns, which have one each."""

    def own(conn: Holding) -> Call:
        return lambda: conn.call("m", 5)

    with together([own(Holding()) for _ in range(CONNS)]) as work:
        yield work


# -- waits -----------------------------------------------------------------------------------------


class Asked(Trivial):
    """A conn that is told when it was asked for, and says how long that is ago."""

    hold = 0.0

    def call(self, method: str, payload: Any = None) -> float:
        """Hold, where it is to be held; the wait was over before."""
        waited: float = time.perf_counter() - payload
        if self.hold:
            time.sleep(self.hold)
        return waited


class AskedAndHeld(Asked):
    """Such a conn that is busy for a while."""

    hold = HOLD


@contextmanager
def timed_calls(hold: float) -> Iterator[Timed]:
    """Calls of a pool."""
    kind = AskedAndHeld if hold else Asked
    with pool_of([kind() for _ in range(CONNS)]) as pool:
        yield lambda: pool.call("r", "m", time.perf_counter())


@contextmanager
def timed_ways(entrant: Entrant, hold: float) -> Iterator[Timed]:
    """A peer's conns."""
    with tried(entrant.build, CONNS) as built:
        way: Any = built

        def job() -> float:
            asked = time.perf_counter()
            conn = way.take()
            waited = time.perf_counter() - asked
            if hold:
                time.sleep(hold)
            way.give(conn)
            return waited

        yield job


def waits(build: Callable[[], Any], quick: bool) -> list[list[float]]:
    """Of each round: the middle wait, the 99th of a hundred, that over the middle, Jain's index."""
    rounds = []
    for _ in range(2 if quick else 7):
        with build() as job:
            rounds.append(one_round(job, ROUND / 4 if quick else ROUND))
    return [list(figures) for figures in zip(*rounds, strict=True)]


def one_round(job: Timed, seconds: float) -> tuple[float, float, float, float]:
    """What the threads waited, in microseconds, and how evenly they were served."""
    counting, over = Event(), Event()

    def live() -> list[float]:
        waited: list[float] = []
        while not counting.is_set():
            job()
        while not over.is_set():
            waited.append(job())
        return waited

    with ThreadPoolExecutor(THREADS) as team:
        futures = [team.submit(live) for _ in range(THREADS)]
        time.sleep(SETTLE)
        counting.set()
        time.sleep(seconds)
        over.set()
        waited = [future.result() for future in futures]
    return summary(waited)


def summary(waited: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The figures of a round, from what each thread waited each time."""
    cuts = quantiles([1e6 * wait for waits in waited for wait in waits], n=100)
    middle, late = cuts[49], cuts[98]
    return middle, late, late / middle, jain([len(waits) for waits in waited])


# -- rows ------------------------------------------------------------------------------------------


ENTRANTS = [entrant for entrant in field_threads.ENTRANTS[1:] if entrant.fights]
LIFO = "queue.LifoQueue"
CALL, ALONE = "pool.call", f"{CONNS} threads without a pool"


def rates(name: str, hold: float, against: str, scale: Any) -> Heat:
    """What the crowd gets done with each, in operations a second."""
    works = {CALL: partial(callers, hold)}
    works |= {entrant.what: partial(crowd, entrant, hold) for entrant in ENTRANTS}
    works |= {against: scale} if scale is not None else {}
    aim = at_least(0.9 if hold else 1.0)
    return Heat(
        works,
        [
            Row(f"{name}.rate.{CALL}", CALL, against, aim, rate=True),
            *(
                Row(f"{name}.rate.{entrant.name}", entrant.what, against, rate=True)
                for entrant in ENTRANTS
                if entrant.what != against
            ),
        ],
        sample=LONG if not hold else SHORT,
        rounds=7,
        processes=2 if hold else 1,
        clock=time.perf_counter,
    )


def line(name: str, who: str, what: str, build: Callable[[], Any], hold: float) -> Gauges:
    """How long the crowd waits for one peer's conns, and how evenly it is served."""
    what = f"{what}, {THREADS} threads over {CONNS} conns"
    ours = who == CALL and bool(hold)
    return Gauges(
        [
            Dial(f"{name}.p50.{who}", f"{what}, middle wait", unit="us"),
            Dial(f"{name}.p99.{who}", "99th of 100 waits", unit="us"),
            Dial(f"{name}.tail.{who}", "that / the middle", at_most(2) if ours else None, unit="x"),
            Dial(f"{name}.jain.{who}", "Jain's index", at_least(0.999) if ours else None),
        ],
        lambda quick: waits(build, quick),
    )


def lines(name: str, hold: float) -> list[Bench]:
    """The same for all."""
    return [
        line(name, CALL, CALL, partial(timed_calls, hold), hold),
        *(
            line(name, entrant.name, entrant.what, partial(timed_ways, entrant, hold), hold)
            for entrant in ENTRANTS
        ),
    ]


BENCHES: list[Bench] = [
    rates("rush", 0.0, LIFO, None),
    *lines("rush", 0.0),
    rates("held", HOLD, ALONE, partial(without_pool, HOLD)),
    *lines("held", HOLD),
]
