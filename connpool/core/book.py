"""The book: what users ask of the pool, and what they change in it.

Owns answers and updates.  Refuses to lend anything.

Invariant: an update is checked whole before any of it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ..conn import Description, method_names, places
from ..errors import IdError, show
from .candidates import Group, Listing
from .entry import COOLING, DRAINING, HOPEFUL, LIVE, OPENING, READY, REVIVING, Entry, Info, snapshot
from .index import reindex
from .leaving import Leaving
from .options import check_changes, check_revive, check_ttl
from .stats import Now, PoolStats
from .where import Test

Move = tuple[Group, Description]


class Book(Leaving):
    """The ninth storey of the core."""

    __slots__ = ()

    # -- what users change ---------------------------------------------------------------------

    def set_extra(self, id: int, value: Any, now: float) -> Any:
        """Replace `extra`; gives the old one."""
        self.tick(now)
        entry = self._entry(id)
        old, entry.extra = entry.extra, value
        reindex(entry)
        self._changed(entry, now)
        return old

    def update(
        self,
        resource: Hashable,
        fn: Callable[[Info], Any] | None,
        filter: Test,
        changes: dict[str, Any],
        now: float,
    ) -> int:
        """Change the matching conns, all or none; gives how many."""
        self.tick(now)
        plans = []
        for entry in self._members(resource, filter, now):
            wanted = dict(changes)
            if fn is not None:
                wanted |= check_changes(self._shielded(fn, snapshot(entry, now)))
            plans.append((entry, self._shielded(_checked, entry, wanted)))
        moves = self._moves([(e, wanted["methods"]) for e, wanted in plans if "methods" in wanted])
        self._transfer(moves)
        for entry, wanted in plans:
            self._apply(entry, wanted, now)
        for entry, _ in plans:  # when all are changed: what one cannot do any more another may
            self._changed(entry, now)
        return len(plans)

    def _moves(self, wanted: list[tuple[Entry, frozenset[Hashable]]]) -> dict[Entry, Move]:
        """Where conns belong whose methods change; raises, and changes nothing, where their keys
        do."""
        moves: dict[Entry, Move] = {}
        try:
            for entry, methods in wanted:
                before = entry.group
                assert before is not None
                resources = tuple(listing.resource for listing in before.listings)
                what = Description(before.resource, resources, methods, entry.capacity)
                moves[entry] = self._directory.group(what), what
        except BaseException:
            for group, _ in moves.values():
                self._directory.drop(group)
            raise
        return moves

    def _transfer(self, moves: dict[Entry, Move]) -> None:
        """Have conns change places; a group that they all leave may be one that another joins."""
        left = [entry.group for entry in moves if entry.group is not None]
        for entry, (group, what) in moves.items():
            if group is not entry.group:
                self._directory.strike(entry)
                self._directory.enlist(entry, group, what)
        for group in left:
            self._directory.drop(group)

    def _apply(self, entry: Entry, wanted: dict[str, Any], now: float) -> None:
        if "extra" in wanted:
            entry.extra = wanted["extra"]
            reindex(entry)
        entry.revive = wanted.get("revive", entry.revive)
        if "ttl" in wanted:
            entry.ttl = wanted["ttl"]
            self._set_ttl(entry, now)
        entry.set_capacity(wanted.get("capacity", entry.capacity))

    def _changed(self, entry: Entry, now: float) -> None:
        """What a conn may serve has changed: some may be served now, some never."""
        if now >= self.due:
            self.tick(now)  # its new ttl may be over
        if entry.group is None or entry.id not in entry.group.members:
            return
        if entry.state is READY:
            self._serve(entry, now)
        self._recheck(entry, entry.group.listings, now)

    # -- questions -----------------------------------------------------------------------------

    def _entry(self, id: int) -> Entry:
        entry = self.entries.get(id)
        if entry is None or entry.state is OPENING:
            raise IdError(f"pool {self.name!r} holds no conn {show(id)}", pool=self.name, id=id)
        return entry

    def _members(self, resource: Hashable, filter: Test, now: float) -> list[Entry]:
        """The conns of a resource that pass the filter, alive or to be alive again."""
        listing = self._listings.get(resource)
        members = list(listing.members()) if listing is not None else []
        return [entry for entry in members if self._passes(filter, entry, now)]

    def listings(self) -> list[Listing]:
        """What is known of each resource, for the report."""
        return [listing for listing in self._listings.values() if not listing.idle]

    def find(self, id: int, now: float) -> Entry:
        """The conn with this id, or IdError."""
        self.tick(now)
        return self._entry(id)

    def search(self, resource: Hashable, filter: Test, now: float) -> list[Entry]:
        """The conns of a resource that pass the filter."""
        self.tick(now)
        return self._members(resource, filter, now)

    def info(self, id: int, now: float) -> Info:
        """The picture of one conn."""
        return snapshot(self.find(id, now), now)

    def infos(self, filter: Test, now: float, *resource: Hashable) -> list[Info]:
        """The pictures of all conns, or of those to one resource."""
        self.tick(now)
        found: Iterable[Entry]
        if resource:
            found = self._members(resource[0], filter, now)
        else:
            everybody = [e for e in self.entries.values() if e.state in HOPEFUL]
            found = [e for e in everybody if self._passes(filter, e, now)]
        return [snapshot(entry, now) for entry in found]

    def alive(self, id: int, now: float) -> bool:
        """Whether a live conn has this id."""
        self.tick(now)
        entry = self.entries.get(id)
        return entry is not None and entry.state in LIVE

    def resources(self, now: float) -> list[Hashable]:
        """The resources with live conns."""
        self.tick(now)
        return [resource for resource, listing in self._listings.items() if listing.live]

    def count(self, now: float, *resource: Hashable) -> int:
        """How many live conns there are, or how many to one resource."""
        self.tick(now)
        if not resource:
            return self.live
        listing = self._listings.get(resource[0])
        return listing.live if listing is not None else 0

    def busy(self, who: Any) -> bool:
        """Whether anything is still open, used or out on a permit, `who`'s own calls aside."""
        return bool(self.permits) or any(
            not (entry.in_use and entry.held_by_only(who)) for entry in self.entries.values()
        )

    def stats(self, now: float) -> PoolStats:
        """Numbers now and since the start."""
        self.tick(now)
        entries = self.entries.values()
        states = [entry.state for entry in entries]
        stats = [stat for entry in entries for stat in (entry.stats or {}).values()]
        current = Now(
            conns=self.live,
            ready=states.count(READY),
            in_use=sum(entry.in_use for entry in entries),
            cooling=states.count(COOLING),
            reviving=states.count(REVIVING),
            draining=states.count(DRAINING),
            opening=states.count(OPENING),
            waiting=self.waiting,
        )
        calls = sum(stat.count for stat in stats)
        errors = sum(stat.errors for stat in stats)
        checkouts = sum(entry.checkouts for entry in entries)
        return PoolStats(current, self._tally.picture(calls, errors, checkouts))


def _checked(entry: Entry, wanted: dict[str, Any]) -> dict[str, Any]:
    """The changes of one conn, checked before any is made."""
    checks: dict[str, Callable[[Any], Any]] = {
        "extra": lambda value: value,
        "ttl": check_ttl,
        "revive": check_revive,
        "capacity": places,
        "methods": lambda value: method_names(value, entry.conn),
    }
    unknown = set(wanted) - set(checks)
    if unknown:
        raise TypeError(
            f"update: expected changes of {', '.join(checks)}, got {', '.join(map(show, unknown))}"
        )
    return {name: checks[name](value) for name, value in wanted.items()}
