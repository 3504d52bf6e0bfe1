"""Leasing: conns that users hold themselves, from a checkout to its end.

Owns the lending of whole conns and of places in them, their return, and what becomes of a lease
that nobody gives back.  Refuses to know what is done with a conn meanwhile.

Invariants: a whole conn is lent when nobody uses it, and nobody else uses it until it is back; a
lease ends once, and what is said of it later changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from . import outcome
from .book import Book
from .entry import READY, Entry, snapshot
from .lending import LOOKOUT
from .permits import Forsaken


class Leasing(Book):
    """The ninth storey of the core."""

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
            self._begin_leasing(now)
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
            self._lend(chosen, who, now, whole)
        return chosen

    def _begin_leasing(self, now: float) -> None:
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
        if entry.trouble is not None:
            entry.recover()
        group = entry.group
        if entry.state is not READY or group is None or now >= self.due or self._starved:
            self._returned(entry, now)
        elif self.waiting and (group.line is None or group.line.needs):
            self._serve(entry, now)
        elif not entry.listed:
            entry.listed = True
            group.free.append(entry)
            if group.shut:
                group.reopen()

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
            entry.last_call = now
            self._tally.checkouts += not ended.moves
            self._tally.moved += ended.moves
            self._ended(entry, ended.end, ended.rest, now, cause)

    @staticmethod
    def _gave_back(entry: Entry, who: Any) -> bool:
        """Take back what `who` holds, unless that has been done."""
        if not entry.in_use or not entry.held_by(who):
            return False
        entry.leave_place(who)
        return True

    # -- leases that nobody gives back ---------------------------------------------------------

    def forsake(self, entry: Entry, who: Any, where: Any, now: float) -> None:
        """A lease is lost, and with it whatever was done with its conn: the conn is given up."""
        if now >= self.due:
            self.tick(now)
        if entry.in_use and entry.held_by(who):
            self._tally.lost += 1
            self.steps.append(Forsaken(snapshot(entry, now), where))
            self.forfeit(entry, who, outcome.Outcome(end=outcome.FORSAKEN), now)

    def reclaim(
        self,
        gone: Callable[[Any], bool],
        now: float,
        marks: Iterable[tuple[Entry, Any, Any]] = (),
    ) -> None:
        """Take back what those hold who are gone: a look at every conn in use.

        `marks` say who has taken a place of which conn where; of one that several share the entry
        knows only where the last was taken.
        """
        known = list(marks)
        for entry in tuple(self.entries.values()):
            for holder in tuple(entry.owners):
                if gone(holder):
                    found = [m for m in known if m[0] is entry and m[1] is holder][:1]
                    where = entry.where
                    for mark in found:
                        known.remove(mark)  # he may have taken several
                        where = mark[2]
                    self.forsake(entry, holder, where, now)
