"""What it costs to hand a conn to one who waits for it.

Owns the rows of a hand-off: between two threads, and between two tasks, for connpool and its peers.
Refuses to know of crowds (`contended`).

Each side gives back what the other waits for, and then waits itself.  So every conn goes to one who
sleeps, and no pool can save itself the waking by giving it to whoever is awake.  For that there are
three pools with a conn each: a side that has given one back asks for another one, which the other
side gives back only when it has got the first.  A round is two hand-offs.

The scales: for threads a `Condition` with a deque, for tasks an `asyncio.Queue`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import cycle, islice
from threading import Condition
from typing import Any

from . import field_tasks, field_threads
from .field import Peer, Way, tried
from .field_tasks import Host
from .harness import Bench, Heat, Row, Work, Workload, at_most
from .tasks import Serve, hosted

CONDITION, QUEUE = "Condition, deque", "asyncio.Queue, no call"

# Of which pool one side gives a conn back, and of which it then takes one; the other side does the
# reverse.  One side begins with the conns of 0 and 2, the other with that of 1.
ROUND = ((0, 1), (2, 0), (1, 2))
LANES = 3

# -- threads ---------------------------------------------------------------------------------------


@contextmanager
def condition(conns: int) -> Iterator[Way]:
    """The least that threads can wait at."""
    free, idle = Condition(), deque(range(conns))

    def take() -> int:
        with free:
            while not idle:
                free.wait()
            return idle.pop()

    def give(conn: int) -> None:
        with free:
            idle.append(conn)
            free.notify()

    yield Way(take, give)


@contextmanager
def between_threads(build: Peer) -> Iterator[Work]:
    """So many rounds by two threads; in each, either of them is handed a conn."""
    with ExitStack() as stack:
        ways: list[Any] = [stack.enter_context(tried(build, 1)) for _ in range(LANES)]
        other = stack.enter_context(ThreadPoolExecutor(1))

        def work(count: int) -> None:
            ours = {0: ways[0].take(), 2: ways[2].take()}
            theirs = {1: other.submit(ways[1].take).result()}
            echo = other.submit(_answer, ways, theirs, count)
            _serve(ways, ours, count)
            for lane, conn in (ours | echo.result()).items():
                ways[lane].give(conn)

        yield work


def _serve(ways: list[Any], held: dict[int, Any], count: int) -> None:
    """Give back what the other side waits for, and wait for what it gives back."""
    for give, take in islice(cycle(ROUND), count):
        ways[give].give(held.pop(give))
        held[take] = ways[take].take()


def _answer(ways: list[Any], held: dict[int, Any], count: int) -> dict[int, Any]:
    """The other side."""
    for take, give in islice(cycle(ROUND), count):
        held[take] = ways[take].take()
        ways[give].give(held.pop(give))
    return held


# -- tasks -----------------------------------------------------------------------------------------


@contextmanager
def between_tasks(host: Callable[[int], Host] | None) -> Iterator[Work]:
    """The same by two tasks."""
    assert host is not None, "a pool for threads"
    with tried(partial(_pools, host), 1) as work:
        yield work


def _pools(host: Callable[[int], Host], conns: int) -> AbstractContextManager[Work]:
    """Pools of one peer in one loop, and a job that hands over between them."""

    async def all_of_them(serve: Serve, *ways: Any) -> None:
        if len(ways) == LANES:
            await serve(partial(_hand_over, ways))
        else:
            await host(conns)(lambda way: all_of_them(serve, *ways, way))

    return hosted(all_of_them)


async def _hand_over(ways: Sequence[Any], count: int) -> None:
    ours = {0: await ways[0].take(), 2: await ways[2].take()}
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    echo = asyncio.create_task(_answer_in_task(ways, ready, count))
    await ready
    for give, take in islice(cycle(ROUND), count):
        await ways[give].give(ours.pop(give))
        ours[take] = await ways[take].take()
    await echo
    for lane, conn in ours.items():
        await ways[lane].give(conn)


async def _answer_in_task(ways: Sequence[Any], ready: asyncio.Future[None], count: int) -> None:
    held = {1: await ways[1].take()}
    ready.set_result(None)
    for take, give in islice(cycle(ROUND), count):
        held[take] = await ways[take].take()
        await ways[give].give(held.pop(give))
    for lane, conn in held.items():  # its owner is this task
        await ways[lane].give(conn)


# -- rows ------------------------------------------------------------------------------------------


def threads() -> Heat:
    """All peers for threads that can wait."""
    entrants = [entrant for entrant in field_threads.ENTRANTS[1:] if entrant.fights]
    works: dict[str, Workload] = {CONDITION: partial(between_threads, condition)}
    works |= {entrant.what: partial(between_threads, entrant.build) for entrant in entrants}
    return Heat(
        works,
        [_row("threads", e.name, e.what, CONDITION, {"pool.checkout": 1.0}) for e in entrants],
        sample=0.4,  # each begins with waking the other thread, which may take 10 ms
        rounds=9,
        clock=time.perf_counter,
    )


def tasks() -> Heat:
    """All peers for tasks that can wait."""
    entrants = [entrant for entrant in field_tasks.ENTRANTS if entrant.fights]
    works: dict[str, Workload] = {QUEUE: partial(between_tasks, field_tasks.queued)}
    works |= {entrant.what: partial(between_tasks, entrant.host) for entrant in entrants}
    return Heat(
        works,
        [_row("tasks", e.name, e.what, QUEUE, {"AsyncPool.checkout": 1.1}) for e in entrants],
    )


def _row(between: str, name: str, what: str, scale: str, aims: dict[str, float]) -> Row:
    """What one peer needs, on its scale, and what is aimed at if it has an aim."""
    aim = at_most(aims[name]) if name in aims else None
    return Row(f"handoff.{between}.{name}", what, scale, aim)


BENCHES: list[Bench] = [threads(), tasks()]
