"""Supplies, for tasks: the doors to conns that the pool makes by itself.

Owns the public methods of supplies.  Refuses to decide how many conns there are, and opens none:
that is the core's and the background's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import anyio

from .async_backstage import GLANCE
from .async_chores import AsyncChores
from .core import Revive, Supply, Timeout


class AsyncSupplies(AsyncChores):
    """The part of `AsyncPool` that makes conns as they are needed."""

    async def supply(
        self,
        resource: Hashable,
        factory: Callable[[], Any],
        *args: Any,
        min_size: int = 0,
        max_size: int = 10,
        max_idle: float | None = 600.0,
        ttl: float | None = None,
        extra: Any = None,
        revive: Revive = True,
        connect_timeout: float | None = 10.0,
        ping_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Have conns to a resource made as they are needed.

        Parameters:
            resource: what the conns are listed under, whatever they say themselves.
            factory: makes a new conn each time it is called.
            args, kwargs: for the conn's `init`.
            min_size: conns kept open though nobody asks for them; default 0: none.
            max_size: the most conns, those being opened included.
            max_idle: seconds after which a conn that nobody uses is closed, down to `min_size`;
                None: never.  The default of 600 is shorter than what most firewalls forget after.
            ttl: seconds a conn may live; each gets up to a quarter less, so that those born
                together do not die together.  None: for ever.
            extra: pinned to each conn, to filter by.
            revive: whether a conn that died or expired is replaced at once; False: as callers ask
                for it, or `min_size`.  "force": one that ended in good order, too.
            connect_timeout: seconds an opening may take.  After that it is given up, and closed if
                it ever succeeds.  None: for ever.
            ping_interval: seconds after which an idle conn that has a `check` is asked whether it
                is alive; each gets up to a quarter less.  None: never.

        Conns are opened in the background, `max_connecting` at a time, and never tied to the caller
        that waits: whoever is first in line gets whichever comes first, new or returned.  After a
        failure one is tried at a time, with growing pauses (`backoff`), at most 2 seconds while
        somebody waits, or as long as an `InitError` asks for; `retry_after=math.inf` ends it, and
        those who wait get a `ResourceError` with that as its cause.  Where the pool's `max_size` is
        reached, an idle conn of another supply gives way.

        A wrong argument, or a second supply for the resource, is a TypeError or ValueError.  Waits
        for nothing: see `wait_ready`.
        """
        made = Supply(
            resource, factory, (args, kwargs) if args or kwargs else None, extra, ttl, revive,
            min_size, max_size, max_idle, connect_timeout, ping_interval,
        )  # fmt: skip
        self._add_supply(made)

    async def wait_ready(self, timeout: Timeout = ...) -> None:
        """Wait until every supply has its `min_size` of live conns.

        Parameters:
            timeout: seconds to wait; default: the pool's.

        Raises `PoolTimeout` where that takes longer, with the last failure as its cause;
        `ResourceError` as soon as it can never be; `PoolClosed`.

        Waits for the openings in the background, and opens nothing itself.
        """
        for left in self._unready(self._seconds(timeout)):
            with anyio.move_on_after(min(left, GLANCE)):
                await self._changed.wait()
