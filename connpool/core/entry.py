"""Entry: one conn in the pool, its explicit state, and the pictures of it that users see.

Owns the table of moves between states, `Info` (a snapshot) and `View` (the same names, live and
read-only, for filters).  Refuses to know of other entries, of lines and of permits' workings.

Invariant: `move` is the only writer of `Entry.state`, and a move that is not in `MOVES` raises and
changes nothing.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from ..conn import asked
from .stats import Stat

if TYPE_CHECKING:
    from ..conn import Description
    from .candidates import Group
    from .index import Shelf
    from .permits import Permit
    from .supply import Supply
    from .waiting import Need, Pop


class State(enum.Enum):
    """Where an entry stands.  Whether a READY one is full is a count, not a state."""

    OPENING = "opening"  # its first init runs
    READY = "ready"  # may be lent while it has a free place
    COOLING = "cooling"  # alive, rests until `rest_until`
    CHECKING = "checking"  # alive as far as is known, and being asked
    REVIVING = "reviving"  # out of service, and will be back
    DRAINING = "draining"  # out of service, and leaves for good once nobody uses it
    GONE = "gone"  # forgotten


# Looking a member up on an Enum class costs a descriptor call: the hot path compares with these.
OPENING, READY, COOLING = State.OPENING, State.READY, State.COOLING
CHECKING = State.CHECKING
REVIVING, DRAINING, GONE = State.REVIVING, State.DRAINING, State.GONE

MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        OPENING: frozenset({READY, COOLING, GONE}),
        READY: frozenset({COOLING, CHECKING, REVIVING, DRAINING}),
        COOLING: frozenset({READY, REVIVING, DRAINING}),
        CHECKING: frozenset({READY, COOLING, REVIVING, DRAINING}),
        REVIVING: frozenset({READY, COOLING, DRAINING}),
        # back again only where a pop is given up
        DRAINING: frozenset({READY, COOLING, CHECKING, REVIVING, GONE}),
        GONE: frozenset(),
    }
)

LIVE = frozenset({READY, COOLING, CHECKING})
HOPEFUL = LIVE | {REVIVING}


@attrs.define(eq=False)
class Trouble:
    """What went wrong with a conn since it last answered a call; most have none."""

    streak: int = 0  # deaths and failed inits
    failures: int = 0  # failed calls
    refusals: int = 0  # times it said Busy


# What a conn may have beyond what each must: one number, for there may be many conns.
CHECKS, LENDS, RESETS = 1, 2, 4


@attrs.define(eq=False, weakref_slot=False)
class Entry:
    """A conn and all that the core knows of it."""

    id: int
    conn: Any
    extra: Any
    ttl: float | None
    revive: bool | str
    setup: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    state: State = OPENING
    group: Group | None = None
    capacity: int = 1
    in_use: int = 0
    listed: bool = False  # lies in the rotation of its group, perhaps no longer rightly
    away: list[Shelf] | None = None  # where it was looked for and was not free
    user: Any = None  # who took a place last
    users: list[Any] | None = None  # who holds the places, where there are several
    since: float = 0.0  # when a place was last taken
    whole: bool = False  # one user holds all places, as many as there are
    claim: Need | None = None  # is kept free for the first of these, who wants all places
    where: Any = None  # where in the users' code it was checked out last
    lives: int = 0  # how often it was opened
    last_init: float | None = None
    last_call: float | None = None
    expires: float = math.inf
    rest_until: float = -math.inf  # a REVIVING entry rests until its next attempt
    alarm: float = math.inf  # when Timers will ring for this entry
    open: bool = False  # was initialised and has not been given up for closing
    broken: bool = False  # found dead: nothing is gained by waiting for who still uses it
    reason: str = ""  # why it was last given up
    trouble: Trouble | None = None  # what went wrong since it last answered a call
    in_turn: bool = False  # stands in line for a slot, to be opened
    quick: bool = False  # READY, with one place, and no trouble: see `straight`
    permit: Permit | None = None
    popper: Pop | None = None
    supply: Supply | None = None  # whose place it takes; None: it was put in by hand
    skills: int = 0  # CHECKS, LENDS and RESETS: what it has beyond the contract
    checkouts: int = 0  # of it that have ended well
    ping_at: float = math.inf  # when it is to be asked, if idle
    stats: dict[Hashable, Stat] | None = None
    view: View | None = None

    def stat(self, method: Hashable) -> Stat:
        """The figures of one method, made when first asked for."""
        if self.stats is None:
            self.stats = {}
        try:
            return self.stats.setdefault(method, Stat())
        except Exception:  # of a method that was well when it was called
            return Stat()

    def mean(self, method: Hashable) -> float | None:
        """Mean seconds of an answered call, or None where none has been answered yet."""
        try:
            stat = self.stats.get(method) if self.stats else None
        except Exception:
            return None
        return stat.mean if stat is not None and stat.answers else None

    def take_place(self, who: Any, now: float) -> None:
        """One more user."""
        self.in_use += 1
        self.user = who
        self.since = now
        if self.users is not None:
            self.users.append(who)

    def take_all(self, who: Any, now: float) -> None:
        """One user for all places, where there is none."""
        self.in_use = self.capacity
        self.user = who
        self.since = now
        self.whole = True
        if self.users is not None:
            self.users = [who]  # once: a capacity may be a billion

    def come_back(self) -> None:
        """It has a free place again: tell those that have looked for it in vain."""
        for shelf in self.away or ():
            shelf.put(self)
        self.away = None
        self.see_whether_quick()

    def stay_away(self, *shelves: Shelf) -> None:
        """These have looked for it in vain, or it lies in the rotation though it is lent: when it
        is free again there is more to do than to put it back."""
        self.away = [*(self.away or ()), *shelves]
        self.quick = False

    def leave_place(self, who: Any) -> None:
        """One user less."""
        if self.whole:
            self.whole = False
            self.in_use = 0
            if self.users:
                self.users.clear()
            return
        self.in_use -= 1
        if self.users and who in self.users:
            self.forget_user(who)

    def forget_user(self, who: Any) -> None:
        """One of those who share it has left.  Of several that are equal it is the last: who holds
        a place equals his own calls while he lives, and what he began last ends first."""
        assert self.users is not None
        self.users.reverse()
        self.users.remove(who)
        self.users.reverse()

    def rename(self, who: Any, other: Any) -> None:
        """What `who` holds is held by `other`."""
        if self.user == who:
            self.user = other
        if self.users:
            self.users = [other if user == who else user for user in self.users]

    def troubled(self) -> Trouble:
        """What has gone wrong, to be added to."""
        if self.trouble is None:
            self.trouble = Trouble()
            self.quick = False
        return self.trouble

    def falter(self) -> int:
        """It has died, or could not be initialised: how often in a row."""
        trouble = self.troubled()
        trouble.streak += 1
        return trouble.streak

    @property
    def checks(self) -> bool:
        """It has a check(), and can be asked whether it is alive."""
        return bool(self.skills & CHECKS)

    @property
    def askable(self) -> bool:
        """It can be asked, or made anew, when a peer of it has died."""
        return self.checks or self.supply is not None

    @property
    def lends(self) -> bool:
        """It has a lend(), which says what a checkout hands over."""
        return bool(self.skills & LENDS)

    @property
    def resets(self) -> bool:
        """It has a reset(), which makes it clean after a checkout."""
        return bool(self.skills & RESETS)

    def learn(self, what: Description) -> None:
        """It has said what it can."""
        self.skills = CHECKS * what.checks | LENDS * what.lends | RESETS * what.resets

    @property
    def idle_since(self) -> float:
        """When it was last used, or opened."""
        return self.last_call or self.last_init or 0.0

    def recover(self) -> None:
        """It has answered a call: what went wrong before is forgotten."""
        if self.trouble is not None:
            self.trouble = None
            self.see_whether_quick()

    def see_whether_quick(self) -> None:
        """Something has changed that the straight path hangs on."""
        self.quick = self.state is READY and self.plain

    @property
    def plain(self) -> bool:
        """It has one place, nothing went wrong since it last answered a call, and nobody has looked
        for it since in vain."""
        return self.users is None and self.trouble is None and self.away is None

    def set_capacity(self, capacity: int) -> None:
        """Change how many places there are; who has one keeps it, and who has all has all."""
        self.capacity = capacity
        if self.whole:
            self.in_use = capacity
            self.users = None if capacity == 1 else [self.user]
        if capacity > 1 and self.users is None:
            self.users = [self.user] * self.in_use
        elif capacity == 1 and not self.users:
            self.users = None
        self.see_whether_quick()

    @property
    def sole(self) -> bool:
        """Whether no more than one user is there."""
        return self.whole or self.in_use <= 1

    @property
    def holders(self) -> list[Any]:
        """Who holds the places that are taken; one who has them all is named once."""
        return self.users if self.users is not None else [self.user] * bool(self.in_use)

    def held_by(self, who: Any) -> bool:
        """Whether `who` holds a place."""
        return who in self.holders

    def held_since(self, since: float, who: Any) -> bool:
        """Whether `who` holds a place that he took at `since`, as far as that can be told."""
        if self.users is not None:
            return self.held_by(who)
        return bool(self.in_use) and self.since == since and bool(self.user == who)

    def held_by_only(self, who: Any) -> bool:
        """Whether `who` holds every place that is taken, and at least one."""
        holders = self.holders
        return bool(holders) and all(holder == who for holder in holders)


def move(entry: Entry, state: State) -> None:
    """Move `entry` to `state`, or raise and change nothing."""
    if state not in MOVES[entry.state]:
        raise RuntimeError(f"conn {entry.id} cannot go from {entry.state.value} to {state.value}")
    entry.state, entry.quick = state, state is READY and entry.plain
    if entry.claim is not None and state is not READY:
        release_claim(entry)


def release_claim(entry: Entry) -> None:
    """Nobody waits for all places of `entry` any more."""
    if entry.claim is not None:
        entry.claim.claim = None
        entry.claim = None


@attrs.frozen
class Info:
    """A snapshot of one conn.

    `ttl` and `cooldown` (what is left of a rest) are seconds; `last_init` and `last_call` are
    instants of the monotonic clock, None where there was none.  `stats` maps each method that was
    called to its `Stat`: count, errors, mean seconds.
    """

    id: int
    conn: Any
    resource: Any
    methods: frozenset[Hashable]
    extra: Any
    ttl: float | None
    revive: bool | str
    capacity: int
    in_use: int
    state: str
    stats: Mapping[Hashable, Stat]
    last_call: float | None
    last_init: float | None
    cooldown: float


class View:
    """What a filter gets: the names of `Info`, read live from the entry, not writable.

    One is made for each conn that is ever filtered, and kept; nothing is built per candidate.
    """

    __slots__ = ("_entry", "_now")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._now = 0.0

    # attrgetter runs in C: a property written in Python would cost twice as much.
    id = property(attrgetter("_entry.id"))
    conn = property(attrgetter("_entry.conn"))
    resource = property(attrgetter("_entry.group.resource"))
    methods = property(attrgetter("_entry.group.methods"))
    extra = property(attrgetter("_entry.extra"))
    ttl = property(attrgetter("_entry.ttl"))
    revive = property(attrgetter("_entry.revive"))
    capacity = property(attrgetter("_entry.capacity"))
    in_use = property(attrgetter("_entry.in_use"))
    state = property(attrgetter("_entry.state.value"))
    last_call = property(attrgetter("_entry.last_call"))
    last_init = property(attrgetter("_entry.last_init"))

    @property
    def stats(self) -> Mapping[Hashable, Stat]:
        return MappingProxyType(self._entry.stats or {})

    @property
    def cooldown(self) -> float:
        return max(0.0, self._entry.rest_until - self._now)

    def __repr__(self) -> str:
        return repr(snapshot(self._entry, self._now))


def view(entry: Entry, now: float) -> View:
    """The live view of `entry`, as of `now`."""
    found = entry.view
    if found is None:
        found = entry.view = View(entry)
    found._now = now
    return found


def snapshot(entry: Entry, now: float) -> Info:
    """The picture of `entry` at `now`."""
    group = entry.group
    stats = {method: stat.picture() for method, stat in (entry.stats or {}).items()}
    return Info(
        id=entry.id,
        conn=entry.conn,
        resource=group.resource if group else asked(entry.conn, "resource"),
        methods=group.methods if group else frozenset(),
        extra=entry.extra,
        ttl=entry.ttl,
        revive=entry.revive,
        capacity=entry.capacity,
        in_use=entry.in_use,
        state=entry.state.value,
        stats=MappingProxyType(stats),
        last_call=entry.last_call,
        last_init=entry.last_init,
        cooldown=max(0.0, entry.rest_until - now),
    )
