"""Ticket and the fair line.

Owns who waits for what, and in which order.  Refuses to know what a conn is: it asks a `serves`
function whether a conn may serve a need, and never looks further.

Invariant: tickets that want the same thing stand in arrival order, and a ticket that left the line
is not in it.  Those that want the same (method and filter) share a `Need`, so that a filter is run
once for all of them and not once for each.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from .candidates import Listing
    from .entry import Entry


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


@attrs.define(eq=False)
class Ticket:
    """One caller's wish for a conn: what is asked, and where the wish stands.

    `deadline` is an instant, inf for none; `place` is the caller's place in the order of arrival,
    which a moved call keeps.  `wake` is the driver's: the core never calls it.
    """

    resource: Hashable
    method: Hashable = ANY
    filter: Callable[[Any], Any] | None = None
    by: Any = None
    who: Any = None
    arrived: float = 0.0
    deadline: float = math.inf
    place: float | None = None  # None: at the end of the line
    cause: BaseException | None = None  # the last reason why a moved call did not happen
    wake: Callable[[], Any] | None = None
    standing: Standing = Standing.NEW
    entry: Entry | None = None
    error: BaseException | None = None
    need: Need | None = None
    id: int = 0
    alarm: float = math.inf

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
        )

    @property
    def order(self) -> tuple[float, float]:
        """What the line is sorted by."""
        assert self.place is not None
        return (self.place, self.arrived)


@attrs.define(eq=False)
class Need:
    """Tickets that want the same method through the same filter of one resource.

    `witness` is a conn that can still come and would serve them; as long as it is well nobody has
    to be asked whether their waiting makes sense.
    """

    listing: Listing
    method: Hashable
    filter: Callable[[Any], Any] | None
    witness: Entry | None = None
    tickets: OrderedDict[Ticket, None] = attrs.field(factory=OrderedDict)

    @property
    def first(self) -> Ticket:
        """Who has waited longest."""
        return next(iter(self.tickets))

    def add(self, ticket: Ticket) -> None:
        """Put `ticket` at its place: mostly the end, the front for a call that was moved."""
        tickets = self.tickets
        if not tickets or next(reversed(tickets)).order < ticket.order:
            tickets[ticket] = None
        elif ticket.order < self.first.order:
            tickets[ticket] = None
            tickets.move_to_end(ticket, last=False)
        else:
            tickets[ticket] = None
            self.tickets = OrderedDict.fromkeys(sorted(tickets, key=lambda t: t.order))


class Line:
    """All that wait for one resource.

    Keyed by the filter's identity, not its hash or equality, which are the user's code.
    """

    __slots__ = ("_needs",)

    def __init__(self) -> None:
        self._needs: dict[tuple[Hashable, int], Need] = {}

    def __iter__(self) -> Iterator[Need]:
        return iter(tuple(self._needs.values()))

    def __bool__(self) -> bool:
        return bool(self._needs)

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in order of arrival."""
        return sorted((t for need in self for t in need.tickets), key=lambda t: t.order)

    def join(self, ticket: Ticket, listing: Listing, witness: Entry | None) -> None:
        """Let `ticket` wait."""
        key = (ticket.method, id(ticket.filter))
        need = self._needs.get(key)
        if need is None:
            need = self._needs[key] = Need(listing, ticket.method, ticket.filter)
        need.witness = witness
        need.add(ticket)
        ticket.need = need
        ticket.standing = Standing.QUEUED

    def leave(self, ticket: Ticket, standing: Standing) -> None:
        """Let `ticket` wait no more."""
        need = ticket.need
        assert need is not None
        del need.tickets[ticket]
        if not need.tickets:
            del self._needs[need.method, id(need.filter)]
        ticket.need = None
        ticket.standing = standing


@attrs.define(eq=False)
class Pop:
    """Somebody who waits to take conns out; done when nobody uses them any more."""

    entries: list[Entry]
    begun: bool = False  # all its conns are out of service
    wake: Callable[[], Any] | None = None
    done: bool = False
    infos: list[Any] = attrs.field(factory=list)  # the pictures of what was taken out
    error: BaseException | None = None
