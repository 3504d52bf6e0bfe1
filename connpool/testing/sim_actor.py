"""Actors: those to whom things happen.

Owns their numbers.  Refuses to know what happens.

Invariant: what is left to chance for an actor follows from his number and from how much was planned
for him before, so that it stays the same whoever else is there.
"""

from __future__ import annotations


class Actor:
    """Somebody with a number, to whom things happen."""

    __slots__ = ("events", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.events = 0  # how many things were planned for him
