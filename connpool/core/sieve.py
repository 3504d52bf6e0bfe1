"""The sieve: finds those in line whom a conn may serve, by what the conn has.

Owns, for one line, which of its needs have a filter given as data, and under which item each is
found.  Refuses to know methods, order and all other filters: who has such a one is always asked.

Invariant: each need of the line is in one place.  A line without a filter given as data has no
sieve.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from .where import Where

if TYPE_CHECKING:
    from .waiting import Need

    Cell = dict[Need, None]


class Sieve:
    """The needs of a line: those with a filter given as data by one of its items."""

    __slots__ = ("columns", "others", "places")

    def __init__(self) -> None:
        self.columns: dict[Hashable, dict[Hashable, Cell]] = {}  # by key, then by value
        self.others: Cell = {}
        self.places: dict[Need, tuple[Hashable, Hashable, Cell]] = {}

    def add(self, need: Need) -> None:
        """Somebody has begun to wait."""
        if not isinstance(need.filter, Where):
            self.others[need] = None
            return
        try:
            key, value = next(iter(need.filter))  # any of them will do
            cell = self.columns.setdefault(key, {}).setdefault(value, {})
        except Exception:  # of the __eq__ of a value
            key, value, cell = None, None, self.others
        cell[need] = None
        self.places[need] = key, value, cell

    def remove(self, need: Need) -> bool:
        """Nobody waits for it any more; gives whether there is nothing left to look up."""
        key, value, cell = self.places.pop(need, (None, None, self.others))
        del cell[need]
        if not cell and cell is not self.others:
            with suppress(Exception):  # of the same: the empty cell stays, and does no harm
                del self.columns[key][value]
                if not self.columns[key]:
                    del self.columns[key]
        return not self.places

    def fitting(self, extra: Any) -> Collection[Need]:
        """The needs that a conn with this extra may serve."""
        found = list(self.others)
        if isinstance(extra, Mapping):
            for key, column in self.columns.items():
                found += _cell(column, extra, key)
        return found


def _cell(
    column: dict[Hashable, Cell], extra: Mapping[Any, Any], key: Hashable
) -> Collection[Need]:
    try:
        return column.get(extra[key], ()) if key in extra else ()
    except Exception:  # of a value that is not hashable, and may equal one that is
        return list(chain.from_iterable(column.values()))
