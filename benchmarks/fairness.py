"""Who gets how much of a pool that is too small for all.

Owns Jain's index and the run it is taken from.  Refuses to know how much there is (`threads`).

A thread is counted from when all of them have got a call done.  Before that, those that were
started first have the pool for themselves until the interpreter switches, for thousands of calls:
nobody else has asked for a conn yet, so that says nothing of the line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from .conns import one_resource, pool_of
from .harness import Bench, Gauge, at_least


def jain(shares: Sequence[int]) -> float:
    """1 where all get the same, 1/n where one of n gets everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def fairness(quick: bool) -> float:
    """The index of 32 threads that share 2 conns in a tight loop."""
    return jain(calls_of_each(32, 2, 1.0 if quick else 3.0))


def calls_of_each(threads: int, conns: int, seconds: float) -> list[int]:
    """How many calls each thread gets done in that time."""
    done, over = [0] * threads, Event()
    with pool_of(one_resource(conns)) as pool, ThreadPoolExecutor(threads) as team:

        def call_on(number: int) -> None:
            while not over.is_set():
                pool.call("r", "m", 5)
                done[number] += 1

        futures = [team.submit(call_on, number) for number in range(threads)]
        while not all(done) and not any(future.done() for future in futures):
            time.sleep(0.01)
        before = list(done)
        time.sleep(seconds)
        after = list(done)
        over.set()
        for future in futures:
            future.result()
    return [late - early for early, late in zip(before, after, strict=True)]


BENCHES: list[Bench] = [
    Gauge("fairness", "Jain's index, 32 threads over 2 conns", fairness, at_least(0.99))
]
