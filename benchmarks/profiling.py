"""Where the time of one operation goes, function by function.

Owns the run under cProfile.  Refuses to give times that can be trusted: cProfile charges a fixed
price for every call of a function, so what is split into many small functions looks dearer than it
is, and what is written out in one looks cheaper.  Take it for a map, and the table for distances.
It sees the thread that asks, no other.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterable

from .harness import Bench, Heat, Workload, collector_off

OPERATIONS = 100_000
WARM_UP = 1_000


def workload(benches: Iterable[Bench], name: str) -> Workload | None:
    """What the row of this name measures, or None where that is not a workload."""
    for bench in benches:
        if isinstance(bench, Heat):
            for row in bench.rows:
                if row.name == name:
                    return bench.workloads[row.subject]
    return None


def profile(build: Workload) -> None:
    """Print what the workload's functions cost, the dearest first."""
    profiler = cProfile.Profile()
    with build() as work, collector_off():
        work(WARM_UP)
        profiler.enable()
        work(OPERATIONS)
        profiler.disable()
    print(
        f"{OPERATIONS:,} operations; cProfile makes calls of functions look dearer than they are."
    )
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(20)
