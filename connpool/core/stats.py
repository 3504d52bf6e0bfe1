"""Figures: the running mean of one conn's calls, counters and pictures of the whole pool.

Owns what `stats()` shows: what is true now and what has happened since the start, kept apart.
Refuses to count on the straight path what can be added up when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import attrs

# How many calls a running mean remembers: long enough to be calm, short enough to forget.
MEMORY = 64
SHARE = 1 / MEMORY


class Stat:
    """What one conn's calls of one method cost: `mean` seconds over the answered ones.

    `spent` is their sum; past `MEMORY` of them, and once somebody has asked for the mean, each call
    takes the share `fading` off the sum before it is added.
    """

    # Written by hand: a call pays for two additions and a product, and for no more.
    __slots__ = ("answers", "errors", "fading", "spent")

    def __init__(
        self, answers: int = 0, errors: int = 0, spent: float = 0.0, fading: float = 0.0
    ) -> None:
        self.answers = answers
        self.errors = errors
        self.spent = spent
        self.fading = fading

    @property
    def count(self) -> int:
        """Calls, answered or failed."""
        return self.answers + self.errors

    @property
    def mean(self) -> float:
        """Seconds of an answered call; 0.0 where there was none."""
        answers, spent = self.answers, self.spent
        if self.fading:
            return spent * SHARE
        if answers >= MEMORY:  # from now on it forgets, beginning with a sum that has this mean
            self.spent, self.fading = spent * MEMORY / answers, SHARE
        return spent / answers if answers else 0.0

    def answered(self, took: float) -> None:
        """Count a call that was answered after `took` seconds."""
        self.answers += 1
        self.spent += took - self.spent * self.fading
        if self.answers == MEMORY:
            self.fading = SHARE

    def picture(self) -> Stat:
        """The same figures, which do not change any more."""
        return Stat(self.answers, self.errors, self.spent, self.fading)

    def __repr__(self) -> str:
        return f"Stat(answers={self.answers}, errors={self.errors}, mean={self.mean})"


@attrs.frozen
class Now:
    """The pool at this moment, in numbers of conns and, for `waiting`, of callers."""

    conns: int
    ready: int
    in_use: int
    cooling: int
    reviving: int
    draining: int
    opening: int
    waiting: int


@attrs.frozen
class SinceStart:
    """What has happened since the pool was made.

    calls: calls that conns answered or failed.
    errors: those of them that failed.
    queued: callers that had to wait.
    moved: calls that had not happened and went to another conn, or waited on.
    busy: how often a conn said Busy.
    rests: how often a conn was given a rest.
    checkouts, lost: checkouts that are over; those of them that nobody gave back.
    timeouts, cancelled: callers that gave up.
    opened, open_failed: inits, first ones and revivals.
    revived: how often a conn came back.
    ended: how often a conn was given up, by reason.
    """

    calls: int
    errors: int
    queued: int
    moved: int
    busy: int
    rests: int
    checkouts: int
    lost: int
    timeouts: int
    cancelled: int
    opened: int
    open_failed: int
    revived: int
    ended: Mapping[str, int]


@attrs.frozen
class PoolStats:
    """`now` and `since_start`."""

    now: Now
    since_start: SinceStart


@attrs.define(eq=False)
class Tally:
    """The counters behind `SinceStart`; what living conns are used for is counted by the conns."""

    calls: int = 0
    errors: int = 0
    queued: int = 0
    moved: int = 0
    busy: int = 0
    rests: int = 0
    checkouts: int = 0
    lost: int = 0
    timeouts: int = 0
    cancelled: int = 0
    opened: int = 0
    open_failed: int = 0
    revived: int = 0
    ended: Counter[str] = attrs.field(factory=Counter)

    def picture(self, calls: int, errors: int, checkouts: int) -> SinceStart:
        """The counters, with those of the conns that are still here."""
        counted = {name: getattr(self, name) for name in attrs.fields_dict(Tally)}
        counted |= {
            "calls": self.calls + calls,
            "errors": self.errors + errors,
            "checkouts": self.checkouts + checkouts,
            "ended": MappingProxyType(dict(self.ended)),
        }
        return SinceStart(**counted)
