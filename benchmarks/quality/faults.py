"""Scenarios about servers that are not well: what they cost their callers.

Owns a slow server, two ways to fail at once, and a restart of all servers one after the other.
Refuses to know of lines where all is well.

Where it says `shared` the conns let everything through and each server has a line of its own;
elsewhere each conn is for one caller at a time.
"""

from __future__ import annotations

import math
from functools import partial

from .books import Books
from .choices import NAMES, QUICKEST, choosing
from .drive import Drive, outage, run
from .lines import OPEN, pool
from .scores import Score, Table, score
from .servers import Conn, Server
from .streams import WORK, poisson

# Servers, of which one is not well, conns to each, and the share of what the others can do that is
# asked for.
SERVERS, EACH, LOAD = 5, 2, 0.5
SLOW = 10.0

# How long a server is down when it restarts, and how long after it the next one does.
DOWN, APART = 1.0, 2.0
RESTARTED = 10


def crew(ill: Server, seed: int, books: Books, *, shared: bool) -> tuple[list[Server], Drive]:
    """Some servers, the last of which is not well, and a pool that has conns to all of them."""
    there = [*(Server(lines=shared) for _ in range(SERVERS - 1)), ill]
    if shared:
        return there, pool(there, seed, books=books, places=OPEN)
    drive = pool((), seed, books=books)
    for server in there * EACH:
        drive.put(Conn(server), revive=True)
    return there, drive


def unwell(scenario: str, by: str, ill: Server, seed: int, seconds: float) -> Score:
    """Calls that the servers that are well could answer twice over."""
    shared = ill.lines
    books = Books(until=seconds)
    there, drive = crew(ill, seed, books, shared=shared)
    hands = (SERVERS - 1) * (1 if shared else EACH)
    drive.feed(choosing(poisson(seed, [(seconds, hands * LOAD / WORK)]), by))
    run(drive.time, seconds * 2)
    fair = 1 / SERVERS if ill.fault else math.nan
    return score(scenario, by, books, there, seconds, figure=share_of(ill, books), best=fair)


def share_of(ill: Server, books: Books) -> float:
    """Which share of all calls the server that is not well has got."""
    return (ill.answered + books.lost) / books.asked if books.asked else math.nan


def slow(by: str, seed: int, seconds: float, *, shared: bool) -> Score:
    """One of five needs ten times as long."""
    name = "one slow, shared" if shared else "one slow"
    return unwell(name, by, Server(slowness=SLOW, lines=shared), seed, seconds)


def fails(by: str, seed: int, seconds: float, *, shared: bool) -> Score:
    """One of five fails each call, in no time, and so looks idle."""
    name = "one fails, shared" if shared else "one fails"
    return unwell(name, by, Server(fault="fails", lines=shared), seed, seconds)


def hangs_up(by: str, seed: int, seconds: float) -> Score:
    """One of five accepts connects, and hangs up when it is called."""
    return unwell("one hangs up", by, Server(fault="hangs up"), seed, seconds)


def rolling(by: str, seed: int, load: float = LOAD) -> Score:
    """All servers restart, one after the other."""
    seconds = RESTARTED * APART + 2.0
    books = Books(until=seconds)
    there = [Server() for _ in range(RESTARTED)]
    drive = pool((), seed, books=books)
    for server in there * EACH:
        drive.put(Conn(server), revive=True)
    running: list[int] = []
    for number, server in enumerate(there):
        at = 1.0 + number * APART
        drive.time.note(at, -1, lambda server=server: running.append(len(server.running)), ())
        outage(drive.time, server, at, DOWN)
    drive.feed(choosing(poisson(seed, [(seconds, RESTARTED * EACH * load / WORK)]), by))
    run(drive.time, seconds * 2)
    return score(
        "rolling restart", by, books, there, seconds * EACH, figure=books.lost, best=sum(running)
    )


WAITS = ("mean", "p99", "most", "answer_p99")


def scenarios(seed: int, *, quick: bool) -> list[Table]:
    """What is played."""
    seconds = 10.0 if quick else 60.0
    each = f"{SERVERS} servers; without the last the others would be {LOAD:.0%} busy"
    found = [
        Table(
            f"one {what}{', shared' if shared else ''}",
            f"{each}; it {says}; {'a line each' if shared else f'{EACH} conns each, one line'}",
            (*WAITS, "figure", *columns),
            tuple(partial(play, by, seed, seconds, shared=shared) for by in names),
            figure="its share",
        )
        for play, what, says, columns, names in (
            (slow, "slow", f"needs {SLOW:g} times as long", ("servers",), (*NAMES, QUICKEST)),
            (fails, "fails", "fails each call at once", ("best", "lost"), NAMES),
        )
        for shared in (False, True)
    ]
    return [
        *found,
        Table(
            "one hangs up",
            f"{each}; it accepts connects and hangs up when it is called; {EACH} conns each",
            (*WAITS, "figure", "best", "lost", "connects", "burst"),
            tuple(partial(hangs_up, by, seed, seconds) for by in NAMES),
            figure="its share",
        ),
        Table(
            "rolling restart",
            f"{RESTARTED} servers, {LOAD:.0%} busy, {EACH} conns each; one after the other is down "
            f"for {DOWN:g} s",
            (*WAITS, "figure", "best", "connects", "burst"),
            tuple(partial(rolling, by, seed) for by in NAMES),
            figure="lost",
        ),
    ]
