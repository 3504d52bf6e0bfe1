"""The fair line: who comes first, how long one waits, and what a moved call keeps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from connpool.core import ANY, Standing, Ticket
from connpool.errors import Busy, Closed, PoolFull, PoolTimeout
from tests.core.bench import Bench, error_of, granted, holder, queued


def test_any_method_says_so() -> None:
    """In messages."""
    assert repr(ANY) == "any method"


# -- first come, first served ----------------------------------------------------------------------


def test_the_order_of_grants_is_the_order_of_arrival() -> None:
    """A hundred callers over two conns."""
    bench = Bench()
    bench.conn(), bench.conn()
    running = [bench.ask(), bench.ask()]
    waiting = [bench.ask() for _ in range(100)]
    while running:
        bench.now += 0.001
        bench.answer(running.pop(random.Random(len(waiting)).randrange(len(running))))
        running.extend(
            ticket for ticket in bench.woken if granted(ticket) and ticket not in running
        )
        running = [ticket for ticket in running if granted(ticket)]
    assert bench.woken == waiting


def test_the_order_holds_between_those_who_want_different_things() -> None:
    """A conn that can serve several kinds of wish serves the oldest of them."""
    bench = Bench()
    entry = bench.conn(["a", "b"], ["m", "n"], extra="red")
    running = bench.ask()
    wishes: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("b", "n"), {}),
        (("a", "m"), {"filter": red}),
        (("a", ANY), {}),
        (("b", "m"), {}),
        (("a", "m"), {}),
        (("a", "m"), {"filter": red}),
        (("b", "n"), {}),
    ]
    waiting = [bench.ask(*wish, **more) for wish, more in wishes]
    for ticket in waiting:
        bench.answer(running)
        assert holder(ticket) is entry
        running = ticket
    assert bench.woken == waiting


def test_no_newcomer_overtakes() -> None:
    """While somebody waits whom a conn can serve, it is nobody else's."""
    bench = Bench()
    bench.conn()
    first, second = bench.ask(), bench.ask()
    bench.answer(first)
    assert granted(second)
    assert queued(bench.ask())


def test_who_wants_something_else_is_not_held_up() -> None:
    """The line is fair among those whom a conn can serve, and no more than that."""
    bench = Bench()
    bench.conn(methods=["m"])
    bench.conn(methods=["n"])
    bench.ask("a", "m")
    assert queued(bench.ask("a", "m"))
    assert granted(bench.ask("a", "n"))


def test_in_a_tight_loop_everybody_has_his_turn() -> None:
    """32 callers over 2 conns, each back at once: none is starved."""
    bench = Bench(audited=False)
    bench.conn(), bench.conn()
    served = dict.fromkeys(range(32), 0)
    bench.woken = [ticket for who in served if granted(ticket := bench.ask(who=who))]
    for step in range(3200):
        bench.now = step * 0.001
        ticket = bench.woken.pop(0)
        served[ticket.who] += 1
        bench.answer(ticket)
        bench.ask(who=ticket.who)
    counts = served.values()
    jain = sum(counts) ** 2 / (len(served) * sum(count**2 for count in counts))
    assert jain >= 0.99


def test_who_left_from_the_middle_is_not_served() -> None:
    """Nor in anybody's way, wherever in line he stood."""
    bench = Bench()
    bench.conn()
    running = bench.ask()
    waiting = [bench.ask() for _ in range(120)]
    staying = waiting[::20]
    for ticket in waiting:
        if ticket not in staying:
            bench.cancel(ticket)
    for ticket in staying:
        bench.answer(running)
        assert granted(ticket)
        running = ticket
    assert bench.core.waiting == 0


def test_who_left_just_behind_the_next_is_passed_over() -> None:
    """The line closes up when it moves on."""
    bench = Bench()
    bench.conn()
    running = bench.ask(timeout=1.0)
    first, second, third = bench.ask(timeout=5.0), bench.ask(timeout=5.0), bench.ask(timeout=5.0)
    bench.cancel(second)
    bench.answer(running)
    bench.answer(first)
    assert granted(third)
    fourth = bench.ask(timeout=7.0)
    bench.at(6.9)
    assert queued(fourth)
    bench.at(7.0)
    assert isinstance(error_of(fourth), PoolTimeout)


