"""What it costs to be routed to a conn, by each way of choosing.

Owns the rows of `pool.route`, with few conns and with many.  Refuses to know what a call costs
(`calls`).

Nothing is given back after a route, and nothing is called in these rows: so the bare thing beside
them takes a conn and gives it back, without a call.  A call on either side would be the same few
nanoseconds, and could only bring the ratio nearer to 1.

A key that `sticky` has not met yet is weighed against every conn: that has a row without an aim.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count as numbers
from itertools import islice, repeat
from typing import Any

from connpool import Pool
from connpool.core import sticky

from .conns import borrowed, one_resource, warm_pool_of
from .harness import Bench, Heat, Row, Work, at_most

FEW, MANY = 10, 10_000

#: What the rows call each way of choosing.
WAYS: dict[str, Any] = {
    "round_robin": "round_robin",
    "random": "random",
    "least_used": "least_used",
    "least_wait": "least_wait",
    "two_choices": "two_choices",
    "sticky": sticky("user 7"),
}


@contextmanager
def routed(conns: int) -> Iterator[Work]:
    """Routes as most people write them, who leave the choice to the pool."""
    with warm_pool_of(one_resource(conns)) as pool:

        def work(count: int) -> None:
            for _ in repeat(None, count):
                pool.route("r")

        yield work


@contextmanager
def routed_by(by: Any, conns: int) -> Iterator[Work]:
    """Routes that say how to choose."""
    with warm_pool_of(one_resource(conns)) as pool:
        pool.route("r", by=by)  # the first with a key costs more than the rest
        yield router(pool, by)


def router(pool: Pool, by: Any) -> Work:
    """Routes, one after the other."""

    def work(count: int) -> None:
        for _ in repeat(None, count):
            pool.route("r", by=by)

    return work


@contextmanager
def routed_by_new_keys(conns: int) -> Iterator[Work]:
    """Routes by sticky keys that nobody has used before."""
    keys = map(sticky, numbers())
    with warm_pool_of(one_resource(conns)) as pool:

        def work(count: int) -> None:
            for by in islice(keys, count):
                pool.route("r", by=by)

        yield work


def heat(name: str, few: Any, many: Any, limit: float = 1.0) -> Heat:
    """A way of choosing with few conns and with many, against the bare thing and each other.

    What most people write should cost least, so `limit` is lower there.
    """
    with_few, with_many = f"{name}, {FEW} conns", f"{name}, {MANY:,} conns"
    return Heat(
        {"bare, no call": borrowed, with_few: few, with_many: many},
        [
            Row(f"route.{name}", with_few, "bare, no call", at_most(limit)),
            Row(f"route.{name}.{MANY}", with_many, "bare, no call", at_most(limit)),
            Row(f"route.{name}.flat", with_many, with_few, at_most(1.15)),
        ],
    )


BENCHES: list[Bench] = [
    heat("default", partial(routed, FEW), partial(routed, MANY), limit=0.6),
    *(heat(n, partial(routed_by, by, FEW), partial(routed_by, by, MANY)) for n, by in WAYS.items()),
    Heat(
        {
            "bare, no call": borrowed,
            "a new sticky key, 10 conns": partial(routed_by_new_keys, FEW),
        },
        [Row("route.sticky.new", "a new sticky key, 10 conns", "bare, no call")],
    ),
]
