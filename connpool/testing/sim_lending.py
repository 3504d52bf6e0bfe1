"""Lending: who checks a conn out, and what happens until it is handed over.

Owns the asking for a conn to hold, its check and its lend.  Refuses to know what is done with it.

Invariant: who is not handed a conn that he was given gives it back, and gets another or an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core import Entry, Outcome, of_check, of_lend
from ..errors import Closed
from .sim_callers import Callers
from .sim_contract import (
    LEASE_FAULTS,
    Raised,
    Verdict,
    perform,
    read_check,
    read_lend,
    settle,
)
from .sim_engine import Setup
from .sim_wishes import ASKING, LENDING, Caller, Checkout, Holder, Person, Wish

INF = math.inf


class Lending(Callers):
    """The fourth storey of a world."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self._people: dict[Any, Person] = {}

    def somebody(self, number: int, wish: Wish) -> Caller:
        """Who has a wish."""
        if not isinstance(wish, Checkout):
            return super().somebody(number, wish)
        holder = Holder(number, wish)
        holder.who = self._person(number if holder.who is None else holder.who)
        return holder

    def _person(self, number: Any) -> Person:
        """A thread is always the same; of a task one is made for each checkout."""
        person = self._people.get(number)
        if person is None:
            person = self._people[number] = Person(number, [number])
        return Person(number, person.life) if self.tasks else person

    # -- getting it ----------------------------------------------------------------------------

    def _try(self, caller: Caller) -> Entry | None:
        if not isinstance(caller, Holder):
            return super()._try(caller)
        if self.tasks:
            self.turn()
        asked, who, now = (caller.resource, caller.method), caller.who, self.now
        entry = None
        if caller.whole and caller.test is None and caller.by is None:
            entry = self.core.hold(*asked, who, now)
        return entry or self.core.lease(*asked, caller.test, caller.by, who, now, caller.whole)

    def _call(self, caller: Caller, entry: Entry) -> None:
        if not isinstance(caller, Holder):
            super()._call(caller, entry)
            return
        caller.entry = entry
        entry.where = caller.where
        self._phase(caller, LENDING)
        idle = self.now - entry.idle_since
        caller.asking = entry.checks and idle >= self.core.options.check_after and entry.sole
        if not caller.asking:
            self._lend(caller)
            return
        card, opening = caller.card, self._openings.get(entry)
        assert card is not None
        value, seconds = (Raised(Closed()), 0.0) if opening is None else self.check(card, opening)
        self._within_limit(caller, seconds, self._checked, value)

    def _then(self, holder: Holder, seconds: float, act: Callable[..., Any], *came: Any) -> None:
        """Let something come to its end, unless it hangs."""
        holder.hangs = seconds == INF
        if seconds < INF:
            self.later(seconds, holder, act, holder, holder.turn, *came)

    def _within_limit(
        self, holder: Holder, seconds: float, act: Callable[..., Any], value: Any
    ) -> None:
        """The same, and who has tasks cancels what takes too long."""
        limit = self.setup.connect_timeout
        if self.tasks and seconds > limit:
            seconds, value = limit, Raised(TimeoutError(f"more than {limit:g} s"))
        self._then(holder, seconds, act, value)

    def _checked(self, holder: Holder, turn: int, value: Any) -> None:
        """The conn has said whether it is well."""
        if holder.turn != turn:
            return
        value = settle(value)
        if value is False:
            value = Raised(Closed("check() gave False"))
        if isinstance(value, Raised):
            self._not_lent(holder, of_check(value.error), read_check(value.error), value.error)
        else:
            holder.asking = False
            self._lend(holder)

    def _lend(self, holder: Holder) -> None:
        """The conn says what is handed over."""
        entry = held_by(holder)
        if not entry.lends:
            self._begins(holder, entry.conn)
            return
        value, seconds = self._lease_deed(holder, "lends", entry.conn.lend)
        self._phase(holder, LENDING)
        self._then(holder, seconds, self._lent, value)

    def _lease_deed(self, holder: Holder, what: str, act: Callable[[], Any]) -> tuple[Any, float]:
        """A lend or a reset: what comes of it, and after how long."""
        value, seconds = perform(act, (), {}, self.setup.latency)
        entry, card = held_by(holder), holder.card
        assert card is not None
        opening = self._openings.get(entry)
        planned, fault = opening.deed(what) if opening is not None else (None, "")
        if opening is None:  # the pool has closed it for good
            fault = "closed"
        elif self.calm:
            planned, fault = 0.125, ""
        elif self.dark_or_struck(card):
            fault = "closed"
        if fault in LEASE_FAULTS:
            value = Raised(LEASE_FAULTS[fault]())
        if planned is not None:
            seconds = planned
        return value, INF if fault == "hangs" else seconds

    def _lent(self, holder: Holder, turn: int, value: Any) -> None:
        if holder.turn != turn:
            return
        value = settle(value)
        if isinstance(value, Raised):
            error, survives = value.error, self._survives(holder)
            self._not_lent(holder, of_lend(error, survives), read_lend(error, survives), error)
        else:
            self._begins(holder, value)

    @staticmethod
    def _survives(holder: Holder) -> bool:
        entry = held_by(holder)
        return getattr(entry.conn, "survives_cancel", False) is True

    def _not_lent(
        self, holder: Holder, ended: Outcome, verdict: Verdict, error: BaseException
    ) -> None:
        """The conn is not handed over: he gets another, or the error."""
        if self.story is not None:
            self.tell(f"{holder} is not handed conn {held_by(holder).id}: {error!r}")
        self._forfeit(holder, ended, verdict, error)
        if not ended.moves:
            self._ends(holder, error)
            return
        holder.moved, holder.cause = True, error
        holder.ticket = None
        self._phase(holder, ASKING)
        if self.tasks:
            self._hand_in(holder, self._ticket(holder))
        else:
            self.later(0.0, holder, self._submit, holder, holder.turn)

    # -- giving it back ------------------------------------------------------------------------

    def _forfeit(
        self, holder: Holder, ended: Outcome, verdict: Verdict, cause: BaseException | None
    ) -> None:
        """It comes back otherwise."""
        entry = held_by(holder)
        if not self.tasks:
            self.turn()
        if ended.moves != verdict.moves:
            self.ledger.fail(6, f"{holder} {'moves' if ended.moves else 'does not move'}: {cause}")
        if holder.inherits:
            return
        card = self.ledger.back(holder)
        self.core.forfeit(entry, holder.who, ended, self.now, cause)
        self.ledger.forfeited(card, verdict)
        self.leave()

    def _begins(self, holder: Holder, given: Any) -> None:
        """He has it; see the storey above."""
        raise NotImplementedError


def held_by(holder: Holder) -> Entry:
    """What a holder has, or had."""
    assert holder.entry is not None
    return holder.entry
