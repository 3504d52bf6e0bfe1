"""Permits and advice: what the core asks a driver to do, outside its lock.

Owns the kinds of step a driver carries out.  Refuses to know how they are carried out.

Invariant: a permit that was given out comes back exactly once, as `opened`, `open_failed` or
`closed`.  One that comes back after its entry has moved on is recognised by `entry.permit`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import attrs

from .entry import Entry


class Work(enum.Enum):
    """What a permit allows."""

    OPEN = "open"  # conn.init, then ask for methods: opened() or open_failed()
    CHECK = "check"  # conn.check: checked()
    CLOSE = "close"  # conn.close where there is one, tell on_disconnect: closed()


@attrs.define(eq=False)
class Permit:
    """Leave to do one thing with one conn."""

    work: Work
    entry: Entry
    limit: float  # seconds it may take
    due: float  # past this instant the work counts as hung and holds no slot any more
    reason: str = ""
    make: Callable[[], Any] | None = None  # makes the conn that is to be opened, if there is none
    resource: Any = None  # what that one is to be listed under
    info: Any = None  # the picture of the conn when it was given up, for on_disconnect
    holds_slot: bool = False
    overdue: bool = False
    given: bool = False  # the conn was open when it came
    given_up: bool = False  # the core no longer waits for it


class Alarm:
    """The step that says: next_due() has come nearer."""

    __slots__ = ()


ALARM = Alarm()


class Look:
    """The step that says: somebody waits, so look whether those who hold conns are still there."""

    __slots__ = ()


LOOK = Look()


@attrs.frozen
class Forsaken:
    """The step that says: this conn was checked out at `where`, and never given back."""

    info: Any
    where: Any
    stays: bool = False  # only a place of it was lost, and it is well as far as the others know
