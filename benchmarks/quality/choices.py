"""The ways to choose: the values of `by=` that are compared.

Owns their names.  Refuses to know what comes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from connpool.core import sticky

from .servers import METHOD
from .streams import Call

DEFAULT = "default"
NAMES = (
    DEFAULT, "least_wait", "round_robin", "random", "least_used", "two_choices", "sticky",
)  # fmt: skip


# A function of the user's: not the one that is free first, but the one that answers soonest.
QUICKEST = "quickest (own)"


def quickest(conns: Sequence[Any]) -> Any:
    """Of the free conns the one whose calls took least so far; one that is new is tried."""
    return min(conns, key=lambda conn: conn.stats[METHOD].mean if METHOD in conn.stats else 0.0)


def choosing(calls: Iterable[Call], name: str, patience: float | None = None) -> Iterator[Call]:
    """The same calls, choosing like this, and giving up when their patience is over."""
    keys: dict[int, sticky] = {}
    for call in calls:
        call.by = _by(name, call, keys)
        if patience is not None:
            call.deadline = call.asked + patience
        yield call


def _by(name: str, call: Call, keys: dict[int, sticky]) -> Any:
    if name == DEFAULT:
        return None
    if name == QUICKEST:
        return quickest
    if name != "sticky":
        return name
    key = keys.get(call.caller)
    if key is None:
        key = keys[call.caller] = sticky(f"caller {call.caller}")
    return key
