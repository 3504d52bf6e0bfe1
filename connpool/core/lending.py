"""Lending: which of the free conns a newcomer gets.

Owns the state that all storeys share, the clock's next stroke, the shield around users' filters,
and the choice.  Refuses to know who waits.

Invariant: to choose changes nothing; a filter or a router runs behind the shield only, so that it
cannot call the pool it serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, islice
from typing import Any

from . import index, routing
from .candidates import WINDOW, Directory, Offer, lendable
from .entry import READY, Entry, view
from .hunches import Hunches
from .patience import Deadlines
from .permits import ALARM
from .stats import Tally
from .supply import Supply
from .timers import Timers
from .waiting import Need, Ticket
from .where import Test, Where

# How far into a rotation is looked for a filter before anything else is tried: so many times the
# number of conns that are looked at one by one.
LOOK = 4

# Seconds between two looks at whether those who hold conns are still there, while others wait.
LOOKOUT = 1.0


class Lookout:
    """Rings while somebody waits and conns are checked out: a lease may have been lost."""

    id = 0  # entries count up from 1, supplies down from -1
    alarm = math.inf


class Lending:
    """The lowest storey of the core: entries, tickets, and the clockwork both hang on."""

    __slots__ = (
        "_alarms",
        "_asking",
        "_claiming",
        "_deadlines",
        "_directory",
        "_listings",
        "_lookout",
        "_max_waiting",
        "_rng",
        "_tally",
        "_unclaimed",
        "_whoami",
        "arrivals",
        "closed",
        "due",
        "few",
        "in_turn",
        "leasing",
        "name",
        "shielded",
        "steps",
        "turns_only",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        max_waiting: int | None,
        rng: Callable[[], float],
        whoami: Callable[[], Any],
    ) -> None:
        self.name = name
        self.closed = False
        # Whether there may be no stroke (see `straight`): now, and at all.
        self.in_turn = self.turns_only = False
        self.steps: list[Any] = []  # what the driver is to do outside its lock
        self.arrivals = 0  # the next place in line
        self.waiting = 0  # callers in line
        self.due = math.inf  # nothing happens by itself before this instant
        self.shielded: Any = None  # whose filter or router runs at this moment
        self._rng = rng
        self._whoami = whoami
        self._max_waiting = max_waiting
        self._directory = Directory()
        self._listings = self._directory.listings
        self.leasing = False  # whether anything was ever checked out
        self._lookout = Lookout()
        self._alarms: Timers[Entry | Supply | Lookout] = Timers()
        self._deadlines = Deadlines()
        self.few = index.FEW
        self._asking: dict[Any, Ticket] = {}  # who waits for what, once conns may be kept for some
        self._claiming: list[Need] = []  # those whose first may have a conn kept for him
        self._unclaimed: list[Entry] = []  # no longer kept for somebody who wants them whole
        self._tally = Tally()

    # -- time ----------------------------------------------------------------------------------

    def _arm(self, entry: Entry | Supply | Lookout, due: float) -> None:
        """Let the clockwork look at `entry` at `due` at the latest."""
        nearer = due < self._alarms.due
        self._alarms.set(entry, due)
        if nearer:
            self.steps.append(ALARM)
        self._set_due()

    def _set_due(self) -> None:
        self.due = min(self._alarms.due, self._deadlines.due)

    # -- the user's code -----------------------------------------------------------------------

    def _shielded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a filter or a router.  While it runs, every door of the core leads to `tick`, which
        refuses: `due` in the past costs the straight path nothing."""
        due, self.due = self.due, -math.inf
        self.shielded = self._whoami()
        try:
            return function(*args)
        finally:
            self.shielded = None
            self.due = due

    def _passes(self, filter: Test, entry: Entry, now: float) -> bool:
        if filter is None:
            return True
        if isinstance(filter, Where):
            return filter.passes(entry.extra)
        return bool(self._shielded(_truth, filter, view(entry, now)))

    def _members_for(self, offer: Offer | None, filter: Test) -> Iterable[Entry]:
        """Those of an offer that may pass the filter, whatever their state."""
        if isinstance(filter, Where):
            return index.passing(offer, filter, self.few)
        if offer is None:
            return ()
        group = offer.only
        if filter is None or group is None or group.hunches is None:
            return offer.members()
        return chain(group.hunches.of(filter, group.members), offer.members())

    # -- lending -------------------------------------------------------------------------------

    def _choose(
        self, offer: Offer, method: Hashable, filter: Any, by: Any, now: float, whole: bool = False
    ) -> Entry | None:
        """A lendable conn for the request, or None.  Changes nothing.

        Who wants a `whole` one may have to be shown every conn that has a free place.
        """
        lendable: Iterable[Entry] = ()
        if filter.__class__ is Where:
            if by is None and (entry := index.idle(offer, filter)) is not None:
                return entry
            lendable, filter = index.free(offer, filter, self.few), None  # who is found passes
        elif filter is None or by is not None:
            lendable = offer.lendable()
        if by is not None:
            free = [e for e in lendable if not (whole and e.in_use)]
            passing = [e for e in free if self._passes(filter, e, now)]
            return self._route(by, passing, method, offer, now) if passing else None
        shared: list[Entry] = []
        most = math.inf if whole else WINDOW
        if filter is None:
            found = self._first_idle(lendable, shared, most)
        else:
            found = self._shielded(self._look_for, offer, filter, shared, most, now)
        if found is None and shared and not whole:
            return self._route("least_wait", shared, method, offer, now)
        return found

    @staticmethod
    def _first_idle(lendable: Iterable[Entry], shared: list[Entry], most: float) -> Entry | None:
        """A conn that nobody uses: none is expected to be free sooner.  Those met on the way that
        have but a free place are gathered, as many as a choice is made among."""
        for entry in lendable:
            if not entry.in_use:
                return entry
            shared.append(entry)
            if len(shared) == most:
                break
        return None

    def _look_for(
        self,
        offer: Offer,
        filter: Callable[[Any], Any],
        shared: list[Entry],
        most: float,
        now: float,
    ) -> Entry | None:
        """The same among those that pass the filter: the one loop here that may be long, and its
        length is the user's choice.  Of a long rotation a few are asked, then those that passed
        when they were last looked for, and then all the others."""
        group = offer.only
        if group is None or len(group.free) <= LOOK * self.few:
            return _first_passing(offer.candidates(), filter, shared, most, now)
        free = iter(group.free)
        found = _first_passing(islice(free, LOOK * self.few), filter, shared, most, now)
        if found is not None or len(shared) == most:
            return found
        if group.hunches is None:
            group.hunches = Hunches()
        likely = [e for e in group.hunches.of(filter, group.members) if e.listed]
        found = _first_passing(chain(likely, free), filter, shared, most, now)
        if found is not None:
            group.hunches.note(filter, found)
        return found

    def _route(
        self, by: Any, candidates: list[Entry], method: Hashable, offer: Offer, now: float
    ) -> Entry:
        def views(entry: Entry) -> Any:
            return view(entry, now)

        args = (by, candidates, method, now, self._rng, offer, views)
        if isinstance(by, (str, routing.sticky)):
            return routing.choose(*args)
        chosen: Entry = self._shielded(routing.choose, *args)
        return chosen

    def _lend(self, entry: Entry, filter: Any, who: Any, now: float, whole: bool = False) -> None:
        """Take a place of a listed entry; it goes to the end of the rotation, or leaves it.

        One that was found for a filter deep in a long rotation stays where it lies: to take it out
        of there would be a scan.
        """
        assert entry.group is not None
        free = entry.group.free
        deep = (
            filter is not None
            and free[0] is not entry
            and len(free) > LOOK * self.few
            and (filter.__class__ is Where or entry not in islice(free, LOOK * self.few))
        )
        if entry.in_use and not deep:
            # Nobody idle was found, so those before it are busier (or do not pass): they go to the
            # end too, or the busiest would gather at the front and be all that is looked at.
            free.rotate(-free.index(entry))
        if whole:
            entry.take_all(who, now)
        else:
            entry.take_place(who, now)
        if deep:
            entry.stay_away()
            return
        if free[0] is entry:
            free.popleft()
        else:
            free.remove(entry)
        entry.listed = entry.in_use < entry.capacity
        if entry.listed:
            free.append(entry)


def _first_passing(
    among: Iterable[Entry],
    filter: Callable[[Any], Any],
    shared: list[Entry],
    most: float,
    now: float,
) -> Entry | None:
    """One of these that passes and that nobody uses; who has but a free place is gathered."""
    for entry in among:
        if entry.state is not READY or entry.in_use >= entry.capacity:
            continue  # stale: it may have left the pool
        shown = entry.view
        if shown is None:
            shown = view(entry, now)
        shown._now = now
        if filter(shown):
            if not entry.in_use:
                return entry
            if lendable(entry):
                shared.append(entry)
                if len(shared) == most:
                    break
    return None


def _truth(filter: Callable[[Any], Any], shown: Any) -> bool:
    """What a filter says, as yes or no: that too may be the user's code."""
    return bool(filter(shown))
