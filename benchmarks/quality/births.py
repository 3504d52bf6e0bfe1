"""Scenarios about conns that come and go: how many are opened, and when.

Owns a cold start, the expiry of conns that were born together, and ten thousand resources that
share a pool too small for all.  Refuses to know of servers that are not well.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle

from connpool.core import Options, Supply
from connpool.testing.sim_time import Timeline

from . import theory
from .books import Books, densest
from .choices import DEFAULT, NAMES, choosing
from .drive import Drive, run
from .scores import Score, score
from .servers import Conn, Server
from .streams import WORK, crowd, poisson, spread, zipf

# A cold start: so many callers, how long a connect takes, and each call.
CROWD, CONNECT, BRIEF = 50, 0.15, 0.002

# Expiry: conns born together, and how long they may live.
BORN, TTL = 100, 60.0

# The long tail: resources, conns in all, calls a second, and how long their callers wait.
RESOURCES, PLACES, RATE, PATIENCE = 10_000, 500, 1000.0, 5.0
TAIL_CONNECT = 0.02


def options(connecting: int, size: int | None = None) -> Options:
    """A pool that opens so many at once."""
    return Options(name="quality", max_connecting=connecting, max_size=size)


def cold(by: str, connecting: int, seed: int) -> Score:
    """A crowd comes when nothing is open yet."""
    books, server = Books(), Server(connect=CONNECT)
    drive = Drive(Timeline(), options(connecting), seed, books)
    drive.supply(Supply("r", lambda: Conn(server), max_size=CROWD))
    drive.feed(choosing(crowd(CROWD, BRIEF), by))
    run(drive.time, 10.0)
    name = by if by != DEFAULT else f"max_connecting={connecting}"
    return score(
        "cold start", name, books, [server], books.last, law="until the last",
        share=books.last, fair=theory.cold(CROWD, CONNECT, BRIEF, connecting),
    )  # fmt: skip


def expiry(by: str, seed: int, seconds: float) -> Score:
    """Conns of one age, whose time is over."""
    books, there = Books(since=1.0, until=seconds), [Server() for _ in range(5)]
    drive = Drive(Timeline(), options(BORN), seed, books)
    homes = cycle(there)
    drive.supply(Supply("r", lambda: Conn(next(homes)), ttl=TTL, min_size=BORN, max_size=BORN))
    run(drive.time, 0.5)
    for server in there:
        del server.connects[:]  # the births
    drive.core.options = options(2)  # from here on as it is by default
    drive.feed(choosing(poisson(seed, [(seconds, BORN * 0.5 / WORK)]), by))
    run(drive.time, seconds)
    connects = sorted(at for server in there for at in server.connects)
    first = [at for at in connects if at < TTL]
    return score(
        "mass expiry", by, books, there, seconds * BORN / len(there), law="a tenth of the spread",
        share=densest(first, TTL / 40) / len(first) if first else 0.0, fair=0.1,
    )  # fmt: skip


def tail(connecting: int, seed: int, seconds: float) -> Score:
    """Ten thousand resources, most of them asked for once in a while."""
    books, server = Books(since=10.0, until=seconds), Server(connect=TAIL_CONNECT)
    drive = Drive(Timeline(), options(connecting, PLACES), seed, books)
    for number in range(RESOURCES):
        drive.supply(Supply(number, lambda number=number: Conn(server, number)))
    weights = zipf(RESOURCES)
    calls = spread(seed, poisson(seed, [(seconds, RATE)]), weights)
    drive.feed(choosing(calls, DEFAULT, PATIENCE))
    run(drive.time, seconds)
    return score(
        "long tail", f"max_connecting={connecting}", books, [server],
        (seconds - 10.0) * PLACES, law="LRU",
        share=1 - sum(at >= 10.0 for at in server.connects) / books.asked,
        fair=theory.kept(weights, PLACES),
    )  # fmt: skip


def scenarios(seed: int, *, quick: bool) -> dict[str, list[partial[Score]]]:
    """What is played, by the name of its table."""
    long = 60.0 if quick else 300.0
    return {
        "cold start": [
            *(partial(cold, DEFAULT, number, seed) for number in (1, 2, 5, 50)),
            *(partial(cold, by, 2, seed) for by in NAMES[1:]),
        ],
        "mass expiry": [partial(expiry, by, seed, 61.0 if quick else 121.0) for by in NAMES],
        "long tail": [
            partial(tail, number, seed, 15.0 if quick else 40.0) for number in (2, 5, 10, 50)
        ],
    }
