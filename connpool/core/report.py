"""The report: who holds what, who waits for what, and why, as a text for people.

Owns the wording.  Refuses to change anything, and shows no conn: a conn's repr may hold secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import show
from .candidates import Listing
from .entry import COOLING, DRAINING, OPENING, REVIVING, Entry

if TYPE_CHECKING:
    from .book import Book

# A summary is made for each caller whose patience ends, and there may be many: it looks at no more
# conns than this.
GLIMPSE = 8

# Seconds after which it is worth saying that somebody holds a conn for long.
LONG = 5.0

NameOf = Callable[[Any], str]
TraceOf = Callable[[Any, Any], list[str]]


def report(core: Book, now: float, name_of: NameOf, trace_of: TraceOf | None = None) -> str:
    """What there is to say of the pool at `now`.

    `name_of` names a holder.  `trace_of`, given a holder and where he checked a conn out (None
    where he did not), gives lines that say where he is.
    """
    return "\n".join(_lines(core, now, name_of, trace_of))


def _lines(core: Book, now: float, name_of: NameOf, trace_of: TraceOf | None) -> Iterator[str]:
    stats = core.stats(now)
    state = "closed" if core.closed else "open"
    yield (
        f"pool {core.name!r}, {state}: {stats.now.conns} conns alive, {stats.now.in_use} places in "
        f"use, {stats.now.waiting} callers waiting"
    )
    for listing in core.listings():
        yield f"  {show(listing.resource)}: {listing.live} alive"
        for entry in listing.members():
            yield from _entry(entry, now, name_of, trace_of, "    ")
        for line in _waiting(listing, now):
            yield f"    {line}"
        if listing.last_error is not None:
            yield f"    last failure: {show(listing.last_error)}"
    for entry in [e for e in core.entries.values() if e.state in (DRAINING, OPENING)]:
        yield from _entry(entry, now, name_of, trace_of, "  ")
    if core.failures:
        yield "  last failures:"
        for when, resource, text in core.failures:
            yield f"    {now - when:.1f} s ago, {resource}: {text}"
    yield f"  advice: {_advice(core, now, name_of)}"


def _entry(
    entry: Entry, now: float, name_of: NameOf, trace_of: TraceOf | None, margin: str
) -> Iterator[str]:
    text = f"conn {entry.id}: {entry.state.value}, {entry.in_use} of {entry.capacity} in use"
    holders = entry.holders
    if holders:
        what = ", checked out by" if entry.whole else " by"
        names = ", ".join(name_of(holder) for holder in holders)
        last = ", the last" if len(holders) > 1 else ""
        text += f"{what} {names}{last} for {now - entry.since:.2f} s"
    if entry.rest_until > now:
        text += f", rests {entry.rest_until - now:.1f} s"
    yield margin + text
    if trace_of is not None:
        for holder in holders:
            where = entry.where if entry.whole else None
            yield from (f"{margin}    {line}" for line in trace_of(holder, where))


def _waiting(listing: Listing, now: float) -> Iterator[str]:
    for need in listing.line:
        longest = now - need.tickets[0].arrived
        what = f"method {show(need.method)}" + ("" if need.filter is None else " with a filter")
        what += ", the whole conn" if need.whole else ""
        yield f"{need.size} wait for {what}, the first for {longest:.2f} s"


# -- why, in one line ------------------------------------------------------------------------------


def summary(listing: Listing, waiting: int, now: float) -> str:
    """One line for somebody who waited in vain: what there was instead."""
    some = list(islice(listing.members(), GLIMPSE))
    busy = [entry for entry in some if entry.in_use]
    parts = [f"{listing.live} alive"]
    if busy:
        longest = now - min(entry.since for entry in busy)
        parts.append(f"{len(busy)} in use, the longest for {longest:.2f} s")
    for state, words in ((COOLING, "resting"), (REVIVING, "being revived")):
        if number := sum(entry.state is state for entry in some):
            parts.append(f"{number} {words}")
    if listing.supply is not None and listing.supply.unborn:
        parts.append(f"{listing.supply.unborn} being opened")
    parts.append(f"{waiting} other callers wait")
    return f"{', '.join(parts)}; {_cure(listing, some)}"


def _cure(listing: Listing, some: list[Entry]) -> str:
    """What would help those who wait for a resource."""
    supply = listing.supply
    resting = [entry for entry in some if entry.state is COOLING]
    if not listing.live:
        known = listing.last_error is not None
        return f"no conn can be opened{': see the last failure' if known else ' fast enough'}"
    if resting and len(resting) * 2 >= len(some):
        return "most conns rest because they were told to: ask less often, or add conns"
    if supply is not None and (supply.unborn or supply.size < supply.max_size):
        return "conns are opened as fast as allowed: see max_connecting, min_size and max_size"
    if supply is not None:
        return f"max_size is {supply.max_size}: raise it, or use conns for less time"
    return "all are in use: add conns, or use them for less time"


def _advice(core: Book, now: float, name_of: NameOf) -> str:
    """One line on what to look at first."""
    if core.closed:
        return "the pool is closed"
    lines = [listing for listing in core.listings() if listing.line]
    if not lines:
        return _idle_advice(core)
    listing = max(lines, key=lambda listing: sum(need.size for need in listing.line))
    some = list(islice(listing.members(), GLIMPSE))
    oldest = min((e for e in some if e.in_use), key=lambda e: e.since, default=None)
    if oldest is not None and now - oldest.since >= LONG:
        names = ", ".join(name_of(holder) for holder in oldest.holders)
        return f"conn {oldest.id} has been in use for {now - oldest.since:.0f} s: look at {names}"
    return f"{show(listing.resource)}: {_cure(listing, some)}"


def _idle_advice(core: Book) -> str:
    """Nobody waits."""
    ailing = sum(entry.state is REVIVING for entry in core.entries.values())
    if ailing:
        return f"{ailing} conns are being revived: see the last failures"
    return "nobody waits"
