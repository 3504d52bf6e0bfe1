"""What is compared of fleets, and how it is shown; and who picks which server first.

Owns the plans and their table.  Refuses to know how a fleet is played.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from ..fairness import jain
from . import page, plots, show
from .books import Books
from .choices import NAMES, choosing
from .drive import run
from .fleet import UNBOUNDED, Plan, Toll, play
from .lines import feed, pool
from .servers import Server
from .streams import WORK, Call

# Pools where many settings are compared, and where the whole fleet is played.
POOLS, WIDE = 20, 100


def plans(*, quick: bool, pools: int = POOLS) -> list[Plan]:
    """All that is played."""
    plan = partial(Plan, servers=50, pools=5) if quick else partial(Plan, pools=pools)

    def wide(label: str, **settings: Any) -> Plan:
        most = 10 if quick else WIDE
        return plan(f"{label}; {most} pools", **{"pools": most, **settings})

    hang = 1 if quick else 10
    expiry = partial(plan, event="expiry", ttl=60.0, min_size=1)
    return [
        *(
            plan(f"restart, max_connecting={name}", max_connecting=most)
            for name, most in (("1", 1), ("2", 2), ("5", 5), ("20", 20), ("inf", UNBOUNDED))
        ),
        plan("noticed, 20", notices=True, max_connecting=20),
        plan("noticed, 20, jitter 0", notices=True, max_connecting=20, jitter=0.0),
        plan("noticed, inf", notices=True, max_connecting=UNBOUNDED),
        plan("some hang, 2", hang=hang),
        plan("some hang, 2, connect_timeout=1", hang=hang, connect_timeout=1.0),
        plan("some hang, 20", hang=hang, max_connecting=20),
        plan("some hang, 20, connect_timeout=1", hang=hang, max_connecting=20, connect_timeout=1.0),
        plan("rolling, 2", "rolling"),
        plan("rolling, 20", "rolling", max_connecting=20),
        expiry("ttl, 2"),
        expiry("ttl, 20", max_connecting=20),
        expiry("ttl, 20, no spread", max_connecting=20, spread=0.0),
        plan("full, 20", min_size=10, max_connecting=20),
        plan("full, inf", min_size=10, max_connecting=UNBOUNDED),
        *(wide("restart, 2"), wide("restart, 20", max_connecting=20)),
        wide("full, 20", min_size=10, max_connecting=20),
    ]


HEADS = (
    "plan", "conns", "connects", "refused", "worst s", "server", "at once", "lost", "gave up",
    "p99 s", "max s", "quiet s", "full s", "Jain",
)  # fmt: skip


def cells(toll: Toll) -> list[str]:
    """A row."""
    numbers = (toll.conns, toll.connects, toll.refused, toll.burst, toll.server, toll.greeted)
    return [
        toll.plan.label,
        *(f"{number:,}" for number in (*numbers, toll.lost, toll.gave_up)),
        *(f"{seconds:.2f}" for seconds in (toll.p99, toll.most)),
        f"{toll.quiet:.1f}",
        f"{toll.full:.1f}" if toll.plan.min_size else "",
        f"{toll.spread:.3f}",
    ]


def text(tolls: Sequence[Toll]) -> str:
    """The table, as it is printed and stands in the docs."""
    plan = tolls[0].plan
    says = (
        f"fleet: {plan.servers:,} servers x {plan.pools} pools, unless it is said, x at most "
        f"{plan.conns} conns; {plan.rate:g} calls a second and pool"
    )
    return "\n".join((says, "", *show.aligned([HEADS, *map(cells, tolls)])))


# -- first picks -----------------------------------------------------------------------------------


def first_picks(by: str, way: str, seed: int, pools: int = 100, servers: int = 10) -> list[int]:
    """How many of the pools, with conns to the same servers in the same order, pick each first."""
    there = [Server() for _ in range(servers)]
    for number in range(pools):
        drive = pool(there, seed * 1000 + number, books=Books())
        (call,) = choosing([Call(0.0, WORK, number)], by)
        feed(drive, iter([call]), way)
        run(drive.time)
    return [server.answered for server in there]


def herd(seed: int) -> str:
    """The most that any server gets of the first picks, by how it is chosen."""
    rows = [["first picks", "call: busiest", "Jain", "route: busiest", "Jain"]]
    for by in NAMES:
        row = [by]
        for way in ("call", "route"):
            picks = first_picks(by, way, seed)
            row += [f"{max(picks)} of {sum(picks)}", f"{jain(picks):.3f}"]
        rows.append(row)
    return "\n".join(
        ("first picks: 100 pools with conns to the same 10 servers", "", *show.aligned(rows))
    )


def command(said: argparse.Namespace, where: Path | None) -> int:
    """Play all of it."""
    tolls = []
    for plan in plans(quick=said.quick, pools=said.pools):
        if fnmatchcase(plan.label, f"*{said.only}*"):
            print(f"{plan.label} ...", file=sys.stderr, flush=True)
            tolls.append(play(plan, said.seed))
    printed = [*([text(tolls)] if tolls else []), herd(said.seed)]
    print("\n\n".join(printed))
    if said.json is not None:
        show.save(said.json, tolls, said.seed)
    if where is not None:
        plots.draw_fleet(where, tolls)
    if said.write_docs:
        page.write("fleet", printed)
    return 0
