"""The books of a run, and the scores that come of them.

Owns what is counted, and the arithmetic of scores.  Refuses to know what is good.

A wait is the time from when somebody asks until a server begins to work for him; those who gave up
have none.  What is asked before `since` is let be: the line has to fill first.  Work counts if it
is done between `since` and `until`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

import attrs

from connpool.errors import PoolFull, PoolTimeout

from .servers import Server
from .streams import Call

# Waits of neighbours are alike, so the error of their mean is taken from means of so many parts.
PARTS = 20


@attrs.define(eq=False)
class Books:
    """What has happened in one pool."""

    since: float = 0.0
    until: float = math.inf
    asked: int = 0
    gave_up: int = 0  # by patience, or turned away from a full line
    lost: int = 0  # calls that failed or found nothing, other than by patience
    hopeless: frozenset[Any] = frozenset()  # whoever asks for these is not counted
    useful: float = 0.0  # seconds of servers' work on calls that were answered
    last: float = 0.0  # when the last call was answered
    patience: float = math.inf  # who waits longer has noticed something,
    noticed: float = -math.inf  # and this is when the last of them asked
    unborn: int = 0
    waits: array[float] = attrs.field(factory=lambda: array("d"))
    answers_after: array[float] = attrs.field(factory=lambda: array("d"))
    failures: array[float] = attrs.field(factory=lambda: array("d"))  # when each call was lost
    asked_by: Counter[int] = attrs.field(factory=Counter)  # calls, by caller
    served: Counter[int] = attrs.field(factory=Counter)
    born: array[float] = attrs.field(factory=lambda: array("d"))
    ended: Counter[str] = attrs.field(factory=Counter)

    def asks(self, call: Call) -> None:
        """Somebody has asked."""
        if call.asked >= self.since and call.resource not in self.hopeless:
            self.asked += 1
            self.asked_by[call.caller] += 1

    def answers(self, call: Call, server: Server, now: float) -> None:
        """A call was answered."""
        server.answered += 1
        work = now - call.begins
        server.worked += work
        if self.since <= now <= self.until:
            self.useful += work
        if call.asked >= self.since:
            wait = call.begins - call.asked
            self.waits.append(wait)
            if wait > self.patience and call.asked > self.noticed:
                self.noticed = call.asked
            self.answers_after.append(now - call.asked)
            self.served[call.caller] += 1
            self.last = now

    def fails(self, call: Call, error: BaseException) -> None:
        """A call failed, or its caller's patience is over."""
        if call.asked < self.since or call.resource in self.hopeless:
            return
        if isinstance(error, (PoolTimeout, PoolFull)):
            self.gave_up += 1
        else:
            self.lost += 1
        self.failures.append(call.asked)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of figures in order: so large is at most such a share of them.

    >>> quantile([1, 2, 3, 4], 0.5), quantile([], 0.5)
    (2, nan)
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def error_of_mean(values: Sequence[float]) -> float:
    """By how much the mean of a series may be wrong, one standard error, by means of its parts."""
    size = len(values) // PARTS
    if not size:
        return math.nan
    means = [fmean(values[part * size : (part + 1) * size]) for part in range(PARTS)]
    return stdev(means) / math.sqrt(PARTS)


def densest(instants: Iterable[float], width: float = 1.0) -> int:
    """How many of them lie in any stretch of that width, at most.

    >>> densest([0.0, 0.5, 1.0, 1.75])
    2
    """
    times = sorted(instants)
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] >= width:
            first += 1
        most = max(most, last - first + 1)
    return most
