"""A fleet: many pools, each with conns to many servers, and all servers restart.

Owns what a fleet is made of, what befalls it, and what its servers and callers notice.  Refuses to
know what single callers want: they ask any server, all alike.

A pool is one process.  It has a supply for each of the servers, so `servers` x `pools` x `conns` is
how many conns there may be.  A server handles some connects at once; beyond that each takes longer,
as behind an accept queue.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import attrs

from connpool.core import Backoff, Options, Supply
from connpool.core import supply as sizes
from connpool.testing.sim_time import Timeline

from ..fairness import jain
from .books import Books, densest, quantile
from .drive import Drive, outage, run
from .servers import Conn, Server
from .streams import WORK, Call, instants

CONNECT, LOGINS = 0.05, 8

# When it begins, how long a server is down, and how long is looked at it afterwards.
BEGINS, DOWN, AFTER = 2.0, 5.0, 60.0

# In a rolling restart: servers at a time, how long they are down, and the time until the next.
BATCH, BATCH_DOWN, BATCH_APART = 50, 1.0, 2.0

# Who waits longer than that has noticed something.
NOTICED = 0.25

UNBOUNDED = 1_000_000

# The width of a bar, in seconds, where connects are drawn over time.
BIN = 0.5


@attrs.frozen
class Plan:
    """A fleet, its settings, and what befalls it: "restart", "rolling" or "expiry"."""

    label: str
    event: str = "restart"
    servers: int = 1000
    pools: int = 100
    conns: int = 10
    rate: float = 100.0  # calls a second and pool
    min_size: int = 0
    max_connecting: int = 2
    jitter: float = 0.2
    notices: bool = False  # conns notice by themselves that they are lost
    hang: int = 0  # so many of the servers do not come back: connects to them hang, and whoever
    # asks for them is not counted
    connect_timeout: float = 10.0
    ttl: float | None = None
    spread: float = sizes.SPREAD
    after: float = AFTER


@attrs.frozen
class Toll:
    """What it cost.

    Seconds count from when the servers are up again, or from when the first conn expires.  `mean`
    and `burst` are connects a second that the fleet makes, on average until the last and in the
    worst second; `server` in the worst second of the worst server; `greeted` the most that one
    server had to handle at once.  `quiet` is when the last call was asked that was lost or waited
    long, `full` when the last conn was opened.
    """

    plan: Plan
    conns: int
    calls: int
    connects: int
    refused: int
    mean: float
    burst: int
    server: int
    greeted: int
    lost: int
    gave_up: int
    p99: float
    most: float
    quiet: float
    full: float
    spread: float  # Jain's index over servers of calls answered
    series: tuple[int, ...]  # connects in each BIN seconds, from the beginning


class Fleet:
    """Pools and servers in one invented time."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.time = Timeline()
        self.books = Books(patience=NOTICED, hopeless=frozenset(range(plan.hang)))
        self.servers = [Server(connect=0.0, logins=math.inf) for _ in range(plan.servers)]
        self.supplies: list[Supply] = []
        self.drives = [self._pool(seed * 1000 + number) for number in range(plan.pools)]
        run(self.time, 0.0)  # all conns are born, in no time
        self.conns = len(self.books.born)
        self._begin()

    def _pool(self, seed: int) -> Drive:
        """A pool with a supply for each of the servers, which opens at least one conn."""
        plan = self.plan
        options = Options(name="fleet", max_connecting=UNBOUNDED)
        drive = Drive(self.time, options, seed, self.books)
        for number, server in enumerate(self.servers):
            supply = Supply(
                number, partial(Conn, server, number, notices=plan.notices), ttl=plan.ttl,
                min_size=max(1, plan.min_size), max_size=plan.conns,
                connect_timeout=plan.connect_timeout,
            )  # fmt: skip
            self.supplies.append(supply)
            drive.supply(supply)
        return drive

    def _begin(self) -> None:
        """From here on all is as it is by default, but for the plan."""
        plan = self.plan
        options = Options(
            name="fleet", max_connecting=plan.max_connecting, backoff=Backoff(jitter=plan.jitter)
        )
        for drive in self.drives:
            drive.core.options = options
        for supply in self.supplies:
            supply.min_size = plan.min_size
        for server in self.servers:
            server.connect, server.logins = CONNECT, LOGINS
            server.greeted = 0
            del server.connects[:]
        del self.books.born[:]


def stream(seed: int, seconds: float, plan: Plan) -> Iterator[Call]:
    """Calls to servers drawn by chance."""
    chance = random.Random(seed)
    for at in instants(chance, [(seconds, plan.rate)]):
        yield Call(at, chance.expovariate(1 / WORK), 0, int(chance.random() * plan.servers))


def befalls(fleet: Fleet) -> float:
    """Let happen what the plan says; gives when the last server is up again."""
    plan = fleet.plan
    if plan.event == "restart":
        for server in fleet.servers:
            outage(fleet.time, server, BEGINS, DOWN)
        for server in fleet.servers[: plan.hang]:
            fleet.time.note(BEGINS, 0, setattr, (server, "hangs", True))
        return BEGINS + DOWN
    if plan.event == "rolling":
        for number, server in enumerate(fleet.servers):
            outage(fleet.time, server, BEGINS + number // BATCH * BATCH_APART, BATCH_DOWN)
        return BEGINS + (plan.servers - 1) // BATCH * BATCH_APART + BATCH_DOWN
    assert plan.ttl is not None
    return plan.ttl * (1 - plan.spread)


def play(plan: Plan, seed: int) -> Toll:
    """Play one plan to its end: until all conns are there again."""
    before, sizes.SPREAD = sizes.SPREAD, plan.spread
    try:
        fleet = Fleet(plan, seed)
        up = befalls(fleet)
        until = up + plan.after
        for number, drive in enumerate(fleet.drives):
            calls = stream(seed * 1000 + number, until, plan)
            drive.feed(patient(calls, drive.core.options.timeout))
        run(fleet.time, until if plan.ttl is not None else until + 600.0 - plan.after)
    finally:
        sizes.SPREAD = before
    return toll(fleet, up)


def binned(instants: Sequence[float], width: float) -> tuple[int, ...]:
    """How many lie in each stretch of that width.

    >>> binned([0.1, 0.2, 1.1], 0.5)
    (2, 0, 1)
    """
    counts = Counter(int(at / width) for at in instants)
    return tuple(counts[number] for number in range(max(counts, default=-1) + 1))


def patient(calls: Iterator[Call], timeout: float) -> Iterator[Call]:
    """The same, each with a deadline."""
    for call in calls:
        call.deadline = call.asked + timeout
        yield call


def toll(fleet: Fleet, up: float) -> Toll:
    """What came of it."""
    books, servers = fleet.books, fleet.servers
    connects = sorted(at for server in servers for at in server.connects)
    waits = sorted(books.waits)
    quiet = max([books.noticed, *books.failures], default=-math.inf)
    return Toll(
        plan=fleet.plan,
        conns=fleet.conns,
        calls=books.asked,
        connects=len(connects),
        refused=sum(server.refused for server in servers),
        mean=len(connects) / max(1.0, connects[-1] - connects[0]) if connects else 0.0,
        burst=densest(connects),
        server=max(densest(server.connects) for server in servers),
        greeted=max(server.greeted for server in servers),
        lost=books.lost,
        gave_up=books.gave_up,
        p99=quantile(waits, 0.99),
        most=waits[-1],
        quiet=max(0.0, quiet - up),
        full=max(0.0, max(books.born, default=up) - up),
        spread=jain([server.answered for server in servers]),
        series=binned(connects, BIN),
    )
