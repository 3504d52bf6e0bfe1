"""Care: is an idle conn still well, and what if nobody answers?

Owns checks, the suspicion that falls on the peers of a dead conn, and permits that take too long.
Refuses to know how a conn is born, retired or revived: that is `life`, the storey above.

Invariant: a conn that is being asked is not lent; what comes back too late changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Closed
from . import outcome
from .entry import CHECKING, GONE, LIVE, OPENING, READY, Entry, State
from .openings import Openings
from .permits import Permit, Work
from .supply import SPREAD, Supply


class Care(Openings):
    """The fourth storey of the core: conns that nobody uses at the moment."""

    if TYPE_CHECKING:  # what the storey above does

        def _retire(
            self, entry: Entry, reason: str, now: float, error: BaseException | None = None
        ) -> None: ...

        def _onward(self, entry: Entry, now: float, reason: str = "") -> None: ...

        def _stillborn(
            self, entry: Entry, supply: Supply, error: BaseException, now: float
        ) -> None: ...

        def _take_back(self, permit: Permit, now: float) -> None: ...

        def tick(self, now: float) -> None: ...

        def _move(self, entry: Entry, state: State) -> None: ...

        def _rearm(self, entry: Entry, now: float) -> None: ...

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
