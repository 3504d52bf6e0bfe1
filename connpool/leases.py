"""Leases: what both drivers have in common when a user holds a conn.

Owns a lease's memory: what was asked for, what is held, and where in the user's code that was.
Refuses to know threads and tasks, and to decide anything.

Invariant: a lease that was dropped while it held something is told to its pool by an append to a
list, which is safe wherever the garbage collector happens to run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable
from types import CodeType
from typing import Any

from .core import ANY, Core, Entry, Info, Outcome, of_leaving
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
    _filter: Callable[[Any], Any] | None = None
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
        filter: Callable[[Any], Any] | None,
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

    def _drop(self) -> tuple[Core | None, Entry | None]:
        """It is over; gives what it held."""
        held = self._core, self._entry
        self._entry = None
        return held

    def __del__(self) -> None:
        # This may run anywhere, in a turn at the core too: see `Face._bury`.
        if self._entry is not None:
            self._pool._dropped.append((self._core, self._entry, self._who, self._where))

    def __repr__(self) -> str:
        held = "nothing" if self._entry is None else f"conn {self._entry.id}"
        return f"<checkout of {show(self._resource)} from pool {self._pool.name!r}: {held}>"


def mark(lease: BaseLease) -> None:
    """Remember where a place of a shared conn was taken: the conn knows only the last of them."""
    if not lease._whole:
        lease._pool._marks[id(lease)] = (lease._entry, lease._who, lease._where)


def unmark(lease: BaseLease) -> None:
    """It is over, or lost; this may run anywhere, as `BaseLease.__del__` may."""
    lease._pool._marks.pop(id(lease), None)


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
    survives = getattr(entry.conn, "survives_cancel", False)
    return of_leaving(error, shared=not lease._whole, resets=entry.resets, survives_cancel=survives)


def tell_forsaken(pool: str, step: Forsaken) -> None:
    """A ResourceWarning that names the line where a lost conn was checked out."""
    code, lasti = step.where
    text = (
        f"pool {pool!r}: conn {step.info.id} to {show(step.info.resource)} was checked out here "
        "and never given back; it is closed"
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
