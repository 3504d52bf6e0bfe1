"""What must always hold, whatever odd things users give: a machine that gives them.

What a user gives may be refused, with what was expected and what came, and what an object of his
raises may reach him.  Whoever gave nothing odd notices nothing; the audit holds after each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from connpool.conn import Reply, describe
from connpool.core import (
    ANY,
    Backoff,
    Permit,
    Standing,
    Supply,
    Ticket,
    Work,
    check_by,
    check_filter,
    check_revive,
    check_timeout,
    check_ttl,
    first_rest,
    sticky,
)
from connpool.errors import Busy, CallError, Closed, InitError
from tests.core.bench import Line
from tests.core.machines import STEPS, Machine, which
from tests.core.test_supply_invariants import AuditedWorkshop
from tests.odd import HUGE, NO_COUNTS, NO_SECONDS, WAYS, OddError, OddFailure, OddTorn, Spoilt

# Four keys: two of one hash that are not equal, and two that are equal and of different hashes.
KEYS = tuple(range(4))


def mostly(sane: tuple[Any, ...], *odd: Any) -> st.SearchStrategy[Any]:
    """Now and then something odd; else hardly anything would be let in."""
    return st.one_of(*[st.sampled_from(sane)] * 7, st.sampled_from(odd))


seconds = mostly((None, 1.0, 30.0, math.inf), 0.0, *HUGE, *NO_SECONDS)
rests = mostly((None, 0.0, 1.0), *HUGE, *NO_SECONDS)
counts = mostly((1, 2, 3), 0, 10**9, 10**400, *NO_COUNTS)
keys = mostly(("a",), *KEYS)
resources = st.one_of(keys, keys, st.sampled_from(KEYS), st.lists(keys, max_size=3))
methods = st.lists(mostly(("m",), *KEYS), min_size=1, max_size=3)
askers = st.sampled_from((..., ..., None, "ann", "bob"))


def is_true(info: Any) -> Any:
    return info.extra


def is_red(info: Any) -> Any:
    return info.extra == "red"


def is_known(info: Any) -> Any:
    return {info.extra: 1}


def has_length(info: Any) -> Any:
    return info.extra is None or len(info.extra)


FILTERS = (*(None,) * 5, is_true, is_red, is_known, has_length)


def first(infos: list[Any]) -> Any:
    infos.sort(key=lambda info: -info.id)
    return infos.pop()


def nonsense(infos: list[Any]) -> Any:
    return infos


UNHASHABLE: Any = [1]
STUCK = sticky(UNHASHABLE)
BYS: tuple[Any, ...] = (
    *(None,) * 6,
    "least_wait",
    first,
    nonsense,
    STUCK,
    sticky("key"),
    "no way",
    7,
)


class OddMachine(Machine):
    """Gives whatever a user may give."""

    bench: AuditedWorkshop

    @initialize(
        max_size=st.sampled_from((None, None, 4)),
        conns=st.lists(st.tuples(resources, methods, st.sampled_from((1, 2)))),
    )
    def begin(self, max_size: int | None, conns: list[Any]) -> None:
        self.start(AuditedWorkshop(max_size=max_size, connect_timeout=5.0))
        kinds = (("one", 7), ("two", 7), ("equal", 11), ("equal", 12))
        self.keys = [Spoilt(*kind) for kind in kinds]
        self.extras: list[Spoilt] = [Spoilt("extra", 3), Spoilt("extra", 3)]
        for resource, names, capacity in (("a", ["m", 0, 2], 2), *conns):
            self.add(resource, names, capacity, None, revive=True, rest=None)

    # -- what is allowed -----------------------------------------------------------------------

    def told(self, function: Callable[..., Any], *args: Any, **known: Any) -> Any:
        """What comes of what a user gives; ... where he is told that it will not do."""
        try:
            return self.do(function, *args, **known)
        except (TypeError, ValueError) as error:
            if not any(word in str(error) for word in ("expected", "unhashable", "already")):
                raise
        except OddError:
            pass
        self.failed = False
        return ...

    def key(self, which: Any) -> Any:
        return self.keys[which] if isinstance(which, int) else which

    def fits(self, ticket: Ticket, entry: Any) -> bool:
        """A method that has become another is found in one table and not in the next, by chance."""
        if isinstance(ticket.method, Spoilt):
            return ticket.standing is Standing.GRANTED
        try:
            return super().fits(ticket, entry)
        except OddError:
            return False

    # -- conns ---------------------------------------------------------------------------------

    @rule(
        resource=resources,
        names=methods,
        capacity=counts,
        ttl=seconds,
        revive=mostly((True, False, "force"), 1, None, "FORCE"),
        rest=rests,
    )
    def add(self, resource: Any, names: Any, capacity: Any, ttl: Any, **more: Any) -> None:
        revive, rest = more["revive"], more["rest"]
        several = isinstance(resource, list)
        named = [self.key(each) for each in resource] if several else self.key(resource)
        conn = Line(named, [self.key(name) for name in names], capacity)
        known = {"ttl": self.told(check_ttl, ttl), "revive": self.told(check_revive, revive)}
        if ... in known.values():
            return
        permit = self.do(self.bench.core.admit, conn, **known, now=self.bench.now)
        if permit is not None:
            self.bench.look()
            self.open(permit, rest)

    def open(self, permit: Permit, rest: Any) -> None:
        """As a driver does it: whatever a conn says, the permit comes back."""
        conn = permit.entry.conn
        if permit.make is not None and conn is None:
            conn = permit.make()
            self.bench.core.adopt(permit, conn)
        wait = self.told(first_rest, rest)
        what = self.told(describe, conn, conn.names, resource=permit.resource)
        if wait is ... or what is ...:
            self.do(self.bench.failed, permit, TypeError("nonsense"))
            return
        self.opens[permit.entry] += 1
        before = len(self.bench.permits)
        if self.told(self.enter, permit, what, wait) is ...:
            closing = [p.entry for p in self.bench.permits[before:] if p.work is Work.CLOSE]
            assert closing == [permit.entry] or permit.entry.in_use

    def enter(self, permit: Permit, what: Any, wait: float) -> None:
        try:
            self.bench.core.opened(permit, what, wait, self.bench.now)
        finally:
            self.bench.look()

    def opened(self, permit: Permit, rest: float) -> None:
        if permit.work is Work.CHECK:
            self.do(self.bench.checked, permit)
        else:
            self.open(permit, rest)

    @precondition(lambda self: self.bench.permits)
    @rule(
        which=which,
        wrong=st.sampled_from((None, None, "init", "retry")),
        rest=rests,
        retry=seconds,
    )
    def work(self, which: int, wrong: str | None, rest: Any, retry: Any) -> None:
        permit = self.bench.permits.pop(which % len(self.bench.permits))
        if permit.work is Work.CLOSE:
            self.do(self.bench.closed, permit)
        elif wrong is None:
            self.opened(permit, rest)
        else:
            error = InitError(retry_after=retry) if wrong == "retry" else OddTorn()
            self.do(self.bench.failed, permit, error)

    @rule(which=which, way=st.sampled_from(WAYS))
    def spoil(self, which: int, way: str) -> None:
        """From here on an object raises, whoever has it."""
        objects = self.keys + self.extras
        objects[which % len(objects)].raises.add(way)

    @rule(which=which)
    def change_hash(self, which: int) -> None:
        """A key is another one, wherever it is listed."""
        self.keys[which % len(self.keys)].hashed += 1000

    @rule()
    def make_new_keys(self) -> None:
        """Equal to those there were, and well."""
        self.keys = [Spoilt(key.kind, key.hashed) for key in self.keys]

    # -- callers -------------------------------------------------------------------------------

    @rule(
        resource=keys,
        method=st.sampled_from(("m", "m", ANY, *KEYS)),
        whole=st.booleans(),
        filter=mostly(FILTERS, "no filter"),
        by=st.sampled_from(BYS),
        who=askers,
        timeout=seconds,
    )
    def ask(self, resource: Any, method: Any, timeout: Any, whole: bool, **wish: Any) -> None:
        patience = self.told(check_timeout, timeout)
        if wish["by"] is not None and self.told(check_by, wish["by"]) is ...:
            return
        if patience is ... or self.told(check_filter, wish["filter"]) is ...:
            return
        ask = self.bench.lease if method is ANY else self.bench.ask
        if self.waits(wish.get("who")):
            return
        wish |= {"timeout": patience, "whole": whole and method is ANY}
        ticket = self.told(ask, self.key(resource), self.key(method), **wish)
        if ticket is not ...:
            self.follow(self.leases if method is ANY else self.tickets, ticket)

    @rule(timeout=st.sampled_from((0.0, 1.0, math.inf)), whole=st.booleans(), who=askers)
    def ask_as_usual(self, timeout: float, whole: bool, who: Any) -> None:
        """Nothing odd is asked for, and none of it comes back."""
        asked = {"timeout": timeout, "who": who}
        if not self.waits(who):
            self.follow(self.leases, self.do(self.bench.lease, whole=whole, **asked))
        if not self.waits(who):
            self.follow(self.tickets, self.do(self.bench.ask, **asked))

    @precondition(lambda self: self.granted())
    @rule(which=which, kind=st.integers(0, 9), value=seconds)
    def end(self, which: int, kind: int, value: Any) -> None:
        granted = self.granted()
        said: tuple[Any, ...] = (
            *(Reply(1, cooldown=value), Reply(1, closed=value), Reply(1), Busy(value), Closed()),
            *(CallError(cooldown=value), CallError(closed=value), OddFailure(), OddTorn()),
            KeyboardInterrupt(),
        )
        self.conclude(granted[which % len(granted)], said[kind], True)

    @rule(resource=keys, filter=st.sampled_from(FILTERS), by=st.sampled_from(BYS))
    def route(self, resource: Any, filter: Any, by: Any) -> None:
        core, now, key = self.bench.core, self.bench.now, self.key(resource)

        def pick() -> Any:
            conn = core.glance(key, ANY, by, now) if filter is None else None
            if conn is None and by is not None:
                check_by(by)
            try:
                return core.route(key, ANY, filter, by, now) if conn is None else conn
            finally:
                self.bench.look()

        self.told(pick)

    # -- users ---------------------------------------------------------------------------------

    @precondition(lambda self: self.members())
    @rule(which=which, value=st.sampled_from((None, "red", 0, 1)))
    def extra(self, which: int, value: Any) -> None:
        self.do(self.bench.at, self.bench.now)
        given = self.extras[value] if isinstance(value, int) else value
        if members := self.members():
            self.do(self.bench.extra, members[which % len(members)], given)

    @rule(
        resource=keys,
        capacity=counts,
        ttl=seconds,
        names=methods,
        what=st.sampled_from(("capacity", "ttl", "methods", "revive", "nonsense", "raises")),
    )
    def update(self, resource: Any, what: str, **values: Any) -> None:
        """By what a function says; all or none."""
        values["methods"] = [self.key(name) for name in values.pop("names")]

        def changes(info: Any) -> Any:
            if what == "raises":
                raise OddError("fn")
            return values if what == "nonsense" else {what: values.get(what, object())}

        self.do(self.bench.at, self.bench.now)
        self.told(self.bench.update, self.key(resource), changes)

    @precondition(lambda self: self.members())
    @rule(which=which, stays=st.booleans())
    def pop(self, which: int, stays: bool) -> None:
        members = self.members()
        pop = self.do(self.bench.pop, members[which % len(members)])
        if pop is not None and stays:
            self.do(self.bench.unpop, pop)

    @precondition(lambda self: self.members())
    @rule(which=which, error=st.sampled_from((OddTorn, OddFailure)))
    def lose(self, which: int, error: type[Exception]) -> None:
        """A conn says that it is dead, of something odd."""
        members = self.members()
        entry = members[which % len(members)]

        def tell() -> None:
            self.bench.core.lost(entry, entry.lives, error(), self.bench.now)
            self.bench.look()

        self.do(tell)

    # -- supplies ------------------------------------------------------------------------------

    @rule(
        resource=keys,
        min_size=counts,
        max_size=counts,
        what=st.sampled_from(("ttl", "max_idle", "connect_timeout", "ping_interval", "nothing")),
        value=seconds,
    )
    def supply(self, resource: Any, min_size: Any, max_size: Any, what: str, value: Any) -> None:
        key = self.key(resource)
        known = {} if what == "nothing" else {what: value}
        made = self.told(
            Supply, key, lambda: Line(None, ["m"], 1), min_size=min_size, max_size=max_size, **known
        )
        if made is not None and made is not ...:
            self.door("supply", made)

    @rule(resource=keys, min_size=counts, max_size=counts)
    def resize(self, resource: Any, min_size: Any, max_size: Any) -> None:
        self.door("resize", self.key(resource), min_size, max_size)

    @rule(resource=keys)
    def withdraw(self, resource: Any) -> None:
        self.door("withdraw", self.key(resource))

    def door(self, name: str, *args: Any) -> None:
        self.told(self.bench.enter, name, *args)

    @rule(name=st.sampled_from(("first", "factor", "jitter", "most")), value=seconds)
    def back_off(self, name: str, value: Any) -> None:
        """Whatever the settings, pauses are finite and never negative."""
        made = self.told(Backoff, **{name: value})
        if made is not ...:
            for attempt in (1, 2, 1000):
                for chance in (0.0, 0.5, 0.999):
                    assert 0 <= made.delay(attempt, lambda chance=chance: chance) < math.inf


OddMachine.TestCase.settings = STEPS
TestOddValues = OddMachine.TestCase
