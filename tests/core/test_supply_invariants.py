"""What must always hold where conns are made by supplies: the machine that tries to break the core,
with supplies, their checks and their sizes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from connpool.core import Permit, Work
from tests.core.machines import STEPS, which
from tests.core.making import Workshop
from tests.core.test_invariants import CoreMachine, extras, filters, one_resource, rests, revives

sizes = st.tuples(st.integers(0, 2), st.integers(0, 2)).map(lambda pair: (pair[0], sum(pair) or 1))
methods = st.sampled_from((("m",), ("m",), ("n",), ("m", "n")))


class AuditedWorkshop(Workshop):
    """A workshop that recounts everything after each step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._audited = True

    def failed(self, permit: Permit, error: BaseException | None = None) -> None:
        """What a permit allows has failed: an opening, or a check."""
        if permit.work is Work.CHECK:
            self.checked(permit, OSError("torn") if error is None else error)
        else:
            super().failed(permit, error)


class SupplyMachine(CoreMachine):
    """Does anything at any time, with supplies that come, go, and are made larger and smaller."""

    bench: AuditedWorkshop

    @initialize(
        max_size=st.sampled_from((None, None, 1, 3)),
        max_waiting=st.sampled_from((None, 2)),
        max_connecting=st.sampled_from((1, 2, 9)),
        indexed=st.booleans(),
    )
    def begin(self, indexed: bool, **options: Any) -> None:
        self.start(AuditedWorkshop(**options, connect_timeout=5.0), indexed=indexed)
        self.names: tuple[str, ...] = ("m",)
        self.checks = False

    # -- supplies ------------------------------------------------------------------------------

    @rule(
        resource=one_resource,
        sizes=sizes,
        max_idle=st.sampled_from((None, 0.0, 3.0)),
        ttl=st.sampled_from((None, None, 0.0, 2.0, 30.0)),
        ping_interval=st.sampled_from((None, 1.0)),
        connect_timeout=st.sampled_from((None, 1.0, 10.0)),
        revive=revives,
        extra=extras,
    )
    def supply(self, resource: str, sizes: tuple[int, int], **known: Any) -> None:
        if self.supplied(resource):
            return
        self.do(self.bench.supply, resource, min_size=sizes[0], max_size=sizes[1], **known)

    def supplied(self, resource: str) -> bool:
        return any(
            listing.resource == resource and listing.supply is not None
            for listing in self.bench.core.listings()
        )

    def door(self, name: str, *args: Any) -> None:
        self.do(self.bench.enter, name, *args)

    @rule(resource=one_resource, sizes=sizes)
    def resize(self, resource: str, sizes: tuple[int, int]) -> None:
        self.door("resize", resource, *sizes)

    @rule(resource=one_resource)
    def withdraw(self, resource: str) -> None:
        self.door("withdraw", resource)

    @rule(resource=one_resource, filter=filters)
    def drain(self, resource: str, filter: Any) -> None:
        self.door("let_go", self.bench.core.search(resource, filter, self.bench.now))

    @rule()
    def ready(self) -> None:
        self.door("ready")

    @rule(names=methods, checks=st.booleans())
    def change_the_kind(self, names: tuple[str, ...], checks: bool) -> None:
        """What is opened from now on has other methods."""
        self.names, self.checks = names, checks

    # -- permits -------------------------------------------------------------------------------

    def opened(self, permit: Permit, rest: float) -> None:
        if permit.work is Work.CHECK:
            self.do(self.bench.checked, permit)
        elif permit.make is None:
            super().opened(permit, rest)
        else:
            self.opens[permit.entry] += 1
            self.do(self.bench.make, permit, methods=self.names, checks=self.checks)

    @precondition(lambda self: any(p.work is Work.OPEN for p in self.bench.permits))
    @rule(rest=rests)
    def come_back_as_another(self, rest: float) -> None:
        """Here: opened in the order asked for."""
        self.opened(self.bench.opening(), rest)

    @precondition(lambda self: self.granted())
    @rule(which=which)
    def the_server_restarts(self, which: int) -> None:
        """Every call that runs fails."""
        for ticket in self.granted():
            self.do(self.bench.end, ticket, ConnectionError("reset"))


SupplyMachine.TestCase.settings = STEPS
TestSupplyInvariants = SupplyMachine.TestCase
