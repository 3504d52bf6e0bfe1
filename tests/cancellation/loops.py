"""Both event loops under invented time.

Time stands still while anybody can run, and jumps to the next timer when nobody can.  The pool
reads the same time as its loop.  So a test takes no longer than its work, a loaded machine changes
nothing, and what never comes is noticed at once: after `NEVER` invented seconds.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from connpool.testing import ManualClock

BACKENDS = ("asyncio", "trio")
NEVER = 100_000.0
# trio runs tasks in random order.  Whatever this is, the tests pass.
SEED = int(os.environ.get("CONNPOOL_TRIO_SEED", "0"))

on_both = pytest.mark.parametrize("backend", BACKENDS)


class LoopClock(ManualClock):
    """The time of a loop, read by every pool while it is entered."""

    def __init__(self, read: Callable[[], float]) -> None:
        super().__init__()
        self.monotonic = read  # type: ignore[method-assign]


class _Selector(selectors.SelectSelector):
    """Instead of waiting it says for how long it would have."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self.passed += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """An asyncio loop with a time of its own; `trio.testing.MockClock` is the same for trio."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return round(1000.0 + self._jumps.passed, 9)


def run(
    backend: str, story: Callable[..., Coroutine[Any, Any, Any]], *args: Any, seed: int = SEED
) -> Any:
    """Run a story from beginning to end, and see that no task outlives it."""

    async def main() -> Any:
        before = living_tasks()
        with anyio.fail_after(NEVER):
            result = await story(*args)
        await steps(3)  # tasks that have ended leave the lists one step later
        assert living_tasks() == before, "a task was left behind"
        return result

    options: dict[str, Any]
    if backend == "trio":
        seed_trio(seed)
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(1000.0)
        read, options = clock.current_time, {"clock": clock}
    else:
        loop = JumpingLoop()
        read, options = loop.time, {"loop_factory": lambda: loop}
    with LoopClock(read):
        return anyio.run(main, backend=backend, backend_options=options)


def seed_trio(seed: int) -> None:
    """Let trio, which runs its tasks in random order, choose the same order for the same seed."""
    scheduler = vars(trio._core._run)
    scheduler["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    if isinstance(chance := scheduler.get("_r"), random.Random):
        chance.seed(seed)


def on_asyncio() -> bool:
    """Whether this runs on asyncio."""
    return _asyncio_task() is not None


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def living_tasks() -> int:
    """How many tasks the loop holds."""
    if _asyncio_task() is not None:
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


def now() -> float:
    """The loop's time, which is the pool's."""
    return anyio.current_time()


async def steps(count: int) -> None:
    """Let everybody else run, so many times."""
    for _ in range(count):
        await anyio.sleep(0)


async def until(true: Callable[[], Any], *, within: float = 0.0) -> None:
    """Wait until something is true; no more than so much invented time may pass."""
    for _ in range(200):
        if true():
            return
        await anyio.sleep(0)
    due = now() + within
    while not true():
        assert now() < due, "it did not come true"
        await anyio.sleep(0.01)


class Outcome:
    """How a coroutine ended that runs in a task of its own."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = math.inf  # when it did
        self._over = anyio.Event()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether it saw a cancellation."""
        return self.error is not None and not isinstance(self.error, Exception)

    async def keep(self, doing: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Do it, and remember what came of it."""
        with self.scope:
            try:
                self.value = await doing()
            except BaseException as error:
                self.error = error
                if not isinstance(error, Exception):
                    raise
            finally:
                self.ended = now()
                self._over.set()

    async def end(self, *, within: float = 0.001) -> BaseException | None:
        """Wait for its end; gives what it raised."""
        with anyio.fail_after(within):
            await self._over.wait()
        return self.error


def start(
    group: anyio.abc.TaskGroup, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Outcome:
    """Let a coroutine function run in a task of its own."""
    outcome = Outcome()
    group.start_soon(outcome.keep, lambda: function(*args, **kwargs))
    return outcome
