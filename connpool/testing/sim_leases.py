"""Leases: what becomes of conns that were checked out, and for whom they are kept.

Owns the rules about the ends of checkouts, about those that are lost, and about claims: who wants
all places of a shared conn has one kept free for him.  Refuses to know who is served first.

Invariant: a checkout ends once; one that is lost is told of once, with the place in the code where
it was taken; a conn is kept for one who waits for it, can have it, and does not hold it himself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core import Core, Forsaken, Options, State
from .sim_cards import LIVE, Card
from .sim_conduct import Conduct
from .sim_contract import Verdict
from .sim_sizes import GLANCE

if TYPE_CHECKING:
    from .sim_wishes import Caller, Holder

# While somebody waits, the pool looks so often, in seconds, for leases that are lost.
LOOKOUT = 1.0


class Leases(Conduct):
    """The fourth storey of the ledger."""

    def __init__(self, core: Core, options: Options) -> None:
        super().__init__(core, options)
        self.wholes = 0  # how many of those in line want a conn for themselves
        self.missing: list[Holder] = []  # those who will never give back what they hold
        self.untold: list[tuple[int, Any]] = []  # conns taken back, of which nobody was told yet
        self.vacated: list[Card] = []  # those of which a place came back in this step

    # -- the ends of checkouts -----------------------------------------------------------------

    def back(self, caller: Caller) -> Card:
        """A caller gives back what he has."""
        card = super().back(caller)
        if self.wholes:
            self.vacated.append(card)
        return card

    def released(self, card: Card) -> None:
        """A checkout has ended, and its conn is well."""
        self.counts["checkouts"] += 1
        card.recovered()

    def forfeited(self, card: Card, verdict: Verdict) -> None:
        """A checkout has ended otherwise, or has not begun."""
        self.counts["moved" if verdict.moves else "checkouts"] += 1
        if verdict.end:
            self._dies(card, verdict.end)
        elif card.seen in LIVE and card.entry.state in LIVE:
            card.told_in = self.looks
            card.rests = max(card.rests, self.now + verdict.rest)
            card.rest_most = max(card.rest_most, card.rests)

    # -- those that are lost -------------------------------------------------------------------

    def loses(self, holder: Holder) -> None:
        """Somebody will never give back what he holds."""
        holder.lost_at = self.now
        self.missing.append(holder)

    def forsaken(self, holder: Holder, card: Card, *, stays: bool) -> None:
        """It was taken back from him; of one that others share, the place only."""
        self.missing.remove(holder)
        self.untold.append((card.id, holder.where))
        self.counts["checkouts"] += 1
        self.counts["lost"] += 1
        if not stays:
            self._dies(card, "forsaken")

    def told_of_lost(self, step: Forsaken) -> None:
        """A step: the pool says that a conn was never given back."""
        said = (step.info.id, step.where)
        if said not in self.untold:
            self.fail(14, f"conn {said[0]} is said to be lost, {said[1]}; lost are {self.untold}")
        self.untold.remove(said)

    def check_untold(self) -> None:
        """Of each that was taken back somebody is told in the same step."""
        self.fail(14, f"conn {self.untold[0][0]} was taken back, and nobody is told")

    def missed_at(self) -> float:
        """When what is lost should be taken back, since somebody waits."""
        if self.closed:
            return math.inf
        since = min(caller.lined_up for caller in self.line)
        return max(since, min(holder.lost_at for holder in self.missing)) + LOOKOUT + GLANCE

    # -- claims --------------------------------------------------------------------------------

    @staticmethod
    def kept(card: Card) -> Caller | None:
        """For whom a conn is kept, as the core has it."""
        claim = card.entry.claim
        waiter: Caller | None = claim.tickets[0].waiter if claim is not None else None
        return waiter

    def check_claims(self) -> None:
        """Conns are kept for those who want them whole, and for no others."""
        owners: list[Caller] = []
        for card in self.cards.values():
            owner = self.kept(card)
            if owner is None:
                continue
            if not (owner.queued and owner.whole and card.able(owner)) or card.used_by(owner):
                self.fail(3, f"conn {card.id} is kept for {owner}, who cannot have it")
            if not card.holders or card.seen is not State.READY:
                self.fail(3, f"conn {card.id} is kept for {owner}, and nobody else uses it")
            if owner in owners:
                self.fail(3, f"conn {card.id} is kept for {owner}, and another one too")
            owners.append(owner)
        for card in self.vacated:
            if card.seen is State.READY and 0 < len(card.holders) < card.entry.capacity:
                self._check_kept(card)

    def _check_kept(self, card: Card) -> None:
        """A place of a conn that others use came back: the first who wants all has it kept."""
        for caller in self.line:
            ticket = caller.ticket
            need = ticket.need if ticket is not None else None
            if not caller.whole or caller.deadline <= self.now or not card.able(caller):
                continue
            if need is None or need.claim is not None or card.used_by(need.tickets[0].waiter):
                continue
            owner = self.kept(card)
            if owner is None or owner.order > caller.order:
                self.fail(4, f"a place of conn {card.id} came back, and is not kept for {caller}")
