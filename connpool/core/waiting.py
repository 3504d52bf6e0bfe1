"""Ticket and the fair line.

Owns who waits for what, and in which order.  Refuses to know what a conn is: it asks a `serves`
function whether a conn may serve a need, and never looks further.

Invariants: tickets that want the same thing stand in arrival order, and a ticket that left the line
is not in it.  Those that want the same (method and filter) share a `Need`, so that a filter is run
once for all of them and not once for each.  The needs of a line are in the order of their firsts
when somebody asks for it, and only as far as he asks.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Collection, Generator, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from .sieve import Sieve
from .timers import SLACK
from .where import Test, Where

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
    looks at it.  Once `standing` says that the waiting is over, `entry` or `error` says how: it is
    set last, for a thread may look at it outside a turn.
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
        filter: Test = None,
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
    to be asked whether their waiting makes sense.  Nobody who shares a need holds its witness: or
    it might come only once he has given it back.  Who holds it has a need `alone`, with a witness
    that comes without his doing.

    Invariant: the first of `tickets` is in line for this need.  One in the middle may have left: it
    is dropped when it comes to the front, or when such ones outnumber the others.
    """

    __slots__ = (
        "alone", "claim", "filter", "key", "listing", "method", "size", "tickets", "whole",
        "witness",
    )  # fmt: skip

    def __init__(
        self, listing: Listing, ticket: Ticket, witness: Entry | Supply, *, alone: bool
    ) -> None:
        self.listing = listing
        self.witness = witness
        self.method = ticket.method
        self.filter: Test = ticket.filter
        self.whole = ticket.whole
        self.alone = alone
        self.key = (*_key(ticket), id(ticket)) if alone else _key(ticket)
        self.claim: Entry | None = None
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
        while tickets and tickets[0].need is not self:
            tickets.popleft()
        if len(tickets) > 2 * self.size + SLACK:
            self.tickets = deque(self)

    def __iter__(self) -> Iterator[Ticket]:
        return iter([ticket for ticket in self.tickets if ticket.need is self])


def _key(ticket: Ticket) -> tuple[Hashable, ...]:
    """What those have in common who share a need.

    A filter's identity, not its hash or equality, which are the user's code; of one that is data,
    what it says.
    """
    filter = ticket.filter
    return ticket.method, filter if filter.__class__ is Where else id(filter), ticket.whole


# A need in the order of its line: place and arrival of its first, a number for ties.
_Item = tuple[float, float, int, Need]


class Line:
    """All that wait for one resource.

    The order of the needs is a heap that is made when it is asked for, where there are several; it
    is mended where it is looked at.  An item that is too early (its first has left) is put right
    when it comes to the top; too late there is none.
    """

    __slots__ = ("_heap", "_noted", "needs", "sieve")

    def __init__(self) -> None:
        self.needs: dict[tuple[Hashable, ...], Need] = {}
        self.sieve: Sieve | None = None  # while one of them has a filter given as data
        self._heap: list[_Item] | None = None
        self._noted = 0

    def __iter__(self) -> Iterator[Need]:
        return iter(tuple(self.needs.values()))

    def __bool__(self) -> bool:
        return bool(self.needs)

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in order of arrival."""
        return sorted((t for need in self for t in need), key=lambda t: t.order)

    def find(self, ticket: Ticket) -> Need | None:
        """The need of those who already wait for the same as `ticket`."""
        return self.needs.get(_key(ticket))

    def open(
        self, ticket: Ticket, listing: Listing, witness: Entry | Supply, *, alone: bool = False
    ) -> Need:
        """A need for what `ticket` asks for, which nobody else has."""
        need = Need(listing, ticket, witness, alone=alone)
        self.needs[need.key] = need
        if self.sieve is not None:
            self.sieve.add(need)
        elif need.filter.__class__ is Where:
            self.sieve = Sieve()
            for other in self.needs.values():
                self.sieve.add(other)
        return need

    def fitting(self, extra: Any) -> Collection[Need]:
        """The needs that a conn with this extra may serve, as far as their filters are data."""
        return self.needs.values() if self.sieve is None else self.sieve.fitting(extra)

    def join(self, ticket: Ticket, need: Need) -> None:
        """Let `ticket`, which has its place, stand in line with those who have this need."""
        ticket.standing = QUEUED
        ticket.need = need
        need.size += 1
        need.add(ticket)
        if need.tickets[0] is ticket:
            self.note(need)

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
        try:
            found = self.needs.pop(need.key, None)
        except Exception:
            found = None
        if found is not need:
            self._rekey(need, found)
        if self.sieve is not None and self.sieve.remove(need):
            self.sieve = None
        if not self.needs:
            self._heap = None

    def _rekey(self, gone: Need, found: Need | None) -> None:
        """The method of a need has changed its hash, or raises by now: from here on nobody joins
        the needs there are, which are known by themselves."""
        left = [need for need in self.needs.values() if need is not gone]
        left += [] if found is None else [found]
        self.needs.clear()  # in place: groups hold it
        for need in left:
            need.key = (id(need), 0, False)
            self.needs[need.key] = need

    # -- the order of the needs ----------------------------------------------------------------

    def note(self, need: Need) -> None:
        """`need` is new, or its first has come before those who were there."""
        heap = self._heap
        if heap is None:
            return
        heapq.heappush(heap, self._item(need))
        if len(heap) > 2 * len(self.needs) + SLACK:
            self._heap = None  # too many are of needs that are no more

    def _item(self, need: Need) -> _Item:
        self._noted += 1
        return (*need.tickets[0].order, self._noted, need)

    def order(self) -> list[_Item]:
        """The needs as a heap; the one on top is right."""
        heap = self._heap
        if heap is None:
            heap = self._heap = [self._item(need) for need in self.needs.values()]
            heapq.heapify(heap)
        while heap:
            place, arrived, number, need = heap[0]
            if not need.size:
                heapq.heappop(heap)
                continue
            order = need.tickets[0].order
            if order == (place, arrived):
                break
            if order > (place, arrived):
                heapq.heapreplace(heap, (*order, number, need))
            else:  # it is there once more, and has been met: somebody came before its first
                heapq.heappop(heap)
        return heap

    @property
    def since(self) -> tuple[float, float]:
        """The order of the first of all; where nobody waits, behind everybody."""
        heap = self.order()
        return heap[0][:2] if heap else (math.inf, math.inf)


def in_order(lines: Sequence[Line]) -> Generator[Need, None, None]:
    """The needs of several lines: those whose first has waited longest before others.

    Costs in proportion to how many are asked for.  To be closed by who asks: what he was shown is
    out of the order until then.
    """
    shown: list[tuple[list[_Item], _Item]] = []
    try:
        while True:
            line = lines[0] if len(lines) == 1 else min(lines, key=lambda line: line.since)
            heap = line.order()
            if not heap:
                return
            item = heapq.heappop(heap)
            shown.append((heap, item))
            yield item[3]
    finally:
        for heap, item in shown:
            heapq.heappush(heap, item)


def suited(lines: Sequence[Line], extra: Any) -> Generator[Need, None, None]:
    """The same, without those whose filter is data that a conn with this extra does not have."""
    if all(line.sieve is None for line in lines):
        return in_order(lines)
    found = [need for line in lines for need in line.fitting(extra)]
    return (need for need in sorted(found, key=lambda need: need.tickets[0].order))


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
