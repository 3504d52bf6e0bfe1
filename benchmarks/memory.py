"""What the pool keeps for each conn.

Owns the rows in bytes.  Refuses to count the conns themselves: they are there beforehand.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence

from .conns import TTL, Trivial, many_resources, one_resource, pool_of
from .harness import Bench, Gauge, at_most

CONNS = 10_000


def idle(quick: bool) -> float:
    """Bytes for each conn that was put into a pool, and no more."""
    return bytes_per_conn(one_resource(CONNS + 1))


def called(quick: bool) -> float:
    """Bytes for each conn that has answered a call since."""
    return bytes_per_conn(one_resource(CONNS + 1), called=True)


def apart(quick: bool) -> float:
    """Bytes for each conn that is the only one to its resource."""
    return bytes_per_conn(many_resources(CONNS + 1))


def bytes_per_conn(conns: Sequence[Trivial], *, called: bool = False) -> float:
    """What tracemalloc finds to be added by all the conns but the first."""
    first, *rest = conns
    with pool_of([first]) as pool:
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for conn in rest:
                pool.put(conn, ttl=TTL)
            for _ in rest if called else ():  # each has its turn
                pool.call("r", "m")
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return (after - before) / CONNS


BENCHES: list[Bench] = [
    Gauge("memory.idle", "kept for an idle conn", idle, at_most(600), unit="bytes"),
    Gauge("memory.called", "the same once it was called", called, unit="bytes"),
    Gauge("memory.apart", "for an idle conn with its own resource", apart, unit="bytes"),
]