# -- moved calls -----------------------------------------------------------------------------------


def test_a_moved_call_keeps_its_place() -> None:
    """Before all that came after it, and behind who came before it."""
    bench = Bench()
    bench.conn()
    bench.conn()
    older, other = bench.ask(), bench.ask()
    younger = bench.ask()
    moved = bench.move(older, Busy(5.0))
    bench.answer(other)
    assert granted(moved)
    assert queued(younger)


def test_a_moved_call_keeps_its_place_among_other_moved_ones() -> None:
    """Whatever the order in which they come back."""
    bench = Bench()
    bench.conn(capacity=6)
    olds = []
    for second in range(5):
        bench.now = float(second)
        olds.append(bench.ask())
    bench.ask()
    assert queued(bench.ask())
    moved = {index: bench.move(olds[index], Busy(5.0)) for index in (2, 4, 0, 3, 1)}
    assert all(queued(ticket) for ticket in moved.values())
    bench.at(9.0)
    assert bench.woken == [moved[0], moved[1], moved[2], moved[3], moved[4]]


def test_a_call_that_moves_again_and_again_keeps_its_place() -> None:
    """Each conn in turn refuses it; it stays the first in line."""
    bench = Bench()
    bench.conn()
    ticket = bench.ask()
    younger = bench.ask()
    for _ in range(5):
        ticket = bench.move(ticket, Busy(1.0))
        bench.at(bench.now + 1.0)
        assert granted(ticket)
    assert queued(younger)


def test_a_moved_call_keeps_its_deadline() -> None:
    """However often it is queued again, its patience is counted from the start."""
    bench = Bench()
    bench.conn()
    ticket = bench.ask(timeout=10.0)
    for _ in range(3):
        ticket = bench.move(ticket, Busy(3.0))
        bench.at(bench.now + 3.0)
    ticket = bench.move(ticket, Busy(3.0))
    assert bench.core.next_deadline() == 10.0
    bench.at(10.0)
    error = error_of(ticket)
    assert isinstance(error, PoolTimeout)
    assert (error.waited, error.timeout) == (10.0, 10.0)
    assert isinstance(error.__cause__, Busy)


def test_a_moved_call_whose_time_is_over_does_not_wait_but_may_be_lucky() -> None:
    """A free conn costs it no waiting; none is a timeout."""
    bench = Bench()
    bench.conn(), bench.conn()
    first, second = bench.ask(timeout=1.0), bench.ask(timeout=1.0)
    bench.now = 5.0
    bench.end(second, Busy(9.0))
    with pytest.raises(PoolTimeout):
        bench.submit(second.again(Busy(9.0)))
    bench.answer(first)
    assert granted(bench.submit(second.again(Busy(9.0))))


def test_a_call_that_is_served_at_once_would_have_stood_before_the_next_to_queue() -> None:
    """That is its place if it moves: not at the end of those who came while it ran."""
    bench = Bench()
    bench.conn()
    ticket = bench.ask()
    younger = bench.ask()
    assert ticket.place is not None
    assert younger.place is not None
    assert ticket.place < younger.place
    again = ticket.again(Closed())
    assert (again.place, again.deadline, again.arrived) == (
        ticket.place,
        ticket.deadline,
        ticket.arrived,
    )


# -- deadlines -------------------------------------------------------------------------------------


def test_who_waited_long_enough_is_told_so() -> None:
    """The error says how long, and who else waits; the conn is somebody else's."""
    bench = Bench()
    bench.conn()
    running = bench.ask()
    short, long = bench.ask(timeout=3.0), bench.ask(timeout=9.0)
    bench.at(2.9)
    assert queued(short)
    bench.at(3.0)
    error = error_of(short)
    assert isinstance(error, PoolTimeout)
    assert (error.resource, error.method, error.pool) == ("a", "m", "bench")
    assert (error.waited, error.timeout) == (3.0, 3.0)
    bench.answer(running)
    assert granted(long)


