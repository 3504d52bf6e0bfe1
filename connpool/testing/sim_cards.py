"""The cards of the ledger: what is known of each conn and each supply, from outside.

Owns the facts.  Refuses to judge them: that is the ledger's.

Invariant: a fact comes from what a driver has said or seen, never from a counter of the core; where
a card looks at its entry, it is to compare.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from ..conn import Description
from ..core import ANY, Entry, Permit, Pop, State, Supply

if TYPE_CHECKING:
    from .sim_wishes import Caller

LIVE = frozenset({State.READY, State.COOLING, State.CHECKING})
HOPEFUL = LIVE | {State.REVIVING}


class Source:
    """What is known of one supply."""

    def __init__(self, supply: Supply, now: float) -> None:
        self.supply = supply
        self.resource = supply.resource
        self.extra = supply.extra
        self.min_size, self.max_size = supply.min_size, supply.max_size
        self.cards: set[Card] = set()  # those that take one of its places
        self.methods: frozenset[Hashable] | None = None  # of the last one born
        self.failing = False  # the last opening failed
        self.advised = False  # and asked for the pause after it
        self.failed_in = -1  # in which step that was noted
        self.hung_in = -1  # in which step one was given up that took too long
        self.lost_at = -math.inf  # when one was lost last
        self.born_in = -1  # in which step a conn came to life
        self.well_in = -1  # in which step that ended a time of failures
        self.over = False  # none will ever be opened again
        self.owed = 0  # conns that died and are to be replaced
        self.not_before = -math.inf  # none is opened before
        self.pause = 0.0  # the longest pause that the last failure allows
        self.hungry: float | None = None  # since when it should have opened one

    @property
    def size(self) -> int:
        """How many take one of its places: not those that only wait to be closed."""
        return sum(card.staying for card in self.cards)

    @property
    def unborn(self) -> int:
        """How many are being opened."""
        return sum(card.entry.state is State.OPENING for card in self.cards)

    @property
    def lasting(self) -> int:
        """How many can be used or are being opened: those that leave do not count."""
        return self.unborn + self.alive

    @property
    def alive(self) -> int:
        """How many can be used."""
        return sum(card.entry.state in LIVE for card in self.cards)

    def may_serve(self, method: Hashable) -> bool:
        """Whether another one of its conns would have the method, as far as is known."""
        known = self.methods is None or method is ANY or method in self.methods
        return known and not self.over

    def may_make_for(self, caller: Caller) -> bool:
        """The same, and would pass his filter, where that can be told from what it pins to them."""
        told = isinstance(caller.filter, Mapping)
        return self.may_serve(caller.method) and (not told or passes(caller.filter, self))


class Card:
    """What is known of one conn; a filter can read it like an `Info`."""

    __slots__ = (
        "back_in", "born", "broken", "capacity", "checks", "closes", "condemned", "conn", "entry",
        "expires", "extra", "failures", "fresh", "handed", "holders", "id", "inits", "left_for",
        "left_in", "made_in", "means", "methods", "open", "opens", "out_in", "permit",
        "permit_due", "pop", "refusals", "resource", "resources", "rest_most", "rests", "revive",
        "said", "seen", "source", "streak", "told_in", "ttl", "unpopped", "used", "well_in",
    )  # fmt: skip

    def __init__(self, entry: Entry, source: Source | None = None) -> None:
        self.entry = entry
        self.id = entry.id
        self.source = source
        self.conn: Any = entry.conn
        self.extra: Any = None
        self.ttl: float | None = None
        self.revive: bool | str = False
        self.resource: Any = None
        self.resources: tuple[Hashable, ...] = ()
        self.methods: frozenset[Hashable] = frozenset()
        self.capacity = 1
        self.checks = False
        self.seen = State.OPENING  # the state it was in when last looked at
        self.holders: list[Caller] = []  # one for each place that is taken
        self.open = False  # initialised, and not yet told to close
        self.opens = self.closes = self.handed = 0
        self.inits = 0  # how often it was told to open
        self.fresh = False  # has just been opened
        self.unpopped = False  # a pop has just been given up
        self.broken = False  # it is of no use any more, even to those who hold it
        self.condemned = ""  # why it is to leave
        self.told_in = -1  # in which step it has said last that it is to leave or to rest
        self.well_in = -1  # in which step it has shown last that it is well
        self.left_for = ""  # why it was last taken out of service
        self.back_in = -1  # in which step a place of it came back last
        self.left_in = -1  # in which step that was, unless it was only idle
        self.out_in = self.made_in = -1  # whatever the reason; and when its supply began to open it
        self.said = ""  # why it is to leave once a pop is given up
        self.rests = -math.inf  # not to be lent before
        self.rest_most = -math.inf  # to be lent again then
        self.expires = math.inf
        self.born = -math.inf  # when it was last opened
        self.used = -math.inf  # when it was last used
        self.permit: Permit | None = None
        self.permit_due = math.inf
        self.pop: Pop | None = None
        self.streak = 0  # deaths and failed inits since it last answered
        self.refusals = 0  # Busys since then
        self.failures = 0  # failed calls since then
        self.means: dict[Hashable, tuple[int, float, float]] = {}  # calls, their sum, the shortest

    # -- names of Info, for filters ------------------------------------------------------------

    @property
    def in_use(self) -> int:
        return len(self.holders)

    @property
    def state(self) -> str:
        return self.seen.value

    @property
    def stats(self) -> Any:
        return self.entry.stats or {}

    @property
    def last_call(self) -> float | None:
        return self.entry.last_call

    @property
    def last_init(self) -> float | None:
        return self.entry.last_init

    # -- facts ---------------------------------------------------------------------------------

    def describe(self, what: Description) -> None:
        """It has said what it is."""
        self.resource, self.resources = what.resource, what.resources
        self.methods, self.capacity, self.checks = what.methods, what.capacity, what.checks

    def recovered(self) -> None:
        """It has answered a call."""
        self.streak = self.refusals = self.failures = 0

    def answered(self, method: Hashable, took: float) -> None:
        """It has answered a call after so many seconds."""
        count, total, least = self.means.get(method, (0, 0.0, math.inf))
        self.means[method] = (count + 1, total + took, min(least, took))
        self.recovered()

    @property
    def staying(self) -> bool:
        """Whether it takes one of the pool's places."""
        if self.entry.state is State.DRAINING:
            return bool(self.holders) or self.pop is not None
        return self.entry.state is not State.GONE

    def names(self, resource: Hashable, method: Hashable) -> bool:
        """Whether it has the method, and talks to the resource."""
        return resource in self.resources and (method is ANY or method in self.methods)

    def able(self, caller: Caller) -> bool:
        """Whether it is a conn such as `caller` wants."""
        if caller.resource not in self.resources:
            return False
        if caller.method is not ANY and caller.method not in self.methods:
            return False
        return caller.filter is None or passes(caller.filter, self)

    def fit(self) -> None:
        """It has more places than before, or fewer: who has it for himself has all of them."""
        if self.whole:
            self.holders = [self.holders[0]] * self.capacity

    @property
    def whole(self) -> bool:
        """Whether somebody has it for himself."""
        return bool(self.holders) and self.holders[0].whole

    def used_by(self, caller: Caller) -> bool:
        """Whether who asks has a place of it already."""
        who = caller.who
        return who is not None and any(holder.who == who for holder in self.holders)

    def room_for(self, caller: Caller) -> bool:
        """Whether as many places are free as `caller` wants."""
        return not self.holders if caller.whole else len(self.holders) < self.capacity


def passes(filter: Any, card: Card | Source) -> bool:
    """Whether a conn passes a filter; one that raises lets nothing pass."""
    try:
        if isinstance(filter, Mapping):
            extra = card.extra
            same = [key in extra and extra[key] == value for key, value in filter.items()]
            return isinstance(extra, Mapping) and all(same)
        return bool(filter(card))
    except Exception:
        return False
