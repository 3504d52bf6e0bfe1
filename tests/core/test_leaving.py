"""Conns that are taken out by hand, and the end of the whole pool."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Pop
from connpool.errors import (
    Closed,
    FilterError,
    IdError,
    NestedCall,
    PoolClosed,
    PoolTimeout,
    ResourceError,
)
from tests.core.bench import Bench, error_of, granted, holder, queued


def handed_over(pop: Pop) -> list[int]:
    """The ids of the conns that a pop gave."""
    assert pop.done
    return [info.id for info in pop.infos]


# -- pop -------------------------------------------------------------------------------------------


def test_an_idle_conn_is_taken_out_at_once() -> None:
    """Open: it is not closed, and its id is no longer known."""
    bench = Bench()
    entry = bench.conn()
    pop = bench.pop(entry)
    assert handed_over(pop) == [entry.id]
    assert pop.infos[0].conn is entry.conn
    assert bench.popped == [pop]
    assert not bench.permits
    with pytest.raises(IdError):
        bench.core.find(entry.id, 0.0)
    with pytest.raises(ResourceError):
        bench.ask()


def test_a_conn_in_use_is_taken_out_when_its_calls_are_done() -> None:
    """It gets no new ones; those who waited for it wait for another, or are told."""
    bench = Bench()
    entry = bench.conn(capacity=2, extra="red")
    calls = [bench.ask(), bench.ask()]
    bench.conn()
    bench.ask()
    either, only_it = bench.ask(), bench.ask(filter=lambda info: info.extra == "red")
    pop = bench.pop(entry)
    assert queued(either)
    assert isinstance(error_of(only_it), FilterError)
    bench.answer(calls[0])
    assert not pop.done
    assert queued(either)
    bench.answer(calls[1])
    assert handed_over(pop) == [entry.id]


def test_several_are_taken_out_together_or_not_at_all() -> None:
    """When the last call is done; with none to take it is done at once."""
    bench = Bench()
    entries = [bench.conn() for _ in range(3)]
    tickets = [bench.ask(), bench.ask()]
    pop = bench.pop(*entries)
    bench.answer(tickets[0])
    assert not pop.done
    assert bench.core.count(0.0) == 0
    bench.answer(tickets[1])
    assert handed_over(pop) == [entry.id for entry in entries]
    assert handed_over(bench.pop()) == []


def test_a_conn_is_taken_out_once() -> None:
    """Who comes second gets an IdError, and none of his other conns is touched."""
    bench = Bench()
    entry, other = bench.conn(), bench.conn()
    bench.ask()
    bench.pop(entry)
    with pytest.raises(IdError, match="leaving"):
        bench.pop(other, entry)
    assert holder(bench.ask()) is other


def test_a_conn_that_is_being_opened_has_no_id_yet() -> None:
    """Nobody was told it."""
    bench = Bench()
    with pytest.raises(IdError):
        bench.core.find(bench.admit().entry.id, 0.0)


def test_a_conn_that_is_being_revived_may_be_taken_out() -> None:
    """At once where nothing runs; else when the permit is back, open or not."""
    bench = Bench()
    entries = [bench.conn(revive=True) for _ in range(3)]
    for ticket in [bench.ask() for _ in entries]:
        bench.end(ticket, OSError("torn"))
    for _ in entries[1:]:
        bench.closed(bench.closing())
    closing, opening, failing = bench.closing(), bench.opening(), bench.opening()
    pops = [bench.pop(entry) for entry in entries]
    assert not any(pop.done for pop in pops)
    bench.closed(closing)
    bench.opened(opening)
    bench.failed(failing)
    assert [handed_over(pop) for pop in pops] == [[entry.id] for entry in entries]
    assert not bench.permits
    assert not bench.core.entries


@pytest.mark.parametrize("end", [Closed(), OSError("torn"), Reply(1, closed=True)])
def test_a_conn_that_dies_while_it_is_being_taken_out_is_handed_over(end: Any) -> None:
    """Who asked for it gets it as it is."""
    bench = Bench()
    entry = bench.conn(revive=True)
    running = bench.ask()
    pop = bench.pop(entry)
    bench.end(running, end)
    assert handed_over(pop) == [entry.id]
    assert not bench.permits


def test_a_pop_from_inside_a_call_on_the_conn_is_refused() -> None:
    """It would wait for itself, whoever else uses the conn; nothing is taken out."""
    bench = Bench()
    entry, other = bench.conn(capacity=2), bench.conn("b")
    bench.ask(who="bob")
    mine = bench.ask(who="ann")
    with pytest.raises(NestedCall, match="wait for itself"):
        bench.pop(other, entry, who="ann")
    assert granted(bench.ask("b"))
    bench.answer(mine)
    assert not bench.pop(entry, who="ann").done


# -- given up --------------------------------------------------------------------------------------


def test_a_pop_that_is_given_up_puts_its_conns_back() -> None:
    """In service at once: who has come to wait meanwhile is served."""
    bench = Bench()
    idle, busy, third = bench.conn(), bench.conn(), bench.conn(methods=["m", "n"])
    running = bench.ask(filter=lambda info: info.id == busy.id)
    bench.ask("a", "n")
    pop = bench.pop(idle, busy)
    waiting = [bench.ask(), bench.ask()]
    assert third.in_use
    bench.unpop(pop)
    assert holder(waiting[0]) is idle
    assert queued(waiting[1])
    bench.answer(running)
    assert holder(waiting[1]) is busy
    assert bench.core.count(0.0) == 3


def test_a_pop_that_is_done_cannot_be_given_up() -> None:
    """Neither can one that was given up be given up again."""
    bench = Bench()
    entry = bench.conn()
    pop = bench.pop(entry)
    bench.unpop(pop)
    assert handed_over(pop) == [entry.id]
    assert not bench.core.entries


def test_a_rest_goes_on_after_a_pop_that_was_given_up() -> None:
    """It is not lent before its time."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    rests, _ = bench.ask(), bench.ask()
    bench.end(rests, Reply(1, cooldown=9.0))
    pop = bench.pop(entry)
    bench.at(5.0)
    bench.unpop(pop)
    waiting = bench.ask()
    assert bench.info(entry).state == "cooling"
    bench.at(9.0)
    assert granted(waiting)


