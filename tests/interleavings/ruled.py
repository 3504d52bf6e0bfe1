"""A pool for threads whose locks, threads and time a scheduler rules."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import connpool
from connpool import Pool, backstage, crew, pool
from connpool.core import Standing
from connpool.testing import ManualClock

from ..core.audit import audit
from .scheduler import Scheduler, Thread

HOME = Path(connpool.__file__).parent
# Where threads meet one another without the lock, and how they come by it.
DRIVER = frozenset(
    str(HOME / f"{name}.py")
    for name in ("pool", "backstage", "checkouts", "leases", "driver", "face", "crew")
)
CORE = frozenset(map(str, (HOME / "core").glob("*.py")))


class RuledClock(ManualClock):
    """The scheduler's time, read by every pool while it is entered."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def monotonic(self) -> float:
        return self._scheduler.now


@contextmanager
def ruled(scheduler: Scheduler) -> Iterator[None]:
    """Pools made in here are ruled by `scheduler`."""
    clock = RuledClock(scheduler)
    threads = SimpleNamespace(
        Condition=scheduler.Condition,
        Lock=scheduler.Lock,
        Thread=scheduler.Thread,
        current_thread=threading.current_thread,
        enumerate=threading.enumerate,
    )
    changes: list[tuple[Any, str, Any]] = [
        (backstage, "allocate_lock", scheduler.Lock),
        (pool, "allocate_lock", scheduler.Lock),
        (crew, "threading", threads),
        (crew, "time", clock),
    ]
    before = [(module, name, vars(module)[name]) for module, name, _ in changes]
    logger = logging.getLogger("connpool")
    told = logger.level
    with clock:
        for module, name, value in changes:
            vars(module)[name] = value
        logger.setLevel(logging.CRITICAL)  # what goes wrong here was meant to
        try:
            yield
        finally:
            logger.setLevel(told)
            for module, name, value in before:
                vars(module)[name] = value


def watch(scheduler: Scheduler, watched: Pool) -> None:
    """Recount the core of a pool after each turn, and see that nobody oversleeps."""
    core = watched._core
    core._rng = scheduler.chance.random  # the same seed, the same story
    mutex: Any = watched._mutex
    mutex.on_release = lambda: scheduler.check(lambda: audit(core, scheduler.now))
    scheduler.on_idle = oversleeps


def oversleeps(thread: Thread) -> None:
    """Fail where a thread still waits for what it was granted: while anybody can run it may, but
    when time has to pass for anything to happen it has been forgotten."""
    if thread.waits is None or not thread.waits.what.startswith("lock"):
        return
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is Pool._obtain.__code__:
            standing = frame.f_locals["ticket"].standing
            assert standing is Standing.QUEUED, f"{thread.name} was not woken: {standing}"
        if frame.f_code is Pool._popped.__code__:
            assert not frame.f_locals["pop"].done, f"{thread.name} was not told of its pop"
        frame = frame.f_back
