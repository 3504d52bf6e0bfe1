"""Checkouts: conns that users hold themselves, whole or a place of them, and what becomes of those
that come back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from connpool.core import ANY, Outcome
from connpool.core.candidates import WINDOW
from connpool.errors import (
    FilterError,
    MethodError,
    PoolTimeout,
    ResourceError,
)
from tests.core.bench import Bench, error_of, granted, holder, queued


def red(info: Any) -> bool:
    return bool(info.extra == "red")


# -- whole -----------------------------------------------------------------------------------------


def test_a_whole_conn_is_in_one_pair_of_hands() -> None:
    """Calls and other checkouts wait until it is back, and have it in the order they came."""
    bench = Bench()
    entry = bench.conn()
    held = bench.lease()
    assert (entry.whole, entry.in_use, entry.holders) == (True, 1, [held.who])
    called, wanted, shared = bench.ask(), bench.lease(), bench.lease(whole=False)
    assert not any(map(granted, (called, wanted, shared)))
    bench.release(held)
    assert holder(called) is entry
    assert not entry.whole
    bench.answer(called)
    assert holder(wanted) is entry
    assert entry.whole
    bench.release(wanted)
    assert holder(shared) is entry
    assert not entry.whole


def test_all_places_of_a_conn_are_one_users() -> None:
    """However many there are; when it is back, as many may have it again."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    held = bench.lease()
    assert (entry.in_use, entry.holders) == (3, [held.who])
    calls = [bench.ask() for _ in range(4)]
    assert all(map(queued, calls))
    bench.release(held)
    assert [granted(call) for call in calls] == [True, True, True, False]


def test_a_conn_is_not_had_whole_while_somebody_uses_a_place() -> None:
    """The last to leave hands it over."""
    bench = Bench()
    bench.conn(capacity=3)
    calls = [bench.ask(), bench.ask()]
    wanted = bench.lease()
    bench.answer(calls[0])
    assert queued(wanted)
    bench.answer(calls[1])
    assert granted(wanted)


@pytest.mark.parametrize("method", ["m", ANY], ids=repr)
def test_who_waits_alone_gets_the_whole_conn(method: Any) -> None:
    """Whether he asks for a method or not."""
    bench = Bench()
    entry = bench.conn()
    held, wanted = bench.lease(), bench.lease(method=method)
    bench.release(held)
    assert holder(wanted) is entry
    assert entry.whole
    bench.release(wanted)
    assert not entry.in_use


@pytest.mark.parametrize("wish", [{}, {"filter": red}, {"by": "round_robin"}], ids=repr)
def test_an_idle_conn_is_found_among_many_that_are_not(wish: dict[str, Any]) -> None:
    """Of all that have a free place, not only of the few among which a call is routed."""
    bench = Bench(audited=False)
    conns = [bench.conn(capacity=2, extra="red") for _ in range(2 * WINDOW)]
    calls = [bench.ask() for _ in conns]
    bench.answer(calls[-1])  # it lies at the very end of the rotation
    held = bench.lease(timeout=0, **wish)
    assert holder(held) is conns[-1]
    assert held.entry is not None
    assert held.entry.in_use == 2
    with pytest.raises(PoolTimeout):
        bench.lease(timeout=0, **wish)


def test_a_conn_that_does_not_pass_is_not_had() -> None:
    """A filter and a method choose among idle conns as they do for calls."""
    bench = Bench()
    bench.conn()
    chosen = bench.conn(methods=["m", "n"], extra="red")
    held = bench.lease(filter=red)
    assert holder(held) is chosen
    bench.release(held)
    assert holder(bench.lease(method="n")) is chosen


def test_what_cannot_come_is_refused() -> None:
    """With the same errors as for a call."""
    bench = Bench()
    bench.conn()
    with pytest.raises(ResourceError):
        bench.lease("b")
    with pytest.raises(MethodError):
        bench.lease(method="n")
    with pytest.raises(FilterError):
        bench.lease(filter=red)
    bench.ask()
    with pytest.raises(PoolTimeout):
        bench.lease(timeout=0)


def test_an_expired_conn_is_not_checked_out() -> None:
    """However late the driver comes."""
    bench = Bench()
    bench.conn(ttl=5.0)
    bench.now = 5.0
    with pytest.raises(ResourceError):
        bench.lease()


