"""ManualClock: time that stands still until a test moves it on.

Owns the time that pools see while the clock is entered.  Refuses to know how they use it.

Invariant: on the way out every driver reads the same time as before.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from types import ModuleType
from typing import Any, Self

from ..conn import seconds as in_seconds
from ..errors import show

# The modules that read the time, each through its own name `time`.
DRIVERS = (
    "driver",
    "face",
    "pool",
    "backstage",
    "checkouts",
    "supplies",
    "async_pool",
    "async_backstage",
    "async_chores",
    "async_checkouts",
)


class ManualClock:
    """A clock that stands still until it is told to go on; every pool reads it while it is entered.

    Parameters:
        start: the instant at which it begins.

    It replaces the name `time` in the modules that drive pools, and nothing else: `time.sleep`, the
    time outs of locks and the loops of asyncio and trio go on as before.  So a test never waits for
    a conn's ttl, rest or backoff, nor for a caller's timeout: it advances the clock.  Make the pool
    inside the with block, and close it there.

    >>> with ManualClock() as clock:
    ...     clock.monotonic()
    ...     clock.advance(0.5)
    ...     clock.monotonic()
    1000.0
    1000.5
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = in_seconds(start, "start")
        self._before: list[tuple[ModuleType, Any]] | None = None

    def __enter__(self) -> Self:
        if self._before is not None:
            raise RuntimeError("this clock is in use already")
        self._before = [(module, vars(module)["time"]) for module in _drivers()]
        for module, _ in self._before:
            vars(module)["time"] = self
        return self

    def __exit__(self, *_: object) -> None:
        for module, before in self._before or ():
            vars(module)["time"] = before
        self._before = None

    def monotonic(self) -> float:
        """The instant it is, in seconds."""
        return self._now

    def advance(self, seconds: float, /, *pools: Any) -> None:
        """Move on, and let each of these pools do all that has become due.

        Parameters:
            seconds: how far, from 0 up.
            pools: their `sweep` is called: conns expire, rest no longer or are revived, and callers
                whose timeout is over get their error.

        Where an init or close hangs in its script, `sweep` waits for it: leave such a pool out.
        """
        for pool in pools:
            if inspect.iscoroutinefunction(pool.sweep):
                raise TypeError(f"expected a Pool, got {show(pool)}: await advance_async(...)")
        self._move(seconds)
        for pool in pools:
            pool.sweep()

    async def advance_async(self, seconds: float, /, *pools: Any) -> None:
        """The same for an `AsyncPool`."""
        self._move(seconds)
        for pool in pools:
            await pool.sweep()

    def _move(self, duration: float) -> None:
        # Rounded, or after 0.1 and 0.2 seconds what is due in 0.3 would not be.
        self._now = round(self._now + in_seconds(duration, "advance"), 9)


def _drivers() -> list[ModuleType]:
    found = []
    for name in DRIVERS:
        with contextlib.suppress(ImportError):  # half of them need anyio
            found.append(importlib.import_module(f"connpool.{name}"))
    return [module for module in found if "time" in vars(module)]
