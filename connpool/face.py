"""What both pools answer at once: the half of their public face that never waits.

Owns the methods that need nothing but a turn at the core, the checks of what callers say, and the
user's callbacks.  Refuses to know threads and tasks: a driver says how to take a turn, and what to
call the one who asks.

Invariant: the core is entered in a turn only, and callbacks run outside every turn.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from .conn import Description, Reply, check_conn
from .core import (
    ANY,
    Core,
    Entry,
    Info,
    Options,
    Permit,
    PoolStats,
    Supply,
    check_by,
    check_filter,
    check_timeout,
    of_error,
    of_reply,
)
from .core.report import report
from .errors import PoolClosed, PoolTimeout, show

logger = logging.getLogger("connpool")

OnConnect = Callable[[Info], Any]
OnDisconnect = Callable[[Info, str], Any]

_numbers = itertools.count(1)


class Face:
    """The base of :class:`connpool.Pool` and :class:`connpool.AsyncPool`."""

    # Taking a turn gives the present instant; a driver sets it before anything else.
    _turn: AbstractContextManager[float]

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
        # Checkouts that the garbage collector has found before they were over.
        self._dropped: list[tuple[Any, Entry, Any, Any]] = []
        self._renew()

    def _renew(self) -> None:
        """A new, empty core."""
        self._core = Core(self._options, random.Random().random, self._whoami)

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

    @property
    def name(self) -> str:
        """The name of the pool, in errors, reports and thread names."""
        return self._core.name

    # -- what a call may say -------------------------------------------------------------------

    def _seconds(self, timeout: Any) -> float:
        return self._timeout if timeout is ... else check_timeout(timeout)

    @staticmethod
    def _check_choice(filter: Any, by: Any) -> None:
        check_filter(filter)
        if by is not None:
            check_by(by)

    # -- the ends of a call ---------------------------------------------------------------------

    def _replied(self, entry: Entry, method: Hashable, who: Any, reply: Any, started: float) -> Any:
        """Give the place back after a reply, and take the reply out of its wrapping."""
        if not isinstance(reply, Reply):
            with self._turn as now:
                self._core.give(entry, method, who, started, now)
            return reply
        ended = of_reply(reply)
        with self._turn as now:
            self._core.conclude(entry, method, who, ended, started, now)
        if ended.error is not None:
            raise ended.error
        return reply.value

    def _moves(
        self, entry: Entry, method: Hashable, who: Any, error: BaseException, started: float
    ) -> bool:
        """Give the place back after a call that raised: whether it had not happened, and moves."""
        ended = of_error(error, getattr(entry.conn, "survives_cancel", False))
        with self._turn as now:
            self._core.conclude(entry, method, who, ended, started, now, error)
        if ended.error is not None and ended.error is not error:
            raise ended.error from error  # the conn raised something that makes no sense
        return ended.moves

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
        if info is not None:
            self._tell_connect(info)

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

    # -- routing ---------------------------------------------------------------------------------

    def route(
        self,
        resource: Hashable,
        *,
        method: Hashable = None,
        filter: Callable[[Any], Any] | None = None,
        by: Any = None,
    ) -> Any:
        """Pick a live conn and give it, without a lease: for conns that many may share at once.

        Parameters:
            resource: what to talk to.
            method: only conns that have it; None: any.
            filter: only conns for whose `Info` this is true.
            by: "round_robin" (the default), "random", "least_used", "least_wait", "two_choices",
                `sticky(key)`, or a function that is given a list of live `Info` views and gives one
                of them.

        A conn that is lost leaves the choice at once, and is back once it is revived.  Nobody is
        told when you are done, so a conn may close while you use it: be ready for `Closed`.

        Raises `ResourceError`, `MethodError` or `FilterError`; `PoolTimeout` where all are checked
        out by somebody who has them for himself.  Never waits.  Takes the same time
        with many conns, but for a filter and a function of yours, which are shown all of them, and
        a key of `sticky` that is new; of many conns "least_used" and "least_wait" compare a few.
        """
        if method is None:
            method = ANY
        if filter is None:
            conn = self._core.glance(resource, method, by, time.monotonic())
            if conn is not None:
                return conn
        self._check_choice(filter, by)
        with self._turn as now:
            return self._core.route(resource, method, filter, by, now)

    # -- questions -----------------------------------------------------------------------------

    def info(self, id: int) -> Info:
        """A snapshot of one conn.

        Parameters:
            id: what `init` or `put` gave.

        Raises `IdError` where the pool holds no such conn.  Never waits.
        """
        with self._turn as now:
            return self._core.info(id, now)

    def infos(
        self, resource: Hashable = None, filter: Callable[[Any], Any] | None = None
    ) -> list[Info]:
        """Snapshots of the conns, alive or being revived.

        Parameters:
            resource: only conns to this one; None for all.
            filter: only conns for whose `Info` this is true.

        An error of the filter reaches the caller.  Never waits.
        """
        check_filter(filter)
        with self._turn as now:
            return self._core.infos(filter, now, *(() if resource is None else (resource,)))

    def extra(self, id: int, value: Any) -> Any:
        """Replace what is pinned to a conn, and give the old value; atomic.

        Parameters:
            id: what `init` or `put` gave.
            value: what to pin to it from now on.

        Callers that wait with a filter are looked at anew.  Raises `IdError`.  Never waits.
        """
        with self._turn as now:
            return self._core.set_extra(id, value, now)

    def resize(
        self, resource: Hashable, min_size: int | None = None, max_size: int | None = None
    ) -> None:
        """Give a supply other sizes.

        Parameters:
            resource: whose supply.
            min_size, max_size: as for `supply`; None leaves one as it is.

        Conns beyond the new `max_size` leave as they become idle.  Raises `ResourceError` where the
        resource has no supply.  Waits for nothing.
        """
        with self._turn as now:
            self._core.resize(resource, min_size, max_size, now)

    def withdraw(self, resource: Hashable) -> None:
        """End a supply: its conns are closed once nobody uses them, and no more are made.

        Parameters:
            resource: whose supply.

        Raises `ResourceError` where the resource has no supply.  Waits for nothing.
        """
        with self._turn as now:
            self._core.withdraw(resource, now)

    def drain(self, resource: Hashable = None, *, id: int | None = None) -> int:
        """Let the conns of a resource, or the one with this id, go once nobody uses them.

        Parameters:
            resource: whose conns.
            id: which conn.

        They are closed, not revived; a supply makes others as they are needed.  Gives how many.
        A TypeError unless it is told the one or the other.  Raises `IdError` where there is no such
        conn.  Never waits.
        """
        if (resource is None) is (id is None):
            raise TypeError("drain: expected either a resource or an id")
        with self._turn as now:
            core = self._core
            leaving = core.search(resource, None, now) if id is None else [core.find(id, now)]
            return core.let_go(leaving, now)

    def resources(self) -> list[Hashable]:
        """The resources with at least one live conn.  Never waits."""
        with self._turn as now:
            return self._core.resources(now)

    def empty(self, resource: Hashable) -> bool:
        """Whether no live conn to the resource is there; expired and dead ones do not count.

        Never waits.
        """
        with self._turn as now:
            return not self._core.count(now, resource)

    def __len__(self) -> int:
        """The number of live conns."""
        with self._turn as now:
            return self._core.count(now)

    def __bool__(self) -> bool:
        """A pool is true, however many conns it holds."""
        return True

    def __contains__(self, id: object) -> bool:
        """Whether a live conn has this id."""
        if not isinstance(id, int):
            return False
        with self._turn as now:
            return self._core.alive(id, now)

    def stats(self) -> PoolStats:
        """Numbers: `.now` is what is true at this moment, `.since_start` what has happened.

        Never waits; takes time in proportion to the number of conns.
        """
        with self._turn as now:
            return self._core.stats(now)

    def report(self) -> str:
        """A text for people: who holds what, who waits for what and why.

        Shows resources and errors, never a conn or an extra, which may hold secrets.  Never waits.
        """
        with self._turn as now:
            return report(self._core, now, self._name_of)

    def __repr__(self) -> str:
        now = self._core
        state = "closed" if now.closed else f"{now.live} conns, {now.waiting} waiting"
        return f"<{type(self).__name__} {self.name!r}: {state}>"

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
            except Exception:
                logger.exception("%s: a callback raised", self.name)


def until(timeout: float, now: float) -> float:
    """The deadline of somebody who may wait `timeout` seconds from `now`."""
    return math.inf if timeout == math.inf else now + timeout