def test_a_checkout_waits_no_longer_than_it_may() -> None:
    """And is told so."""
    bench = Bench()
    bench.conn()
    held, wanted = bench.lease(), bench.lease(timeout=2.0)
    bench.at(2.0)
    assert isinstance(error_of(wanted), PoolTimeout)
    bench.release(held)
    assert granted(bench.lease(timeout=0))


def test_a_checkout_that_was_granted_and_given_up_in_one_instant_loses_no_place() -> None:
    """The next has it."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    held, given_up, wanted = bench.lease(), bench.lease(), bench.lease()
    bench.release(held)
    assert granted(given_up)
    bench.cancel(given_up)
    assert holder(wanted) is entry


# -- shared ----------------------------------------------------------------------------------------


def test_a_conn_is_shared_by_as_many_as_it_has_places() -> None:
    """A checkout costs what a call does."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    shared, called = bench.lease(whole=False), bench.ask()
    other = bench.lease(whole=False)
    waiting = bench.lease(whole=False)
    assert [holder(ticket) for ticket in (shared, called, other)] == [entry] * 3
    assert queued(waiting)
    bench.release(shared)
    assert granted(waiting)
    assert entry.holders == [called.who, other.who, waiting.who]


def test_a_shared_checkout_of_a_conn_with_one_place_keeps_others_out() -> None:
    """There is but one."""
    bench = Bench()
    entry = bench.conn()
    shared, wanted = bench.lease(whole=False), bench.lease()
    assert not entry.whole
    bench.release(shared)
    assert holder(wanted) is entry


def test_idle_conns_are_shared_first() -> None:
    """And by may say otherwise."""
    bench = Bench()
    conns = [bench.conn(capacity=2) for _ in range(2)]
    assert {holder(bench.lease(whole=False)) for _ in range(2)} == set(conns)
    assert granted(bench.lease(whole=False, by="least_used"))


# -- coming back -----------------------------------------------------------------------------------


def test_a_conn_that_comes_back_is_at_the_end_of_the_rotation() -> None:
    """And groups that were empty are looked at again."""
    bench = Bench()
    first, second = bench.conn(), bench.conn(methods=["m", "n"])
    held = [bench.lease(), bench.lease()]
    assert {holder(lease) for lease in held} == {first, second}
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    for lease in held:
        bench.release(lease)
    assert {holder(bench.lease()), holder(bench.lease())} == {first, second}


def test_one_who_shares_leaves_the_conn_in_the_rotation() -> None:
    """It has not left it, having had a free place all the time."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    shared = [bench.lease(whole=False), bench.lease(whole=False)]
    assert entry.listed
    bench.release(shared[0])
    assert entry.listed
    assert entry.holders == [shared[1].who]


def test_a_conn_that_comes_back_well_has_recovered() -> None:
    """A checkout counts as an answer: what went wrong before is forgotten."""
    bench = Bench()
    entry = bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.work()
    assert entry.troubled().streak == 1
    bench.at(3.0)
    bench.release(bench.lease())
    assert entry.trouble is None
    assert entry.idle_since == 3.0


def test_a_conn_that_expires_while_it_is_held_stays_with_its_user() -> None:
    """It leaves when it is back, and is not lent again, though the driver be late."""
    bench = Bench()
    entry = bench.conn(ttl=5.0, revive=True)
    held, waiting = bench.lease(), bench.ask()
    bench.at(6.0)
    assert not bench.permits
    bench.release(held)
    assert queued(waiting)
    bench.work()
    assert holder(waiting) is entry
    bench.now = 11.0
    bench.answer(waiting)
    assert bench.closing().reason == "expired"


def test_a_conn_that_expires_as_it_comes_back_is_not_lent() -> None:
    """What is due at that instant is done first."""
    bench = Bench()
    bench.conn(ttl=5.0, revive=True)
    held, waiting = bench.lease(), bench.lease()
    bench.now = 5.0
    bench.release(held)
    assert queued(waiting)
    assert bench.closing().reason == "expired"


ENDS: list[tuple[Outcome, str, int]] = [
    (Outcome(), "ready", 0),
    (Outcome(error=KeyError("no harm")), "ready", 0),
    (Outcome(rest=2.0), "cooling", 0),
    (Outcome(end="unclean"), "reviving", 1),
    (Outcome(end="interrupted"), "reviving", 1),
    (Outcome(end="dead", error=OSError("torn")), "reviving", 1),
    (Outcome(end="closed", moves=True), "reviving", 1),
    (Outcome(end="done"), "draining", 1),
]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("ended", "state", "closings"), ENDS, ids=lambda part: str(part)[:40])
def test_what_becomes_of_a_conn_is_what_its_lease_ended_with(
    ended: Outcome, state: str, closings: int, whole: bool
) -> None:
    """It goes on, rests, or is closed at once, and then it is revived or dropped."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    held = bench.lease(whole=whole)
    bench.forfeit(held, ended, ended.error)
    assert (entry.state.value, entry.in_use, entry.whole) == (state, 0, False)
    assert len(bench.permits) == closings
    bench.work()
    bench.at(2.0)
    bench.work()  # one is revived no sooner than a moment after its last init
    if state != "draining":
        assert holder(bench.lease()) is entry


