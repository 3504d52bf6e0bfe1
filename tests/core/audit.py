"""The audit: what must hold of a core between two doors, counted anew from its entries.

Owns the recount.  Nothing in here is quick: it is for cores with a handful of conns.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import closing

from connpool.conn import has
from connpool.core import Core, Entry, Standing, State, Supply, Ticket, Where, Work
from connpool.core.candidates import Group, Listing, lendable
from connpool.core.entry import HOPEFUL, LIVE
from connpool.core.hoping import _is_own
from connpool.core.index import Index
from connpool.core.lending import LOOKOUT
from connpool.core.openings import callers
from connpool.core.supply import WANTED
from connpool.core.waiting import ANY, in_order


def audit(core: Core, now: float) -> None:
    """Raise AssertionError where an invariant does not hold at `now`."""
    for entry in core.entries.values():
        _entry(core, entry, now)
    for listing in core.listings():
        _listing(core, listing, now)
    _claims(core, now)
    for group in {entry.group for entry in core.entries.values() if entry.group}:
        if group.index is not None:
            _index(core, group, group.index)
    if core.leasing and core.waiting:
        assert core._lookout.alarm <= now + LOOKOUT, "nobody looks whether holders are there"
    entries = core.entries.values()
    assert core.live == sum(entry.state in LIVE for entry in entries)
    assert core.waiting == sum(len(listing.line.tickets()) for listing in core.listings())
    _permits(core)
    _sizes(core)
    for listing in core.listings():
        if listing.supply is not None and not core.closed:
            _supply(core, listing.supply, listing, now)


def may_be_lent(entry: Entry, now: float) -> bool:
    """Whether `entry` has a free place for somebody at `now`."""
    room = entry.in_use < entry.capacity
    return entry.state is State.READY and room and entry.expires > now


def _entry(core: Core, entry: Entry, now: float) -> None:
    assert entry.in_use >= 0
    assert entry.state is not State.GONE
    taken = min(entry.in_use, 1) if entry.whole else entry.in_use
    assert entry.users is None or len(entry.users) == taken
    assert entry.users is not None or entry.in_use <= 1
    if entry.whole:
        assert entry.in_use == entry.capacity
        assert all(who is entry.user for who in entry.holders), "a whole conn in several hands"
    trouble = entry.trouble
    plain = entry.users is None and trouble is None and entry.away is None
    assert entry.quick == (plain and entry.state is State.READY)
    assert trouble is None or trouble.streak or trouble.failures or trouble.refusals
    if entry.permit is not None:
        assert entry.permit in core.permits
        assert entry.state not in LIVE or entry.permit.work is Work.CHECK
    assert entry.state is not State.CHECKING or (entry.permit and not entry.in_use)
    group = entry.group
    if group is None:
        assert entry.state is State.OPENING
        return
    assert (entry.id in group.members) == (entry.state in HOPEFUL)
    assert group.askable == sum(member.askable for member in group.members.values())
    assert bool(group.offers) == bool(group.members)
    assert group.free.count(entry) == entry.listed
    if may_be_lent(entry, now) and entry.claim is None and entry not in core._unclaimed:
        assert entry.listed
        for offer in group.offers:
            assert offer.free is group.free or group in offer.rotation
    _alarm(core, entry, now)


def _alarm(core: Core, entry: Entry, now: float) -> None:
    """What the conn will do by itself is known to the clockwork in time."""
    due = core.next_due()
    rings = math.inf if due is None else due
    if entry.state in LIVE:
        assert rings <= entry.expires
    if entry.state is State.COOLING:
        assert rings <= entry.rest_until
    idle = entry.permit is None and not entry.open and not entry.in_use
    if entry.state is State.REVIVING and idle:
        assert rings <= entry.rest_until or entry in core._to_open


def _claims(core: Core, now: float) -> None:
    """A claimed conn is kept for the first of one need, who waits for all of it.

    One that is so no longer is given to others at the next stroke of the clock, which is now.
    """
    needs = [need for listing in core.listings() for need in listing.line]
    assert not core._unclaimed or (core.due <= now and not core.closed)
    for entry in core.entries.values():
        if entry.claim is not None:
            assert entry.claim in needs, "a conn is kept for somebody who has left"
            assert entry.claim.claim is entry
            assert entry.state is State.READY
            assert 0 < entry.in_use <= entry.capacity
            assert not lendable(entry)
            assert not entry.held_by(entry.claim.tickets[0].who), "he waits for himself"
    for need in needs:
        if need.claim is not None:
            assert need.whole
            assert need.claim.claim is need
            assert need.claim in core.entries.values()
            assert need.claim in _able(core, need.tickets[0], need.listing, now)


def _index(core: Core, group: Group, index: Index) -> None:
    """Who has what, and who passes which filter, is as each conn says himself."""
    members = group.members.values()
    for key, column in index.columns.items():
        buckets = [column.odd, *column.buckets.values()]
        placed = Counter(entry for bucket in buckets for entry in bucket.entries)
        having = [e for e in members if isinstance(e.extra, dict) and key in e.extra]
        assert placed == Counter(having)
        for value, bucket in column.buckets.items():
            same = [e.extra[key] is value or e.extra[key] == value for e in bucket.entries]
            assert all(same)
            assert bucket.entries or bucket.shelves, "a bucket is kept for nothing"
    for where, shelf in index.shelves.items():
        assert set(shelf.members) == {entry for entry in members if where.passes(entry.extra)}
        assert set(shelf.row) <= set(shelf.members)
        for entry in set(shelf.members) - set(shelf.row):
            assert shelf in (entry.away or ()), "a conn will not come back to where it was"
            assert entry in core._unclaimed or not lendable(entry)


def _sieve(listing: Listing) -> None:
    """A conn is shown to all those in line whom it can serve, as far as filters are data."""
    line = listing.line
    assert (line.sieve is not None) == any(isinstance(n.filter, Where) for n in line)
    for entry in listing.members():
        shown = line.fitting(entry.extra)
        for need in line:
            assert need in shown or not need.filter.passes(entry.extra)  # type: ignore[union-attr]


def _listing(core: Core, listing: Listing, now: float) -> None:
    resource = listing.resource
    entries = [e for e in core.entries.values() if e.group and listing in e.group.listings]
    members = [entry for entry in entries if entry.state in HOPEFUL]
    assert Counter(listing.members()) == Counter(members)
    assert listing.live == sum(entry.state in LIVE for entry in members)
    assert members or listing.supply, f"{resource!r} is listed for nothing"
    _sieve(listing)
    for need in listing.line:
        assert need.witness in members or need.witness is listing.supply is not None
        assert need.size == len(list(need)) > 0
        assert not need.alone or need.size == 1
        for ticket in need:
            if isinstance(need.witness, Entry) and ticket.who is not None:
                assert not _is_own(need.witness, ticket), "somebody waits for himself"
                assert need.alone or not core._holds(need.witness, ticket)
    with closing(in_order([listing.line])) as needs:
        firsts = [need.tickets[0].order for need in needs]
    assert sorted(set(firsts)) == sorted(need.tickets[0].order for need in listing.line)
    assert firsts == sorted(firsts)
    for ticket in listing.line.tickets():
        _ticket(core, ticket, listing, now)


def _ticket(core: Core, ticket: Ticket, listing: Listing, now: float) -> None:
    assert ticket.standing is Standing.QUEUED
    assert core.due <= ticket.deadline
    able, supply = _able(core, ticket, listing, now), listing.supply
    hope = supply is not None and supply.may_serve(ticket.method, any_method=ticket.method is ANY)
    sane = isinstance(ticket.method, str) or ticket.method is ANY  # or it may be another by now
    assert able or hope or not sane, f"{ticket.method!r} is waited for in vain"
    if now < ticket.deadline:
        for entry in able:
            free = entry not in core._unclaimed and _is_for(entry, ticket, now)
            assert not free, "somebody waits for a free conn"


def _able(core: Core, ticket: Ticket, listing: Listing, now: float) -> list[Entry]:
    """The conns that can serve a ticket, now or later."""
    return [
        entry
        for entry in listing.members()
        if (ticket.method is ANY or (entry.group and has(entry.group.methods, ticket.method)))
        and _passes(core, ticket, entry, now)
    ]


def _is_for(entry: Entry, ticket: Ticket, now: float) -> bool:
    """Whether an able conn is free for this ticket: for one who wants it whole when it is idle, for
    others unless it is kept for somebody who was there before them."""
    if not may_be_lent(entry, now):
        return False
    if ticket.whole:
        return not entry.in_use
    if entry.claim is None or ticket.order < entry.claim.tickets[0].order:
        return True
    return ticket.who is not None and entry.held_by(ticket.who)  # he is waited for


def _permits(core: Core) -> None:
    slots = sum(permit.holds_slot for permit in core.permits)
    assert core._connecting == slots <= core.options.max_connecting
    if core._to_open:
        assert slots == core.options.max_connecting, "a slot is free, and somebody waits for one"


def _sizes(core: Core) -> None:
    staying = [
        entry
        for entry in core.entries.values()
        if entry.state is not State.DRAINING or entry.in_use or entry.popper
    ]
    assert core.options.max_size is None or len(staying) <= core.options.max_size


def _supply(core: Core, supply: Supply, listing: Listing, now: float) -> None:
    """Its figures are those of its conns, and what it wants it gets as soon as it can be."""
    own = [entry for entry in core.entries.values() if entry.supply is supply]
    assert supply.size == len(own)
    assert supply.unborn == sum(entry.state is State.OPENING for entry in own)
    staying = [entry for entry in own if entry.state in LIVE or entry.state is State.OPENING]
    assert len(staying) <= supply.max_size
    assert all(entry.state is not State.REVIVING for entry in own)
    waiting = callers(listing, supply)
    if supply.wanted(waiting, now) and supply not in core._to_open:
        known = supply in core._starved or supply.alarm <= now  # the driver may be late
        assert known, "a supply wants a conn, and nobody knows"
        assert supply.alarm <= now + WANTED
    if supply.retry_at > now and supply.wanted(waiting, supply.retry_at):
        assert supply.alarm <= supply.retry_at, "a supply pauses, and nothing will wake it"
        assert not waiting or supply.advised or supply.retry_at <= now + WANTED


def _passes(core: Core, ticket: Ticket, entry: Entry, now: float) -> bool:
    try:
        return core._passes(ticket.filter, entry, now)
    except Exception:
        return False
