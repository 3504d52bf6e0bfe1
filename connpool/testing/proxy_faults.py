"""The faults of a FaultProxy as data: what was asked for, checked, and what holds for a connection.

Owns the names of the faults and their arguments.  Refuses to know of sockets.

Invariant: a `Fault` that exists is one that can be carried out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from ..conn import seconds
from ..errors import show


@attrs.define
class Rules:
    """What holds for one connection: all at once, where there are several faults.

    `cut` and `stall` are the bytes of replies that are still let through, inf for all.
    """

    black_hole: bool = False
    delay: float = 0.0
    rate: float = math.inf
    cut: float = math.inf
    stall: float = math.inf


@attrs.define
class Traffic:
    """Connections accepted, and bytes that came from clients and from the server, so far."""

    accepted: int = 0
    asked: int = 0
    answered: int = 0


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"count: expected a whole number of bytes, got {show(value)}")
    if value < 0:
        raise ValueError(f"count: expected a whole number of bytes from 0 up, got {show(value)}")
    return value


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"bytes_per_second: expected a number above 0, got {show(value)}")
    if not value > 0:
        raise ValueError(f"bytes_per_second: expected a number above 0, got {show(value)}")
    return float(value)


# Faults that last, by name: the rule that they set, and what their argument has to be.
LASTING: dict[str, tuple[str, Callable[[Any], Any] | None]] = {
    "black_hole": ("black_hole", None),
    "delay": ("delay", lambda value: seconds(value, "delay")),
    "throttle": ("rate", _rate),
    "cut_after": ("cut", _count),
    "stall_after": ("stall", _count),
}

# Those that are over as soon as they have happened.
AT_ONCE = ("refuse", "half_close", "reset", "drop")


@attrs.frozen
class Fault:
    """One fault: its name, and the rule it sets, or None where it happens at once."""

    name: str
    rule: str | None = None
    value: Any = None

    def bend(self, rules: Rules) -> None:
        """Make the rules those of this fault, as well as what they are."""
        assert self.rule is not None
        setattr(rules, self.rule, self.value)


def fault(name: Any, *args: Any) -> Fault:
    """A fault by its name and arguments, or the error that says what is wrong with them.

    >>> fault("cut_after", 3)
    Fault(name='cut_after', rule='cut', value=3)
    >>> fault("rain")
    Traceback (most recent call last):
    ValueError: expected one of black_hole, delay, ..., half_close, reset, drop, got 'rain'
    """
    if isinstance(name, str) and name in AT_ONCE:
        check, rule = None, None
    elif isinstance(name, str) and name in LASTING:
        rule, check = LASTING[name]
    else:
        known = ", ".join([*LASTING, *AT_ONCE])
        raise ValueError(f"expected one of {known}, got {show(name)}")
    if len(args) != (check is not None):
        wanted = "no argument" if check is None else "1 argument"
        raise TypeError(f"{name}: expected {wanted}, got {show(args)}")
    return Fault(name, rule, True if check is None else check(args[0]))


def scripted(entry: Any) -> Fault | None:
    """An entry of a script: None, the name of a fault, or a tuple of its name and arguments."""
    if entry is None:
        return None
    if isinstance(entry, str):
        return fault(entry)
    if isinstance(entry, tuple) and entry:
        return fault(*entry)
    raise TypeError(f"script: expected None, a name or a tuple, got {show(entry)}")
