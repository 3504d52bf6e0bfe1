"""Hunches: which conns passed a filter that is a function, when they were last looked for.

Owns that memory, of one group.  Refuses to believe it: a function may depend on anything, so who is
remembered is asked again before it is lent, and that one did not pass is never remembered.

Functions are told apart by their code, not by what they close over: a lambda is a new object each
time it is written, and a wrong hunch costs a question or two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .entry import Entry

# How many conns are remembered for one function, and for how many functions.
MOST_PASSED = 8
MOST_FUNCTIONS = 100


class Hunches:
    """The ids of those that passed, by function; the one that was lent last comes last."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        self.passed: dict[Any, deque[int]] = {}

    def of(self, filter: Callable[[Any], Any], members: Mapping[int, Entry]) -> list[Entry]:
        """Those members that passed lately."""
        return [members[id] for id in self.passed.get(_code(filter), ()) if id in members]

    def note(self, filter: Callable[[Any], Any], entry: Entry) -> None:
        """`entry` has passed, and was not easily found."""
        code = _code(filter)
        if code not in self.passed and len(self.passed) >= MOST_FUNCTIONS:
            self.passed.clear()
        passed = self.passed.setdefault(code, deque(maxlen=MOST_PASSED))
        if entry.id in passed:
            passed.remove(entry.id)
        passed.append(entry.id)


def _code(filter: Callable[[Any], Any]) -> Any:
    return filter.__code__ if isinstance(filter, FunctionType) else type(filter)
