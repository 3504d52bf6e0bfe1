"""Resource -> method -> entries: who can serve whom.

Owns the index of conns by what they can do.  Refuses to know of waiting, time and choosing.

Conns that name the same resources and the same methods can serve the same requests: they form a
`Group`, and lend from one rotation.  What a resource offers for a method is an `Offer`: the groups
that have both, most often one.  A `Listing` is all that is known of one resource.

Invariant: every READY entry with a free place lies in the rotation of its group (`listed`), unless
it is kept free for somebody who wants all its places (`claim`).  One that lies there without being
lendable is stale, and is passed over and dropped when met: taking a conn out of the middle of a
rotation would be a scan.

Resources and methods are the user's objects, and may change their hash, or raise, at any time.  So
they are looked up where somebody asks for them, or brings them, and nowhere else: to take a group
out of the index is not the moment to learn that its keys have changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

import attrs

from ..conn import Description
from .entry import LIVE, READY, Entry
from .supply import Supply
from .waiting import ANY, Line

if TYPE_CHECKING:
    from .hunches import Hunches
    from .index import Index

# How many heads of several groups' rotations are compared.  A bound, so that nothing scans.
WINDOW = 8

# The gate of a group that stands before several lines, or that offers wait for.
SEVERAL = (None,)


class Group:
    """Entries that can serve the same requests, and the rotation of those that are free."""

    __slots__ = (
        "askable", "free", "gate", "hunches", "index", "key", "line", "listings", "members",
        "methods", "offers", "resource", "shut",
    )  # fmt: skip

    def __init__(
        self, what: Description, key: Any, listings: tuple[Listing, ...], offers: tuple[Offer, ...]
    ) -> None:
        self.key = key  # in the directory
        self.resource = what.resource
        self.methods = what.methods
        self.listings = listings
        self.offers = offers  # what it has a part in; none once it is dropped
        # Where those wait whom this group can serve, if it is one line.
        self.line = listings[0].line if len(listings) == 1 else None
        self.members: dict[int, Entry] = {}
        self.askable = 0  # how many of them can be asked, or made anew, when a peer has died
        self.free: deque[Entry] = deque()
        self.shut: list[Offer] = []  # offers that have found the rotation empty
        # Whatever is not empty here has to be asked when a conn comes back: those who wait, or, in
        # one word, more than can be told at a glance.
        self.gate: Collection[Any] = SEVERAL
        self._open_gate()
        self.index: Index | None = None  # of its members, once it is asked for
        self.hunches: Hunches | None = None  # the same

    def join(self, entry: Entry) -> None:
        """Put `entry` at the end of the rotation, unless it lies there already."""
        if entry.away is not None:
            entry.come_back()
        if entry.listed:
            return
        entry.listed = True
        self.free.append(entry)
        if self.shut:
            self.reopen()

    def reopen(self) -> None:
        """Tell the offers that found the rotation empty that it is not."""
        for offer in self.shut:
            offer.rotation.append(self)
        self.shut.clear()
        self._open_gate()

    def close_to(self, offer: Offer) -> None:
        """An offer has found the rotation empty, and is to be told when it no longer is."""
        self.shut.append(offer)
        self.gate = SEVERAL

    def _open_gate(self) -> None:
        self.gate = SEVERAL if self.line is None else self.line.needs

    def tidy(self) -> None:
        """Drop what is stale once it outweighs the members."""
        if len(self.free) <= 2 * len(self.members) + WINDOW:
            return
        kept = [entry for entry in self.free if entry.id in self.members]
        for entry in self.free:
            entry.listed = entry.id in self.members
        self.free.clear()  # in place: offers hold this deque
        self.free.extend(kept)


def lendable(entry: Entry) -> bool:
    """Whether `entry` has a free place to lend."""
    return entry.state is READY and entry.in_use < entry.capacity and entry.claim is None


class Roll:
    """The live conns of an offer, called once and never changed: it may be read outside a turn."""

    __slots__ = ("conns", "count", "entries", "offer", "pairs", "size", "stuck")

    def __init__(self, entries: list[Entry], offer: Offer) -> None:
        self.entries = entries
        self.conns = [entry.conn for entry in entries]  # so that routing need not touch an entry
        self.size = len(entries)
        self.pairs = self.size * (self.size - 1)
        self.offer = offer
        self.count = offer.count  # whose turn it is
        self.stuck: dict[Hashable, Entry] = {}  # keys of sticky, and where they went


NOT_YET: Iterator[int] = iter(())


class Offer:
    """What a resource offers for one method: the groups that have both."""

    __slots__ = ("count", "free", "groups", "listing", "method", "only", "rotation", "turn")

    def __init__(self, listing: Listing, method: Hashable) -> None:
        self.listing = listing
        self.method = method
        self.count = NOT_YET  # whose turn it is
        self.groups: dict[Group, None] = {}
        self.rotation: deque[Group] = deque()
        self.only: Group | None = None  # where there is one
        self.free: deque[Entry] | None = None  # its rotation, for the straight path
        self.turn: int | None = None  # of round_robin; None until it has begun somewhere

    def add(self, group: Group) -> None:
        """`group` serves this too."""
        self.groups[group] = None
        self.rotation.append(group)
        self._note_only()

    def remove(self, group: Group) -> None:
        """`group` has no members any more."""
        del self.groups[group]
        if group in self.rotation:
            self.rotation.remove(group)
        self._note_only()

    def _note_only(self) -> None:
        self.only = next(iter(self.groups)) if len(self.groups) == 1 else None
        self.free = self.only.free if self.only is not None else None

    def roll(self, method: Hashable, rng: Callable[[], float]) -> Roll:
        """The live conns that have the method: called anew only when one has come or gone."""
        method = None if method is ANY else method  # as `route` is asked for it
        roll = self.listing.rolls.get(method)
        if roll is None:
            if self.count is NOT_YET:  # many pools would otherwise all begin with the same server
                self.count = count(int(rng() * 1_000_000))
            live = [entry for entry in self.members() if entry.state in LIVE]
            roll = self.listing.rolls[method] = Roll(live, self)
        return roll

    def members(self) -> Iterator[Entry]:
        """Every conn that has the method, whatever its state."""
        for group in self.groups:
            yield from group.members.values()

    def size(self) -> int:
        """How many they are."""
        return sum(len(group.members) for group in self.groups)

    def candidates(self) -> Iterable[Entry]:
        """What lies in the rotations: the lendable ones, and some that are stale."""
        return self.free if self.free is not None else self.lendable()

    def lendable(self) -> Iterator[Entry]:
        """Conns with a free place, longest idle first, at least within a group."""
        if self.free is not None:
            yield from _fresh(next(iter(self.groups)))
        else:
            for group in self.heads():
                yield from _fresh(group)

    def heads(self) -> Iterator[Group]:
        """The groups that have a free conn, the longest idle head first among the first few.

        A group met with nothing to lend leaves the rotation, and tells the offer when it has
        something again: each such visit is paid for by the return that will end it.
        """
        rotation, found = self.rotation, []
        for _ in range(len(rotation)):
            group = rotation.popleft()
            if next(_fresh(group), None) is None:
                group.close_to(self)
                continue
            found.append(group)
            if len(found) == WINDOW:
                break
        rotation.extend(found)
        found.sort(key=lambda group: group.free[0].last_call or 0.0)
        return chain(found, islice(rotation, 0, len(rotation) - len(found)))


def _fresh(group: Group) -> Iterator[Entry]:
    """The lendable entries of a group; stale ones at the front are dropped on the way."""
    free = group.free
    while free and not lendable(free[0]):
        free.popleft().listed = False
    for entry in free:
        if lendable(entry):
            yield entry


class Listing:
    """All that is known of one resource."""

    __slots__ = ("last_error", "line", "live", "offers", "resource", "rolls", "supply")

    def __init__(self, resource: Hashable) -> None:
        self.resource = resource
        self.offers: dict[Hashable, Offer] = {}
        self.line = Line()
        self.live = 0
        self.rolls: dict[Hashable, Roll] = {}  # by method; void when a live conn comes or goes
        self.last_error: BaseException | None = None
        self.supply: Supply | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody offers anything here, and nobody waits."""
        return ANY not in self.offers and not self.line and self.supply is None

    def offer(self, method: Hashable) -> Offer:
        """What there is for a method, made where there is nothing yet."""
        offer = self.offers.get(method)
        if offer is None:
            offer = self.offers[method] = Offer(self, method)
        return offer

    def members(self) -> Iterator[Entry]:
        """Every conn of the resource that is alive or will be again."""
        offer = self.offers.get(ANY)
        if offer is not None:
            yield from offer.members()


