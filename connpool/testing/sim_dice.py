"""Dice: what may be drawn for a simulated world, and the drawing.

Owns the values among which chance chooses.  Refuses to know what a world is made of.

Invariant: the same seed draws the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from ..core import Filter

T = TypeVar("T")

RESOURCES = ("a", "b", "c")
METHODS = (("m",), ("m",), ("n",), ("m", "n"))
LARGE_RED = {"colour": "red", "size": 1}
LARGE_BLUE = {"colour": "blue", "size": 1}
SMALL_BLUE = {"colour": "blue", "size": 0}
EXTRAS = (None, "red", "bad", LARGE_RED, LARGE_RED, LARGE_BLUE, SMALL_BLUE)
TTLS = (None, None, None, 0.25, 2.0, 6.0)
REVIVES = (False, True, True, "force")
LENGTHS = (0.0, 0.125, 0.125, 0.25, 0.25, 0.5, 1.0, 3.0)
TIMEOUTS = (0.0, 0.125, 0.5, 0.5, 1.0, 2.0, 8.0, None)
CALL_FAULTS = (
    "rest", "rest", "long rest", "done", "bad rest", "closed", "busy", "busy", "busy, no idea",
    "busy, nonsense", "dead", "dead", "end of file", "timed out", "error", "error", "told",
    "told to rest", "told dead", "told nonsense", "pool error", "interrupt", "hangs",
)  # fmt: skip
BLOCK_FAULTS = (
    "dies", "dies", "dies", "drops", "drops", "error", "error", "error", "dead", "closed", "busy",
    "told to rest", "told dead", "interrupt", "interrupt", "hangs", "hangs",
)  # fmt: skip
INIT_FAULTS = (
    "refused", "refused", "at once", "soon", "late", "nonsense", "mute", "hangs", "refused",
    "refused", "never",
)  # fmt: skip


LEASE_FAULTS = ("closed", "dead", "error", "hangs")


def echoes(conn: Any, payload: Any) -> Any:
    """A block that sends something, and reads what comes."""
    return conn.call("m", payload)


def answers_itself(payload: Any, reply: Any) -> bool:
    """Whether a block that asked anything got the answer to that."""
    return reply is None or reply == payload


def is_red(info: Any) -> bool:
    """Passes conns with the extra "red"."""
    return bool(info.extra == "red")


def is_even(info: Any) -> bool:
    """Passes every other conn."""
    return bool(info.id % 2 == 0)


def raises_on_bad(info: Any) -> bool:
    """Passes all, and raises where the extra is "bad"."""
    if info.extra == "bad":
        raise ValueError("a bad conn")
    return True


def picks_last(infos: Sequence[Any]) -> Any:
    """A router of the user's."""
    return infos[-1]


def is_wide(info: Any) -> bool:
    """Passes conns that can do several calls at once."""
    return bool(info.conn.capacity > 1)


# Calls from inside calls from inside calls.
DEEPEST = 2

RED, LARGE, BLUE = {"colour": "red"}, {"size": 1}, {"size": 1, "colour": "blue"}
HARMLESS: Sequence[Filter] = (is_red, is_even, RED, LARGE, BLUE)
FILTERS = (*HARMLESS, is_even, RED, raises_on_bad)
BYS = ("least_wait", "round_robin", "random", "least_used", "two_choices", picks_last)


class Dice:
    """Draws from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, several: Sequence[T]) -> T:
        """One of several."""
        return several[int(self.random() * len(several))]

    def below(self, most: int) -> int:
        """A whole number from 0 up to below `most`."""
        return int(self.random() * most)

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.random() < share
