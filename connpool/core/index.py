"""The index: finds the conns that pass a filter given as data, without asking each of them.

Owns, for each large group, which conn has which of the items that were ever asked for.  Refuses to
know who asks, and what a conn is lent for.

A small group has no index: there to look is as quick.  In a large one each key that is asked for
has a `Column`, from values to conns; each filter that is asked for has a `Shelf`, the conns that
pass, and those among them that may be free stand in its row.  One that is met there and is not free
leaves the row, and the conn is told (`away`): so the return that will bring it back is paid for by
the visit, and a conn that nobody has looked for costs nothing when it returns.

Invariants: every member of the group that has a value under the key of a column is in it, in one
bucket; a shelf has all members that pass, and those of them that are lendable are in its row.  What
is kept is limited: what was not asked for lately is dropped, and made anew when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Any

from .candidates import Group, Offer, lendable
from .entry import READY, Entry
from .where import Where

# So many conns of a group are looked at one by one: an index of them would cost more.
FEW = 4

# How many filters a group remembers, and how many keys: whoever makes up new ones all the time
# shall not fill the memory.
MOST_SHELVES = 1000
MOST_COLUMNS = 50

_idle_since = attrgetter("idle_since")


class Shelf:
    """The conns of a group that pass one filter."""

    __slots__ = ("asked", "bucket", "column", "members", "row", "where")

    def __init__(self, where: Where, column: Column, bucket: Bucket) -> None:
        self.where = where
        self.column = column
        self.bucket = bucket  # through which a conn that comes to pass is found to
        self.asked = False  # for once more, lately
        self.members: dict[Entry, None] = {}
        self.row: OrderedDict[Entry, None] = OrderedDict()  # those that may be free

    def join(self, entry: Entry) -> None:
        """`entry` passes, if it does."""
        if self.where.passes(entry.extra):
            self.members[entry] = None
            self.put(entry)

    def leave(self, entry: Entry) -> None:
        """It does so no longer, or has left the group."""
        self.members.pop(entry, None)
        self.row.pop(entry, None)

    def put(self, entry: Entry) -> None:
        """`entry` may be free, if it still passes."""
        if entry in self.members:
            self.row[entry] = None

    def lendable(self) -> Iterator[Entry]:
        """Those with a free place, each in turn."""
        row = self.row
        for _ in range(len(row)):
            entry = next(iter(row))
            if lendable(entry):
                row.move_to_end(entry)
                yield entry
            else:
                del row[entry]
                entry.stay_away(self)


class Bucket:
    """The conns that have one value under one key, and the shelves on which they may lie."""

    __slots__ = ("entries", "shelves", "value")

    def __init__(self, value: Hashable = None) -> None:
        self.value = value
        self.entries: dict[Entry, None] = {}
        self.shelves: dict[Shelf, None] = {}


class Column:
    """The values that the conns of a group have under one key."""

    __slots__ = ("buckets", "odd")

    def __init__(self) -> None:
        self.buckets: dict[Hashable, Bucket] = {}
        # Of values that are not hashable, or cannot be compared: they may equal any other.
        self.odd = Bucket()

    def open(self, value: Any) -> Bucket:
        """The bucket of a value, made where there is none."""
        try:
            bucket = self.buckets.get(value)
            if bucket is None:
                bucket = self.buckets[value] = Bucket(value)
        except Exception:  # of its __hash__ or of an __eq__
            return self.odd
        return bucket

    def tidy(self, bucket: Bucket) -> None:
        """Drop a bucket that nobody needs."""
        if not bucket.entries and not bucket.shelves and bucket is not self.odd:
            with suppress(Exception):  # of the __eq__ of a value: it stays, and does no harm
                self.buckets.pop(bucket.value, None)

    def shelves(self, bucket: Bucket) -> Iterable[Shelf]:
        """Those on which the conns of `bucket` may lie."""
        return chain.from_iterable(other.shelves for other in self._akin(bucket))

    def entries(self, bucket: Bucket) -> Iterable[Entry]:
        """The conns that may lie on the shelves of `bucket`."""
        return chain.from_iterable(other.entries for other in self._akin(bucket))

    def _akin(self, bucket: Bucket) -> Iterable[Bucket]:
        if bucket is self.odd:
            return (bucket, *self.buckets.values())
        return (bucket, self.odd)


class Index:
    """Which conns of one group have which items; only of what was asked for."""

    __slots__ = ("columns", "places", "shelves")

    def __init__(self) -> None:
        self.columns: dict[Hashable, Column] = {}
        self.shelves: dict[Where, Shelf] = {}
        self.places: dict[Entry, list[tuple[Column, Bucket]]] = {}

    def shelf(self, where: Where, members: Iterable[Entry]) -> Shelf:
        """Who passes `where` among the members of the group."""
        shelf = self.shelves.get(where)
        return shelf if shelf is not None else self._put_up(where, members)

    def _put_up(self, where: Where, members: Iterable[Entry]) -> Shelf:
        if len(self.columns) > MOST_COLUMNS:
            self.columns, self.shelves, self.places = {}, {}, {}
        if len(self.shelves) >= MOST_SHELVES:
            self._take_down()
        found = []
        for key, value in where:
            column = self.columns.get(key)
            if column is None:
                column = self._open(key, members)
            found.append((column, column.open(value)))
        column, bucket = min(found, key=lambda pair: (pair[1] is pair[0].odd, len(pair[1].entries)))
        shelf = self.shelves[where] = Shelf(where, column, bucket)
        bucket.shelves[shelf] = None
        for entry in sorted(column.entries(bucket), key=_idle_since):
            shelf.join(entry)
        for column, bucket in found:
            column.tidy(bucket)
        return shelf

    def _open(self, key: Hashable, members: Iterable[Entry]) -> Column:
        column = self.columns[key] = Column()
        for entry in members:
            self._place(entry, key, column)
        return column

    def _take_down(self) -> None:
        """Keep those that were asked for once more since the last time, if they are not many."""
        asked = sum(shelf.asked for shelf in self.shelves.values())
        for where, shelf in tuple(self.shelves.items()):
            if not shelf.asked or asked > MOST_SHELVES // 2:
                del self.shelves[where]
                del shelf.bucket.shelves[shelf]
                shelf.column.tidy(shelf.bucket)
            shelf.asked = False

    def add(self, entry: Entry) -> None:
        """`entry` has become a member of the group, or has another extra."""
        for key, column in self.columns.items():
            self._place(entry, key, column)

    def _place(self, entry: Entry, key: Hashable, column: Column) -> None:
        try:
            if not isinstance(entry.extra, Mapping) or key not in entry.extra:
                return
            bucket = column.open(entry.extra[key])
        except Exception:  # of a mapping of the user's own
            return
        bucket.entries[entry] = None
        self.places.setdefault(entry, []).append((column, bucket))
        for shelf in column.shelves(bucket):
            shelf.join(entry)

    def remove(self, entry: Entry) -> None:
        """`entry` is a member no longer, or is about to be found by another extra."""
        for column, bucket in self.places.pop(entry, ()):
            del bucket.entries[entry]
            for shelf in column.shelves(bucket):
                shelf.leave(entry)
            column.tidy(bucket)


# -- what the core asks ----------------------------------------------------------------------------


def reindex(entry: Entry) -> None:
    """The extra of `entry` has been replaced."""
    group = entry.group
    if group is not None and group.index is not None and entry.id in group.members:
        group.index.remove(entry)
        group.index.add(entry)


def passing(offer: Offer | None, where: Where, few: int) -> Iterator[Entry]:
    """Every conn of an offer that passes, whatever its state."""
    for group in offer.groups if offer is not None else ():
        members = group.members.values()
        if len(members) <= few:
            yield from (entry for entry in members if where.passes(entry.extra))
        else:
            yield from _shelf(group, where).members


def idle(offer: Offer, where: Where) -> Entry | None:
    """One of those below that nobody uses, where that is seen at the first look."""
    group = offer.only
    if group is None or group.index is None:
        return None
    shelf = group.index.shelves.get(where)
    if shelf is not None:
        shelf.asked = True
        row = shelf.row
        for entry in row:
            if entry.state is READY and not entry.in_use:
                row.move_to_end(entry)
                return entry
            break
    return None


def free(offer: Offer, where: Where, few: int) -> Iterator[Entry]:
    """Conns with a free place that pass: within a group each in turn."""
    for group in offer.heads() if offer.only is None else (offer.only,):
        if len(group.members) > few:
            yield from _shelf(group, where).lendable()
        else:
            for entry in group.free:
                if lendable(entry) and where.passes(entry.extra):
                    yield entry


def _shelf(group: Group, where: Where) -> Shelf:
    if group.index is None:
        group.index = Index()
    return group.index.shelf(where, group.members.values())
