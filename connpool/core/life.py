"""The life of a conn: born, put to rest, found dead, revived, taken out, dropped.

Owns every change of an entry's state, and the permits that go with them.  Refuses to know what a
caller asked for.

Invariants: an entry out of service goes one step on only when nobody uses it and no permit for it
is out; every conn that was opened is closed once, or handed over by a pop; at most
`max_connecting` permits to open hold a slot.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..conn import Description
from ..errors import IdError, NestedCall, PoolClosed, PoolFull, show
from . import outcome, revive
from .desk import Desk
from .entry import (
    COOLING,
    DRAINING,
    GONE,
    HOPEFUL,
    LIVE,
    OPENING,
    READY,
    REVIVING,
    Entry,
    Info,
    State,
    move,
    snapshot,
)
from .options import Options
from .permits import Permit, Work
from .waiting import Pop

# Two inits of one conn are at least this far apart, or a tiny ttl would make a busy loop.
SHORTEST_LIFE = 0.05


class Life(Desk):
    """The middle storey of the core: births, deaths and what lies between."""

    def __init__(
        self, options: Options, rng: Callable[[], float], whoami: Callable[[], Any]
    ) -> None:
        super().__init__(options.name, options.max_waiting, rng, whoami)
        self.options = options
        self.entries: dict[int, Entry] = {}
        self.live = 0
        self.permits: set[Permit] = set()
        self._conns: dict[int, Entry] = {}  # by id(conn): an object is in the pool at most once
        self._last_id = 0
        self._connecting = 0
        self._to_open: deque[Entry] = deque()

    # -- birth ---------------------------------------------------------------------------------

    def admit(
        self,
        conn: Any,
        *,
        setup: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        now: float,
    ) -> Permit:
        """A place for `conn`, and the permit to open it: `opened` or `open_failed` ends it."""
        self.tick(now)
        if self.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        if id(conn) in self._conns:
            raise ValueError(f"pool {self.name!r} holds the conn {show(conn)} already")
        self._refuse_oversize()
        self._last_id += 1
        entry = Entry(self._last_id, conn, extra, ttl, revive, setup)
        self.entries[entry.id] = self._conns[id(conn)] = entry
        return self._issue(Work.OPEN, entry, math.inf)

    def _refuse_oversize(self) -> None:
        most = self.options.max_size
        if most is None or len(self.entries) < most:
            return
        leaving = sum(e.state is DRAINING and not e.in_use for e in self.entries.values())
        if len(self.entries) - leaving >= most:
            raise PoolFull(
                f"pool {self.name!r} holds {most} conns, max_size allows no more",
                pool=self.name,
                limit="max_size",
                most=most,
            )

    def opened(self, permit: Permit, what: Description, rest: float, now: float) -> Info | None:
        """The conn is open.  Its picture, or None where it came too late and is closed again."""
        entry = permit.entry
        self._settle(permit, now)
        self._tally.opened += 1
        entry.open = True
        if entry.state is OPENING or entry.state is REVIVING:
            self._begin(entry, what, rest, now)
            return snapshot(entry, now)
        if entry.state is GONE:
            self._close(entry, outcome.POOL_CLOSED, now).info = None  # it was never announced
        else:
            self._onward(entry, now)
        return None

    def _begin(self, entry: Entry, what: Description, rest: float, now: float) -> None:
        if entry.state is REVIVING:
            self._tally.revived += 1
        entry.last_init, entry.last_call = now, None
        entry.rest_until = now + rest
        entry.broken = False
        self._set_ttl(entry, now)
        self._regroup(entry, what, now)
        self._move(entry, COOLING if rest else READY)
        if rest:
            self._arm(entry, entry.rest_until)
        else:
            self._serve(entry, now)

    def _regroup(self, entry: Entry, what: Description, now: float) -> None:
        """List the conn under what it names now; what it named before may have changed."""
        group = entry.group
        if group is not None and entry.id in group.members:
            if group.methods == what.methods and group.resource == what.resource:
                entry.set_capacity(what.capacity)
                return
            self._directory.transfer(entry, what)
            self._recheck(entry, group.listings, now)
        else:
            self._directory.enlist(entry, what)

    def _set_ttl(self, entry: Entry, now: float) -> None:
        if entry.ttl is None or entry.last_init is None:
            entry.expires = math.inf
        else:
            entry.expires = entry.last_init + entry.ttl
            self._arm(entry, entry.expires)

    def open_failed(self, permit: Permit, error: BaseException, now: float) -> None:
        """The conn could not be opened: forget it, or try again when its time comes."""
        entry = permit.entry
        self._settle(permit, now)
        self._tally.open_failed += 1
        if entry.state is OPENING:
            self._forget(entry)
        elif entry.state is REVIVING:
            self._try_later(entry, error, now)
        elif entry.state is not GONE:
            self._onward(entry, now)

    def _try_later(self, entry: Entry, error: BaseException, now: float) -> None:
        self._blame(entry, error)
        entry.streak += 1
        # The first failure of a streak is the death itself.
        attempt = max(1, entry.streak - 1)
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
            self._blame(entry, error)
        if not self._comes_back(entry, reason):
            self._withdraw(entry, now, reason)
            return
        self._move(entry, REVIVING)
        entry.rest_until = self._earliest_return(entry, reason, now)
        self._onward(entry, now, reason)

    def _comes_back(self, entry: Entry, reason: str) -> bool:
        if self.closed:
            return False
        return entry.revive == "force" or (bool(entry.revive) and reason != outcome.DONE)

    def _earliest_return(self, entry: Entry, reason: str, now: float) -> float:
        """A conn that dies before it has answered one call has failed to start, in effect."""
        if reason not in outcome.BROKEN:
            assert entry.last_init is not None
            return max(now, entry.last_init + SHORTEST_LIFE)
        entry.streak += 1
        if entry.streak == 1:
            return now
        return now + self.options.backoff.delay(entry.streak - 1, self._rng)

    def _blame(self, entry: Entry, error: BaseException) -> None:
        """Remember the failure for those who will ask why they waited in vain."""
        if entry.group is not None:
            for listing in entry.group.listings:
                listing.last_error = error

    def _withdraw(self, entry: Entry, now: float, reason: str = "") -> None:
        """Take the conn off the lists for good; those who waited for it look elsewhere."""
        assert entry.group is not None
        self._directory.strike(entry)
        if entry.state in LIVE:
            self.live -= 1
        move(entry, DRAINING)
        self._recheck(entry, entry.group.listings, now)
        self._onward(entry, now, reason)

    def _onward(self, entry: Entry, now: float, reason: str = "") -> None:
        """One step on for a conn out of service, if nobody uses it and no permit is out.

        A broken one is closed even while it is used: that frees those who hang on it.
        """
        if entry.permit is not None:
            return
        if entry.popper is not None:
            if not entry.in_use:
                self._count_popped(entry.popper, now)
        elif entry.open:
            entry.reason = reason or entry.reason
            if not entry.in_use or entry.broken:
                self._close(entry, entry.reason, now)
        elif not entry.in_use:
            if entry.state is REVIVING:
                self._open_when_due(entry, now)
            else:
                self._forget(entry)

    def _close(self, entry: Entry, reason: str, now: float) -> Permit:
        entry.open = False
        permit = self._issue(Work.CLOSE, entry, now + self.options.connect_timeout)
        permit.reason = reason
        permit.info = snapshot(entry, now)
        self.steps.append(permit)
        return permit

    def closed_one(self, permit: Permit, now: float) -> None:
        """The conn is closed, or closing it failed, which is the same to the pool."""
        self._settle(permit, now)
        if permit.entry.state is not GONE:
            self._onward(permit.entry, now)

    def _forget(self, entry: Entry) -> None:
        move(entry, GONE)
        self._alarms.clear(entry)
        self._set_due()
        for stat in (entry.stats or {}).values():
            self._tally.calls += stat.count
            self._tally.errors += stat.errors
        entry.stats = None
        del self.entries[entry.id]
        del self._conns[id(entry.conn)]

    # -- permits -------------------------------------------------------------------------------

    def _issue(self, work: Work, entry: Entry, due: float) -> Permit:
        permit = Permit(work, entry, due)
        entry.permit = permit
        self.permits.add(permit)
        if due != math.inf:
            self._arm(entry, due)
        return permit

    def _settle(self, permit: Permit, now: float) -> None:
        """A permit came back."""
        if permit not in self.permits:
            raise RuntimeError(f"the permit to {permit.work.value} came back twice")
        self.permits.discard(permit)
        if permit.entry.permit is permit:
            permit.entry.permit = None
        self._free_slot(permit, now)

    def _free_slot(self, permit: Permit, now: float) -> None:
        if permit.holds_slot:
            permit.holds_slot = False
            self._connecting -= 1
            self._grant_openings(now)

    def _open_when_due(self, entry: Entry, now: float) -> None:
        if entry.rest_until <= now:
            self._to_open.append(entry)
            self._grant_openings(now)
        else:
            self._arm(entry, entry.rest_until)

    def _grant_openings(self, now: float) -> None:
        """Hand out permits to open while there are slots, in the order they were asked for."""
        while self._to_open and self._connecting < self.options.max_connecting:
            entry = self._to_open.popleft()
            if _may_open(entry, now):
                permit = self._issue(Work.OPEN, entry, now + self.options.connect_timeout)
                permit.holds_slot = True
                self._connecting += 1
                self.steps.append(permit)

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
        self._set_due()

    def _ring(self, entry: Entry, now: float) -> None:
        """The clockwork rings for `entry`: do what is due, and set the next alarm."""
        permit = entry.permit
        if permit is not None and permit.due <= now:
            permit.overdue = True
            self._free_slot(permit, now)
        elif entry.state in LIVE and entry.expires <= now:
            self._retire(entry, outcome.EXPIRED, now)
        elif entry.state is COOLING and entry.rest_until <= now:
            self._move(entry, READY)
            self._serve(entry, now)
        elif entry.state is REVIVING and permit is None and not entry.open:
            self._onward(entry, now)
        due = self._next_alarm(entry, now)
        if due < math.inf:
            self._arm(entry, due)

    @staticmethod
    def _next_alarm(entry: Entry, now: float) -> float:
        if entry.permit is not None:
            return entry.permit.due if entry.permit.due > now else math.inf
        if entry.state is COOLING:
            return min(entry.expires, entry.rest_until)
        return entry.expires if entry.state is READY else math.inf

    def _rest(self, entry: Entry, seconds: float, now: float) -> None:
        """Let a live conn rest: nothing new is given to it before `now + seconds`."""
        if entry.state not in LIVE or seconds <= 0:
            return
        self._tally.rests += 1
        entry.rest_until = max(entry.rest_until, now + seconds)
        if entry.state is READY:
            self._move(entry, COOLING)
        self._arm(entry, entry.rest_until)

    def _move(self, entry: Entry, state: State) -> None:
        """Move, and keep count of what is alive."""
        change = (state in LIVE) - (entry.state in LIVE)
        move(entry, state)
        if change:
            self.live += change
            self._directory.count(entry, change)

    # -- taking out ----------------------------------------------------------------------------

    def pop(self, entries: Iterable[Entry], who: Any, now: float) -> Pop:
        """Begin to take conns out.  Done when `done`; `unpop` gives it up."""
        taken = list(entries)
        pop = Pop(taken)
        for entry in taken:
            if who is not None and entry.held_by_only(who):
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

    def _count_popped(self, pop: Pop, now: float) -> None:
        busy = any(e.in_use > 0 or e.permit is not None for e in pop.entries)
        if pop.begun and not busy and not pop.done:
            pop.done = True
            for entry in pop.entries:
                self._tally.ended[outcome.POPPED] += 1
                pop.infos.append(snapshot(entry, now))
                entry.open = False
                self._forget(entry)
            self.steps.append(pop)

    def unpop(self, pop: Pop, now: float) -> None:
        """Give a pop up: its conns go back into service."""
        if pop.done:
            return
        pop.done = True
        for entry in pop.entries:
            entry.popper = None
            if self.closed:
                self._onward(entry, now, outcome.POOL_CLOSED)
            else:
                self._reinstate(entry, now)

    def _reinstate(self, entry: Entry, now: float) -> None:
        group = entry.group
        assert group is not None
        resources = tuple(listing.resource for listing in group.listings)
        what = Description(group.resource, resources, group.methods, entry.capacity)
        self._directory.enlist(entry, what)
        if not entry.open:
            self._move(entry, REVIVING)
            self._onward(entry, now)
        elif entry.broken:
            self._move(entry, READY)
            self._retire(entry, outcome.DEAD, now)
        else:
            self._move(entry, COOLING)
            self._arm(entry, max(entry.rest_until, now))
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
        for entry in tuple(self.entries.values()):
            if entry.state is OPENING:
                self._forget(entry)
            elif entry.state in LIVE:
                self._retire(entry, outcome.POOL_CLOSED, now)
            elif entry.state is REVIVING:
                self._withdraw(entry, now, outcome.POOL_CLOSED)
            elif entry.popper is not None:
                entry.popper.error = PoolClosed(f"pool {self.name!r} was closed", pool=self.name)
                self.steps.append(entry.popper)
                self.unpop(entry.popper, now)

    def abandon(self, now: float) -> list[Info]:
        """The time to close is over: close what is still used, forget what still hangs.

        Gives the pictures of the conns that nobody gave back.
        """
        left = [entry for entry in self.entries.values() if entry.in_use or entry.permit]
        pictures = [snapshot(entry, now) for entry in left]
        for entry in left:
            entry.permit = None
            if entry.open:
                self._close(entry, outcome.POOL_CLOSED, now)
                entry.permit = None
            self._forget(entry)
        return pictures


def _may_open(entry: Entry, now: float) -> bool:
    """Whether an entry that asked for a slot still wants one: much may have passed since."""
    return (
        entry.state is REVIVING
        and entry.permit is None
        and not entry.open
        and not entry.in_use
        and entry.rest_until <= now
    )
