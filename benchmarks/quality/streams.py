"""Callers: who asks, when, and for how much work.

Owns streams of calls.  Refuses to know what becomes of them.

Invariant: a stream is drawn from a chance of its own, so that all ways to choose meet the very same
calls, each with the same work in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from connpool.core import Entry

# The mean work of a call, in seconds.
WORK = 0.01

# Seconds, and calls a second while they last.
Phase = tuple[float, float]


class Call:
    """Somebody's wish for a conn, and how far it has come."""

    __slots__ = (
        "asked", "begins", "by", "caller", "deadline", "entry", "place", "resource", "started",
        "tries", "work",
    )  # fmt: skip

    def __init__(self, asked: float, work: float, caller: int, resource: Any = "r") -> None:
        self.asked = asked
        self.work = work
        self.caller = caller
        self.resource = resource
        self.by: Any = None
        self.deadline = math.inf
        self.begins = math.inf  # when a server began to work on it
        self.started = math.inf  # when the pool gave it a conn
        self.entry: Entry | None = None
        self.place: float | None = None
        self.tries = 0


def instants(chance: random.Random, phases: Sequence[Phase]) -> Iterator[float]:
    """When calls come: a Poisson stream whose rate is another in each phase."""
    begins = 0.0
    for seconds, rate in phases:
        at = begins
        begins += seconds
        while (at := at + chance.expovariate(rate)) < begins:
            yield at


def poisson(
    seed: int, phases: Sequence[Phase], callers: int = 50, work: float = WORK
) -> Iterator[Call]:
    """Calls of exponential work, from many callers alike."""
    chance = random.Random(seed)
    for at in instants(chance, phases):
        yield Call(at, chance.expovariate(1 / work), int(chance.random() * callers))


def crowd(callers: int, work: float) -> Iterator[Call]:
    """All at once, with the same work each."""
    for caller in range(callers):
        yield Call(0.0, work, caller)


def zipf(count: int, power: float = 1.0) -> list[float]:
    """How much each of so many resources is asked for: few a lot, and a long tail."""
    return [1 / rank**power for rank in range(1, count + 1)]


def spread(seed: int, calls: Iterator[Call], weights: Sequence[float]) -> Iterator[Call]:
    """The same calls, each to a resource drawn by its weight."""
    chance = random.Random(seed + 1)
    numbers, sums = range(len(weights)), list(accumulate(weights))
    for call in calls:
        (call.resource,) = chance.choices(numbers, cum_weights=sums)
        yield call
