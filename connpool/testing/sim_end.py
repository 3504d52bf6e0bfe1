"""The end of a world: closing, and the proof that nothing was lost.

Owns the close of the pool, the settling, the trial of every place, and the last look.  Refuses to
know what was before.

Invariant: after `finish` the pool is closed, every caller has had his answer, and every conn was
closed as often as it was opened, or handed over.
"""

from __future__ import annotations

import math
from typing import Any

from ..core import ANY, State
from .sim_cards import LIVE, Card
from .sim_engine import Setup
from .sim_line import lendable
from .sim_users import Users
from .sim_wishes import BUSY, Caller, Wish

INF = math.inf

# Seconds after which in a calm world everything has settled, whatever was before.
SETTLED = 60.0
# At most so many things happen while it settles; more is a busy loop.
MOST_EVENTS = 20_000


class Ending(Users):
    """The seventh storey of a world."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self._closing: tuple[float, Any] | None = None

    # -- closing -------------------------------------------------------------------------------

    def close(self, timeout: float | None = None, who: Any = 0) -> None:
        """Close the pool, as `Pool.close` does; `run` until it is closed."""
        if self.story is not None:
            self.tell("the pool is told to close")
        ledger = self.ledger
        ledger.closed = ledger.stirred = True
        self.core.close(self.now)
        ledger.sources.clear()
        self.leave()
        if ledger.line:
            ledger.fail(9, f"{ledger.line[0]} still waits, and the pool is closed")
        limit = self.patience if timeout is None else timeout
        if self._closing is None:
            self._closing = (self.now + limit, who)
            self._look_whether_quiet()

    def _look_whether_quiet(self) -> None:
        assert self._closing is not None
        deadline, who = self._closing
        if self.core.busy(who) and self.now < deadline:
            wait = min(0.125, deadline - self.now)
            self.later(wait, self._keeper, self._look_whether_quiet)
            return
        self._abandon(late=self.now >= deadline)

    def _abandon(self, *, late: bool) -> None:
        ledger = self.ledger
        quiet = not late and self._closing is not None and self._closing[1] == 0
        waited_for = [permit for permit in ledger.permits if not permit.given_up]
        if quiet and (waited_for or any(card.holders for card in ledger.cards.values())):
            ledger.fail(9, "the pool says that all is quiet, and something is still out")
        ledger.abandoned = True
        self.core.abandon(self.now)
        if self.story is not None:
            self.tell("the pool is closed")
        self.leave()
        core = self.core
        if core.entries or core.waiting or core.live or core.listings():
            ledger.fail(9, f"the closed pool still holds {len(core.entries)} conns")

    # -- the end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Bring the world to its end, and check all of it.

        No fault befalls anybody any more, and who hangs is let go; then everything has to settle,
        every place of every conn has to be had once more, and the pool closes.
        """
        if self.story is not None:
            self.tell("from here on all goes well")
        self._calm_down()
        self._settle(self.now + SETTLED)
        if self.ledger.missing and not self.ledger.closed:
            self.look_for_lost()
            self._settle(self.now + SETTLED)
        if not self.ledger.closed:
            self._look_around()
            self._try_every_place()
            self.question()
            self.close(timeout=5.0)
        self._settle(INF)
        self._look_back()

    def _calm_down(self) -> None:
        self.calm = True
        self.dark.clear()
        hanging, self.hanging = self.hanging, []
        for act, args, actor in hanging:
            self.later(0.0, actor, act, *args)
        for caller in tuple(self.active):
            if caller.hangs:
                self.cancel(caller)

    def _settle(self, until: float) -> None:
        for _ in range(MOST_EVENTS):
            if self.next > until or not self.happen():
                break
        else:
            self.ledger.fail(13, f"a busy loop: {MOST_EVENTS} things happen one after the other")
        if until < INF:
            self.ledger.goes_on(until)
            self.now = until

    def _look_around(self) -> None:
        """All is well, and so everything that was to come must have come."""
        ledger = self.ledger
        # Who has a conn and waits for another, perhaps for that of one who waits for his.
        stuck = {c for c in self.active if c.inner is not None and not c.inner.done}
        for caller in tuple(self.active):
            if caller.phase in BUSY:
                if caller.inner is not None and not caller.inner.done:
                    continue  # of that one there is more to say
                ledger.fail(5, f"{caller} never ends, {caller.phase}")
            able = [card for card in ledger.cards.values() if card.able(caller)]
            others = [
                card
                for card in able
                if card.seen in LIVE
                and not ledger.is_own(card, caller)
                and stuck.isdisjoint(card.holders)
            ]
            source = ledger.sources.get(caller.resource)
            made = ledger.may_be_made(caller)
            room = not self._full() or (source is not None and ledger.gives_room(source))
            if others or ((made or not able) and room):
                ledger.fail(3, f"{caller} never ends, {caller.phase}")
            self.cancel(caller)
        for source in ledger.sources.values():
            rest = source.supply.max_idle
            long = self.now - rest - max(1.0, rest / 4) - 1.0
            idle = [
                card
                for card in source.cards
                if card.used < long and card.seen in LIVE and not card.holders
            ]
            if idle and source.alive > source.min_size:
                ledger.fail(13, f"conn {idle[0].id} is idle since {idle[0].used:.3f}, and stays")

    def _full(self) -> bool:
        """Whether no supply can open anything, for want of room in the pool."""
        most = self.setup.max_size
        return most is not None and self.ledger.occupied() >= most

    def _try_every_place(self) -> None:
        """Every place of every conn can be had."""
        ledger, core = self.ledger, self.core
        resources = {name for card in ledger.cards.values() for name in card.resources}
        for resource in sorted(resources, key=str):
            having: list[Caller] = []
            while True:
                caller = self.actor(Caller, None, Wish(resource, ANY))
                entry = core.take(resource, ANY, None, None, caller.who, self.now)
                if core.steps:
                    self.take_over()
                if entry is None:
                    break
                ledger.lent(caller, entry)
                having.append(caller)
                caller.entry = entry
            ledger.look()
            for card in ledger.cards.values():
                if resource in card.resources and lendable(card, self.now):
                    ledger.fail(5, f"a place of conn {card.id} is free, and cannot be had")
            for caller in having:
                caller.started = self.now
                self._replied(caller, None)

    def _look_back(self) -> None:
        ledger, core = self.ledger, self.core
        if not ledger.abandoned:
            ledger.fail(9, "the pool never closes")
        if ledger.missing and not ledger.closed:
            ledger.fail(5, f"what {ledger.missing[0]} has lost is never taken back")
        for caller in self.active:
            ledger.fail(9, f"{caller} never ends, {caller.phase}")
        for permit in ledger.permits.values():
            ledger.fail(9, f"something is still out for conn {permit.id}")
        if core.permits:
            ledger.fail(9, f"the core still waits for {len(core.permits)} permits")
        for card in ledger.cards.values():
            state = "open" if card.open else "not closed"
            ledger.fail(8, f"conn {card.id} is left behind, {state}, {State(card.seen).value}")


def _all_wait(card: Card) -> bool:
    """Whether all who use a conn wait for another one themselves."""
    inner = [holder.inner for holder in card.holders]
    return bool(inner) and all(caller is not None and not caller.done for caller in inner)
