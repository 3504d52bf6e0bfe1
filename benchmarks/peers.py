"""What other people's pools cost, beside connpool's.

Owns the rows of the comparison: an idle conn taken and given back, with 10 conns, one row for each
peer; and who is served where 32 threads fight over 2 conns.  Refuses to know how each peer is
entered (`field_threads`, `field_tasks`).

For orientation: none of these rows has an aim.  The peers are installed by the extra ``bench``; a
row whose peer is not there says so.  `pool.call` cannot be had without the call, so it is compared
with a bare thing that makes a call as well, the others with one that does not.

In a fight, a peer may serve one thread for a long time and another one never: so who has not been
served is waited for a while, and then the counting begins without him.  A share of that is the
interpreter's: a thread that never has to wait goes on until it is switched, every 5 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from . import fairness, field_tasks, field_threads, tasks
from .conns import bare, borrowed
from .fairness import jain, shares
from .field import LIBRARIES, Entrant, tried
from .harness import Absent, Bench, Dial, Gauges, Heat, Row, Workload

__all__ = ["BENCHES", "LIBRARIES"]

CONNS = 10
FIGHT = 2.0


def field(prefix: str, entrants: Sequence[Entrant], scale: dict[str, Workload]) -> Heat:
    """All entrants side by side, and what they are compared with."""
    return Heat(
        scale | {entrant.what: partial(tried, entrant.build, CONNS) for entrant in entrants},
        [Row(f"{prefix}.{entrant.name}", entrant.what, entrant.against) for entrant in entrants],
    )


def fight(entrant: Entrant) -> Gauges:
    """Many threads over few conns of one peer."""
    threads, conns = fairness.THREADS, fairness.CONNS

    def measure(quick: bool) -> list[list[float]]:
        with tried(entrant.build, conns) as work:
            done = shares(partial(work, 1), threads, FIGHT / 4 if quick else FIGHT, FIGHT / 2)
        if not any(done):
            raise Absent("nobody was served")
        return [[float(sum(map(bool, done)))], [jain(done)]]

    what = f"{entrant.what}, {threads} threads over {conns} conns"
    return Gauges(
        [
            Dial(f"peers.served.{entrant.name}", what, unit="served"),
            Dial(f"peers.jain.{entrant.name}", "Jain's index of the same"),
        ],
        measure,
    )


BENCHES: list[Bench] = [
    field(
        "peers",
        field_threads.ENTRANTS,
        {field_threads.BARE: borrowed, field_threads.BARE_CALL: bare},
    ),
    field(
        "peers.async",
        field_tasks.ENTRANTS,
        {
            field_tasks.QUEUE: lambda: tasks.hosted(field_tasks.queued(CONNS)),
            field_tasks.QUEUE_CALL: tasks.queued,
        },
    ),
    *(fight(entrant) for entrant in field_threads.ENTRANTS if entrant.fights),
]
