"""How the cost of an idle conn grows from 1 conn to 10,000, for connpool and its peers.

Owns the curves: one row for each size, against the same pool with one conn.  Refuses to have aims:
those are in `scale`.

A pool that goes through all its conns for each of them takes hours to have ten thousand out once,
which is how each begins: its row says so and stays empty.
"""

from __future__ import annotations

from functools import partial

from . import field_tasks, field_threads
from .field import Entrant, tried
from .harness import Bench, Heat, Row

SIZES = (10, 100, 1_000, 10_000)
THREADS: tuple[str, ...] = (
    "pool.call",
    "pool.checkout",
    "psycopg_pool",
    "sqlalchemy",
    "redis.blocking",
)
THREADS += ("dbutils", "generic", "urllib3", "httpcore")
TASKS: tuple[str, ...] = (
    "AsyncPool.call",
    "AsyncPool.checkout",
    "psycopg_pool",
    "redis.blocking",
    "generic",
)
TASKS += ("asyncpg", "aiohttp", "httpcore")


def curve(prefix: str, entrant: Entrant) -> Heat:
    """One peer with that many conns, against itself with one."""
    names = {size: f"{entrant.what}, {size:,} conns" for size in SIZES}
    alone = f"{entrant.what}, 1 conn"
    return Heat(
        {name: partial(tried, entrant.build, size) for size, name in names.items()}
        | {alone: partial(tried, entrant.build, 1)},
        [Row(f"{prefix}.{entrant.name}.{size}", name, alone) for size, name in names.items()],
        rounds=7,
        processes=1,
    )


BENCHES: list[Bench] = [
    *(curve("growth", entrant) for entrant in field_threads.ENTRANTS if entrant.name in THREADS),
    *(curve("growth.async", entrant) for entrant in field_tasks.ENTRANTS if entrant.name in TASKS),
]
