"""What many threads get done that share fewer conns.

Owns the rows of throughput.  Refuses to know who gets how much of it (`fairness`), and what a call
costs where nobody waits (`calls`).

The figures depend on how an operating system schedules threads more than all others here do; with
something else running beside them they are worth little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from typing import Any

from .conns import Holding, pool_of
from .harness import Bench, Heat, Row, Work, at_least

Call = Callable[[], Any]


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


@contextmanager
def without_pool(threads: int) -> Iterator[Work]:
    """Threads that have a conn each."""

    def own(conn: Holding) -> Call:
        return lambda: conn.call("m", 5)

    with together([own(Holding()) for _ in range(threads)]) as work:
        yield work


@contextmanager
def with_pool(threads: int, conns: int) -> Iterator[Work]:
    """Threads that share conns."""
    with (
        pool_of([Holding() for _ in range(conns)]) as pool,
        together([lambda: pool.call("r", "m", 5)] * threads) as work,
    ):
        yield work


BENCHES: list[Bench] = [
    Heat(
        {
            "8 threads over 4 conns": lambda: with_pool(8, 4),
            "4 threads without a pool": lambda: without_pool(4),
        },
        [
            Row(
                "threads.rate",
                "8 threads over 4 conns",
                "4 threads without a pool",
                at_least(0.85),
                rate=True,
            )
        ],
        sample=0.3,
        rounds=7,
        processes=2,
        clock=time.perf_counter,
    ),
]
