"""When what is due: a heap of alarms that may be set early and never too late.

Owns the order of alarms.  Refuses to know what they are for: an item has an `id` (for ties) and an
`alarm` (the instant it will ring, inf for never), and its owner works out what is due then.

Invariant: an item with a finite `alarm` is in the heap at that instant.  Setting a later alarm than
the one that stands does nothing: the early ring recomputes.  So a call never touches the heap.
"""

from __future__ import annotations

import heapq
import math
from typing import Generic, Protocol, TypeVar


class _Timed(Protocol):
    id: int
    alarm: float


T = TypeVar("T", bound=_Timed)

# Dead alarms stay in the heap until they surface; past this many it is rebuilt.
SLACK = 64


class Timers(Generic[T]):
    """Alarms for items, each with one at a time."""

    __slots__ = ("_heap", "_live", "due")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._live = 0
        self.due = math.inf  # no alarm rings before this instant

    def set(self, item: T, due: float) -> None:
        """Let `item` ring at `due` at the latest."""
        if due >= item.alarm:
            return
        if item.alarm == math.inf:
            self._live += 1
        item.alarm = due
        heapq.heappush(self._heap, (due, item.id, item))
        if due < self.due:
            self.due = due
        self._tidy()

    def clear(self, item: T) -> None:
        """Let `item` not ring at all."""
        if item.alarm != math.inf:
            item.alarm = math.inf
            self._live -= 1
            self._tidy()
            self._look()

    def pop(self, now: float) -> T | None:
        """An item whose alarm has come, with its alarm taken off; None when there is none."""
        heap = self._heap
        while heap and (heap[0][0] <= now or heap[0][2].alarm != heap[0][0]):
            due, _, item = heapq.heappop(heap)
            if item.alarm == due:
                item.alarm = math.inf
                self._live -= 1
                return item
        self._look()
        return None

    def _look(self) -> None:
        """Drop the dead alarms on top, and see what is due next."""
        heap = self._heap
        while heap and heap[0][2].alarm != heap[0][0]:
            heapq.heappop(heap)
        self.due = heap[0][0] if heap else math.inf

    def _tidy(self) -> None:
        heap = self._heap
        if len(heap) > 2 * self._live + SLACK:
            # An alarm that was set, cleared and set again for one instant lies there twice.
            kept = {entry[1]: entry for entry in heap if entry[2].alarm == entry[0]}
            self._heap = list(kept.values())
            heapq.heapify(self._heap)
            self.due = self._heap[0][0] if self._heap else math.inf
