"""Pool: the thread driver.

Owns a lock, the wake-up of waiting threads and a crew of at most a few daemon threads.  Refuses to
decide anything: every question goes to the core, in a turn, and what the core wants done is done
after the turn.

Invariant: a place that `take` or `submit` granted goes back to the core on every path out of the
method that got it, whatever was raised and wherever.
"""

from __future__ import annotations

import logging
import time
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Hashable
from threading import TIMEOUT_MAX
from typing import Any, Self

from .checkouts import Checkouts
from .conn import Conn, Reply, check_conn, describe
from .core import (
    POPPED,
    Entry,
    Filter,
    Info,
    Pop,
    Revive,
    Ticket,
    Timeout,
    check_filter,
    check_revive,
    check_ttl,
)
from .crew import HURRY
from .driver import OnConnect, OnDisconnect, until
from .errors import show

logger = logging.getLogger("connpool")

# Seconds that workers which do not hang get to end.
GRACE = 0.5


class Pool(Checkouts):
    """A pool of connections for threads.

    Parameters:
        name: what errors, reports and threads call the pool; default: a number.
        timeout: seconds a caller may wait for a conn where it does not say otherwise; None: for
            ever.  The default of 30 is what most servers' own clients give up at.
        max_size: the most conns the pool holds; None: no limit.
        max_waiting: the most callers that may wait at once; one more gets `PoolFull`.
        max_connecting: how many conns the pool opens at once by itself.  The default of 2 keeps a
            server that has just come up from being stormed.
        connect_timeout: seconds after which an init in the background counts as hung, and no
            longer keeps others from being opened.
        check_after: seconds a conn may have been idle before it is asked, when it is checked out,
            whether it is well; None: it is not asked.  The default of 0.5 is HikariCP's.
        backoff: a `Backoff`, the waits between attempts to revive a conn.
        on_connect: called as ``on_connect(info)`` each time a conn is ready, revived ones too.
        on_disconnect: called as ``on_disconnect(info, reason)`` each time a conn is given up.

    Both callbacks run outside every lock, and one that raises is logged.  A wrong argument is a
    TypeError or a ValueError.

    All methods may be called from any thread.  `conn.call` runs in the thread that calls.  What
    expires, dies or is to be revived is seen to in the background; `sweep` does it on demand.

    >>> from connpool.adapters.agent import Agent, AgentConn
    >>> with Pool() as pool:
    ...     number = pool.init(AgentConn(42, resource="answer"))
    ...     pool.call("answer", "get", lambda value: value)
    42
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        timeout: float | None = 30.0,
        max_size: int | None = None,
        max_waiting: int | None = None,
        max_connecting: int = 2,
        connect_timeout: float = 10.0,
        check_after: float | None = 0.5,
        backoff: Any = ...,
        on_connect: OnConnect | None = None,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        super().__init__(
            max_connecting=max_connecting,
            name=name,
            on_connect=on_connect,
            on_disconnect=on_disconnect,
            timeout=timeout,
            max_size=max_size,
            max_waiting=max_waiting,
            connect_timeout=connect_timeout,
            check_after=check_after,
            backoff=backoff,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- calls ---------------------------------------------------------------------------------

    def call(
        self,
        resource: Hashable,
        method: Hashable,
        payload: Any = None,
        *,
        filter: Filter = None,
        timeout: Timeout = ...,
        by: Any = None,
    ) -> Any:
        """Have a conn call a method, and give its reply.

        Parameters:
            resource: what to talk to.
            method: one of the methods of its conns.
            payload: goes to `conn.call` as it is.
            filter: only conns that pass are considered: a function of a conn's `Info`, which is run
                on one free conn after the other until one passes; or a mapping of what its `extra`
                must have, as in ``{"region": "eu"}``, by which conns are looked up.
            timeout: seconds this caller may wait for a conn, however often the call moves; 0: not
                at all; None: for ever; default: the pool's.  The call itself is not timed.
            by: how to choose among free conns; default: the least expected wait.

        Raises `ResourceError`, `MethodError` or `FilterError`, tested in this order, as soon as no
        conn can ever serve; `PoolTimeout`; `PoolFull`; `PoolClosed`; `NestedCall` where it would
        wait for itself; and whatever the conn raises, see `connpool.errors`.

        Waits for a conn, first come, first served.  An interrupt while it waits leaves the line
        and harms nothing; one during the call retires the conn, unless it survives that.
        """
        if timeout is not ...:
            timeout = self._seconds(timeout)
        core, who = self._core, get_ident()
        started = time.monotonic()
        if filter is None and by is None:
            entry = core.borrow(resource, method, who, started)
        else:
            if by is not None or not callable(filter):
                filter = self._check_choice(filter, by)
            entry = self._take(resource, method, filter, by, started)
        if entry is None:
            deadline = until(self._seconds(timeout), started)
            ticket = Ticket(resource, method, filter, by, who, started, deadline)
            return self._call_in_line(ticket, payload)
        place = core.arrivals
        try:
            reply = entry.conn.call(method, payload)
            # In here, since an interrupt may come at any time, and has to find the conn held.
            if type(reply) is not Reply and core.put_back(entry, method, started, time.monotonic()):
                return reply
        except BaseException as error:
            if not entry.held_since(started, who) or not self._moves(
                entry, method, who, error, started
            ):
                raise
            cause = error
        else:
            if type(reply) is Reply:  # which is final; a proxy is not asked what it is
                return self._replied(entry, method, who, reply, started)
            with self._turn as now:
                core.returned(entry, who, now)
            return reply
        deadline = until(self._seconds(timeout), started)
        ticket = Ticket(resource, method, filter, by, who, started, deadline, place - 0.5, cause)
        return self._call_in_line(ticket, payload)

    def _take(
        self, resource: Hashable, method: Hashable, filter: Any, by: Any, now: float
    ) -> Entry | None:
        """In a turn: a conn that is free, chosen as the caller says."""
        self._lock()
        try:
            return self._core.take(resource, method, filter, by, get_ident(), now)
        finally:
            self._unlock()

    def _call_in_line(self, ticket: Ticket, payload: Any) -> Any:
        """A call that has to wait, perhaps again and again: until a conn has answered it."""
        method, who = ticket.method, ticket.who
        while True:
            entry = self._obtain(ticket)
            started = time.monotonic()
            try:
                reply = entry.conn.call(method, payload)
            except BaseException as error:
                if not self._moves(entry, method, who, error, started):
                    raise
                ticket = ticket.again(error)
            else:
                return self._replied(entry, method, who, reply, started)

    # -- conns in and out ----------------------------------------------------------------------

    def init(
        self,
        conn: Conn[Any],
        *args: Any,
        extra: Any = None,
        ttl: float | None = None,
        revive: Revive = False,
        **kwargs: Any,
    ) -> int:
        """Initialise a conn with ``conn.init(*args, **kwargs)``, then add it; gives its id.

        Parameters:
            conn: see `connpool.Conn`; not in the pool yet.
            args, kwargs: for `init`, kept for when the conn is revived.
            extra: anything, to filter by.
            ttl: seconds the conn may live after its init; None: for ever.
            revive: whether a conn that expires or dies is initialised again; "force": also when it
                closed in good order.

        What `init` raises reaches the caller, and nothing is added.  A conn that breaks the
        contract is a TypeError or a ValueError, and is closed.  `PoolFull`, `PoolClosed`.

        Waits for `conn.init` and `conn.methods`, in this thread; no time limit but their own.
        """
        check_conn(conn, awaits=False)
        setup = (args, kwargs) if args or kwargs else None
        with self._turn as now:
            permit = self._core.admit(
                conn,
                setup=setup,
                extra=extra,
                ttl=check_ttl(ttl),
                revive=check_revive(revive),
                now=now,
            )
        self._open(permit)
        return self._admitted(permit)

    def put(
        self,
        conn: Conn[Any],
        *,
        extra: Any = None,
        ttl: float | None = None,
        revive: Revive = False,
    ) -> int:
        """Add a conn that is initialised already; gives its id.

        Parameters and errors as for `init`; a conn that is not added is not closed either.  Where
        it is revived, its `init` is called without arguments.

        Waits for `conn.methods`, in this thread.
        """
        check_conn(conn, awaits=False)
        with self._turn as now:
            permit = self._core.admit(
                conn,
                extra=extra,
                ttl=check_ttl(ttl),
                revive=check_revive(revive),
                given=True,
                now=now,
            )
        try:
            what = describe(conn, conn.methods())
        except BaseException as error:
            with self._turn as now:
                self._core.open_failed(permit, error, now)
            raise
        self._opened(permit, what, 0.0)
        return self._admitted(permit)

    def update(
        self,
        resource: Hashable,
        fn: Callable[[Info], dict[str, Any]] | None = None,
        *,
        filter: Filter = None,
        **changes: Any,
    ) -> int:
        """Change conns of a resource; gives how many.

        Parameters:
            resource: whose conns.
            fn: called with the `Info` of each, gives a dict of changes.  Short, and it may not
                call the pool.
            filter: only conns that pass, as for `call`.
            changes: new values for extra, ttl, revive, methods or capacity.

        All matching conns are changed or, where anything is wrong or raises, none.  A ttl counts
        from the conn's last init.  Waits for nothing.
        """
        test = check_filter(filter)
        if fn is not None and not callable(fn):
            raise TypeError(f"fn: expected a function of a conn's Info, got {show(fn)}")
        with self._turn as now:
            return self._core.update(resource, fn, test, changes, now)

    def pop(self, id: int, timeout: Timeout = ...) -> Any:
        """Take a conn out without closing it, and give it.

        Parameters:
            id: what `init` or `put` gave.
            timeout: seconds to wait for the calls that run on it; default: the pool's.

        From this moment it gets no new calls.  `IdError` where there is no such conn;
        `PoolTimeout` where its calls take longer: it then stays in the pool.

        Waits for running calls.  An interrupt leaves the conn in the pool.
        """
        seconds = self._seconds(timeout)
        with self._turn as now:
            pop = self._core.pop([self._core.find(id, now)], get_ident(), now)
        return self._popped(pop, seconds, now)[0]

    def pop_all(self, resource: Hashable, filter: Filter = None) -> list[Any]:
        """Take the conns of a resource out without closing them, and give them.

        Parameters:
            resource: whose conns.
            filter: only conns that pass, as for `call`.

        All of them, or after the pool's timeout none (`PoolTimeout`).  Waits for running calls.
        """
        test = check_filter(filter)
        with self._turn as now:
            found = self._core.search(resource, test, now)
            pop = self._core.pop(found, get_ident(), now)
        return self._popped(pop, self._timeout, now)

    def _popped(self, pop: Pop, timeout: float, started: float) -> list[Any]:
        woken = allocate_lock()
        woken.acquire()
        try:
            with self._turn as now:
                if not pop.done:
                    pop.waiter = woken
            if not pop.done:
                left = until(timeout, started) - now
                woken.acquire(True, max(0.0, min(left, TIMEOUT_MAX)))
        except BaseException:
            with self._turn as now:
                self._core.unpop(pop, now)
            raise
        with self._turn as now:
            infos = self._core.popped(pop, timeout, now - started, now)
        for info in infos:
            self._tell_disconnect(info, POPPED)
        return [info.conn for info in infos]

    # -- upkeep --------------------------------------------------------------------------------

    def sweep(self) -> float | None:
        """Do now all that is due: expiry, revivals, closing.

        Gives the seconds until something will be due, None where nothing will.  Waits for the
        init and close of the conns concerned, in this thread, and for those that run in the
        background already.
        """
        self._sweep_once()
        with self._turn as now:
            due = self._core.next_due()
        return None if due is None else max(0.0, due - now)

    def close(self, timeout: Timeout = ...) -> None:
        """Close the pool and every conn in it.

        Parameters:
            timeout: seconds that running calls may still take; default: the pool's.  After that
                their conns are closed under them.

        New work is refused, and those who wait get `PoolClosed`, both at once.  Ends within the
        timeout, even where a call, an init or a close hangs; the pool's threads end with it (one
        that hangs in a conn's code is let go).  Closing again does no harm.

        Waits for running calls; those of the thread that closes are not waited for.
        """
        seconds = self._seconds(timeout)
        with self._turn as now:
            self._core.close(now)
        deadline = until(seconds, now)
        me = get_ident()
        while self._core_busy(me) and (left := deadline - time.monotonic()) > 0:
            self._crew.muster(hurry=True)
            self._crew.wait(min(left, HURRY))
        with self._turn as now:
            left_over = self._core.abandon(now)
        for info in left_over:
            if info.in_use:
                logger.warning("%s: closed while conn %d was in use", self.name, info.id)
        self._keeper.shut(1.0)
        self._crew.shut(GRACE)

    def _core_busy(self, me: int) -> bool:
        with self._turn:
            return self._core.busy(me)
