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
from .scores import Score, Table, score
from .servers import Conn, Server
from .streams import WORK, crowd, poisson, spread, zipf

# A cold start: so many callers, how long a connect takes, and each call.
CROWD, CONNECT, BRIEF = 50, 0.15, 0.002

# Expiry: conns born together, and how long they may live.
BORN, TTL = 100, 60.0
AT_WORK = 0.05  # the share of them that are used at a time

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
        "cold start", name, books, [server], books.last,
        figure=books.last, best=theory.cold(CROWD, CONNECT, BRIEF, connecting),
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
    drive.feed(choosing(poisson(seed, [(seconds, BORN * AT_WORK / WORK)]), by))
    run(drive.time, seconds)
    connects = sorted(at for server in there for at in server.connects)
    first = [at for at in connects if at < TTL]
    return score(
        "mass expiry", by, books, there, seconds * BORN / len(there),
        figure=densest(first, TTL / 40) / len(first), best=0.1,
    )  # fmt: skip


def tail(connecting: int, seed: int, seconds: float) -> Score:
    """Ten thousand resources, most of them asked for once in a while."""
    books, server = Books(since=10.0, until=seconds), Server(connect=TAIL_CONNECT)
    drive = Drive(Timeline(), options(connecting, PLACES), seed, books)
    for number in range(RESOURCES):
        drive.supply(Supply(number, partial(Conn, server, number)))
    weights = zipf(RESOURCES)
    calls = spread(seed, poisson(seed, [(seconds, RATE)]), weights)
    drive.feed(choosing(calls, DEFAULT, PATIENCE))
    run(drive.time, seconds)
    return score(
        "long tail", f"max_connecting={connecting}", books, [server],
        (seconds - 10.0) * PLACES,
        figure=sum(wait == 0 for wait in books.waits) / books.asked,
        best=theory.kept(weights, PLACES),
    )  # fmt: skip


WAITS = ("average", "p50", "p99", "most")


def scenarios(seed: int, *, quick: bool) -> list[Table]:
    """What is played."""
    return [
        Table(
            "cold start",
            f"{CROWD} callers at once, nothing is open; connect {1000 * CONNECT:g} ms, "
            f"work {1000 * BRIEF:g} ms; max_connecting=2 unless it is said",
            (*WAITS, "figure", "best", "connects"),
            (
                *(partial(cold, DEFAULT, number, seed) for number in (1, 2, 5, 50)),
                *(partial(cold, by, 2, seed) for by in NAMES[1:]),
            ),
            figure="last ms",
        ),
        Table(
            "mass expiry",
            f"{BORN} conns of one age, ttl {TTL:g} s; the share of them that die in any tenth of "
            "the spread",
            (*WAITS, "figure", "best", "connects", "burst", "lost"),
            tuple(partial(expiry, by, seed, 61.0 if quick else 241.0) for by in NAMES),
            figure="densest",
        ),
        Table(
            "long tail",
            f"{RESOURCES:,} resources by Zipf's law, max_size={PLACES} for all, {RATE:,g} calls a "
            f"second, connect {1000 * TAIL_CONNECT:g} ms, timeout {PATIENCE:g} s",
            (*WAITS, "gave_up", "figure", "best", "connects", "burst"),
            tuple(partial(tail, most, seed, 15.0 if quick else 40.0) for most in (2, 5, 10, 50)),
            figure="no wait",
        ),
    ]
