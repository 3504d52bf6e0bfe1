"""Which of several: the strategies behind `by`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Entry, check_by, sticky
from connpool.core.routing import UNKNOWN, assumed_mean, choose, expected_wait
from connpool.errors import CallError
from tests.core.bench import Bench, Line, holder, queued


def some(count: int, capacity: int = 1) -> list[Entry]:
    return [
        Entry(number, Line("a", ["m"], capacity), None, None, False, capacity=capacity)
        for number in range(count)
    ]


def chosen(
    by: Any,
    candidates: list[Entry],
    rng: Callable[[], float] = lambda: 0.0,
    turning: Any = None,
    now: float = 0.0,
) -> Entry:
    turning = turning or SimpleNamespace(turn=None)
    return choose(by, candidates, "m", now, rng, turning, lambda entry: entry)


# -- the expected wait -----------------------------------------------------------------------------


def test_an_idle_conn_is_expected_at_once_and_a_resting_one_after_its_rest() -> None:
    """An old rest does not count."""
    (entry,) = some(1)
    assert expected_wait(entry, "m", 5.0, UNKNOWN) == 0.0
    entry.rest_until = 7.0
    assert expected_wait(entry, "m", 5.0, UNKNOWN) == 2.0
    assert expected_wait(entry, "m", 9.0, UNKNOWN) == 0.0


def test_the_call_in_flight_counts_for_what_is_left_of_it() -> None:
    """But a call that is late may be late for long."""
    (entry,) = some(1)
    entry.stat("m").answered(10.0)
    entry.take_place("ann", now=0.0)
    assert expected_wait(entry, "m", 4.0, UNKNOWN) == 6.0
    assert expected_wait(entry, "m", 400.0, UNKNOWN) == 1.0


def test_calls_in_flight_share_the_places() -> None:
    """Twice the capacity is half the wait."""
    (entry,) = some(1, capacity=2)
    entry.stat("m").answered(10.0)
    for _ in range(2):
        entry.take_place("ann", now=0.0)
    assert expected_wait(entry, "m", 0.0, UNKNOWN) == 10.0


def test_a_fresh_conn_is_taken_to_be_as_slow_as_its_peers() -> None:
    """Not as free; where nobody has a figure any will do."""
    fresh, slow, quick = some(3)
    assert assumed_mean([fresh], "m") == UNKNOWN
    slow.stat("m").answered(3.0)
    quick.stat("m").answered(1.0)
    assert assumed_mean([fresh, slow, quick], "m") == 2.0
    fresh.take_place("ann", now=0.0)
    assert expected_wait(fresh, "m", 0.0, 2.0) == 2.0


def only(id: int) -> Callable[[Any], bool]:
    return lambda info: bool(info.id == id)


# -- strategies ------------------------------------------------------------------------------------


def test_least_wait_takes_the_first_of_equals() -> None:
    """Which is the one that has idled longest."""
    candidates = some(3)
    assert chosen("least_wait", candidates) is candidates[0]
    candidates[0].rest_until = 1.0
    assert chosen("least_wait", candidates) is candidates[1]


def test_round_robin_takes_each_in_turn() -> None:
    """Also when conns come and go, and whatever order they are shown in."""
    candidates, turning = some(4), SimpleNamespace(turn=None)

    def turn(candidates: list[Entry]) -> int:
        return chosen("round_robin", candidates, turning=turning).id

    assert [turn(candidates) for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    assert turn(candidates[::-1]) == 2
    assert turn(candidates[:2]) == 0


@pytest.mark.parametrize("by", ["round_robin", "random", "two_choices"])
def test_first_picks_of_many_pools_are_spread(by: str) -> None:
    """Fifty pools over five servers do not all begin with the same one."""
    rng = random.Random(7).random
    picks = Counter(chosen(by, some(5), rng).id for _ in range(50))
    assert len(picks) == 5
    assert max(picks.values()) <= 20


def test_random_can_pick_each() -> None:
    """From the first to the last."""
    chances = iter((0.0, 0.5, 0.99))
    assert [chosen("random", some(3), chances.__next__).id for _ in range(3)] == [0, 1, 2]


def test_least_used_goes_by_the_share_of_places() -> None:
    """Two of ten are less than one of two."""
    big, small = some(1, capacity=10) + some(1, capacity=2)
    for _ in range(2):
        big.take_place("ann", 0.0)
    small.take_place("ann", 0.0)
    assert chosen("least_used", [small, big]) is big


def test_two_choices_never_draws_the_same_one_twice() -> None:
    """So of two conns the less used is always taken, whatever the dice say."""
    one, two = some(2, capacity=2)
    one.take_place("ann", 0.0)
    rng = random.Random(7).random
    assert {chosen("two_choices", [one, two], rng) for _ in range(100)} == {two}
    assert chosen("two_choices", [one]) is one


def test_sticky_moves_only_the_keys_of_a_conn_that_leaves() -> None:
    """And the same key gives the same conn, whatever order they are shown in."""
    candidates = some(5)
    keys = [f"user {number}" for number in range(200)]
    before = {key: chosen(sticky(key), candidates) for key in keys}
    assert before == {key: chosen(sticky(key), candidates[::-1]) for key in keys}
    assert len(Counter(before.values())) == 5
    after = {key: chosen(sticky(key), candidates[1:]) for key in keys}
    assert all(after[key] is entry for key, entry in before.items() if entry is not candidates[0])


def test_a_function_of_the_users_picks() -> None:
    """It gets a list of views, and gives one of them; anything else is refused."""
    candidates = some(3)
    assert chosen(lambda shown: shown[-1], candidates) is candidates[2]
    with pytest.raises(ValueError, match="one of the conns it was given"):
        chosen(lambda shown: None, candidates)


def test_by_is_checked() -> None:
    """A wrong name is told the right ones; what cannot choose is a type error."""
    for by in ("round_robin", "random", "least_used", "least_wait", "two_choices"):
        check_by(by)
    check_by(sticky("key"))
    check_by(max)
    with pytest.raises(ValueError, match="least_used, least_wait, random, round_robin"):
        check_by("fastest")
    with pytest.raises(TypeError, match="by"):
        check_by(7)


# -- seen from the pool ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "by", ["round_robin", "random", "least_used", "least_wait", "two_choices", sticky("key"), min]
)
def test_by_chooses_among_the_free_ones_only(by: Any) -> None:
    """With a filter too; who finds none free waits like anybody else."""
    bench = Bench()
    router = (lambda shown: shown[0]) if by is min else by
    conns = [bench.conn(extra="red") for _ in range(3)]
    bench.conn(extra="blue")

    def red(info: Any) -> bool:
        return bool(info.extra == "red")

    tickets = [bench.ask(by=router, filter=red) for _ in range(3)]
    assert {holder(ticket) for ticket in tickets} == set(conns)
    waiting = bench.ask(by=router, filter=red)
    assert queued(waiting)
    entry = holder(tickets[1])
    bench.answer(tickets[1])
    assert holder(waiting) is entry


def test_round_robin_goes_round_in_a_pool() -> None:
    """Whatever the rotation would have given."""
    bench = Bench()
    for _ in range(3):
        bench.conn()
    served = []
    for _ in range(6):
        ticket = bench.ask(by="round_robin")
        served.append(holder(ticket).id)
        bench.answer(ticket)
    assert served == [1, 2, 3, 1, 2, 3]


def test_a_router_may_pick_one_that_is_shared() -> None:
    """It sees every conn with a free place, over all kinds of conn."""
    bench = Bench()
    bench.conn(capacity=2)
    bench.conn(methods=["m", "n"])
    shown: list[int] = []

    def busiest(views: list[Any]) -> Any:
        shown.append(len(views))
        return max(views, key=lambda view: (view.in_use, view.capacity))

    first, second = bench.ask(by=busiest), bench.ask(by=busiest)
    assert holder(first) is holder(second)
    bench.ask(by=busiest)
    assert shown == [2, 2, 1]


def test_a_router_that_raises_harms_its_caller_only() -> None:
    """The conn stays where it was."""
    bench = Bench()
    entry = bench.conn()

    def broken(views: list[Any]) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.ask(by=broken)
    assert holder(bench.ask()) is entry


def test_a_conn_that_fails_at_once_does_not_attract_traffic() -> None:
    """One of five fails in no time: under load it gets no more than the share of a healthy one."""
    bench = Bench(audited=False)
    good = [bench.conn() for _ in range(4)]
    bad = bench.conn()
    warm = [bench.ask() for _ in range(5)]
    bench.now = 0.01
    for ticket in warm:
        if holder(ticket) is not bad:
            bench.answer(ticket)
        else:
            bench.end(ticket, CallError("no"))
    used: Counter[Entry] = Counter()
    running: list[tuple[float, Any]] = []
    waiting = [bench.ask() for _ in range(8)]
    for _ in range(4000):
        for ticket in [ticket for ticket in waiting if ticket.entry is not None]:
            waiting.remove(ticket)
            used[holder(ticket)] += 1
            took = 0.0 if holder(ticket) is bad else 0.01
            running.append((bench.now + took, ticket))
        for due, ticket in [pair for pair in running if pair[0] <= bench.now]:
            running.remove((due, ticket))
            if holder(ticket) is bad:
                bench.end(ticket, CallError("no"))
            else:
                bench.answer(ticket)
            waiting.append(bench.ask())
        bench.at(bench.now + 0.0005)
    share = used[bad] / used.total()
    assert share < 0.25, f"{share:.0%}"
    assert min(used[entry] for entry in good) > 0.9 * max(used[entry] for entry in good)


def test_a_conn_that_fails_alone_is_not_made_to_rest() -> None:
    """Nobody would gain by it: neither without peers, nor where the peers fail as well."""
    bench = Bench()
    entries = [bench.conn()]
    for _ in range(2):
        for _ in range(6):
            bench.end(bench.ask(), KeyError("no such record"))
        assert {bench.info(entry).state for entry in entries} == {"ready"}
        entries.append(bench.conn())


def test_a_failure_or_two_cost_a_conn_nothing() -> None:
    """Only the second in a row is suspicious, and only if it came sooner than answers do."""
    bench = Bench()
    good, other = bench.conn(), bench.conn()
    bench.answer(bench.ask(filter=only(good.id)), 2.0)
    bench.end(bench.ask(filter=only(other.id)), CallError("no"))
    assert bench.info(other).cooldown == 0.0
    bench.end(bench.ask(filter=only(other.id)), CallError("no"))
    assert bench.info(other).cooldown == 2.0
    bench.at(2.0)
    slow = bench.ask(filter=only(other.id))
    bench.now = 5.0
    bench.end(slow, CallError("no"))
    assert bench.info(other).cooldown == 0.0


def test_a_conn_that_answers_again_is_trusted_again() -> None:
    """Failures in a row are counted, not failures."""
    bench = Bench()
    good, other = bench.conn(), bench.conn()
    bench.answer(bench.ask(filter=only(good.id)), 2.0)
    for _ in range(4):
        bench.end(bench.ask(filter=only(other.id)), CallError("no"))
        bench.end(bench.ask(filter=only(other.id)), Reply("yes"))
    assert bench.info(other).cooldown == 0.0


def test_failures_do_not_make_a_conn_look_quick() -> None:
    """Nine failures in no time and one answer of 4 s: it is expected to take 4 s."""
    bench = Bench()
    flaky, steady = bench.conn(capacity=2), bench.conn(capacity=2)
    for _ in range(9):
        bench.end(bench.ask(filter=only(flaky.id)), CallError("no"))
    bench.answer(bench.ask(filter=only(flaky.id)), 4.0)
    bench.answer(bench.ask(filter=only(steady.id)), 3.0)
    bench.ask(), bench.ask()
    assert holder(bench.ask()) is steady
