"""Leasing: conns that users hold themselves, from a checkout to its end.

Owns the lending of whole conns and of places in them, their return, and what becomes of a lease
that nobody gives back.  Refuses to know what is done with a conn meanwhile.

Invariants: a whole conn is lent when nobody uses it, and nobody else uses it until it is back; a
lease ends once, and what is said of it later changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from . import outcome
from .book import Book
from .entry import READY, Entry, snapshot
from .lending import LOOKOUT
from .permits import Forsaken


class Leasing(Book):
    """The tenth storey of the core."""

    __slots__ = ()

    def lease(
        self,
        resource: Hashable,
        method: Hashable,
        filter: Any,
        by: Any,
        who: Any,
        now: float,
        whole: bool,
    ) -> Entry | None:
        """A whole conn that is free now, or a place in one, or None: then `submit` a ticket.

        What one place costs for a call it costs here; a whole conn with several places may have to
        be searched for.
        """
        if now >= self.due:
            self.tick(now)
        if not self.leasing:
            self.begin_leasing(now)
        try:
            offer = self._listings[resource].offers[method]
        except KeyError:
            return None
        free = offer.free
        if by is None and filter is None and free:
            entry = free[0]
            if entry.state is READY and not entry.in_use and entry.users is None:
                free.popleft()
                entry.in_use = 1
                entry.user = who
                entry.since = now
                entry.listed = False
                entry.whole = whole
                return entry
        chosen = self._choose(offer, method, filter, by, now, whole)
        if chosen is not None:
            self._lend(chosen, filter, who, now, whole)
        return chosen

    def begin_leasing(self, now: float) -> None:
        """From now on leases may be lost, and those who wait already may wait for one."""
        self.leasing = True
        if self.waiting:
            self._arm(self._lookout, now + LOOKOUT)

    def release(self, entry: Entry, who: Any, now: float) -> None:
        """A lease comes back, and its conn is well."""
        if entry.whole and entry.user is who and entry.users is None:
            # Nearly always: the same as below, without the questions.
            entry.whole = False
            entry.in_use = 0
        elif not self._gave_back(entry, who):
            return
        entry.last_call = now
        entry.checkouts += 1
        entry.recover()
        self._came_back(entry, now)

    def forfeit(
        self,
        entry: Entry,
        who: Any,
        ended: outcome.Outcome,
        now: float,
        cause: BaseException | None = None,
    ) -> None:
        """A lease comes back otherwise: `ended` says what is to become of its conn."""
        if now >= self.due:
            self.tick(now)
        if self._gave_back(entry, who):
            self._parted(entry, ended, now, cause)

    def _parted(
        self, entry: Entry, ended: outcome.Outcome, now: float, cause: BaseException | None
    ) -> None:
        """A lease is over; `ended` says what is to become of its conn."""
        entry.last_call = now
        self._tally.checkouts += not ended.moves
        self._tally.moved += ended.moves
        self._ended(entry, ended.end, ended.rest, now, cause)

    @staticmethod
    def _gave_back(entry: Entry, who: Any) -> bool:
        """Take back what `who` holds, unless that has been done."""
        if not entry.held_by(who):
            # While he was there, a call of his on a conn that he shared was his by either name, and
            # either was crossed out when it was over.
            who = getattr(who, "alias", who)
        if not entry.in_use or not entry.held_by(who):
            return False
        entry.leave_place(who)
        return True

    # -- leases that nobody gives back ---------------------------------------------------------

    def forsake(self, entry: Entry, who: Any, where: Any, now: float) -> None:
        """A lease is lost, and with it whatever was done with its conn.

        One that its user had for himself is given up.  Of one that is shared only the place comes
        back, as after a call: it is not for one of them to close it under the others.
        """
        if now >= self.due:
            self.tick(now)
        stays = not entry.whole and max(entry.capacity, entry.in_use) > 1
        told = Forsaken(snapshot(entry, now), where, stays)
        if self._gave_back(entry, who):
            self._tally.lost += 1
            self.steps.append(told)
            self._parted(entry, outcome.Outcome(end=None if stays else outcome.FORSAKEN), now, None)

    def orphaned(self, mourn: Callable[[Any], Any]) -> bool:
        """Whether conns are held by some who are gone: `mourn` gives their ghosts, None for others.

        Nothing is taken from them, for their leases may be in other hands: see `connpool.leases`.
        But from now on the core knows only the ghosts, and no error that came of a lost call:
        who is gone may have left an error behind that refers to his lease, and so would the pool.
        """
        found = False
        for entry in self.entries.values():
            for holder in tuple(entry.holders):
                if (ghost := mourn(holder)) is not None:
                    entry.rename(holder, ghost)
                    found = True
        if found:
            for listing in self._listings.values():
                listing.last_error = None
        return found
