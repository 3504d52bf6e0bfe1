"""The books: who has which place, which conn was opened and closed, which permit is out.

Owns the facts of a world as its driver sees them, and the rules about places, permits, openings and
closings.  Refuses to trust the core: what it says is compared with what was noted here.

Invariant: a fact is noted before the steps that came of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NoReturn

from ..core import Core, Entry, Options, Permit, State, Work
from .sim_cards import Card, Source
from .sim_story import Story, Violation

if TYPE_CHECKING:
    from .sim_wishes import Caller

# Reasons that say that a conn's server may be gone.
LOST = ("dead", "closed")
# Reasons that say that a conn is of no use any more, even to those who hold it.
BROKEN = (*LOST, "interrupted", "unclean", "forsaken")

# By how many seconds a driver may be late in a simulated world.
LAG = 0.5


class Books:
    """The lowest storey of the ledger."""

    def __init__(self, core: Core, options: Options) -> None:
        self.core = core
        self.options = options
        self.now = 0.0
        self.cards: dict[Entry, Card] = {}
        self.sources: dict[Hashable, Source] = {}
        self.former: dict[Hashable, Source] = {}  # those that were withdrawn in this step
        self.line: list[Caller] = []  # in the order in which they are to be served
        self.closed = False  # the pool was told to close
        self.abandoned = False  # and its time to close is over
        self.permits: dict[Permit, Card] = {}  # those that are out
        self.slots: dict[Permit, float] = {}  # those to open in the background, and until when
        self.counts: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.lost: list[Card] = []  # those found dead in this step
        self.dismissed = False  # in this step conns were let go
        self.longest = 0.0  # the longest call so far
        self.stirred = True  # something has changed that hopes may hang on
        self.buried = 0
        self.looks = 0  # steps so far
        self.story: Story | None = None  # what has happened, where somebody wants to know

    def fail(self, rule: int, what: str) -> NoReturn:
        """A rule is broken."""
        violation = Violation(rule, what, self.now)
        violation.steps = self.looks
        if self.story is not None:
            violation.story = tuple(self.story.lines)
        raise violation

    # -- permits -------------------------------------------------------------------------------

    def admitted(self, permit: Permit, known: dict[str, Any]) -> Card:
        """A conn was let in, and is being opened by the one who brought it."""
        card = Card(permit.entry)
        card.extra, card.ttl, card.revive = known["extra"], known["ttl"], known["revive"]
        self.cards[permit.entry] = card
        self._give_out(permit, card, math.inf)
        return card

    def issued(self, permit: Permit) -> None:
        """The core wants something opened, asked or closed."""
        card = self.cards.get(permit.entry)
        if card is None:
            if permit.work is not Work.OPEN or permit.make is None:
                self.fail(8, f"conn {permit.entry.id} is to {permit.work.value}, and has left")
            card = self._conceived(permit)
        elif permit.work is Work.OPEN:
            self._reopens(card)
        elif permit.work is Work.CHECK:
            if not card.open or card.holders:
                self.fail(11, f"conn {card.id} is to be asked while it is used or closed")
        else:
            self._closes(card, permit)
        if card.permit is not None and not self._forsaken(card):
            self.fail(8, f"conn {card.id} has two permits out at once")
        limit = self.options.connect_timeout
        if permit.work is Work.OPEN and card.source is not None:
            limit = card.source.supply.connect_timeout
        if permit.limit != limit:
            self.fail(11, f"a permit of {permit.limit} s, expected {limit} s")
        self._give_out(permit, card, limit)
        if permit.work is Work.OPEN:
            self._takes_slot(permit)

    def _closes(self, card: Card, permit: Permit) -> None:
        """A conn is to be closed."""
        if not permit.reason:
            self.fail(8, f"conn {card.id} is to be closed, and nobody knows why")
        if not card.open:
            self.fail(8, f"conn {card.id} is to be closed, and is not open")
        card.open = False
        if card.holders and not card.broken and not self.abandoned:
            self.fail(11, f"conn {card.id} is closed under those who use it")

    def _give_out(self, permit: Permit, card: Card, limit: float) -> None:
        if permit in self.permits:
            self.fail(8, f"a permit for conn {card.id} was given out twice")
        self.permits[permit] = card
        card.permit, card.permit_due = permit, self.now + limit

    def _forsaken(self, card: Card) -> bool:
        """Whether the pool no longer waits for what is out for this conn."""
        permit = card.permit
        assert permit is not None
        overdue = permit.work is Work.CHECK and self.now >= card.permit_due
        return self.abandoned or overdue or card.seen is State.GONE

    def _takes_slot(self, permit: Permit) -> None:
        self.slots[permit] = permit.due
        used = sum(due > self.now for due in self.slots.values())
        if used > self.options.max_connecting:
            most = self.options.max_connecting
            self.fail(13, f"{used} conns are opened at once, max_connecting is {most}")

    def returned(self, permit: Permit) -> Card:
        """What a permit allowed has come to its end."""
        card = self.permits.pop(permit)
        self.slots.pop(permit, None)
        if card.permit is permit:
            card.permit = None
        return card

    def _conceived(self, permit: Permit) -> Card:
        """A supply has another conn opened; see the storey above."""
        raise NotImplementedError

    def _reopens(self, card: Card) -> None:
        """A conn is opened again."""
        if card.seen is not State.REVIVING and card.entry.state is not State.REVIVING:
            self.fail(11, f"conn {card.id} is opened again, and is {card.entry.state.value}")
        if card.open or card.holders:
            self.fail(8, f"conn {card.id} is opened again while it is open or in use")
        if self.closed:
            self.fail(9, f"conn {card.id} is opened though the pool is closed")
        if self.now < card.born + 0.05 and card.left_for not in BROKEN:
            self.fail(13, f"conn {card.id} is opened twice within {self.now - card.born:.3f} s")

    # -- openings and closings -----------------------------------------------------------------

    def came_up(self, card: Card) -> None:
        """An init has succeeded."""
        card.opens += 1
        card.open = True
        if card.opens - card.closes > 1:
            self.fail(8, f"conn {card.id} was opened again without being closed")

    def goes_down(self, card: Card) -> None:
        """A close is begun."""
        card.closes += 1
        card.open = False
        if card.closes + card.handed > card.opens:
            self.fail(8, f"conn {card.id} was opened {card.opens} times, and closed once too often")

    def handed_over(self, card: Card) -> None:
        """A pop gave the conn to whoever asked for it."""
        if card.holders:
            self.fail(1, f"conn {card.id} was handed over while it is used")
        if card.open:
            card.handed += 1
            card.open = False
        if card.entry.state is not State.GONE:
            self.fail(8, f"conn {card.id} was handed over, and the pool still has it")

    def bury(self, card: Card) -> None:
        """A conn has left for good, and nothing is out for it."""
        if card.opens != card.closes + card.handed:
            self.fail(
                8,
                f"conn {card.id} is gone: opened {card.opens} times, closed {card.closes} times, "
                f"handed over {card.handed} times",
            )
        if card.source is not None:
            card.source.cards.discard(card)
        del self.cards[card.entry]
        self.buried += 1

    # -- places --------------------------------------------------------------------------------

    def takes(self, caller: Caller, card: Card) -> None:
        """A caller has a place, or all of them."""
        if not card.open:
            self.fail(8, f"conn {card.id}, which is closed, was lent to {caller}")
        if not card.room_for(caller):
            self.fail(
                1,
                f"conn {card.id} was lent to {caller}, and of its {card.capacity} places "
                f"{len(card.holders)} are taken, by {', '.join(map(str, card.holders))}",
            )
        places = card.capacity if caller.whole else 1
        card.holders.extend([caller] * places)
        caller.card = card

    def back(self, caller: Caller) -> Card:
        """A caller gives back what he has."""
        card = caller.card
        assert card is not None
        caller.card = None
        if caller.whole:
            card.holders = [holder for holder in card.holders if holder is not caller]
        else:
            card.holders.remove(caller)
        card.used, card.back_in = self.now, self.looks
        return card