def test_the_least_patient_leaves_first() -> None:
    """Whatever the order of arrival."""
    bench = Bench()
    bench.conn()
    bench.ask()
    patience = [5.0, 9.0, 1.0, 7.0, 3.0, math.inf]
    tickets = {seconds: bench.ask(timeout=seconds) for seconds in patience}
    for seconds in sorted(tickets)[:-1]:
        assert bench.core.next_deadline() == seconds
        bench.at(seconds)
        assert bench.woken.pop() is tickets[seconds]
    assert bench.core.next_deadline() is None
    bench.at(1e9)
    assert queued(tickets[math.inf])


def test_deadlines_of_those_who_left_do_not_pile_up() -> None:
    """Nor hide the one that stays."""
    bench = Bench(audited=False)
    bench.conn()
    bench.ask()
    staying = [bench.ask(timeout=50.0), bench.ask(timeout=20.0)]
    rng = random.Random(7)
    for _ in range(5000):
        bench.cancel(bench.ask(timeout=rng.uniform(21.0, 99.0)))
    deadlines = bench.core._deadlines
    assert len(deadlines._queue) + len(deadlines._heap) < 200
    bench.at(20.0)
    bench.at(50.0)
    assert [ticket.standing for ticket in staying] == [Standing.FAILED] * 2


@pytest.mark.parametrize("order", ["return first", "clock first"])
def test_a_return_and_a_timeout_at_one_instant(order: str) -> None:
    """At its deadline a caller's time is over, whichever comes first, and the conn is not lost."""
    bench = Bench()
    entry = bench.conn()
    running = bench.ask()
    waiting, next_one = bench.ask(timeout=5.0), bench.ask()
    bench.now = 5.0
    if order == "return first":
        bench.answer(running)
    else:
        bench.at(5.0)
        bench.answer(running)
    assert isinstance(error_of(waiting), PoolTimeout)
    assert holder(next_one) is entry
    bench.cancel(waiting)
    bench.answer(next_one)
    assert granted(bench.ask(timeout=0))


def test_a_rest_that_ends_at_the_deadline_is_in_time() -> None:
    """To wait five seconds for a conn that rests five seconds is enough."""
    bench = Bench()
    entry = bench.conn(rest=5.0)
    waiting = bench.ask(timeout=5.0)
    bench.at(5.0)
    assert holder(waiting) is entry


def red(info: Any) -> bool:
    return bool(info.extra == "red")


def _only(id: int) -> Callable[[Any], bool]:
    return lambda info: bool(info.id == id)


@pytest.mark.parametrize("door", ["answer", "end", "cancel", "opened", "extra", "unpop", "tick"])
def test_nobody_is_served_after_his_deadline_however_late_the_driver_comes(door: str) -> None:
    """Whatever makes a conn free: who waited too long is passed over, the next is served."""
    bench = Bench()
    busy, popped = bench.conn(extra="red"), bench.conn(capacity=2, extra="red")
    resting, opening = bench.conn(extra="red", rest=4.0), bench.admit(extra="red")
    idle = bench.conn(extra="blue")
    by_id = {entry.id: _only(entry.id) for entry in (busy, popped)}
    running, _ = (bench.ask(filter=filter) for filter in by_id.values())
    pop = bench.pop(popped)
    late, in_time = bench.ask(timeout=1.0, filter=red), bench.ask(timeout=9.0, filter=red)
    assert queued(late)
    bench.now = 3.0 if door != "tick" else 5.0
    match door:
        case "answer":
            bench.answer(running)
        case "end":
            bench.end(running, ValueError())
        case "cancel":
            bench.cancel(running)
        case "opened":
            bench.opened(opening)
        case "extra":
            bench.extra(idle, "red")
        case "unpop":
            bench.unpop(pop)
        case "tick":
            bench.at(5.0)
            assert holder(in_time) is resting
    assert isinstance(error_of(late), PoolTimeout)
    assert granted(in_time)


# -- giving up -------------------------------------------------------------------------------------


