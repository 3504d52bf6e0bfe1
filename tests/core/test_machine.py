"""The straight path, and the doors beside it."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Entry, Standing, Ticket, of_error
from connpool.errors import Busy, Closed, PoolTimeout
from tests.core.bench import Bench, granted, holder, queued


def take(bench: Bench, method: Any = "m", filter: Any = None, who: Any = None) -> Entry | None:
    entry = bench.core.take("a", method, filter, None, who, bench.now)
    bench.look()
    return entry


def give(bench: Bench, entry: Entry, method: Any = "m", who: Any = None, took: float = 0.0) -> None:
    bench.core.give(entry, method, who, bench.now - took, bench.now)
    bench.look()


def test_a_conn_is_taken_and_given_back() -> None:
    """It is nobody else's in between, and its call is counted."""
    bench = Bench()
    entry = bench.conn()
    assert take(bench, who="ann") is entry
    assert entry.holders == ["ann"]
    assert take(bench) is None
    bench.now = 3.0
    give(bench, entry, took=3.0)
    assert entry.holders == []
    info = bench.info(entry)
    assert (info.in_use, info.last_call) == (0, 3.0)
    assert (info.stats["m"].count, info.stats["m"].mean) == (1, 3.0)
    assert take(bench) is entry


def test_nothing_is_taken_where_nothing_is() -> None:
    """No error either: that is for who asks to wait."""
    bench = Bench()
    assert take(bench) is None
    bench.conn()
    assert take(bench, "x") is None
    assert bench.core.take("b", "m", None, None, None, 0.0) is None
    assert take(bench, filter=lambda info: False) is None


def test_nothing_that_moves_is_left_behind_by_the_straight_path() -> None:
    """A call on a free conn leaves no step, no ticket and no alarm."""
    bench = Bench()
    bench.conn()
    bench.look()
    alarms = bench.alarms
    for _ in range(10):
        entry = take(bench)
        assert entry is not None
        assert not bench.core.steps
        give(bench, entry)
    assert bench.core.next_due() is None
    assert bench.core.next_deadline() is None
    assert bench.alarms == alarms


def test_a_place_of_several_is_taken_and_given_back() -> None:
    """By whoever has one, in any order."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    assert [take(bench, who=who) for who in ("ann", "bob", "cid")] == [entry, entry, None]
    give(bench, entry, who="ann")
    assert entry.holders == ["bob"]
    assert take(bench, who="cid") is entry
    give(bench, entry, who="cid")
    give(bench, entry, who="bob")
    assert entry.in_use == 0


def test_the_head_of_the_rotation_is_asked_about_first() -> None:
    """Where it passes nobody else is looked at."""
    bench = Bench()
    first, second = bench.conn(), bench.conn()
    asked: list[int] = []

    def note(info: Any) -> bool:
        asked.append(info.id)
        return bool(info.id != 1) if len(asked) > 1 else True

    assert take(bench, filter=note) is first
    assert asked == [first.id]
    give(bench, first)
    assert take(bench, filter=note) is second


def test_a_filter_sees_the_present() -> None:
    """What is left of a rest is as of now, on every path that asks it."""
    bench = Bench(audited=False)
    bench.conn()
    seen: list[float] = []

    def note(info: Any) -> bool:
        seen.append(info.cooldown)
        return bool(info.state == "ready")

    bench.end(bench.ask(), Busy(10.0))
    bench.conn()
    bench.now = 4.0
    assert take(bench, filter=note) is not None
    bench.ask(filter=lambda info: not seen.append(info.cooldown))  # type: ignore[func-returns-value]
    assert seen[0] == 0.0
    assert set(seen[1:]) == {6.0}


def test_a_filter_that_raises_takes_nothing() -> None:
    """At the head or behind it; the conn stays where it was."""
    bench = Bench()
    entry, other = bench.conn(), bench.conn()

    def broken(info: Any) -> bool:
        if info.id == other.id:
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        take(bench, filter=lambda info: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(bench, filter=broken)
    assert [take(bench), take(bench)] == [entry, other]


def test_a_straight_call_takes_what_is_due_into_account() -> None:
    """A rest that is over, a life that is over, however late the driver is."""
    bench = Bench()
    resting, old = bench.conn(rest=5.0), bench.conn(ttl=5.0)
    bench.now = 6.0
    assert [take(bench), take(bench)] == [resting, None]
    assert old.state.value == "draining"


def test_a_straight_call_on_a_conn_that_was_given_up_goes_on() -> None:
    """It is closed when the call is done."""
    bench = Bench()
    bench.conn(ttl=5.0)
    entry = take(bench)
    assert entry is not None
    bench.at(5.0)
    assert not bench.permits
    give(bench, entry)
    assert bench.closing().entry is entry


def test_a_straight_call_on_a_conn_that_rests_meanwhile_ends_quietly() -> None:
    """The conn goes on resting."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    assert take(bench) is entry
    bench.end(bench.ask(), Busy(5.0))
    give(bench, entry)
    assert entry.state.value == "cooling"
    assert take(bench) is None


