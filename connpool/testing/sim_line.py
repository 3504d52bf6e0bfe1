"""The line: who is served in which order, who waits, and who is told that it is in vain.

Owns the rules about callers.  Refuses to know what becomes of conns.

Invariant: the order of arrival is counted here; a call that moves keeps its number.
"""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from ..core import ANY, Core, Entry, Options, State
from ..errors import (
    FilterError,
    MethodError,
    NestedCall,
    PoolClosed,
    PoolError,
    PoolFull,
    PoolTimeout,
    ResourceError,
)
from .sim_cards import HOPEFUL, LIVE, Card, Source
from .sim_leases import Leases

if TYPE_CHECKING:
    from .sim_wishes import Caller

LOOKUPS = (ResourceError, MethodError, FilterError)


def _order(caller: Caller) -> int:
    return caller.order


class Line(Leases):
    """The fifth storey of the ledger."""

    def __init__(self, core: Core, options: Options) -> None:
        super().__init__(core, options)
        self.arrivals = 0
        self.timed_out_in = -1  # in which step somebody's time was over
        # Those who were told in this step that nothing can come, and what.
        self.in_vain: list[tuple[Caller, PoolError]] = []

    # -- served --------------------------------------------------------------------------------

    def number(self, caller: Caller) -> None:
        """A caller has come so far that others may come after him."""
        if caller.order < 0:
            self.arrivals += 1
            caller.order = self.arrivals

    def lent(self, caller: Caller, entry: Entry) -> None:
        """A caller, in line or new, was given a place."""
        card = self.cards.get(entry)
        if card is None:
            self.fail(8, f"{caller} was given conn {entry.id}, which has left")
        if caller.queued:
            self.check_share(caller, card)
            self.leaves(caller)
            if self.now > caller.deadline:
                self.fail(7, f"{caller} was served {self.now - caller.deadline:.3f} s too late")
        self.number(caller)
        if self.line:
            self._check_turn(caller, card)
        self._check_fit(caller, card)
        self.takes(caller, card)

    def _check_turn(self, caller: Caller, card: Card) -> None:
        kept = self.kept(card) if self.wholes else None
        if kept is not None and self._before(kept, caller) and not card.used_by(caller):
            self.fail(4, f"{caller} was given conn {card.id}, which is kept for {kept}")
        for other in self.line:
            if other.order >= caller.order:
                break
            if other.deadline < self.now or not (card.able(other) and card.room_for(other)):
                continue
            if not self._before(other, caller):
                continue
            if kept is not None and self._before(kept, other) and not card.used_by(other):
                continue
            timely = self.timed_out_in == self.looks or card.entry.rest_until >= self.now
            if other.whole and timely and card.back_in == self.looks:
                continue  # it was given on before it was known that nobody uses it now
            self.fail(4, f"{caller} was given conn {card.id}, for which {other} had waited longer")

    @staticmethod
    def _before(one: Caller, other: Caller) -> bool:
        """Whether one came before another, as far as can be told."""
        same = one.moved and other.moved and one.arrived == other.arrived
        return one.order < other.order and not same

    def _check_fit(self, caller: Caller, card: Card) -> None:
        earlier = card.told_in != self.looks  # or he may have been served first, in the same step
        if card.condemned and earlier:
            self.fail(8, f"{caller} was given conn {card.id}, which is to leave: {card.condemned}")
        if self.now >= card.expires:
            self.fail(7, f"{caller} was given conn {card.id}, expired at {card.expires:.3f}")
        if self.now < card.rests and earlier:
            self.fail(11, f"{caller} was given conn {card.id}, which rests till {card.rests:.3f}")
        if card.permit is not None:
            self.fail(
                11, f"{caller} was given conn {card.id} while it is {card.permit.work.value}ed"
            )
        if not card.able(caller):
            self.fail(12, f"{caller} was given conn {card.id}, which is not what he asked for")

    # -- waiting -------------------------------------------------------------------------------

    def waits(self, caller: Caller) -> None:
        """A caller stands in line."""
        self.number(caller)
        caller.queued = self.stirred = True
        caller.lined_up = self.now
        if self.closed:
            self.fail(9, f"{caller} waits at a closed pool")
        if caller.deadline <= self.now:
            self.fail(7, f"{caller} has no time to wait, and waits")
        self.counts["queued"] += caller.place is None
        most = self.options.max_waiting
        if most is not None and len(self.line) >= most and caller.place is None:
            self.fail(2, f"{caller} waits with {len(self.line)} others, max_waiting is {most}")
        insort(self.line, caller, key=_order)
        self.wholes += caller.whole
        if self._own_only(caller):
            self.fail(5, f"{caller} waits for himself")

    def leaves(self, caller: Caller) -> None:
        """A caller is not in line any more."""
        self.line.remove(caller)
        self.wholes -= caller.whole
        caller.queued = False

    def check_waiting(self, free: list[Card]) -> None:
        """Nobody waits for what is there."""
        for caller in self.line:
            for card in free:
                if caller.deadline > self.now and card.room_for(caller) and card.able(caller):
                    kept = self.kept(card) if self.wholes else None
                    if kept is None or self._before(caller, kept) or card.used_by(caller):
                        self.fail(3, f"{caller} waits, and conn {card.id} is free")

    def check_hopes(self) -> None:
        """Nobody waits for what cannot come, or cannot come before he gives back what he has."""
        having = {holder.who for card in self.cards.values() for holder in card.holders}
        hopeful = [card for card in self.cards.values() if card.seen in HOPEFUL]
        for caller in self.line:
            if not any(card.able(caller) for card in hopeful) and not self.may_be_made(caller):
                self.fail(12, f"{caller} waits for what can never come")
            if caller.who in having and self._own_only(caller):
                self.fail(12, f"{caller} waits for himself")

    def hope(self, caller: Caller, *, waits: bool = True) -> bool:
        """Whether something can still come that is known to serve the caller."""
        states = HOPEFUL if waits else LIVE
        cards = self.cards.values()
        if any(card.seen in states and card.able(caller) for card in cards):
            return True
        return waits and self.may_be_made(caller)

    def may_be_made(self, caller: Caller) -> bool:
        """Whether a supply may make what perhaps would serve the caller."""
        source = self.sources.get(caller.resource)
        if source is None or not source.may_make_for(caller):
            return False
        # Where there are some that do not pass, another of their kind would not pass either.
        return not callable(caller.filter) or not any(
            c.seen in HOPEFUL and c.names(caller.resource, caller.method) for c in source.cards
        )

    # -- refused -------------------------------------------------------------------------------

    def failed(self, caller: Caller, error: BaseException) -> None:
        """A caller who stood in line was told that it is in vain."""
        self.leaves(caller)
        if isinstance(error, PoolTimeout):
            self.counts["timeouts"] += 1
            self.timed_out_in = self.looks
            if self.now < caller.deadline:
                early = caller.deadline - self.now
                self.fail(7, f"{caller} was sent away {early:.3f} s before his time was over")
        elif isinstance(error, PoolClosed):
            if not self.closed:
                self.fail(12, f"{caller} was told that the pool is closed, and it is not")
        elif isinstance(error, (*LOOKUPS, NestedCall)):
            self.in_vain.append((caller, error))
        elif not callable(caller.filter) or isinstance(error, PoolError):
            self.fail(10, f"{caller} was told {error!r}, which is nothing of his")

    def check_refusals(self) -> None:
        """Who was told that nothing can come was told the truth."""
        for caller, error in self.in_vain:
            if caller.deadline <= self.now or self.dismissed:
                continue
            if isinstance(error, NestedCall):
                true = self._own_only(caller, lately=False) or not self.hope(caller)
                if not true and not self._was_shown(caller):
                    self.fail(12, f"{caller} was told that he waits for himself, and he does not")
                continue
            able = any(
                card.seen in HOPEFUL and card.able(caller) and card.well_in != self.looks
                for card in self.cards.values()
            )
            if able or (self.may_be_made(caller) and not self._was_shown(caller)):
                self.fail(12, f"{caller} was told that no conn can come, and one can")
        self.in_vain.clear()

    def _was_shown(self, caller: Caller) -> bool:
        """Whether a conn of the supply may not have passed his filter earlier in this step."""
        source = self.sources.get(caller.resource)
        if source is None or not callable(caller.filter):
            return False
        left = any(card.left_in == self.looks for card in source.cards)
        return left or source.born_in == self.looks

    def refused(self, caller: Caller, error: BaseException) -> None:
        """A caller was turned away at the door."""
        if not isinstance(error, PoolError):
            if not callable(caller.filter) and caller.by is None:
                self.fail(10, f"{caller} was told {error!r}, which is nothing of his")
            return
        if isinstance(error, PoolFull):
            self.check_full(error, caller)
            return
        expected = self._truth(caller)
        if expected is PoolTimeout:
            self.counts["timeouts"] += 1
        if type(error) is not expected:
            told = "nothing" if expected is None else expected.__name__
            self.fail(12, f"{caller} was told {error!r}; expected {told}")

    def _truth(self, caller: Caller) -> type[PoolError] | None:
        """What a caller is to be told who is not served at once, None for nothing."""
        if self.closed:
            return PoolClosed
        patient = caller.deadline > self.now
        if self.hope(caller, waits=patient):
            if not patient:
                return PoolTimeout
            return NestedCall if self._own_only(caller) else None
        source = self.sources.get(caller.resource)
        if patient and source is not None and source.may_serve(caller.method):
            return FilterError  # what it pins to its conns does not pass
        states = HOPEFUL if patient else LIVE
        known = [
            card
            for card in self.cards.values()
            if card.seen in states and caller.resource in card.resources
        ]
        if not known:
            return ResourceError
        if caller.method is not ANY and all(caller.method not in c.methods for c in known):
            return MethodError
        return FilterError

    def _own_only(self, caller: Caller, *, lately: bool = True) -> bool:
        """Whether only the caller himself could give back what he waits for; `lately`: what has
        come to life in this very step counts."""
        if caller.who is None:
            return False
        able = self._able(caller)
        others = [card for card in able if not self.is_own(card, caller)]
        if any(lately or card.well_in != self.looks for card in others):
            return False
        source = self.sources.get(caller.resource)
        if source is None or not self._may_be_like(source, caller):
            return bool(able)
        leaving = [c for c in source.cards if c.staying and c.seen is State.DRAINING]
        own = [c for c in leaving if any(holder.who == caller.who for holder in c.holders)]
        if source.unborn or source.size - (len(leaving) - len(own)) < source.max_size:
            return False  # another will come beside those that are alive, without his doing
        return bool(able or own)

    @staticmethod
    def _may_be_like(source: Source, caller: Caller) -> bool:
        """Whether a supply makes such as the caller wants, as far as those it has made show it."""
        made = [
            c for c in source.cards if c.seen in HOPEFUL and c.names(caller.resource, caller.method)
        ]
        told = not callable(caller.filter)  # then it is known without having seen one
        like = told or not made or any(card.able(caller) for card in made)
        return like and source.may_make_for(caller)

    def _able(self, caller: Caller) -> list[Card]:
        """Those that could serve a caller now or later."""
        return [c for c in self.cards.values() if c.seen in HOPEFUL and c.able(caller)]

    @staticmethod
    def is_own(card: Card, caller: Caller) -> bool:
        mine = [holder for holder in card.holders if holder.who == caller.who]
        if caller.whole or card.seen not in LIVE:  # all its users have to leave first
            return bool(mine)
        return len(mine) >= card.capacity


def lendable(card: Card, now: float) -> bool:
    """Whether a conn could be lent to somebody at `now`, as far as is known."""
    return (
        card.seen is State.READY
        and not card.condemned
        and len(card.holders) < card.capacity
        and now < card.expires
    )
