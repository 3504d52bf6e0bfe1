"""Supplying: conns that the pool makes by itself, as many as are needed and no more.

Owns the supplies of the pool and the births of their conns.  Refuses to know how many are needed:
that is `supply`'s arithmetic.

Invariants: a supply never holds more than its `max_size`, unborn ones included, and all of them
together never more than the pool's; an opening is never tied to the caller that asked for it; a
hung one is given up, and closed if it ever succeeds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from ..errors import PoolClosed, ResourceError, show
from . import outcome
from .candidates import Listing
from .entry import DRAINING, HOPEFUL, LIVE, OPENING, READY, REVIVING, Entry
from .life import Life
from .supply import Supply


class Supplying(Life):
    """The sixth storey of the core."""

    # -- supplies ------------------------------------------------------------------------------

    def supply(self, supply: Supply, now: float) -> None:
        """From now on conns to `supply.resource` are made as they are needed."""
        self.tick(now)
        if self.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        listing = self._directory.open(supply.resource)
        if listing.supply is not None:
            raise ValueError(
                f"pool {self.name!r} has a supply for {show(supply.resource)} already: resize it, "
                "or withdraw it first"
            )
        listing.supply = supply
        self._last_supply -= 1
        supply.id = self._last_supply  # below zero: entries and supplies share one clockwork
        self._ask_for_more(supply)
        self._grant_openings(now)

    def supply_of(self, resource: Hashable) -> Supply:
        """The supply of a resource, or ResourceError."""
        listing = self._listings.get(resource)
        if listing is None or listing.supply is None:
            raise ResourceError(
                f"pool {self.name!r} has no supply for {show(resource)}",
                pool=self.name,
                resource=resource,
            )
        return listing.supply

    def supplies(self) -> list[Supply]:
        """All there are."""
        return [li.supply for li in self._listings.values() if li.supply is not None]

    def resize(self, resource: Hashable, min_size: Any, max_size: Any, now: float) -> None:
        """Give a supply other sizes; conns beyond the new one leave as they become idle.

        Those that nobody uses leave at once, first those that are not born yet, then the longest
        idle; of the others as many as are still too many, once they are free.
        """
        self.tick(now)
        supply = self.supply_of(resource)
        supply.resize(
            supply.min_size if min_size is None else min_size,
            supply.max_size if max_size is None else max_size,
        )
        staying = [e for e in self._supplied(supply) if e.popper or e.state is not DRAINING]
        staying.sort(key=lambda e: (e.popper is None, e.state is not OPENING, e.idle_since))
        idle = [e for e in staying if not e.in_use and not e.popper]
        busy = [e for e in staying if e.in_use or e.popper]
        idle = idle[: max(0, supply.size - supply.max_size)]
        too_many = len(staying) - len(idle) - supply.max_size
        for entry in idle + busy[: max(0, too_many)]:
            self._dismiss(entry, now)
        self._ask_starved()
        self._ask_for_more(supply)
        self._grant_openings(now)

    def withdraw(self, resource: Hashable, now: float) -> None:
        """End a supply: its conns leave once nobody uses them."""
        self.tick(now)
        supply = self.supply_of(resource)
        supply.withdrawn = True
        listing = self._listings[resource]
        listing.supply = None
        for entry in self._supplied(supply):
            self._dismiss(entry, now)
        self._starved.pop(supply, None)
        self._alarms.clear(supply)
        self._set_due()
        self._recheck(supply, (listing,), now)

    def _end_supplies(self) -> None:
        """The pool is closed, and its conns are on their way out."""
        for supply in self.supplies():
            supply.withdrawn = True
            self._alarms.clear(supply)
            listing = self._listings[supply.resource]
            listing.supply = None
            self._directory.forget(listing)
        self._set_due()

    def let_go(self, entries: list[Entry], now: float) -> int:
        """Let conns leave once nobody uses them; supplied ones are replaced as needed."""
        count = 0
        for entry in entries:
            if entry.state in HOPEFUL:
                self._dismiss(entry, now)
                count += 1
        return count

    def _dismiss(self, entry: Entry, now: float) -> None:
        """Let a conn go, whatever it is about."""
        if entry.state in LIVE:
            self._retire(entry, outcome.WITHDRAWN, now)
        elif entry.state is REVIVING:
            self._withdraw(entry, now, outcome.WITHDRAWN)
        elif entry.state is OPENING:
            self._abort(entry, now)
        elif entry.popper is not None:
            entry.reason = outcome.WITHDRAWN  # should the pop be given up

    def ready(self, now: float) -> bool:
        """Whether every supply has its `min_size` of live conns.  Raises where one never will."""
        self.tick(now)
        ready = True
        for supply in self.supplies():
            if sum(e.state in LIVE for e in self._supplied(supply)) < supply.min_size:
                if supply.over is not None:
                    raise ResourceError(
                        f"pool {self.name!r}: conns to {show(supply.resource)} cannot be opened",
                        pool=self.name,
                        resource=supply.resource,
                    ) from supply.over
                ready = False
        return ready

    def last_failure(self) -> BaseException | None:
        """The last failure of any supply that has failed since it last opened a conn."""
        failing = [li for li in self._listings.values() if li.supply and li.supply.failures]
        return failing[-1].last_error if failing else None

    def _abort(self, entry: Entry, now: float) -> None:
        """What is being opened is no longer wanted; if it comes all the same, it is closed."""
        supply, permit = entry.supply, entry.permit
        assert supply is not None
        assert permit is not None
        supply.unborn -= 1
        self._disown(permit)
        self._forget(entry)
        self._free_slot(permit, now)  # it may hang, and nobody waits for it any more

    def _supplied(self, supply: Supply) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.supply is supply]

    # -- demand --------------------------------------------------------------------------------

    def _demand(self, listing: Listing, now: float) -> None:
        """Somebody has begun to wait."""
        supply = listing.supply
        if supply is None or not supply.hopeful:
            return
        if supply.retry_at > now:
            supply.hurry(now)
            self._arm(supply, supply.retry_at)
        elif supply.has_room:
            self._ask_for_more(supply)
            self._grant_openings(now)

    def _brings_more(self, supply: Supply, who: Any) -> bool:
        """Whether another one will come beside those that are alive: it may be opened, is being
        opened, or will be when one that leaves has left, which `who` may keep it from."""
        leaving = [e for e in self._supplied(supply) if e.state is DRAINING]
        left = supply.size - sum(not entry.held_by(who) for entry in leaving)
        return supply.hopeful and (supply.unborn > 0 or left < supply.max_size)

    # -- a full pool ---------------------------------------------------------------------------

    def _make_room(self, supply: Supply, now: float) -> bool:
        """Room for one more of `supply`, if need be by letting an idle conn of another go.

        The resource that has most idle conns beyond its `min_size` gives one, the longest idle.
        """
        if super()._make_room(supply, now):
            return True
        idle: dict[Supply, list[Entry]] = {}
        for entry in self.entries.values():
            other = entry.supply
            if other is not None and other is not supply and _may_leave(entry, other):
                idle.setdefault(other, []).append(entry)
        if not idle:
            return False
        richest = max(idle.values(), key=len)
        self._retire(min(richest, key=lambda entry: entry.idle_since), outcome.EVICTED, now)
        return super()._make_room(supply, now)

    def _gives_way(self, entry: Entry, now: float) -> bool:
        """Whether a conn that is free again leaves, since the pool is full and another resource
        starves: because nobody waits for it here, or because there somebody has waited longer.

        Without this rule a busy resource, whose conns are never idle, would keep them for ever.
        """
        supply = entry.supply
        if supply is None or not _may_leave(entry, supply):
            return False
        hungry = min(self._starved, key=self._waits_since, default=None)
        if hungry is None or hungry is supply:
            return False
        own, other = self._waits_since(supply), self._waits_since(hungry)
        if other == math.inf or other > own or (own < math.inf and supply.size <= hungry.size):
            return False
        self._ask_for_more(hungry)  # before this one's own supply asks for another
        self._retire(entry, outcome.EVICTED, now)
        return True

    def _returned(self, entry: Entry, now: float) -> None:
        """A place is free again: for who waits, for the rotation, or for what comes next."""
        if now >= self.due:
            self.tick(now)
        if entry.state is READY:
            if not (self._starved and self._gives_way(entry, now)):
                self._serve(entry, now)
        elif entry.state is REVIVING or entry.state is DRAINING:
            self._onward(entry, now)

    def _ended(
        self, entry: Entry, end: str | None, rest: float, now: float, cause: BaseException | None
    ) -> None:
        """A use of a conn is over, its place is free: the conn is given up, rests, or goes on."""
        if end is not None and entry.state in LIVE:
            self._retire(entry, end, now, cause)
            return
        if end is not None:  # on its way out already
            entry.reason = entry.reason or end
            entry.broken |= end in outcome.BROKEN  # nothing is gained by waiting
        self._rest(entry, rest, now)
        self._returned(entry, now)

    def _waits_since(self, supply: Supply) -> float:
        """The place of the first who waits for a conn of the supply."""
        needs = self._listings[supply.resource].line.needs.values()
        return min((need.tickets[0].order[0] for need in needs), default=math.inf)


def _may_leave(entry: Entry, supply: Supply) -> bool:
    return entry.state is READY and not entry.in_use and supply.has_spare
