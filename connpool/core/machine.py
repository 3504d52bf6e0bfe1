"""Core: the doors through which a driver enters.

Owns the straight path (`take`, `give`), the paths beside it (`submit`, `conclude`, `cancel`), and
the answers to questions.  Refuses to know the time, threads, loops and I/O: every door takes `now`.

Invariant: each door leaves the core consistent, whatever it raises; what is left to do outside is
in `steps`, which the driver drains before it lets go of its lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ..conn import Description, Reply, method_names, places
from ..errors import IdError, show
from . import outcome, revive
from .candidates import WINDOW, Listing
from .entry import COOLING, DRAINING, HOPEFUL, LIVE, OPENING, READY, REVIVING, Entry, Info, snapshot
from .life import Life
from .options import check_changes, check_revive, check_ttl
from .routing import assumed_mean
from .stats import Now, PoolStats
from .waiting import Standing, Ticket

# Failed calls in a row after which a conn is charged the time that a good call takes.
SUSPICIOUS = 2


class Core(Life):
    """The top storey: what drivers call."""

    # -- the straight path ---------------------------------------------------------------------

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
        if free is not None and filter is None and by is None:
            if not free:
                return None
            entry = free[0]
            if entry.in_use == 0 and entry.state is READY:
                free.popleft()
                entry.user = who
                entry.since = now
                entry.in_use = 1
                if entry.capacity == 1:
                    entry.listed = False
                else:
                    free.append(entry)
                if entry.users is not None:
                    entry.users.append(who)
                return entry
        chosen = self._choose(offer, method, filter, by, now)
        if chosen is not None:
            self._lend(chosen, who, now)
        return chosen

    def give(
        self, entry: Entry, method: Hashable, who: Any, started: float, now: float
    ) -> None:
        """A place comes back after a call that was answered."""
        try:
            stat = entry.stats[method]  # type: ignore[index]  # None is one of the two exceptions
        except (KeyError, TypeError):
            stat = entry.stat(method)
        stat.count = count = stat.count + 1
        stat.mean += (now - started - stat.mean) / (count if count < 64 else 64)
        entry.last_call = now
        entry.in_use -= 1
        if entry.shaky:
            entry.shaky = False
            entry.streak = entry.failures = entry.refusals = 0
        if entry.users:
            entry.users.remove(who)
        if self.waiting or entry.state is not READY or now >= self.due:
            self._returned(entry, now)
        elif not entry.listed:
            entry.listed = True
            group = entry.group
            group.free.append(entry)  # type: ignore[union-attr]  # a READY entry has a group
            if group.shut:  # type: ignore[union-attr]
                group.reopen()  # type: ignore[union-attr]

    def _returned(self, entry: Entry, now: float) -> None:
        """A place is free again: for who waits, for the rotation, or for what comes next."""
        if now >= self.due:
            self.tick(now)
        if entry.state is READY:
            self._serve(entry, now)
        elif entry.state is REVIVING or entry.state is DRAINING:
            self._onward(entry, now)

    # -- beside it -----------------------------------------------------------------------------

    def submit(self, ticket: Ticket, now: float) -> Ticket:
        """Grant the ticket at once, or let it wait; raises the precise error where it never could
        be granted."""
        entry = self.take(
            ticket.resource, ticket.method, ticket.filter, ticket.by, ticket.who, now
        )
        if entry is None:
            self._queue(ticket, now)
        else:
            ticket.entry = entry
            ticket.standing = Standing.GRANTED
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
        if ticket.standing is Standing.QUEUED:
            self._leave(ticket, Standing.OVER)
            self._tally.cancelled += 1
        elif ticket.standing is Standing.GRANTED and ticket.entry is not None:
            ticket.standing = Standing.OVER
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
        if ended.end is not None and entry.state in LIVE:
            self._retire(entry, ended.end, now, cause)
            return
        if ended.end in outcome.BROKEN:
            entry.broken = True  # on its way out already: nothing is gained by waiting
        self._rest(entry, rest, now)
        self._returned(entry, now)

    def _count(
        self, entry: Entry, method: Hashable, ended: outcome.Outcome, started: float, now: float
    ) -> float:
        """Count the call, and say how long the conn is to rest."""
        if ended.moves:
            self._tally.moved += 1
            if ended.refused:
                self._tally.busy += 1
                entry.refusals += 1
                entry.shaky = True
                return revive.after_refusal(ended.rest, entry.refusals)
            return 0.0
        stat = entry.stat(method)
        if ended.error is None:
            stat.answered(now - started)
            entry.streak = entry.failures = entry.refusals = 0
            entry.shaky = False
            return ended.rest
        stat.count += 1
        stat.errors += 1
        entry.failures += 1
        entry.shaky = True
        return max(ended.rest, self._charge(entry, method, started, now))

    def _charge(self, entry: Entry, method: Hashable, started: float, now: float) -> float:
        """Seconds a conn that keeps failing rests: what is left of the time of a good call.

        A conn that fails in no time looks idle and would draw all traffic (fasthttp, bb8).  Charged
        like this it gets the share of a healthy one and no more.  Without peers nobody gains.
        """
        group = entry.group
        if entry.failures < SUSPICIOUS or group is None or len(group.members) < 2:
            return 0.0
        peers = [e for e, _ in zip(group.members.values(), range(WINDOW)) if e is not entry]
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

    # -- what users change ---------------------------------------------------------------------

    def set_extra(self, id: int, value: Any, now: float) -> Any:
        """Replace `extra`; gives the old one."""
        self.tick(now)
        entry = self._entry(id)
        old, entry.extra = entry.extra, value
        self._changed(entry, now)
        return old

    def update(
        self,
        resource: Hashable,
        fn: Callable[[Info], Any] | None,
        filter: Callable[[Any], Any] | None,
        changes: dict[str, Any],
        now: float,
    ) -> int:
        """Change the matching conns, all or none; gives how many."""
        self.tick(now)
        plans = []
        for entry in self._members(resource, filter, now):
            wanted = dict(changes)
            if fn is not None:
                wanted |= check_changes(self._shielded(fn, snapshot(entry, now)))
            plans.append((entry, _checked(entry, wanted)))
        for entry, wanted in plans:
            self._apply(entry, wanted, now)
        return len(plans)

    def _apply(self, entry: Entry, wanted: dict[str, Any], now: float) -> None:
        group = entry.group
        assert group is not None
        entry.extra = wanted.get("extra", entry.extra)
        entry.revive = wanted.get("revive", entry.revive)
        if "ttl" in wanted:
            entry.ttl = wanted["ttl"]
            self._set_ttl(entry, now)
        entry.set_capacity(wanted.get("capacity", entry.capacity))
        methods = wanted.get("methods", group.methods)
        if methods != group.methods:
            resources = tuple(listing.resource for listing in group.listings)
            what = Description(group.resource, resources, methods, entry.capacity)
            self._directory.transfer(entry, what)
            self._recheck(entry, group.listings, now)
        self._changed(entry, now)

    def _changed(self, entry: Entry, now: float) -> None:
        """What a conn may serve has changed: some may be served now, some never."""
        if entry.group is None or entry.id not in entry.group.members:
            return
        if entry.state is READY:
            self._serve(entry, now)
        self._recheck(entry, entry.group.listings, now)
        if now >= self.due:
            self.tick(now)

    # -- questions -----------------------------------------------------------------------------

    def _entry(self, id: int) -> Entry:
        entry = self.entries.get(id)
        if entry is None or entry.state is OPENING:
            raise IdError(f"pool {self.name!r} holds no conn {show(id)}", pool=self.name, id=id)
        return entry

    def _members(
        self, resource: Hashable, filter: Callable[[Any], Any] | None, now: float
    ) -> list[Entry]:
        """The conns of a resource that pass the filter, alive or to be alive again."""
        listing = self._listings.get(resource)
        members = list(listing.members()) if listing is not None else []
        return [entry for entry in members if self._passes(filter, entry, now)]

    def listings(self) -> list[Listing]:
        """What is known of each resource, for the report."""
        return list(self._listings.values())

    def find(self, id: int, now: float) -> Entry:
        """The conn with this id, or IdError."""
        self.tick(now)
        return self._entry(id)

    def search(
        self, resource: Hashable, filter: Callable[[Any], Any] | None, now: float
    ) -> list[Entry]:
        """The conns of a resource that pass the filter."""
        self.tick(now)
        return self._members(resource, filter, now)

    def info(self, id: int, now: float) -> Info:
        """The picture of one conn."""
        return snapshot(self.find(id, now), now)

    def infos(
        self, filter: Callable[[Any], Any] | None, now: float, *resource: Hashable
    ) -> list[Info]:
        """The pictures of all conns, or of those to one resource."""
        self.tick(now)
        found: Iterable[Entry]
        if resource:
            found = self._members(resource[0], filter, now)
        else:
            everybody = [e for e in self.entries.values() if e.state in HOPEFUL]
            found = [e for e in everybody if self._passes(filter, e, now)]
        return [snapshot(entry, now) for entry in found]

    def alive(self, id: int, now: float) -> bool:
        """Whether a live conn has this id."""
        self.tick(now)
        entry = self.entries.get(id)
        return entry is not None and entry.state in LIVE

    def resources(self, now: float) -> list[Hashable]:
        """The resources with live conns."""
        self.tick(now)
        return [resource for resource, listing in self._listings.items() if listing.live]

    def count(self, now: float, *resource: Hashable) -> int:
        """How many live conns there are, or how many to one resource."""
        self.tick(now)
        if not resource:
            return self.live
        listing = self._listings.get(resource[0])
        return listing.live if listing is not None else 0

    def busy(self, who: Any) -> bool:
        """Whether anything is still open, used or out on a permit, `who`'s own calls aside."""
        return bool(self.permits) or any(
            not (entry.in_use and entry.held_by_only(who)) for entry in self.entries.values()
        )

    def stats(self, now: float) -> PoolStats:
        """Numbers now and since the start."""
        self.tick(now)
        entries = self.entries.values()
        states = [entry.state for entry in entries]
        stats = [stat for entry in entries for stat in (entry.stats or {}).values()]
        current = Now(
            conns=self.live,
            ready=states.count(READY),
            in_use=sum(entry.in_use for entry in entries),
            cooling=states.count(COOLING),
            reviving=states.count(REVIVING),
            draining=states.count(DRAINING),
            opening=states.count(OPENING),
            waiting=self.waiting,
        )
        calls = sum(stat.count for stat in stats)
        errors = sum(stat.errors for stat in stats)
        return PoolStats(current, self._tally.picture(calls, errors))


def _checked(entry: Entry, wanted: dict[str, Any]) -> dict[str, Any]:
    """The changes of one conn, checked before any is made."""
    checks: dict[str, Callable[[Any], Any]] = {
        "extra": lambda value: value,
        "ttl": check_ttl,
        "revive": check_revive,
        "capacity": places,
        "methods": lambda value: method_names(value, entry.conn),
    }
    unknown = set(wanted) - set(checks)
    if unknown:
        raise TypeError(
            f"update: expected changes of {', '.join(checks)}, got {', '.join(map(show, unknown))}"
        )
    return {name: checks[name](value) for name, value in wanted.items()}


