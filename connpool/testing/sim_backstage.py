"""Backstage: opening, asking and closing conns, as a driver's background does it.

Owns what is done with permits and pops.  Refuses to know callers.

Invariant: a permit goes back to the core once, whatever the conn has done; in a world of tasks no
later than its limit, in one of threads whenever the conn's code comes to its end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Any

import attrs

from ..conn import check_conn, describe
from ..core import Entry, Permit, Pop, Work, first_rest
from ..errors import Closed, PoolClosed, PoolError
from .sim_actor import Actor
from .sim_cards import Card
from .sim_contract import INIT_FAULTS, Cancelled, Raised, perform, settle
from .sim_engine import Engine, Setup

INF = math.inf

# What happens once: seconds it takes (None: what the conn itself says), and the fault or "".
Deed = tuple[float | None, str]


@attrs.frozen
class Habits:
    """What befalls the conns of one kind: the first, the second... time, and from the start again.

    Parameters:
        inits: of inits; faults are "refused", "at once", "soon", "late", "never", "nonsense" (an
            `InitError` each), "hangs", "mute" (its methods() gives None).
        checks: of checks; faults are "false", "raises", "hangs", and "lies": it says that it is
            well though its server is gone.
        closes: of closes; faults are "raises", "hangs".
        lends, resets: of those, before and after a checkout; faults are "closed", "dead", "error"
            and "hangs".
    """

    inits: tuple[Deed, ...] = ()
    checks: tuple[Deed, ...] = ()
    closes: tuple[Deed, ...] = ()
    lends: tuple[Deed, ...] = ()
    resets: tuple[Deed, ...] = ()


PLAIN = Habits()


class Opening(Actor):
    """A conn on its way into the pool: `id` or `error` once it is `done`."""

    __slots__ = ("card", "conn", "done", "error", "habits", "id", "puts", "turns")

    def __init__(self, number: int, conn: Any, habits: Habits, puts: bool) -> None:
        super().__init__(number)
        self.conn = conn
        self.habits = habits
        self.puts = puts
        self.turns: Counter[str] = Counter()
        self.card: Card | None = None
        self.done = False
        self.error: BaseException | None = None
        self.id = 0

    def deed(self, what: str) -> Deed:
        """What befalls it this time."""
        deeds: tuple[Deed, ...] = getattr(self.habits, what)
        turn = self.turns[what]
        self.turns[what] = turn + 1
        return deeds[turn % len(deeds)] if deeds else (None, "")


class Popping(Actor):
    """Somebody who takes conns out: `conns` or `error` once he is `done`."""

    __slots__ = ("cards", "conns", "done", "error", "limit", "pop", "since")

    def __init__(self, number: int, limit: float, now: float) -> None:
        super().__init__(number)
        self.limit, self.since = limit, now
        self.pop: Pop | None = None
        self.cards: list[Card] = []
        self.conns: list[Any] = []
        self.done = False
        self.error: BaseException | None = None


class Backstage(Engine):
    """The second storey of a world: what nobody waits for."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self.dark: dict[Hashable, float] = {}  # servers that are out, and until when
        self.struck: dict[Hashable, float] = {}  # when each was last out
        self.calm = False  # nothing is harmed any more
        self.hanging: list[tuple[Any, tuple[Any, ...], Actor]] = []  # until it is let go
        self._openings: dict[Entry, Opening] = {}
        self._suppliers: dict[Hashable, Opening] = {}

    # -- permits -------------------------------------------------------------------------------

    def permitted(self, permit: Permit) -> None:
        """A step: somebody in the background carries it out."""
        entry = permit.entry
        opening = self._openings.get(entry)
        if opening is None:
            opening = self._openings[entry] = self._suppliers[permit.resource]
        self.later(self.lag(opening), opening, self._carry_out, permit, opening)

    def _carry_out(self, permit: Permit, opening: Opening) -> None:
        if permit.work is Work.OPEN:
            self.open(permit, opening)
        elif permit.work is Work.CHECK:
            self._ask(permit, opening)
        elif permit.work is Work.CLOSE:
            self._close(permit, opening)
        else:
            raise TypeError(f"work that no driver knows: {permit.work}")

    def _within(
        self, permit: Permit, opening: Opening, seconds: float, act: Any, value: Any
    ) -> None:
        """Let `act` have what has come of it; who has tasks cancels what takes too long."""
        if self.tasks and seconds > permit.limit:
            late = Raised(TimeoutError(f"more than {permit.limit:g} s"))
            self.later(permit.limit, opening, act, permit, opening, late)
        else:
            self._in_time(seconds, opening, act, permit, opening, value)

    def _in_time(self, seconds: float, actor: Actor, act: Any, *args: Any) -> None:
        """Let something happen later, or, where it hangs, when it is let go."""
        if seconds < INF:
            self.later(seconds, actor, act, *args)
        else:
            self.hanging.append((act, args, actor))

    def is_dark(self, card: Card) -> bool:
        """Whether a server of the conn is out, or was since the conn was opened."""
        for resource in card.resources:
            if self.now < self.dark.get(resource, -INF) or card.born < self.struck.get(
                resource, -INF
            ):
                return True
        return False

    # -- opening -------------------------------------------------------------------------------

    def open(self, permit: Permit, opening: Opening) -> None:
        """Initialise a conn; for a supply one that its factory makes."""
        card = self.ledger.permits[permit]
        try:
            if permit.make is not None:
                conn = permit.make()
                check_conn(conn, awaits=False)
                self.core.adopt(permit, conn)
                card.conn = conn
                self.leave()
        except Exception as error:
            self._opening_failed(permit, opening, error)
            return
        card.inits += 1
        args, kwargs = permit.entry.setup or ((), {})
        value, seconds = perform(card.conn.init, args, kwargs, self.setup.latency)
        planned, fault = opening.deed("inits")
        resources = [permit.resource] if permit.make else getattr(card.conn, "resource", None)
        if self.calm:
            planned, fault = 0.125, ""
        elif self._out(resources):
            value, seconds = Raised(ConnectionRefusedError("the server is out")), 0.125
        elif fault in INIT_FAULTS:
            value = Raised(INIT_FAULTS[fault]())
        if planned is not None:
            seconds = planned
        if fault == "hangs":
            seconds = INF
        self._within(permit, opening, seconds, self._initialised, (value, fault))

    def _out(self, resources: Any) -> bool:
        if not self.dark:
            return False
        several = isinstance(resources, (list, set, frozenset))
        return any(
            self.now < self.dark.get(r, -INF) for r in (resources if several else [resources])
        )

    def _initialised(self, permit: Permit, opening: Opening, came: Any) -> None:
        """An init has come to its end."""
        self.turn()
        value, fault = came if isinstance(came, tuple) else (came, "")
        value = settle(value)
        if isinstance(value, Raised):
            self._opening_failed(permit, opening, value.error)
            return
        card = self.ledger.permits[permit]
        conn = card.conn
        self.ledger.came_up(card)
        try:
            rest = first_rest(value)
            names = None if fault == "mute" else conn.methods()
            what = describe(conn, names, resource=permit.resource)
        except Exception as error:
            self.ledger.goes_down(card)
            self._opening_failed(permit, opening, error)
            perform(getattr(conn, "close", _nothing), (), {}, 0.0)
            return
        card = self.ledger.returned(permit)
        info = self.core.opened(permit, what, rest, self.now)
        self.ledger.opened(card, info, what, rest)
        if self.story is not None:
            late = "" if info else ", too late: it is closed again"
            self.tell(f"conn {card.id} is open{f', rests {rest:g} s' if rest else ''}{late}")
        self.leave()
        self._let_in(opening, card)

    def _opening_failed(self, permit: Permit, opening: Opening, error: BaseException) -> None:
        card = self.ledger.returned(permit)
        self.core.open_failed(permit, error, self.now)
        self.ledger.not_opened(card, error, permit)
        if self.story is not None:
            self.tell(f"conn {card.id} cannot be opened: {error!r}")
        if card.entry.state.value == "gone":
            self._openings.pop(permit.entry, None)
        self.leave()
        if permit.make is None and not opening.done:
            opening.done, opening.error = True, error

    def _let_in(self, opening: Opening, card: Card) -> None:
        """What `init` and `put` give to who has called them."""
        if opening.done or card.source is not None:
            return
        opening.done = True
        opening.id = card.id
        if card.entry.last_init is None:
            opening.error = PoolClosed("the pool was closed")

    # -- asking --------------------------------------------------------------------------------

    def _ask(self, permit: Permit, opening: Opening) -> None:
        value, seconds = self.check(self.ledger.permits[permit], opening)
        self._within(permit, opening, seconds, self._answered, value)

    def check(self, card: Card, opening: Opening) -> tuple[Any, float]:
        """Ask a conn whether it is well: what comes of it, and after how long."""
        value, seconds = perform(card.conn.check, (), {}, self.setup.latency)
        planned, fault = opening.deed("checks")
        if self.calm:
            planned, fault = 0.125, ""
        elif fault == "raises" or (fault != "lies" and self.is_dark(card)):
            value = Raised(ConnectionResetError("no answer"))
        elif fault == "false":
            value = False
        if planned is not None:
            seconds = planned
        return value, INF if fault == "hangs" else seconds

    def _answered(self, permit: Permit, opening: Opening, value: Any) -> None:
        self.turn()
        value = settle(value)
        error: BaseException | None = None
        if isinstance(value, Raised):
            error = value.error
        elif value is False:
            error = Closed("check() gave False")
        card = self.ledger.returned(permit)
        self.core.checked(permit, error, self.now)
        self.ledger.asked(card, permit, error)
        if self.story is not None:
            self.tell(f"conn {card.id} was asked: {'it is well' if error is None else repr(error)}")
        self.leave()

    # -- closing -------------------------------------------------------------------------------

    def _close(self, permit: Permit, opening: Opening) -> None:
        card = self.ledger.permits[permit]
        self.ledger.goes_down(card)
        if self.story is not None:
            self.tell(f"conn {card.id} is closed: {permit.reason}")
        self.cut_off(card)
        _, seconds = perform(getattr(card.conn, "close", _nothing), (), {}, self.setup.latency)
        planned, fault = opening.deed("closes")
        if planned is not None:
            seconds = planned
        if fault == "hangs" and not self.calm:
            seconds = INF
        limit = self.setup.connect_timeout
        seconds = min(seconds, limit) if self.tasks else seconds
        self._in_time(seconds, opening, self._is_closed, permit)

    def _is_closed(self, permit: Permit) -> None:
        self.turn()
        self.ledger.returned(permit)
        self.core.closed_one(permit, self.now)
        if permit.entry.state.value == "gone":
            self._openings.pop(permit.entry, None)
        self.leave()

    def cut_off(self, card: Card) -> None:
        """A conn is closed under those who use it: their calls end."""
        raise NotImplementedError

    # -- popping -------------------------------------------------------------------------------

    def pop_begun(self, popping: Popping, pop: Pop, cards: list[Card]) -> None:
        """Somebody has begun to take conns out."""
        popping.pop, popping.cards = pop, cards
        pop.waiter = popping
        self.ledger.taken_out(cards, pop)
        self.leave()
        if pop.done:
            self.later(self.lag(popping), popping, self._collect, popping)
        elif popping.limit < INF:
            self.later(popping.limit, popping, self._collect, popping)

    def popped(self, pop: Pop) -> None:
        """A step: who pops is woken."""
        if pop.waiter is not None:
            self.later(self.lag(pop.waiter), pop.waiter, self._collect, pop.waiter)
        if pop.error is not None:
            self.ledger.put_back(pop)

    def _collect(self, popping: Popping) -> None:
        """Who pops comes for the conns, or his time is over."""
        pop = popping.pop
        if popping.done or pop is None:
            return
        self.turn()
        popping.done = True
        late = not pop.done
        try:
            infos = self.core.popped(pop, popping.limit, self.now - popping.since, self.now)
        except PoolError as error:
            popping.error = error
            if self.now < popping.since + popping.limit and not self.ledger.closed:
                self.ledger.fail(7, f"a pop was given up before its time: {error!r}")
            self.ledger.put_back(pop)
        else:
            if late:
                self.ledger.fail(1, "conns were handed over while they are used")
            for card in popping.cards:
                card.pop = None
                self.ledger.ended["popped"] += 1
                self.ledger.handed_over(card)
                self._openings.pop(card.entry, None)
            popping.conns = [info.conn for info in infos]
        if self.story is not None:
            self.tell(f"pop {popping.number}: {popping.error or 'takes the conns'}")
        self.leave()

    def give_up_pop(self, popping: Popping) -> None:
        """Who pops is cancelled."""
        if popping.done or popping.pop is None:
            return
        popping.done, popping.error = True, Cancelled()
        self.core.unpop(popping.pop, self.now)
        self.ledger.put_back(popping.pop)
        if self.story is not None:
            self.tell(f"pop {popping.number} is given up")
        self.leave()


def _nothing() -> None:
    """A conn that cannot be closed need not be."""
