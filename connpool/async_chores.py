"""Async chores: what the asyncio/trio driver does in the background.

Owns the opening, checking and closing of conns, and the keeper of time.  Refuses to know what
callers want.

Invariant: a permit that was given out goes back to the core on every path, and user code never runs
in a turn.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import anyio

from .async_backstage import GRACE, AsyncBackstage
from .conn import asked, describe
from .core import Core, Permit, Work, first_rest
from .errors import Closed, PoolClosed, show
from .loops import was_cancelled

logger = logging.getLogger("connpool")


class AsyncChores(AsyncBackstage):
    """What nobody waits for."""

    # -- conns ---------------------------------------------------------------------------------

    async def _open(self, permit: Permit) -> None:
        """Initialise the conn of a permit; its errors are the core's first, then the caller's.

        One that was initialised and is of no use is closed before the core hears of it, which might
        have it opened again at once, or hand it over.
        """
        core = self._core
        args, kwargs = permit.entry.setup or ((), {})
        initialised = False
        try:
            conn = self._conn_of(permit, awaits=True)
            returned = await conn.init(*args, **kwargs)
            initialised = True
            rest = first_rest(returned)
            what = describe(conn, await conn.methods(), resource=permit.resource)
            self._check_here(core)
        except BaseException as error:
            if not initialised:
                self._open_failed(core, permit, error)
            elif self._tasks is not None and permit not in self._running:
                self._running.add(permit)  # whose caller does not wait for it
                self._tasks.start_soon(self._take_back_conn, core, permit, conn, error)
            else:
                await self._take_back_conn(core, permit, conn, error)
            raise
        self._opened(permit, what, rest)

    async def _take_back_conn(
        self, core: Core, permit: Permit, conn: Any, error: BaseException
    ) -> None:
        """Close what was opened and is of no use."""
        try:
            await self._close_conn(conn)
        finally:
            self._running.discard(permit)
            self._open_failed(core, permit, error)

    def _check_here(self, core: Core) -> None:
        """Raise where the block in which `core` was the pool's has been left meanwhile."""
        if core is not self._core or self._tasks is None:
            raise PoolClosed(f"pool {self.name!r} was closed", pool=self.name)

    def _open_failed(self, core: Core, permit: Permit, error: BaseException) -> None:
        if permit.limit < math.inf and was_cancelled(error):
            # Those who wait are told what it means: for them nobody has cancelled anything.
            error = TimeoutError(f"{permit.work.value} took more than {permit.limit:g} s")
        core.open_failed(permit, error, time.monotonic())
        if core.steps:
            self._run_steps()
        self._changed.set()

    async def _close_conn(self, conn: Any) -> None:
        """Close a conn that can, within the time a connect may take; what it raises is logged."""
        close = asked(conn, "close")
        if not callable(close):
            return
        # Shielded: who leaves the pool's block cancelled still wants his conns closed.
        patience = GRACE if self._tasks is None else self._options.connect_timeout
        scope = anyio.move_on_after(patience, shield=True)
        self._closing.add(scope)
        try:
            with scope:
                await close()
            if scope.cancelled_caught:
                logger.warning("%s: closing a conn took too long and was given up", self.name)
        except BaseException as error:
            if _is_not_the_conns(error):
                raise
            logger.warning("%s: closing a conn failed", self.name, exc_info=True)
        finally:
            self._closing.discard(scope)

    # -- the background ------------------------------------------------------------------------

    async def _carry_out(self, permit: Permit) -> None:
        try:
            if permit.given_up:  # before it was begun: the conn may be about other things by now
                with self._turn as now:
                    self._core.never_done(permit, now)
            elif permit.work is Work.OPEN:
                await self._reopen(permit)
            elif permit.work is Work.CHECK:
                await self._ask(permit)
            else:
                await self._shut_down(permit)
        finally:
            self._running.discard(permit)
            self._changed.set()

    async def _reopen(self, permit: Permit) -> None:
        try:
            with anyio.fail_after(permit.limit):
                await self._open(permit)
        except BaseException as error:
            if _is_not_the_conns(error):
                raise
            logger.warning("%s: conn %d: init failed: %s", self.name, permit.entry.id, show(error))

    async def _ask(self, permit: Permit) -> None:
        """Have a conn say whether it is alive."""
        error: BaseException | None = None
        try:
            with anyio.fail_after(permit.limit):
                if await permit.entry.conn.check() is False:
                    error = Closed("check() gave False")
        except BaseException as raised:
            error = raised
            if _is_not_the_conns(raised):
                raise
        finally:
            with self._turn as now:
                self._core.checked(permit, error, now)

    async def _shut_down(self, permit: Permit) -> None:
        try:
            await self._close_conn(permit.entry.conn)
        finally:
            with self._turn as now:
                self._core.closed_one(permit, now)
            self._tell_disconnect(permit.info, permit.reason)

    async def _keep(self) -> None:
        """Do what is due and start what could not be started elsewhere, then wait for more."""
        assert self._tasks is not None
        while True:
            with self._turn as now:
                self._core.tick(now)
            for permit in self._errands:
                self._tasks.start_soon(self._carry_out, permit)
            self._errands.clear()
            self._wakes = self._core.due
            with anyio.move_on_after(self._wakes - now):
                await self._nudged.wait()

    async def _settle(self) -> None:
        """Wait until what runs in the background has ended, that aside which is overdue."""
        while any(not permit.overdue for permit in self._running):
            await self._changed.wait()


def _is_not_the_conns(error: BaseException) -> bool:
    """Whether a loop or a user has raised this, in whatever ran: anything else that leaves a task
    of the background would end the pool's whole block."""
    return isinstance(error, (KeyboardInterrupt, GeneratorExit)) or was_cancelled(error)
