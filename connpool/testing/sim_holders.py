"""Holders: what is done with a conn that was checked out, and how it comes back, or does not.

Owns the block of a checkout and its ends.  Refuses to know how the conn was had.

Invariant: a holder gives back what he has on every path out of his block, as in the drivers; what
one holds who has died, or has forgotten it, is taken back when somebody looks.
"""

from __future__ import annotations

import math
from typing import Any

from ..core import Outcome, of_leaving, of_reset
from .sim_cards import Card
from .sim_contract import (
    FAULTS,
    Cancelled,
    Gone,
    Raised,
    Verdict,
    perform,
    read_block,
    read_reset,
    settle,
)
from .sim_engine import Setup
from .sim_lending import Lending, held_by
from .sim_wishes import CLEANING, HOLDING, LENDING, Caller, Holder, is_gone

INF = math.inf

# Ways not to come back.
LOSSES = frozenset({"dies", "drops"})


class Holders(Lending):
    """The fifth storey of a world."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self.dropped: list[Holder] = []  # those whose checkouts were forgotten

    # -- the block -----------------------------------------------------------------------------

    def _begins(self, holder: Holder, given: Any) -> None:
        wish, entry, card = holder.wish, held_by(holder), holder.card
        assert card is not None
        holder.given, holder.started = given, self.now
        self._phase(holder, HOLDING)
        if self.story is not None:
            self.tell(f"{holder} begins his block with conn {entry.id}")
        seconds, fault = wish.block
        if self.calm and fault:
            seconds, fault = 0.125, ""
        elif wish.does is not None and self.dark_or_struck(card):
            fault = "dead"
        value, took = (None, 0.0)
        if wish.does is not None:
            value, took = perform(wish.does, (given, wish.payload), {}, self.setup.latency)
        if wish.inner is not None and holder.inner is None:
            delay, inner = wish.inner
            self.later(delay, holder, self._call_inside, holder, holder.turn, inner)
        if fault == "hangs":
            seconds = INF
        self._then(holder, took if seconds is None else seconds, self._block_ends, value, fault)
        if not entry.open:
            self.strike(holder, ConnectionAbortedError("closed before the block began"))

    def _block_ends(self, holder: Holder, turn: int, value: Any, fault: str) -> None:
        if holder.turn != turn:
            return
        if holder.inner is not None and not holder.inner.done:
            holder.still = (value, fault)
            return
        if fault in LOSSES:
            self._loses(holder, fault)
            return
        if holder.whole and fault:
            value = None  # in the middle of what he does
        value = settle(value, holder.method, holder.payload)
        if fault and not isinstance(value, Raised):
            value = Raised(FAULTS[fault]())
        if isinstance(value, Raised):
            self._leaves(holder, value.error)
            return
        expects = holder.wish.expects
        if expects is not None and not expects(holder.payload, value):
            what = f"{holder} sent {holder.payload!r}, and got the reply {value!r}"
            self.ledger.fail(6, what)
        holder.reply = value
        self.answered += 1
        self._leaves(holder, None)

    def _goes_on(self, outer: Caller, value: Any, fault: str) -> None:
        if outer.phase is HOLDING:
            self.later(0.0, outer, self._block_ends, outer, outer.turn, value, fault)
        else:
            super()._goes_on(outer, value, fault)

    def strike(self, caller: Caller, error: BaseException) -> None:
        """Something has happened to the conn of somebody: who is in the middle of something with
        it is told; a block may not notice."""
        if not isinstance(caller, Holder):
            super().strike(caller, error)
        elif caller.phase in (LENDING, CLEANING) or (
            caller.phase is HOLDING and caller.wish.notices
        ):
            self.later(0.0, caller, self._breaks, caller, caller.turn, Raised(error))

    def _broken(self, caller: Caller, error: Raised) -> None:
        if not isinstance(caller, Holder):
            super()._broken(caller, error)
        elif caller.phase is HOLDING:
            self._leaves(caller, error.error)
        elif caller.phase is CLEANING:
            self._cleaned(caller, caller.turn, error)
        else:
            (self._checked if caller.asking else self._lent)(caller, caller.turn, error)

    # -- giving it back ------------------------------------------------------------------------

    def _leaves(self, holder: Holder, error: BaseException | None) -> None:
        """The block has ended."""
        entry = held_by(holder)
        holder.failed = error
        if self.story is not None:
            how = "well" if error is None else f"with {error!r}"
            self.tell(f"the block of {holder} ends {how}")
        if holder.inherits:
            self._ends(holder, error)  # to make it clean is for the parent
            return
        if error is None and not (entry.resets and holder.whole):
            self._release(holder)
            return
        ended: Outcome | None = Outcome()
        verdict: Verdict | None = Verdict()
        if entry.open:
            survives = self._survives(holder)
            whole, resets = holder.whole, entry.resets
            ended = of_leaving(error, shared=not whole, resets=resets, survives_cancel=survives)
            verdict = read_block(error, whole=whole, resets=resets, survives=survives)
        if (ended is None) != (verdict is None):
            self.ledger.fail(11, f"{holder} ends with {error!r}, and that is read as {ended}")
        if ended is None or verdict is None:
            self._phase(holder, CLEANING)
            value, seconds = self._lease_deed(holder, "resets", entry.conn.reset)
            self._within_limit(holder, seconds, self._cleaned, value)
            return
        self._forfeit(holder, ended, verdict, None if holder.whole else error)
        self._ends(holder, error)

    def _cleaned(self, holder: Holder, turn: int, value: Any) -> None:
        """The conn's reset has come to its end."""
        if holder.turn != turn:
            return
        value = settle(value)
        if holder.inherits:
            self._ends(holder, holder.failed)
            return
        if not isinstance(value, Raised):
            self._release(holder)
            return
        error = value.error
        if self.story is not None:
            self.tell(f"{holder} cannot have conn {held_by(holder).id} made clean: {error!r}")
        self._forfeit(holder, of_reset(error), read_reset(error), error)
        self._ends(holder, holder.failed if isinstance(error, Exception) else error)

    def _release(self, holder: Holder) -> None:
        """It comes back, and is well."""
        entry = held_by(holder)
        card = self.ledger.back(holder)
        if not self.core.hand_back(entry, holder.who, self.now):
            self.core.release(entry, holder.who, self.now)
        self.ledger.released(card)
        self.leave()
        self._ends(holder, holder.failed)

    def cancel(self, caller: Caller) -> None:
        """Somebody is cancelled, whatever he is about."""
        if not isinstance(caller, Holder) or caller.phase not in (LENDING, HOLDING, CLEANING):
            super().cancel(caller)
            return
        if caller.inner is not None and not caller.inner.done:
            self.cancel(caller.inner)
        shielded = caller.failed is not None and not isinstance(caller.failed, Exception)
        if caller.phase is CLEANING and shielded and self.tasks:
            return  # one that survives a cancellation is made clean in spite of it
        if self.story is not None:
            self.tell(f"{caller} gives up, {caller.phase}")
        self._broken(caller, Raised(Cancelled()))

    # -- and not giving it back ----------------------------------------------------------------

    def _loses(self, holder: Holder, how: str) -> None:
        """He will never give it back."""
        dies = how == "dies" and holder.outer is None and not holder.inherits
        if self.story is not None:
            self.tell(f"{holder} {'dies' if dies else 'forgets what he holds'}")
        if not holder.inherits:
            self.ledger.loses(holder)
        if dies:
            who = holder.who
            self._people.pop(who.number, None)
            who.life.clear()
        else:
            self.dropped.append(holder)
        self._ends(holder, Gone())

    def turn(self) -> None:
        """The driver takes a turn: first it takes back what was dropped meanwhile."""
        while self.dropped:
            self._bury(self.dropped.pop())

    def _bury(self, holder: Holder) -> None:
        entry = held_by(holder)
        if holder.inherits:
            return
        stays = not holder.whole and max(entry.capacity, entry.in_use) > 1
        card = self.ledger.back(holder) if holder.card is not None else None
        self.core.forsake(entry, holder.who, holder.where, self.now)
        if card is not None:
            self.ledger.forsaken(holder, card, stays=stays)
            self._taken_back(holder, card)
        self.leave()

    def look_for_lost(self) -> None:
        """A step: forget those who are gone; then their checkouts are found by the collector."""
        self.turn()
        self.core.orphaned(_ghost_of)
        self.leave()
        for holder in [holder for holder in self.ledger.missing if is_gone(holder.who)]:
            self._bury(holder)
            # What is found of him later says once more that it is over.
            self.later(0.25, holder, self._say_again, holder)

    def _taken_back(self, holder: Holder, card: Card) -> None:
        if self.story is not None:
            self.tell(f"conn {card.id} is taken back from {holder}")

    def _say_again(self, holder: Holder) -> None:
        """The end of a checkout is said a second time, and changes nothing."""
        entry, who, now = held_by(holder), holder.who, self.now
        how = self.chance(holder) % 3
        if how == 0:
            self.core.release(entry, who, now)
        elif how == 1:
            self.core.forfeit(entry, who, Outcome(end="unclean"), now)
        else:
            self.core.forsake(entry, who, holder.where, now)
        self.leave()


class Ghost:
    """One who is gone, as the drivers remember him."""

    def __init__(self, who: Any) -> None:
        self.ident = id(who)

    def __eq__(self, other: object) -> bool:
        return self is other or id(other) == self.ident

    def __hash__(self) -> int:
        return self.ident


def _ghost_of(who: Any) -> Ghost | None:
    return Ghost(who) if is_gone(who) else None
