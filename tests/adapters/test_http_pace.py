"""Pace against limits of every kind, in invented time: it learns them, and then keeps to them."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from connpool.adapters.http_pace import Limit, Pace
from connpool.errors import Busy


class Clock:
    """Time that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.3

    def __call__(self) -> float:
        return self.now


# -- the limits that are out there: `hit` gives None, or the seconds to wait


class Windows:
    """So many calls in a window, which begins with a call, or by the clock on the wall."""

    def __init__(self, calls: int, per: float, *, aligned: bool = False) -> None:
        self.calls, self.per, self.aligned = calls, per, aligned
        self.over, self.used = -math.inf, 0

    def hit(self, now: float) -> float | None:
        if now >= self.over:
            self.over = (math.floor(now / self.per) + 1) * self.per if self.aligned else 0.0
            self.over, self.used = self.over or now + self.per, 0
        if self.used >= self.calls:
            return self.over - now
        self.used += 1
        return None

    def told(self, now: float) -> Limit:
        return Limit(self.calls - self.used, self.over - now)


class Sliding:
    """So many calls in any stretch of time."""

    def __init__(self, calls: int, per: float) -> None:
        self.calls, self.per = calls, per
        self.hits: deque[float] = deque()

    def hit(self, now: float) -> float | None:
        while self.hits and self.hits[0] <= now - self.per:
            self.hits.popleft()
        if len(self.hits) >= self.calls:
            return self.hits[0] + self.per - now
        self.hits.append(now)
        return None


class Bucket:
    """A call every so many seconds, and some more for those who come rarely."""

    def __init__(self, burst: int, every: float) -> None:
        self.burst, self.every = burst, every
        self.full_at = 0.0

    def hit(self, now: float) -> float | None:
        early = self.full_at - now - (self.burst - 1) * self.every
        if early > 1e-9:
            return early
        self.full_at = max(self.full_at, now) + self.every
        return None


def run(
    pace: Pace, clock: Clock, limit: Any, *, latency: float, seconds: float, tells: bool = False
) -> tuple[list[float], list[float]]:
    """Call as fast as the pace lets us; gives when calls were answered and when refused."""
    rng = random.Random(1)
    over = clock.now + seconds
    answered, refused = [], []
    while clock.now < over:
        try:
            start = pace.start()
        except Busy as busy:
            clock.now += busy.cooldown + 1e-9
            continue
        clock.now += rng.random() * latency
        rest = limit.hit(clock.now)
        told = limit.told(clock.now) if tells else None
        clock.now += rng.random() * latency
        if rest is None:
            answered.append(clock.now)
            clock.now += pace.answered(start, told)
        else:
            refused.append(clock.now)
            clock.now += pace.refused(start, rest)
    return answered, refused


LIMITS: list[tuple[Callable[[], Any], float, int]] = [
    # a limit, the calls a second that it allows, and the refusals that teach it
    (lambda: Windows(50, 1.0), 50, 1),
    (lambda: Windows(50, 1.0, aligned=True), 50, 2),
    (lambda: Windows(3, 2.0), 1.5, 1),
    (lambda: Sliding(50, 1.0), 50, 1),
    (lambda: Sliding(3, 1.0), 3, 1),
    (lambda: Bucket(1, 0.02), 50, 1),
    (lambda: Bucket(10, 0.1), 10, 2),
]


@pytest.mark.parametrize(("make", "rate", "lessons"), LIMITS)
@pytest.mark.parametrize("latency", [0.0, 0.0005, 0.002])
def test_a_limit_is_learnt_and_used_to_the_full(
    make: Callable[[], Any], rate: float, lessons: int, latency: float
) -> None:
    """After a refusal or two there is not one more, and what is allowed is used."""
    clock = Clock()
    pace, limit = Pace(clock=clock), make()
    _, refused = run(pace, clock, limit, latency=latency, seconds=10)
    assert len(refused) <= lessons
    answered, refused = run(pace, clock, limit, latency=latency, seconds=20)
    assert refused == []
    # (A limit of one call at a time costs the time that its answer takes.)
    assert len(answered) >= 0.85 * rate * 20


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("latency", [0.0, 0.002, 0.01])
def test_a_limit_that_is_told_is_never_hit(aligned: bool, latency: float) -> None:
    """Where each answer says what is left there is nothing to learn, and nothing to lose."""
    clock = Clock()
    limit = Windows(50, 1.0, aligned=aligned)
    answered, refused = run(
        Pace(clock=clock), clock, limit, latency=latency, seconds=20, tells=True
    )
    assert refused == []
    assert len(answered) >= 0.97 * 50 * 20


@pytest.mark.parametrize("spread", [False, True])
def test_a_limit_that_is_given_is_kept_from_the_start(spread: bool) -> None:
    """Spread over the window, or all at its beginning: no more than may be, and no fewer."""
    clock = Clock()
    pace = Pace(10, 2.0, spread=spread, clock=clock)
    answered, refused = run(pace, clock, Sliding(10, 2.0), latency=0.001, seconds=20)
    assert refused == []
    assert len(answered) >= 95
    gaps = [later - sooner for sooner, later in pairwise(answered)]
    assert (min(gaps) > 0.19) is spread


