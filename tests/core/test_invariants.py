"""What must always hold, whatever is done in whatever order: a machine that tries to break it.

`audit` recounts everything after each step; what only shows over several of them is in `machines`:
who is served in which order and when, and that every conn that was opened is closed once or handed
over.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from connpool.conn import Reply
from connpool.core import ANY, Work, check_filter, sticky
from connpool.core.entry import LIVE
from connpool.errors import InitError, PoolTimeout
from tests.core.bench import Bench
from tests.core.machines import ENDS, STEPS, Machine, which

RESOURCES = ("a", "b", ["a", "b"])
METHODS = (("m",), ("n",), ("m", "n"))
FAILURES = (
    OSError("refused"),
    InitError(retry_after=0),
    InitError(retry_after=5.0),
    InitError(retry_after=math.inf),
)


def is_red(info: Any) -> bool:
    return bool(info.extra == "red")


def is_plain(info: Any) -> bool:
    return info.extra is None


RED = {"colour": "red", "tier": 1}
BLUE = {"colour": "blue", "tier": 1}
WHERES = ({"colour": "red"}, {"tier": 1}, {"tier": 1, "colour": "blue"}, {"shape": "round"})

# Plain data, so that a failure shrinks to something that can be read.
resources = st.sampled_from(RESOURCES)
one_resource = st.sampled_from(("a", "b"))
methods = st.sampled_from(METHODS)
filters = st.one_of(
    st.sampled_from((None, None, is_red, is_plain)), st.sampled_from(WHERES).map(check_filter)
)
extras = st.sampled_from((None, "red", RED, RED, BLUE))
ttls = st.sampled_from((None, None, 0.0, 2.0, 30.0))
revives = st.sampled_from((False, True, "force"))
rests = st.sampled_from((0.0, 0.0, 1.0))
askers = st.sampled_from((None, "ann", "bob"))
lessees = st.sampled_from((..., ..., None, "ann", "bob"))  # ...: somebody new
timeouts = st.sampled_from((0.0, 1.0, 10.0, math.inf))
capacities = st.sampled_from((1, 1, 2, 3))
bys = st.sampled_from((None, None, "least_wait", "round_robin", "two_choices", sticky("key")))


class CoreMachine(Machine):
    """Does anything at any time."""

    @initialize(
        max_size=st.sampled_from((None, 3)),
        max_waiting=st.sampled_from((None, 2)),
        max_connecting=st.sampled_from((1, 2)),
        indexed=st.booleans(),
    )
    def begin(self, indexed: bool, **options: Any) -> None:
        self.start(Bench(**options, connect_timeout=5.0), indexed=indexed)

    # -- conns ---------------------------------------------------------------------------------

    @rule(
        resource=resources,
        names=methods,
        capacity=capacities,
        ttl=ttls,
        revive=revives,
        extra=extras,
        rest=rests,
    )
    def add(self, resource: Any, names: Any, capacity: int, rest: float, **known: Any) -> None:
        permit = self.do(self.bench.admit, resource, names, capacity, **known)
        if permit is not None:
            self.opened(permit, rest)

    @rule(resource=resources, names=methods, capacity=capacities, ttl=ttls, revive=revives)
    def begin_to_add(self, resource: Any, names: Any, capacity: int, **known: Any) -> None:
        permit = self.do(self.bench.admit, resource, names, capacity, **known)
        if permit is not None:
            self.admitted.append(permit)

    @precondition(lambda self: self.bench.permits or self.admitted)
    @rule(which=which, fails=st.booleans(), failure=st.sampled_from(FAILURES), rest=rests)
    def work(self, which: int, fails: bool, failure: Exception, rest: float) -> None:
        """One permit comes back, in whatever order."""
        pending = self.bench.permits + self.admitted
        permit = pending[which % len(pending)]
        self.take_over(permit)
        if permit.work is Work.CLOSE:
            self.do(self.bench.closed, permit)
        elif fails:
            self.do(self.bench.failed, permit, failure)
        else:
            self.opened(permit, rest)

    @precondition(lambda self: any(p.work is Work.OPEN for p in self.bench.permits))
    @rule(resource=resources, names=methods, capacity=capacities)
    def come_back_as_another(self, resource: Any, names: Any, capacity: int) -> None:
        """A revived conn names other resources and methods than before."""
        permit = self.bench.opening()
        conn = permit.entry.conn
        conn.resource, conn.names, conn.capacity = resource, names, capacity
        self.opened(permit, 0.0)

    # -- callers -------------------------------------------------------------------------------

    @rule(
        resource=one_resource,
        method=st.sampled_from(("m", "n", ANY)),
        filter=filters,
        by=bys,
        who=askers,
        timeout=timeouts,
    )
    def ask(self, resource: str, method: Any, **wish: Any) -> None:
        if not self.waits(wish["who"]):
            self.follow(self.tickets, self.do(self.bench.ask, resource, method, **wish))

    @rule(
        resource=one_resource,
        method=st.sampled_from((ANY, ANY, "m")),
        filter=filters,
        by=bys,
        who=lessees,
        timeout=timeouts,
        whole=st.booleans(),
    )
    def lease(self, resource: str, method: Any, **wish: Any) -> None:
        if not self.waits(wish["who"]):
            self.follow(self.leases, self.do(self.bench.lease, resource, method, **wish))

    @precondition(lambda self: self.granted())
    @rule(which=which, said=st.sampled_from(ENDS), again=st.booleans())
    def end(self, which: int, said: Reply[Any] | BaseException, again: bool) -> None:
        granted = self.granted()
        self.conclude(granted[which % len(granted)], said, again)

    @rule(resource=one_resource, method=st.sampled_from(("m", "n", ANY)), filter=filters, by=bys)
    def route(self, resource: str, method: Any, filter: Any, by: Any) -> None:
        """A conn without a lease is alive, and nobody has it for himself."""
        core, now = self.bench.core, self.bench.now

        def pick() -> Any:
            named = None if method is ANY else method
            conn = core.glance(resource, named, by, now) if filter is None else None
            try:
                return core.route(resource, method, filter, by, now) if conn is None else conn
            except PoolTimeout:
                known = [e for e in core.search(resource, filter, now) if e.state in LIVE]
                able = [e for e in known if e.group and method in (ANY, *e.group.methods)]
                assert all(entry.whole for entry in able)
                raise
            finally:
                self.bench.look()

        conn = self.do(pick)
        if conn is not None:
            (entry,) = (entry for entry in core.entries.values() if entry.conn is conn)
            assert entry.state in LIVE
            assert not entry.whole
            assert now < entry.expires

    # -- users ---------------------------------------------------------------------------------

    @precondition(lambda self: self.members())
    @rule(which=which, ago=st.integers(0, 1))
    def lose(self, which: int, ago: int) -> None:
        """A conn says by itself that it is dead, or says so of an earlier life."""
        members = self.members()
        entry = members[which % len(members)]

        def tell() -> None:
            try:
                self.bench.core.lost(entry, entry.lives - ago, EOFError(), self.bench.now)
            finally:
                self.bench.look()

        self.do(tell)

    @precondition(lambda self: self.members())
    @rule(which=which, value=extras)
    def extra(self, which: int, value: Any) -> None:
        self.do(self.bench.at, self.bench.now)  # else who is served now was so by the old value
        if members := self.members():
            self.do(self.bench.extra, members[which % len(members)], value)

    @rule(
        resource=one_resource,
        filter=filters,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "extra": extras,
                "ttl": ttls,
                "revive": revives,
                "methods": methods,
                "capacity": capacities,
            },
        ),
    )
    def update(self, resource: str, filter: Any, changes: dict[str, Any]) -> None:
        self.do(self.bench.at, self.bench.now)
        self.do(self.bench.update, resource, filter=filter, **changes)

    @precondition(lambda self: self.members())
    @rule(which=which, who=askers)
    def pop(self, which: int, who: Any) -> None:
        members = self.members()
        pop = self.do(self.bench.pop, members[which % len(members)], who=who)
        if pop is not None:
            self.pops.append(pop)

    @rule(resource=one_resource, filter=filters)
    def pop_all(self, resource: str, filter: Any) -> None:
        bench = self.bench
        pop = self.do(bench.pop, *bench.core.search(resource, filter, bench.now))
        if pop is not None:
            self.pops.append(pop)

    @precondition(lambda self: self.pops)
    @rule(which=which)
    def unpop(self, which: int) -> None:
        self.do(self.bench.unpop, self.pops[which % len(self.pops)])

    # -- the end -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.tickets) > 5)
    @rule()
    def close(self) -> None:
        self.do(self.bench.close)


CoreMachine.TestCase.settings = STEPS
TestInvariants = CoreMachine.TestCase
