"""Any history with filters given as data is that of the same one with functions.

Two cores live through the same: one is asked with data, and a few conns are many to it, so that it
looks them up; the other with functions that say the same.  The same callers are served, by the
same conns, in the same order and with the same errors.  Only which of several free conns is taken
may differ: that choice is looked at, and the second core is told to make it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from connpool.conn import Reply
from connpool.core import ANY, Entry, Pop, Standing, Ticket, Work, check_filter
from connpool.core.candidates import lendable
from connpool.errors import Busy, Closed, PoolError
from tests.core.bench import Bench
from tests.core.machines import STEPS, which

WHERES = (
    {"colour": "red"},
    {"colour": "blue"},
    {"tier": 1},
    {"tier": 1, "colour": "blue"},
    {"tags": frozenset({1})},
)
EXTRAS = (
    None,
    {"colour": "red", "tier": 1},
    {"colour": "red", "tier": 2},
    {"colour": "blue", "tier": 1.0},
    {"colour": "blue", "tags": {1}},
)
ENDS = (
    Reply(1, cooldown=1.0),
    Reply(1, closed=True),
    Closed(),
    Busy(1.0),
    OSError("torn"),
)


def has(items: dict[str, Any], info: Any) -> bool:
    """What a filter given as data means, said once more."""
    extra = info.extra
    return isinstance(extra, dict) and all(
        key in extra and extra[key] == value for key, value in items.items()
    )


def is_number(id: int, info: Any) -> bool:
    return bool(info.id == id)


# One function for each: those who wait with the same function have the same need.
SAYINGS = [(check_filter(items), partial(has, items)) for items in WHERES]
sayings = st.sampled_from([(None, None), *SAYINGS])
extras = st.sampled_from(EXTRAS)
Saying = tuple[Any, Callable[[Any], bool] | None]


class TwinMachine(RuleBasedStateMachine):
    """Lives through the same twice."""

    @initialize(max_waiting=st.sampled_from((None, 3)))
    def begin(self, max_waiting: int | None) -> None:
        self.data = Bench(max_waiting=max_waiting)
        self.plain = Bench(max_waiting=max_waiting)
        self.data.core.few = 0
        self.pairs: list[tuple[Ticket, Ticket]] = []
        self.pops: list[tuple[Pop, Pop]] = []

    def both(self, act: Callable[[Bench, int], Any]) -> list[Any]:
        """Do the same in both: what comes of it is the same."""
        results = [attempt(partial(act, bench, at)) for at, bench in enumerate(self.benches)]
        assert kind(results[0]) == kind(results[1])
        self.compare()
        return results

    @property
    def benches(self) -> tuple[Bench, Bench]:
        return self.data, self.plain

    def compare(self) -> None:
        for ticket, twin in self.pairs:
            assert ticket.standing is twin.standing
            assert kind(ticket.error) == kind(twin.error)
            if ticket.standing is Standing.GRANTED:
                assert ticket.entry is not None
                assert twin.entry is not None
                assert ticket.entry.id == twin.entry.id
        numbers = [{t: n for n, t in enumerate(side)} for side in zip(*self.pairs, strict=True)]
        if numbers:
            woken = [
                [known[t] for t in bench.woken if t in known]
                for known, bench in zip(numbers, self.benches, strict=True)
            ]
            assert woken[0] == woken[1]

    # -- callers -------------------------------------------------------------------------------

    @rule(
        saying=sayings,
        method=st.sampled_from(("m", "n", ANY)),
        timeout=st.sampled_from((0.0, 2.0, math.inf)),
        whole=st.booleans(),
    )
    def ask(self, saying: Saying, **wish: Any) -> None:
        asked = attempt(partial(self.data.ask, filter=saying[0], **wish))
        told = saying[1]
        if isinstance(asked, Ticket) and asked.standing is Standing.GRANTED:
            assert asked.entry is not None
            self.is_a_good_choice(asked.entry.id, told, **wish)
            told = partial(is_number, asked.entry.id)
        twin = attempt(partial(self.plain.ask, filter=told, **wish))
        assert kind(asked) == kind(twin)
        if isinstance(asked, Ticket):
            self.pairs.append((asked, twin))
        self.compare()

    def is_a_good_choice(self, id: int, told: Any, method: Any, whole: bool, timeout: Any) -> None:
        """It could be lent, and nobody uses it, if there is such a one."""
        able = [
            entry
            for entry in self.plain.core.entries.values()
            if lendable(entry) and entry.group and method in (ANY, *entry.group.methods)
            and (told is None or told(entry)) and not (whole and entry.in_use)
        ]  # fmt: skip
        chosen = self.plain.core.entries[id]
        assert chosen in able
        assert not chosen.in_use or all(entry.in_use for entry in able)

    def granted(self) -> list[tuple[Ticket, Ticket]]:
        return [pair for pair in self.pairs if pair[0].standing is Standing.GRANTED]

    @precondition(lambda self: self.granted())
    @rule(which=which, said=st.sampled_from((None, None, None, *ENDS)))
    def end(self, which: int, said: Any) -> None:
        pair = self.granted()[which % len(self.granted())]
        if pair[0].whole:
            self.both(lambda bench, at: bench.release(pair[at]))
        elif said is None:
            self.both(lambda bench, at: bench.answer(pair[at]))
        else:
            self.both(lambda bench, at: bench.end(pair[at], said))

    @precondition(lambda self: self.pairs)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        pair = self.pairs[which % len(self.pairs)]
        self.both(lambda bench, at: bench.cancel(pair[at]))

    # -- conns ---------------------------------------------------------------------------------

    @rule(
        methods=st.sampled_from((("m",), ("m",), ("m", "n"))),
        capacity=st.sampled_from((1, 1, 2)),
        extra=extras,
        revive=st.booleans(),
    )
    def add(self, **known: Any) -> None:
        self.both(lambda bench, at: bench.conn(**known).id)

    @precondition(lambda self: self.data.permits)
    @rule()
    def work(self) -> None:
        def one(bench: Bench, at: int) -> None:
            permit = bench.permits.pop(0)
            bench.opened(permit) if permit.work is Work.OPEN else bench.closed(permit)

        self.both(one)

    @precondition(lambda self: self.members())
    @rule(which=which, extra=extras)
    def extra(self, which: int, extra: Any) -> None:
        members = self.members()
        id = members[which % len(members)].id
        self.both(lambda bench, at: bench.extra(bench.core.entries[id], extra))

    def members(self) -> list[Entry]:
        return list(self.data.core.entries.values())

    @rule(
        saying=sayings,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "extra": extras,
                "methods": st.sampled_from((("m",), ("n",))).map(frozenset),
                "capacity": st.integers(1, 3),
            },
        ),
    )
    def update(self, saying: Saying, changes: dict[str, Any]) -> None:
        self.both(lambda bench, at: bench.update(filter=saying[at], **changes))

    @rule(saying=sayings)
    def look(self, saying: Saying) -> None:
        def ids(bench: Bench, at: int) -> list[int]:
            return [info.id for info in bench.core.infos(saying[at], bench.now)]

        shown, told = self.both(ids)
        assert shown == told

    @rule(saying=sayings)
    def pop(self, saying: Saying) -> None:
        def begin(bench: Bench, at: int) -> Pop:
            return bench.pop(*bench.core.search("a", saying[at], bench.now))

        one, other = self.both(begin)
        if isinstance(one, Pop):
            self.pops.append((one, other))

    @precondition(lambda self: self.pops)
    @rule(which=which)
    def unpop(self, which: int) -> None:
        pair = self.pops[which % len(self.pops)]
        self.both(lambda bench, at: bench.unpop(pair[at]))

    @rule(seconds=st.sampled_from((0.5, 1.0, 2.0)))
    def wait(self, seconds: float) -> None:
        self.both(lambda bench, at: bench.at(bench.now + seconds))


def attempt(act: Callable[[], Any]) -> Any:
    """What comes of it: what it gives, or the error that the pool refuses it with."""
    try:
        return act()
    except PoolError as error:
        return error


def kind(result: Any) -> Any:
    """What must be the same of two results."""
    if isinstance(result, Ticket):
        return (Ticket, result.standing, result.entry and result.entry.id)
    if isinstance(result, BaseException):
        return (type(result), getattr(result, "candidates", None))
    return type(result)


TwinMachine.TestCase.settings = STEPS
TestTwins = TwinMachine.TestCase