def test_an_answer_that_tells_may_be_used_in_a_burst() -> None:
    """Not spread: no rest while there is something left, then until the window is over."""
    clock = Clock()
    pace = Pace(spread=False, clock=clock)
    assert pace.answered(pace.start(), Limit(2, 5.0)) == 0
    assert pace.answered(pace.start(), Limit(0, 5.0)) == 5.0


def test_calls_that_are_under_way_are_not_forgotten() -> None:
    """What an answer says is left counts for those that were sent since as well."""
    clock = Clock()
    pace = Pace(clock=clock)
    first, _, _ = pace.start(), pace.start(), pace.start()
    assert pace.answered(first, Limit(2, 6.0)) == 6.0
    with pytest.raises(Busy, match="too early by 6 s"):
        pace.start()


def test_conns_that_share_a_key_share_its_pace() -> None:
    """Two that call in turns are allowed as much as one."""
    clock = Clock()
    pace = Pace(4, 1.0, clock=clock)
    starts = []
    while clock.now < 1010.3:
        try:
            starts.append(pace.start())
        except Busy:
            clock.now = round(clock.now + 0.01, 9)
        else:
            pace.answered(starts[-1])
    assert len(starts) == 40


def test_a_call_under_way_is_thought_to_have_arrived_as_late_as_its_answer() -> None:
    """Only then is it certain that the peer has begun to count."""
    clock = Clock()
    pace = Pace(1, 1.0, clock=clock)
    start = pace.start()
    clock.now += 0.8
    assert pace.answered(start) == 1.0


def test_a_refusal_without_a_time_teaches_nothing() -> None:
    """There is nothing to learn from; how long to rest is left to the pool."""
    clock = Clock()
    pace = Pace(clock=clock)
    pace.answered(pace.start())
    assert pace.refused(pace.start()) == 0.0
    assert pace.interval == 0.0


def test_a_refusal_out_of_the_blue_teaches_nothing() -> None:
    """Our last call was long ago: whatever is the matter, it was not our pace."""
    clock = Clock()
    pace = Pace(memory=60, clock=clock)
    pace.answered(pace.start())
    clock.now += 100
    assert pace.refused(pace.start(), 5.0) == 5.0
    assert pace.interval == 0.0


def test_a_limit_gets_slower_only() -> None:
    """A second refusal corrects a first lesson that was too good, never one that was not."""
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(4):
        pace.answered(pace.start())
    pace.refused(pace.start(), 2.0)
    assert pace.interval == 0.5
    clock.now += 10
    pace.answered(pace.start())
    clock.now += 0.5
    pace.refused(pace.start(), 0.1)
    assert pace.interval == pytest.approx(0.6)
    clock.now += 10
    for _ in range(3):
        pace.answered(pace.start())
        clock.now += 1
    pace.refused(pace.start(), 0.01)
    assert pace.interval == pytest.approx(1.0, abs=0.05)


def test_what_was_learnt_is_forgotten_in_time() -> None:
    """Limits change; what was given by the user does not."""
    clock = Clock()
    pace = Pace(forget=100, clock=clock)
    pace.answered(pace.start())
    pace.refused(pace.start(), 2.0)
    assert pace.interval == 2.0
    clock.now += 100
    pace.start()
    assert pace.interval == 0.0
    given = Pace(1, 2.0, forget=100, clock=clock)
    clock.now += 200
    given.start()
    assert given.interval == 2.0


def test_it_does_not_grow_without_end() -> None:
    """It remembers what it may learn from, and that is bounded in time and in number."""
    clock = Clock()
    pace = Pace(memory=10, clock=clock)
    for _ in range(5000):
        pace.answered(pace.start())
        clock.now += 0.001
    assert len(pace._history) == 2000
    clock.now += 11
    pace.start()
    assert len(pace._history) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"calls": 1}, TypeError),
        ({"per": 1}, TypeError),
        ({"calls": 0, "per": 1}, ValueError),
        ({"calls": 1.5, "per": 1}, TypeError),
        ({"calls": 1, "per": -1}, ValueError),
        ({"memory": math.nan}, ValueError),
        ({"forget": "soon"}, TypeError),
    ],
)
def test_a_pace_that_makes_no_sense(arguments: dict[str, Any], error: type[Exception]) -> None:
    """It is refused at once, by the name of what is wrong."""
    with pytest.raises(error, match=r"calls|per|memory|forget"):
        Pace(**arguments)


def test_it_tells_the_time_by_itself() -> None:
    """Without a clock of its user's it reads the one that does not jump."""
    pace = Pace(1, 1000.0)
    assert 0 < pace.answered(pace.start()) <= 1000
    assert repr(pace) == "<Pace: 1 in 1000 s>"
    assert repr(Pace()) == "<Pace: no limit known>"
