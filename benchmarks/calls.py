"""What one call through an idle pool costs one thread.

Owns the rows of the straight path: a conn is free, nobody waits, nothing is due.  Refuses to know
of growth (`scale`) and of other threads (`threads`).
"""

from __future__ import annotations

from functools import partial

from .conns import bare, calls
from .harness import Bench, Heat, Row, at_most

BENCHES: list[Bench] = [
    Heat(
        {
            "bare": bare,
            "pool.call": calls,
            "with a filter": partial(calls, filter=lambda info: info.extra is None),
        },
        [
            Row("pool.call", "pool.call", "bare", at_most(2.5)),
            Row("pool.call.filter", "with a filter", "bare", at_most(3.0)),
        ],
    )
]
