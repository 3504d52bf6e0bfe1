"""Openings: how many conns there may be, and how many may be opened at once.

Owns the entries of the pool, the permits that are out and the queue for a slot.  Refuses to know
why a conn is opened or closed.

Invariants: a permit comes back once; at most `max_connecting` permits to open hold a slot, and one
that is overdue holds none; no conn object is in the pool twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import PoolFull, show
from .candidates import Listing
from .desk import Desk
from .entry import DRAINING, GONE, REVIVING, Entry, move
from .options import Options
from .permits import Permit, Work
from .supply import WANTED, Supply
from .waiting import ANY, Need

# How many failures a report tells of.
REMEMBERED = 5


class Openings(Desk):
    """The fourth storey of the core: entries and permits."""

    __slots__ = (
        "_connecting",
        "_conns",
        "_granting",
        "_last_id",
        "_last_supply",
        "_starved",
        "_to_open",
        "entries",
        "failures",
        "live",
        "options",
        "permits",
    )

    def __init__(
        self, options: Options, rng: Callable[[], float], whoami: Callable[[], Any]
    ) -> None:
        super().__init__(options.name, options.max_waiting, rng, whoami)
        self.options = options
        self.entries: dict[int, Entry] = {}
        self.live = 0
        self.permits: set[Permit] = set()
        # When, of what, and the words: an error itself would keep all its frames alive.
        self.failures: deque[tuple[float, str, str]] = deque(maxlen=REMEMBERED)
        self._conns: dict[int, Entry] = {}  # by id(conn): an object is in the pool at most once
        self._last_id = 0
        self._connecting = 0
        self._granting = False
        self._to_open: deque[Entry | Supply] = deque()
        self._starved: dict[Supply, None] = {}  # want a conn, and the pool is full
        self._last_supply = 0

    def _refuse_oversize(self) -> None:
        if not self._has_room():
            most = self.options.max_size
            raise PoolFull(
                f"pool {self.name!r} holds {most} conns, max_size allows no more",
                pool=self.name,
                limit="max_size",
                most=most,
            )

    def _forget(self, entry: Entry) -> None:
        move(entry, GONE)
        self._alarms.clear(entry)
        self._set_due()
        for stat in (entry.stats or {}).values():
            self._tally.calls += stat.count
            self._tally.errors += stat.errors
        self._tally.checkouts += entry.checkouts
        entry.stats = None
        del self.entries[entry.id]
        if entry.conn is not None:
            self._conns.pop(id(entry.conn), None)
        self._uncount(entry)

    def adopt(self, permit: Permit, conn: Any) -> None:
        """What a supply's factory made is the conn of this permit; raises where it is not new."""
        if id(conn) in self._conns:
            raise ValueError(f"factory: expected a new conn each time, got {show(conn)} again")
        permit.entry.conn = conn
        if not permit.given_up:  # or it comes too late, and is only to be closed
            self._conns[id(conn)] = permit.entry

    def _note(self, resource: Any, error: BaseException, now: float) -> None:
        """Remember a failure for the report."""
        self.failures.append((now, show(resource), show(error)))

    def _uncount(self, entry: Entry) -> None:
        """A conn no longer takes a place: those who starve may have it, or else its supply."""
        self._ask_starved()
        supply = entry.supply
        if supply is not None:
            entry.supply = None
            supply.size -= 1
            if entry.group is not None:  # it was born, and has been withdrawn since
                supply.leaving -= 1
            self._ask_for_more(supply)

    def _vacate(self, entry: Entry, now: float) -> None:
        """A conn on its way out that nobody uses takes no place, though its check or its close may
        hang; only who pops it may put it back."""
        if entry.state is DRAINING and not entry.in_use and entry.popper is None:
            self._uncount(entry)
            self._grant_openings(now)

    def _leaving(self, supply: Supply) -> list[Entry]:
        """The conns of a supply that are on their way out."""
        if not supply.leaving:
            return []
        return [e for e in self.entries.values() if e.supply is supply and e.state is DRAINING]

    def _uses(self, supply: Supply, who: Any) -> bool:
        """Whether somebody holds a conn of a supply."""
        return any(e.supply is supply and e.held_by(who) for e in self.entries.values())

    def _ask_for_more(self, supply: Supply) -> None:
        """Put a supply in the queue for a slot, once; whether it wants one is asked there."""
        if not supply.queued and supply.hopeful and not self.closed:
            supply.queued = True
            self._to_open.append(supply)

    def end_turn(self) -> None:
        """Strokes may come again, but not while a conn that comes back may have to give way."""
        self.in_turn = self.turns_only or bool(self._starved)

    def _ask_starved(self) -> None:
        """There may be room now."""
        for supply in self._starved:
            self._ask_for_more(supply)

    # -- permits -------------------------------------------------------------------------------

    def _issue(self, work: Work, entry: Entry, limit: float, now: float) -> Permit:
        due = now + limit
        permit = Permit(work, entry, limit, due)
        entry.permit = permit
        self.permits.add(permit)
        if due != math.inf:
            self._arm(entry, due)
        return permit

    def _settle(self, permit: Permit, now: float) -> None:
        """A permit came back."""
        if permit not in self.permits and not permit.given_up:
            raise RuntimeError(f"the permit to {permit.work.value} came back twice")
        self.permits.discard(permit)
        if not permit.given_up:  # or the entry may have another one by now
            permit.entry.permit = None
            self._alarms.clear(permit.entry)  # it rang for the permit; see `_rearm`
        # Whom the slot goes to next is asked when what came of the permit is known.
        self._give_slot_back(permit)

    def _disown(self, permit: Permit) -> None:
        """Wait for a permit no longer; if it comes back all the same, its result comes too late."""
        permit.given_up = True
        self.permits.discard(permit)
        permit.entry.permit = None

    def _give_slot_back(self, permit: Permit) -> None:
        self._connecting -= permit.holds_slot
        permit.holds_slot = False

    def _free_slot(self, permit: Permit, now: float) -> None:
        self._give_slot_back(permit)
        self._grant_openings(now)

    def _open_when_due(self, entry: Entry, now: float) -> None:
        if entry.rest_until > now:
            self._arm(entry, entry.rest_until)
        elif not entry.in_turn:
            entry.in_turn = True
            self._to_open.append(entry)
            self._grant_openings(now)

    def _grant_openings(self, now: float) -> None:
        """Hand out permits to open while there are slots, in the order they were asked for."""
        if self._granting:
            return  # room is being made: it is for who asked for it, and the others come after
        self._granting = True
        try:
            while self._to_open and self._connecting < self.options.max_connecting:
                asking = self._to_open.popleft()
                if isinstance(asking, Supply):
                    asking.queued = False
                    self._conceive(asking, now)
                    continue
                asking.in_turn = False
                if asking.state is REVIVING:  # it may have left meanwhile
                    self._permit_to_open(asking, self.options.connect_timeout, now)
        finally:
            self._granting = False

    def _permit_to_open(self, entry: Entry, limit: float, now: float) -> Permit:
        permit = self._issue(Work.OPEN, entry, limit, now)
        permit.holds_slot = True
        self._connecting += 1
        self.steps.append(permit)
        return permit

    def _conceive(self, supply: Supply, now: float) -> None:
        """Begin to open one more conn of a supply, if it wants one and there is room."""
        listing = supply.listing
        self._starved.pop(supply, None)  # it is asked now
        if listing is None or listing.supply is not supply or self.closed:
            return
        if supply.retry_at > now:  # the clock may have been read before the last alarm rang
            self._arm(supply, supply.retry_at)
            return
        if not supply.wanted(callers(listing, supply), now) or not self._make_room(supply, now):
            return
        self._starved.pop(supply, None)  # if room had to be made
        self._last_id += 1
        entry = Entry(
            self._last_id, None, supply.extra, None, supply.revive, supply.setup, supply=supply
        )
        self.entries[entry.id] = entry
        supply.began()
        permit = self._permit_to_open(entry, supply.connect_timeout, now)
        permit.make, permit.resource = supply.factory, supply.resource
        self._ask_for_more(supply)

    def _make_room(self, supply: Supply, now: float) -> bool:
        """Whether the pool's max_size allows one more."""
        if self._has_room():
            return True
        self._starved[supply] = None
        self.in_turn = True
        self._arm(supply, now + WANTED)  # a conn that is returned while nobody waits tells nobody
        return False

    def _has_room(self) -> bool:
        most = self.options.max_size
        return most is None or self._occupied() < most

    def _occupied(self) -> int:
        """How many places of the pool are taken: those of conns that only wait to be closed are
        not, but a pop that is not done may be given up, and then its conns are back."""
        if self.options.max_size is not None and len(self.entries) < self.options.max_size:
            return len(self.entries)
        leaving = sum(
            e.state is DRAINING and not e.in_use and e.popper is None for e in self.entries.values()
        )
        return len(self.entries) - leaving


def serves(supply: Supply, need: Need) -> bool:
    """Whether a conn of the supply could serve those who wait so, as far as is known."""
    return supply.may_serve(need.method, any_method=need.method is ANY, filter=need.filter)


def callers(listing: Listing, supply: Supply) -> int:
    """How many wait that conns of the supply could serve, as far as is known."""
    return sum(need.size for need in listing.line.needs.values() if serves(supply, need))
