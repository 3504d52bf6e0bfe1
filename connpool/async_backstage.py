"""Async backstage: the asyncio/trio driver without its doors.

Owns the turns of tasks, the waking of those that wait, and the block in which the pool is open.
Refuses to know what callers want, and what is done in the background: that is `async_chores`.

Invariant: between two awaits a task is alone with the core, so a turn needs no lock.  What must not
be lost when a task is cancelled is therefore done before the next await, never after it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from _thread import get_ident
from collections.abc import Callable, Hashable
from types import FrameType
from typing import Any

import anyio
from anyio.abc import TaskGroup

from . import forks
from .core import (
    ALARM,
    LOOK,
    QUEUED,
    Entry,
    Forsaken,
    Permit,
    Pop,
    State,
    Ticket,
)
from .errors import Busy, Closed, PoolClosed
from .face import Face
from .leases import tell_forsaken
from .loops import (
    Flag,
    Holder,
    Waiter,
    frame_of,
    nobody,
    on_asyncio,
    task_id,
    task_lookup,
    trio_call_soon,
)

logger = logging.getLogger("connpool")

# Seconds that closing gets when the task that closes has been cancelled.
GRACE = 1.0
# Seconds after which who waits for the whole pool looks again: what he waits for may end without a
# step, or be a matter of time.
GLANCE = 0.05


class _Turn:
    """`with turn as now`: alone with the core; on the way out, the steps it left are done."""

    __slots__ = ("_pool",)

    def __init__(self, pool: AsyncBackstage) -> None:
        self._pool = pool

    def __enter__(self) -> float:
        pool = self._pool
        pool._check_loop()
        now = time.monotonic()
        if pool._dropped:
            pool._bury(now)
        return now

    def __exit__(self, *_: object) -> None:
        if self._pool._core.steps:
            self._pool._run_steps()


class AsyncBackstage(Face):
    """Turns at the core for tasks, and a task group for what nobody waits for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._turn = _Turn(self)
        self._thread: int | None = None  # whose loop has the pool open
        self._tasks: TaskGroup | None = None
        self._current_task: Callable[[], Any] = nobody
        self._current_holder: Callable[[], Any] = nobody
        self._make_waiter: Callable[[], Any] = Waiter
        self._call_soon: Callable[..., Any] = nobody
        self._running: set[Permit] = set()
        self._closing: set[anyio.CancelScope] = set()
        self._changed = Flag()
        self._nudged = Flag()
        self._errands: list[Permit] = []  # what the keeper is to start
        self._wakes = math.inf  # when the keeper will look at the clock
        forks.watch(self)

    def _whoami(self) -> Any:
        return self._current_task()

    def _name_of(self, who: Any) -> str:
        name = getattr(who, "get_name", None)
        return f"task {name() if callable(name) else getattr(who, 'name', who)}"

    def _frame_of(self, who: Any) -> FrameType | None:
        return frame_of(who)

    # -- opening and closing the pool ----------------------------------------------------------

    def _lost(self, entry: Entry, life: int, error: BaseException | None = None) -> None:
        if get_ident() == self._thread:
            super()._lost(entry, life, error)
        elif self._thread is not None:  # a conn may learn of it in a thread of its own
            self._call_soon(self._lost_here, entry, life, error)

    def _lost_here(self, entry: Entry, life: int, error: BaseException | None) -> None:
        """In the loop; the pool's block may have been left meanwhile."""
        if get_ident() == self._thread:
            super()._lost(entry, life, error)

    async def _enter(self) -> None:
        if self._thread is not None:
            where = "this" if self._thread == get_ident() else "another"
            raise RuntimeError(f"pool {self.name!r} is open already, in {where} event loop")
        if self._core.closed:
            self._renew()
        if on_asyncio():
            # On asyncio a bare future does in one step what an event does in three.
            self._current_task = self._current_holder = task_lookup()
            self._make_waiter = asyncio.get_running_loop().create_future
            self._call_soon = asyncio.get_running_loop().call_soon_threadsafe
        else:
            self._call_soon = trio_call_soon()
            self._current_task, self._make_waiter = task_id, Waiter
            self._current_holder = Holder
        self._changed, self._nudged = Flag(), Flag()  # an event belongs to its loop
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks, self._thread = tasks, get_ident()
        tasks.start_soon(self._keep, name="connpool keeper")

    async def _exit(self) -> None:
        tasks = self._tasks
        if tasks is None:
            return  # in a child process: the block was the parent's
        try:
            await self._close(self._timeout)
        finally:
            # Whatever hangs in the background is cancelled, and the group sees it end.
            self._tasks = None
            for scope in self._closing:
                scope.shield = False
            tasks.cancel_scope.cancel()
            try:
                # Not the body's own error: a task group would wrap it into an ExceptionGroup.
                await tasks.__aexit__(None, None, None)
            finally:
                self._thread = None
                self._current_task = self._current_holder = nobody

    async def _close(self, timeout: float) -> None:
        """Close the core, let running calls end, then close what is left, shielded and bounded."""
        if self._thread is None and self._core.closed:
            return  # the block has been left
        with self._turn as now:
            self._core.close(now)
        try:
            with anyio.move_on_after(timeout):
                await self._quiet()
        finally:
            with anyio.move_on_after(GRACE, shield=True):
                self._abandon()
                await self._settle()

    def _abandon(self) -> None:
        with self._turn as now:
            left_over = self._core.abandon(now)
        for info in left_over:
            if info.in_use:
                logger.warning("%s: closed while conn %d was in use", self.name, info.id)

    async def _quiet(self) -> None:
        me = self._whoami()
        while self._core.busy(me):
            with anyio.move_on_after(GLANCE):
                await self._changed.wait()

    # -- forks ---------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """Nobody else is in a turn: the pool belongs to one loop."""

    def _after_fork(self) -> None:
        """So there is nothing to let go."""

    def _born_again(self) -> Any:
        """In a child: the pool is empty and not open, for its loop is the parent's."""
        inherited = (self._core, self._tasks, self._running, self._closing, self._dropped)
        self._thread = self._tasks = None
        self._current_task = self._current_holder = nobody
        self._running, self._closing, self._dropped = set(), set(), []
        self._errands, self._wakes = [], math.inf
        self._renew()
        return inherited

    # -- turns ---------------------------------------------------------------------------------

    def _check_loop(self) -> None:
        """The core belongs to one loop, and a thread runs one loop at a time."""
        if get_ident() == self._thread:
            return
        if self._core.closed:
            raise PoolClosed(f"pool {self.name!r} is closed", pool=self.name)
        if self._thread is None:
            raise RuntimeError(f"pool {self.name!r} is not open: use `async with pool:` first")
        raise RuntimeError(f"pool {self.name!r} is open in the event loop of another thread")

    def _run_steps(self) -> None:
        core = self._core
        steps, core.steps = core.steps, []
        for step in steps:
            if isinstance(step, (Ticket, Pop)):
                waiter = step.waiter
                if waiter is not None and not waiter.done():  # it may be cancelled in this tick
                    waiter.set_result(None)
            elif step is ALARM:
                self._nudge()
            elif step is LOOK:
                self._look()
            elif isinstance(step, Forsaken):
                tell_forsaken(self.name, step)
            else:
                self._start(step)

    def _start(self, permit: Permit) -> None:
        """Have a permit carried out in the background."""
        if self._tasks is None:
            return  # the group is gone, and with it every conn that a late step could be about
        self._running.add(permit)
        if self._current_task() is None:  # in a callback of asyncio, which cannot start tasks
            self._errands.append(permit)
            self._nudge()
        else:
            self._tasks.start_soon(self._carry_out, permit, name=f"connpool {permit.work.value}")

    def _nudge(self) -> None:
        """Something may be due earlier than the keeper thinks."""
        self._nudged.set()

    # -- waiting -------------------------------------------------------------------------------

    async def _obtain(self, ticket: Ticket, now: float) -> Entry:
        """Wait for a conn that was not to be had at `now`.  Whatever cancels the waiting, no place
        is lost."""
        core = self._core
        if ticket.cause is not None:
            now = time.monotonic()  # moved: time has passed, another conn may be free by now
        if self._dropped:
            self._bury(now)
        try:
            if ticket.cause is None:
                core.queue(ticket, now)
            else:
                core.submit(ticket, now)
        finally:
            if core.steps:
                self._run_steps()
        if ticket.standing is QUEUED:
            if ticket.deadline < self._wakes:
                self._nudge()
            ticket.waiter = waiter = self._make_waiter()
            try:
                await waiter
            except BaseException:
                # Granted in the same tick or not: cancel hands the place on where it was.
                # No turn, which would raise where the pool has been left in this tick.
                core.cancel(ticket, time.monotonic())
                if core.steps:
                    self._run_steps()
                raise
        if ticket.error is not None:
            raise ticket.error
        entry = ticket.entry
        assert entry is not None
        if entry.open:
            return entry
        # Closed since the grant, by who shared it: the call has not begun, and moves.
        error = Closed("the conn was closed before the call began")
        self._moves(entry, ticket.method, ticket.who, error, now)
        return await self._obtain(ticket.again(error), now)

    # -- calls that outlive the pool -----------------------------------------------------------

    # `abandon` took their places back, and by now there may be another core, or another loop.

    def _replied(self, entry: Entry, method: Hashable, who: Any, reply: Any, started: float) -> Any:
        if entry.state is State.GONE:
            return reply.value
        return super()._replied(entry, method, who, reply, started)

    def _moves(
        self, entry: Entry, method: Hashable, who: Any, error: BaseException, started: float
    ) -> bool:
        if entry.state is not State.GONE:
            return super()._moves(entry, method, who, error, started)
        if isinstance(error, (Closed, Busy)):
            raise PoolClosed(f"pool {self.name!r} was closed", pool=self.name) from error
        return False

    # -- what the storeys above do -------------------------------------------------------------

    async def _carry_out(self, permit: Permit) -> None:
        """Do what a permit allows."""
        raise NotImplementedError

    async def _keep(self) -> None:
        """Do what is due, and wait for the next."""
        raise NotImplementedError

    async def _settle(self) -> None:
        """Wait until what runs in the background has ended, that aside which is overdue."""
        raise NotImplementedError

    def _look(self) -> None:
        """Take back what tasks hold that are gone."""
        raise NotImplementedError
