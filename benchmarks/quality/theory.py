"""What is known of lines without trying: the best that there can be, or what chance must give.

Owns the formulas.  Refuses to know pools.  Calls come as a Poisson stream and their work is
exponential, unless it is said otherwise; the mean work of a call is the unit of time.

`load` is the share of the servers' time that the calls need, below 1.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence

import attrs


@attrs.frozen
class Law:
    """What a wait is like: none with the chance `1 - p`, else exponential of rate `rate`."""

    p: float
    rate: float

    @property
    def mean(self) -> float:
        """The mean wait, of those who do not wait too."""
        return self.p / self.rate

    def quantile(self, share: float) -> float:
        """So long waits at most such a share of all."""
        over = 1 - share
        return 0.0 if self.p <= over else math.log(self.p / over) / self.rate


def common_line(servers: int, load: float) -> Law:
    """One line before many servers (M/M/c): nothing that knows no call's work does better.

    >>> common_line(1, 0.5).mean, round(common_line(10, 0.8).mean, 4)
    (1.0, 0.2046)
    """
    offered = servers * load
    blocked = 1.0  # Erlang's B, by its recursion
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))  # Erlang's C
    return Law(waits, servers * (1 - load))


def own_lines(load: float) -> Law:
    """A line before each server, and each call joins any (M/M/1).

    >>> own_lines(0.75).mean
    3.0
    """
    return Law(load, 1 - load)


def in_turn(servers: int, load: float) -> Law:
    """A line before each server, and calls join them in turn.

    Each server sees every so many-th call: the gaps are a sum of exponential ones (E_k/M/1).

    >>> round(in_turn(1, 0.8).mean, 6), round(in_turn(50, 0.8).mean, 2)
    (4.0, 1.74)
    """
    # The chance to wait is the root below 1 of x = E exp(-(1 - x) gap); the iteration climbs to it.
    chance, rate = 0.0, servers * load
    for _ in range(100_000):
        better = (rate / (rate + 1 - chance)) ** servers
        if better - chance < 1e-15:
            break
        chance = better
    return Law(chance, 1 - chance)


def shorter_of(choices: int, load: float) -> float:
    """The mean wait where each call joins the shortest of so many lines drawn by chance, and there
    are many servers (Mitzenmacher; Vvedenskaya, Dobrushin and Karpelevich).

    >>> shorter_of(2, 0.9) < own_lines(0.9).mean / 5
    True
    """
    total, level = 0.0, 1
    while (exponent := (choices**level - choices) / (choices - 1)) < 1e5:
        total += load**exponent
        level += 1
    return total - 1  # the sum is the time until the answer, of which the work is 1


def replay(calls: Iterable[tuple[float, float]], servers: int) -> Iterator[float]:
    """The waits of these very calls, (instant, work), in one line before so many servers.

    No chance is left: whoever serves in the order of arrival, and lets no server stand still while
    somebody waits, has the same waits to the last digit (Kiefer and Wolfowitz).

    >>> list(replay([(0.0, 5.0), (1.0, 2.0), (2.0, 1.0)], servers=2))
    [0.0, 0.0, 1.0]
    """
    free = [0.0] * servers
    for at, work in calls:
        begins = max(at, free[0])
        heapq.heapreplace(free, begins + work)
        yield begins - at


def cold(callers: int, connect: float, work: float, at_once: int) -> float:
    """Seconds until the last of so many callers is served who come when nothing is open, where so
    many conns are opened at once, over and over.

    >>> cold(50, 0.15, 0.002, 1), cold(50, 0.15, 0.002, 50)
    (0.25, 0.152)
    """
    free: list[float] = []
    batch, served, ends = 0, 0, 0.0
    while served < callers:
        if not free or free[0] > (batch + 1) * connect - 1e-12:
            batch += 1
            free += [batch * connect] * at_once
            heapq.heapify(free)
        ends = heapq.heappop(free) + work
        heapq.heappush(free, ends)
        served += 1
    return round(ends, 9)


def kept(weights: Sequence[float], places: int) -> float:
    """The share of calls that find what they ask for among the so many things asked for last, where
    each thing is asked for by its weight (an approximation for LRU, by Che).

    >>> round(kept([1.0] * 100, 50), 2), kept([1.0, 1.0], 2)
    (0.5, 1.0)
    """
    if places >= len(weights):
        return 1.0
    total = sum(weights)
    shares = [weight / total for weight in weights]
    low, high = 0.0, 1.0
    while sum(1 - math.exp(-share * high) for share in shares) < places:
        high *= 2
    for _ in range(50):
        age = (low + high) / 2
        fits = sum(1 - math.exp(-share * age) for share in shares) < places
        low, high = (age, high) if fits else (low, age)
    return sum(share * (1 - math.exp(-share * low)) for share in shares)
