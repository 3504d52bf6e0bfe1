"""Wishes: what a caller wants, what befalls him, and how far he has come.

Owns the record of a caller.  Refuses to know what is done with it.

Invariant: what befalls a caller is data, known before he comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from ..core import ANY, Entry, Filter, Ticket, check_filter
from .sim_actor import Actor
from .sim_cards import Card

INF = math.inf

NEW, ASKING, WAITING, CALLING, OVER = "new", "asking", "waiting", "calling", "over"
# What a checkout is in the middle of, once it has a conn.
LENDING, HOLDING, CLEANING = "being handed a conn", "holding", "giving back"
BUSY = frozenset({CALLING, LENDING, HOLDING, CLEANING})


@attrs.frozen
class Wish:
    """What a caller wants, and what befalls him.

    Parameters:
        resource, method, payload, filter, by, timeout: as for a pool's `call`.
        who: who he is; default: somebody new; None: one who cannot be told from others.
        calls: what befalls each of his attempts: seconds (None: as the conn says) and fault.
        gives_up: seconds after which he is cancelled; None: never.
        inner: what he calls from inside his call, and how long after its start.
        expects: what his reply must be, checked by this function of payload and reply.
    """

    resource: Hashable
    method: Hashable
    payload: Any = None
    filter: Filter = None
    by: Any = None
    timeout: Any = ...
    who: Any = ...
    calls: tuple[tuple[float | None, str], ...] = ()
    gives_up: float | None = None
    inner: tuple[float, Wish] | None = None
    expects: Callable[[Any, Any], Any] | None = None


@attrs.frozen
class Checkout(Wish):
    """What somebody wants who checks a conn out, and what becomes of his block.

    Parameters:
        resource, method, filter, by, timeout: as for a pool's `checkout`; `ANY`: any method.
        shared: False: he has the conn for himself; True: one of its places.
        does: what the block does with what it is given: called with that and the payload, gives
            what a conn's `call` may give, a value or a `Took`.
        block: how long the block lasts (None: as long as `does` says), and how it ends: "" well;
            any fault of a call that is an error: with it; "dies": whoever holds the conn is gone,
            and never gives it back; "drops": he forgets it; "hangs": he does not let go.
        notices: whether the block ends as soon as the conn is closed under it.
        gives_up: seconds after which he is cancelled, or interrupted, whatever he is about.
        inner: what he asks for from inside his block, a `Wish` or a `Checkout`, and how long after
            its start.
        payload, expects, who: as for a call; the reply is what `does` comes to.
    """

    method: Hashable = ANY
    shared: bool = False
    does: Callable[[Any, Any], Any] | None = None
    block: tuple[float | None, str] = (None, "")
    notices: bool = True


class Caller(Actor):
    """Somebody who calls: `reply` or `error` once he is `done`."""

    __slots__ = (
        "arrived", "by", "card", "cause", "deadline", "entry", "error", "filter", "hangs",
        "happened", "inherits", "inner", "lined_up", "method", "moved", "order", "outer",
        "payload", "phase", "place", "queued", "reply", "resource", "started", "still", "test",
        "ticket", "tries", "turn", "who", "whole", "wish",
    )  # fmt: skip

    def __init__(self, number: int, wish: Wish) -> None:
        super().__init__(number)
        self.wish = wish
        self.who: Any = number if wish.who is ... else wish.who
        self.resource, self.method = wish.resource, wish.method
        self.payload: Any = wish.payload
        self.test = check_filter(wish.filter)  # as the core knows it
        self.filter = wish.filter if self.test is not None else None
        self.by, self.whole = wish.by, False
        self.phase = NEW
        self.turn = 0  # changes with the phase: what was planned before is void
        self.tries = 0
        self.order = -1  # of arrival, as the ledger counts
        self.queued = False  # stands in line, as the ledger knows
        self.moved = False
        self.place: float | None = None
        self.arrived = self.lined_up = self.started = 0.0
        self.deadline = INF
        self.card: Card | None = None  # the ledger's, while he has a place
        self.entry: Entry | None = None
        self.ticket: Ticket | None = None
        self.cause: BaseException | None = None
        self.happened = False
        self.inherits = False  # what he has is of a parent process
        self.hangs = False
        self.inner: Caller | None = None
        self.outer: Caller | None = None
        self.still: Any = None  # how his call ended, while what he called inside it goes on
        self.reply: Any = None
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether he has his reply, or his error."""
        return self.phase is OVER

    def __repr__(self) -> str:
        return f"caller {self.number}"


class Person:
    """Who holds conns, as a driver knows him: he equals his number for as long as he lives.

    The number of one who has died may be given to another.
    """

    __slots__ = ("life", "number")

    def __init__(self, number: Any, life: list[Any]) -> None:
        self.number = number
        self.life = life  # empty once it is over

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Person):
            return self.life is other.life
        return bool(self.number == other and self.life)

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f"person {self.number}"


def is_gone(who: Any) -> bool:
    """Whether somebody who held a conn is gone."""
    return isinstance(who, Person) and not who.life


class Holder(Caller):
    """Somebody who checks a conn out: `given` is what his block got, `reply` what came of it."""

    __slots__ = ("asking", "failed", "given", "lost_at", "where")

    wish: Checkout

    def __init__(self, number: int, wish: Checkout) -> None:
        super().__init__(number, wish)
        self.whole = not wish.shared
        self.asking = False  # whether it is the conn's check that runs before it is handed over
        self.given: Any = None
        self.failed: BaseException | None = None  # what his block raised
        self.lost_at = INF  # since when he will never give back what he holds
        self.where = ("where it was checked out by", number)

    def __repr__(self) -> str:
        return f"holder {self.number}"


def who_of(caller: Caller) -> Any:
    """Who somebody is when he calls."""
    return caller.who.number if isinstance(caller.who, Person) else caller.who


def wished(caller: Caller, timeout: float) -> str:
    parts = [f"{caller.resource!r}.{caller.method}"]
    if isinstance(caller, Holder):
        what = "the whole of" if caller.whole else "a place of"
        named = "" if caller.method is ANY else f" with {caller.method}"
        parts = [f"{what} {caller.resource!r}{named}"]
    if caller.filter is not None:
        parts.append(f"that passes {getattr(caller.filter, '__name__', caller.filter)}")
    if caller.by is not None:
        parts.append(f"by {caller.by}")
    parts.append("for ever" if timeout == INF else f"within {timeout:g} s")
    return " ".join(parts)
