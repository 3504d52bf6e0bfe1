"""Permits and advice: what the core asks a driver to do, outside its lock.

Owns the kinds of step a driver carries out.  Refuses to know how they are carried out.

Invariant: a permit that was given out comes back exactly once, as `opened`, `open_failed` or
`closed`.  One that comes back after its entry has moved on is recognised by `entry.permit`.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs

from .entry import Entry


class Work(enum.Enum):
    """What a permit allows."""

    OPEN = "open"  # conn.init, then ask for methods: opened() or open_failed()
    CLOSE = "close"  # conn.close where there is one, tell on_disconnect: closed()


@attrs.define(eq=False)
class Permit:
    """Leave to do one thing with one conn."""

    work: Work
    entry: Entry
    due: float  # past this instant the work counts as hung and holds no slot any more
    reason: str = ""
    info: Any = None  # the picture of the conn when it was given up, for on_disconnect
    holds_slot: bool = False
    overdue: bool = False


class Alarm:
    """The step that says: next_due() has come nearer."""

    __slots__ = ()


ALARM = Alarm()
