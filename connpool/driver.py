"""What both drivers do alike behind their doors.

Owns the core and its options, the ends of calls, what goes with a birth, and the user's callbacks.
Refuses to know threads and tasks: a driver says how to take a turn, and what to call the one who
asks.

Invariant: the core is entered in a turn only, and callbacks run outside every turn.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import math
import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

from .conn import Description, Reply, check_conn
from .core import (
    Core,
    Entry,
    Info,
    Options,
    Permit,
    Supply,
    Test,
    check_by,
    check_filter,
    check_timeout,
    of_error,
    of_reply,
    survives,
)
from .errors import Closed, PoolClosed, PoolTimeout, show

logger = logging.getLogger("connpool")

OnConnect = Callable[[Info], Any]
OnDisconnect = Callable[[Info, str], Any]

# How many filters given as data are remembered.
MOST_WHERES = 10_000

_numbers = itertools.count(1)


class Driver:
    """Behind the doors of :class:`connpool.Pool` and :class:`connpool.AsyncPool`."""

    # Taking a turn gives the present instant; a driver sets it before anything else.
    _turn: AbstractContextManager[float]
    # Whether the core may be entered by a stroke: one thread alone always may.
    _strokes = True

    def __init__(
        self,
        *,
        name: str | None,
        on_connect: OnConnect | None,
        on_disconnect: OnDisconnect | None,
        **options: Any,
    ) -> None:
        for what, callback in (("on_connect", on_connect), ("on_disconnect", on_disconnect)):
            if callback is not None and not callable(callback):
                raise TypeError(f"{what}: expected a function, got {show(callback)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a str, got {show(name)}")
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        chosen = name if name is not None else f"pool-{next(_numbers)}"
        options = {key: value for key, value in options.items() if value is not ...}
        self._options = Options(name=chosen, **options)
        self._timeout = self._options.timeout
        self._wheres: dict[tuple[Any, ...], Test] = {}
        # Checkouts that the garbage collector has found before they were over.
        self._dropped: list[tuple[Any, Entry, Any, Any]] = []
        self._renew()

    def _renew(self) -> None:
        """A new, empty core."""
        self._core = Core(self._options, random.Random().random, self._whoami)
        self._core.in_turn = self._core.turns_only = not self._strokes

    def _bury(self, now: float) -> None:
        """In a turn: take back what was checked out by those who have dropped it."""
        while self._dropped:
            core, entry, who, where = self._dropped.pop()
            if core is self._core:
                self._core.forsake(entry, who, where, now)

    def _whoami(self) -> Any:
        """The one who asks: a hashable, or None where that cannot be told."""
        raise NotImplementedError

    def _name_of(self, who: Any) -> str:
        """What a report calls `who`."""
        raise NotImplementedError

    def _frame_of(self, who: Any) -> FrameType | None:
        """Where `who` is in the code, if that can be told."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The name of the pool, in errors, reports and thread names."""
        return self._core.name

    # -- what a call may say -------------------------------------------------------------------

    def _seconds(self, timeout: Any) -> float:
        return self._timeout if timeout is ... else check_timeout(timeout)

    def _check_choice(self, filter: Any, by: Any) -> Test:
        """Raise unless both make sense; gives the filter as the core knows it."""
        if by is not None:
            check_by(by)
        if filter.__class__ is not dict:
            return check_filter(filter)
        # Written out anew for each call, most often; what it means is worked out once.
        known = self._wheres
        try:
            return known[tuple(filter.items())]
        except (KeyError, TypeError):
            where = check_filter(filter)
        if len(known) >= MOST_WHERES:
            known.clear()
        known[tuple(filter.items())] = where
        return where

    # -- the ends of a call ---------------------------------------------------------------------

    def _replied(self, entry: Entry, method: Hashable, who: Any, reply: Any, started: float) -> Any:
        """Give the place back after a reply, and take the reply out of its wrapping."""
        if type(reply) is not Reply:  # not isinstance, which a lazy proxy would answer by itself
            with self._turn as now:
                self._core.give(entry, method, who, started, now)
            return reply
        ended = of_reply(reply)
        with self._turn as now:
            if self._holds(entry):
                self._core.conclude(entry, method, who, ended, started, now)
        if ended.error is not None:
            raise ended.error
        return reply.value

    def _moves(
        self, entry: Entry, method: Hashable, who: Any, error: BaseException, started: float
    ) -> bool:
        """Give the place back after a call that raised: whether it had not happened, and moves."""
        ended = of_error(error, survives(entry.conn))
        with self._turn as now:
            if self._holds(entry):
                self._core.conclude(entry, method, who, ended, started, now, error)
        if ended.error is not None and ended.error is not error:
            raise ended.error from error  # the conn raised something that makes no sense
        return ended.moves

    def _holds(self, entry: Entry) -> bool:
        """Whether a conn is of this core.  A call that forks ends in the child as well, and there
        what becomes of its conn is for the parent to say."""
        return self._core.entries.get(entry.id) is entry

    # -- births ---------------------------------------------------------------------------------

    def _conn_of(self, permit: Permit, *, awaits: bool) -> Any:
        """The conn to be initialised; for a supply one that its factory makes."""
        entry = permit.entry
        if permit.make is None:
            return entry.conn
        conn = permit.make()
        if inspect.iscoroutine(conn):
            conn.close()  # or it would complain that nobody has awaited it
            raise TypeError(
                "factory: expected a plain function that gives a conn, got an async one"
            )
        check_conn(conn, awaits=awaits)
        with self._turn:
            self._core.adopt(permit, conn)
        return conn

    def _opened(self, permit: Permit, what: Description, rest: float) -> None:
        with self._turn as now:
            info = self._core.opened(permit, what, rest, now)
            self._listen(permit.entry)
        if info is not None:
            self._tell_connect(info)

    def _listen(self, entry: Entry) -> None:
        """Tell a conn that can learn by itself of its loss whom to tell."""
        try:
            if hasattr(entry.conn, "on_lost"):
                entry.conn.on_lost = functools.partial(self._lost, entry, entry.lives)
        except Exception:
            logger.exception("%s: a conn does not let its on_lost be set", self.name)

    def _lost(self, entry: Entry, life: int, error: Any = None) -> None:
        """What a conn calls when its connection is gone, with an error or without."""
        if not isinstance(error, BaseException):  # others are shown it as the cause of theirs
            error = Closed("the conn has reported its loss" if error is None else error)
        with self._turn as now:
            self._core.lost(entry, life, error, now)

    def _admitted(self, permit: Permit) -> int:
        if permit.entry.last_init is None:
            raise PoolClosed(f"pool {self.name!r} was closed", pool=self.name)
        return permit.entry.id

    # -- supplies --------------------------------------------------------------------------------

    def _add_supply(self, made: Supply) -> None:
        if made.resource is None:
            raise TypeError("resource: expected a hashable, got None")
        if inspect.iscoroutinefunction(made.factory):
            raise TypeError(
                "factory: expected a plain function that gives a conn, got an async one"
            )
        with self._turn as now:
            self._core.supply(made, now)

    def _unready(self, seconds: float) -> Iterator[float]:
        """The seconds left to wait for the supplies, again and again until they are ready."""
        deadline: float | None = None
        while True:
            with self._turn as now:
                if self._core.closed:
                    raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
                if self._core.ready(now):
                    return
                cause = self._core.last_failure()
            if deadline is None:
                began, deadline = now, until(seconds, now)
            if now >= deadline:
                raise PoolTimeout(
                    f"pool {self.name!r}: the supplies were not ready within {seconds:g} s",
                    pool=self.name,
                    waited=now - began,
                    timeout=seconds,
                ) from cause
            yield deadline - now

    # -- callbacks -----------------------------------------------------------------------------

    def _tell_connect(self, info: Info) -> None:
        logger.debug("%s: conn %d is ready", self.name, info.id)
        self._tell(self._on_connect, info)

    def _tell_disconnect(self, info: Info | None, reason: str) -> None:
        if info is not None:
            logger.debug("%s: conn %d is given up: %s", self.name, info.id, reason)
            self._tell(self._on_disconnect, info, reason)

    def _tell(self, callback: Callable[..., Any] | None, *args: Any) -> None:
        """Run a user's callback; what it raises is logged and hurts nobody."""
        if callback is not None:
            try:
                callback(*args)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("%s: a callback raised", self.name)


def until(timeout: float, now: float) -> float:
    """The deadline of somebody who may wait `timeout` seconds from `now`."""
    return math.inf if timeout == math.inf else now + timeout
