"""Pace: how often a peer lets us call, told by its answers or learnt from its refusals.

Owns the arithmetic of rate limits, and nothing else: it refuses to know HTTP, conns and pools, so
that any conn whose peer counts calls can keep a pace.

Invariant: once "so many calls in so many seconds" is known, no call starts as long as that many of
the calls before it may have reached the peer less than those seconds ago.  When a call arrived is
not known; it lies between its start and its answer, so each sum is done with the worse of the two.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from ..conn import places, seconds
from ..errors import Busy

MOST_REMEMBERED = 2_000  # calls that a limit can be learnt from


@attrs.frozen
class Limit:
    """What a peer says of the window that is on: `remaining` calls until it ends, in `reset` s."""

    remaining: int
    reset: float


@attrs.define(eq=False)
class Start:
    """A call that was allowed to start: what `Pace.start` gives and the other methods take."""

    number: int
    began: float
    latest: float  # no later than this did it reach the peer: as far as we know


class Pace:
    """How often one key (account, line, device) may be used.  Safe for threads.

    Parameters:
        calls, per: the limit, "`calls` calls in `per` seconds", where it is known.  Where it is
            not, it is learnt: from each answer that says how many calls are left, or from the
            first refusal that says how long to wait.
        spread: calls are spread evenly over the window.  False: as many as are left may come at
            once, and then none until the next window.
        memory: seconds that a window may last to be learnt.  Longer ones are still obeyed: each
            refusal is followed by the rest that it asks for.
        forget: seconds after which what was learnt is forgotten and learnt afresh, for limits
            change.  What was given is never forgotten.
        clock: tells the time, in seconds, for tests; default: `time.monotonic`.

    A conn asks before each call, and tells what came of it:

    >>> pace, now = Pace(clock=lambda: now), 100.0
    >>> first = pace.start()
    >>> pace.answered(first)  # nothing is known yet: no rest
    0.0
    >>> pace.refused(pace.start(), 0.5), pace
    (0.5, <Pace: 1 in 0.5 s>)
    >>> now = 100.5
    >>> pace.answered(pace.start())
    0.5
    >>> pace.start()
    Traceback (most recent call last):
    connpool.errors.Busy: 1 in 0.5 s: too early by 0.5 s

    Conns that share a key share a `Pace`.
    """

    def __init__(
        self,
        calls: int | None = None,
        per: float | None = None,
        *,
        spread: bool = True,
        memory: float = 60.0,
        forget: float = 3600.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if (calls is None) is not (per is None):
            raise TypeError("calls and per: expected both, or none of them")
        self._given = calls is not None
        self._calls = 0 if calls is None else places(calls, "calls")
        self._per = 0.0 if per is None else seconds(per, "per")
        self._spread = spread
        self._memory = seconds(memory, "memory")
        self._forget = seconds(forget, "forget", infinite=True)
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0  # no call starts before this instant, whatever else is known
        self._learnt_at = 0.0
        self._number = 0
        # What limits are learnt from: the calls since the last refusal.
        self._history: deque[Start] = deque(maxlen=MOST_REMEMBERED)
        # What limits are kept with: the last `calls` calls.
        self._window: deque[Start] = deque(maxlen=self._calls)

    @property
    def interval(self) -> float:
        """Seconds between two calls at full pace; 0 where no limit has been learnt."""
        return self._per / self._calls if self._calls else 0.0

    def __repr__(self) -> str:
        return f"<Pace: {self._limit()}>"

    def _limit(self) -> str:
        return f"{self._calls} in {self._per:g} s" if self._calls else "no limit known"

    def start(self) -> Start:
        """A call may start now; else `Busy`, with the seconds until the next one may."""
        with self._lock:
            now = self._now()
            if not self._given and self._calls and now >= self._learnt_at + self._forget:
                self._adopt(0, 0.0, now)
                self._history.clear()
            if (early := self._earliest() - now) > 0:
                raise Busy(early, f"{self._limit()}: too early by {early:.3g} s")
            self._number += 1
            start = Start(self._number, now, now)
            while self._history and self._history[0].began < now - self._memory:
                self._history.popleft()
            self._history.append(start)
            self._window.append(start)
            return start

    def answered(self, start: Start, limit: Limit | None = None) -> float:
        """The call was answered: seconds until the next one may start.

        `limit` is what the answer says of the window, if it says so.
        """
        with self._lock:
            now = start.latest = self._now()
            if limit is not None:
                self._next = max(self._next, self._told(start, limit, now))
            return max(0.0, self._earliest() - now)

    def refused(self, start: Start, rest: float = 0.0) -> float:
        """The call was refused and not counted: seconds until the next one may start.

        `rest` is how long the peer said to wait; 0: it did not say.
        """
        with self._lock:
            now = self._now()
            for calls in (self._history, self._window):
                if start in calls:
                    calls.remove(start)
            if rest > 0:
                self._next = max(self._next, now + rest)
                if not self._given:
                    self._learn(now + rest, now)
                # The window that was full is over when the rest is.
                self._history.clear()
            return max(0.0, self._earliest() - now)

    def _now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()

    def _earliest(self) -> float:
        """When the next call may start."""
        if not self._calls or not self._window:
            return self._next
        earliest = self._next
        if self._spread:
            earliest = max(earliest, self._window[-1].began + self.interval)
        if len(self._window) == self._calls:
            earliest = max(earliest, self._window[0].latest + self._per)
        return earliest

    def _told(self, start: Start, limit: Limit, now: float) -> float:
        """When the next call may start, as far as the answer to `start` says."""
        over = now + limit.reset
        # The peer did not count the calls that reached it later.
        left = limit.remaining - (self._number - start.number)
        if left <= 0:
            return over
        latest = self._history[-1].began if self._history else start.began
        return latest + (over - latest) / (left + 1) if self._spread else now

    def _learn(self, allowed: float, now: float) -> None:
        """What limit explains that the next call is allowed at `allowed`, and not before?

        The peer let `n` calls pass in the time from the n-th last one to `allowed`.  Of all n the
        one with the fewest seconds for each call tells the limit; the others had idle time.
        """
        calls, per = 0, 0.0
        for n, start in enumerate(reversed(self._history), 1):
            span = allowed - start.began
            if span > self._memory:
                break
            if not calls or span * calls < per * n:
                calls, per = n, span
        # Only ever slower: the first windows may have been cut short, or longer by what was saved.
        if calls and (not self._calls or per * self._calls > self._per * calls):
            self._adopt(calls, per, now)

    def _adopt(self, calls: int, per: float, now: float) -> None:
        self._calls, self._per, self._learnt_at = calls, per, now
        self._window = deque(self._window, maxlen=calls)
