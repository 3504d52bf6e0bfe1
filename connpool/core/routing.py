"""Which of several conns: the strategies behind `by=`.

Owns the choice among conns that could all serve.  Refuses to know who may serve at all, and keeps
no state but the turn that its caller holds for it.

Invariant: a strategy gives one of the candidates it was given.  Figures are seconds only, the call
in flight counts, and a conn that has answered nothing yet is taken to be as slow as its peers.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import attrs

from ..conn import hashable
from ..errors import show
from .entry import READY, Entry

Rng = Callable[[], float]

# What a call is taken to cost where no conn has answered one yet: only comparisons matter then.
UNKNOWN = 1.0


class Turning(Protocol):
    """Where round_robin keeps whose turn it is."""

    turn: int | None


@attrs.frozen
class sticky:
    """`by=sticky(key)`: the same key goes to the same conn while that conn is there.

    Rendezvous hashing: when a conn comes or goes only the keys that were its own move.

    >>> sticky("user 7")
    sticky(key='user 7')
    """

    key: Hashable


def expected_wait(entry: Entry, method: Hashable, now: float, assumed: float) -> float:
    """Seconds until a call given to `entry` now would be done with the calls before it.

    What is left of its rest, and its share of the calls in flight: for one that runs, what its mean
    leaves over, but never less than a tenth of it, since a call that is late may be late for long.
    """
    wait = max(0.0, entry.rest_until - now)
    if entry.in_use:
        mean = entry.mean(method)
        if mean is None:
            mean = assumed
        running = max(mean - (now - entry.since), mean / 10)
        wait += (running + (entry.in_use - 1) * mean) / entry.capacity
    return wait


def assumed_mean(candidates: Sequence[Entry], method: Hashable) -> float:
    """What a conn without a figure of its own is taken to need: the mean of its peers."""
    means = [mean for entry in candidates if (mean := entry.mean(method)) is not None]
    return sum(means) / len(means) if means else UNKNOWN


def least_wait(
    candidates: Sequence[Entry], method: Hashable, now: float, rng: Rng, turning: Turning
) -> Entry:
    """The one that is expected to be free first; the first of equals, which idled longest."""
    assumed = assumed_mean(candidates, method)
    return min(candidates, key=lambda entry: expected_wait(entry, method, now, assumed))


def round_robin(
    candidates: Sequence[Entry], method: Hashable, now: float, rng: Rng, turning: Turning
) -> Entry:
    """Each in turn, by id.  The first turn is drawn: many pools over one set of servers would
    otherwise all begin with the same one (seen in gRPC)."""
    if turning.turn is None:
        chosen = candidates[int(rng() * len(candidates))]
    else:
        last = turning.turn
        chosen = min(candidates, key=lambda entry: (entry.id <= last, entry.id))
    turning.turn = chosen.id
    return chosen


def random(
    candidates: Sequence[Entry], method: Hashable, now: float, rng: Rng, turning: Turning
) -> Entry:
    """Any."""
    return candidates[int(rng() * len(candidates))]


def least_used(
    candidates: Sequence[Entry], method: Hashable, now: float, rng: Rng, turning: Turning
) -> Entry:
    """The one with the smallest share of its places taken."""
    return min(candidates, key=lambda entry: entry.in_use / entry.capacity)


def two_choices(
    candidates: Sequence[Entry], method: Hashable, now: float, rng: Rng, turning: Turning
) -> Entry:
    """The less used of two drawn without replacement (with it, both may be the same: Envoy)."""
    first = int(rng() * len(candidates))
    if len(candidates) == 1:
        return candidates[first]
    second = (first + 1 + int(rng() * (len(candidates) - 1))) % len(candidates)
    return least_used((candidates[first], candidates[second]), method, now, rng, turning)


def _rendezvous(key: Hashable, candidates: Sequence[Entry]) -> Entry:
    salt = repr(key).encode()

    def weight(entry: Entry) -> bytes:
        # Not hash(): Python salts that of strings anew in each process.
        return hashlib.blake2b(salt, digest_size=8, salt=entry.id.to_bytes(16, "big")).digest()

    return max(candidates, key=weight)


STRATEGIES: dict[str, Callable[..., Entry]] = {
    strategy.__name__: strategy
    for strategy in (least_wait, round_robin, random, least_used, two_choices)
}


def check_by(by: Any) -> None:
    """Raise unless `by` is a strategy."""
    if isinstance(by, str):
        if by not in STRATEGIES:
            names = ", ".join(sorted(STRATEGIES))
            raise ValueError(f"by: expected one of {names}, sticky(key) or a function, got {by!r}")
    elif isinstance(by, sticky):
        hashable(by.key, "by: sticky(key)")
    elif not callable(by):
        raise TypeError(f"by: expected a name, sticky(key) or a function, got {show(by)}")


def choose(
    by: Any,
    candidates: Sequence[Entry],
    method: Hashable,
    now: float,
    rng: Rng,
    turning: Turning,
    views: Callable[[Entry], Any],
) -> Entry:
    """The candidate that `by` picks.  A function of the user's gets a list of views, gives one."""
    if isinstance(by, str):
        return STRATEGIES[by](candidates, method, now, rng, turning)
    if isinstance(by, sticky):
        return _rendezvous(by.key, candidates)
    shown = [views(entry) for entry in candidates]
    picked = by(list(shown))  # its own to sort
    for entry, view in zip(candidates, shown, strict=True):
        if view is picked:
            return entry
    raise ValueError(f"by: expected one of the conns it was given, got {show(picked)}")


