"""Hoping: what can still come for who waits, and what he is told where nothing can.

Owns the witnesses of needs, the search for others when one is lost, and the errors of those who
waited in vain.  Refuses to lend anything.

Invariants: a ticket waits only while its need has a witness; who waits holds none of what his
waiting hangs on, or he would wait for himself.  Nobody is asked anything while his witness is well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import NestedCall, PoolError, PoolTimeout, show
from .candidates import Listing, Offer
from .entry import LIVE, Entry, release_claim
from .lending import Lending
from .prospects import cause, refusal, witness
from .report import summary
from .supply import Supply
from .waiting import ANY, FAILED, QUEUED, Need, Standing, Ticket
from .where import Where


class Hoping(Lending):
    """The second storey of the core: tickets, and what they hope for."""

    __slots__ = ()

    if TYPE_CHECKING:  # what the storeys above do

        def _serve_unclaimed(self, now: float) -> None: ...

        def _leaving(self, supply: Supply) -> list[Entry]: ...

        def _uses(self, supply: Supply, who: Any) -> bool: ...

    # -- hopes ---------------------------------------------------------------------------------

    def _hope(
        self, listing: Listing | None, offer: Offer | None, ticket: Ticket, now: float
    ) -> Entry | Supply | None:
        """What can still come and would serve the ticket: a conn, or else a supply of such."""
        among = self._members_for(offer, ticket.filter)
        found = witness(among, ticket, lambda f, e: self._passes(f, e, now), now)
        supply = listing.supply if listing is not None else None
        if found is not None or supply is None or ticket.deadline <= now:
            return found
        made = offer.members() if offer is not None and not _is_told(ticket) else ()
        if any(entry.supply is supply for entry in made):
            return None  # another of their kind would not pass either
        return supply if _may_make(supply, ticket) else None

    def _hope_of_others(
        self, listing: Listing, offer: Offer | None, ticket: Ticket, now: float
    ) -> Entry | Supply | None:
        """The same for one who holds what he hopes for: something that comes without his doing."""
        supply, suits, made = listing.supply, False, False
        for entry in self._members_for(offer, ticket.filter):
            passes = self._passes(ticket.filter, entry, now)
            if passes and not _is_own(entry, ticket):
                return entry
            if supply is not None and entry.supply is supply:
                suits, made = suits or passes, True
        if supply is None or not (suits or not made or _is_told(ticket)):
            return None  # another of their kind would not pass either
        return supply if _may_make(supply, ticket) and self._brings_more(supply, ticket) else None

    def _brings_more(self, supply: Supply, ticket: Ticket) -> bool:
        """Whether another conn will come beside those that are alive, without the caller's doing:
        it may be opened, is being opened, or will be when one that leaves has left."""
        if supply.has_room or supply.unborn or not self._uses(supply, ticket.who):
            return True  # or it is not for him to make room
        others = sum(not entry.held_by(ticket.who) for entry in self._leaving(supply))
        return supply.size - others < supply.max_size

    def _holds(self, hope: Entry | Supply, ticket: Ticket) -> bool:
        """Whether the caller himself holds what he hopes for, or a part of it."""
        who = ticket.who
        if who is None:
            return False
        if isinstance(hope, Supply):
            held = any(entry.held_by(who) for entry in self._leaving(hope))
            return held and not self._brings_more(hope, ticket)
        # Not `is`: the identity of a thread is a new int each time it is asked for.
        users = hope.users
        return bool(hope.in_use and hope.user == who) if users is None else who in users

    def _vain(
        self, listing: Listing | None, offer: Offer | None, ticket: Ticket, now: float
    ) -> PoolError:
        """Why nobody but the caller himself can bring what he waits for, or nobody at all."""
        if self._hope(listing, offer, ticket, now) is None:
            error: PoolError = self._shielded(refusal, listing, ticket, self.name, now)
            return error
        resource = self._shielded(show, ticket.resource)
        return NestedCall(
            f"pool {self.name!r}: who asks for a conn to {resource} holds every one "
            "that could serve, and would wait for itself",
            pool=self.name,
            resource=ticket.resource,
            method=ticket.method,
        )

    # -- lost hopes ----------------------------------------------------------------------------

    def _recheck(self, lost: Entry | Supply, listings: Iterable[Listing], now: float) -> None:
        """`lost` can do less than before: find new witnesses, or end a vain waiting.

        What a supply may bring is told from the conns that it has made.
        """
        maker = lost.supply if isinstance(lost, Entry) else lost
        for listing in listings:
            for need in listing.line:
                if need.witness is lost or need.witness is maker:
                    self._rewitness(need, now)
            self._directory.forget(listing)
        if self._unclaimed:
            self._serve_unclaimed(now)

    def _disappoint_users(self, entry: Entry, now: float) -> None:
        """All users of `entry` have to leave before it serves again: none of them can wait for it
        any more.  Others can."""
        if not entry.in_use or entry.group is None:
            return
        for listing in entry.group.listings:
            for need in listing.line:
                if need.alone and need.witness is entry:
                    self._rewitness(need, now)

    def _rewitness(self, need: Need, now: float) -> None:
        while need.size:
            found = self._find_hope(need.tickets[0], now, others=need.alone)
            if not isinstance(found, BaseException):
                need.witness = found
                self._set_apart(need, found, now)
                return
            self._fail(need.tickets[0], found)

    def _find_hope(
        self, ticket: Ticket, now: float, *, others: bool
    ) -> Entry | Supply | BaseException:
        """A hope for one who waits, or what he is to be told."""
        assert ticket.need is not None
        listing = ticket.need.listing
        look = self._hope_of_others if others else self._hope
        try:
            offer = listing.offers.get(ticket.method)
            found = look(listing, offer, ticket, now)
            return self._vain(listing, offer, ticket, now) if found is None else found
        except KeyboardInterrupt:  # of the user at the keyboard, not of the filter's
            raise
        except BaseException as error:
            return error

    def _set_apart(self, need: Need, hope: Entry | Supply, now: float) -> None:
        """Give those needs of their own who hold the new witness, or tell them that they would wait
        for themselves; others who share the need wait on."""
        held = hope.leaving if isinstance(hope, Supply) else hope.in_use
        if need.alone or not held:
            return
        line = need.listing.line
        for ticket in need:
            if self._holds(hope, ticket):
                found = self._find_hope(ticket, now, others=True)
                if isinstance(found, BaseException):
                    self._fail(ticket, found)
                    continue
                self._step_out(ticket, QUEUED)
                line.join(ticket, line.open(ticket, need.listing, found, alone=True))

    # -- out of the line -----------------------------------------------------------------------

    def _step_out(self, ticket: Ticket, standing: Standing) -> None:
        """Let the ticket have its need no more."""
        need = ticket.need
        assert need is not None
        first = need.tickets[0] is ticket
        need.listing.line.leave(ticket, standing)
        if first and need.claim is not None:
            self._disclaim(need)

    def _leave(self, ticket: Ticket, standing: Standing) -> None:
        """Take the ticket out of the line."""
        need = ticket.need
        assert need is not None
        self._step_out(ticket, standing)
        self.waiting -= 1
        if self._asking:
            self._asking.pop(ticket.who, None)
        self._directory.forget(need.listing)

    def _disclaim(self, need: Need) -> None:
        """The first of `need` waits no more: the conn that was kept for him is for others, as soon
        as all who have run out of time are gone from the line, or is kept for the next."""
        entry = need.claim
        assert entry is not None
        release_claim(entry)
        self._unclaimed.append(entry)

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        """Tell a waiting ticket that it waited in vain."""
        ticket.error = error
        self._leave(ticket, FAILED)
        self.steps.append(ticket)

    def _timeout(self, ticket: Ticket, listing: Listing, now: float) -> PoolError:
        waited = max(0.0, now - ticket.arrived)
        others = self.waiting - (ticket.standing is QUEUED)
        resource = self._shielded(show, ticket.resource)
        self._tally.timeouts += 1
        error = PoolTimeout(
            f"pool {self.name!r}: no conn to {resource} became free in "
            f"{waited:.2f} s; {others} other callers wait, {listing.live} alive",
            pool=self.name,
            resource=ticket.resource,
            method=ticket.method,
            waited=waited,
            timeout=ticket.deadline - ticket.arrived,
            waiting=others,
            summary=summary(listing, others, now),
        )
        error.__cause__ = cause(listing, ticket)
        return error

    def _expire_tickets(self, now: float) -> None:
        while (ticket := self._deadlines.pop(now)) is not None:
            assert ticket.need is not None
            self._fail(ticket, self._timeout(ticket, ticket.need.listing, now))


def _is_own(entry: Entry, ticket: Ticket) -> bool:
    """Whether `entry` can serve the ticket only once its owner has given back what it holds."""
    if ticket.whole or entry.state not in LIVE:  # all its users have to leave first
        return entry.held_by(ticket.who)
    if entry.whole:
        return entry.held_by(ticket.who)
    return entry.holders.count(ticket.who) >= entry.capacity


def _is_told(ticket: Ticket) -> bool:
    """Whether it is known of a conn that is not made yet if it will pass."""
    return ticket.filter is None or isinstance(ticket.filter, Where)


def _may_make(supply: Supply, ticket: Ticket) -> bool:
    """Whether the supply may make a conn that would serve the ticket."""
    any_method = ticket.method is ANY
    return supply.may_serve(ticket.method, any_method=any_method, filter=ticket.filter)
