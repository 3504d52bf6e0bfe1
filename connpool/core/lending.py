"""Lending: which of the free conns a newcomer gets.

Owns the state that all storeys share, the clock's next stroke, the shield around users' filters,
and the choice.  Refuses to know who waits.

Invariant: to choose changes nothing; a filter or a router runs behind the shield only, so that it
cannot call the pool it serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

from . import routing
from .candidates import WINDOW, Directory, Offer, lendable
from .entry import READY, Entry, view
from .permits import ALARM
from .stats import Tally
from .supply import Supply
from .timers import Timers
from .waiting import Deadlines, Need

# Seconds between two looks at whether those who hold conns are still there, while others wait.
LOOKOUT = 1.0


class Lookout:
    """Rings while somebody waits and conns are checked out: a lease may have been lost."""

    id = 0  # entries count up from 1, supplies down from -1
    alarm = math.inf


class Lending:
    """The lowest storey of the core: entries, tickets, and the clockwork both hang on."""

    def __init__(
        self,
        name: str,
        max_waiting: int | None,
        rng: Callable[[], float],
        whoami: Callable[[], Any],
    ) -> None:
        self.name = name
        self.closed = False
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

    def _passes(self, filter: Callable[[Any], Any] | None, entry: Entry, now: float) -> bool:
        return filter is None or self._shielded(_truth, filter, view(entry, now))

    # -- lending -------------------------------------------------------------------------------

    def _choose(
        self, offer: Offer, method: Hashable, filter: Any, by: Any, now: float, whole: bool = False
    ) -> Entry | None:
        """A lendable conn for the request, or None.  Changes nothing.

        Who wants a `whole` one may have to be shown every conn that has a free place.
        """
        if by is not None:
            free = [e for e in offer.lendable() if not (whole and e.in_use)]
            passing = [e for e in free if self._passes(filter, e, now)]
            return self._route(by, passing, method, offer, now) if passing else None
        shared: list[Entry] = []
        most = math.inf if whole else WINDOW
        if filter is None:
            found = self._first_idle(offer, shared, most)
        else:
            found = self._shielded(self._first_passing, offer, filter, shared, most, now)
        if found is None and shared and not whole:
            return self._route("least_wait", shared, method, offer, now)
        return found

    @staticmethod
    def _first_idle(offer: Offer, shared: list[Entry], most: float) -> Entry | None:
        """A conn that nobody uses: none is expected to be free sooner.  Those met on the way that
        have but a free place are gathered, as many as a choice is made among."""
        for entry in offer.lendable():
            if not entry.in_use:
                return entry
            shared.append(entry)
            if len(shared) == most:
                break
        return None

    @staticmethod
    def _first_passing(
        offer: Offer, filter: Callable[[Any], Any], shared: list[Entry], most: float, now: float
    ) -> Entry | None:
        """The same among those that pass the filter: the one loop here that may be long, and its
        length is the user's choice."""
        for entry in offer.candidates():
            if entry.state is not READY:
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

    @staticmethod
    def _lend(entry: Entry, who: Any, now: float, whole: bool = False) -> None:
        """Take a place of a listed entry; it goes to the end of the rotation, or leaves it."""
        assert entry.group is not None
        free = entry.group.free
        if free[0] is entry:
            free.popleft()
        else:
            free.remove(entry)
        if whole:
            entry.take_all(who, now)
        else:
            entry.take_place(who, now)
        entry.listed = entry.in_use < entry.capacity
        if entry.listed:
            free.append(entry)


def _truth(filter: Callable[[Any], Any], shown: Any) -> bool:
    """What a filter says, as yes or no: that too may be the user's code."""
    return bool(filter(shown))
