"""Scenarios about lines: how long callers wait where all servers are well.

Owns steady load, a spike and ten times overload.  Refuses to know of faults.

In `steady` each conn is for one caller at a time, so there is one line, in the pool.  In `shared`
the conns let everything through and each server has a line of its own, which is joined by choosing
a conn; in `route` the same without telling the pool when the call is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from statistics import fmean

from connpool.core import Options
from connpool.testing.sim_time import Timeline

from . import theory
from .books import Books, quantile
from .choices import DEFAULT, NAMES, choosing
from .drive import Drive, run
from .scores import Score, Table, score
from .servers import Conn, Server
from .streams import WORK, Call, Phase, poisson

# Conns that are for one caller at a time, and servers that have a line each.
ALONE, SHARED = 10, 50
LOADS, SHARED_LOADS = (0.5, 0.8, 0.95), (0.5, 0.8, 0.9)
CALLS = 100_000

# The part of a run in which the lines fill, and nothing is counted.
WARM = 0.2

# Places of a conn that lets everything through.
OPEN = 1_000_000

# How long callers wait at most under overload, and how much more is asked for than can be done.
PATIENCE, OVERLOAD = 0.5, 10

# How many may wait where that is limited: five for each conn.
CROWD = 50


def pool(
    servers: Iterable[Server], seed: int, *, books: Books, places: int = 1, most: int | None = None
) -> Drive:
    """A pool with a conn to each of the servers; at most so many may wait."""
    drive = Drive(Timeline(), Options(name="quality", max_waiting=most), seed, books)
    for server in servers:
        drive.put(Conn(server, capacity=places))
    return drive


def steady(by: str, load: float, seed: int, calls: int, servers: int = ALONE) -> Score:
    """A steady stream, and one line for all."""
    seconds = calls * WORK / (servers * load)
    books = Books(since=seconds * WARM, until=seconds)
    there = [Server() for _ in range(servers)]
    drive = pool(there, seed, books=books)
    drive.feed(choosing(poisson(seed, [(seconds, servers * load / WORK)]), by))
    run(drive.time)
    law = theory.common_line(servers, load)
    return score(
        f"steady {load:g}", by, books, there, seconds * (1 - WARM), law="M/M/c",
        ideal=law.mean * WORK, ideal_p99=law.quantile(0.99) * WORK,
    )  # fmt: skip


def law_of(by: str, way: str, servers: int, load: float) -> tuple[str, float, float]:
    """What is known of a line before each server, in seconds: its name, the mean and the p99."""
    law = None
    if by == "random" or (way == "route" and by == "two_choices"):
        name, law = "M/M/1", theory.own_lines(load)
    elif by == "round_robin" or (way == "route" and by == "default"):
        name, law = "E/M/1", theory.in_turn(servers, load)
    elif by == "two_choices":
        return "two choices", theory.shorter_of(2, load) * WORK, math.nan
    elif by == "sticky":
        return "", math.nan, math.nan
    else:  # nobody can do better than with one line for all
        name, law = ">= M/M/c", theory.common_line(servers, load)
    return name, law.mean * WORK, law.quantile(0.99) * WORK


def shared(
    by: str, load: float, seed: int, calls: int, *, way: str = "shared", servers: int = SHARED
) -> Score:
    """A steady stream, and a line before each server."""
    seconds = calls * WORK / (servers * load)
    books = Books(since=seconds * WARM, until=seconds)
    there = [Server(lines=True) for _ in range(servers)]
    drive = pool(there, seed, places=OPEN, books=books)
    stream = poisson(seed, [(seconds, servers * load / WORK)], callers=20 * servers)
    feed(drive, choosing(stream, by), way)
    run(drive.time)
    name, ideal, ideal_p99 = law_of(by, way, servers, load)
    return score(
        f"{way} {load:g}", by, books, there, seconds * (1 - WARM),
        law=name, ideal=ideal, ideal_p99=ideal_p99,
    )  # fmt: skip


def feed(drive: Drive, calls: Iterator[Call], way: str) -> None:
    """Let calls come, by call or by route."""
    if way != "route":
        drive.feed(calls)
        return

    def route(call: Call) -> None:
        drive.route(call)
        follow()

    def follow() -> None:
        following = next(calls, None)
        if following is not None:
            drive.time.note(following.asked, 0, route, (following,))

    follow()


def spike(by: str, seed: int, scale: float = 1.0) -> Score:
    """Half of what can be done, for a second two and a half times that, then half again."""
    half = ALONE * 0.5 / WORK
    phases: list[Phase] = [(5.0 * scale, half), (1.0 * scale, 5 * half), (9.0 * scale, half)]
    books = Books()
    there = [Server() for _ in range(ALONE)]
    drive = pool(there, seed, books=books)
    drive.feed(choosing(poisson(seed, phases), by))
    run(drive.time)
    best = sorted(theory.replay(((c.asked, c.work) for c in poisson(seed, phases)), ALONE))
    return score(
        "spike", by, books, there, 15.0 * scale, law="one line",
        ideal=fmean(best), ideal_p99=quantile(best, 0.99),
    )  # fmt: skip


def overload(by: str, seed: int, seconds: float, most: int | None = None) -> Score:
    """Ten times what can be done, from callers who do not wait for ever; at most so many wait."""
    books = Books(since=1.0, until=seconds + 1.0)
    there = [Server() for _ in range(ALONE)]
    drive = pool(there, seed, books=books, most=most)
    stream = poisson(seed, [(seconds + 1.0, OVERLOAD * ALONE / WORK)])
    drive.feed(choosing(stream, by, PATIENCE))
    run(drive.time, seconds + 1.0)
    limit = PATIENCE if most is None else (most + 1) * WORK / ALONE
    how = by if most is None else f"{by}, max_waiting={most}"
    return score("overload x10", how, books, there, seconds, ideal_p99=limit)


WAITS = ("mean", "ideal", "p50", "p99", "ideal_p99", "most", "law")
STEADY = (*WAITS, "servers")
LIMITED = ("mean", "p99", "ideal_p99", "most", "useful", "gave_up", "callers")


def scenarios(seed: int, *, quick: bool) -> list[Table]:
    """What is played."""
    calls, part = (CALLS // 10, 0.2) if quick else (CALLS, 1.0)
    return [
        *(
            Table(
                f"steady {load:g}",
                f"{ALONE} conns, each for one caller at a time, {load:.0%} busy: one line",
                STEADY,
                tuple(partial(steady, by, load, seed, calls) for by in NAMES),
            )
            for load in LOADS
        ),
        *(
            Table(
                f"shared {load:g}",
                f"{SHARED} servers, {load:.0%} busy, each with a line that a call joins: capacity",
                STEADY,
                tuple(partial(shared, by, load, seed, calls) for by in NAMES),
            )
            for load in SHARED_LOADS
        ),
        Table(
            "route 0.8",
            f"{SHARED} servers, 80% busy, each with a line that a call joins: route",
            STEADY,
            tuple(partial(shared, by, 0.8, seed, calls, way="route") for by in NAMES),
        ),
        Table(
            "spike",
            f"{ALONE} conns, 50% busy; for one second 2.5 times what they can do",
            (*WAITS, "gave_up"),
            tuple(partial(spike, by, seed, part) for by in NAMES),
        ),
        Table(
            "overload x10",
            f"{ALONE} conns, {OVERLOAD} times what they can do, timeout {PATIENCE:g} s",
            LIMITED,
            (
                *(partial(overload, by, seed, 20.0 * part) for by in NAMES),
                partial(overload, DEFAULT, seed, 20.0 * part, CROWD),
            ),
        ),
    ]