@pytest.mark.parametrize("revive", [True, False])
def test_a_conn_that_expired_during_a_pop_that_was_given_up_is_not_lent(revive: bool) -> None:
    """Not even where it rests longer than it lives."""
    bench = Bench()
    entry = bench.conn(capacity=2, ttl=5.0, revive=revive)
    rests, _ = bench.ask(), bench.ask()
    bench.end(rests, Reply(1, cooldown=99.0))
    pop = bench.pop(entry)
    bench.at(6.0)
    bench.unpop(pop)
    assert bench.core.count(6.0) == 0
    assert bench.core.stats(6.0).since_start.ended == {"expired": 1}
    assert entry.in_use == 1
    assert not bench.permits


@pytest.mark.parametrize(
    ("end", "reason"),
    [(OSError("torn"), "dead"), (Closed(), "closed"), (Reply(1, closed=True), "done")],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_conn_that_died_during_a_pop_that_was_given_up_is_given_up_too(
    end: Any, reason: str, before: bool
) -> None:
    """Or had died before it: it does not go back into service."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive="force")
    ticket, still = bench.ask(), bench.ask()
    if before:
        bench.end(ticket, end)
        pop = bench.pop(entry)
    else:
        pop = bench.pop(entry)
        bench.end(ticket, end)
    bench.unpop(pop)
    waiting = bench.ask()
    assert bench.core.count(0.0) == 0
    bench.answer(still)
    assert queued(waiting)
    closing = bench.closing()
    assert closing.reason == reason
    bench.closed(closing)
    bench.at(10.0)
    bench.opened(bench.opening())
    assert holder(waiting) is entry


def test_a_conn_that_was_being_revived_is_so_again_after_a_pop_that_was_given_up() -> None:
    """Its permit is still out; it is not opened twice."""
    bench = Bench()
    entry, busy = bench.conn(revive=True), bench.conn()
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    opening = bench.opening()
    bench.ask()
    pop = bench.pop(entry, busy)
    bench.unpop(pop)
    assert entry.state.value == "reviving"
    assert not bench.permits
    bench.opened(opening)
    assert holder(bench.ask()) is entry


def test_a_revival_waits_for_its_time_after_a_pop_that_was_given_up() -> None:
    """Its backoff is neither forgotten nor never looked at again."""
    bench = Bench()
    entry, busy = bench.conn(revive=True), bench.conn()
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    bench.failed(bench.opening())
    bench.ask()
    pop = bench.pop(entry, busy)
    bench.unpop(pop)
    assert not bench.permits
    assert bench.core.next_due() == 1.0
    bench.at(1.0)
    assert bench.opening().entry is entry


def test_a_conn_that_was_revived_long_since_goes_back_into_service() -> None:
    """Why it was given up an earlier time does not count."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.work()
    first, _ = bench.ask(), bench.ask()
    pop = bench.pop(entry)
    bench.answer(first)
    bench.unpop(pop)
    assert holder(bench.ask()) is entry
    assert not bench.permits


# -- close -----------------------------------------------------------------------------------------


def test_close_tells_those_who_wait() -> None:
    """At once, whatever they wait for."""
    bench = Bench()
    bench.conn()
    bench.conn("b", rest=9.0)
    bench.ask()
    waiting = [bench.ask(), bench.ask("b"), bench.ask(filter=lambda info: True)]
    bench.close()
    assert all(isinstance(error_of(ticket), PoolClosed) for ticket in waiting)
    assert bench.core.waiting == 0


def test_close_closes_each_conn_once() -> None:
    """Idle and resting ones at once, those in use when they come back, however their call ends."""
    bench = Bench()
    conns = {bench.conn(), bench.conn(rest=9.0), bench.conn(revive="force"), bench.conn()}
    running, torn = bench.ask(), bench.ask()
    bench.close()
    closed = {bench.closing().entry, bench.closing().entry}
    assert not bench.permits
    bench.answer(running)
    bench.end(torn, OSError("torn"))
    closings = [bench.closing(), bench.closing()]
    assert {closing.reason for closing in closings} == {"pool closed"}
    closed |= {closing.entry for closing in closings}
    assert closed == conns
    bench.close()
    assert not bench.permits


def test_close_does_not_wait_for_what_is_being_revived() -> None:
    """What is closed already is gone; what comes up late is closed again."""
    bench = Bench(max_connecting=1)
    for _ in range(3):
        bench.conn(revive=True)
    for ticket in [bench.ask() for _ in range(3)]:
        bench.end(ticket, OSError("torn"))
    bench.closed(bench.closing())
    bench.closed(bench.closing())
    hung, opening = bench.closing(), bench.opening()
    bench.close()
    assert bench.core.busy(None)
    assert bench.opened(opening) is None
    bench.closed(hung)
    bench.closed(bench.closing())
    assert not bench.core.entries
    assert not bench.core.busy(None)


def test_a_conn_that_is_opened_while_the_pool_closes_is_closed_again() -> None:
    """It was never announced, so its end is not announced either."""
    bench = Bench()
    succeeds, fails = bench.admit(), bench.admit()
    bench.close()
    assert bench.core.busy(None)
    assert bench.opened(succeeds) is None
    bench.failed(fails)
    closing = bench.closing()
    assert closing.info is None
    bench.closed(closing)
    assert not bench.core.busy(None)


def test_close_ends_a_pop() -> None:
    """Who waits for it is told, and its conns are closed as soon as nobody uses them."""
    bench = Bench()
    idle, busy = bench.conn(), bench.conn()
    running = bench.ask(filter=lambda info: info.id == busy.id)
    pop = bench.pop(idle, busy)
    bench.close()
    assert pop.done
    assert isinstance(pop.error, PoolClosed)
    assert pop.infos == []
    assert bench.popped == [pop]
    assert bench.closing().entry is idle
    bench.unpop(pop)
    bench.answer(running)
    assert bench.closing().entry is busy


def test_close_does_not_close_a_conn_under_its_user_because_it_was_dead_once() -> None:
    """Nor one that somebody was about to take out."""
    bench = Bench()
    entry = bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.work()
    running = bench.ask()
    bench.pop(entry)
    bench.close()
    assert not bench.permits
    bench.answer(running)
    assert bench.closing().reason == "pool closed"


def test_who_was_served_just_before_the_close_may_finish() -> None:
    """Or give it back."""
    bench = Bench()
    bench.conn()
    first, second = bench.ask(), bench.ask()
    bench.answer(first)
    assert granted(second)
    bench.close()
    bench.cancel(second)
    bench.closed(bench.closing())
    assert not bench.core.entries


def test_a_call_that_did_not_happen_is_not_moved_in_a_closed_pool() -> None:
    """Its caller is told that the pool is closed."""
    bench = Bench()
    bench.conn(), bench.conn()
    running = bench.ask()
    bench.close()
    with pytest.raises(PoolClosed):
        bench.move(running, Closed())


# -- abandon ---------------------------------------------------------------------------------------


def test_what_is_still_used_when_time_is_over_is_closed_under_its_users() -> None:
    """They are told of; whatever comes back later does no harm."""
    bench = Bench()
    entry = bench.conn()
    hung = bench.conn("b")
    running, torn = bench.ask(), bench.ask("b")
    bench.close()
    left = bench.abandon()
    assert {info.id for info in left} == {entry.id, hung.id}
    assert not bench.core.entries
    assert not bench.core.listings()
    for closing in (bench.closing(), bench.closing()):
        bench.closed(closing)
    bench.answer(running)
    bench.end(torn, OSError("torn"))
    assert not bench.permits
    assert not bench.core.busy(None)


def test_what_hangs_when_time_is_over_is_forgotten() -> None:
    """A close that never ends, an init that ends much too late: that conn is closed again."""
    bench = Bench()
    bench.conn(revive=True)
    bench.conn()
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    late = bench.opening()
    bench.close()
    hung = bench.closing()
    assert len(bench.abandon()) == 2
    assert not bench.core.entries
    bench.closed(hung)
    bench.opened(late)
    bench.closed(bench.closing())
    assert not bench.permits
    assert not bench.core.busy(None)


def test_a_dead_conn_that_somebody_hangs_on_is_not_closed_twice() -> None:
    """It was closed when it was found dead."""
    bench = Bench()
    bench.conn(capacity=2)
    dead, _ = bench.ask(), bench.ask()
    bench.end(dead, OSError("torn"))
    bench.closed(bench.closing())
    bench.close()
    bench.abandon()
    assert not bench.permits


def test_a_pop_that_is_done_may_still_be_given_up() -> None:
    """Whoever is cancelled before coming for the conns leaves them to the pool."""
    bench = Bench()
    bench.collects = False
    entry = bench.conn()
    pop = bench.pop(entry)
    assert pop.done
    bench.unpop(pop)
    assert bench.core.count(bench.now) == 1
    assert bench.ask().entry is entry


def test_who_pops_from_a_pool_that_closes_is_told() -> None:
    """When he comes for the conns."""
    bench = Bench()
    entry = bench.conn()
    bench.ask()
    pop = bench.pop(entry)
    bench.close()
    with pytest.raises(PoolClosed):
        bench.core.popped(pop, 1.0, 0.0, bench.now)


def test_who_pops_and_comes_too_early_gives_up() -> None:
    """His time is over; the conn goes back into service."""
    bench = Bench()
    entry = bench.conn()
    caller = bench.ask()
    pop = bench.pop(entry)
    with pytest.raises(PoolTimeout, match="did not end in time"):
        bench.core.popped(pop, 1.0, 1.0, bench.now)
    bench.look()
    bench.answer(caller)
    assert holder(bench.ask()) is entry
