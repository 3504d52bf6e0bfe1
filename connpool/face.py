"""What both pools answer at once: the half of their public face that never waits.

Owns the methods that need nothing but a turn at the core.  Refuses to know what a turn is.

Invariant: nothing in here waits, and nothing in here runs a conn's code.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from .core import ANY, Filter, Info, PoolStats, check_filter
from .core.report import report
from .driver import Driver
from .leases import place


class Face(Driver):
    """The doors of :class:`connpool.Pool` and :class:`connpool.AsyncPool` that never wait."""

    # -- routing ---------------------------------------------------------------------------------

    def route(
        self,
        resource: Hashable,
        *,
        method: Hashable = None,
        filter: Filter = None,
        by: Any = None,
    ) -> Any:
        """Pick a live conn and give it, without a lease: for conns that many may share at once.

        Parameters:
            resource: what to talk to.
            method: only conns that have it; None: any.
            filter: only conns that pass, as for `call`.
            by: "round_robin" (the default), "random", "least_used", "least_wait", "two_choices",
                `sticky(key)`, or a function that is given a list of live `Info` views and gives one
                of them.

        A conn that is lost leaves the choice at once, and is back once it is revived.  Nobody is
        told when you are done, so a conn may close while you use it: be ready for `Closed`.

        Raises `ResourceError`, `MethodError` or `FilterError`; `PoolTimeout` where all are checked
        out by somebody who has them for himself.  Never waits.  Takes the same time with many
        conns, but for functions of yours, which are shown all of them, a filter given as data that
        many pass, and a key of `sticky` that is new; of many conns "least_used" and "least_wait"
        compare a few.
        """
        if filter is None:
            conn = self._core.glance(resource, method, by, time.monotonic())
            if conn is not None:
                return conn
        test = self._check_choice(filter, by)
        with self._turn as now:
            core = self._core
            return core.route(resource, ANY if method is None else method, test, by, now)

    # -- questions -----------------------------------------------------------------------------

    def info(self, id: int) -> Info:
        """A snapshot of one conn.

        Parameters:
            id: what `init` or `put` gave.

        Raises `IdError` where the pool holds no such conn.  Never waits.
        """
        with self._turn as now:
            return self._core.info(id, now)

    def infos(self, resource: Hashable = None, filter: Filter = None) -> list[Info]:
        """Snapshots of the conns, alive or being revived.

        Parameters:
            resource: only conns to this one; None for all.
            filter: only conns that pass, as for `call`.

        An error of the filter reaches the caller.  Never waits.
        """
        test = check_filter(filter)
        with self._turn as now:
            return self._core.infos(test, now, *(() if resource is None else (resource,)))

    def extra(self, id: int, value: Any) -> Any:
        """Replace what is pinned to a conn, and give the old value; atomic.

        Parameters:
            id: what `init` or `put` gave.
            value: what to pin to it from now on.

        Callers that wait with a filter are looked at anew; a mapping that is changed in place may
        not be noticed.  Raises `IdError`.  Never waits.
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

    def report(self, *, trace: bool = False) -> str:
        """A text for people: who holds what, who waits for what and why.

        Parameters:
            trace: whether to show where in the code each holder is, and where he checked the conn
                out.

        Ends with the last failures and a line of advice.  Shows resources and errors, never a conn
        or an extra, which may hold secrets.  Never waits.
        """
        with self._turn as now:
            return report(self._core, now, self._name_of, self._trace_of if trace else None)

    def _trace_of(self, who: Any, where: Any) -> list[str]:
        """Lines that say where a holder is."""
        lines = [] if where is None else [f"checked out at {place(*where)}"]
        frame = self._frame_of(who)
        if frame is not None:
            lines.append(f"now at {place(frame.f_code, frame.f_lasti)}")
        return lines

    def __repr__(self) -> str:
        now = self._core
        state = "closed" if now.closed else f"{now.live} conns, {now.waiting} waiting"
        return f"<{type(self).__name__} {self.name!r}: {state}>"
