"""Timers: alarms may ring early, never late, and cost nothing while they stand."""

from __future__ import annotations

import itertools
import math

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from connpool.core.timers import SLACK, Timers


@attrs.define(eq=False)
class Item:
    id: int
    alarm: float = math.inf


def some(count: int) -> list[Item]:
    return [Item(number) for number in range(count)]


def test_alarms_ring_in_order_and_once() -> None:
    """Whatever is due rings, the earliest first; what is not due does not."""
    timers: Timers[Item] = Timers()
    first, second, third = some(3)
    for item, due in ((third, 3.0), (first, 1.0), (second, 2.0)):
        timers.set(item, due)
    assert timers.due == 1.0
    assert timers.pop(0.9) is None
    assert [timers.pop(2.0), timers.pop(2.0), timers.pop(2.0)] == [first, second, None]
    assert timers.due == 3.0
    assert first.alarm == math.inf


def test_an_earlier_alarm_wins_and_a_later_one_changes_nothing() -> None:
    """The first of those set is the one that rings, and it rings once."""
    timers: Timers[Item] = Timers()
    (item,) = some(1)
    timers.set(item, 5.0)
    timers.set(item, 9.0)
    assert item.alarm == 5.0
    timers.set(item, 2.0)
    assert timers.pop(2.0) is item
    assert timers.pop(99.0) is None
    assert timers.due == math.inf


def test_an_alarm_that_was_cleared_does_not_ring() -> None:
    """Not even when it is set again for later; clearing twice does no harm."""
    timers: Timers[Item] = Timers()
    (item,) = some(1)
    timers.set(item, 1.0)
    timers.clear(item)
    timers.clear(item)
    timers.set(item, 3.0)
    assert timers.pop(0.5) is None
    assert timers.due == 3.0, "and does not hide what is due next"
    assert timers.pop(2.0) is None
    assert timers.pop(3.0) is item


def test_an_alarm_that_was_set_again_for_the_same_instant_rings_once() -> None:
    """Though it may lie in the heap twice."""
    timers: Timers[Item] = Timers()
    (item,) = some(1)
    for _ in range(3):
        timers.set(item, 1.0)
        timers.clear(item)
    timers.set(item, 1.0)
    assert timers.pop(1.0) is item
    assert timers.pop(1.0) is None


def test_alarms_that_are_off_do_not_pile_up() -> None:
    """However often one is set and cleared, the heap stays in proportion to those that stand."""
    timers: Timers[Item] = Timers()
    items = some(10)
    for item in items:
        timers.set(item, 1.0 + item.id)
    lasting = Item(99)
    for number in range(10_000):
        timers.set(lasting, 100.0 + number % 7)
        timers.clear(lasting)
        assert len(timers._heap) <= 2 * 11 + SLACK
    assert [timers.pop(50.0) for _ in range(11)] == [*items, None]


def test_when_all_are_cleared_nothing_is_due() -> None:
    """The heap is rebuilt empty."""
    timers: Timers[Item] = Timers()
    items = some(2 * SLACK)
    for item in items:
        timers.set(item, 1.0)
    for item in items:
        timers.clear(item)
    assert timers.pop(0.0) is None
    assert timers.due == math.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 9)))))
def test_no_alarm_is_late_or_lost(acts: list[tuple[int, int | None]]) -> None:
    """Against a plain table: after anything, exactly those that are due ring."""
    timers: Timers[Item] = Timers()
    items = some(5)
    table: dict[int, float] = {}
    for number, due in acts * 10:
        if due is None:
            timers.clear(items[number])
            table.pop(number, None)
        else:
            timers.set(items[number], float(due))
            table[number] = min(float(due), table.get(number, math.inf))
        assert timers.due <= min(table.values(), default=math.inf)
    rang = list(itertools.takewhile(bool, (timers.pop(5.0) for _ in range(99))))
    assert {item.id for item in rang if item} == {n for n, due in table.items() if due <= 5.0}