def test_who_gives_up_while_he_waits_leaves_the_line() -> None:
    """And the next one moves up."""
    bench = Bench()
    bench.conn()
    running = bench.ask()
    first, second = bench.ask(), bench.ask()
    bench.cancel(first)
    bench.answer(running)
    assert first.standing is Standing.OVER
    assert granted(second)


def test_who_gives_up_when_he_was_just_served_hands_on() -> None:
    """The wake-up does not die with him: the next one gets the conn in the same step."""
    bench = Bench()
    entry = bench.conn()
    running = bench.ask()
    first, second = bench.ask(), bench.ask()
    bench.answer(running)
    assert granted(first)
    bench.cancel(first)
    assert holder(second) is entry
    bench.cancel(second)
    assert granted(bench.ask(timeout=0))


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_grant_and_a_cancel_at_one_instant(cancel_first: bool) -> None:
    """In both orders the conn is back, and the caller has nothing."""
    bench = Bench()
    bench.conn()
    running, waiting = bench.ask(), bench.ask()
    if cancel_first:
        bench.cancel(waiting)
        bench.answer(running)
    else:
        bench.answer(running)
        bench.cancel(waiting)
    assert waiting.standing is Standing.OVER
    assert granted(bench.ask(timeout=0))


def test_giving_up_twice_or_too_late_does_no_harm() -> None:
    """Only what one has can be given up."""
    bench = Bench()
    entry = bench.conn()
    running, waiting = bench.ask(), bench.ask(timeout=1.0)
    bench.at(1.0)
    bench.cancel(waiting)
    bench.cancel(running)
    bench.cancel(running)
    bench.cancel(Ticket("a"))
    assert bench.info(entry).in_use == 0
    assert bench.core.stats(bench.now).since_start.cancelled == 1


def test_after_a_storm_of_cancellations_every_place_can_be_had_again() -> None:
    """Fifteen hundred callers give up at any moment; then there are as many places as before."""
    bench = Bench(audited=False)
    for _ in range(3):
        bench.conn(capacity=2)
    rng, tickets = random.Random(7), [bench.ask(timeout=0.5)]
    for number in range(1500):
        bench.now = number * 0.01
        try:
            tickets.append(bench.ask(timeout=rng.uniform(0.0, 2.0)))
        except PoolTimeout:
            continue
        ticket = tickets.pop(rng.randrange(len(tickets)))
        if granted(ticket) and rng.random() < 0.3:
            bench.answer(ticket)
        else:
            bench.cancel(ticket)
    for ticket in tickets:
        bench.cancel(ticket)
    assert all(granted(bench.ask(timeout=0)) for _ in range(6))
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)


# -- max_waiting -----------------------------------------------------------------------------------


def test_no_more_than_max_waiting_wait() -> None:
    """One more is refused, whatever he waits for; there is room again when one has left."""
    bench = Bench(max_waiting=2)
    bench.conn()
    bench.conn("b")
    running = bench.ask()
    bench.ask("b")
    first, _ = bench.ask(), bench.ask("b")
    for wish in ("a", "b"):
        with pytest.raises(PoolFull, match="max_waiting") as caught:
            bench.ask(wish)
    assert (caught.value.limit, caught.value.most) == ("max_waiting", 2)
    bench.answer(running)
    assert granted(first)
    assert queued(bench.ask())


def test_max_waiting_of_zero_lets_nobody_wait() -> None:
    """A free conn is still given, and timeout=0 is still a timeout."""
    bench = Bench(max_waiting=0)
    bench.conn()
    assert granted(bench.ask())
    with pytest.raises(PoolFull):
        bench.ask()
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)


def test_a_moved_call_is_not_refused_for_want_of_room() -> None:
    """It had its place already."""
    bench = Bench(max_waiting=1)
    bench.conn()
    running = bench.ask()
    assert queued(bench.ask())
    assert queued(bench.move(running, Busy(1.0)))


def test_those_whose_time_is_over_take_no_room() -> None:
    """However late the driver comes."""
    bench = Bench(max_waiting=1)
    bench.conn()
    bench.ask()
    bench.ask(timeout=1.0)
    bench.now = 2.0
    assert queued(bench.ask())
