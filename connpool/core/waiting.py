"""Ticket and the fair line.

Owns who waits for what, and in which order.  Refuses to know what a conn is: it asks a `serves`
function whether a conn may serve a need, and never looks further.

Invariant: tickets that want the same thing stand in arrival order, and a ticket that left the line
is not in it.  Those that want the same (method and filter) share a `Need`, so that a filter is run
once for all of them and not once for each.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from .timers import SLACK

if TYPE_CHECKING:
    from ..conn import Description
    from .candidates import Listing
    from .entry import Entry
    from .supply import Supply


class _Any:
    """The method of a request that any conn of the resource may serve."""

    def __repr__(self) -> str:
        return "any method"


ANY: Final = _Any()


class Standing(enum.Enum):
    """Where a ticket stands."""

    NEW = "new"
    QUEUED = "queued"
    GRANTED = "granted"
    FAILED = "failed"  # `error` says why
    OVER = "over"  # given up, or used up


# As with the states of an entry: an attribute of an Enum class is dear to look up.
NEW, QUEUED, GRANTED = Standing.NEW, Standing.QUEUED, Standing.GRANTED
FAILED, OVER = Standing.FAILED, Standing.OVER


class Ticket:
    """One caller's wish for a conn: what is asked, and where the wish stands.

    `deadline` is an instant, inf for none; `place` is the caller's place in the order of arrival,
    which a moved call keeps.  `waiter` is the driver's, what its caller waits on: the core never
    looks at it.
    """

    # Written by hand: one is made for each caller that waits, and attrs would set every default.
    __slots__ = (
        "arrived", "by", "cause", "deadline", "entry", "error", "filter", "method", "need",
        "place", "resource", "standing", "waiter", "who", "whole",
    )  # fmt: skip

    def __init__(
        self,
        resource: Hashable,
        method: Hashable = ANY,
        filter: Callable[[Any], Any] | None = None,
        by: Any = None,
        who: Any = None,
        arrived: float = 0.0,
        deadline: float = math.inf,
        place: float | None = None,  # None: at the end of the line
        cause: BaseException | None = None,  # the last reason why a moved call did not happen
        whole: bool = False,  # all places of a conn, not one
    ) -> None:
        self.resource = resource
        self.method = method
        self.filter = filter
        self.by = by
        self.who = who
        self.arrived = arrived
        self.deadline = deadline
        self.place = place
        self.cause = cause
        self.whole = whole
        self.standing = NEW
        self.waiter: Any = None
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self.need: Need | None = None

    def again(self, cause: BaseException) -> Ticket:
        """The same wish once more, after a call that did not happen: same place, same deadline."""
        return Ticket(
            self.resource,
            self.method,
            self.filter,
            self.by,
            self.who,
            self.arrived,
            self.deadline,
            self.place,
            cause,
            self.whole,
        )

    @property
    def order(self) -> tuple[float, float]:
        """What the line is sorted by."""
        assert self.place is not None
        return (self.place, self.arrived)


class Need:
    """Tickets that want the same method through the same filter of one resource.

    Those that want all places of a conn (`whole`) have a need of their own.  A shared conn is kept
    free for the first of them, its `claim`: those that want one place would never let it be idle.

    `witness` is a conn that can still come and would serve them; as long as it is well nobody has
    to be asked whether their waiting makes sense.

    Invariant: the first of `tickets` is queued.  One in the middle may have left: it is dropped
    when it comes to the front, or when such ones outnumber the others.
    """

    __slots__ = ("claim", "filter", "listing", "method", "size", "tickets", "whole", "witness")

    def __init__(
        self,
        listing: Listing,
        method: Hashable,
        filter: Callable[[Any], Any] | None,
        whole: bool = False,
    ) -> None:
        self.listing = listing
        self.method = method
        self.filter = filter
        self.whole = whole
        self.claim: Entry | None = None
        self.witness: Entry | Supply | None = None
        self.tickets: deque[Ticket] = deque()
        self.size = 0  # how many of them are queued

    def add(self, ticket: Ticket) -> None:
        """Put a moved call at its place, which is not the end."""
        tickets = self.tickets
        tickets.append(ticket)
        if len(tickets) > 1 and ticket.order < tickets[-2].order:
            self.tickets = deque(sorted(tickets, key=lambda t: t.order))
            self.tidy()

    def tidy(self) -> None:
        """Drop those who have left: at the front always, elsewhere when they are many."""
        tickets = self.tickets
        while tickets and tickets[0].standing is not QUEUED:
            tickets.popleft()
        if len(tickets) > 2 * self.size + SLACK:
            self.tickets = deque(t for t in tickets if t.standing is QUEUED)

    def __iter__(self) -> Iterator[Ticket]:
        return iter([ticket for ticket in self.tickets if ticket.standing is QUEUED])


class Line:
    """All that wait for one resource.

    Keyed by the filter's identity, not its hash or equality, which are the user's code.
    """

    __slots__ = ("needs",)

    def __init__(self) -> None:
        self.needs: dict[tuple[Hashable, int, bool], Need] = {}

    def __iter__(self) -> Iterator[Need]:
        return iter(tuple(self.needs.values()))

    def __bool__(self) -> bool:
        return bool(self.needs)

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in order of arrival."""
        return sorted((t for need in self for t in need), key=lambda t: t.order)

    def find(self, ticket: Ticket) -> Need | None:
        """The need of those who already wait for the same as `ticket`."""
        return self.needs.get((ticket.method, id(ticket.filter), ticket.whole))

    def open(self, ticket: Ticket, listing: Listing, witness: Entry | Supply) -> Need:
        """A need for what `ticket` asks for; nobody waits for the same yet."""
        need = Need(listing, ticket.method, ticket.filter, ticket.whole)
        need.witness = witness
        self.needs[ticket.method, id(ticket.filter), ticket.whole] = need
        return need

    def leave(self, ticket: Ticket, standing: Standing) -> None:
        """Let `ticket` wait no more."""
        need = ticket.need
        assert need is not None
        ticket.need = None
        ticket.standing = standing
        need.size -= 1
        if need.size:
            need.tidy()
        else:
            self.close(need)

    def close(self, need: Need) -> None:
        """Nobody has this need any more."""
        del self.needs[need.method, id(need.filter), need.whole]


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


@attrs.define(eq=False)
class Pop:
    """Somebody who waits to take conns out; done when nobody uses them any more."""

    entries: list[Entry]
    waiter: Any = None  # the driver's
    begun: bool = False  # all its conns are out of service
    done: bool = False  # nobody uses them any more
    over: bool = False  # taken, or given up
    infos: list[Any] = attrs.field(factory=list)  # the pictures of what was taken
    news: dict[Entry, Description] = attrs.field(factory=dict)  # what came up meanwhile says anew
    error: BaseException | None = None
