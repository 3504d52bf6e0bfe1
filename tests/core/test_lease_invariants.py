"""What must always hold of checkouts: the machine that tries to break the core, in a crowd.

A conn or two with several places, many who want them, whole or a place, and little else: here conns
are kept for those who want them whole, which hardly ever comes about where anything goes.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from connpool.conn import Reply
from connpool.core import ANY, Standing, Work
from connpool.errors import Busy, Closed
from tests.core.bench import Bench
from tests.core.machines import STEPS, Machine, which
from tests.core.test_invariants import is_plain, is_red

KINDS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ("a", ("m",)),
    ("a", ("m", "n")),
    (["a", "b"], ("m",)),
)
# What is asked for; mostly what everybody else asks for, too.
WISHES: tuple[dict[str, Any], ...] = (
    *({},) * 6,
    {"method": "n"},
    {"method": ANY},
    {"filter": is_plain},
    {"filter": is_red},
    {"resource": "b"},
    {"by": "round_robin"},
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"capacity": 1},
    {"capacity": 2},
    {"capacity": 4},
    {"extra": "red"},
    {"extra": None},
    {"methods": ("m",)},
    {"methods": ("m", "n")},
    {"ttl": 1.0},
    {"ttl": None},
)

kinds = st.sampled_from(KINDS)
capacities = st.sampled_from((2, 3, 4, 1))
patience = st.sampled_from((math.inf, math.inf, math.inf, 1.0, 2.0))
wishes = st.builds(
    lambda wish, who, timeout: {"method": "m", **wish, "who": who, "timeout": timeout},
    st.sampled_from(WISHES),
    st.sampled_from((..., ..., "ann", "bob", None)),  # ...: somebody new
    patience,
)


class LeaseMachine(Machine):
    """Checks out, calls and gives back; conns die, rest and leave now and then."""

    @initialize(kinds=st.lists(kinds, min_size=1, max_size=2), capacity=capacities)
    def begin(self, kinds: list[Any], capacity: int) -> None:
        self.start(Bench())
        for kind in kinds:
            self.add(kind, capacity)

    @precondition(lambda self: self.bench.core.live < 3)
    @rule(kind=kinds, capacity=capacities)
    def add(self, kind: Any, capacity: int) -> None:
        permit = self.do(self.bench.admit, *kind, capacity, revive=True)
        if permit is not None:
            self.opened(permit, 0.0)

    # -- callers -------------------------------------------------------------------------------

    @rule(wish=wishes)
    def ask(self, wish: dict[str, Any]) -> None:
        if not self.waits(wish["who"]):
            self.follow(self.tickets, self.do(self.bench.ask, **wish))

    @rule(wish=wishes)
    def lease(self, wish: dict[str, Any]) -> None:
        if not self.waits(wish["who"]):
            self.follow(self.leases, self.do(self.bench.lease, **wish))

    @rule(wish=wishes)
    def share(self, wish: dict[str, Any]) -> None:
        if not self.waits(wish["who"]):
            self.follow(self.leases, self.do(self.bench.lease, whole=False, **wish))

    @precondition(lambda self: self.held())
    @rule()
    def give_back(self) -> None:
        """In the order in which they were had."""
        self.release(0)

    @precondition(lambda self: self.granted())
    @rule(which=which, said=st.sampled_from((Closed(), Busy(1.0), Reply(1, cooldown=1.0))))
    def end(self, which: int, said: Any) -> None:
        granted = self.granted()
        self.conclude(granted[which % len(granted)], said, True)

    @precondition(lambda self: self.bench.core.waiting)
    @rule(which=which)
    def lose_patience(self, which: int) -> None:
        """Somebody leaves the line, most often the one it is all about."""
        kept = list(self.claims().values())
        everybody = self.tickets + self.leases
        waiting = kept or [t for t in everybody if t.standing is Standing.QUEUED]
        self.do(self.bench.cancel, waiting[which % len(waiting)])

    # -- conns ---------------------------------------------------------------------------------

    @precondition(lambda self: self.bench.permits)
    @rule(capacity=capacities)
    def work(self, capacity: int) -> None:
        """Do what is to be opened and closed; what comes back may have other places."""
        while self.bench.permits:
            permit = self.bench.permits.pop(0)
            if permit.work is Work.CLOSE:
                self.do(self.bench.closed, permit)
            else:
                permit.entry.conn.capacity = capacity
                self.opened(permit, 0.0)

    @precondition(lambda self: self.members())
    @rule(which=which, changes=st.sampled_from(CHANGES))
    def update(self, which: int, changes: dict[str, Any]) -> None:
        members = self.members()
        id = members[which % len(members)].id
        self.do(self.bench.at, self.bench.now)
        self.do(self.bench.update, "a", filter=lambda info: info.id == id, **changes)

    @precondition(lambda self: len(self.members()) > 1)
    @rule(which=which, stays=st.booleans())
    def pop(self, which: int, stays: bool) -> None:
        """A conn is taken out, or nearly so."""
        members = self.members()
        pop = self.do(self.bench.pop, members[which % len(members)])
        if pop is not None and stays:
            self.do(self.bench.unpop, pop)


LeaseMachine.TestCase.settings = STEPS
TestLeaseInvariants = LeaseMachine.TestCase
