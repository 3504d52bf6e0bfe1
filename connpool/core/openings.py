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

from ..errors import PoolFull
from .desk import Desk
from .entry import DRAINING, GONE, REVIVING, Entry, move
from .options import Options
from .permits import Permit, Work


class Openings(Desk):
    """The second storey of the core: entries and permits."""

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

    def _refuse_oversize(self) -> None:
        most = self.options.max_size
        if most is None or len(self.entries) < most:
            return
        # A pop that is not done may be given up, and then its conns are back.
        leaving = sum(
            e.state is DRAINING and not e.in_use and e.popper is None for e in self.entries.values()
        )
        if len(self.entries) - leaving >= most:
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
        permit.entry.permit = None
        self._alarms.clear(permit.entry)  # it rang for the permit; see `_rearm`
        self._free_slot(permit, now)

    def _free_slot(self, permit: Permit, now: float) -> None:
        if permit.holds_slot:
            permit.holds_slot = False
            self._connecting -= 1
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
        while self._to_open and self._connecting < self.options.max_connecting:
            entry = self._to_open.popleft()
            entry.in_turn = False
            if entry.state is REVIVING:  # it may have left meanwhile
                permit = self._issue(Work.OPEN, entry, now + self.options.connect_timeout)
                permit.holds_slot = True
                self._connecting += 1
                self.steps.append(permit)
