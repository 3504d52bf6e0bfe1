"""Shares: who gives way to whom where the pool is full and several supplies want its places.

Owns the rules of fairness across resources.  Refuses to know of callers what is not their place in
line, and of conns what is not whose they are.

Invariants: who waits at a resource that can open nothing for want of room does not wait while
another has a conn to spare that idles; nor does a conn that comes back go to one who has come
later, where his resource has more of them; and no conn gives way for any other reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import Core, Options, State
from .sim_cards import LIVE, Card, Source
from .sim_sizes import Sizes

if TYPE_CHECKING:
    from .sim_wishes import Caller


class Shares(Sizes):
    """The third storey of the ledger."""

    def __init__(self, core: Core, options: Options) -> None:
        super().__init__(core, options)
        self.evicted: list[Card] = []  # in this step
        self.starving: list[Source] = []  # since the last step or longer

    def check_shares(self) -> None:
        """The step is done: nobody starves beside what idles, and who gave way had to."""
        if self.evicted:
            for card in self.evicted:
                self._check_eviction(card)
            self.evicted.clear()
        self.starving = []
        if self.closed or not self.line or not self._is_full():
            return
        self.starving = [source for source in self.sources.values() if self._starves(source)]
        for source in self.starving:
            if self.gives_room(source):
                self.fail(
                    3,
                    f"{self.first_of(source)} waits, the pool is full, and another resource than "
                    f"{source.resource!r} has an idle conn to spare",
                )

    def _is_full(self) -> bool:
        most = self.options.max_size
        return most is not None and self.occupied() >= most

    def _starves(self, source: Source) -> bool:
        """Whether a supply would have opened a conn for who waits, for certain, if there were
        room."""
        unharmed = not source.failing and self.now - source.lost_at > self._longest_pause(source)
        return (
            unharmed
            and not source.over
            and source.size < source.max_size
            and self._waiting_for(source) > source.unborn
            and self.free_slots()
        )

    def first_of(self, source: Source) -> Caller | None:
        """Who has waited longest for a conn of a supply."""
        return next((caller for caller in self.line if self._is_for(caller, source)), None)

    # -- who comes later -----------------------------------------------------------------------

    def check_share(self, caller: Caller, card: Card) -> None:
        """One who stood in line is given a conn that has just come back: nobody has waited longer
        for one to a resource that has fewer."""
        source = card.source
        if source is None or card.back_in != self.looks or card.holders or not self.starving:
            return
        if source.alive <= source.min_size or not self._is_full():
            return
        for other in self.starving:
            first = self.first_of(other)
            fewer = other.size < source.size
            if other is not source and fewer and first is not None and first.order < caller.order:
                self.fail(
                    4,
                    f"{caller} was given conn {card.id} of {source.resource!r}, which has "
                    f"{source.size}; {first} has waited longer for one of "
                    f"{other.resource!r}, which has {other.size}",
                )

    # -- who gives way -------------------------------------------------------------------------

    def may_evict(self, card: Card, source: Source) -> bool:
        """Whether a conn that has just left may have given way to another resource's: the pool was
        full, and another supply wants one more."""
        most = self.options.max_size
        if most is None or not any(
            other is not source and self._wants(other) for other in self.sources.values()
        ):
            return False
        left = sum(self._has_just_left(other) for other in self.cards.values() if other is not card)
        new = sum(entry not in self.cards for entry in self.core.entries.values())
        return self.occupied() + new + left + 1 >= most

    def _has_just_left(self, card: Card) -> bool:
        """Whether it took a place until this step."""
        before = card.seen is not State.DRAINING and card.seen is not State.GONE
        return not card.staying and (card.out_in == self.looks or before)

    def _wants(self, source: Source) -> bool:
        # What left in this step, and is not gone through yet, may be owed as well.
        leaving = sum(c.seen in LIVE and c.entry.state not in LIVE for c in source.cards)
        wanted = self._wanted(source, source.owed + leaving)
        may = not source.over and self.now >= source.not_before
        return wanted > 0 and may and source.size < source.max_size

    def _check_eviction(self, card: Card) -> None:
        """While one waits at its own resource whom a conn can serve, it gives way only to one who
        has waited longer, for a resource that has fewer."""
        source = card.source
        assert source is not None
        own = next((caller for caller in self.line if card.able(caller)), None)
        if own is None:
            return
        for other in self.sources.values():
            first = self.first_of(other)
            size = sum(c.staying and c.made_in != self.looks for c in other.cards)
            earlier = first is not None and first.order < own.order
            if (
                other is not source and earlier and size <= source.size
            ):  # without the one that has left
                return
        self.fail(
            11,
            f"conn {card.id} of {source.resource!r} gives way, and {own} waits for it: nobody has "
            "waited longer for a resource that has fewer",
        )
