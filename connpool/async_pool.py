"""AsyncPool: the driver for asyncio and trio, over anyio.

Owns the public face for tasks.  Refuses to decide anything: every question goes to the core, in a
turn, and what the core wants done is done after the turn.

Invariant: a place that `take` or `submit` granted goes back to the core on every path out of the
method that got it, and nothing is awaited between the end of a call and the return of its place.
"""

from __future__ import annotations

import time
from _thread import get_ident
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Self

import anyio

from .async_checkouts import AsyncCheckouts
from .conn import AsyncConn, Reply, check_conn, describe
from .core import (
    POPPED,
    Info,
    Pop,
    Revive,
    Ticket,
    Timeout,
    check_filter,
    check_revive,
    check_ttl,
)
from .driver import OnConnect, OnDisconnect, until
from .errors import show


class AsyncPool(AsyncCheckouts):
    """A pool of connections for tasks, on asyncio and trio.

    Parameters:
        name: what errors and reports call the pool; default: a number.
        timeout: seconds a caller may wait for a conn where it does not say otherwise; None: for
            ever.  The default of 30 is what most servers' own clients give up at.
        max_size: the most conns the pool holds; None: no limit.
        max_waiting: the most callers that may wait at once; one more gets `PoolFull`.
        max_connecting: how many conns the pool opens at once by itself.  The default of 2 keeps a
            server that has just come up from being stormed.
        connect_timeout: seconds after which an init in the background is cancelled, and a close.
        check_after: seconds a conn may have been idle before it is asked, when it is checked out,
            whether it is well; None: it is not asked.  The default of 0.5 is HikariCP's.
        backoff: a `Backoff`, the waits between attempts to revive a conn.
        on_connect: called as ``on_connect(info)`` each time a conn is ready, revived ones too.
        on_disconnect: called as ``on_disconnect(info, reason)`` each time a conn is given up.

    Both callbacks are plain functions, and one that raises is logged.  A wrong argument is a
    TypeError or a ValueError.

    The names and parameters are those of `connpool.Pool`.  A pool may be made anywhere, at import
    too; it is open within ``async with pool:``, in one event loop at a time, and may be opened
    again after that, empty.  Its background tasks live in that block.  `conn.call` runs in the task
    that calls, and is cancelled with it.

    >>> import asyncio
    >>> class Echo:
    ...     resource = "echo"
    ...     async def init(self): pass
    ...     async def call(self, method, payload=None): return payload
    ...     async def methods(self): return ["say"]
    >>> async def main():
    ...     async with AsyncPool() as pool:
    ...         await pool.init(Echo())
    ...         return await pool.call("echo", "say", "hello")
    >>> asyncio.run(main())
    'hello'
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

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit()

    # -- calls ---------------------------------------------------------------------------------

    async def call(
        self,
        resource: Hashable,
        method: Hashable,
        payload: Any = None,
        *,
        filter: Callable[[Any], Any] | None = None,
        timeout: Timeout = ...,
        by: Any = None,
    ) -> Any:
        """Have a conn call a method, and give its reply.

        Parameters:
            resource: what to talk to.
            method: one of the methods of its conns.
            payload: goes to `conn.call` as it is.
            filter: only conns for whose `Info` this is true are considered.
            timeout: seconds this caller may wait for a conn, however often the call moves; 0: not
                at all; None: for ever; default: the pool's.  The call itself is not timed.
            by: how to choose among free conns; default: the least expected wait.

        Raises `ResourceError`, `MethodError` or `FilterError`, tested in this order, as soon as no
        conn can ever serve; `PoolTimeout`; `PoolFull`; `PoolClosed`; `NestedCall` where it would
        wait for itself; and whatever the conn raises, see `connpool.errors`.

        Waits for a conn, first come, first served.  Cancelled while it waits, it leaves the line
        and harms nothing; cancelled during the call, the conn is retired, unless it survives that.
        """
        if by is not None or (filter is not None and not callable(filter)):
            self._check_choice(filter, by)
        if timeout is not ...:
            timeout = self._seconds(timeout)
        if get_ident() != self._thread:
            self._check_loop()
        core, current_task = self._core, self._current_task
        who = current_task()
        arrived = started = time.monotonic()
        try:
            entry = core.take(resource, method, filter, by, who, started)
        finally:
            if core.steps:
                self._run_steps()
        arrivals: float = core.arrivals
        cause: BaseException | None = None
        while True:
            if entry is None:
                deadline = arrived + (self._timeout if timeout is ... else timeout)
                # A call that moves was served before whoever has queued since.
                place = None if cause is None else arrivals - 0.5
                ticket = Ticket(resource, method, filter, by, who, arrived, deadline, place, cause)
                entry = await self._obtain(ticket, started)
                started = time.monotonic()
                if place is None and ticket.place is not None:
                    arrivals = ticket.place + 0.5
            try:
                reply = await entry.conn.call(method, payload)
            except BaseException as error:
                if not self._moves(entry, method, who, error, started):
                    raise
                entry, cause = None, error
                continue
            if type(reply) is Reply:
                return self._replied(entry, method, who, reply, started)
            core.give(entry, method, who, started, time.monotonic())
            if core.steps:
                self._run_steps()
            return reply

    # -- conns in and out ----------------------------------------------------------------------

    async def init(
        self,
        conn: AsyncConn[Any],
        *args: Any,
        extra: Any = None,
        ttl: float | None = None,
        revive: Revive = False,
        **kwargs: Any,
    ) -> int:
        """Initialise a conn with ``conn.init(*args, **kwargs)``, then add it; gives its id.

        Parameters:
            conn: see `connpool.AsyncConn`; not in the pool yet.
            args, kwargs: for `init`, kept for when the conn is revived.
            extra: anything, to filter by.
            ttl: seconds the conn may live after its init; None: for ever.
            revive: whether a conn that expires or dies is initialised again; "force": also when it
                closed in good order.

        What `init` raises reaches the caller, and nothing is added.  A conn that breaks the
        contract is a TypeError or a ValueError, and is closed.  `PoolFull`, `PoolClosed`.

        Waits for `conn.init` and `conn.methods`, in this task; no time limit but their own.
        Cancelled meanwhile, it adds nothing, and closes a conn that was open already.
        """
        check_conn(conn, awaits=True)
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
        await self._open(permit)
        return self._admitted(permit)

    async def put(
        self,
        conn: AsyncConn[Any],
        *,
        extra: Any = None,
        ttl: float | None = None,
        revive: Revive = False,
    ) -> int:
        """Add a conn that is initialised already; gives its id.

        Parameters and errors as for `init`; a conn that is not added is not closed either.  Where
        it is revived, its `init` is called without arguments.

        Waits for `conn.methods`, in this task; where it is cancelled meanwhile, nothing is added.
        """
        check_conn(conn, awaits=True)
        with self._turn as now:
            permit = self._core.admit(
                conn,
                extra=extra,
                ttl=check_ttl(ttl),
                revive=check_revive(revive),
                given=True,
                now=now,
            )
        core = self._core
        try:
            what = describe(conn, await conn.methods())
            self._check_here(core)
        except BaseException as error:
            self._open_failed(core, permit, error)
            raise
        self._opened(permit, what, 0.0)
        return self._admitted(permit)

    async def update(
        self,
        resource: Hashable,
        fn: Callable[[Info], dict[str, Any]] | None = None,
        *,
        filter: Callable[[Any], Any] | None = None,
        **changes: Any,
    ) -> int:
        """Change conns of a resource; gives how many.

        Parameters:
            resource: whose conns.
            fn: called with the `Info` of each, gives a dict of changes.  Short, and it may not
                call the pool.
            filter: only conns for whose `Info` this is true.
            changes: new values for extra, ttl, revive, methods or capacity.

        All matching conns are changed or, where anything is wrong or raises, none.  A ttl counts
        from the conn's last init.  Waits for nothing.
        """
        check_filter(filter)
        if fn is not None and not callable(fn):
            raise TypeError(f"fn: expected a function of a conn's Info, got {show(fn)}")
        with self._turn as now:
            return self._core.update(resource, fn, filter, changes, now)

    async def pop(self, id: int, timeout: Timeout = ...) -> Any:
        """Take a conn out without closing it, and give it.

        Parameters:
            id: what `init` or `put` gave.
            timeout: seconds to wait for the calls that run on it; default: the pool's.

        From this moment it gets no new calls.  `IdError` where there is no such conn;
        `PoolTimeout` where its calls take longer: it then stays in the pool.

        Waits for running calls.  Cancelled, it leaves the conn in the pool.
        """
        seconds = self._seconds(timeout)
        with self._turn as now:
            pop = self._core.pop([self._core.find(id, now)], self._whoami(), now)
        return (await self._popped(pop, seconds, now))[0]

    async def pop_all(
        self, resource: Hashable, filter: Callable[[Any], Any] | None = None
    ) -> list[Any]:
        """Take the conns of a resource out without closing them, and give them.

        Parameters:
            resource: whose conns.
            filter: only conns for whose `Info` this is true.

        All of them, or after the pool's timeout none (`PoolTimeout`).  Waits for running calls.
        """
        check_filter(filter)
        with self._turn as now:
            found = self._core.search(resource, filter, now)
            pop = self._core.pop(found, self._whoami(), now)
        return await self._popped(pop, self._timeout, now)

    async def _popped(self, pop: Pop, timeout: float, started: float) -> list[Any]:
        core = self._core
        try:
            if not pop.done:
                pop.waiter = self._make_waiter()
                with anyio.move_on_after(until(timeout, started) - time.monotonic()):
                    await pop.waiter
        except BaseException:  # no turn, which would raise where the pool has been left meanwhile
            core.unpop(pop, time.monotonic())
            if core.steps:
                self._run_steps()
            raise
        now = time.monotonic()
        try:
            infos = core.popped(pop, timeout, now - started, now)
        finally:
            if core.steps:
                self._run_steps()
        for info in infos:
            self._tell_disconnect(info, POPPED)
        return [info.conn for info in infos]

    # -- upkeep --------------------------------------------------------------------------------

    async def sweep(self) -> float | None:
        """Do now all that is due: expiry, revivals, closing.

        Gives the seconds until something will be due, None where nothing will.  Waits for the
        init and close of the conns concerned, and for those that run in the background already.
        """
        with self._turn as now:
            self._core.tick(now)
        await self._settle()
        with self._turn as now:
            due = self._core.next_due()
        return None if due is None else max(0.0, due - now)

    async def close(self, timeout: Timeout = ...) -> None:
        """Close the pool and every conn in it.

        Parameters:
            timeout: seconds that running calls may still take; default: the pool's.  After that
                their conns are closed under them.

        New work is refused, and those who wait get `PoolClosed`, both at once.  Ends within the
        timeout, even where a call, an init or a close hangs; the pool's tasks end with it.  Closing
        again does no harm.

        Waits for running calls; those of the task that closes are not waited for.  Cancelled, it
        closes what it can at once.
        """
        await self._close(self._seconds(timeout))
