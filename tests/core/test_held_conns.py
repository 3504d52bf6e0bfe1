"""What happens to a conn while somebody holds it, who is sent to it meanwhile, what is counted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Entry, Outcome, Standing, Ticket, sticky
from connpool.errors import IdError, NestedCall, PoolClosed, PoolTimeout
from tests.core.bench import Bench, error_of, granted, holder, queued

# -- what happens to a conn meanwhile --------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("second", [1, 2, 3])
def test_a_whole_conn_is_whole_whatever_its_capacity_becomes(first: int, second: int) -> None:
    """Who has all places has all there are; afterwards there are as many as was said last."""
    bench = Bench()
    entry = bench.conn(capacity=first)
    held = bench.lease()
    waiting = [bench.ask() for _ in range(4)]
    bench.update(capacity=second)
    assert (entry.in_use, entry.holders) == (second, [held.who])
    assert not any(map(granted, waiting))
    bench.release(held)
    assert [granted(call) for call in waiting].count(True) == second
    assert entry.in_use == second


def test_places_that_are_added_to_a_shared_conn_are_lent_at_once() -> None:
    """And those that are taken away once they are free."""
    bench = Bench()
    entry = bench.conn()
    shared = [bench.lease(whole=False), bench.lease(whole=False)]
    bench.update(capacity=2)
    assert granted(shared[1])
    bench.update(capacity=1)
    waiting = bench.lease(whole=False)
    bench.release(shared[0])
    assert queued(waiting)
    bench.release(shared[1])
    assert holder(waiting) is entry


def test_a_pop_waits_for_who_holds_the_conn() -> None:
    """And it is his who pops, whatever becomes of the lease."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    held = bench.lease()
    pop = bench.pop(entry)
    assert not pop.done
    bench.release(held)
    assert pop.done
    assert [info.id for info in pop.infos] == [entry.id]


def test_a_pop_of_what_one_holds_is_refused() -> None:
    """It would wait for itself."""
    bench = Bench()
    entry = bench.conn()
    bench.lease(who="ann")
    with pytest.raises(NestedCall):
        bench.pop(entry, who="ann")


def test_a_pop_that_is_given_up_leaves_a_held_conn_to_its_holder() -> None:
    """It is in service again, and as full as it was."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    held = bench.lease()
    bench.unpop(bench.pop(entry))
    assert (entry.state.value, entry.in_use, entry.whole) == ("ready", 3, True)
    assert queued(bench.ask())
    bench.release(held)
    assert entry.in_use == 1


def test_when_the_pool_closes_those_who_wait_are_told_and_those_who_hold_are_left_alone() -> None:
    """Their conns are closed as they come back."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    held, waiting = bench.lease(), bench.lease()
    bench.close()
    assert isinstance(error_of(waiting), PoolClosed)
    assert not bench.permits
    with pytest.raises(PoolClosed):
        bench.lease()
    bench.release(held)
    assert bench.closing().entry is entry


def test_what_is_held_for_too_long_after_the_close_is_closed_under_its_holder() -> None:
    """And that he gives it back later changes nothing."""
    bench = Bench()
    entry = bench.conn()
    held = bench.lease()
    bench.close()
    assert [info.id for info in bench.abandon()] == [entry.id]
    bench.closed(bench.closing())
    bench.release(held)
    assert entry.state.value == "gone"
    assert not bench.permits
    with pytest.raises(IdError):
        bench.info(entry)


def test_a_conn_that_dies_while_it_is_held_is_closed_at_once_and_revived_later() -> None:
    """When its holder has left it, not under his hands."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    shared, called = bench.lease(whole=False), bench.ask()
    bench.end(called, OSError("torn"))
    bench.closed(bench.closing())
    assert not bench.permits
    bench.release(shared)
    bench.work()
    assert holder(bench.lease()) is entry


# -- conns without a lease -------------------------------------------------------------------------

BYS = [None, "round_robin", "random", "two_choices", "least_used", "least_wait", sticky("key")]


@pytest.mark.parametrize("by", [*BYS, lambda shown: shown[0]], ids=str)
@pytest.mark.parametrize("filter", [None, lambda info: True], ids=["all", "filtered"])
def test_a_conn_that_somebody_has_whole_is_routed_to_nobody(by: Any, filter: Any) -> None:
    """However one is picked; where all are held somebody would have to wait, and routing does
    not."""
    bench = Bench()
    conns = {bench.conn(capacity=2).conn for _ in range(3)}

    def pick() -> Any:
        known = (by, bench.now)
        found = bench.core.glance("a", "m", *known) if filter is None else None
        return bench.core.route("a", "m", filter, *known) if found is None else found

    pick()  # the roll is called, and the key finds its place
    held = []
    while conns:
        assert {pick() for _ in range(12)} <= conns
        held.append(bench.lease())
        conns.remove(holder(held[-1]).conn)
    with pytest.raises(PoolTimeout):
        pick()
    bench.release(held[1])
    assert pick() is holder_was(held[1]).conn


def holder_was(lease: Ticket) -> Entry:
    """The conn that a lease, over now, was for."""
    assert lease.standing is Standing.OVER
    assert lease.entry is not None
    return lease.entry


def test_a_conn_that_is_shared_is_routed_to() -> None:
    """Even with all its places taken: routing takes none."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    bench.lease(whole=False), bench.lease(whole=False)
    assert bench.core.route("a", "m", None, None, bench.now) is entry.conn


# -- numbers ---------------------------------------------------------------------------------------


def test_checkouts_are_counted_when_they_are_over() -> None:
    """Those of conns that have left the pool, too; one that moved is not over."""
    bench = Bench()

    def told() -> tuple[int, int, int]:
        since = bench.core.stats(bench.now).since_start
        return since.checkouts, since.lost, since.moved

    first, second = bench.conn(), bench.conn()
    bench.release(bench.lease())
    held = bench.lease()
    assert told() == (1, 0, 0)
    bench.forfeit(held, Outcome(error=KeyError()))
    assert told() == (2, 0, 0)
    moved = bench.lease()
    bench.forfeit(moved, Outcome(end="closed", moves=True))
    again = bench.submit(moved.again(OSError()))
    assert told() == (2, 0, 1)
    bench.forsake(again)
    assert told() == (3, 1, 1)
    bench.work()
    assert first.state.value == second.state.value == "gone"
    assert told() == (3, 1, 1)


def test_a_checkout_is_no_call() -> None:
    """It leaves no figures of any method."""
    bench = Bench()
    entry = bench.conn()
    bench.release(bench.lease())
    assert bench.core.stats(bench.now).since_start.calls == 0
    assert not bench.info(entry).stats
    bench.end(bench.ask(), Reply(1))
    assert bench.core.stats(bench.now).since_start.calls == 1


def test_places_in_use_are_counted_with_those_of_a_whole_conn() -> None:
    """Nobody else can have them."""
    bench = Bench()
    bench.conn(capacity=3), bench.conn(capacity=3)
    bench.lease(), bench.ask()
    assert bench.core.stats(bench.now).now.in_use == 4


def test_a_lone_user_is_told_from_several() -> None:
    """Who has all places is one; so is nobody."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    assert entry.sole
    held = bench.lease()
    assert entry.sole
    bench.release(held)
    bench.ask()
    assert entry.sole
    bench.ask()
    assert not entry.sole


def test_who_asks_directly_is_served_like_who_has_looked_first() -> None:
    """A ticket for a whole conn takes one that is free at once."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    ticket = bench.ask(method=ANY, whole=True)
    assert holder(ticket) is entry
    assert entry.whole
    assert ticket.deadline == math.inf
