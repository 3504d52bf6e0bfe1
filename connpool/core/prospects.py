"""Prospects: what can still come for somebody, and why nothing can.

Owns the search for a conn that gives hope, and the errors that say there is none.  Refuses to know
of lines, and of what happens to who is refused.

Invariant: resource is tested before method, method before filter; to count conns is no scan where
all of them are well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import FilterError, MethodError, PoolError, ResourceError, show
from .candidates import Listing, Offer
from .entry import HOPEFUL, LIVE, Entry, State
from .waiting import ANY, Ticket
from .where import Test, Where

Passes = Callable[[Test, Entry], Any]


def witness(among: Iterable[Entry], ticket: Ticket, passes: Passes, now: float) -> Entry | None:
    """A conn that could serve the ticket now or later: the first found, or None."""
    states = _states(ticket, now)
    for entry in among:
        if entry.state in states and passes(ticket.filter, entry):
            return entry
    return None


def refusal(listing: Listing | None, ticket: Ticket, pool: str, now: float) -> PoolError:
    """Why nobody will ever serve the ticket: resource before method, method before filter."""
    offers, states = listing.offers if listing is not None else {}, _states(ticket, now)
    known, able = (_count(offers.get(method), states) for method in (ANY, ticket.method))
    asked = {"pool": pool, "resource": ticket.resource}
    error: PoolError
    if able or _made_in_vain(listing, ticket, now):
        error = FilterError(
            f"pool {pool!r}: of {able} open to {show(ticket.resource)} with the method "
            f"{show(ticket.method)} no conn passes the filter {show(ticket.filter)}",
            **asked,
            method=ticket.method,
            candidates=able,
        )
    elif known:
        methods = _methods(offers[ANY], states)
        error = MethodError(
            f"pool {pool!r}: of {known} open to {show(ticket.resource)} no conn has the "
            f"method {show(ticket.method)}; they have {', '.join(sorted(methods))}",
            **asked,
            method=ticket.method,
            methods=tuple(methods.values()),
        )
    else:
        error = ResourceError(f"pool {pool!r} has no open conn to {show(ticket.resource)}", **asked)
    error.__cause__ = cause(listing, ticket)
    return error


def cause(listing: Listing | None, ticket: Ticket) -> BaseException | None:
    """What went wrong last; an error of the user's is not asked whether it is true."""
    last = listing.last_error if listing is not None else None
    return ticket.cause if last is None else last


def _states(ticket: Ticket, now: float) -> frozenset[State]:
    """Who has no time to wait needs one that is alive now."""
    return HOPEFUL if ticket.deadline > now else LIVE


def _count(offer: Offer | None, states: frozenset[State]) -> int:
    """How many conns of an offer are in one of these states."""
    if offer is None:
        return 0
    everybody = offer.listing.offers[ANY]
    if states is HOPEFUL or offer.listing.live == everybody.size():  # which all members are
        return offer.size()
    return sum(entry.state in states for entry in offer.members())


def _methods(offer: Offer, states: frozenset[State]) -> dict[str, Any]:
    """The methods of those, by how they are shown: to compare them would be the user's code."""
    return {
        show(method): method
        for group in offer.groups
        if any(entry.state in states for entry in group.members.values())
        for method in group.methods
    }


def _made_in_vain(listing: Listing | None, ticket: Ticket, now: float) -> bool:
    """Whether a supply would make conns with the method, and it is known that none would pass."""
    supply = listing.supply if listing is not None else None
    if supply is None or ticket.deadline <= now or not isinstance(ticket.filter, Where):
        return False
    return supply.may_serve(ticket.method, any_method=ticket.method is ANY)
