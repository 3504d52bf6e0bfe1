"""What one call through an idle pool costs one thread, and what a checkout does.

Owns the rows of the straight path: a conn is free, nobody waits, nothing is due.  Refuses to know
of growth (`scale`) and of other threads (`threads`).

The scale is the bare thing, the least that a pool of conns can be: a lock and a deque, written into
the caller's own loop.  Beside a call it makes the same call.  Beside a checkout there is no call on
either side, for that would only bring the ratio nearer to 1; with the same call in both, the ratio
is in a row without an aim.  What psycopg_pool does, with conns that do nothing, is timed in the
same rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat

from .conns import bare, borrowed, calls, one_resource, warm_pool_of
from .field import tried
from .field_threads import checked_out, own, psycopg_blocks, psycopg_pairs
from .harness import Bench, Heat, Row, Work, at_most

CONNS = 10


@contextmanager
def checked_out_and_called() -> Iterator[Work]:
    """Conns lent in a `with` block, and called once in there."""
    with warm_pool_of(one_resource(CONNS)) as pool:

        def work(count: int) -> None:
            for _ in repeat(None, count):
                with pool.checkout("r") as conn:
                    conn.call("m", 5)

        yield work


BENCHES: list[Bench] = [
    Heat(
        {
            "bare": bare,
            "pool.call": calls,
            "with a filter": partial(calls, filter=lambda info: info.extra is None),
        },
        [
            Row("pool.call", "pool.call", "bare", at_most(1.5)),
            Row("pool.call.filter", "with a filter", "bare", at_most(3.0)),
        ],
    ),
    Heat(
        {
            "bare": bare,
            "bare, no call": borrowed,
            "pool.checkout": partial(own, checked_out, CONNS),
            "pool.checkout and a call": checked_out_and_called,
        },
        [
            Row("pool.checkout", "pool.checkout", "bare, no call", at_most(1.8)),
            Row("pool.checkout.call", "pool.checkout and a call", "bare"),
        ],
    ),
    Heat(
        {
            "pool.call": calls,
            "pool.checkout": partial(own, checked_out, CONNS),
            "psycopg_pool getconn, putconn": partial(tried, psycopg_pairs, CONNS),
            "psycopg_pool with connection()": partial(tried, psycopg_blocks, CONNS),
        },
        [
            Row("pool.call.psycopg", "pool.call", "psycopg_pool getconn, putconn", at_most(0.25)),
            Row(
                "pool.checkout.psycopg",
                "pool.checkout",
                "psycopg_pool with connection()",
                at_most(0.2),
            ),
        ],
    ),
]
