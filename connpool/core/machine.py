"""Core: the doors through which a driver enters.

Owns what the straight path does in a turn (`take`, `give`), the paths beside it (`submit`,
`conclude`, `cancel`), and the answers to questions.  Refuses to know the time, threads, loops and
I/O: every door takes `now`.

Invariant: each door leaves the core consistent, whatever it raises; what is left to do outside is
in `steps`, which the driver drains before it lets go of its lock.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import islice
from typing import Any

from ..errors import PoolClosed, PoolError
from . import outcome, revive
from .candidates import WINDOW, Offer, Roll
from .entry import LIVE, READY, Entry, view
from .prospects import refusal
from .routing import COMPARING, GLANCES, assumed_mean, some, sticky
from .straight import Straight
from .waiting import GRANTED, OVER, QUEUED, Ticket
from .where import Where

NEVER = -math.inf

# How many keys of sticky are remembered for one method of one resource.
MOST_STUCK = 10_000

# Failed calls in a row after which a conn is charged the time that a good call takes.
SUSPICIOUS = 2


class Core(Straight):
    """The top storey: what drivers call."""

    __slots__ = ()

    # -- the straight path, in a turn ----------------------------------------------------------

    def take(
        self, resource: Hashable, method: Hashable, filter: Any, by: Any, who: Any, now: float
    ) -> Entry | None:
        """A place of a conn that is free now, or None: then `submit` a ticket.

        Nothing here scans: the listing, the offer and the head of its rotation are looked up, and
        what time has changed is behind one comparison.
        """
        if now >= self.due:
            self.tick(now)
        try:
            offer = self._listings[resource].offers[method]
        except KeyError:
            return None
        free = offer.free
        if by is None and free is not None:
            if not free:
                return None
            entry = free[0]
            if (
                entry.state is READY
                and not entry.in_use
                and (filter is None or self._head_passes(filter, entry, who, now))
            ):
                free.popleft()
                entry.in_use = 1
                entry.user = who
                entry.since = now
                if entry.users is None:
                    entry.listed = False
                else:
                    entry.users.append(who)
                    free.append(entry)
                return entry
        chosen = self._choose(offer, method, filter, by, now)
        if chosen is not None:
            self._lend(chosen, filter, who, now)
        return chosen

    def _head_passes(self, filter: Any, entry: Entry, who: Any, now: float) -> Any:
        """`_shielded` and `view` once more, for the one conn that most filters need to see."""
        if filter.__class__ is Where:
            return False  # those that pass are looked up: see `_choose`
        shown = entry.view
        if shown is None:
            shown = view(entry, now)
        shown._now = now
        due, self.due, self.shielded = self.due, NEVER, who
        try:
            return True if filter(shown) else False  # noqa: SIM210 - its truth, behind the shield
        finally:
            self.due, self.shielded = due, None

    def give(self, entry: Entry, method: Hashable, who: Any, started: float, now: float) -> None:
        """A place comes back after a call that was answered."""
        entry.stat(method).answered(now - started)
        entry.last_call = now
        self.returned(entry, who, now)

    def returned(self, entry: Entry, who: Any, now: float) -> None:
        """A place comes back, and that its call was answered is counted already."""
        entry.leave_place(who)
        entry.recover()
        self._came_back(entry, now)

    def route(self, resource: Hashable, method: Hashable, filter: Any, by: Any, now: float) -> Any:
        """A live conn, without a lease; raises the precise error where there is none."""
        if now >= self.due:
            self.tick(now)
        listing = self._listings.get(resource)
        offer = listing.offers.get(method) if listing is not None else None
        if offer is None or not (called := offer.roll(method, self._rng)).size:
            raise self._refuse_route(resource, method, filter, now)
        roll = called.entries
        if filter is not None:
            roll = self._live_passing(offer, roll, filter, now)
            if not roll:
                raise self._refuse_route(resource, method, filter, now)
            return self._other(offer, roll, method, by, now).conn
        if by is None or (isinstance(by, str) and by not in COMPARING):
            conn = GLANCES[by](called, self._rng, self.leasing)
            return self._other(offer, roll, method, by, now).conn if conn is None else conn
        chosen = self._pick(called, method, by, now)
        return (self._other(offer, roll, method, by, now) if chosen.whole else chosen).conn

    def _live_passing(
        self, offer: Offer, roll: list[Entry], filter: Any, now: float
    ) -> list[Entry]:
        if filter.__class__ is Where:
            return [entry for entry in self._members_for(offer, filter) if entry.state in LIVE]
        return [entry for entry in roll if self._passes(filter, entry, now)]

    def _other(
        self, offer: Offer, roll: list[Entry], method: Hashable, by: Any, now: float
    ) -> Entry:
        """One that nobody has for himself."""
        common = [entry for entry in roll if not entry.whole]
        if not common:
            listing = offer.listing
            ticket = Ticket(listing.resource, method, arrived=now, deadline=now)
            raise self._timeout(ticket, listing, now)
        return self._route(by or "round_robin", common, method, offer, now)

    def _pick(self, called: Roll, method: Hashable, by: Any, now: float) -> Entry:
        """One of the live conns, by a key, by least_wait, or as a function of the user's says."""
        offer, roll = called.offer, called.entries
        if isinstance(by, sticky):
            return self._stuck(called, method, by, now)
        if by in COMPARING:
            roll = list(some(roll, WINDOW, self._rng))
        return self._route(by, roll, method, offer, now)

    def _stuck(self, called: Roll, method: Hashable, by: sticky, now: float) -> Entry:
        """Where a key went, or goes from now on.  One that raises, or meets one that does, is not
        remembered, and goes to the same conn all the same."""
        offer, roll, stuck = called.offer, called.entries, called.stuck
        try:
            found = stuck.get(by.key)
        except Exception:
            return self._route(by, roll, method, offer, now)
        if found is None:
            if len(stuck) >= MOST_STUCK:
                stuck.clear()
            found = stuck[by.key] = self._route(by, roll, method, offer, now)
        return found

    def _refuse_route(
        self, resource: Hashable, method: Hashable, filter: Any, now: float
    ) -> PoolError:
        if self.closed:
            return PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        ticket = Ticket(resource, method, filter, arrived=now, deadline=now)
        error: PoolError = self._shielded(
            refusal, self._listings.get(resource), ticket, self.name, now
        )
        return error

    # -- beside it -----------------------------------------------------------------------------

    def submit(self, ticket: Ticket, now: float) -> Ticket:
        """Grant the ticket at once, or let it wait; raises the precise error where it never could
        be granted."""
        asked = (ticket.resource, ticket.method, ticket.filter, ticket.by, ticket.who, now)
        entry = self.lease(*asked, True) if ticket.whole else self.take(*asked)
        if entry is None:
            self.queue(ticket, now)
        else:
            ticket.entry = entry
            ticket.standing = GRANTED
            if ticket.place is None:
                ticket.place = self.place()
        return ticket

    def place(self) -> float:
        """The place in line of one who is served at once: before whoever queues next."""
        return self.arrivals - 0.5

    def cancel(self, ticket: Ticket, now: float) -> None:
        """The caller gives up.

        Still queued: it leaves the line.  Already granted: the place is handed on to the next.
        """
        if ticket.standing is QUEUED:
            self._leave(ticket, OVER)
            self._tally.cancelled += 1
            if self._unclaimed:  # a conn was kept for him
                self.tick(now)
        elif ticket.standing is GRANTED and ticket.entry is not None:
            ticket.standing = OVER
            self._tally.cancelled += 1
            ticket.entry.leave_place(ticket.who)
            self._returned(ticket.entry, now)

    def conclude(
        self,
        entry: Entry,
        method: Hashable,
        who: Any,
        ended: outcome.Outcome,
        started: float,
        now: float,
        cause: BaseException | None = None,
    ) -> None:
        """A place comes back after a call that ended otherwise than with a plain reply."""
        if now >= self.due:
            self.tick(now)
        entry.leave_place(who)
        entry.last_call = now
        rest = self._count(entry, method, ended, started, now)
        self._ended(entry, ended.end, rest, now, cause)

    def _count(
        self, entry: Entry, method: Hashable, ended: outcome.Outcome, started: float, now: float
    ) -> float:
        """Count the call, and say how long the conn is to rest."""
        if ended.moves:
            self._tally.moved += 1
            if ended.refused:
                self._tally.busy += 1
                trouble = entry.troubled()
                trouble.refusals += 1
                return revive.after_refusal(ended.rest, trouble.refusals)
            return 0.0
        stat = entry.stat(method)
        if ended.error is None:
            stat.answered(now - started)
            entry.recover()
            return ended.rest
        stat.errors += 1
        entry.troubled().failures += 1
        return max(ended.rest, self._charge(entry, method, started, now))

    def _charge(self, entry: Entry, method: Hashable, started: float, now: float) -> float:
        """Seconds a conn that keeps failing rests: what is left of the time of a good call.

        A conn that fails in no time looks idle and would draw all traffic (fasthttp, bb8).  Charged
        like this it gets the share of a healthy one and no more.  Without peers nobody gains.
        """
        group = entry.group
        if entry.troubled().failures < SUSPICIOUS or group is None:
            return 0.0
        peers = [e for _, e in islice(group.members.items(), WINDOW) if e is not entry]
        if all(peer.mean(method) is None for peer in peers):
            return 0.0
        return max(0.0, started + assumed_mean(peers, method) - now)

    def next_due(self) -> float | None:
        """The instant at which `tick` has something to do, None where nothing is due ever.

        Deadlines of callers do not count: see `next_deadline`.
        """
        return None if self._alarms.due == math.inf else self._alarms.due

    def next_deadline(self) -> float | None:
        """The instant at which a caller's patience ends, None where nobody waits with a limit."""
        return None if self._deadlines.due == math.inf else self._deadlines.due

    def drain(self) -> list[Any]:
        """The steps to be done outside the lock, taken over by the driver."""
        steps, self.steps = self.steps, []
        return steps
