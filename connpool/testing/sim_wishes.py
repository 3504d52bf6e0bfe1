"""Wishes: what a caller wants, what befalls him, and how far he has come.

Owns the record of a caller.  Refuses to know what is done with it.

Invariant: what befalls a caller is data, known before he comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from ..core import Entry, Filter, Ticket, check_filter
from .sim_actor import Actor
from .sim_cards import Card

INF = math.inf

NEW, ASKING, WAITING, CALLING, OVER = "new", "asking", "waiting", "calling", "over"


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
    whole: bool = False


class Caller(Actor):
    """Somebody who calls: `reply` or `error` once he is `done`."""

    __slots__ = (
        "arrived", "by", "card", "cause", "deadline", "entry", "error", "filter", "hangs",
        "happened", "inner", "lined_up", "method", "moved", "order", "outer", "payload", "phase",
        "place", "queued", "reply", "resource", "started", "still", "test", "ticket", "tries",
        "turn", "who", "whole", "wish",
    )  # fmt: skip

    def __init__(self, number: int, wish: Wish) -> None:
        super().__init__(number)
        self.wish = wish
        self.who: Any = number if wish.who is ... else wish.who
        self.resource, self.method = wish.resource, wish.method
        self.payload: Any = wish.payload
        self.test = check_filter(wish.filter)  # as the core knows it
        self.filter = wish.filter if self.test is not None else None
        self.by, self.whole = wish.by, wish.whole
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


def wished(caller: Caller, timeout: float) -> str:
    parts = [f"{caller.resource!r}.{caller.method}"]
    if caller.filter is not None:
        parts.append(f"that passes {getattr(caller.filter, '__name__', caller.filter)}")
    if caller.by is not None:
        parts.append(f"by {caller.by}")
    parts.append("for ever" if timeout == INF else f"within {timeout:g} s")
    return " ".join(parts)
