"""Time that is invented: an instant, and what is to happen after it.

Owns the heap of what is to come.  Refuses to know what it is that happens, and to whom.

Invariant: time never goes back, and of what happens at one instant the order is that of the ties it
was given, then that in which it was planned.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

INF = math.inf


class Timeline:
    """An instant, and what is to come.

    >>> time = Timeline()
    >>> time.note(2.0, 0, print, ("later",))
    >>> time.note(1.0, 0, print, ("sooner",))
    >>> time.happen(), time.now, time.next
    sooner
    (True, 1.0, 2.0)
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._noted = 0

    def note(self, at: float, tie: int, act: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Let something happen at an instant; of what is to happen then the least tie is first."""
        self._noted += 1
        heapq.heappush(self._heap, (at, tie, self._noted, act, args))

    def happen(self) -> bool:
        """Let the next thing happen; False where nothing is to come."""
        if not self._heap:
            return False
        at, _, _, act, args = heapq.heappop(self._heap)
        if at > self.now:
            self.goes_on(at)
        act(*args)
        return True

    def goes_on(self, at: float) -> None:
        """It is later now."""
        self.now = at

    @property
    def next(self) -> float:
        """The instant of what happens next."""
        return self._heap[0][0] if self._heap else INF
