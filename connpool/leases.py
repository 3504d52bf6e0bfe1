"""Leases: what both drivers have in common when a user holds a conn.

Owns a lease's memory: what was asked for, what is held, and where in the user's code that was.
Refuses to know threads and tasks, and to decide anything.

Invariant: a lease that was dropped while it held something is told to its pool by an append to a
list, which is safe wherever the garbage collector happens to run.

A lease belongs to whoever refers to it, not to the thread or task that began it: a fixture, a
dependency of a web framework and `asyncio.wait_for` all begin it in one and use and end it in
another, and the first may be gone by then.  So only one that nobody refers to any more is lost, and
that is for the garbage collector to say; no record of leases is kept, weak or other, which would
cost each checkout.  That a holder is gone is a hint only: one whose thread or task ended without
ending it has most often died with an error that refers, by its traceback, to the lease.  Such a
ring may lie about for long, or for ever where collection is off, or where the pool knows the task
and the task the error.  So while somebody waits, and conns are found whose holders are gone, the
pool forgets them for their ghosts, and has the collector run, once for each.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable
from types import CodeType
from typing import Any

from .core import ANY, Core, Entry, Info, Outcome, Test, of_leaving, survives
from .core.permits import Forsaken
from .errors import show

logger = logging.getLogger("connpool")


class BaseLease:
    """One checkout: from the conn that is handed over to the one that is given back."""

    # Written by hand: one is made for each checkout, and it is most of what a checkout costs.
    __slots__ = ("_core", "_entry", "_given", "_place", "_pool", "_resource", "_where", "_who")

    _pool: Any
    _who: Any
    _given: Any  # what lend() gave, if there is one
    _place: float

    # What most do not ask for; who does has a lease of a class that can hold it.
    _method: Hashable = ANY
    _filter: Test = None
    _timeout: Any = ...
    _whole: bool = True
    _by: Any = None

    def __init__(self, pool: Any, resource: Hashable, where: tuple[CodeType, int]) -> None:
        self._pool = pool
        self._resource = resource
        self._where = where
        self._core: Core | None = None  # whose entry it is; None: nothing was asked for yet
        self._entry: Entry | None = None

    def _choose(
        self,
        method: Hashable,
        filter: Test,
        timeout: Any,
        shared: bool,
        by: Any,
    ) -> None:
        """Say what is asked for; only where there is a `__dict__` to keep it."""
        vars(self).update(
            _method=ANY if method is None else method,
            _filter=filter,
            _timeout=timeout,
            _whole=not shared,
            _by=by,
        )

    @property
    def conn(self) -> Any:
        """What the block was given.  A RuntimeError once the block is over."""
        entry = self._held()
        return self._given if entry.lends else entry.conn

    @property
    def id(self) -> int:
        """The id of the conn that is held, for `pool.extra` and its like."""
        return self._held().id

    @property
    def info(self) -> Info:
        """A snapshot of the conn that is held."""
        return self._pool.info(self._held().id)  # type: ignore[no-any-return]

    def _held(self) -> Entry:
        if self._entry is None:
            what = "has not begun" if self._core is None else "is over"
            raise RuntimeError(f"this checkout of {show(self._resource)} {what}")
        return self._entry

    def _refuse(self) -> RuntimeError:
        return RuntimeError(
            f"this checkout of {show(self._resource)} was used already: "
            "each `with` needs one of its own"
        )

    def _drop(self) -> tuple[Core, Entry]:
        """It is over; gives what it held."""
        core, entry = self._core, self._entry
        assert core is not None
        assert entry is not None
        self._entry = None
        return core, entry

    def __del__(self) -> None:
        # This may run anywhere, in a turn at the core too: see `Face._bury`.
        try:
            if self._entry is not None:
                self._pool._dropped.append((self._core, self._entry, self._who, self._where))
        except AttributeError:
            pass  # an interrupt came before it was made

    def __repr__(self) -> str:
        held = "nothing" if self._entry is None else f"conn {self._entry.id}"
        return f"<checkout of {show(self._resource)} from pool {self._pool.name!r}: {held}>"


class Ghost:
    """One who is gone, where he still holds a conn: equal to him, but he need not be remembered.

    He is told by his `id`, which is given to no other while his lease, which knows him, lives.
    """

    __slots__ = ("ident", "name")

    def __init__(self, who: Any, name: str) -> None:
        self.ident = id(who)
        self.name = name

    def __eq__(self, other: object) -> bool:
        return self is other or id(other) == self.ident

    def __hash__(self) -> int:
        return self.ident


def wants_check(entry: Entry, after: float, now: float) -> bool:
    """Whether a conn is to be asked if it is well before it is handed over.

    One that was used a moment ago was well then, and one that others share is just being used.
    """
    return entry.checks and now - entry.idle_since >= after and entry.sole


def leaving(lease: BaseLease, error: BaseException | None) -> Outcome | None:
    """What the end of a block says of its conn; None: that is for its reset to say."""
    entry = lease._held()
    if not entry.open:
        return Outcome()  # it was closed under its user
    return of_leaving(
        error,
        shared=not lease._whole,
        resets=entry.resets,
        survives_cancel=survives(entry.conn),
    )


def tell_forsaken(pool: str, step: Forsaken) -> None:
    """A ResourceWarning that names the line where a lost conn was checked out."""
    code, lasti = step.where
    then = "its place is taken back" if step.stays else "it is closed"
    text = (
        f"pool {pool!r}: conn {step.info.id} to {show(step.info.resource)} was checked out here "
        f"and never given back; {then}"
    )
    try:
        warnings.warn_explicit(text, ResourceWarning, code.co_filename, line_of(code, lasti))
    except ResourceWarning:  # where warnings are errors: it is not the fault of who runs this
        logger.warning("%s (%s:%d)", text, code.co_filename, line_of(code, lasti))


def place(code: CodeType, lasti: int) -> str:
    """An instruction, as people look it up."""
    return f"{code.co_filename}:{line_of(code, lasti)} ({code.co_qualname})"


def line_of(code: CodeType, lasti: int) -> int:
    """The line of an instruction; looked up only when somebody wants to read it."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno
