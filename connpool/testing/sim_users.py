"""Users: what they change, how they find a conn without a lease, and what they ask of the pool.

Owns supplies, updates, routes and questions.  Refuses to know how conns come in and how a world
ends.

Invariant: what the pool answers is compared with the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

from ..core import ANY, Supply, check_filter, sticky
from ..core.report import report
from ..errors import PoolError, PoolTimeout
from .sim_backstage import PLAIN, Habits, Opening
from .sim_cards import HOPEFUL, LIVE, Card, passes
from .sim_engine import Setup
from .sim_holders import Holders

INF = math.inf


class Users(Holders):
    """The sixth storey of a world."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self._numbers = 1_000_000  # of those who are not told theirs
        self._stuck: dict[Any, tuple[frozenset[int], Any]] = {}

    def actor(self, kind: Callable[..., Any], number: int | None, *args: Any) -> Any:
        """Somebody new, with this number or another."""
        if number is None:
            self._numbers += 1
            number = self._numbers
        return kind(number, *args)

    # -- supplies ------------------------------------------------------------------------------

    def supply(
        self,
        resource: Hashable,
        factory: Callable[[], Any],
        *args: Any,
        habits: Habits = PLAIN,
        number: int | None = None,
        **known: Any,
    ) -> None:
        """Have conns made as they are needed, as `Pool.supply` does."""
        supply = Supply(resource, factory, (args, {}) if args else None, **known)
        self._suppliers[resource] = self.actor(Opening, number, None, habits, False)
        self.core.supply(supply, self.now)
        self.ledger.supplied(supply)
        if self.story is not None:
            self.tell(f"a supply of {resource!r} begins, {known_as(known)}")
        self.leave()

    def resize(
        self, resource: Hashable, min_size: int | None = None, max_size: int | None = None
    ) -> None:
        """Give a supply other sizes."""
        source = self.ledger.sources[resource]
        least = source.min_size if min_size is None else min_size
        most = source.max_size if max_size is None else max_size
        self.core.resize(resource, least, most, self.now)
        self.ledger.resized(resource, least, most)
        if self.story is not None:
            self.tell(f"the supply of {resource!r} is resized to {least}..{most}")
        self.leave()

    def withdraw(self, resource: Hashable) -> None:
        """End a supply."""
        self.core.withdraw(resource, self.now)
        self.ledger.withdrawn(resource)
        if self.story is not None:
            self.tell(f"the supply of {resource!r} is withdrawn")
        self.leave()

    def drain(self, resource: Hashable = None, *, id: int | None = None) -> int:
        """Let conns go once nobody uses them."""
        now = self.now
        found = (
            [self.core.find(id, now)] if id is not None else self.core.search(resource, None, now)
        )
        self.leave()
        cards = [self.ledger.cards[entry] for entry in found]
        count = self.core.let_go(found, now)
        self.ledger.let_go(cards)
        if self.story is not None:
            self.tell(f"conns {[card.id for card in cards]} are let go")
        self.leave()
        return count

    # -- changes -------------------------------------------------------------------------------

    def extra(self, id: int, value: Any) -> Any:
        """Replace what is pinned to a conn."""
        card = self.ledger.cards[self.core.find(id, self.now)]
        self.leave()
        before = card.extra
        if self.story is not None:
            self.tell(f"conn {id}: extra is now {value!r}")
        old = self.core.set_extra(id, value, self.now)
        card.extra = value
        self.ledger.stirred = True
        self.leave()
        if old != before:
            self.ledger.fail(14, f"the extra of conn {id} was {before!r}, the pool says {old!r}")
        return old

    def update(self, resource: Hashable, filter: Any = None, **changes: Any) -> int:
        """Change the conns of a resource."""
        self.core.tick(self.now)
        self.leave()
        cards = [
            card
            for card in self.ledger.cards.values()
            if card.seen in HOPEFUL and resource in card.resources
            and (filter is None or passes(filter, card))
        ]  # fmt: skip
        if self.story is not None:
            self.tell(f"conns {[card.id for card in cards]} are updated: {known_as(changes)}")
        try:
            count = self.core.update(resource, None, check_filter(filter), changes, self.now)
        except Exception:  # of the filter: nothing is changed
            self.leave()
            return 0
        for card in cards:
            for name, value in changes.items():
                setattr(card, name, value)
            card.fit()
            if "ttl" in changes:
                card.expires = INF if card.ttl is None else card.born + card.ttl
        self.ledger.stirred = True
        self.leave()
        if count != len(cards):
            self.ledger.fail(14, f"{len(cards)} conns were to be updated, the pool says {count}")
        return count

    # -- without a lease -----------------------------------------------------------------------

    def route(
        self, resource: Hashable, method: Hashable = ANY, filter: Any = None, by: Any = None
    ) -> Any:
        """A live conn, as `Pool.route` gives it, or None where there is none."""
        named = None if method is ANY else method
        conn = self.core.glance(resource, named, by, self.now) if filter is None else None
        error: PoolError | None = None
        if conn is None:
            try:
                conn = self.core.route(resource, method, check_filter(filter), by, self.now)
            except PoolError as raised:
                error = raised
        self.leave()
        live = [
            card
            for card in self.ledger.cards.values()
            if card.seen in LIVE and card.names(resource, method)
            and (filter is None or passes(filter, card))
        ]  # fmt: skip
        common = [card for card in live if not card.whole]
        if isinstance(error, PoolTimeout):
            self.ledger.counts["timeouts"] += 1
        if (error is None) != bool(common) or isinstance(error, PoolTimeout) != (
            bool(live) and not common
        ):
            self.ledger.fail(12, f"route to {resource!r}: {error!r}, and {len(live)} conns live")
        if error is None and not any(card.conn is conn for card in common):
            self.ledger.fail(12, f"route to {resource!r} gave what is not there: {conn!r}")
        if isinstance(by, sticky) and error is None and len(common) == len(live):
            self._check_stuck((resource, method, check_filter(filter), by.key), live, conn)
        return conn

    def _check_stuck(self, key: Any, live: list[Card], conn: Any) -> None:
        """While nobody comes or goes, the same key leads to the same conn."""
        there = frozenset(card.id for card in live)
        before = self._stuck.get(key)
        if before is not None and before[0] == there and before[1] is not conn:
            self.ledger.fail(12, f"the key {key[-1]!r} led to {before[1]!r}, and now to {conn!r}")
        self._stuck[key] = (there, conn)

    # -- questions -----------------------------------------------------------------------------

    def question(self) -> None:
        """Ask the pool all that it can be asked, and compare it with what is known."""
        core, now, ledger = self.core, self.now, self.ledger
        infos = core.infos(None, now)
        self.leave()
        ledger.check_infos(infos)
        ledger.check_stats(core.stats(now))
        live = [card for card in ledger.cards.values() if card.seen in LIVE]
        resources = {resource for card in live for resource in card.resources}
        if set(core.resources(now)) != resources or core.count(now) != len(live):
            ledger.fail(14, f"{core.count(now)} conns to {core.resources(now)}, not {len(live)}")
        for resource in resources:
            count = sum(resource in card.resources for card in live)
            if core.count(now, resource) != count:
                ledger.fail(14, f"{core.count(now, resource)} conns to {resource!r}, not {count}")
        for card in tuple(ledger.cards.values()):
            if core.alive(card.id, now) != (card.seen in LIVE):
                ledger.fail(14, f"conn {card.id} is {card.seen.value}, the pool says otherwise")
        if not report(core, now, str).startswith("pool 'simulated'"):
            ledger.fail(14, "the report does not say what it is about")
        if not core.closed:
            self._ask_whether_ready()
        self.leave()

    def _ask_whether_ready(self) -> None:
        sources = self.ledger.sources.values()
        ready = all(source.alive >= source.min_size for source in sources)
        hopeless = any(s.over and s.alive < s.min_size for s in sources)
        try:
            said = self.core.ready(self.now)
        except PoolError as error:
            if not hopeless:
                self.ledger.fail(12, f"the supplies will be ready, and are said not to: {error}")
        else:
            if said != ready:
                self.ledger.fail(14, f"the supplies are{'' if ready else ' not'} ready")


def known_as(known: dict[str, Any]) -> str:
    """Keywords, to be told."""
    return ", ".join(f"{name}={value!r}" for name, value in known.items())
