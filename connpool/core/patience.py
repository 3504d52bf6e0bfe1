"""Patience: when it ends for those in line.

Owns the order of their deadlines.  Refuses to know what they wait for, and what they are told.

Invariant: whoever is queued and has a deadline is found here no later than that.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from .timers import SLACK
from .waiting import QUEUED, Ticket


class Deadlines:
    """When the patience of those in line ends.

    Callers with one timeout queue in the order of their deadlines, so a queue holds them; only who
    is less patient than those before goes into the heap.  Who is served leaves both lazily: a
    ticket counts only while it is queued.
    """

    __slots__ = ("_heap", "_queue", "due")

    def __init__(self) -> None:
        self._queue: deque[Ticket] = deque()
        self._heap: list[tuple[float, int, Ticket]] = []
        self.due = math.inf  # nobody's patience ends before

    def add(self, ticket: Ticket, number: int, waiting: int) -> None:
        """`ticket` has queued; `number` is unique, `waiting` how many are in line."""
        deadline, queue = ticket.deadline, self._queue
        while queue and queue[0].standing is not QUEUED:
            queue.popleft()
        if not queue or deadline >= queue[-1].deadline:
            queue.append(ticket)
        else:
            heapq.heappush(self._heap, (deadline, number, ticket))
        if deadline < self.due:
            self.due = deadline
        if len(queue) + len(self._heap) > 2 * waiting + SLACK:
            self._tidy()

    def pop(self, now: float) -> Ticket | None:
        """A queued ticket whose deadline has come, or None."""
        heap, queue = self._heap, self._queue
        while queue and (queue[0].standing is not QUEUED or queue[0].deadline <= now):
            ticket = queue.popleft()
            if ticket.standing is QUEUED:
                return ticket
        while heap and (heap[0][2].standing is not QUEUED or heap[0][0] <= now):
            ticket = heapq.heappop(heap)[2]
            if ticket.standing is QUEUED:
                return ticket
        first = queue[0].deadline if queue else math.inf
        self.due = min(first, heap[0][0]) if heap else first
        return None

    def _tidy(self) -> None:
        """Drop those who have left from the middle."""
        self._queue = deque(ticket for ticket in self._queue if ticket.standing is QUEUED)
        self._heap = [item for item in self._heap if item[2].standing is QUEUED]
        heapq.heapify(self._heap)
