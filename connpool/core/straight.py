"""The straight path: a conn is free, somebody takes it, and it comes back to where it was.

Owns the doors that may be entered outside a turn.  Refuses whatever is out of the ordinary: then it
says so and has lent or taken back nothing, and the caller takes a turn.

Invariant: what is done here is what `take` and `give`, `lease` and `release` would have done, in a
turn, at one instant.

**Strokes.**  Two lock pairs cost as much as all else that is done for a call.  So the places where
a conn changes hands are *strokes*, that need none: one line, in which nothing is called before the
last thing it does.  CPython with its global interpreter lock lets another thread run, a signal be
handled or a garbage collection begin between two instructions only where a function is called or
returns, or a loop goes round; and a debugger is told of lines, not of parts of one.  So a stroke is
as good as a turn, as long as no turn is under way: `in_turn` says so, and is part of what each
stroke looks at first.  A driver with several threads sets it when it has taken the lock, and takes
it back before it lets go; where the interpreter does not promise the above it never takes it back,
and every stroke gives way to a turn.  (tests/core/test_straight.py reads the instructions of each
stroke, so an interpreter that breaks the promise breaks the test.)

What is written outside a stroke is written by who holds the conn, to fields that nobody else
writes while he does.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .entry import Entry
from .leasing import Leasing
from .routing import GLANCES, sticky


class Straight(Leasing):
    """The eleventh storey of the core."""

    __slots__ = ()

    def borrow(self, resource: Hashable, method: Hashable, who: Any, now: float) -> Entry | None:
        """The conn that is free for longest, for a call; None: then try again in a turn."""
        try:
            free = self._listings[resource].offers[method].free
            if not free or now >= self.due:
                return None
            # A stroke: see the head of the module.
            # fmt: off
            if not self.in_turn and (entry := free[0]).quick and not entry.in_use: entry.in_use, entry.listed = 1, False; del free[0]  # noqa: E501, E701, E702
            else: return None  # noqa: E701
            # fmt: on
        except LookupError:
            return None
        entry.user = who
        entry.since = now
        return entry

    def put_back(self, entry: Entry, method: Hashable, started: float, now: float) -> bool:
        """A call was answered, which is counted; False: its conn has still to be `returned`."""
        try:
            stat = entry.stats[method]  # type: ignore[index]  # None is one of the exceptions
        except Exception:  # None is no table, and a method may raise whatever it likes
            stat = entry.stat(method)
        stat.answers += 1
        spent = stat.spent
        stat.spent = spent + (now - started - spent * stat.fading)
        entry.last_call = now
        if now >= self.due:
            return False
        # A stroke: see the head of the module.
        # fmt: off
        if not self.in_turn and entry.quick and not (group := entry.group).gate: entry.in_use, entry.listed = 0, True; group.free.append(entry); return True  # type: ignore[union-attr]  # noqa: E501, E701, E702
        # fmt: on
        return False

    def hold(self, resource: Hashable, method: Hashable, who: Any, now: float) -> Entry | None:
        """The same as `borrow`, for a checkout that shares with nobody."""
        try:
            free = self._listings[resource].offers[method].free
            if not free or now >= self.due or not self.leasing:
                return None
            # A stroke: see the head of the module.
            # fmt: off
            if not self.in_turn and (entry := free[0]).quick and not entry.in_use: entry.in_use, entry.listed, entry.whole = 1, False, True; del free[0]  # noqa: E501, E701, E702
            else: return None  # noqa: E701
            # fmt: on
        except LookupError:
            return None
        entry.user = who
        entry.since = now
        return entry

    def hand_back(self, entry: Entry, who: Any, now: float) -> bool:
        """Such a checkout is over, and its conn is well; False: it has still to be `release`d."""
        if now >= self.due:
            return False
        # A stroke: see the head of the module.
        # fmt: off
        if not self.in_turn and entry.quick and not (group := entry.group).gate and entry.user is who and entry.whole: entry.checkouts += 1; entry.last_call = now; entry.in_use, entry.listed, entry.whole = 0, True, False; group.free.append(entry); return True  # type: ignore[union-attr]  # noqa: E501, E701, E702
        # fmt: on
        return False

    def glance(self, resource: Hashable, method: Hashable, by: Any, now: float) -> Any:
        """What `route` would give, where that changes nothing in the core; None: ask `route`.

        It reads a roll that is never changed once it is made, and a counter that hands out each
        number once; if the roll is out of date, or anything is due, it gives None.  That a conn may
        be lost right after it was given is in the nature of `route`.  None is any method.
        """
        if now < self.due:
            try:
                roll = self._listings[resource].rolls[method]
                if by is None and not self.leasing:  # what `GLANCES` would do, and mostly wanted
                    return roll.conns[next(roll.count) % roll.size]
                if by.__class__ is sticky:
                    entry = roll.stuck[by.key]
                    return None if entry.whole else entry.conn
                return GLANCES[by](roll, self._rng, self.leasing)
            except Exception:  # no conn, no strategy, or a key that raises: `route` says which
                return None
        return None