def test_an_answer_wipes_the_slate() -> None:
    """Refusals, failures and deaths before it are forgotten, on the straight path too."""
    bench = Bench()
    entry = bench.conn()
    for _ in range(3):
        bench.end(bench.ask(), Busy())
        bench.at(bench.now + 1.0)
    assert entry.troubled().refusals == 3
    assert take(bench) is entry
    give(bench, entry)
    assert entry.trouble is None
    bench.end(bench.ask(), Busy())
    assert bench.info(entry).cooldown == pytest.approx(0.025)


def test_a_straight_call_that_moves_has_the_place_it_would_have_had() -> None:
    """Before whoever queued while it ran."""
    bench = Bench()
    entry = bench.conn()
    assert take(bench) is entry
    place = bench.core.place()
    younger = bench.ask()
    bench.core.conclude(entry, "m", None, of_error(Busy(1.0), False), 0.0, 0.0)
    moved = bench.submit(Ticket("a", "m", None, None, None, 0.0, 99.0, place, Busy()))
    bench.at(1.0)
    assert granted(moved)
    assert queued(younger)


def test_a_ticket_that_is_served_at_once_is_not_woken() -> None:
    """It never slept."""
    bench = Bench()
    bench.conn()
    assert bench.ask().standing is Standing.GRANTED
    assert bench.woken == []


def test_who_waits_is_woken_once() -> None:
    """By a grant or by an error, never by both."""
    bench = Bench()
    bench.conn()
    running = bench.ask()
    first, second = bench.ask(), bench.ask(timeout=1.0)
    bench.at(1.0)
    bench.answer(running)
    bench.at(5.0)
    assert bench.woken == [second, first]


def test_steps_are_taken_over_once() -> None:
    """What a driver has drained is not there any more."""
    bench = Bench()
    bench.conn(ttl=5.0)
    bench.core.tick(5.0)
    steps = bench.core.drain()
    assert steps
    assert bench.core.drain() == []


def test_a_nearer_alarm_is_announced_and_a_later_one_is_not() -> None:
    """So that the driver's keeper sleeps as long as it can, and no longer."""
    bench = Bench()
    bench.conn(ttl=50.0)
    assert bench.alarms == 1
    bench.conn(ttl=80.0)
    assert bench.alarms == 1
    bench.conn(ttl=20.0)
    assert bench.alarms == 2
    assert bench.core.next_due() == 20.0


def test_a_driver_that_sleeps_until_what_is_due_misses_nothing() -> None:
    """Rests, ends of lives, retries and time-outs, told by next_due and next_deadline alone."""
    bench = Bench()
    bench.conn(ttl=7.0, revive=True)
    bench.end(bench.ask(), Reply(1, cooldown=2.0))
    first = bench.ask(timeout=5.0)
    bench.at(bench.core.next_due() or 0.0)
    assert (bench.now, granted(first)) == (2.0, True)
    bench.end(first, OSError("torn"))
    second = bench.ask(timeout=1.5)
    bench.closed(bench.closing())
    bench.failed(bench.opening())
    while not bench.permits:
        bench.at(bench.core.next_due() or 0.0)
    assert bench.now == 3.0
    bench.opened(bench.opening())
    assert granted(second)
    bench.answer(second)
    while not bench.permits:
        bench.at(bench.core.next_due() or 0.0)
    assert bench.now == 10.0


def test_the_doors_of_the_room_take_whoever_comes() -> None:
    """A call, a shared place and a moved call on one conn, one after the other."""
    bench = Bench()
    entry = bench.conn(methods=["m", "n"], capacity=2)
    one, two = bench.ask("a", "m"), bench.ask("a", ANY)
    three = bench.ask("a", "n")
    with pytest.raises(PoolTimeout):
        bench.ask("a", "n", timeout=0)
    bench.answer(two)
    assert holder(three) is entry
    bench.end(three, Closed())
    assert bench.closing().entry is entry
    bench.cancel(one)
    assert entry.in_use == 0
