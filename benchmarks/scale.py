"""What size costs: more conns, more resources, more who wait.

Owns the rows that compare a large pool with a small one: nothing on the straight path may scan.
Refuses to know what the small one costs (`calls`).

The waiting here is done by tickets alone, with no thread behind them: ten thousand threads would
measure the operating system.  So these rows reach into the core, where the others use a pool from
outside.

Going round and round through ten thousand resources touches more memory than a processor has near
at hand.  What a dict of bare locks and deques loses by that is in a row without an aim, to tell it
from what the pool loses.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice, repeat
from threading import Lock

from connpool.conn import describe
from connpool.core import Core, Options, Ticket

from .conns import TTL, Trivial, caller, calls, many_resources, one_resource, pool_of, warm_pool_of
from .harness import Bench, Heat, Row, Work, at_most

# Seconds of invented time between two events: as if the core were busy, but nobody's time is up.
MOMENT = 1e-6


@contextmanager
def round_and_round(resources: int) -> Iterator[Work]:
    """Calls to one resource after the other, one conn each."""
    conns = many_resources(resources)
    names = cycle([conn.resource for conn in conns])
    with warm_pool_of(conns) as pool:

        def work(count: int) -> None:
            for resource in islice(names, count):
                pool.call(resource, "m", 5)

        yield work


@contextmanager
def bare_round_and_round(resources: int) -> Iterator[Work]:
    """The same with a lock and a deque for each resource."""
    conns = many_resources(resources)
    idle = {conn.resource: (Lock(), deque([conn])) for conn in conns}
    names = cycle(idle)

    def work(count: int) -> None:
        for resource in islice(names, count):
            lock, free = idle[resource]
            with lock:
                conn = free.pop()
            conn.call("m", 5)
            with lock:
                free.append(conn)

    yield work


@contextmanager
def one_of_many(resources: int) -> Iterator[Work]:
    """Calls to a single one of that many resources."""
    with warm_pool_of(many_resources(resources)) as pool:
        yield caller(pool, f"r{resources // 2}")


@contextmanager
def others_wait(tickets: int) -> Iterator[Work]:
    """Calls to a resource whose conns are idle, while there is a line at another one."""
    with pool_of([*one_resource(10), Trivial("elsewhere")]) as pool:
        core, line = pool._core, []
        with pool._turn as now:
            for who in range(tickets + 1):  # the first gets the conn
                ticket = Ticket("elsewhere", "m", who=who, arrived=now, deadline=now + TTL)
                line.append(core.submit(ticket, now))
        yield caller(pool)
        with pool._turn as now:
            for ticket in reversed(line):
                core.cancel(ticket, now)


@contextmanager
def hand_off(tickets: int) -> Iterator[Work]:
    """One more joins the line and the first leaves it, in the core, where so many wait."""
    clock, arrivals = itertools.count(1.0, MOMENT), itertools.count()
    core = Core(Options(name="benchmark"), lambda: 0.5, lambda: None)
    conn = Trivial()
    permit = core.admit(conn, ttl=TTL, now=0.0)
    core.opened(permit, describe(conn, conn.methods()), 0.0, now=0.0)
    entry = permit.entry

    def join() -> None:
        now = next(clock)
        core.submit(Ticket("r", "m", who=next(arrivals), arrived=now, deadline=now + 30.0), now)

    for _ in repeat(None, tickets + 1):
        join()

    def work(count: int) -> None:
        for _ in repeat(None, count):
            join()
            now = next(clock)
            core.give(entry, "m", entry.user, now - MOMENT, now)
            core.drain()

    yield work


class Able(Trivial):
    """A conn with that many methods."""

    def __init__(self, methods: int) -> None:
        super().__init__()
        self._methods = ("m", *map(str, range(methods - 1)))

    def methods(self) -> tuple[str, ...]:
        """All of them; the one that is called is among them."""
        return self._methods


@contextmanager
def able(methods: int) -> Iterator[Work]:
    """Calls of one method of conns that have that many."""
    with warm_pool_of([Able(methods)]) as pool:
        yield caller(pool)


@contextmanager
def lent(conns: int) -> Iterator[Work]:
    """Checkouts from a pool of that many conns."""
    with warm_pool_of(one_resource(conns)) as pool:

        def work(count: int) -> None:
            for _ in repeat(None, count):
                with pool.checkout("r"):
                    pass

        yield work


FLAT = at_most(1.15)

BENCHES: list[Bench] = [
    Heat(
        {
            "1 conn": partial(calls, 1),
            "10,000 conns": partial(calls, 10_000),
            "one of 10,000 resources": partial(one_of_many, 10_000),
            "nobody waits elsewhere": partial(others_wait, 0),
            "10,000 wait elsewhere": partial(others_wait, 10_000),
            "10,000 methods": partial(able, 10_000),
        },
        [
            Row("scale.conns", "10,000 conns", "1 conn", FLAT),
            Row("scale.resources", "one of 10,000 resources", "1 conn", FLAT),
            Row("scale.waiting", "10,000 wait elsewhere", "nobody waits elsewhere", FLAT),
            Row("scale.methods", "10,000 methods", "1 conn", FLAT),
        ],
    ),
    Heat(
        {"1 conn, lent": partial(lent, 1), "10,000 conns, lent": partial(lent, 10_000)},
        [Row("scale.checkout", "10,000 conns, lent", "1 conn, lent", FLAT)],
    ),
    Heat(
        {
            "10 resources": partial(round_and_round, 10),
            "10,000 resources": partial(round_and_round, 10_000),
            "bare, 10 resources": partial(bare_round_and_round, 10),
            "bare, 10,000 resources": partial(bare_round_and_round, 10_000),
        },
        [
            Row("scale.resources.round", "10,000 resources", "10 resources", at_most(1.3)),
            Row("scale.resources.bare", "bare, 10,000 resources", "bare, 10 resources"),
        ],
    ),
    Heat(
        {
            "1 in line": partial(hand_off, 1),
            "10,000 in line": partial(hand_off, 10_000),
        },
        [Row("scale.waiters", "10,000 in line", "1 in line", FLAT)],
    ),
]
