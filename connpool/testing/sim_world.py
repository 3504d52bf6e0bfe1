"""World: a pool in invented time, with conns and callers of your own.

Owns callers and conns that come and go, and outages.  Refuses to know chance: what happens is
what it is told, in an order that follows from its seed.

Invariant: a world that came to its end without a `Violation` has kept all rules, in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from ..conn import check_conn, describe
from ..core import Entry, check_filter, check_revive, check_ttl
from ..errors import PoolClosed, PoolError, PoolFull
from .sim_backstage import PLAIN, Habits, Opening, Popping
from .sim_engine import Setup
from .sim_forks import Forks
from .sim_users import known_as
from .sim_wishes import Caller, Checkout, Holder, Wish

INF = math.inf


class World(Forks):
    """A pool in invented time; every rule is checked in every step.

    Parameters:
        setup: how it is made; or as keywords what a `Setup` takes.
        told: whether it keeps a `story` of what happens, which a `Violation` then tells.

    It follows the drivers of `connpool.Pool` (or of `AsyncPool`, with ``driver="tasks"``), but runs
    no thread and no loop: methods of conns are called at once, and what they give, a `Took` or
    anything else, comes to its caller when its time has passed.  Conns are plain `Conn`s.

    >>> class Line:
    ...     resource = "line"
    ...     def init(self): pass
    ...     def methods(self): return ["say"]
    ...     def call(self, method, payload=None): return Took(payload, 0.5)
    >>> from connpool.testing.simulate import Took, World
    >>> world = World()
    >>> opening = world.init(Line())
    >>> world.run(0)
    >>> first, second = world.call("line", "say", 1), world.call("line", "say", 2, timeout=0.25)
    >>> world.run(1.0)
    >>> first.reply, second.error
    (1, PoolTimeout("pool 'simulated': no conn to 'line' became free in 0.25 s; ..."))
    >>> world.finish()
    """

    def __init__(self, setup: Setup | None = None, /, *, told: bool = True, **options: Any) -> None:
        setup = Setup(**options) if setup is None else attrs.evolve(setup, **options)
        super().__init__(setup, told=told)

    # -- time ----------------------------------------------------------------------------------

    def run(self, seconds: float = INF) -> None:
        """Let time pass, or with no seconds said all happen that is still to come."""
        until = self.now + seconds
        while self.next <= until and self.happen():
            pass
        if until < INF:
            self.goes_on(until)

    # -- callers -------------------------------------------------------------------------------

    def call(
        self,
        resource: Hashable,
        method: Hashable,
        payload: Any = None,
        *,
        number: int | None = None,
        **wish: Any,
    ) -> Caller:
        """Somebody begins a call now; see `Wish` for what he may want, and may befall him."""
        return self.begin(Wish(resource, method, payload, **wish), number)

    def checkout(self, resource: Hashable, *, number: int | None = None, **wish: Any) -> Holder:
        """Somebody checks a conn out; see `Checkout` for what he may want, and may befall him."""
        holder = self.begin(Checkout(resource, **wish), number)
        assert isinstance(holder, Holder)
        return holder

    def begin(self, wish: Wish, number: int | None = None) -> Caller:
        """The same, with a wish made before."""
        caller: Caller = self.actor(self.somebody, number, wish)
        if wish.gives_up is not None:
            self.later(wish.gives_up, caller, self.cancel, caller)
        self.ask(caller)
        return caller

    # -- conns in and out ----------------------------------------------------------------------

    def init(self, conn: Any, *args: Any, **known: Any) -> Opening:
        """Initialise a conn, then add it, as `Pool.init` does; `habits` is what befalls it."""
        return self._admit(conn, args, puts=False, **known)

    def put(self, conn: Any, **known: Any) -> Opening:
        """Add a conn that is initialised already."""
        return self._admit(conn, (), puts=True, **known)

    def _admit(
        self,
        conn: Any,
        args: tuple[Any, ...],
        *,
        puts: bool,
        extra: Any = None,
        ttl: float | None = None,
        revive: Any = False,
        habits: Habits = PLAIN,
        number: int | None = None,
    ) -> Opening:
        check_conn(conn, awaits=False)
        opening: Opening = self.actor(Opening, number, conn, habits, puts)
        known = {"extra": extra, "ttl": check_ttl(ttl), "revive": check_revive(revive)}
        try:
            permit = self.core.admit(
                conn, setup=(args, {}) if args else None, now=self.now, **known
            )
        except (PoolError, ValueError) as error:
            opening.done, opening.error = True, error
            self.leave()
            self._turned_away(error)
            return opening
        opening.card = self.ledger.admitted(permit, known)
        self._openings[permit.entry] = opening
        if self.story is not None:
            self.tell(f"conn {permit.entry.id} to {conn.resource!r} comes, {known_as(known)}")
        self.leave()
        if puts:
            self._put_in(permit, opening)
        else:
            self.open(permit, opening)
        return opening

    def _turned_away(self, error: Exception) -> None:
        if isinstance(error, PoolFull):
            self.ledger.check_full(error, None)
        elif isinstance(error, PoolClosed) and not self.ledger.closed:
            self.ledger.fail(12, f"a conn is refused at an open pool: {error}")

    def _put_in(self, permit: Any, opening: Opening) -> None:
        try:
            what = describe(opening.conn, opening.conn.methods())
        except Exception as error:
            self._opening_failed(permit, opening, error)
            return
        card = self.ledger.returned(permit)
        self.ledger.came_up(card)
        info = self.core.opened(permit, what, 0.0, self.now)
        self.ledger.opened(card, info, what, 0.0)
        self.leave()
        self._let_in(opening, card)

    def pop(self, ids: Any, *, timeout: float | None = None, **how: Any) -> Popping:
        """Take conns out by their ids, one or several, as `Pool.pop` does."""
        wanted = [ids] if isinstance(ids, int) else list(ids)
        return self._pop(lambda: [self.core.find(id, self.now) for id in wanted], timeout, **how)

    def pop_all(
        self, resource: Hashable, filter: Any = None, *, timeout: float | None = None, **how: Any
    ) -> Popping:
        """Take the conns of a resource out."""
        return self._pop(
            lambda: self.core.search(resource, check_filter(filter), self.now), timeout, **how
        )

    def _pop(
        self,
        found: Callable[[], list[Entry]],
        timeout: float | None,
        who: Any = None,
        gives_up: float | None = None,
        number: int | None = None,
    ) -> Popping:
        limit = self.patience if timeout is None else timeout
        popping: Popping = self.actor(Popping, number, limit, self.now)
        try:
            entries = found()
            self.leave()
            cards = [self.ledger.cards[entry] for entry in entries]
            pop = self.core.pop(entries, who, self.now)
        except PoolError as error:
            popping.done, popping.error = True, error
            self.leave()
            return popping
        if self.story is not None:
            self.tell(f"pop {popping.number} of {[card.id for card in cards]}")
        self.pop_begun(popping, pop, cards)
        if gives_up is not None:
            self.later(gives_up, popping, self.give_up_pop, popping)
        return popping

    # -- faults --------------------------------------------------------------------------------

    def outage(self, resource: Hashable, seconds: float) -> None:
        """The server behind a resource is out for a while: calls that run fail now, those on conns
        opened before fail when they begin, inits and checks fail until it is back."""
        self.dark[resource] = max(self.dark.get(resource, -INF), self.now + seconds)
        self.struck[resource] = self.now
        if self.story is not None:
            self.tell(f"the server of {resource!r} is out for {seconds:g} s")
        for caller in tuple(self.active):
            card = caller.card
            if card is not None and resource in card.resources:
                self.strike(caller, ConnectionResetError("the server is out"))
