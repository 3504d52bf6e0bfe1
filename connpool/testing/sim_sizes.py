"""Sizes: how many conns there are, and whether the right ones are opened in time.

Owns the rules about supplies and limits.  Refuses to know who is served by whom.

Invariant: what a supply owes, wants and may have is counted here from births, deaths and callers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core import Permit, State, Supply
from ..errors import InitError, PoolFull
from .sim_books import BROKEN, LAG, Books
from .sim_cards import LIVE, Card, Source

if TYPE_CHECKING:
    from .sim_wishes import Caller

# While somebody waits, a supply pauses no longer than this many seconds.
WANTED = 2.0
# How often, in seconds, the ledger looks whether what should happen some day has happened.
GLANCE = 0.5


class Sizes(Books):
    """The second storey of the ledger."""

    # -- supplies ------------------------------------------------------------------------------

    def supplied(self, supply: Supply) -> None:
        """A supply has begun."""
        self.sources[supply.resource] = Source(supply, self.now)
        self.stirred = self.dismissed = True

    def resized(self, resource: Any, min_size: int, max_size: int) -> None:
        """A supply has other sizes."""
        source = self.sources[resource]
        source.min_size, source.max_size = min_size, max_size
        source.owed = min(source.owed, max_size)
        source.hungry = None
        self.stirred = self.dismissed = True

    def withdrawn(self, resource: Any) -> None:
        """A supply has ended; its conns leave."""
        source = self.former[resource] = self.sources.pop(resource)
        for card in source.cards:
            self.condemn(card, "withdrawn")
        self.stirred = self.dismissed = True

    def condemn(self, card: Card, reason: str) -> None:
        """A conn is to leave, or to be opened anew."""
        card.told_in = self.looks
        card.broken |= reason in BROKEN
        if card.pop is not None:
            card.said = reason if reason == "withdrawn" else card.said or reason
        elif not card.condemned or (reason in BROKEN and card.condemned not in BROKEN):
            card.condemned = reason

    # -- births --------------------------------------------------------------------------------

    def _conceived(self, permit: Permit) -> Card:
        source = self.sources.get(permit.resource)
        if source is None and permit.entry.state is State.GONE:
            source = self.former.get(permit.resource)
        if source is None or permit.make is not source.supply.factory:
            self.fail(13, f"a conn to {permit.resource!r} is opened, and there is no such supply")
        if self.closed:
            self.fail(9, f"a conn to {permit.resource!r} is opened though the pool is closed")
        before = len([card for card in source.cards if card.staying])
        unborn = source.unborn
        waiting = self._waiting_for(source)
        if source.over and not self._learnt_late(source):
            self.fail(13, f"the supply of {source.resource!r} was told never to try again")
        if self.now < source.not_before and not self._learnt_late(source):
            self.fail(
                13,
                f"the supply of {source.resource!r} tries again at once, expected a pause until "
                f"{source.not_before:.3f}",
            )
        if source.failing and unborn and not self._learnt_late(source):
            self.fail(
                13, f"the supply of {source.resource!r} failed, and tries {unborn + 1} at once"
            )
        if unborn >= waiting and source.lasting >= source.min_size and not source.owed:
            self.fail(
                13,
                f"another conn to {source.resource!r} is opened: {source.lasting} stay, "
                f"min_size is {source.min_size}, {unborn} are being opened, and {waiting} callers "
                "wait",
            )
        source.owed = max(0, source.owed - 1)
        source.hungry = None
        card = Card(permit.entry, source)
        card.made_in = self.looks
        card.extra, card.revive = source.supply.extra, source.supply.revive
        card.ttl = source.supply.ttl
        source.cards.add(card)
        self.cards[permit.entry] = card
        if before >= source.max_size and permit.entry.state is State.OPENING:
            self.fail(2, f"{before + 1} conns of {source.resource!r}, max_size {source.max_size}")
        return card

    def _learnt_late(self, source: Source) -> bool:
        """Whether the last failure may have become known only after an opening of this step was
        begun: one conn took too long, and in the same step another has left, or took too long."""
        left = any(card.left_in == self.looks for card in source.cards)
        others = [other for other in self.sources.values() if other is not source]
        failed = any(other.failed_in == self.looks for other in others)
        overdue = any(self.now - LAG <= due <= self.now for due in self.slots.values())
        # The core gives the slot of one that took too long on before it notes the failure.
        hung = source.hung_in == self.looks
        return source.failed_in == self.looks and (left or failed or overdue or hung)

    def _waiting_for(self, source: Source) -> int:
        """How many wait whom another conn of the supply could serve, as far as is known."""
        return sum(self._is_for(caller, source) for caller in self.line)

    @staticmethod
    def _is_for(caller: Caller, source: Source) -> bool:
        return caller.resource == source.resource and source.may_make_for(caller)

    def born(self, card: Card, source: Source) -> None:
        """A supplied conn has come to life."""
        ttl, entry = source.supply.ttl, card.entry
        if ttl is not None:
            if entry.ttl is None or not ttl * 0.75 <= entry.ttl <= ttl:
                self.fail(7, f"conn {card.id} lives for {entry.ttl} s, its supply says {ttl} s")
            card.ttl = entry.ttl
        source.methods, source.born_in = card.methods, self.looks
        source.well_in = self.looks if source.failing else source.well_in
        source.failing, source.not_before, source.hungry = False, -math.inf, None

    def stillborn(self, source: Source, error: BaseException) -> None:
        """A supply could not open a conn."""
        least, most = self.pauses(error)
        again = source.failing and source.failed_in == self.looks
        source.failing = True
        source.failed_in = self.looks
        source.hungry = None
        if math.isinf(least):
            source.over = True
        else:
            source.advised = self._advice(error) is not None
            # Who asks for a pause must know what its server can bear.
            until = self.now + (least if source.advised else min(least, WANTED))
            # Of two in one step the pool may have seen to the other one last.
            source.not_before = min(until, source.not_before) if again else until
            source.pause = max(most, source.pause) if again else most
        self.stirred = True

    def pauses(self, error: BaseException) -> tuple[float, float]:
        """The shortest and the longest pause after a failed init; inf: for ever."""
        backoff = self.options.backoff
        advice = self._advice(error)
        if advice is not None:
            return advice, max(advice, 1.0)
        least = min(backoff.first, backoff.most) * (1 - backoff.jitter)
        return least, max(backoff.most * (1 + backoff.jitter), 1.0)

    @staticmethod
    def _advice(error: BaseException) -> float | None:
        """The pause that an error asks for, if that makes sense."""
        advice = error.retry_after if isinstance(error, InitError) else None
        return advice if advice is not None and advice >= 0 else None

    def owes(self, card: Card, source: Source, reason: str) -> None:
        """A supplied conn has died, or its time is over."""
        source.lost_at = self.now
        if card.revive == "force" or (card.revive and reason != "done"):
            source.owed = min(source.owed + 1, source.max_size)

    # -- limits --------------------------------------------------------------------------------

    def occupied(self) -> int:
        """How many of the pool's places are taken."""
        return sum(card.staying for card in self.cards.values())

    def check_sizes(self) -> None:
        """Nothing is larger than it may be."""
        most = self.options.max_size
        if most is not None and self.occupied() > most:
            self.fail(2, f"the pool holds {self.occupied()} conns, max_size is {most}")
        for source in self.sources.values():
            count = sum(c.seen in LIVE or c.seen is State.OPENING for c in source.cards)
            if count > source.max_size:
                self.fail(2, f"{count} conns of {source.resource!r}, max_size {source.max_size}")

    def check_full(self, error: PoolFull, caller: Caller | None) -> None:
        """Somebody was told that the pool is full."""
        if caller is None:
            if self.options.max_size is None or self.occupied() < self.options.max_size:
                self.fail(12, f"a conn was refused, and the pool holds {self.occupied()}: {error}")
        elif self.options.max_waiting is None or len(self.line) < self.options.max_waiting:
            self.fail(12, f"{caller} was refused, and {len(self.line)} wait: {error}")
        elif caller.place is not None:
            self.fail(4, f"{caller} had a place in line, and lost it: {error}")

    # -- what should happen some day -----------------------------------------------------------

    def free_slots(self) -> bool:
        """Whether another conn may be opened in the background, for certain."""
        used = sum(due + LAG >= self.now for due in self.slots.values())
        return used < self.options.max_connecting

    def check_hunger(self) -> None:
        """A supply that should open a conn does so in time."""
        if self.closed:
            return
        for source in self.sources.values():
            if not self._should_open(source):
                source.hungry = None
                continue
            if source.hungry is None:
                source.hungry = self.now
            waiting = [caller for caller in self.line if self._is_for(caller, source)]
            since = max(source.hungry, min((c.lined_up for c in waiting), default=source.hungry))
            waited = self.now - since
            patience = self._patience(source, waiting=bool(waiting))
            if waited > patience + LAG + GLANCE:
                self.fail(
                    3 if waiting else 13,
                    f"the supply of {source.resource!r} should have opened a conn {waited:.3f} s "
                    f"ago: {len(source.cards)} of {source.max_size}, min_size {source.min_size}, "
                    f"{len(waiting)} callers wait, {source.owed} are owed",
                )

    def _longest_pause(self, source: Source) -> float:
        backoff = self.options.backoff
        return max(source.pause, backoff.most * (1 + backoff.jitter), 1.0)

    def _patience(self, source: Source, *, waiting: bool) -> float:
        """How long a supply may make those wait who want a conn of it."""
        longest = self._longest_pause(source)
        if not waiting or (source.failing and source.advised):
            return longest
        unharmed = not source.failing and self.now - source.lost_at > longest
        return 0.0 if unharmed and self.options.max_size is None else WANTED

    def gives_room(self, source: Source) -> bool:
        """Whether another supply has an idle conn that it does not need."""
        return any(
            other is not source
            and other.alive > other.min_size
            and any(c.seen is State.READY and not c.holders for c in other.cards)
            for other in self.sources.values()
        )

    def check_recovery(self) -> None:
        """Where an opening has gone well after others had failed, what is wanted is opened now."""
        for source in self.sources.values():
            if source.well_in == self.looks and self._should_open(source):
                self.fail(13, f"the supply of {source.resource!r} works again, and pauses on")

    def _should_open(self, source: Source) -> bool:
        if source.over or source.size >= source.max_size or not self.free_slots():
            return False
        most = self.options.max_size
        full = most is not None and self.occupied() >= most
        if (full and not self.gives_room(source)) or (source.failing and source.unborn):
            return False
        return self._wanted(source, source.owed) > 0

    def _wanted(self, source: Source, owed: int) -> int:
        """How many more conns a supply should open that owes so many."""
        missing = source.min_size - source.lasting
        return max(self._waiting_for(source) - source.unborn, missing, owed)
