"""What callers say, checked before anything is done with it.

Owns the checks of arguments: each gives the value to use, or raises what was expected and what
came.  Refuses to know what the values are for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import index
from types import EllipsisType
from typing import Any, Literal

import attrs

from ..conn import seconds
from ..errors import show
from .revive import Backoff
from .where import Test, Where

#: Seconds, None for no limit, `...` for what the pool was told.
Timeout = float | None | EllipsisType
Revive = bool | Literal["force"]


def check_ttl(ttl: Any) -> float | None:
    """A ttl: seconds, or None for ever."""
    ttl = None if ttl is None else seconds(ttl, "ttl", infinite=True)
    return None if ttl == math.inf else ttl


def check_revive(revive: Any) -> Revive:
    """False, True or "force"."""
    if isinstance(revive, bool):
        return revive
    if isinstance(revive, str) and str.__eq__(revive, "force"):
        return "force"
    kind = ValueError if isinstance(revive, str) else TypeError
    raise kind(f'revive: expected False, True or "force", got {show(revive)}')


def check_timeout(timeout: Any) -> float:
    """A timeout: seconds, 0 for no waiting, None for ever (which is inf)."""
    return math.inf if timeout is None else seconds(timeout, "timeout", infinite=True)


def check_filter(filter: Any) -> Test:
    """A filter: a function of a conn's Info, or a mapping of what its extra must have.

    An empty mapping asks for nothing, and is no filter.
    """
    if filter is None or callable(filter):
        return filter  # type: ignore[no-any-return]
    if not isinstance(filter, Mapping):
        raise TypeError(
            "filter: expected a function of a conn's Info, or a mapping of what its extra must "
            f"have, got {show(filter)}"
        )
    try:
        return Where(filter.items()) or None
    except TypeError:
        raise TypeError(
            f"filter: expected hashable values in a mapping, got {show(filter)}"
        ) from None


def check_limit(value: Any, what: str, *, least: int = 1) -> int | None:
    """A limit: a whole number from `least` up, or None for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}: expected a whole number or None, got {show(value)}")
    number = index(value)  # of a subclass its own arithmetic is not asked
    if number < least:
        raise ValueError(f"{what}: expected a whole number from {least} up, got {show(value)}")
    return number


def check_changes(changes: Any) -> dict[str, Any]:
    """What a function given to update returned: a dict of changes."""
    if not isinstance(changes, dict):
        raise TypeError(f"update: expected fn to return a dict of changes, got {show(changes)}")
    return changes


def check_size(value: Any, what: str, least: int) -> int:
    """A limit that there must be."""
    number = check_limit(value, what, least=least)
    if number is None:
        raise TypeError(f"{what}: expected a whole number from {least} up, got None")
    return number


def _max_size(value: Any) -> int | None:
    return check_limit(value, "max_size")


def _max_waiting(value: Any) -> int | None:
    return check_limit(value, "max_waiting", least=0)


def _max_connecting(value: Any) -> int:
    return check_size(value, "max_connecting", 1)


def _connect_timeout(value: Any) -> float:
    return seconds(value, "connect_timeout")


def _check_after(value: Any) -> float:
    return math.inf if value is None else seconds(value, "check_after", infinite=True)


@attrs.frozen
class Options:
    """What a pool was told when it was made; seconds and counts, None for no limit."""

    name: str
    timeout: float = attrs.field(default=30.0, converter=check_timeout)
    max_size: int | None = attrs.field(default=None, converter=_max_size)
    max_waiting: int | None = attrs.field(default=None, converter=_max_waiting)
    max_connecting: int = attrs.field(default=2, converter=_max_connecting)
    connect_timeout: float = attrs.field(default=10.0, converter=_connect_timeout)
    check_after: float = attrs.field(default=0.5, converter=_check_after)
    backoff: Backoff = attrs.field(factory=Backoff)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff: expected a Backoff, got {show(self.backoff)}")
