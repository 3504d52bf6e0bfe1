"""The desk: lets callers wait in line, and hands conns to those who wait.

Owns the meeting of entries and tickets.  Refuses to know how a conn is born or dies.

Invariants: while a lendable conn can serve a waiter, that waiter does not wait; among those a conn
can serve the first comes first.  One that wants all places of a shared conn can be served when the
conn is idle: it claims one that is not, and that one serves nobody behind it, but those who use it
already.
"""

from __future__ import annotations

import math
from contextlib import closing

from ..conn import has
from ..errors import PoolClosed, PoolFull
from .candidates import Listing
from .entry import READY, Entry, release_claim
from .hoping import Hoping
from .lending import LOOKOUT
from .prospects import refusal
from .waiting import ANY, GRANTED, QUEUED, Need, Ticket, suited


class Desk(Hoping):
    """The third storey of the core: entries and tickets."""

    __slots__ = ()

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
            or ticket.deadline <= now  # what is true now counts, not what may come
            or self._holds(need.witness, ticket)
        ):
            need = self._open_need(ticket, now, alone=need is not None)
        elif self._max_waiting is not None:
            self._refuse_full(ticket, self._max_waiting)
        arrivals = self.arrivals
        if ticket.place is None:
            ticket.place = arrivals
            self._tally.queued += 1
        if need.size and ticket.place == arrivals:  # nearly always: `join` without the questions
            ticket.standing = QUEUED
            ticket.need = need
            need.size += 1
            need.tickets.append(ticket)
        else:
            ticket.place = min(ticket.place, arrivals)  # in a child, that of its parent's line
            need.listing.line.join(ticket, need)
        self.arrivals = arrivals + 1
        self.waiting += 1
        if ticket.deadline != math.inf:
            self._deadlines.add(ticket, arrivals, self.waiting)
            if ticket.deadline < self.due:
                self.due = ticket.deadline
        if self.leasing:
            self._asking[ticket.who] = ticket
            if self._lookout.alarm == math.inf:
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

    def _open_need(self, ticket: Ticket, now: float, *, alone: bool) -> Need:
        """A need for the first of its kind, or for one who has to wait `alone`."""
        if self.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        listing = self._listings.get(ticket.resource)
        offer = listing.offers.get(ticket.method) if listing is not None else None
        hope = self._hope(listing, offer, ticket, now)
        if hope is None or listing is None:
            raise self._shielded(refusal, listing, ticket, self.name, now)
        if ticket.deadline <= now:
            raise self._timeout(ticket, listing, now)
        if alone or self._holds(hope, ticket):
            alone, other = True, self._hope_of_others(listing, offer, ticket, now)
            if other is None:
                raise self._vain(listing, offer, ticket, now)
            hope = other
        if self._max_waiting is not None:
            self._refuse_full(ticket, self._max_waiting)
        return listing.line.open(ticket, listing, hope, alone=alone)

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

    def _serve_unclaimed(self, now: float) -> None:
        """Let those conns serve others that were kept for somebody who has left."""
        while self._unclaimed:
            entry = self._unclaimed.pop()
            if entry.state is READY and entry.expires > now:
                self._serve(entry, now)

    # -- the meeting ---------------------------------------------------------------------------

    def _serve(self, entry: Entry, now: float) -> None:
        """Give the free places of a READY entry to those who wait; the rest to the rotation."""
        group = entry.group
        assert group is not None
        if group.line is not None and len(group.line.needs) == 1 and entry.users is None:
            # Nearly always one need for one place: the same as below, without the questions.
            (need,) = group.line.needs.values()
            served = need.method is ANY or has(group.methods, need.method)
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

    def _serve_users(self, entry: Entry, now: float) -> None:
        """Who uses a conn that is kept for somebody, and waits, may have more of it: he for whom it
        is kept waits for him.  Of several who has waited longest comes first."""
        users = dict.fromkeys(who for who in entry.holders if who is not None)
        waiting = [self._asking[who] for who in users if who in self._asking]
        for ticket in sorted(waiting, key=lambda ticket: ticket.order):
            if entry.in_use >= entry.capacity:
                return
            if not ticket.whole and self._suits(ticket, entry, now):
                ticket.entry = entry
                self._leave(ticket, GRANTED)
                entry.take_place(ticket.who, now)
                self.steps.append(ticket)

    def _suits(self, ticket: Ticket, entry: Entry, now: float) -> bool:
        """Whether `entry` is what one who waits has asked for; a filter that raises tells him."""
        assert ticket.need is not None
        try:
            offer = ticket.need.listing.offers.get(ticket.method)
            return bool(
                offer is not None
                and entry.group in offer.groups
                and self._passes(ticket.filter, entry, now)
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._fail(ticket, error)
            return False

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
        ticket.need = None
        ticket.entry = entry
        ticket.standing = GRANTED  # last: its caller may look at it without a turn
        need.size -= 1
        if not need.size:
            need.listing.line.close(need)
        elif tickets[0].need is not need:
            need.tidy()
        if need.claim is not None:
            self._disclaim(need)
        self.waiting -= 1
        if self._asking:
            self._asking.pop(ticket.who, None)
        self.steps.append(ticket)
        return ticket

    def _next_for(self, entry: Entry, now: float) -> Need | None:
        """The need whose first has waited longest among those that `entry` can serve.

        Where that one wants the whole conn, and somebody else still uses it, it is kept for him,
        if his time is not over at this very instant.
        """
        group = entry.group
        assert group is not None
        lines = [listing.line for listing in group.listings]
        with closing(suited(lines, entry.extra)) as needs:
            for need in needs:
                if (need.method is ANY or has(group.methods, need.method)) and (
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

    def _first_is_served(self, need: Need, entry: Entry, now: float) -> bool:
        """Whether `entry` passes the filter of `need`; one that raises tells its own callers."""
        while need.size:
            try:
                return self._passes(need.filter, entry, now)
            except KeyboardInterrupt:  # of the user at the keyboard, not of the filter's
                raise
            except BaseException as error:
                self._fail(need.tickets[0], error)
        return False
