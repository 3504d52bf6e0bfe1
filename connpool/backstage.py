"""Backstage: the thread driver without its doors.

Owns the lock and the turns it gives, and what is done in the background: opening and closing conns,
keeping time.  Refuses to know what callers want.

Invariant: user code (init, methods, close, callbacks) never runs in a turn, and every permit goes
back to the core, whatever that code does.
"""

from __future__ import annotations

import logging
import sys
import time
from _thread import LockType, allocate_lock, get_ident
from threading import TIMEOUT_MAX
from types import FrameType
from typing import Any

from . import forks
from .conn import asked, describe
from .core import ALARM, LOOK, QUEUED, Entry, Forsaken, Permit, Pop, Ticket, Work, first_rest
from .crew import Crew, Keeper, name_of_thread
from .errors import Closed, show
from .face import Face
from .leases import Ghost, tell_forsaken

logger = logging.getLogger("connpool")

# Whether a stroke at the core is as good as a turn: see `core.straight`.
STROKES = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()

# Seconds a fork waits for the turn of another thread to end.
FORK_PATIENCE = 5.0


class _Turn:
    """`with turn as now`: alone with the core; on the way out, the steps it left are done."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Backstage) -> None:
        self._pool = pool

    def __enter__(self) -> float:
        pool = self._pool
        pool._lock()
        now = time.monotonic()
        if pool._dropped:
            pool._bury(now)
        return now

    def __exit__(self, *_: object) -> None:
        self._pool._unlock()


class Backstage(Face):
    """Turns at the core for threads, and a crew for what nobody waits for."""

    _strokes = STROKES

    def __init__(self, *, max_connecting: int, **options: Any) -> None:
        super().__init__(max_connecting=max_connecting, **options)
        self._mutex = allocate_lock()
        self._turn = _Turn(self)
        self._hire()
        self._held_for_fork = False
        forks.watch(self)

    def _hire(self) -> None:
        # One worker more than may connect, so that closing never waits for connecting.
        most = self._options.max_connecting + 1
        self._crew = Crew(f"connpool {self.name}", self._carry_out, most)
        self._keeper = Keeper(f"connpool {self.name}", self)

    def _whoami(self) -> int:
        return get_ident()

    def _name_of(self, who: Any) -> str:
        return who.name if isinstance(who, Ghost) else name_of_thread(who)

    def _frame_of(self, who: Any) -> FrameType | None:
        return sys._current_frames().get(getattr(who, "ident", who))

    # -- turns ---------------------------------------------------------------------------------

    def _lock(self) -> None:
        if self._core.shielded is not None:
            self._refuse_reentry()
        self._mutex.acquire()
        self._core.in_turn = True

    def _refuse_reentry(self) -> None:
        """A filter runs, under the lock: if it runs in this very thread, the lock never opens."""
        if self._core.shielded == get_ident():
            raise RuntimeError(
                f"pool {self.name!r}: a filter or a router may not call the pool it serves"
            )

    def _unlock(self) -> None:
        core = self._core
        # Never the list itself, which the next one to take a turn may fill.
        steps = core.drain() if core.steps else ()
        core.end_turn()
        self._mutex.release()
        # Those who wait first: what else there is may be done here, and take its time.
        for step in [step for step in steps if not _wake(step)]:
            self._do(step)

    def _do(self, step: Any) -> None:
        """One step that the core wants done, outside the lock."""
        if step is ALARM:
            self._keeper.nudge()
        elif isinstance(step, Permit):
            self._crew.do(step)
        elif step is LOOK:
            self._look()
        elif isinstance(step, Forsaken):
            tell_forsaken(self.name, step)

    def _look(self) -> None:
        """Find what was lost by threads that have ended."""
        raise NotImplementedError

    # -- forks ---------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        # Not for ever: a signal handler that forks may have interrupted a turn of its own thread.
        inside = self._core.shielded == get_ident()
        self._held_for_fork = not inside and self._mutex.acquire(timeout=FORK_PATIENCE)

    def _after_fork(self) -> None:
        if self._held_for_fork:
            self._held_for_fork = False
            self._mutex.release()

    def _born_again(self) -> Any:
        """In a child: conns that were put in by hand are the parent's; supplies begin anew, and
        what they are to open is opened when the pool is first used here."""
        old = self._core
        inherited = (old, self._crew, self._keeper, self._dropped)
        if not self._held_for_fork:
            self._mutex = allocate_lock()
        self._dropped = []
        self._hire()
        self._renew()
        now = time.monotonic()
        for supply in old.supplies():
            self._core.supply(supply.anew(), now)
        if old.closed:
            self._core.close(now)
        return inherited

    # -- calls ---------------------------------------------------------------------------------

    def _obtain(self, ticket: Ticket) -> Entry:
        """Wait for a conn.  Whatever interrupts the waiting, no place is lost."""
        try:
            woken = None
            with self._turn as now:
                self._core.submit(ticket, now)
                if ticket.standing is QUEUED:
                    ticket.waiter = woken = allocate_lock()
                    woken.acquire()
            while woken is not None and not self._is_woken(woken, ticket):
                pass
        except BaseException:
            with self._turn as now:
                self._core.cancel(ticket, now)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.entry is not None
        return ticket.entry

    def _is_woken(self, woken: LockType, ticket: Ticket) -> bool:
        """Wait to be woken; past the deadline let the core see that time has passed.

        Where a ticket stands is known in a turn only: in the midst of another one's it may have
        left the line, and its error is still to come.
        """
        left = min(ticket.deadline - time.monotonic(), TIMEOUT_MAX)
        if left > 0 and woken.acquire(True, left):
            return True
        with self._turn as now:
            self._core.tick(now)
            return ticket.standing is not QUEUED

    # -- conns ---------------------------------------------------------------------------------

    def _open(self, permit: Permit) -> None:
        """Initialise the conn of a permit; its errors are the core's first, then the caller's.

        One that was initialised and is of no use is closed before the core hears of it, which might
        have it opened again at once, or hand it over.
        """
        args, kwargs = permit.entry.setup or ((), {})
        initialised = False
        try:
            conn = self._conn_of(permit, awaits=False)
            returned = conn.init(*args, **kwargs)
            initialised = True
            rest = first_rest(returned)
            what = describe(conn, conn.methods(), resource=permit.resource)
        except BaseException as error:
            try:
                if initialised:
                    self._close_conn(conn)
            finally:
                with self._turn as now:
                    self._core.open_failed(permit, error, now)
            raise
        self._opened(permit, what, rest)

    def _close_conn(self, conn: Any) -> None:
        """Close a conn that can; what it raises is logged."""
        close = asked(conn, "close")
        if callable(close):
            try:
                close()
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.warning("%s: closing a conn failed", self.name, exc_info=True)

    # -- the background ------------------------------------------------------------------------

    def _carry_out(self, permit: Permit) -> None:
        """What a worker does."""
        if permit.given_up:  # before anybody came to it: the conn may be about other things by now
            with self._turn as now:
                self._core.never_done(permit, now)
        elif permit.work is Work.OPEN:
            self._reopen(permit)
        elif permit.work is Work.CHECK:
            self._ask(permit)
        else:
            self._shut_down(permit)

    def _ask(self, permit: Permit) -> None:
        """Have a conn say whether it is alive."""
        error: BaseException | None = None
        try:
            if permit.entry.conn.check() is False:
                error = Closed("check() gave False")
        except BaseException as raised:
            error = raised
        with self._turn as now:
            self._core.checked(permit, error, now)

    def _reopen(self, permit: Permit) -> None:
        try:
            self._open(permit)
        except KeyboardInterrupt:
            raise
        except (
            BaseException
        ) as error:  # whatever it is: who sweeps, or works here, is not its caller
            logger.warning("%s: conn %d: init failed: %s", self.name, permit.entry.id, show(error))

    def _shut_down(self, permit: Permit) -> None:
        try:
            self._close_conn(permit.entry.conn)
        finally:
            with self._turn as now:
                self._core.closed_one(permit, now)
            self._tell_disconnect(permit.info, permit.reason)

    def _keep(self) -> float | None:
        """What the keeper does: all that is due.  Gives the seconds until more is."""
        with self._turn as now:
            self._core.tick(now)
            due = self._core.next_due()
        self._crew.muster()
        return None if due is None else max(0.0, due - now)

    def _sweep_once(self) -> None:
        """All that is due, permits included, in this thread."""
        with self._turn as now:
            self._core.tick(now)
        while self._crew.help():
            pass
        self._crew.settle()


def _wake(step: Any) -> bool:
    """Wake the one that a step is about, if it is about one who waits."""
    if not isinstance(step, (Ticket, Pop)):
        return False
    if step.waiter is not None:
        step.waiter.release()
    return True
