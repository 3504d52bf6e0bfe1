"""The life of a conn: born, put to rest, found dead, revived, taken out, dropped.

Owns every change of an entry's state, and the permits that go with them.  Refuses to know what a
caller asked for.

Invariants: an entry out of service goes one step on only when nobody uses it and no permit for it
is out; every conn that was opened is closed once, or handed over by a pop; at most
`max_connecting` permits to open hold a slot.
"""

from __future__ import annotations

import math
from typing import Any

from ..conn import Description
from ..errors import PoolClosed, show
from . import outcome, revive
from .candidates import Group
from .care import Care
from .entry import (
    COOLING,
    DRAINING,
    GONE,
    LIVE,
    OPENING,
    READY,
    REVIVING,
    Entry,
    Info,
    move,
    snapshot,
)
from .lending import LOOKOUT, Lookout
from .permits import LOOK, Permit, Work
from .supply import Supply
from .waiting import Pop

# Two inits of one conn are at least this far apart, or a tiny ttl would make a busy loop.
SHORTEST_LIFE = 0.05


class Life(Care):
    """The sixth storey of the core: births, deaths and what lies between."""

    __slots__ = ()

    def admit(
        self,
        conn: Any,
        *,
        setup: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        given: bool = False,
        now: float,
    ) -> Permit:
        """A place for `conn`, and the permit to open it: `opened` or `open_failed` ends it.

        `given`: it is open already.
        """
        self.tick(now)
        if self.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        if id(conn) in self._conns:
            raise ValueError(f"pool {self.name!r} holds the conn {show(conn)} already")
        self._refuse_oversize()
        self._last_id += 1
        entry = Entry(self._last_id, conn, extra, ttl, revive, setup)
        self.entries[entry.id] = self._conns[id(conn)] = entry
        permit = self._issue(Work.OPEN, entry, math.inf, now)
        permit.given = given
        return permit

    def opened(self, permit: Permit, what: Description, rest: float, now: float) -> Info | None:
        """The conn is open.  Its picture, or None where it came too late and is closed again.

        Raises where it cannot be listed under what it names: that counts as a failure to open it.
        """
        entry = permit.entry
        self._take_back(permit, now)
        self._tally.opened += 1
        entry.open = True
        info = None
        if entry.state is OPENING or entry.state is REVIVING:
            group = self._group_of(permit, what, now)
            if entry.state is OPENING and entry.supply is not None:
                self._born(entry, entry.supply, what)
            self._begin(entry, group, what, rest, now)
            if entry.supply is not None:
                self._more_of(entry.supply, now)
            info = snapshot(entry, now)
        elif entry.state is GONE:
            if not permit.given:  # what its owner has opened is for its owner to close
                self._close(entry, outcome.POOL_CLOSED, now).info = None  # it was never announced
        elif entry.popper is not None:  # it is his who pops it, or else goes back into service
            entry.learn(what)
            self._renew(entry, rest, now)
            entry.popper.news[entry], info = what, snapshot(entry, now)
            self._onward(entry, now)
        else:
            self._onward(entry, now)
            assert entry.permit is not None  # to close it: nobody can use what was being opened
            entry.permit.info = None  # nor was this one announced
        self._grant_openings(now)
        return info

    def _group_of(self, permit: Permit, what: Description, now: float) -> Group:
        """Where a conn that has come is to be listed."""
        try:
            return self._directory.group(what)
        except Exception as error:  # of what it names
            entry = permit.entry
            self._tally.opened -= 1
            self._failed(entry, error, now)
            if entry.state is GONE and not permit.given:
                self._close(entry, outcome.POOL_CLOSED, now)
            if entry.permit is not None:
                entry.permit.info = None  # it was never announced
            raise

    def _born(self, entry: Entry, supply: Supply, what: Description) -> None:
        """A supplied conn has come to life."""
        entry.ttl = supply.lifetime(self._rng)
        supply.methods = what.methods
        supply.succeeded()

    def _more_of(self, supply: Supply, now: float) -> None:
        """A supply has one conn more: who hoped for it may hope for other things now."""
        self._recheck(supply, (supply.listing,), now)
        self._ask_starved()  # nobody may need the new one here
        self._ask_for_more(supply)  # while openings failed, one was tried at a time
        self._grant_openings(now)

    def _begin(
        self, entry: Entry, group: Group, what: Description, rest: float, now: float
    ) -> None:
        if entry.state is REVIVING:
            self._tally.revived += 1
        self._regroup(entry, group, what, now)
        self._renew(entry, rest, now)
        self._blame(entry, None, now)  # it is well again: what went wrong explains nothing any more
        self._plan_ping(entry, now)
        self._move(entry, COOLING if rest else READY)
        if not rest and entry.expires > now:
            self._serve(entry, now)
        self._rearm(entry, now)

    def _renew(self, entry: Entry, rest: float, now: float) -> None:
        """It is as good as new: what it did before counts no more."""
        entry.lives += 1
        entry.last_init, entry.last_call = now, None
        entry.rest_until = now + rest if rest else now
        entry.broken, entry.reason = False, ""
        self._set_ttl(entry, now)

    def _regroup(self, entry: Entry, group: Group, what: Description, now: float) -> None:
        """List the conn under what it names now; what it named before may have changed."""
        before = entry.group
        if before is not None and entry.id in before.members:
            if before is not group:
                self._directory.strike(entry)
                entry.learn(what)
                self._directory.enlist(entry, group, what)
                self._directory.drop(before)
                self._recheck(entry, before.listings, now)
                return
            group.askable -= entry.askable
            entry.learn(what)
            group.askable += entry.askable
            entry.set_capacity(what.capacity)
            return
        entry.learn(what)
        self._directory.enlist(entry, group, what)

    def open_failed(self, permit: Permit, error: BaseException, now: float) -> None:
        """The conn could not be opened: forget it, or try again when its time comes."""
        entry = permit.entry
        self._take_back(permit, now)
        if permit.given_up:
            self._grant_openings(now)
            return
        self._failed(entry, error, now)

    def _failed(self, entry: Entry, error: BaseException, now: float) -> None:
        self._tally.open_failed += 1
        if entry.state is OPENING and entry.supply is not None:
            self._stillborn(entry, entry.supply, error, now)
        elif entry.state is OPENING:
            self._forget(entry)
            self._grant_openings(now)
        elif entry.state is REVIVING:
            self._try_later(entry, error, now)
        elif entry.state is not GONE:
            self._onward(entry, now)
        self._grant_openings(now)

    def _stillborn(self, entry: Entry, supply: Supply, error: BaseException, now: float) -> None:
        """A supply could not open a conn: when it tries again, or that it never will."""
        listing = supply.listing
        listing.last_error = error
        self._note(supply.resource, error, now)
        supply.failed(error, bool(listing.line), now, self.options.backoff, self._rng)
        self._forget(entry)
        self._grant_openings(now)
        if supply.over is not None:
            self._recheck(supply, (listing,), now)
        else:
            self._arm(supply, supply.retry_at)

    def _try_later(self, entry: Entry, error: BaseException, now: float) -> None:
        self._blame(entry, error, now)
        # The first failure of a streak is the death itself.
        attempt = max(1, entry.falter() - 1)
        wait = revive.after_failure(error, attempt, self.options.backoff, self._rng)
        if math.isinf(wait):
            self._tally.ended[outcome.GAVE_UP] += 1
            self._withdraw(entry, now)
        else:
            entry.rest_until = now + wait
            self._onward(entry, now)

    # -- death ---------------------------------------------------------------------------------

    def _retire(
        self, entry: Entry, reason: str, now: float, error: BaseException | None = None
    ) -> None:
        """Take a live conn out of service, to be revived or to be dropped."""
        self._tally.ended[reason] += 1
        entry.broken = reason in outcome.BROKEN
        if error is not None:
            self._blame(entry, error, now)
        if entry.supply is not None and reason not in outcome.UNWANTED:
            self._lost(entry, entry.supply, reason, now)
        if error is not None and reason in outcome.LOST:
            self._suspect_peers(entry, error, now)
        if not self._comes_back(entry, reason):
            supply = entry.supply
            self._withdraw(entry, now, reason)
            if supply is not None:  # another may be opened though this one is still in use
                self._ask_for_more(supply)
                self._grant_openings(now)
            return
        self._move(entry, REVIVING)
        self._disappoint_users(entry, now)
        entry.rest_until = self._earliest_return(entry, reason, now)
        self._onward(entry, now, reason)

    def _lost(self, entry: Entry, supply: Supply, reason: str, now: float) -> None:
        """A supplied conn has died or expired: it is replaced, but never in a busy loop."""
        supply.lost(entry.revive, replace=reason != outcome.DONE)
        assert entry.last_init is not None
        if reason in outcome.LOST:
            if entry.checkouts or any(stat.answers for stat in (entry.stats or {}).values()):
                supply.young = 0
            else:
                waiting = bool(supply.listing.line)
                supply.died_young(
                    entry.last_init, entry.id, self._last_id, waiting, now, self.options.backoff,
                    self._rng,
                )  # fmt: skip
        elif reason == outcome.EXPIRED:
            supply.pause(entry.last_init + SHORTEST_LIFE)
        if supply.retry_at > now:
            self._arm(supply, supply.retry_at)

    def _comes_back(self, entry: Entry, reason: str) -> bool:
        if self.closed or reason == outcome.WITHDRAWN or entry.supply is not None:
            return False  # a supplied one is not revived, but replaced
        return entry.revive == "force" or (bool(entry.revive) and reason != outcome.DONE)

    def _earliest_return(self, entry: Entry, reason: str, now: float) -> float:
        """A conn that dies before it has answered one call has failed to start, in effect.

        One that its user has spoilt has not.
        """
        if reason in outcome.BROKEN - outcome.LOST:
            return now
        if reason not in outcome.LOST:
            assert entry.last_init is not None
            return max(now, entry.last_init + SHORTEST_LIFE)
        streak = entry.falter()
        return now if streak == 1 else now + self.options.backoff.delay(streak - 1, self._rng)

    def _blame(self, entry: Entry, error: BaseException | None, now: float) -> None:
        """Remember the failure for those who will ask why they waited in vain."""
        assert entry.group is not None
        for listing in entry.group.listings:
            listing.last_error = error
        if error is not None:
            self._note(entry.group.resource, error, now)

    def _withdraw(self, entry: Entry, now: float, reason: str = "") -> None:
        """Take the conn off the lists for good; those who waited for it look elsewhere."""
        assert entry.group is not None
        self._directory.strike(entry)
        self._directory.drop(entry.group)
        if entry.supply is not None:
            entry.supply.leaving += 1
            self._ask_for_more(entry.supply)
        if entry.state in LIVE:
            self.live -= 1
        move(entry, DRAINING)
        self._recheck(entry, entry.group.listings, now)
        self._onward(entry, now, reason)

    def _onward(self, entry: Entry, now: float, reason: str = "") -> None:
        """One step on for a conn out of service, if nobody uses it and no permit is out.

        A broken one is closed even while it is used: that frees those who hang on it.
        """
        entry.reason = reason or entry.reason
        if entry.permit is not None:
            self._vacate(entry, now)  # one step at a time: it goes on when the permit is back
        elif entry.popper is not None:
            if not entry.in_use:
                self._count_popped(entry.popper, now)
        elif entry.open:
            if not entry.in_use or entry.broken:
                if not entry.in_use:
                    self._uncount(entry)
                self._close(entry, entry.reason, now)
        elif not entry.in_use:
            if entry.state is REVIVING:
                self._open_when_due(entry, now)
            else:
                self._forget(entry)
        self._grant_openings(now)

    def _close(self, entry: Entry, reason: str, now: float) -> Permit:
        entry.open = False
        permit = self._issue(Work.CLOSE, entry, self.options.connect_timeout, now)
        permit.reason = reason
        permit.info = snapshot(entry, now)
        self.steps.append(permit)
        return permit

    def closed_one(self, permit: Permit, now: float) -> None:
        """The conn is closed, or closing it failed, which is the same to the pool."""
        self._take_back(permit, now)
        if permit.entry.state is not GONE:
            self._onward(permit.entry, now)

    def _count_popped(self, pop: Pop, now: float) -> None:
        """Tell who pops once nobody uses the conns; they are his when he comes for them."""
        if not pop.done and pop.begun and not any(e.in_use or e.permit for e in pop.entries):
            pop.done = True
            self.steps.append(pop)

    # -- the passing of time -------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do all that is due.  Deadlines that passed come first: nobody is served after his."""
        if self.due == -math.inf:
            raise RuntimeError(
                f"pool {self.name!r}: a filter or a router may not call the pool it serves"
            )
        self._expire_tickets(math.nextafter(now, -math.inf))
        while (entry := self._alarms.pop(now)) is not None:
            self._ring(entry, now)
        self._expire_tickets(now)
        self._serve_unclaimed(now)  # not before: one may have expired just now
        self._set_due()

    def _ring(self, entry: Entry | Supply | Lookout, now: float) -> None:
        """The clockwork rings: do what is due, and set the next alarm."""
        if isinstance(entry, Lookout):
            if self.waiting:
                self.steps.append(LOOK)
                self._arm(entry, now + LOOKOUT)
            return
        if isinstance(entry, Supply):
            if now < entry.retry_at:  # an alarm may come early, never late
                self._arm(entry, entry.retry_at)
            else:
                self._ask_for_more(entry)
                self._grant_openings(now)
            return
        if entry.permit is not None and entry.permit.due <= now:
            self._overdue(entry, entry.permit, now)
        elif entry.state in LIVE and entry.expires <= now:
            self._retire(entry, outcome.EXPIRED, now)
        elif entry.state is READY and entry.supply is not None and not entry.in_use:
            self._look_after(entry, entry.supply, now)
        elif entry.state is COOLING and entry.rest_until <= now:
            self._move(entry, READY)
            self._free_again(entry, now)
        elif entry.state is REVIVING and entry.permit is None and not entry.open:
            self._onward(entry, now)
        self._rearm(entry, now)
