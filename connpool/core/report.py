"""The report: who holds what, who waits for what, and why, as a text for people.

Owns the wording.  Refuses to change anything, and shows no conn: a conn's repr may hold secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import show
from .candidates import Listing
from .entry import DRAINING, OPENING, Entry

if TYPE_CHECKING:
    from .book import Book


def report(core: Book, now: float, name_of: Callable[[Any], str]) -> str:
    """What there is to say of the pool at `now`.  `name_of` names a holder."""
    return "\n".join(_lines(core, now, name_of))


def _lines(core: Book, now: float, name_of: Callable[[Any], str]) -> Iterator[str]:
    stats = core.stats(now)
    state = "closed" if core.closed else "open"
    yield (
        f"pool {core.name!r}, {state}: {stats.now.conns} conns alive, {stats.now.in_use} calls "
        f"running, {stats.now.waiting} callers waiting"
    )
    for listing in core.listings():
        yield f"  {show(listing.resource)}: {listing.live} alive"
        for entry in listing.members():
            yield f"    {_entry(entry, now, name_of)}"
        for line in _waiting(listing, now):
            yield f"    {line}"
        if listing.last_error is not None:
            yield f"    last failure: {show(listing.last_error)}"
    leaving = [e for e in core.entries.values() if e.state in (DRAINING, OPENING)]
    for entry in leaving:
        yield f"  {_entry(entry, now, name_of)}"


def _entry(entry: Entry, now: float, name_of: Callable[[Any], str]) -> str:
    text = f"conn {entry.id}: {entry.state.value}, {entry.in_use} of {entry.capacity} in use"
    if entry.in_use:
        holders = entry.users if entry.users is not None else [entry.user]
        names = ", ".join(name_of(holder) for holder in holders)
        text += f" by {names}, the last for {now - entry.since:.2f} s"
    if entry.rest_until > now:
        text += f", rests {entry.rest_until - now:.1f} s"
    return text


def _waiting(listing: Listing, now: float) -> Iterator[str]:
    for need in listing.line:
        longest = now - need.tickets[0].arrived
        what = f"method {show(need.method)}" + (" with a filter" if need.filter else "")
        yield f"{need.size} wait for {what}, the first for {longest:.2f} s"
