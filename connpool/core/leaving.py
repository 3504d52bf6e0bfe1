"""Leaving: conns that are taken out by hand, and the end of the whole pool.

Owns pops, which may be given up, and the close.  Refuses to know how a conn dies by itself.

Invariants: a pop takes all of its conns or none; after `close` nothing new begins; after `abandon`
the core holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..conn import Description
from ..errors import IdError, NestedCall, PoolClosed, PoolTimeout
from . import outcome
from .entry import CHECKING, COOLING, HOPEFUL, LIVE, OPENING, READY, REVIVING, Entry, Info, snapshot
from .supplying import Supplying
from .waiting import Pop


class Leaving(Supplying):
    """The eighth storey of the core."""

    __slots__ = ()

    # -- taking out ----------------------------------------------------------------------------

    def pop(self, entries: Iterable[Entry], who: Any, now: float) -> Pop:
        """Begin to take conns out.  Done when `done`; `unpop` gives it up."""
        taken = list(entries)
        pop = Pop(taken)
        for entry in taken:
            if who is not None and entry.held_by(who):
                raise NestedCall(
                    f"pool {self.name!r}: a pop of conn {entry.id} from inside a call that it "
                    "runs would wait for itself",
                    pool=self.name,
                    resource=entry.group.resource if entry.group else None,
                )
            if entry.state not in HOPEFUL:
                raise IdError(
                    f"pool {self.name!r}: conn {entry.id} is already leaving",
                    pool=self.name,
                    id=entry.id,
                )
        for entry in taken:
            entry.popper = pop
            self._withdraw(entry, now)
        pop.begun = True
        self._count_popped(pop, now)
        return pop

    def popped(self, pop: Pop, timeout: float, waited: float, now: float) -> list[Info]:
        """Who pops has come for the conns: from here on they are his.  Where they are not free yet
        his time is over, and the pop is given up."""
        if pop.error is not None:
            raise pop.error
        if not pop.done:
            self.unpop(pop, now)
            raise PoolTimeout(
                f"pool {self.name!r}: the calls on {len(pop.entries)} conns to be popped did not "
                "end in time",
                pool=self.name,
                waited=waited,
                timeout=timeout,
            )
        pop.over = True
        pop.infos = [snapshot(entry, now) for entry in pop.entries]
        for entry in pop.entries:
            self._tally.ended[outcome.POPPED] += 1
            entry.open, entry.popper = False, None
            self._forget(entry)
        self._grant_openings(now)
        return pop.infos

    def unpop(self, pop: Pop, now: float) -> None:
        """Give a pop up: its conns go back into service."""
        if pop.over:
            return
        pop.done = pop.over = True
        for entry in pop.entries:
            entry.popper = None
            if self.closed:
                self._onward(entry, now, outcome.POOL_CLOSED)
            else:
                self._reinstate(entry, pop.news.get(entry), now)
        for supply in dict.fromkeys(entry.supply for entry in pop.entries):
            if supply is not None and supply.hopeful:  # they will make no room for others
                self._recheck(supply, (self._listings[supply.resource],), now)

    def _reinstate(self, entry: Entry, news: Description | None, now: float) -> None:
        before = entry.group
        assert before is not None
        resources = tuple(listing.resource for listing in before.listings)
        what = Description(before.resource, resources, before.methods, entry.capacity)
        try:
            group = self._directory.group(news or what)
        except Exception:  # of what it names, by now: nobody could ask for it
            self._onward(entry, now, outcome.DEAD)
            return
        if entry.supply is not None:
            entry.supply.leaving -= 1
        self._directory.enlist(entry, group, news or what)
        if not entry.open:
            self._move(entry, REVIVING)
            self._onward(entry, now)
        elif entry.reason:  # it was to leave before the pop, or has said so since
            self._move(entry, READY)
            self._retire(entry, entry.reason, now)
        elif entry.permit is not None:  # it is being asked whether it is well
            self._move(entry, CHECKING)
            self._rearm(entry, now)  # its time may have come while it was out
        else:
            self._move(entry, COOLING)
            self._arm(entry, now)  # whatever rang while it was out did so in vain
            self.tick(now)

    # -- the end -------------------------------------------------------------------------------

    def close(self, now: float) -> None:
        """No new work: waiters are told, conns close as soon as nobody uses them."""
        if self.closed:
            return
        self.closed = True
        for listing in tuple(self._listings.values()):
            for ticket in listing.line.tickets():
                self._fail(ticket, PoolClosed(f"pool {self.name!r} was closed", pool=self.name))
        self._unclaimed.clear()
        for entry in tuple(self.entries.values()):
            if entry.state is OPENING:
                self._forget(entry)
            elif entry.state in LIVE:
                self._retire(entry, outcome.POOL_CLOSED, now)
            elif entry.state is REVIVING:
                self._withdraw(entry, now, outcome.POOL_CLOSED)
            elif entry.popper is not None:
                entry.popper.error = PoolClosed(f"pool {self.name!r} was closed", pool=self.name)
                if not entry.popper.done:  # or its waiter has been woken already
                    self.steps.append(entry.popper)
                self.unpop(entry.popper, now)
        self._end_supplies()

    def abandon(self, now: float) -> list[Info]:
        """The time to close is over: close what is still used, forget what still hangs.

        Gives the pictures of the conns that nobody gave back.
        """
        left = [entry for entry in self.entries.values() if entry.in_use or entry.permit]
        pictures = [snapshot(entry, now) for entry in left]
        for entry in left:
            if entry.open:
                self._close(entry, outcome.POOL_CLOSED, now)
            self._forget(entry)
        return pictures
