"""The desk: hands conns to those who wait, and tells those who wait in vain.

Owns the meeting of entries and tickets.  Refuses to know how a conn is born or dies.

Invariants: while a lendable conn can serve a waiter, that waiter does not wait; among those a conn
can serve the first comes first; a ticket waits only while its need has a witness.  One that wants
all places of a shared conn can be served when the conn is idle: it claims one that is not, and that
one serves nobody behind it, but those who use it already.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import NestedCall, PoolClosed, PoolError, PoolFull, PoolTimeout, show
from .candidates import Listing, Offer, refusal, witness
from .entry import LIVE, READY, Entry, release_claim
from .lending import LOOKOUT, Lending
from .report import summary
from .supply import Supply
from .waiting import ANY, FAILED, GRANTED, QUEUED, Need, Standing, Ticket


class Desk(Lending):
    """The second storey of the core: entries and tickets."""

    if TYPE_CHECKING:  # what a storey above does

        def _brings_more(self, supply: Supply, who: Any) -> bool: ...

    # -- waiting -------------------------------------------------------------------------------

    def queue(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait that `take` just had nothing for, or raise why that would be in vain.

        Who joins others that wait for the same is spared the questions they were asked.
        """
        listing = self._listings.get(ticket.resource)
        if self._claiming and listing is not None and self._comes_before(ticket, listing, now):
            return
        need = listing.line.find(ticket) if listing is not None else None
        if (
            need is None
            or need.witness is None
            or ticket.deadline <= now  # what is true now counts, not what may come
            or _maybe_own(need.witness, ticket.who)
        ):
            need = self._open_need(ticket, now)
        elif self._max_waiting is not None:
            self._refuse_full(ticket, self._max_waiting)
        arrivals = self.arrivals
        ticket.standing = QUEUED
        if ticket.place is None:
            ticket.place = arrivals
            self._tally.queued += 1
            need.tickets.append(ticket)
            need.size += 1
        else:
            need.size += 1
            ticket.place = min(ticket.place, arrivals)  # in a child, that of its parent's line
            need.add(ticket)
        ticket.need = need
        self.arrivals = arrivals + 1
        self.waiting += 1
        if need.claim is not None and need.claim.held_by(need.tickets[0].who):
            self._disclaim(need)  # a moved one has come before him for whom it was kept
            self._serve_unclaimed(now)
        if ticket.deadline != math.inf:
            self._deadlines.add(ticket, arrivals, self.waiting)
            if ticket.deadline < self.due:
                self.due = ticket.deadline
        if self.leasing and self._lookout.alarm == math.inf:
            self._arm(self._lookout, now + LOOKOUT)
        if need.listing.supply is not None:
            self._demand(need.listing, now)

    def _comes_before(self, ticket: Ticket, listing: Listing, now: float) -> bool:
        """Grant a place of a conn that is kept for somebody, to one who was there before him, and
        whose call was moved, or whom he waits for, since he uses the conn already."""
        offer = listing.offers.get(ticket.method)
        if offer is None or ticket.whole:
            return False
        self._claiming = [need for need in self._claiming if need.claim is not None]
        for need in self._claiming:
            entry = need.claim
            if entry is None or entry.group not in offer.groups:
                continue
            earlier = ticket.place is not None and ticket.order < need.tickets[0].order
            uses = ticket.who is not None and entry.held_by(ticket.who)
            free = entry.in_use < entry.capacity
            if free and (earlier or uses) and self._passes(ticket.filter, entry, now):
                entry.take_place(ticket.who, now)
                ticket.entry, ticket.standing = entry, GRANTED
                if ticket.place is None:
                    ticket.place = self.arrivals - 0.5
                return True
        return False

    def _open_need(self, ticket: Ticket, now: float) -> Need:
        """The need that `ticket` may join, made if it is the first of its kind."""
        if self.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        listing = self._listings.get(ticket.resource)
        offer = listing.offers.get(ticket.method) if listing is not None else None
        hope = self._hope(listing, offer, ticket, now)
        if hope is None or listing is None:
            raise refusal(listing, ticket, self.name, now)
        if ticket.deadline <= now:
            raise self._timeout(ticket, listing, now)
        if offer is not None:
            self._refuse_nested(ticket, offer, now)
        if self._max_waiting is not None:
            self._refuse_full(ticket, self._max_waiting)
        need = listing.line.find(ticket)
        if need is None:
            need = listing.line.open(ticket, listing, hope)
        return need

    def _hope(
        self, listing: Listing | None, offer: Offer | None, ticket: Ticket, now: float
    ) -> Entry | Supply | None:
        """What can still come and would serve the ticket: a conn, or else a supply of such."""
        found = witness(offer, ticket, lambda f, e: self._passes(f, e, now), now)
        supply = listing.supply if listing is not None else None
        if found is not None or supply is None or ticket.deadline <= now:
            return found
        made = offer.members() if ticket.filter is not None and offer is not None else ()
        if any(entry.supply is supply for entry in made):
            return None  # another of their kind would not pass either
        any_method = ticket.method is ANY
        return supply if supply.may_serve(ticket.method, any_method=any_method) else None

    def _demand(self, listing: Listing, now: float) -> None:
        """Somebody has begun to wait where a supply can open one more."""

    def _refuse_full(self, ticket: Ticket, most: int) -> None:
        """No more than `most` may wait; a call that was moved had its place already."""
        if ticket.place is None and self.waiting >= most:
            raise PoolFull(
                f"pool {self.name!r}: {self.waiting} callers wait already, max_waiting is {most}",
                pool=self.name,
                limit="max_waiting",
                most=most,
            )

    def _refuse_nested(self, ticket: Ticket, offer: Offer, now: float) -> None:
        """Raise where every conn that could serve is held by the very one who asks."""
        supply = self._listings[ticket.resource].supply
        if ticket.who is None:
            return
        any_method = ticket.method is ANY
        brings = supply and supply.may_serve(ticket.method, any_method=any_method)
        if supply and brings and self._brings_more(supply, ticket.who):
            return
        mine = False
        for entry in offer.members():
            if self._passes(ticket.filter, entry, now):
                if not _is_own(entry, ticket):
                    return
                mine = True
        if not mine:  # it is something else that is waited for
            return
        raise NestedCall(
            f"pool {self.name!r}: who asks for a conn to {show(ticket.resource)} holds every one "
            "that could serve, and would wait for itself",
            pool=self.name,
            resource=ticket.resource,
            method=ticket.method,
        )

    def _leave(self, ticket: Ticket, standing: Standing) -> None:
        """Take the ticket out of the line."""
        need = ticket.need
        assert need is not None
        first = need.tickets[0] is ticket
        need.listing.line.leave(ticket, standing)
        self.waiting -= 1
        if first and need.claim is not None:
            self._disclaim(need)
        self._directory.forget(need.listing)

    def _disclaim(self, need: Need) -> None:
        """The first of `need` waits no more: the conn that was kept for him is for others, as soon
        as all who have run out of time are gone from the line, or is kept for the next."""
        entry = need.claim
        assert entry is not None
        release_claim(entry)
        self._unclaimed.append(entry)

    def _serve_unclaimed(self, now: float) -> None:
        """Let those conns serve others that were kept for somebody who has left."""
        while self._unclaimed:
            entry = self._unclaimed.pop()
            if entry.state is READY and entry.expires > now:
                self._serve(entry, now)

    def _fail(self, ticket: Ticket, error: BaseException | None = None) -> None:
        """Tell a waiting ticket that it waited in vain."""
        self._leave(ticket, FAILED)
        ticket.error = error
        self.steps.append(ticket)

    def _timeout(self, ticket: Ticket, listing: Listing, now: float) -> PoolError:
        waited = max(0.0, now - ticket.arrived)
        self._tally.timeouts += 1
        error = PoolTimeout(
            f"pool {self.name!r}: no conn to {show(ticket.resource)} became free in "
            f"{waited:.2f} s; {self.waiting} other callers wait, {listing.live} alive",
            pool=self.name,
            resource=ticket.resource,
            method=ticket.method,
            waited=waited,
            timeout=ticket.deadline - ticket.arrived,
            waiting=self.waiting,
            summary=summary(listing, self.waiting, now),
        )
        error.__cause__ = listing.last_error or ticket.cause
        return error

    def _expire_tickets(self, now: float) -> None:
        while (ticket := self._deadlines.pop(now)) is not None:
            assert ticket.need is not None
            listing = ticket.need.listing
            self._fail(ticket)
            ticket.error = self._timeout(ticket, listing, now)

    # -- the meeting ---------------------------------------------------------------------------

    def _serve(self, entry: Entry, now: float) -> None:
        """Give the free places of a READY entry to those who wait; the rest to the rotation."""
        group = entry.group
        assert group is not None
        if group.line is not None and len(group.line.needs) == 1 and entry.users is None:
            # Nearly always one need for one place: the same as below, without the questions.
            (need,) = group.line.needs.values()
            served = need.method is ANY or need.method in group.methods
            if need.filter is None and served and not entry.in_use:
                ticket = self._first_of(need, entry)
                entry.in_use = 1
                entry.user = ticket.who
                entry.since = now
                entry.whole = need.whole
                if self._unclaimed:
                    self._serve_unclaimed(now)
                return
        release_claim(entry)  # it is made anew while its need is the first
        try:
            while self.waiting and entry.in_use < entry.capacity:
                found = self._next_for(entry, now)
                if found is None:
                    break
                self._grant(found, entry, now)
            if entry.claim is not None:
                self._serve_users(entry, now)
        finally:  # an interrupt out of somebody's filter must not cost the conn its place
            if entry.in_use < entry.capacity and entry.claim is None:
                group.join(entry)
        if self._unclaimed:
            self._serve_unclaimed(now)

    def _grant(self, need: Need, entry: Entry, now: float) -> None:
        """Give a place, or all of them, to the first of `need`."""
        ticket = self._first_of(need, entry)
        if need.whole:
            entry.take_all(ticket.who, now)
        else:
            entry.take_place(ticket.who, now)

    def _first_of(self, need: Need, entry: Entry) -> Ticket:
        """Let the first of `need` have `entry`, and out of the line."""
        tickets = need.tickets
        ticket = tickets.popleft()
        ticket.standing = GRANTED
        ticket.need = None
        ticket.entry = entry
        need.size -= 1
        if not need.size:
            need.listing.line.close(need)
        elif tickets[0].standing is not QUEUED:
            need.tidy()
        if need.claim is not None:
            self._disclaim(need)
        self.waiting -= 1
        self.steps.append(ticket)
        return ticket

    def _next_for(self, entry: Entry, now: float) -> Need | None:
        """The need whose first has waited longest among those that `entry` can serve.

        Where that one wants the whole conn, and somebody else still uses it, it is kept for him,
        if his time is not over at this very instant.
        """
        group = entry.group
        assert group is not None
        needs: Collection[Need]
        if len(group.listings) == 1:
            needs = group.listings[0].line.needs.values()
        else:
            needs = [n for listing in group.listings for n in listing.line.needs.values()]
        if len(needs) > 1:
            needs = sorted(needs, key=lambda need: need.tickets[0].order)
        for need in tuple(needs):
            if (need.method is ANY or need.method in group.methods) and (
                need.size if need.filter is None else self._first_is_served(need, entry, now)
            ):
                if not need.whole or not entry.in_use:
                    return need
                first = need.tickets[0]
                waits = first.deadline > now and not entry.held_by(first.who)
                if need.claim is None and waits:
                    need.claim, entry.claim = entry, need
                    self._claiming.append(need)
                    return None
        return None

    def _serve_users(self, entry: Entry, now: float) -> None:
        """Give free places of a conn that is kept to those who wait and use it already: they may
        not leave it before, and he for whom it is kept waits for that."""
        assert entry.group is not None
        lines = [listing.line for listing in entry.group.listings]
        waiting = [ticket for line in lines for ticket in line.tickets()]
        for ticket in sorted(waiting, key=lambda ticket: ticket.order):
            if entry.in_use >= entry.capacity:
                return
            if self._may_have_more(ticket, entry, now):
                self._leave(ticket, GRANTED)
                ticket.entry = entry
                self.steps.append(ticket)
                entry.take_place(ticket.who, now)

    def _may_have_more(self, ticket: Ticket, entry: Entry, now: float) -> bool:
        """Whether the ticket is of one who uses `entry`, and wants a place that it has."""
        group, need = entry.group, ticket.need
        if ticket.who is None or not entry.held_by(ticket.who) or group is None or need is None:
            return False
        if ticket.whole or not (ticket.method is ANY or ticket.method in group.methods):
            return False
        try:
            return self._passes(ticket.filter, entry, now)
        except Exception as error:
            self._fail(ticket, error)
            return False

    def _first_is_served(self, need: Need, entry: Entry, now: float) -> bool:
        """Whether `entry` passes the filter of `need`; one that raises tells its own callers."""
        while need.size:
            try:
                return self._passes(need.filter, entry, now)
            except Exception as error:
                self._fail(need.tickets[0], error)
        return False

    def _recheck(self, lost: Entry | Supply, listings: Iterable[Listing], now: float) -> None:
        """`lost` can do less than before: find new witnesses, or end a vain waiting."""
        for listing in listings:
            for need in listing.line:
                if need.witness is lost:
                    self._rewitness(need, now)
            self._directory.forget(listing)
        if self._unclaimed:
            self._serve_unclaimed(now)

    def _rewitness(self, need: Need, now: float) -> None:
        listing = need.listing
        offer = listing.offers.get(need.method)
        while need.size:
            ticket = need.tickets[0]
            try:
                need.witness = self._hope(listing, offer, ticket, now)
            except Exception as error:
                self._fail(ticket, error)
                continue
            if need.witness is not None:
                return
            self._fail(ticket, refusal(listing, ticket, self.name, now))


def _is_own(entry: Entry, ticket: Ticket) -> bool:
    """Whether `entry` can serve the ticket only once its owner has given back what it holds."""
    if ticket.whole or entry.state not in LIVE:  # all its users have to leave first
        return entry.held_by(ticket.who)
    return entry.in_use >= entry.capacity and entry.held_by_only(ticket.who)


def _maybe_own(hope: Entry | Supply, who: Any) -> bool:
    """Whether `who` may be the one who uses it: cheap, and wrong only on the safe side."""
    if isinstance(hope, Supply):
        return not hope.has_room
    # Not `is`: the identity of a thread is a new int each time it is asked for.
    return hope.users is not None or bool(hope.user == who)
