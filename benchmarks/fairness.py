"""Who gets how much of a pool that is too small for all.

Owns Jain's index and the run it is taken from.  Refuses to know how much there is (`threads`).

A thread is counted from when all of them have got a call done.  Before that, those that were
started first have the pool for themselves until the interpreter switches, for thousands of calls:
nobody else has asked for a conn yet, so that says nothing of the line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from .conns import one_resource, pool_of
from .harness import Bench, Gauge, at_least

THREADS, CONNS = 32, 2


def jain(shares: Sequence[float]) -> float:
    """1 where all get the same, 1/n where one of n gets everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def fairness(quick: bool) -> float:
    """The index of 32 threads that share 2 conns in a tight loop."""
    with pool_of(one_resource(CONNS)) as pool:
        return jain(shares(lambda: pool.call("r", "m", 5), THREADS, 1.0 if quick else 3.0))


def shares(
    job: Callable[[], Any], threads: int, seconds: float, patience: float = math.inf
) -> list[int]:
    """How often each of so many threads gets its job done in that time.

    Counted from when all of them have got it done once, or from when patience is over: where some
    starve, all may never have.  An error of a job reaches the caller.
    """
    done, over = [0] * threads, Event()

    def go_on(number: int) -> None:
        while not over.is_set():
            job()
            done[number] += 1

    with ThreadPoolExecutor(threads) as team:
        futures = [team.submit(go_on, number) for number in range(threads)]
        enough = time.monotonic() + patience
        while (
            not all(done)
            and not any(future.done() for future in futures)
            and time.monotonic() < enough
        ):
            time.sleep(0.01)
        before = list(done)
        time.sleep(seconds)
        after = list(done)
        over.set()
        for future in futures:
            future.result()
    return [late - early for early, late in zip(before, after, strict=True)]


BENCHES: list[Bench] = [
    Gauge(
        "fairness",
        f"Jain's index, {THREADS} threads over {CONNS} conns",
        fairness,
        at_least(0.99),
    )
]