# -- without a lease: one of all live conns, in time that does not grow with their number ----------


class Offer(Protocol):
    """What a resource offers for a method, as far as it is looked at here."""

    free: deque[Entry] | None


class Roll(Protocol):
    """The live conns, as `candidates` keeps them: nothing but the count ever changes."""

    conns: list[Any]
    entries: list[Entry]
    size: int
    pairs: int
    count: Any
    offer: Any  # an Offer


# Each gives a conn, or None where the one that it would give is held by somebody who has it for
# himself (only where `leasing`), or where nothing can be told without a turn at the core.  Where
# there is no conn an IndexError or a ZeroDivisionError comes of it.


def _next(roll: Roll, rng: Rng, leasing: bool) -> Any:
    at = next(roll.count) % roll.size
    return None if leasing and roll.entries[at].whole else roll.conns[at]


def _any(roll: Roll, rng: Rng, leasing: bool) -> Any:
    at = int(rng() * roll.size)
    return None if leasing and roll.entries[at].whole else roll.conns[at]


def _less_used_of_two(roll: Roll, rng: Rng, leasing: bool) -> Any:
    entries, others = roll.entries, roll.size - 1
    if not others:
        return _any(roll, rng, leasing)
    # One draw for both: a pair of different ones among all there are.
    drawn = int(rng() * roll.pairs)
    first, at = entries[drawn // others], drawn % others
    second = entries[at]
    if second is first:
        second = entries[others]  # each but the last is drawn as itself, and that one as the first
    if second.in_use * first.capacity < first.in_use * second.capacity:
        first = second
    return None if first.whole else first.conn


def _idle(roll: Roll, rng: Rng, leasing: bool) -> Any:
    """One that nobody uses: none is less used, none is free sooner.  Each time the next, or all
    would be sent to the same."""
    free = roll.offer.free
    if not free:
        return None
    entry = free[next(roll.count) % len(free)]
    return None if entry.in_use or entry.state is not READY else entry.conn


# What changes nothing but a counter, and so needs no turn at the core.
GLANCES: dict[str | None, Callable[[Any, Rng, bool], Any]] = {
    None: _next,
    "round_robin": _next,
    "random": _any,
    "two_choices": _less_used_of_two,
    "least_used": _idle,
    "least_wait": _idle,
}

# Of many conns, none of which is idle, they compare a few.
COMPARING = ("least_wait", "least_used")


def some(roll: Sequence[Entry], number: int, rng: Rng) -> Sequence[Entry]:
    """At most `number` in a row, from anywhere."""
    if len(roll) <= number:
        return roll
    start = int(rng() * len(roll))
    return [roll[(start + step) % len(roll)] for step in range(number)]
