"""Odd things that users may give a pool: numbers that are none, and objects that raise or lie.

Owns the things.  Refuses to know where they are given.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any


class OddError(Exception):
    """What odd objects raise: it must reach nobody but who gave them, or asked for them."""


NO_SECONDS: tuple[Any, ...] = (
    *(math.nan, -math.inf, -1, -0.001, -(10**400), 10**400, True, False),
    *(Decimal(1), Decimal("nan"), Fraction(1, 2), 1j, "1", b"1", [1], object()),
)
NO_COUNTS: tuple[Any, ...] = (
    *(math.nan, math.inf, -1, 0.5, 1.0, True, Decimal(1), Fraction(2), "1", [], object()),
)
# What is a number, and still takes some care.
HUGE = (1e308, 10**300, 1.7976931348623157e308)


class Spoilt:
    """An object that is well until it is spoilt; then whatever it is asked raises, or it lies.

    `hashed` is its hash; two with one hash are not equal, unless they are of one `kind`.
    """

    def __init__(self, kind: str, hashed: int) -> None:
        self.kind = kind
        self.hashed = hashed
        self.raises: set[str] = set()

    def ask(self, what: str) -> None:
        if what in self.raises:
            raise OddError(f"{what} of {self.kind}")

    def __hash__(self) -> int:
        self.ask("hash")
        return self.hashed

    def __eq__(self, other: object) -> bool:
        self.ask("eq")
        return isinstance(other, Spoilt) and self.kind == other.kind

    def __repr__(self) -> str:
        self.ask("repr")
        return f"<{self.kind}>"

    def __bool__(self) -> bool:
        self.ask("bool")
        return True

    def __len__(self) -> int:
        self.ask("len")
        return 1

    def __iter__(self) -> Any:
        self.ask("iter")
        return iter(())


WAYS = ("hash", "eq", "repr", "bool", "len", "iter")


def spoilt(*ways: str) -> Spoilt:
    """An object that raises from the beginning."""
    odd = Spoilt("spoilt", 7)
    odd.raises.update(ways or WAYS)
    return odd


class Proxy:
    """What says that it is of another class, and raises when it is asked of which."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise OddError("class")


class OddFailure(Exception):
    """An error that can be raised, and not much else."""

    def __bool__(self) -> bool:
        raise OddError("bool")

    def __len__(self) -> int:
        raise OddError("len")

    def __eq__(self, other: object) -> bool:
        raise OddError("eq")

    def __hash__(self) -> int:
        raise OddError("hash")

    def __repr__(self) -> str:
        raise OddError("repr")

    def __str__(self) -> str:
        raise OddError("str")


class OddTorn(OddFailure, OSError):
    """The same, of a conn whose peer is gone."""
