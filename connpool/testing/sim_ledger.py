"""The ledger: looks after each step whether all rules hold.

Owns the look, the lateness of what is due, and the comparison of what the pool says of itself with
what was noted.  Refuses to act.

Invariant: a look takes time in proportion to the conns and callers of a small world, and finds a
broken rule in the step that broke it; what is a matter of time is found within `LAG` and `GLANCE`.
"""

from __future__ import annotations

import math
from typing import Any

from ..core import Core, Info, Options, PoolStats, State
from .sim_books import LAG
from .sim_cards import HOPEFUL, LIVE, Card
from .sim_line import Line
from .sim_sizes import GLANCE

READY, COOLING, CHECKING, GONE = State.READY, State.COOLING, State.CHECKING, State.GONE
INF = math.inf

# Of longer histories the pool's means forget the beginning.
MEMORY = 64
ROUNDING = 1e-6


class Ledger(Line):
    """All that is known, and all that is checked."""

    def __init__(self, core: Core, options: Options) -> None:
        super().__init__(core, options)
        self.due = INF  # something should happen by then
        self._glance = 0.0

    # -- after each step -----------------------------------------------------------------------

    def look_at_states(self) -> None:
        """The core has been left: what has become of each conn?"""
        for card in tuple(self.cards.values()):
            state = card.entry.state
            if state is not card.seen or card.fresh:
                self.moved(card, state)

    def look(self) -> None:
        """The steps of the core are taken over: everything must be right."""
        free: list[Card] = []
        due = INF
        for card in tuple(self.cards.values()):
            state = card.entry.state
            if state is not card.seen or card.fresh:
                self.moved(card, state)
            if card.entry.in_use != len(card.holders) and not self.abandoned:
                users = len(card.holders)
                self.fail(5, f"conn {card.id} counts {card.entry.in_use} users, it has {users}")
            if state is READY:
                due = min(due, card.expires)
                if self._lendable(card):
                    free.append(card)
            else:
                due = min(due, self._resting(card, state))
        if self.line:
            if free:
                self.check_waiting(free)
            if self.wholes:
                self.check_claims()
            if self.stirred:
                self.check_hopes()
            due = min(due, *[caller.deadline for caller in self.line])
            if self.missing:
                due = min(due, self.missed_at())
        self.due = due
        self._look_at_this_step()
        self.looks += 1
        if self.now >= self._glance:
            self._glance = self.now + GLANCE
            self.check_hunger()

    def _lendable(self, card: Card) -> bool:
        """Whether a conn that is READY has a place for somebody."""
        if card.condemned:
            self.fail(11, f"conn {card.id} serves on, and is to leave: {card.condemned}")
        if card.expires < self.now - LAG:
            self.fail(7, f"conn {card.id} serves on, expired at {card.expires:.3f}")
        return card.expires > self.now and len(card.holders) < card.entry.capacity

    def _resting(self, card: Card, state: State) -> float:
        """Look at a conn that is not READY: when something has to become of it."""
        if state is COOLING:
            self.check_rest(card)
            return min(card.entry.rest_until, card.expires)
        if state is CHECKING:
            if card.permit is None or card.holders:
                self.fail(11, f"conn {card.id} is kept to be asked, and nobody asks it")
            return min(card.permit_due, card.expires)
        if state is GONE:
            if card.permit is None and not card.open:
                self.bury(card)
        elif card.permit is None and not card.holders:
            self.check_idle(card)
        return INF

    def _look_at_this_step(self) -> None:
        """What is only true of the step that has just been done."""
        if self.in_vain:
            self.check_refusals()
        if self.untold:
            self.check_untold()
        if self.vacated:
            self.vacated.clear()
        if self.lost:
            self.check_suspects()
            self.lost.clear()
        if self.options.max_size is not None:
            self.check_shares()
        if self.stirred:
            self.check_ended()
            self.check_sizes()
            self.check_recovery()
            self.stirred = self.dismissed = False
            self.former.clear()

    def goes_on(self, now: float) -> None:
        """Time passes: what was due should be done."""
        if now > self.due + LAG and not self.abandoned:
            if self.line and self.missing and now > self.missed_at() + LAG:
                lost = ", ".join(map(str, self.missing))
                self.fail(5, f"{self.line[0]} waits, and nobody takes back what {lost} held")
            what = f"something was due at {self.due:.3f}, and at {now:.3f} it is not done"
            self.fail(3 if self.line else 11, what)
        self.now = now

    # -- what the pool says of itself ----------------------------------------------------------

    def check_info(self, info: Info) -> None:
        """A picture of a conn shows what is known of it."""
        card = next((card for card in self.cards.values() if card.id == info.id), None)
        if card is None or card.seen not in HOPEFUL:
            self.fail(14, f"the pool shows conn {info.id}, which has left")
        shown = (info.conn, info.resource, info.methods, info.extra, info.ttl, info.revive)
        known = (card.conn, card.resource, card.methods, card.extra, card.ttl, card.revive)
        shown += (info.capacity, info.in_use, info.state)  # type: ignore[assignment]
        known += (card.capacity, len(card.holders), card.seen.value)  # type: ignore[assignment]
        if shown != known:
            self.fail(14, f"conn {info.id} is shown as {shown}, and is {known}")
        for method, stat in info.stats.items():
            self._check_mean(card, method, stat)

    def _check_mean(self, card: Card, method: Any, stat: Any) -> None:
        count, total, _ = card.means.get(method, (0, 0.0, 0.0))
        if stat.answers != count:
            self.fail(14, f"conn {card.id} answered {count} calls, the pool counts {stat.answers}")
        if 0 < count < MEMORY and abs(stat.mean - total / count) > ROUNDING:
            self.fail(14, f"conn {card.id} took {total / count} s a call, not {stat.mean} s")

    def check_infos(self, infos: list[Info]) -> None:
        """All conns are shown, and each as it is."""
        for info in infos:
            self.check_info(info)
        known = {card.id for card in self.cards.values() if card.seen in HOPEFUL}
        if {info.id for info in infos} != known:
            self.fail(14, f"the pool shows {[info.id for info in infos]}, it holds {sorted(known)}")

    def check_stats(self, stats: PoolStats) -> None:
        """The numbers are those that were counted here."""
        now, since = stats.now, stats.since_start
        cards = [card for card in self.cards.values() if card.seen is not GONE]
        states = [card.seen for card in cards]
        shown = {
            "conns": (now.conns, sum(state in LIVE for state in states)),
            "ready": (now.ready, states.count(READY)),
            "in_use": (now.in_use, sum(len(card.holders) for card in cards)),
            "waiting": (now.waiting, len(self.line)),
        }
        for name in ("cooling", "reviving", "draining", "opening"):
            shown[name] = (getattr(now, name), states.count(State(name)))
        counted = ("calls", "errors", "queued", "moved", "busy", "timeouts", "cancelled")
        for name in (*counted, "checkouts", "lost", "opened", "open_failed", "revived"):
            shown[name] = (getattr(since, name), self.counts[name])
        for reason in {*since.ended, *self.ended}:
            shown[f"ended, {reason}"] = (since.ended.get(reason, 0), self.ended[reason])
        for name, (said, counted_here) in shown.items():
            if said != counted_here:
                self.fail(14, f"stats say {said} {name}, counted were {counted_here}")
