"""Conns that are kept free for who wants them whole: that he does not wait for ever, that nobody
waits for his sake in vain, and what becomes of it when things change."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Entry, Ticket
from connpool.errors import Busy, PoolTimeout
from tests.core.bench import Bench, error_of, granted, holder, queued


def only(entry: Entry) -> Any:
    """A filter that one conn passes."""
    return lambda info: info.id == entry.id


def kept(bench: Bench, capacity: int = 3, **wish: Any) -> tuple[Entry, Ticket, Ticket]:
    """A conn that is kept, who uses a place of it, and for whom it is kept."""
    entry = bench.conn(capacity=capacity)
    user, other = bench.ask(filter=only(entry)), bench.ask(filter=only(entry))
    wanted = bench.lease(**wish)
    bench.answer(other)
    assert entry.claim is not None
    return entry, user, wanted


# -- nobody waits for ever -------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [2, 3, 8])
def test_who_wants_a_whole_conn_does_not_starve(capacity: int) -> None:
    """However many want a place each: he has it as soon as those have left who used it when the
    first of them came back, and they are no more than there are places."""
    bench = Bench()
    bench.conn(capacity=capacity)
    running = deque(bench.ask() for _ in range(capacity))
    wanted = bench.lease()
    returns = 0
    while queued(wanted):
        bench.ask()  # the stream never ends
        bench.answer(running.popleft())
        returns += 1
    assert returns == capacity


def test_those_who_were_there_before_him_are_served_before_him() -> None:
    """He does not overtake anybody either."""
    bench = Bench()
    bench.conn(capacity=2)
    running = [bench.ask(), bench.ask()]
    before, wanted, after = bench.ask(), bench.lease(), bench.ask()
    bench.answer(running[0])
    assert granted(before)
    bench.answer(running[1])
    assert not granted(after)
    bench.answer(before)
    assert granted(wanted)
    bench.release(wanted)
    assert granted(after)


def test_a_place_that_is_kept_is_nobodys() -> None:
    """A newcomer does not get it, by whatever door, nor who waits already."""
    bench = Bench()
    entry, user, wanted = kept(bench)
    newcomers = [bench.ask(), bench.lease(whole=False), bench.lease(), bench.ask(by="least_used")]
    assert all(map(queued, newcomers))
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    assert entry.in_use == 1
    bench.answer(user)
    assert holder(wanted) is entry
    bench.release(wanted)
    assert [granted(ticket) for ticket in newcomers] == [True, True, False, False]


def test_a_conn_is_kept_for_him_and_the_others_serve_the_rest() -> None:
    """Where two have users, that is kept which has a place to spare first; not both."""
    bench = Bench()
    one, two = bench.conn(capacity=2), bench.conn(capacity=2)
    first, second = [[bench.ask(filter=only(conn)) for _ in range(2)] for conn in (one, two)]
    wanted, waiting = bench.lease(), [bench.ask() for _ in range(3)]
    bench.answer(first[0])
    assert one.claim is not None
    bench.answer(second[0])
    assert two.claim is None
    bench.answer(second[1])
    assert [granted(call) for call in waiting] == [True, True, False]
    assert queued(wanted)
    bench.answer(first[1])
    assert holder(wanted) is one


def test_each_of_those_who_want_different_conns_has_one_kept() -> None:
    """One for whom a conn is kept already does not keep another from him who comes next; but the
    first that is idle is his."""
    bench = Bench()
    one, two = bench.conn(capacity=2), bench.conn(capacity=2)
    first, second = [[bench.ask(filter=only(conn)) for _ in range(2)] for conn in (one, two)]
    wanted, picky = bench.lease(), bench.lease(filter=only(two))
    bench.answer(first[0])
    bench.answer(second[0])
    assert [entry.claim and entry.claim.tickets[0] for entry in (one, two)] == [wanted, picky]
    bench.answer(second[1])
    assert holder(wanted) is two
    assert one.claim is None
    bench.answer(first[1])
    assert queued(picky)
    bench.release(wanted)
    assert granted(picky)


def test_a_conn_with_two_resources_is_kept_from_those_who_wait_for_the_other() -> None:
    """And is theirs when it is not kept any more."""
    bench = Bench()
    entry = bench.conn(["a", "b"], capacity=3)
    users = [bench.ask("a"), bench.ask("b")]
    wanted = bench.lease("a", timeout=5.0)
    bench.answer(users[0])
    there = [bench.ask("b"), bench.ask("b"), bench.ask("b")]
    assert all(map(queued, there))
    bench.at(5.0)
    assert isinstance(error_of(wanted), PoolTimeout)
    assert [granted(call) for call in there] == [True, True, False]
    assert entry.in_use == 3


# -- nobody waits in vain --------------------------------------------------------------------------


def test_when_he_gives_up_the_conn_is_for_others() -> None:
    """At once."""
    bench = Bench()
    entry, user, wanted = kept(bench)
    waiting = [bench.ask() for _ in range(3)]
    bench.cancel(wanted)
    assert [granted(call) for call in waiting] == [True, True, False]
    bench.answer(user)
    assert granted(waiting[2])
    assert entry.claim is None


def test_when_he_gives_up_nobody_overtakes_those_who_wait() -> None:
    """Not even one who comes before the driver has looked at the clock."""
    bench = Bench()
    _, _, wanted = kept(bench, capacity=2)
    waiting = bench.ask()
    bench.cancel(wanted)
    newcomer = bench.ask()
    assert granted(waiting)
    assert queued(newcomer)


def test_when_his_time_is_over_the_conn_is_for_others_at_once() -> None:
    """But not for those whose time is over, too."""
    bench = Bench()
    entry, _, wanted = kept(bench, timeout=5.0)
    late = [bench.ask(timeout=4.0), bench.ask(timeout=5.0)]
    patient = [bench.ask(), bench.lease(whole=False)]
    bench.now = 5.0
    bench.at(5.0)
    assert all(isinstance(error_of(ticket), PoolTimeout) for ticket in (wanted, *late))
    assert [holder(ticket) for ticket in patient] == [entry] * 2


def test_a_conn_that_expires_with_his_time_is_lent_to_nobody() -> None:
    """However late the driver comes."""
    bench = Bench()
    bench.conn("b", capacity=1)
    entry = bench.conn(capacity=3, ttl=5.0, revive=True)
    user, other = bench.ask(), bench.ask()
    bench.lease(timeout=5.0)
    bench.answer(other)
    assert entry.claim is not None
    waiting = bench.ask()
    bench.at(6.0)
    assert queued(waiting)
    bench.answer(user)
    bench.work()
    assert holder(waiting) is entry


def test_when_he_is_served_by_another_the_conn_is_for_others_at_once() -> None:
    """One that is opened, say."""
    bench = Bench()
    entry, _, wanted = kept(bench)
    waiting = [bench.ask(filter=only(entry)) for _ in range(3)]
    other = bench.conn()
    assert holder(wanted) is other
    assert [granted(call) for call in waiting] == [True, True, False]


def test_when_he_alone_waits_and_is_served_by_another_the_conn_is_in_the_rotation() -> None:
    """For whoever comes."""
    bench = Bench()
    other = bench.conn()
    call = bench.ask()
    entry, _, wanted = kept(bench, method="m")
    bench.answer(call)
    assert holder(wanted) is other
    assert holder(bench.ask(timeout=0)) is entry


@pytest.mark.parametrize("how", ["gives up", "is served"])
def test_who_came_between_two_is_not_kept_waiting_for_the_second(how: str) -> None:
    """The conn was kept for the first of them; the second has it kept after those before him."""
    bench = Bench()
    entry, user, first = kept(bench)
    between = bench.ask(filter=only(entry))
    second = bench.lease()
    after = bench.ask(filter=only(entry))
    if how == "gives up":
        bench.cancel(first)
        bench.at(bench.now)
    else:
        other = bench.conn()
        assert holder(first) is other
    assert holder(between) is entry
    assert entry.claim is not None
    assert entry.claim.tickets[0] is second
    assert queued(after)
    bench.answer(user)
    assert not granted(second)
    bench.answer(between)
    assert holder(second) is entry


def test_that_another_of_those_who_want_it_leaves_changes_nothing() -> None:
    """It is kept for the first."""
    bench = Bench()
    entry, user, first = kept(bench)
    second, after = bench.lease(), bench.ask()
    bench.cancel(second)
    assert queued(after)
    bench.answer(user)
    assert holder(first) is entry


def test_when_his_last_hope_is_gone_the_conn_is_for_others_at_once() -> None:
    """His filter raises, where another hope was looked for."""

    def moody(info: Any) -> bool:
        if info.extra == "odd":
            raise ZeroDivisionError("odd")
        return bool(info.extra == "red")

    bench = Bench(audited=False)
    odd, hope = bench.conn(), bench.conn(extra="red")
    running = bench.ask(filter=only(hope))
    entry = bench.conn(capacity=3, extra="red")
    users = [bench.ask(filter=only(entry)) for _ in range(2)]
    wanted = bench.lease(filter=moody)
    bench.answer(users[0])
    assert entry.claim is not None
    waiting = bench.ask(filter=only(entry))
    odd.extra = "odd"
    bench.end(running, OSError("torn"))
    assert isinstance(error_of(wanted), ZeroDivisionError)
    assert holder(waiting) is entry


def test_an_interrupt_out_of_a_filter_costs_kept_conns_nothing() -> None:
    """Though several were to be looked at anew: each is in its place."""
    bench = Bench(audited=False)
    conns = [bench.conn(capacity=2), bench.conn(capacity=2)]
    for entry in conns:
        users = [bench.ask(filter=only(entry)) for _ in range(2)]
        bench.lease(filter=only(entry), timeout=5.0)
        bench.answer(users[0])
        assert entry.claim is not None
    interrupted = False

    def interrupting(info: Any) -> bool:
        if interrupted:
            raise KeyboardInterrupt
        return True

    waiting = bench.ask(filter=interrupting)
    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        bench.at(5.0)
    bench.cancel(waiting)
    assert {holder(bench.ask(timeout=0)) for _ in conns} == set(conns)


# -- when the conn changes -------------------------------------------------------------------------

ENDS: dict[str, Any] = {
    "dies": lambda bench, user: bench.end(user, OSError("torn")),
    "is done": lambda bench, user: bench.end(user, Reply(1, closed=True)),
    "rests": lambda bench, user: bench.end(user, Reply(1, cooldown=9.0)),
    "is taken out": lambda bench, user: bench.pop(holder(user)),
}


@pytest.mark.parametrize("end", ENDS)
def test_when_a_kept_conn_is_gone_another_is_kept(end: str) -> None:
    """As soon as one that he can have has a place to spare."""
    bench = Bench()
    other = bench.conn(capacity=2)
    running = [bench.ask(), bench.ask()]
    entry, user, wanted = kept(bench)
    ENDS[end](bench, user)
    assert entry.claim is None
    assert queued(wanted)
    bench.answer(running[0])
    assert other.claim is not None
    assert queued(bench.ask())
    bench.answer(running[1])
    assert holder(wanted) is other


def test_a_kept_conn_that_rests_is_his_when_its_rest_is_over() -> None:
    """If he has not been served before, and nobody uses it any more."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    users = [bench.ask() for _ in range(3)]
    wanted, waiting = bench.lease(), bench.ask()
    bench.answer(users[0])
    bench.end(users[1], Busy(5.0))
    assert entry.claim is None
    bench.at(5.0)
    assert entry.claim is not None
    assert queued(waiting)
    bench.answer(users[2])
    assert holder(wanted) is entry


