"""Conduct: how conns come to life, rest, are revived and leave.

Owns the rules about what becomes of a conn.  Refuses to know how they are enforced: it knows what
conns have said, and looks what state each is in after each step.

Invariant: a conn that leaves service has a reason that the world knows of, and one that has a
reason leaves.
"""

from __future__ import annotations

import math
from typing import Any

from ..conn import Description
from ..core import Core, Info, Options, Permit, State, Work
from ..errors import Closed
from .sim_books import BROKEN, LAG, LOST
from .sim_cards import HOPEFUL, LIVE, Card, Source
from .sim_contract import Verdict
from .sim_shares import Shares

READY, COOLING, CHECKING = State.READY, State.COOLING, State.CHECKING
OPENING, REVIVING, DRAINING, GONE = (
    State.OPENING,
    State.REVIVING,
    State.DRAINING,
    State.GONE,
)  # fmt: skip
SPARE = ("idle", "evicted")
FINAL = ("withdrawn", "popped", "pool closed", "gave up")
INF = math.inf
# Differences of seconds smaller than this come of the arithmetic.
ROUNDING = 1e-9


class Conduct(Shares):
    """The fourth storey of the ledger."""

    def __init__(self, core: Core, options: Options) -> None:
        super().__init__(core, options)
        # Those that left service in this step: the reason taken, and all that may be true.
        self.left: list[tuple[str, list[str]]] = []

    # -- births --------------------------------------------------------------------------------

    def opened(self, card: Card, info: Info | None, what: Description, rest: float) -> None:
        """A conn was opened, and the core was told."""
        self.counts["opened"] += 1
        if info is None:
            wanted = card.seen in (OPENING, REVIVING) and card.entry.state is not GONE
            if wanted and not self.closed and card.pop is None:
                self.fail(8, f"conn {card.id} was opened in time, and is closed again")
            return
        if card.seen is REVIVING:
            self.counts["revived"] += 1
        card.describe(what)
        card.born = card.used = self.now
        card.fresh = self.stirred = True
        card.well_in = self.looks
        card.condemned = card.said = ""
        card.broken = False
        card.rests, card.rest_most = self.now + rest, self.now + rest
        if card.source is not None:
            self.born(card, card.source)
        card.expires = INF if card.ttl is None else self.now + card.ttl

    def not_opened(self, card: Card, error: BaseException, permit: Permit) -> None:
        """A conn could not be opened, and the core was told."""
        if permit.given_up:
            return
        self.counts["open_failed"] += 1
        if card.source is not None:
            if card.seen is OPENING:
                card.condemned = "unborn"
                self.stillborn(card.source, error)
            return
        if card.seen is not REVIVING or card.entry.state is not REVIVING:
            if card.seen is REVIVING and card.pop is None and not self.closed:
                least, _ = self.pauses(error)
                if not math.isinf(least):
                    self.fail(11, f"conn {card.id} could not be opened, and is given up")
                self.condemn(card, "gave up")
                self.ended["gave up"] += 1
            return
        card.streak += 1
        least, most = self.pauses(error)
        if not self.now + least <= card.entry.rest_until <= self.now + most:
            self.fail(
                13,
                f"conn {card.id} is tried again after {card.entry.rest_until - self.now:.3f} s, "
                f"expected {least:.3f} to {most:.3f} s after {error!r}",
            )

    # -- calls ---------------------------------------------------------------------------------

    def concluded(
        self, card: Card, method: Any, verdict: Verdict, started: float, ok: bool
    ) -> None:
        """A call has ended otherwise than with a plain reply; `ok`: it was answered even so."""
        if verdict.moves:
            self.counts["moved"] += 1
        elif ok:
            self._answered(card, method, started)
        else:
            self.counts["calls"] += 1
            self.counts["errors"] += 1
            card.failures += 1
        rest = verdict.rest
        if verdict.moves and not verdict.end:  # Busy
            self.counts["busy"] += 1
            card.refusals += 1
            rest = max(rest, min(0.5, 0.0125 * 2**card.refusals))
        charge = 0.0 if ok or verdict.moves else self._charge(card, method, started)
        if verdict.end:
            self._dies(card, verdict.end)
        elif card.seen in LIVE and card.entry.state in LIVE:
            card.told_in = self.looks
            card.rests = max(card.rests, self.now + max(rest, charge))
            extra = 0.0 if ok else self.longest
            card.rest_most = max(card.rest_most, self.now + max(rest, extra))

    def answered(self, card: Card, method: Any, started: float) -> None:
        """A call was answered with a plain reply."""
        self._answered(card, method, started)

    def _answered(self, card: Card, method: Any, started: float) -> None:
        self.counts["calls"] += 1
        took = self.now - started
        self.longest = max(self.longest, took)
        card.answered(method, took)

    def _charge(self, card: Card, method: Any, started: float) -> float:
        """How long a conn that keeps failing rests at least, if its peers answer."""
        if card.failures == 1:
            return 0.0
        means = [
            peer.means[method][2]
            for peer in self._peers(card)
            if method in peer.means and peer.seen in HOPEFUL
        ]
        return max(0.0, started + min(means) - self.now) if means else 0.0

    def _peers(self, card: Card) -> list[Card]:
        """Those that can do just what it can."""
        kind = (set(card.resources), card.methods)
        return [
            other
            for other in self.cards.values()
            if other is not card and (set(other.resources), other.methods) == kind
        ]

    def _dies(self, card: Card, reason: str) -> None:
        live = card.seen in LIVE and self.now < card.expires
        if live and reason in LOST:
            self.lost.append(card)
        self.condemn(card, reason)

    def asked(self, card: Card, permit: Permit, error: BaseException | None) -> None:
        """A conn was asked whether it is well, and the core was told."""
        if error is None:
            card.well_in = self.looks
        elif card.seen is CHECKING and self.now < permit.due:
            self._dies(card, "dead")

    # -- what users do -------------------------------------------------------------------------

    def let_go(self, cards: list[Card]) -> None:
        """Conns were told to leave."""
        self.dismissed = True
        for card in cards:
            self.condemn(card, "withdrawn")

    def taken_out(self, cards: list[Card], pop: Any) -> None:
        """Somebody wants these conns for himself."""
        for card in cards:
            card.said = "" if card.seen in LIVE else card.left_for
            card.condemned, card.pop = "popped", pop
        self.stirred = True

    def put_back(self, pop: Any) -> None:
        """He has given it up."""
        for card in [card for card in self.cards.values() if card.pop is pop]:
            asked = card.permit is not None and card.permit.work is Work.CHECK
            if asked and self.now >= card.permit_due:
                card.said = card.said or "dead"  # it hangs in its check
            card.pop, card.condemned, card.said = None, card.said, ""
            card.fresh = card.unpopped = True
        self.stirred = True

    # -- looking -------------------------------------------------------------------------------

    def moved(self, card: Card, state: State) -> None:
        """A conn is in another state than when it was last looked at."""
        before, card.seen = card.seen, state
        self.stirred = True
        if card.unpopped and before is DRAINING and card.open and not self.closed:
            before = READY  # for a moment
        if card.fresh and before is OPENING and state is DRAINING:
            before = READY  # it was opened, and given up at once
        if state in LIVE:
            self._serves(card, before, state)
        elif before in LIVE:
            self._left(card, self._reasons(card, before), state)
        elif state is REVIVING and before is DRAINING and not card.fresh:
            self.fail(11, f"conn {card.id} comes back though nobody has put it back")
        elif state is DRAINING and before is REVIVING and not card.condemned and not self.closed:
            self.fail(11, f"conn {card.id} was to be revived, and is dropped")
        if state is GONE:
            self._gone(card, before)
        card.fresh = card.unpopped = False

    def _serves(self, card: Card, before: State, state: State) -> None:
        if before not in LIVE and not card.fresh:
            self.fail(11, f"conn {card.id} serves again, and was {before.value}")
        if state is READY and self.now < card.rests:
            self.fail(11, f"conn {card.id} is to rest until {card.rests:.3f}, and does not")

    def _reasons(self, card: Card, before: State) -> list[str]:
        """Why a conn may have left service, as far as the world knows: the likeliest first."""
        if card.unpopped and card.condemned:
            return [card.condemned]
        if before is CHECKING and card.permit_due <= self.now:
            return ["dead"]  # it hangs in its check
        late = self.now >= card.expires and not self.closed
        if not late and (card.condemned or self.closed):
            return [card.condemned or "pool closed"]
        # What is due is seen to before anything else is done, but at one instant in any order.
        reasons = ["expired"] * late
        source = card.source
        if source is not None:
            if self.dismissed or card.unpopped:  # it is, or was before the pop, one too many
                reasons.append("withdrawn")
            if not card.holders:
                reasons += self._not_needed(card, source)
        if not reasons:
            self.fail(11, f"conn {card.id} is out of service, and nothing was wrong with it")
        return reasons

    def _not_needed(self, card: Card, source: Source) -> list[str]:
        """Why a supplied conn may leave that nobody uses."""
        reasons = []
        if any(set(card.resources) & set(lost.resources) for lost in self.lost):
            reasons.append("suspect")
        if self._spare(source):
            if self.now >= card.used + source.supply.max_idle:
                reasons.append("idle")
            if self.may_evict(card, source):
                reasons.append("evicted")
        return reasons

    def _spare(self, source: Source) -> bool:
        """Whether one that has just left was one more than must be there: of those that left in
        the same step for other reasons it is not known whether they left before or after."""
        stood = sum(
            card.seen in LIVE or card.entry.state in LIVE or card.left_in == self.looks
            for card in source.cards
        )
        return stood >= source.min_size

    def _left(self, card: Card, reasons: list[str], state: State) -> None:
        """A conn is out of service for one of these reasons: that which the pool says, if it is."""
        said = card.entry.reason
        reason = said if said in reasons else reasons[0]
        if reason == "dead" and card not in self.lost and not card.unpopped:
            self.lost.append(card)
        if reason == "evicted":
            self.evicted.append(card)
        if reason != "popped":
            self.ended[reason] += 1
            self.left.append((reason, reasons))
        card.left_for, card.out_in = reason, self.looks
        card.left_in = -1 if reason in SPARE else self.looks
        if card.condemned not in BROKEN:
            card.condemned = reason
        source = card.source
        if source is not None and reason not in (*SPARE, "popped", "pool closed", "withdrawn"):
            self.owes(card, source, reason)
        back = self._comes_back(card, reason)
        if state is REVIVING and not back:
            self.fail(11, f"conn {card.id} ({reason}, revive={card.revive!r}) is to be revived")
        if state is not REVIVING and back:
            self.fail(11, f"conn {card.id} ({reason}, revive={card.revive!r}) is dropped")
        if reason in LOST:
            card.streak += 1
        if state is REVIVING:
            self._check_return(card, reason)

    def _comes_back(self, card: Card, reason: str) -> bool:
        if self.closed or card.source is not None or reason in FINAL:
            return False
        return card.revive == "force" or (bool(card.revive) and reason != "done")

    def _check_return(self, card: Card, reason: str) -> None:
        """When a conn that has left service is opened again."""
        wait = card.entry.rest_until - self.now
        backoff = self.options.backoff
        least, most = 0.0, max(0.0, card.born + 0.05 - self.now)
        if reason in LOST and card.streak > 1:
            least = min(backoff.first, backoff.most) * (1 - backoff.jitter)
            most = backoff.most * (1 + backoff.jitter)
        elif reason in LOST:
            most = 0.0
        if not least - ROUNDING <= wait <= most + ROUNDING:
            self.fail(
                13,
                f"conn {card.id} ({reason}, {card.streak} times in a row) is opened again after "
                f"{wait:.3f} s, expected {least:.3f} to {most:.3f} s",
            )

    def _gone(self, card: Card, before: State) -> None:
        if card.holders and not self.abandoned:
            self.fail(5, f"conn {card.id} is forgotten while {card.holders[0]} uses it")
        if card.source is not None:
            if before is OPENING and card.condemned != "unborn" and not self.closed:
                self._given_up(card, card.source)
            card.source.cards.discard(card)
        if card.permit is not None:
            self.slots.pop(card.permit, None)

    def _given_up(self, card: Card, source: Source) -> None:
        """What was being opened is waited for no more."""
        if card.permit_due <= self.now:
            self.counts["open_failed"] += 1
            source.hung_in = self.looks
            if source.born_in != self.looks:  # it was given up before another was born
                self.stillborn(source, TimeoutError())
        elif not self.dismissed:
            self.fail(13, f"conn {card.id} was being opened, and is given up before its time")

    def check_ended(self) -> None:
        """The pool counts why conns leave as it was: where at one instant several reasons are true,
        one of them, for each."""
        said = self.core._tally.ended
        left, self.left = self.left, []
        for reason, reasons in left:
            if self.ended[reason] > said[reason]:
                for other in reasons:
                    if self.ended[other] < said[other]:
                        self.ended[reason] -= 1
                        self.ended[other] += 1
                        break
        for reason in {*said, *self.ended}:
            if said[reason] != self.ended[reason]:
                self.fail(
                    14,
                    f"{self.ended[reason]} conns were given up because {reason}, the pool counts "
                    f"{said[reason]}",
                )

    def check_suspects(self) -> None:
        """When a conn was found dead, its idle peers are asked before they are lent."""
        for card in self.lost:
            for peer in self._peers(card):
                idle = peer.seen is READY and not peer.holders
                idle &= self.now not in (peer.used, peer.rests)  # or it was not, a moment ago
                idle &= peer.entry.rest_until < self.now
                if idle and peer.checks and peer.well_in != self.looks and not peer.condemned:
                    self.fail(
                        11, f"conn {card.id} was found dead, and its idle peer {peer.id} not asked"
                    )

    def check_rest(self, card: Card) -> None:
        """A conn rests as long as it has asked for, and is used again when that is over."""
        entry = card.entry
        if not card.rests <= entry.rest_until <= max(card.rest_most, card.rests) + 1e-9:
            self.fail(
                11,
                f"conn {card.id} rests until {entry.rest_until:.3f}, expected "
                f"{card.rests:.3f} to {card.rest_most:.3f}",
            )

    def check_idle(self, card: Card) -> None:
        """A conn out of service that nobody uses, and for which nothing is out, waits for something
        that will come."""
        state = card.seen
        if state is OPENING:
            self.fail(5, f"conn {card.id} is being opened by nobody")
        if state is DRAINING and card.pop is None:
            self.fail(8, f"conn {card.id} is to leave, and nobody sees to it")
        if state is REVIVING:
            if card.open:
                self.fail(8, f"conn {card.id} is to be opened anew, and is not closed first")
            if card.entry.rest_until <= self.now - LAG and self.free_slots():
                self.fail(13, f"conn {card.id} is to be revived, and nobody sees to it")


def lost_error(error: BaseException) -> bool:
    """Whether an error says that the server may be gone."""
    return isinstance(error, (Closed, ConnectionError, EOFError))
