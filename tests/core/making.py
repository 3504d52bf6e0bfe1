"""A bench with supplies: what a driver does with their permits, in a word each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any

from connpool.conn import Description
from connpool.core import Entry, Info, Permit, Supply, Work
from tests.core.bench import Bench


class Made:
    """A conn that a factory made."""


class Workshop(Bench):
    """A bench whose conns may be made by supplies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(audited=False, **options)

    def look(self) -> None:
        """After each step no supply is larger than it may be, and its figures are right."""
        super().look()
        super().look()  # what was left while pops were collected
        core = self.core
        if core.closed:
            return
        for listing in core.listings():
            if (supply := listing.supply) is not None:
                own = [e for e in core.entries.values() if e.supply is supply]
                assert supply.size == len(own)
                assert supply.size <= supply.max_size or not supply.unborn  # some may be in use
                assert supply.unborn == sum(e.state.value == "opening" for e in own)
        assert core._connecting <= core.options.max_connecting

    def supply(
        self, resource: Hashable = "db", factory: Callable[[], Any] = Made, **known: Any
    ) -> Supply:
        """Conns to `resource` are made from now on."""
        supply = Supply(resource, factory, **known)
        try:
            self.core.supply(supply, self.now)
        finally:
            self.look()
        return supply

    def make(
        self, permit: Permit, *, methods: Collection[Hashable] = ("m",), checks: bool = False
    ) -> Info | None:
        """A supply's conn is made and opened."""
        assert permit.make is not None
        conn = permit.make()
        self.core.adopt(permit, conn)
        resource = permit.resource
        what = Description(resource, (resource,), frozenset(methods), 1, checks)
        info = self.core.opened(permit, what, 0.0, self.now)
        self.look()
        return info

    def born(self, *, checks: bool = False) -> Entry:
        """The next one is opened."""
        permit = self.opening()
        assert self.make(permit, checks=checks) is not None
        return permit.entry

    def settle(self) -> None:
        """Do all there is to be done, and it goes well."""
        while self.permits:
            permit = self.permits.pop(0)
            if permit.work is Work.CLOSE:
                self.closed(permit)
            elif permit.work is Work.CHECK:
                self.checked(permit)
            else:
                self.make(permit)

    def checked(self, permit: Permit, error: BaseException | None = None) -> None:
        """A conn has said whether it is well."""
        self.core.checked(permit, error, self.now)
        self.look()

    def alive(self, resource: Hashable = "db") -> int:
        """How many conns there are."""
        return self.core.count(self.now, resource)
