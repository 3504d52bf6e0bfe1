"""All rows of the table, and each bench in processes of its own.

Owns the list of ideas.  Refuses to know how they are shown.

Of its own, since what one bench leaves behind moves the next one's figures: ten thousand conns that
are laid out in memory where others have just been freed cost half as much again to go through.  So
a row is the same whether it is asked for alone or with all others.

Several, since each process lays out its memory anew, and that alone moves a ratio of short times by
five per cent or more, the same way in all of its rounds.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase

from . import (
    calls,
    cancelled,
    contended,
    counted,
    fairness,
    filters,
    growth,
    handoff,
    memory,
    parts,
    peers,
    routes,
    scale,
    servers,
    servers_http,
    servers_postgres,
    servers_redis,
    servers_websocket,
    storms,
    tasks,
)
from .harness import Bench, Result, merge

IDEAS = (
    calls,
    parts,
    routes,
    scale,
    growth,
    contended,
    handoff,
    fairness,
    filters,
    memory,
    cancelled,
    tasks,
    storms,
    peers,
    counted,
    servers_postgres,
    servers_redis,
    servers_http,
    servers_websocket,
)
BENCHES: list[Bench] = [bench for idea in IDEAS for bench in idea.BENCHES]
LIBRARIES = (*peers.LIBRARIES, *servers.LIBRARIES)
NAMES = [name for bench in BENCHES for name in bench.names()]


def wanted(name: str, pattern: str) -> bool:
    """Whether a row is asked for: by part of its name or, with a wildcard, by all of it."""
    return pattern in name or fnmatchcase(name, pattern)


def run(pattern: str, *, quick: bool) -> Iterator[Result]:
    """Fill the wanted rows, one bench after the other."""
    fresh = multiprocessing.get_context("spawn")
    for number, bench in enumerate(BENCHES):
        if any(wanted(name, pattern) for name in bench.names()):
            runs = []
            for _ in range(1 if quick else bench.processes):
                with ProcessPoolExecutor(1, mp_context=fresh) as process:
                    runs.append(process.submit(_run_one, number, pattern, quick).result())
            yield from map(merge, zip(*runs, strict=True))


def _run_one(number: int, pattern: str, quick: bool) -> list[Result]:
    return list(BENCHES[number].run(lambda name: wanted(name, pattern), quick=quick))
