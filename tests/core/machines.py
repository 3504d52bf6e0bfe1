"""What the machines that try to break the core have in common: a core, those who use it, and what
is checked after each step.

Owns the rules by which calls and checkouts end and time passes; what is asked for, and what else
may happen, each machine says for itself.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from connpool.conn import Reply, has
from connpool.core import ANY, Entry, Outcome, Permit, Pop, Standing, State, Ticket, Work
from connpool.errors import Busy, CallError, Closed, PoolError
from tests.core.bench import Bench

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
LEAVINGS = (
    Outcome(),
    Outcome(rest=1.0),
    Outcome(error=KeyError("no harm")),
    Outcome(end="closed", moves=True),
    Outcome(end="dead", moves=True),
    Outcome(end="dead", error=OSError("torn")),
    Outcome(end="unclean"),
    Outcome(end="interrupted"),
)
which = st.integers(0, 7)

STEPS = settings(
    max_examples=int(os.environ.get("CONNPOOL_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)


class Machine(RuleBasedStateMachine):
    """Checks who is served, and what is opened and closed."""

    def start(self, bench: Bench, *, indexed: bool = False) -> None:
        """Begin with a new core; with `indexed`, one that takes a few conns for many."""
        if indexed:
            bench.core.few = 0
        self.bench = bench
        self.failed = False  # then the end is not looked at
        self.tickets: list[Ticket] = []
        self.leases: list[Ticket] = []
        self.over = self.lost = 0  # leases that have ended, and those of them that were lost
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
        everybody = self.tickets + self.leases
        before = [ticket for ticket in everybody if ticket.standing is Standing.QUEUED]
        claims = self.claims()
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
                    self.was_not_kept(ticket, claims)
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

    def claims(self) -> dict[Entry, Ticket]:
        """The conns that are kept, and for whom."""
        entries = self.bench.core.entries.values()
        return {entry: entry.claim.tickets[0] for entry in entries if entry.claim is not None}

    def was_not_kept(self, ticket: Ticket, before: dict[Entry, Ticket]) -> None:
        """Nobody gets a place of a conn that was, and is, kept for one who came earlier."""
        entry = ticket.entry
        assert entry is not None
        claimant = before.get(entry)
        if entry.holders.count(ticket.who) > 1:
            return  # who uses a conn that is kept may have more of it
        if claimant is not None and self.claims().get(entry) is claimant:
            assert ticket.order <= claimant.order

    def was_granted(self, ticket: Ticket) -> None:
        """The conn is as good as its word, and nobody who came earlier was passed over.

        Those who wait for a whole conn are, by those who want a place of one that is in use.
        """
        entry, now = ticket.entry, self.bench.now
        assert entry is not None
        assert entry.group is not None
        assert entry.in_use <= entry.capacity
        assert entry.whole == ticket.whole
        assert now < entry.expires
        assert self.fits(ticket, entry)
        if entry.claim is not None and entry.holders.count(ticket.who) > 1:
            return  # who uses a conn that is kept may have more of it
        for listing in entry.group.listings:
            for other in listing.line.tickets():
                able = not (other.whole and entry.in_use > 1 and not entry.whole)
                if able and self.fits(other, entry):
                    assert ticket.order <= other.order

    def fits(self, ticket: Ticket, entry: Entry) -> bool:
        """Whether a conn has the method, and passes the filter."""
        assert entry.group is not None
        if ticket.method is not ANY and not has(entry.group.methods, ticket.method):
            return False
        return ticket.filter is None or bool(ticket.filter(entry))

    # -- conns ---------------------------------------------------------------------------------

    def opened(self, permit: Permit, rest: float) -> None:
        self.opens[permit.entry] += 1
        self.do(self.bench.opened, permit, rest)

    def take_over(self, permit: Permit) -> None:
        for pending in (self.bench.permits, self.admitted):
            if permit in pending:
                pending.remove(permit)

    def members(self) -> list[Entry]:
        return [e for e in self.bench.core.entries.values() if e.state is not State.OPENING]

    # -- callers -------------------------------------------------------------------------------

    def follow(self, among: list[Ticket], ticket: Ticket | None) -> None:
        if ticket is not None:
            among.append(ticket)
            if ticket.standing is Standing.GRANTED:
                assert ticket.entry is not None
                assert ticket.entry.state is State.READY
                self.was_granted(ticket)

    def waits(self, who: Any) -> bool:
        """Whether he is in line: then he asks for nothing else meanwhile."""
        everybody = self.tickets + self.leases
        return who is not None and any(
            ticket.who == who and ticket.standing is Standing.QUEUED for ticket in everybody
        )

    def granted(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.standing is Standing.GRANTED]

    @precondition(lambda self: self.granted())
    @rule(which=which)
    def answer(self, which: int) -> None:
        granted = self.granted()
        self.do(self.bench.answer, granted[which % len(granted)])

    def conclude(self, ticket: Ticket, said: Reply[Any] | BaseException, again: bool) -> None:
        ended = self.do(self.bench.end, ticket, said)
        again = again and not self.waits(ticket.who)
        if ended.moves and again and isinstance(said, BaseException):
            self.follow(self.tickets, self.do(self.bench.submit, ticket.again(said)))

    @precondition(lambda self: self.tickets or self.leases)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        everybody = self.tickets + self.leases
        alive = [t for t in everybody if t.standing is not Standing.OVER] or everybody
        self.do(self.bench.cancel, alive[which % len(alive)])

    # -- checkouts -----------------------------------------------------------------------------

    def held(self) -> list[Ticket]:
        return [lease for lease in self.leases if lease.standing is Standing.GRANTED]

    @precondition(lambda self: self.held())
    @rule(which=which)
    def release(self, which: int) -> None:
        held = self.held()
        self.over += 1
        self.do(self.bench.release, held[which % len(held)])

    @precondition(lambda self: self.held())
    @rule(which=which, said=st.sampled_from(LEAVINGS), again=st.booleans())
    def forfeit(self, which: int, said: Outcome, again: bool) -> None:
        held = self.held()
        lease = held[which % len(held)]
        cause = said.error or OSError("torn")
        self.over += not said.moves
        self.do(self.bench.forfeit, lease, said, cause)
        if said.moves and again and not self.waits(lease.who):
            self.follow(self.leases, self.do(self.bench.submit, lease.again(cause)))

    @precondition(lambda self: self.held())
    @rule(which=which)
    def forsake(self, which: int) -> None:
        held = self.held()
        self.over, self.lost = self.over + 1, self.lost + 1
        self.do(self.bench.forsake, held[which % len(held)])

    @precondition(lambda self: self.leases)
    @rule(which=which, late=st.sampled_from(("release", "forsake", "forfeit")))
    def say_it_late(self, which: int, late: str) -> None:
        """What is said of a lease that is over changes nothing."""
        lease = self.leases[which % len(self.leases)]
        self.do(self.bench.at, self.bench.now)
        entry = lease.entry
        if entry is None or entry.held_by(lease.who):
            return
        before = attrs.asdict(entry, recurse=False)
        args = (Outcome(end="unclean"),) if late == "forfeit" else ()
        self.do(getattr(self.bench, late), lease, *args)
        assert attrs.asdict(entry, recurse=False) == before

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

    # No clock gets so far that a second more makes no difference to it.
    @precondition(lambda self: self.bench.core.due < 1e12)
    @rule()
    def sleep_until_due(self) -> None:
        """It is that instant, and somebody else comes through a door first."""
        self.bench.now = max(self.bench.now, self.bench.core.due)

    # -- the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Close, abandon, and let everything come back late: nothing is left of it."""
        if self.failed:
            return
        bench = self.bench
        told = bench.core.stats(bench.now).since_start
        assert (told.checkouts, told.lost) == (self.over, self.lost)
        assert len(bench.forsaken) == self.lost
        self.do(bench.look)
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
        for lease in self.held():
            self.do(bench.release, lease)
        assert not bench.core.permits
        assert not bench.core.busy(None)
        for entry, opens in self.opens.items():
            assert opens - self.closes[entry] == self.handed.get(entry, 0)
