"""The pure core: decides everything, does nothing.
"""

from .entry import Entry, Info, Stat, State
from .machine import Core
from .options import (
    Options,
    Revive,
    Timeout,
    check_filter,
    check_limit,
    check_revive,
    check_timeout,
    check_ttl,
)
from .outcome import POPPED, Outcome, first_rest, of_error, of_reply
from .permits import ALARM, Permit, Work
from .revive import Backoff
from .routing import check_by, sticky
from .stats import Now, PoolStats, SinceStart
from .waiting import ANY, Pop, Standing, Ticket

__all__ = [
    "ALARM",
    "ANY",
    "Backoff",
    "POPPED",
    "Core",
    "Entry",
    "Info",
    "Now",
    "Options",
    "Outcome",
    "Permit",
    "PoolStats",
    "Pop",
    "Revive",
    "SinceStart",
    "Standing",
    "Stat",
    "State",
    "Ticket",
    "Timeout",
    "Work",
    "check_by",
    "check_filter",
    "check_limit",
    "check_revive",
    "check_timeout",
    "check_ttl",
    "first_rest",
    "of_error",
    "of_reply",
    "sticky",
]