def test_a_conn_that_he_cannot_have_any_more_is_for_others_at_once() -> None:
    """It does not pass his filter since its extra was changed, or has lost the method."""
    bench = Bench()
    hope = bench.conn(methods=["m", "n"], extra="red")
    bench.ask(filter=only(hope))
    entry = bench.conn(methods=["m", "n"], extra="red", capacity=4)
    users = [bench.ask(filter=only(entry)) for _ in range(3)]
    red = bench.lease(filter=lambda info: info.extra == "red")
    able = bench.lease(method="n")
    bench.answer(users[0])
    waiting = [bench.ask(filter=only(entry)) for _ in range(3)]
    assert all(map(queued, waiting))
    bench.extra(entry, "blue")
    assert entry.claim is not None
    assert entry.claim.tickets[0] is able
    bench.update(filter=only(entry), methods=["m"])
    assert [granted(call) for call in waiting] == [True, True, False]
    assert queued(red)
    assert queued(able)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_a_kept_conn_may_get_more_places_or_fewer(capacity: int) -> None:
    """Nobody gets those that are added."""
    bench = Bench()
    entry, user, wanted = kept(bench)
    waiting = bench.ask()
    bench.update(capacity=capacity)
    assert entry.in_use == 1
    bench.answer(user)
    assert holder(wanted) is entry
    assert entry.in_use == capacity
    assert queued(waiting)


def test_a_pool_that_is_closed_keeps_nothing() -> None:
    """Who waited is told; who uses the conn is waited for."""
    bench = Bench()
    entry, user, wanted = kept(bench)
    bench.close()
    assert not granted(wanted)
    assert entry.claim is None
    bench.answer(user)
    assert bench.closing().entry is entry
