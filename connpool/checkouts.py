"""Checkouts, for threads: conns that users hold themselves for a while.

Owns the thread's side of a lease.  Refuses to decide whether a conn is well enough to be lent
again: `core.outcome` does.

Invariant: once the core has lent a conn the lease knows it, and gives it back on every path out of
its block; one that is dropped instead is taken back, and its user is told.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Hashable
from types import TracebackType
from typing import Any

from .core import (
    ANY,
    Entry,
    Filter,
    Outcome,
    Ticket,
    Timeout,
    of_check,
    of_lend,
    of_reset,
    survives,
)
from .core.entry import RESETS
from .driver import until
from .errors import Closed, show
from .leases import BaseLease, Ghost, leaving, wants_check
from .supplies import Supplies

logger = logging.getLogger("connpool")


class Holder:
    """A thread, as one that holds conns: it equals its ident for as long as it lives.

    The ident alone would not do: Python gives that of an ended thread to the next one.
    """

    __slots__ = ("ident", "thread")

    def __init__(self) -> None:
        self.ident = get_ident()
        self.thread = threading.current_thread()

    def __eq__(self, other: object) -> bool:
        return self is other or (self.ident == other and self.thread.is_alive())

    def __hash__(self) -> int:
        return hash(self.ident)

    @property
    def alias(self) -> int:
        """Who makes its calls."""
        return self.ident


_local = threading.local()


def _holder() -> Holder:
    """The present thread; made once for each."""
    try:
        return _local.holder  # type: ignore[no-any-return]
    except AttributeError:
        holder = _local.holder = Holder()
        return holder


class Lease(BaseLease):
    """One checkout from a `Pool`: ``with pool.checkout(resource) as conn``."""

    __slots__ = ()

    _pool: Checkouts

    def __enter__(self) -> Any:
        if self._core is not None:
            raise self._refuse()
        pool = self._pool
        self._core = core = pool._core
        try:
            self._who = who = _local.holder
        except AttributeError:
            self._who = who = _holder()
        started = time.monotonic()
        self._entry = entry = core.hold(self._resource, ANY, who, started)
        if entry is None:
            return pool._hand_over_in_turn(self, started)
        if entry.skills:
            self._place = core.arrivals - 0.5
            return pool._hand_over(self, entry, started)
        entry.where = self._where
        return entry.conn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry, core = self._entry, self._core
        if entry is None or core is None:
            self._held()  # which says what is wrong
            return
        if error is not None or (entry.skills & RESETS and self._whole):
            self._pool._take_back(self, error)
            return
        if not core.hand_back(entry, self._who, time.monotonic()):
            with self._pool._turn as now:
                core.release(entry, self._who, now)
        self._entry = None  # not before: an interrupt may come at any time


class _ChoosyLease(Lease):
    """One whose user asks for more than the resource."""

    __slots__ = ("__dict__",)

    def __enter__(self) -> Any:
        if self._core is not None:
            raise self._refuse()
        self._core = self._pool._core
        self._who = _holder()
        return self._pool._hand_over_in_turn(self, time.monotonic())


class Checkouts(Supplies):
    """The part of `Pool` that lends conns to users."""

    def checkout(
        self,
        resource: Hashable,
        *,
        method: Hashable = None,
        filter: Filter = None,
        timeout: Timeout = ...,
        shared: bool = False,
        by: Any = None,
    ) -> Lease:
        """Hold a conn for as long as a with block lasts: ``with pool.checkout(resource) as conn``.

        Parameters:
            resource: what to talk to.
            method: only conns that have it; None: any.
            filter: only conns that pass, as for `call`.
            timeout: seconds to wait for a conn; 0: not at all; None: for ever; default: the pool's.
            shared: False: nobody else uses the conn meanwhile, whatever its capacity; True: one of
                the places of its capacity.
            by: how to choose among free conns; default: the least expected wait.

        Gives a context manager for one with block.  The block gets what the conn's `lend` gives, or
        else the conn itself.  Before that a conn that was idle for `check_after` seconds and has a
        `check` is asked whether it is well; where it is not, or its `lend` raises `Closed`, it is
        dropped or revived, and another is looked for, with the same place in line and the same
        deadline.  What else `lend` raises reaches the caller, and the conn stays.

        When the block ends, a conn that has a `reset` is made clean; one whose `reset` raises is
        closed, and the block ends as if nothing had happened.  Where the block raised, a conn
        without a `reset` is closed; so is any where the block was interrupted, unless it survives
        that.  The place of one who shares a conn is given back as after a call.

        A checkout that is dropped before it is over is taken back when somebody needs a conn, and a
        ResourceWarning names the line: the conn is closed, or, where it was shared, its place is
        free again.  Another thread may end what this one began, and this one may have ended by
        then.

        Raises in `__enter__` what `call` raises while it waits; `NestedCall` where the only conns
        that could serve are held by the caller.

        Waits for a conn, first come, first served.  An interrupt while it waits leaves the line and
        harms nothing.  `check`, `lend` and `reset` run in this thread, for as long as they take;
        that is not counted as waiting for a conn.

        >>> from connpool import Pool
        >>> from connpool.adapters.agent import AgentConn
        >>> with Pool() as pool:
        ...     number = pool.init(AgentConn(41, resource="counter"))
        ...     with pool.checkout("counter") as conn:
        ...         conn.call("get", lambda value: value + 1)
        42
        """
        frame = sys._getframe(1)
        where = (frame.f_code, frame.f_lasti)
        if method is filter is by is None and timeout is ... and not shared:
            return Lease(self, resource, where)
        test = self._check_choice(filter, by)
        seconds = timeout if timeout is ... else self._seconds(timeout)
        lease = _ChoosyLease(self, resource, where)
        lease._choose(method, test, seconds, shared, by)
        return lease

    # -- beside the straight path --------------------------------------------------------------

    def _hand_over_in_turn(self, lease: Lease, started: float) -> Any:
        """A conn that takes a turn to be had, or that has to be waited for."""
        if not self._core.leasing:
            with self._turn as now:
                self._core.begin_leasing(now)
        entry = self._wait_for(lease, started, None, None)
        return self._hand_over(lease, entry, started)

    def _wait_for(
        self, lease: Lease, started: float, place: float | None, cause: BaseException | None
    ) -> Entry:
        seconds = self._timeout if lease._timeout is ... else lease._timeout
        ticket = Ticket(
            lease._resource, lease._method, lease._filter, lease._by, lease._who, started,
            until(seconds, started), place, cause, lease._whole,
        )  # fmt: skip
        lease._core = self._core  # in a child process another than that of the first attempt
        lease._entry = entry = self._obtain(ticket)
        assert ticket.place is not None
        lease._place = ticket.place
        return entry

    def _hand_over(self, lease: Lease, entry: Entry, started: float) -> Any:
        """Ask the conn whether it is well, and what it hands over; if need be, take another."""
        while True:
            entry.where = lease._where
            asking = wants_check(entry, self._options.check_after, time.monotonic())
            try:
                if asking and entry.conn.check() is False:
                    raise Closed("check() gave False")
                asking = False
                given = lease._given = entry.conn.lend() if entry.lends else entry.conn
            except BaseException as error:
                ended = of_check(error) if asking else of_lend(error, survives(entry.conn))
                self._forfeit(lease, ended, error)
                if not ended.moves:
                    raise
                # Its traceback holds this frame, and so the lease, which could not be lost.
                cause = error.with_traceback(None)
            else:
                return given
            entry = self._wait_for(lease, started, lease._place, cause)

    def _take_back(self, lease: Lease, error: BaseException | None) -> None:
        """The block is over, and its conn may not be clean."""
        if lease._core is not self._core:
            lease._drop()  # of a parent process: it is the parent's to clean
            return
        ended, failure = leaving(lease, error), None
        if ended is None:
            try:
                lease._held().conn.reset()
            except BaseException as raised:
                ended, failure = of_reset(raised), raised
                logger.warning("%s: resetting a conn failed: %s", self.name, show(raised))
        if ended is None:
            with self._turn as now:
                core, entry = lease._drop()
                core.release(entry, lease._who, now)
        else:
            self._forfeit(lease, ended, failure or (error if not lease._whole else None))
        if failure is not None and not isinstance(failure, Exception):
            raise failure

    def _forfeit(self, lease: Lease, ended: Outcome, cause: BaseException | None) -> None:
        with self._turn as now:
            core, entry = lease._drop()
            core.forfeit(entry, lease._who, ended, now, cause)

    def _look(self) -> None:
        """Somebody waits: find what was lost by threads that have ended."""
        with self._turn:
            orphaned = self._core.orphaned(self._ghost_of)
        if orphaned:
            gc.collect()
            with self._turn:  # which takes back what that has found
                pass

    def _ghost_of(self, who: Any) -> Ghost | None:
        """A thread that has ended, or None for others."""
        gone = isinstance(who, Holder) and not who.thread.is_alive()
        return Ghost(who, f"{who.thread.name}, which has ended") if gone else None
