"""What a call through a pool is made of.

Owns the rows of its parts, each timed alone, as a share of the whole.  Refuses to have aims.  They
need not add up: what is left over is the pool's own method, which passes its arguments on and looks
at what comes back.

The core's part is what `Pool.call` asks of it, by the same two doors; they are nobody's to rely on,
and where they have become others the row is empty until somebody has looked.
"""

from __future__ import annotations

import time
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat

from .conns import Trivial, calls, one_resource, warm_pool_of
from .field import tried
from .harness import Bench, Heat, Row, Work, Workload

WHOLE = "pool.call"


@contextmanager
def nothing_but_the_call() -> Iterator[Work]:
    """A conn's call, with no pool."""
    conn = Trivial()

    def work(count: int) -> None:
        for _ in repeat(None, count):
            conn.call("m", 5)

    yield work


@contextmanager
def two_turns() -> Iterator[Work]:
    """A lock taken and left, twice."""
    lock = allocate_lock()

    def work(count: int) -> None:
        for _ in repeat(None, count):
            lock.acquire()
            lock.release()
            lock.acquire()
            lock.release()

    yield work


@contextmanager
def twice(look: Callable[[], object]) -> Iterator[Work]:
    """Something asked two times."""

    def work(count: int) -> None:
        for _ in repeat(None, count):
            look()
            look()

    yield work


@contextmanager
def core(conns: int) -> Iterator[Work]:
    """A conn granted and given back, by the core alone."""
    with warm_pool_of(one_resource(conns)) as pool:
        core, who = pool._core, get_ident()

        def work(count: int) -> None:
            now = time.monotonic()
            for _ in repeat(None, count):
                entry = core.borrow("r", "m", who, now)
                assert entry is not None
                assert core.put_back(entry, "m", now, now)

        yield work


PARTS: dict[str, tuple[str, Workload]] = {
    "call": ("the conn's own call", nothing_but_the_call),
    "lock": ("two turns of a lock, which it does without", two_turns),
    "clock": ("two looks at the clock", partial(twice, time.monotonic)),
    "who": ("two looks at who asks, of which it takes one", partial(twice, get_ident)),
    "core": ("the core: a conn chosen, granted, given back", partial(tried, core, 10)),
}

BENCHES: list[Bench] = [
    Heat(
        {WHOLE: calls} | dict(PARTS.values()),
        [Row(f"parts.{name}", what, WHOLE) for name, (what, _) in PARTS.items()],
    )
]