@attrs.define(eq=False)
class Directory:
    """The listings of all resources, and the groups behind them."""

    listings: dict[Hashable, Listing] = attrs.field(factory=dict)
    _groups: dict[tuple[Any, ...], Group] = attrs.field(factory=dict)

    def enlist(self, entry: Entry, group: Group, what: Description) -> None:
        """Make `entry` a member of the group that fits its description."""
        if entry.listed and entry.group is not None:
            entry.group.free.remove(entry)  # it lies in the rotation of what it was before
            entry.listed = False
        entry.group = group
        entry.set_capacity(what.capacity)
        group.members[entry.id] = entry
        group.askable += entry.askable
        if group.index is not None:
            group.index.add(entry)
        if entry.state in LIVE:
            self.tally(entry, 1)

    def strike(self, entry: Entry) -> None:
        """Take `entry` out of its group's members; its place in the rotation turns stale.

        A group that is left without members is to be dropped, unless somebody joins it.
        """
        group = entry.group
        assert group is not None
        del group.members[entry.id]
        group.askable -= entry.askable
        if group.index is not None:
            group.index.remove(entry)
        if entry.state in LIVE:
            self.tally(entry, -1)
        group.tidy()

    def tally(self, entry: Entry, change: int) -> None:
        """`entry` became live (1), or is no longer (-1)."""
        assert entry.group is not None
        for listing in entry.group.listings:
            listing.live += change
            listing.rolls = {}  # another one: somebody may just be looking at the old one

    def group(self, what: Description) -> Group:
        """The group that fits a description, made where there is none.

        This is where keys are looked up, and where they may raise: then nothing has changed.
        """
        key = (frozenset(what.resources), what.methods)
        group = self._groups.get(key)
        if group is not None and group.offers:
            return group
        listings: dict[Listing, None] = {}
        offers: dict[Offer, None] = {}
        try:
            for resource in what.resources:
                listings[self.open(resource)] = None
            for listing in listings:
                for method in (ANY, *what.methods):
                    offers[listing.offer(method)] = None
            group = self._groups[key] = Group(what, key, tuple(listings), tuple(offers))
        except BaseException:
            for offer in offers:
                _retire(offer)
            for listing in listings:
                self.forget(listing)
            raise
        for offer in offers:
            offer.add(group)
        return group

    def drop(self, group: Group) -> None:
        """Forget a group that has no members."""
        if group.members or not group.offers:
            return
        for offer in group.offers:
            offer.remove(group)
            _retire(offer)
        group.offers = ()
        discard(self._groups, group.key, group)

    def forget(self, listing: Listing) -> None:
        """Drop a listing that nobody offers anything at and nobody waits for."""
        if listing.idle:
            discard(self.listings, listing.resource, listing)

    def open(self, resource: Hashable) -> Listing:
        """The listing of a resource, made where there is none."""
        listing = self.listings.get(resource)
        if listing is None:
            listing = self.listings[resource] = Listing(resource)
        return listing


def _retire(offer: Offer) -> None:
    if not offer.groups:
        discard(offer.listing.offers, offer.method, offer)


def discard(table: dict[Any, Any], key: Any, value: Any) -> bool:
    """Take `value` out of a table whose keys are the user's; gives whether it was found.

    One whose hash has changed meanwhile, or that raises by now, stays where it is; what it leads to
    is empty, and nobody finds it.
    """
    try:
        if table.get(key) is not value:
            return False
        del table[key]
    except Exception:
        return False
    return True
