"""What differs between asyncio and trio, and what waits alike on both.

Owns the few primitives of the async driver.  Refuses to know of pools.

Invariant: nothing here is bound to an event loop before somebody waits in that loop.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType
from typing import Any, cast

import anyio


class Flag:
    """Something to wait for that may happen again and again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """Wake all that wait."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Wait for the next `set`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Waiter:
    """What a queued ticket waits on, on trio: an event, made to be awaited itself."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _: None) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._event.wait().__await__()


def on_asyncio() -> bool:
    """Whether an asyncio task runs.  On trio there is none, not even where asyncio hosts it."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def task_lookup() -> Callable[[], Any]:
    """asyncio.current_task for the loop that runs now.

    Before 3.12 that function is written in Python, and costs as much as a whole call through the
    pool; there its table is looked up directly.
    """
    table = getattr(asyncio.tasks, "_current_tasks", None)
    if sys.version_info < (3, 12) and isinstance(table, dict):
        return partial(table.get, asyncio.get_running_loop())
    return asyncio.current_task


def task_id() -> int:
    """What tells tasks apart on trio."""
    return anyio.get_current_task().id


class Holder:
    """A task of trio, as one that holds conns: it equals its id for as long as it runs, for that of
    an ended one may be given to the next."""

    __slots__ = ("coro", "id", "name")

    def __init__(self) -> None:
        task = anyio.get_current_task()
        self.id, self.name, self.coro = task.id, task.name, task.coro

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Holder):
            return self.coro is other.coro
        return self.id == other and not has_ended(self)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def alias(self) -> int:
        """Who makes its calls."""
        return self.id


def has_ended(who: Any) -> bool:
    """Whether a task that held a conn is gone."""
    if isinstance(who, Holder):
        return getattr(who.coro, "cr_frame", who) is None
    return isinstance(who, asyncio.Future) and who.done()


def was_cancelled(error: BaseException) -> bool:
    """Whether `error` says that the task which runs was cancelled.  On asyncio a conn may raise the
    like by itself, as when it awaits a task of its own that was."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    return not on_asyncio() or cast("asyncio.Task[Any]", asyncio.current_task()).cancelling() > 0


def trio_call_soon() -> Callable[..., Any]:
    """What other threads may call to have something done in the trio loop that runs now."""
    lowlevel = importlib.import_module("trio").lowlevel  # it is there: it runs
    return lowlevel.current_trio_token().run_sync_soon  # type: ignore[no-any-return]


def frame_of(who: Any) -> FrameType | None:
    """Where a task is: in the innermost of the coroutines that await one another."""
    coro: Any = who.get_coro() if isinstance(who, asyncio.Task) else getattr(who, "coro", None)
    frame: FrameType | None = None
    while (here := getattr(coro, "cr_frame", None)) is not None:
        frame, coro = here, coro.cr_await
    return frame


def nobody() -> None:
    """Who asks, as long as no loop runs."""