def test_a_rest_that_a_lease_ends_with_is_for_those_who_come_after() -> None:
    """They wait it out."""
    bench = Bench()
    entry = bench.conn()
    held, waiting = bench.lease(), bench.ask()
    bench.forfeit(held, Outcome(rest=2.0))
    assert bench.info(entry).cooldown == 2.0
    bench.at(2.0)
    assert granted(waiting)


def test_a_conn_that_was_found_dead_before_it_was_handed_over_costs_no_place() -> None:
    """Its user is served by another, before all who came later, within the same deadline."""
    bench = Bench()
    bench.conn(), bench.conn()
    other = bench.ask()
    held = bench.lease(timeout=9.0)
    later = bench.ask()
    dead = OSError("torn")
    bench.forfeit(held, Outcome(end="dead", moves=True), dead)
    again = bench.submit(held.again(dead))
    assert queued(again)
    assert (again.whole, again.deadline, again.cause) == (True, 9.0, dead)
    bench.answer(other)
    assert granted(again)
    assert queued(later)


@pytest.mark.parametrize("end", [None, "dead"])
def test_a_forfeit_comes_after_what_is_due(end: str | None) -> None:
    """Who had no more time is not served by it, and is told what was true in his time."""
    bench = Bench()
    bench.conn()
    held, late, patient = bench.lease(), bench.lease(timeout=1.0), bench.lease()
    bench.now = 2.0
    bench.forfeit(held, Outcome(end=end))
    assert isinstance(error_of(late), PoolTimeout)
    assert granted(patient) == (end is None)


def test_a_lease_ends_once() -> None:
    """What is said of it later changes nothing, whoever uses the conn by then."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    held = bench.lease()
    bench.release(held)
    shared, called = bench.lease(whole=False), bench.ask()

    def say_all() -> None:
        before = attrs.asdict(entry, recurse=False)
        bench.release(held)
        bench.forfeit(held, Outcome(end="dead"))
        bench.forsake(held)
        assert attrs.asdict(entry, recurse=False) == before

    say_all()
    bench.release(shared)
    bench.answer(called)
    say_all()
    assert bench.core.stats(0.0).since_start.checkouts == 2
    assert bench.core.stats(0.0).since_start.lost == 0
    assert not bench.forsaken


def test_who_has_it_whole_is_told_from_who_has_it_next() -> None:
    """A late release by the one before takes nothing from the one after him."""
    bench = Bench()
    entry = bench.conn()
    first = bench.lease(who="ann")
    bench.release(first)
    second = bench.lease(who="bob")
    bench.release(first)
    assert holder(second) is entry
    assert (entry.whole, entry.in_use, entry.checkouts) == (True, 1, 1)


def test_who_cannot_be_told_from_others_gives_back_what_he_has() -> None:
    """Where nobody knows who asks."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    held = bench.lease(who=None)
    bench.release(held)
    assert not entry.in_use
    shared = bench.lease(who=None, whole=False), bench.lease(who=None, whole=False)
    for lease in shared:
        bench.release(lease)
    assert not entry.in_use
