"""Care: is an idle conn still well, and what if nobody answers?

Owns checks, the suspicion that falls on the peers of a dead conn, permits that take too long, and
what a conn does by itself when its time comes.
Refuses to know how a conn is born, retired or revived: that is `life`, the storey above.

Invariant: a conn that is being asked is not lent; what comes back too late changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import Closed
from . import outcome
from .entry import CHECKING, COOLING, GONE, LIVE, OPENING, READY, Entry, State, move
from .openings import Openings
from .permits import Permit, Work
from .supply import SPREAD, Supply

# How soon the clockwork looks again at a conn whose idle time or ping is over, but which is in use
# or may not leave: often enough, and never a busy loop.
DOZE = 1.0


class Care(Openings):
    """The fifth storey of the core: conns that nobody uses at the moment."""

    __slots__ = ()

    if TYPE_CHECKING:  # what the storey above does

        def _retire(
            self, entry: Entry, reason: str, now: float, error: BaseException | None = None
        ) -> None: ...

        def _onward(self, entry: Entry, now: float, reason: str = "") -> None: ...

        def _stillborn(
            self, entry: Entry, supply: Supply, error: BaseException, now: float
        ) -> None: ...

        def tick(self, now: float) -> None: ...

    def _suspect_peers(self, dead: Entry, error: BaseException, now: float) -> None:
        """The server of a dead conn may be gone, and its idle peers with it: before they are lent
        they are asked; those that cannot be asked and can be made anew are retired together."""
        if dead.group is None or not dead.group.askable:
            return
        lost = isinstance(error, (Closed, ConnectionError, EOFError))
        for peer in tuple(dead.group.members.values()):
            if peer is dead or peer.state is not READY or peer.in_use:
                continue
            if peer.checks:
                self._check(peer, now)
            elif lost and peer.supply is not None:
                self._retire(peer, outcome.SUSPECT, now)

    def _overdue(self, entry: Entry, permit: Permit, now: float) -> None:
        """What a permit allows takes too long.

        It frees its slot.  A supplied conn that cannot be opened in time is given up, since there
        can be another; one of the user's is waited for, since there is no other; and one that
        hangs in its check is dead.
        """
        permit.overdue = True
        self._give_slot_back(permit)
        late = TimeoutError(f"{permit.work.value} took more than {permit.limit:g} s")
        if permit.work is Work.CHECK:
            self._disown(permit)
            if entry.state is CHECKING:
                self._retire(entry, outcome.DEAD, now, late)
            else:
                entry.reason = entry.reason or outcome.DEAD  # should it be put back
                self._onward(entry, now)
        elif permit.work is Work.OPEN and entry.state is OPENING and entry.supply is not None:
            self._disown(permit)
            self._tally.open_failed += 1
            self._stillborn(entry, entry.supply, late, now)
        self._grant_openings(now)  # now that it is known what came of this one

    def never_done(self, permit: Permit, now: float) -> None:
        """A permit that was given up before anybody came to it."""
        self._take_back(permit, now)

    def _look_after(self, entry: Entry, supply: Supply, now: float) -> None:
        """A supplied conn is idle: let it go, ask whether it is well, or leave it."""
        if now >= entry.idle_since + supply.max_idle and supply.has_spare:
            self._retire(entry, outcome.IDLE, now)
        elif entry.checks and now >= entry.ping_at:
            self._check(entry, now)

    def _check(self, entry: Entry, now: float) -> None:
        """Have an idle conn asked whether it is alive; meanwhile it is not lent."""
        self._move(entry, CHECKING)
        self.steps.append(self._issue(Work.CHECK, entry, self.options.connect_timeout, now))

    def checked(self, permit: Permit, error: BaseException | None, now: float) -> None:
        """A check came back: the conn goes on, or is dead of `error`."""
        entry = permit.entry
        self._take_back(permit, now)
        if permit.given_up or entry.state is GONE:
            return
        if entry.state is not CHECKING:
            self._onward(entry, now)
        elif error is not None:
            self._retire(entry, outcome.DEAD, now, error)
        else:
            self._move(entry, READY)
            self._plan_ping(entry, now)
            self._free_again(entry, now)
            self._rearm(entry, now)

    def _free_again(self, entry: Entry, now: float) -> None:
        """A conn may be lent again though nobody has returned it."""
        self._serve(entry, now)
        if self._starved:
            self._ask_starved()
            self._grant_openings(now)

    def lost(self, entry: Entry, life: int, error: BaseException, now: float) -> None:
        """A conn has learnt by itself that its connection is gone, in the so many-th of its lives;
        what is said of an earlier one, or of one given up, comes too late."""
        if now >= self.due:
            self.tick(now)
        if entry.lives == life and entry.state in LIVE:
            self._retire(entry, outcome.DEAD, now, error)

    def _plan_ping(self, entry: Entry, now: float) -> None:
        """When an idle conn is next to be asked: spread, so that not all are asked at once."""
        if entry.supply is not None:
            entry.ping_at = now + entry.supply.ping_interval * (1 - SPREAD * self._rng())

    # -- a conn and the clock ------------------------------------------------------------------

    def _take_back(self, permit: Permit, now: float) -> None:
        if now >= self.due:
            self.tick(now)  # or what has come might be given to one whose time is over
        self._settle(permit, now)

    def _set_ttl(self, entry: Entry, now: float) -> None:
        if entry.ttl is None or entry.last_init is None:
            entry.expires = math.inf
        else:
            entry.expires = entry.last_init + entry.ttl
            self._arm(entry, entry.expires)

    def _rearm(self, entry: Entry, now: float) -> None:
        """Set the alarm for what is next in the life of `entry`."""
        due = next_alarm(entry, now)
        if due < math.inf:
            self._arm(entry, due)

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
            self._directory.tally(entry, change)


def next_alarm(entry: Entry, now: float) -> float:
    """When the clockwork is to look at `entry` next: inf for never."""
    if entry.permit is not None:
        due = entry.permit.due if entry.permit.due > now else math.inf
        return min(due, entry.expires) if entry.state is CHECKING else due
    if entry.state is COOLING:
        return min(entry.expires, entry.rest_until)
    if entry.state is not READY:
        return math.inf
    if entry.supply is None:
        return entry.expires
    # One that is used meanwhile is asked again when the alarm rings, and sets it anew.
    rest = entry.supply.max_idle
    idle = max(entry.idle_since + rest, now + max(DOZE, rest / 4))
    ping = max(entry.ping_at, now + DOZE) if entry.checks else math.inf
    return min(entry.expires, idle, ping)
