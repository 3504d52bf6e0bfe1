"""Callers: who asks, waits, calls, gives up, and calls again from inside a call.

Owns the life of a call, as the two drivers lead it.  Refuses to know how callers come to be.

Invariant: a caller who was given a place gives it back on every path, as in the drivers; one who
has given up hears of nothing any more.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from ..conn import Reply
from ..core import QUEUED, Entry, Outcome, Standing, State, Ticket, of_error, of_reply
from ..errors import Busy, Closed, PoolClosed
from .sim_backstage import Backstage
from .sim_cards import Card
from .sim_contract import BEFORE, Cancelled, Raised, call_fault, perform, read, settle
from .sim_engine import Setup
from .sim_wishes import ASKING, CALLING, OVER, WAITING, Caller, Wish, who_of, wished

INF = math.inf

GRANTED = Standing.GRANTED


class Callers(Backstage):
    """The third storey of a world: callers."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self.active: dict[Caller, None] = {}
        self.answered = 0

    # -- asking --------------------------------------------------------------------------------

    def ask(self, caller: Caller) -> None:
        """A caller arrives: the straight path, or else the line."""
        now = self.now
        caller.arrived = caller.started = now
        timeout = caller.wish.timeout
        timeout = self.patience if timeout is ... else INF if timeout is None else timeout
        caller.deadline = now + timeout
        self.active[caller] = None
        self.me = caller.who
        if self.story is not None:
            self.tell(f"{caller} asks for {wished(caller, timeout)}")
        try:
            entry = self._try(caller)
        except Exception as error:
            self.leave()
            self.ledger.refused(caller, error)
            self._ends(caller, error)
            return
        if entry is not None:
            caller.place = self.core.arrivals - 0.5
            self._served(caller, entry)
        elif self.tasks:
            self.leave()
            self._hand_in(caller, self._ticket(caller))
        else:
            self.leave()
            self._phase(caller, ASKING)
            self.later(0.0, caller, self._submit, caller, caller.turn)

    def _try(self, caller: Caller) -> Entry | None:
        """A place without a turn, or else in one."""
        asked, who, now = (caller.resource, caller.method), caller.who, self.now
        entry = None
        if caller.test is None and caller.by is None:
            entry = self.core.borrow(*asked, who, now)
        return entry or self.core.take(*asked, caller.test, caller.by, who, now)

    def _phase(self, caller: Caller, phase: str) -> None:
        caller.phase = phase
        caller.turn += 1

    def _served(self, caller: Caller, entry: Entry) -> None:
        """A place was to be had at once."""
        self.steps += 1
        if self.core.steps:
            self.take_over()
        self.ledger.lent(caller, entry)
        self.ledger.look()
        if self.story is not None:
            self.tell(f"{caller} has conn {entry.id}")
        self._call(caller, entry)

    def _submit(self, caller: Caller, turn: int) -> None:
        """Another turn: stand in line, unless a conn has become free meanwhile."""
        if caller.turn == turn:
            self._hand_in(caller, self._ticket(caller))

    def _ticket(self, caller: Caller) -> Ticket:
        if caller.ticket is not None and caller.cause is not None and not self.tasks:
            return caller.ticket.again(caller.cause)
        return Ticket(
            caller.resource,
            caller.method,
            caller.test,
            caller.by,
            caller.who,
            caller.arrived,
            caller.deadline,
            caller.place,
            caller.cause,
            caller.whole,
        )

    def _hand_in(self, caller: Caller, ticket: Ticket) -> None:
        self.turn()
        caller.inherits = False
        caller.ticket = ticket
        ticket.waiter = caller
        self.me = caller.who
        try:
            self.core.submit(ticket, self.now)
        except Exception as error:
            if not self.tasks:
                self.core.cancel(ticket, self.now)
            self.leave()
            self.ledger.refused(caller, error)
            self._ends(caller, error)
            return
        if ticket.standing is GRANTED:
            entry = ticket.entry
            assert entry is not None
            caller.place = ticket.place
            self._served(caller, entry)
            return
        if ticket.standing is QUEUED:
            self.ledger.waits(caller)
        caller.place = ticket.place
        self._phase(caller, WAITING)
        if self.story is not None:
            self.tell(f"{caller} waits")
        self.leave()
        if not self.tasks:
            if caller.deadline < INF:
                self.plan(caller.deadline, caller, self._time_is_over, caller, caller.turn)
        elif caller.deadline < self._wakes:
            self._nudge()

    def _time_is_over(self, caller: Caller, turn: int) -> None:
        """A thread has waited as long as it may: it lets the core see that time has passed."""
        if caller.turn != turn or caller.ticket is None or caller.ticket.standing is not QUEUED:
            return
        self.turn()
        self.core.tick(self.now)
        self.leave()
        if caller.ticket.standing is QUEUED:
            self.ledger.fail(7, f"{caller} still waits, and his time is over")

    # -- woken ---------------------------------------------------------------------------------

    def wakes(self, ticket: Ticket) -> None:
        """A step: a caller in line was served, or told that it is in vain."""
        caller: Caller = ticket.waiter
        if ticket.standing is GRANTED and ticket.entry is not None:
            self.ledger.lent(caller, ticket.entry)
            if self.story is not None:
                self.tell(f"{caller} is given conn {ticket.entry.id}")
        elif ticket.error is not None:
            self.ledger.failed(caller, ticket.error)
        else:
            self.ledger.fail(15, f"{caller} is woken for nothing: {ticket.standing}")
        self.later(self.lag(caller), caller, self._woken, caller, caller.turn)

    def _woken(self, caller: Caller, turn: int) -> None:
        ticket = caller.ticket
        if caller.turn != turn or ticket is None:
            return
        if ticket.error is not None:
            self._ends(caller, ticket.error)
            return
        entry = ticket.entry
        assert entry is not None
        if not self.tasks or entry.open:
            self._call(caller, entry)
            return
        caller.started = self.now
        self._phase(caller, CALLING)
        caller.entry = entry
        self._raised(caller, Closed("the conn was closed before the call began"))

    # -- calling -------------------------------------------------------------------------------

    def _call(self, caller: Caller, entry: Entry) -> None:
        caller.started = self.now
        caller.entry = entry
        self._phase(caller, CALLING)
        conn = entry.conn
        deeds = caller.wish.calls
        planned, fault = deeds[caller.tries % len(deeds)] if deeds else (None, "")
        caller.tries += 1
        card = caller.card
        if self.calm:
            fault = ""
        elif card is not None and self.dark_or_struck(card):
            fault = "closed" if caller.tries & 1 else "dead"
        if fault in BEFORE:
            value: Any = call_fault(fault, None)
            seconds = 0.0
        else:
            if caller.happened:
                self.ledger.fail(6, f"{caller} calls again, and his call has happened")
            value, seconds = perform(
                conn.call, (caller.method, caller.payload), {}, self.setup.latency
            )
        if planned is not None:
            seconds = planned
        if fault == "hangs":
            seconds = INF
        caller.hangs = seconds == INF
        if caller.wish.inner is not None and caller.inner is None:
            delay, wish = caller.wish.inner
            self.later(delay, caller, self._call_inside, caller, caller.turn, wish)
        if seconds < INF:
            self.later(seconds, caller, self._call_ends, caller, caller.turn, value, fault)

    def dark_or_struck(self, card: Card) -> bool:
        """Whether the server of a conn is out, or was since the conn was opened."""
        return bool(self.struck) and self.is_dark(card)

    def _call_inside(self, caller: Caller, turn: int, wish: Wish) -> None:
        """A call from inside a call, by the same thread or task."""
        if caller.turn != turn:
            return
        inner = self.somebody(caller.number + 500_000, attrs.evolve(wish, who=who_of(caller)))
        inner.outer, caller.inner = caller, inner
        self.ask(inner)

    def somebody(self, number: int, wish: Wish) -> Caller:
        """Somebody with a wish."""
        return Caller(number, wish)

    def _call_ends(self, caller: Caller, turn: int, value: Any, fault: str) -> None:
        if caller.turn != turn:
            return
        if caller.inner is not None and not caller.inner.done:
            caller.still = (value, fault)  # it goes on until what was called inside it has ended
            return
        value = settle(value, caller.method, caller.payload)
        if fault and fault != "hangs" and fault not in BEFORE and not isinstance(value, Raised):
            value = call_fault(fault, value)
        if isinstance(value, Raised):
            self._raised(caller, value.error)
        else:
            self._replied(caller, value)

    def cut_off(self, card: Card) -> None:
        """The conn was closed under its callers: calls that run fail, at this instant."""
        for caller in dict.fromkeys(card.holders):
            self.strike(caller, ConnectionAbortedError("closed under the call"))

    def strike(self, caller: Caller, error: BaseException) -> None:
        """Something has happened to the conn of a caller: his call fails, at this instant."""
        if caller.phase is CALLING:
            self.later(0.0, caller, self._breaks, caller, caller.turn, Raised(error))

    def _breaks(self, caller: Caller, turn: int, error: Raised) -> None:
        """A call ends early; what it had called inside ends first."""
        if caller.turn != turn:
            return
        if caller.inner is not None and not caller.inner.done:
            self.cancel(caller.inner)
        if caller.turn == turn:
            self._broken(caller, error)

    def _broken(self, caller: Caller, error: Raised) -> None:
        self._call_ends(caller, caller.turn, error, "")

    # -- the end of a call ---------------------------------------------------------------------

    def _replied(self, caller: Caller, reply: Any) -> None:
        entry, now = caller.entry, self.now
        assert entry is not None
        card = self.ledger.back(caller) if caller.card is not None else None
        caller.happened = True
        if reply.__class__ is Reply:
            ended = of_reply(reply)
            if not (self.tasks and entry.state is State.GONE):
                self._conclude(caller, card, ended, reply, None)
            error, reply = ended.error, reply.value
        else:
            error = None
            known = (entry, caller.method, caller.started, now)
            if not caller.inherits and not self.core.put_back(*known):
                self.core.returned(entry, caller.who, now)
            if card is not None:
                self.ledger.answered(card, caller.method, caller.started)
        if self.story is not None:
            self.tell(f"{caller} has the answer of conn {entry.id}")
        self.leave()
        expects = caller.wish.expects
        if error is None and expects is not None and not expects(caller.payload, reply):
            self.ledger.fail(6, f"{caller} sent {caller.payload!r}, and got the reply {reply!r}")
        caller.reply = reply
        self.answered += error is None
        self._ends(caller, error)

    def _raised(self, caller: Caller, error: BaseException) -> None:
        """A call raised: its caller is told, unless it had not happened and moves."""
        entry = caller.entry
        assert entry is not None
        self.turn()
        card = self.ledger.back(caller) if caller.card is not None else None
        caller.happened |= not isinstance(error, (Closed, Busy))
        if self.story is not None:
            self.tell(f"{caller} gets {error!r} from conn {entry.id}")
        if self.tasks and entry.state is State.GONE:
            if isinstance(error, (Closed, Busy)):
                error = PoolClosed("the pool was closed")
            self._ends(caller, error)
            return
        ended = of_error(error, getattr(entry.conn, "survives_cancel", False))
        self._conclude(caller, card, ended, Raised(error), error)
        self.leave()
        if ended.error is not None or isinstance(error, Cancelled):
            self._ends(caller, ended.error or error)
        elif not ended.moves:
            self.ledger.fail(6, f"{caller} is told nothing of {error!r}")
        else:
            self._moves(caller, error)

    def _conclude(
        self,
        caller: Caller,
        card: Card | None,
        ended: Outcome,
        said: Any,
        cause: BaseException | None,
    ) -> None:
        entry = caller.entry
        assert entry is not None
        verdict = read(said, getattr(entry.conn, "survives_cancel", False) is True)
        if ended.moves != verdict.moves:
            self.ledger.fail(6, f"{caller} {'moves' if ended.moves else 'does not move'}: {said}")
        if self.core.entries.get(entry.id) is not entry:
            return  # the pool has been closed, or it is the parent's
        self.core.conclude(entry, caller.method, caller.who, ended, caller.started, self.now, cause)
        if card is not None:
            ok = isinstance(said, Reply) and not verdict.wrong
            self.ledger.concluded(card, caller.method, verdict, caller.started, ok)

    def _moves(self, caller: Caller, error: BaseException) -> None:
        caller.moved, caller.cause = True, error
        self._phase(caller, ASKING)
        if self.tasks:
            self._hand_in(caller, self._ticket(caller))
        else:
            self.later(0.0, caller, self._submit, caller, caller.turn)

    # -- giving up -----------------------------------------------------------------------------

    def cancel(self, caller: Caller) -> None:
        """A caller is cancelled, whatever he is about."""
        if caller.inner is not None and not caller.inner.done:
            self.cancel(caller.inner)
        if self.story is not None and caller.phase is not OVER:
            self.tell(f"{caller} gives up, {caller.phase}")
        if caller.phase is WAITING:
            ticket = caller.ticket
            assert ticket is not None
            if caller.card is not None:
                self.ledger.back(caller)
                self.ledger.counts["cancelled"] += 1
            elif caller.queued:
                self.ledger.leaves(caller)
                self.ledger.counts["cancelled"] += 1
            self.core.cancel(ticket, self.now)
            self.leave()
            self._ends(caller, Cancelled())
        elif caller.phase is CALLING:
            self._raised(caller, Cancelled())
        elif caller.phase is not OVER:
            self._ends(caller, Cancelled())

    def _ends(self, caller: Caller, error: BaseException | None) -> None:
        if self.story is not None and error is not None:
            self.tell(f"{caller} ends with {error!r}")
        caller.error = error
        self._phase(caller, OVER)
        self.active.pop(caller, None)
        outer = caller.outer
        if outer is not None and outer.still is not None:
            still, outer.still = outer.still, None
            self._goes_on(outer, *still)

    def _goes_on(self, outer: Caller, value: Any, fault: str) -> None:
        """What was called from inside a call has ended, and so may the call."""
        if outer.phase is CALLING:
            self.later(0.0, outer, self._call_ends, outer, outer.turn, value, fault)
