"""What must always hold, whatever is done in whatever order: a machine that tries to break it.

`audit` recounts everything after each step; here is what only shows over several of them: who is
served in which order and when, and that every conn that was opened is closed once or handed over.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from connpool.conn import Reply
from connpool.core import ANY, Entry, Permit, Pop, Standing, State, Ticket, Work, sticky
from connpool.errors import Busy, CallError, Closed, InitError, PoolError
from tests.core.bench import Bench

RESOURCES = ("a", "b", ["a", "b"])
METHODS = (("m",), ("n",), ("m", "n"))
ENDS: tuple[Reply[Any] | BaseException, ...] = (
    Reply(1),
    Reply(1, cooldown=1.0),
    Reply(1, closed=True),
    Reply(1, cooldown=-1.0),
    Closed(),
    Busy(1.0),
    Busy(),
    CallError(cooldown=0.5),
    CallError(closed=True),
    OSError("torn"),
    KeyError("no harm"),
    KeyboardInterrupt(),
)
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


# Plain data, so that a failure shrinks to something that can be read.
resources = st.sampled_from(RESOURCES)
one_resource = st.sampled_from(("a", "b"))
methods = st.sampled_from(METHODS)
filters = st.sampled_from((None, None, is_red, is_plain))
extras = st.sampled_from((None, "red"))
ttls = st.sampled_from((None, None, 0.0, 2.0, 30.0))
revives = st.sampled_from((False, True, "force"))
rests = st.sampled_from((0.0, 0.0, 1.0))
askers = st.sampled_from((None, "ann", "bob"))
capacities = st.sampled_from((1, 1, 2, 3))
bys = st.sampled_from((None, None, "least_wait", "round_robin", "two_choices", sticky("key")))
which = st.integers(0, 7)


class CoreMachine(RuleBasedStateMachine):
    """Does anything at any time; checks who is served, and what is opened and closed."""

    @initialize(
        max_size=st.sampled_from((None, 3)),
        max_waiting=st.sampled_from((None, 2)),
        max_connecting=st.sampled_from((1, 2)),
    )
    def begin(self, **options: Any) -> None:
        self.bench = Bench(**options, connect_timeout=5.0)
        self.failed = False  # then the end is not looked at
        self.tickets: list[Ticket] = []
        self.pops: list[Pop] = []
        self.admitted: list[Permit] = []  # permits that a driver carries out by itself
        self.opens: Counter[Entry] = Counter()
        self.closes: Counter[Entry] = Counter()
        self.handed: dict[Entry, int] = {}
        self.seen: set[Permit] = set()

    # -- what is checked -----------------------------------------------------------------------

    def do(self, door: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Go through a door; what the pool may refuse it may refuse."""
        bench = self.bench
        before = [ticket for ticket in self.tickets if ticket.standing is Standing.QUEUED]
        try:
            return door(*args, **kwargs)
        except PoolError:
            return None
        except BaseException:
            self.failed = True
            raise
        finally:
            for ticket in before:
                if ticket.standing is Standing.GRANTED:
                    assert bench.now <= ticket.deadline
                    self.was_granted(ticket)
                elif ticket.standing is Standing.FAILED:
                    assert ticket.error is not None
            self.count()

    def count(self) -> None:
        """How often each conn was opened and closed, and whether it was handed over open."""
        for permit in self.bench.permits:
            if permit.work is Work.CLOSE and permit not in self.seen:
                self.seen.add(permit)
                self.closes[permit.entry] += 1
        for pop in self.bench.popped:
            for entry in pop.entries if pop.infos else ():
                self.handed[entry] = self.opens[entry] - self.closes[entry]
        self.bench.popped.clear()
        for entry, opens in self.opens.items():
            assert opens - 1 <= self.closes[entry] <= opens

    def was_granted(self, ticket: Ticket) -> None:
        """The conn is as good as its word, and nobody who came earlier was passed over."""
        entry, now = ticket.entry, self.bench.now
        assert entry is not None
        assert entry.group is not None
        assert entry.in_use <= entry.capacity
        assert now < entry.expires
        assert ticket.method is ANY or ticket.method in entry.group.methods
        assert ticket.filter is None or ticket.filter(entry)
        for listing in entry.group.listings:
            for other in listing.line.tickets():
                able = other.method is ANY or other.method in entry.group.methods
                if able and (other.filter is None or other.filter(entry)):
                    assert ticket.order < other.order

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

    def opened(self, permit: Permit, rest: float) -> None:
        self.opens[permit.entry] += 1
        self.do(self.bench.opened, permit, rest)

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

    def take_over(self, permit: Permit) -> None:
        for pending in (self.bench.permits, self.admitted):
            if permit in pending:
                pending.remove(permit)

    # -- callers -------------------------------------------------------------------------------

    @rule(
        resource=one_resource,
        method=st.sampled_from(("m", "n", ANY)),
        filter=filters,
        by=bys,
        who=askers,
        timeout=st.sampled_from((0.0, 1.0, 10.0, math.inf)),
    )
    def ask(self, resource: str, method: Any, **wish: Any) -> None:
        ticket = self.do(self.bench.ask, resource, method, **wish)
        self.follow(ticket)

    def follow(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            self.tickets.append(ticket)
            if ticket.standing is Standing.GRANTED:
                assert ticket.entry is not None
                assert ticket.entry.state is State.READY
                self.was_granted(ticket)

    def granted(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.standing is Standing.GRANTED]

    @precondition(lambda self: self.granted())
    @rule(which=which)
    def answer(self, which: int) -> None:
        granted = self.granted()
        self.do(self.bench.answer, granted[which % len(granted)])

    @precondition(lambda self: self.granted())
    @rule(which=which, said=st.sampled_from(ENDS), again=st.booleans())
    def end(self, which: int, said: Reply[Any] | BaseException, again: bool) -> None:
        granted = self.granted()
        ticket = granted[which % len(granted)]
        ended = self.do(self.bench.end, ticket, said)
        if ended.moves and again and isinstance(said, BaseException):
            self.follow(self.do(self.bench.submit, ticket.again(said)))

    @precondition(lambda self: self.tickets)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        alive = [t for t in self.tickets if t.standing is not Standing.OVER] or self.tickets
        self.do(self.bench.cancel, alive[which % len(alive)])

    # -- users ---------------------------------------------------------------------------------

    def members(self) -> list[Entry]:
        return [e for e in self.bench.core.entries.values() if e.state is not State.OPENING]

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

    # -- time ----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.01, 0.5, 1.0, 5.0, 30.0)), late=st.booleans())
    def wait(self, seconds: float, late: bool) -> None:
        """Time passes, and the driver looks at the clock, or does not get to it."""
        self.bench.now += seconds
        if not late:
            self.do(self.bench.at, self.bench.now)

    @precondition(lambda self: self.bench.core.due < math.inf)
    @rule()
    def wait_until_due(self) -> None:
        """It is the very instant at which something is due."""
        self.do(self.bench.at, max(self.bench.now, self.bench.core.due))

    @precondition(lambda self: self.bench.core.due < math.inf)
    @rule()
    def sleep_until_due(self) -> None:
        """It is that instant, and somebody else comes through a door first."""
        self.bench.now = max(self.bench.now, self.bench.core.due)

    # -- the end -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.tickets) > 5)
    @rule()
    def close(self) -> None:
        self.do(self.bench.close)

    def teardown(self) -> None:
        """Close, abandon, and let everything come back late: nothing is left of it."""
        if self.failed:
            return
        bench = self.bench
        self.do(bench.close)
        self.do(bench.abandon)
        assert not bench.core.entries
        assert not bench.core.listings()
        assert bench.core.live == bench.core.waiting == 0
        while pending := bench.permits + self.admitted:
            self.take_over(pending[0])
            if pending[0].work is Work.CLOSE:
                self.do(bench.closed, pending[0])
            else:
                self.opened(pending[0], 0.0)
        for ticket in self.granted():
            self.do(bench.answer, ticket)
        assert not bench.core.permits
        assert not bench.core.busy(None)
        for entry, opens in self.opens.items():
            assert opens - self.closes[entry] == self.handed.get(entry, 0)


CoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("CONNPOOL_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
TestInvariants = CoreMachine.TestCase
