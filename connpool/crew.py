"""The crew: the few daemon threads a pool has, for what nobody waits for.

Owns threads and nothing else: a `Keeper` that wakes when something is due, and a `Crew` that
carries out permits (opening, closing).  Refuses to know what a permit means.

Not `concurrent.futures`: its threads are joined at interpreter exit, so one hung connect would keep
a program from ending, and none of them can be given up.

Invariant: a chore that was handed in is done exactly once, by a worker or by who asks to help; a
worker that hangs in one blocks that one only, since an overdue worker counts no more.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .core import Permit

logger = logging.getLogger("connpool")

# How long a worker with nothing to do stays, in seconds.
IDLE = 2.0
# While a pool closes, a chore that waits this long for a worker gets one of its own.
HURRY = 0.05
# And there are never more than this many in all.
MOST = 64
# A keeper is not told that its pool was dropped unclosed: it looks at least this often, in seconds.
GLANCE = 60.0


class Crew:
    """At most `limit` workers that get on with their chores."""

    def __init__(self, name: str, work: Callable[[Permit], None], limit: int) -> None:
        self._name = name
        self._work = work
        self._limit = limit
        self._chores: deque[Permit] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._idle = 0
        self._doing: dict[threading.Thread, Permit | None] = {}
        self._helping = 0
        self._shut = False

    def do(self, permit: Permit) -> None:
        """Let a worker do it; after `shut`, do it here."""
        with self._changed:
            if not self._shut:
                self._chores.append(permit)
                self._muster()
                return
        self._work(permit)

    def help(self) -> bool:
        """Do one waiting chore in this thread; False where there is none."""
        with self._changed:
            if not self._chores:
                return False
            permit = self._chores.popleft()
            self._helping += 1
        try:
            self._work(permit)
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify_all()
        return True

    def settle(self) -> None:
        """Wait until every chore is done, those aside that are overdue."""
        me = threading.current_thread()
        with self._changed:
            while self._chores or any(
                permit is not None and not permit.overdue
                for thread, permit in self._doing.items()
                if thread is not me
            ):
                self._changed.wait(HURRY)

    def muster(self, *, hurry: bool = False) -> None:
        """Look whether another worker is needed: one may have become overdue."""
        with self._changed:
            self._muster(hurry=hurry)

    def wait(self, timeout: float) -> None:
        """Wait until a chore is done, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def shut(self, timeout: float) -> None:
        """Let the workers go once all chores are done, and wait for those that do not hang."""
        me, due = threading.current_thread(), time.monotonic() + timeout
        with self._changed:
            self._shut = True
            self._changed.notify_all()
            workers = set(self._doing) - {me}
            while workers & self._doing.keys() and (left := due - time.monotonic()) > 0:
                self._changed.wait(min(left, HURRY))
                self._muster(hurry=True)
                workers |= self._doing.keys() - {me}
            for thread in self._doing.keys() - {me}:
                # Python cannot end a thread.  This one hangs in a conn's init or close; when that
                # returns it has nothing left to do but to close what it opened.
                thread.name = f"abandoned by closed {self._name}"
                workers.discard(thread)
        for thread in workers:
            thread.join()  # it is on its last line

    def _muster(self, *, hurry: bool = False) -> None:
        if self._idle >= len(self._chores):
            self._changed.notify_all()  # some that it wakes may only be watching
            return
        active = sum(permit is None or not permit.overdue for permit in self._doing.values())
        if active < self._limit and len(self._doing) < MOST:
            self._start()
        elif hurry:  # all of them may hang: twice as many, or closing many conns would take long
            more = min(len(self._doing), len(self._chores), MOST - len(self._doing))
            for _ in range(more):
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name} worker", daemon=True)
        self._doing[thread] = None
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down
            del self._doing[thread]
            logger.warning("%s: cannot start a worker", self._name)

    def _run(self) -> None:
        me = threading.current_thread()
        try:
            while (permit := self._next(me)) is not None:
                self._carry_out(permit)
        finally:
            with self._changed:
                del self._doing[me]
                self._changed.notify_all()

    def _next(self, me: threading.Thread) -> Permit | None:
        with self._changed:
            self._doing[me] = None
            self._changed.notify_all()
            if not self._chores and not self._shut:
                self._idle += 1
                try:
                    self._changed.wait_for(lambda: self._chores or self._shut, IDLE)
                finally:
                    self._idle -= 1
            if not self._chores:
                return None
            self._doing[me] = permit = self._chores.popleft()
            if self._chores:
                self._muster()  # this one may have waited so long that it is overdue already
            return permit

    def _carry_out(self, permit: Permit) -> None:
        try:
            self._work(permit)
        except BaseException:  # of a conn's init or close; chores that wait still need the worker
            logger.exception("%s: a worker failed", self._name)


class _Kept(Protocol):
    def _keep(self) -> float | None:
        """Do what is due; the seconds until more is, or None."""


class Keeper:
    """A thread that is there while something is due later.  It does not keep its pool alive."""

    def __init__(self, name: str, pool: _Kept) -> None:
        self._name = name
        self._pool = weakref.ref(pool)
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._nudged = False
        self._shut = False

    def nudge(self) -> None:
        """Something may be due earlier than it seemed."""
        with self._changed:
            self._nudged = True
            if self._thread is None and not self._shut:
                self._start()
            else:
                self._changed.notify()

    def shut(self, timeout: float) -> None:
        """End the thread."""
        with self._changed:
            self._shut = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, timeout))

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name} keeper", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            logger.warning("%s: cannot start the keeper", self._name)

    def _run(self) -> None:
        while self._wait(self._keep()):
            pass

    def _keep(self) -> float | None:
        with self._changed:
            self._nudged = False
        pool = self._pool()
        try:
            return pool._keep() if pool is not None else None
        except Exception:  # a bug here must be heard of, but not end every timer of the pool
            logger.exception("%s: the keeper failed", self._name)
            return 1.0

    def _wait(self, wait: float | None) -> bool:
        """Wait for what is due next; False where nothing is, and nobody nudged meanwhile."""
        with self._changed:
            if not self._nudged and not self._shut:
                if wait is None:
                    self._thread = None
                    return False
                self._changed.wait(min(wait, GLANCE))
            return not self._shut


def name_of_thread(ident: Any) -> str:
    """The name of the thread with this identity, or of a holder of conns, for reports."""
    ident = getattr(ident, "ident", ident)
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"a thread that has ended ({ident})"
