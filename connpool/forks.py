"""Forks: what becomes of a pool in a child process.

Owns the hooks around `os.fork`, and what a child inherits and must not touch.  Refuses to know how
a pool makes itself anew.

Parent and child share every socket, and whoever closes one in good order ends the other's session
(seen in urllib3 and psycopg2).  So in the child the inherited conns are neither used nor closed nor
ever collected, and its pools begin empty, their supplies aside.

Invariant: while a fork is under way no other thread is in a turn, so that the child finds every
lock free and every core whole.  The parent notices nothing.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any, Protocol


class Forking(Protocol):
    """What a pool does about a fork."""

    def _before_fork(self) -> None:
        """Let nobody take a turn."""

    def _after_fork(self) -> None:
        """Let turns be taken again."""

    def _born_again(self) -> Any:
        """In the child: begin anew.  Gives what is not to be touched any more."""


_pools: weakref.WeakSet[Any] = weakref.WeakSet()
_guard = threading.Lock()  # of the set; and one fork at a time
_held: list[Forking] = []
_inherited: list[Any] = []


def watch(pool: Forking) -> None:
    """Look after `pool` for as long as it lives."""
    with _guard:
        _pools.add(pool)


def _before() -> None:
    _guard.acquire()
    for pool in list(_pools):
        pool._before_fork()
        _held.append(pool)


def _in_parent() -> None:
    while _held:
        _held.pop()._after_fork()
    _guard.release()


def _in_child() -> None:
    while _held:
        pool = _held.pop()
        _inherited.append(pool._born_again())
        pool._after_fork()
    if len(_inherited) and not hasattr(_in_child, "kept"):
        # A module's lists are emptied when the interpreter ends, and then finalisers would close.
        _in_child.kept = True  # type: ignore[attr-defined]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_inherited))
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
