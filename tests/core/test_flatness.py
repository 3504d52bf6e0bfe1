"""What a call costs does not grow: with conns, resources, callers in line, or alarms.

Counted in lines of Python that are run, so that nothing depends on the machine; and in the items
that C walks over, where a scan could hide.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Entry, Ticket, check_filter
from connpool.errors import FilterError, PoolTimeout
from tests.core.bench import Bench, queued

FEW, MANY = 10, 10_000


def lines_of(act: Callable[[], Any]) -> int:
    """How many lines of Python run while `act` does."""
    count = 0

    def note(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return note

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # a collection in between would count the lines of whoever hooks into it
    sys.settrace(note)
    try:
        act()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count


def call(bench: Bench) -> None:
    """A call on a free conn."""
    entry = bench.core.take("a", "m", None, None, None, bench.now)
    assert entry is not None
    bench.core.give(entry, "m", None, bench.now, bench.now)


def straight(bench: Bench) -> None:
    """The same without a turn."""
    entry = bench.core.borrow("a", "m", None, bench.now)
    assert entry is not None
    assert bench.core.put_back(entry, "m", bench.now, bench.now)


def many_conns(count: int) -> Bench:
    bench = Bench(audited=False)
    bench.straight = False  # which has a test of its own
    for _ in range(count):
        bench.conn()
    return bench


def many_busy_conns(count: int) -> Bench:
    bench = many_conns(count)
    for _ in range(count - 1):
        bench.ask()
    return bench


def many_shared_conns(count: int) -> Bench:
    """Each has a free place, and none is idle."""
    bench = Bench(audited=False)
    for _ in range(count):
        bench.conn(capacity=3)
    for _ in range(count):
        bench.ask()
    return bench


def many_resources(count: int) -> Bench:
    bench = many_conns(1)
    for number in range(count):
        bench.conn(f"host-{number}")
    return bench


def many_kinds(count: int) -> Bench:
    """Each conn has a method of its own besides the common one."""
    bench = Bench(audited=False)
    for number in range(count):
        bench.conn(methods=["m", number])
    return bench


def many_alarms(count: int) -> Bench:
    bench = many_conns(1)
    for number in range(count):
        bench.conn("b", ttl=1000.0 + number, rest=500.0 + number)
    return bench


def many_in_line_elsewhere(count: int) -> Bench:
    bench = many_conns(1)
    bench.conn("b")
    bench.ask("b")
    for number in range(count):
        bench.ask("b", timeout=1000.0 + number)
    return bench


PLACES = [
    many_conns,
    many_busy_conns,
    many_shared_conns,
    many_resources,
    many_kinds,
    many_alarms,
    many_in_line_elsewhere,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_call_on_a_free_conn_is_flat(place: Callable[[int], Bench]) -> None:
    """Taking and giving back runs the same few lines, whatever else is there."""
    few, many = place(FEW), place(MANY)
    for bench in (few, many):
        call(bench)  # the first one makes the figures of its method
    assert lines_of(lambda: call(few)) == lines_of(lambda: call(many)) < 300


@pytest.mark.parametrize("place", [many_conns, many_resources])
def test_a_call_without_a_turn_is_flat(place: Callable[[int], Bench]) -> None:
    """The same, in a handful of lines."""
    few, many = place(FEW), place(MANY)
    for bench in (few, many):
        straight(bench)
    assert lines_of(lambda: straight(few)) == lines_of(lambda: straight(many)) < 40


@pytest.mark.parametrize("shared", [False, True])
def test_to_queue_and_to_be_served_is_flat(shared: bool) -> None:
    """With ten or ten thousand in line before and behind."""

    def line(count: int) -> tuple[Bench, Ticket]:
        bench = many_conns(1)
        bench.conn(capacity=2) if shared else bench.conn()
        running = [bench.ask() for _ in range(2 + shared)]
        for number in range(count):
            bench.ask(timeout=1000.0 + number)
        return bench, running[0]

    def queue(bench: Bench) -> None:
        assert queued(bench.core.submit(Ticket("a", "m", deadline=5000.0), bench.now))

    (few, in_few), (many, in_many) = line(FEW), line(MANY)
    assert lines_of(lambda: queue(few)) == lines_of(lambda: queue(many)) < 100
    few_lines = lines_of(lambda: give_back(few, in_few))
    assert few_lines == lines_of(lambda: give_back(many, in_many)) < 100


def line_of_filters(count: int) -> tuple[Bench, list[int]]:
    """So many in line, each with a filter of his own, and five that want a red conn before them.

    Each filter notes that it was asked.
    """
    bench, asked = many_conns(1), list[int]()
    running = bench.ask()
    bench.conn(extra="red")
    bench.ask()

    def wish(number: int) -> Callable[[Any], bool]:
        def passes(info: Any) -> bool:
            asked.append(number)
            return number >= 5 or info.extra == "red"

        return passes

    for number in range(count):
        bench.ask(filter=wish(number))
    give_back(bench, running)  # the first return puts the line in order
    bench.look()
    asked.clear()
    return bench, asked


def test_a_return_to_a_line_of_many_filters_is_flat() -> None:
    """It costs what the filters cost that are asked, and none behind the one that passes is."""

    def again(bench: Bench) -> None:
        give_back(bench, bench.woken[-1])

    (few, in_few), (many, in_many) = line_of_filters(FEW), line_of_filters(MANY)
    assert lines_of(lambda: again(few)) == lines_of(lambda: again(many)) < 400
    assert in_few == in_many == [0, 1, 2, 3, 4, 6]


def test_a_line_of_many_filters_costs_each_return_the_same() -> None:
    """From the first to the last, however many have been served and have left."""

    def all_returns(count: int) -> float:
        bench, _ = line_of_filters(count)

        def serve() -> None:
            while bench.core.waiting > 5:
                give_back(bench, bench.woken[-1])
                bench.woken.extend(bench.core.drain())

        return lines_of(serve) / count

    assert all_returns(2000) < 1.2 * all_returns(100)


def give_back(bench: Bench, ticket: Ticket) -> None:
    assert ticket.entry is not None
    bench.core.give(ticket.entry, "m", None, bench.now, bench.now)


def test_to_queue_with_a_filter_that_others_wait_with_is_flat() -> None:
    """What they were asked about is not asked again, however many conns there are."""

    def line(count: int) -> tuple[Bench, Callable[[Any], bool]]:
        bench = many_conns(count)
        last = bench.conn(extra="red")

        def red(info: Any) -> bool:
            return bool(info.extra == "red")

        for _ in range(count):
            bench.ask()
        bench.ask(filter=red)
        assert last.in_use
        bench.ask(filter=red)
        return bench, red

    def queue(bench: Bench, red: Callable[[Any], bool]) -> None:
        assert queued(bench.core.submit(Ticket("a", "m", red), bench.now))

    few, many = line(FEW), line(1000)
    assert lines_of(lambda: queue(*few)) == lines_of(lambda: queue(*many)) < 100


def test_to_give_up_is_flat() -> None:
    """From the middle of any line."""

    def line(count: int) -> tuple[Bench, Ticket]:
        bench = many_conns(1)
        bench.ask()
        waiting = [bench.ask(timeout=1000.0 + number) for number in range(count)]
        return bench, waiting[count // 2]

    (few, in_few), (many, in_many) = line(FEW), line(MANY)
    few_lines = lines_of(lambda: few.core.cancel(in_few, few.now))
    assert few_lines == lines_of(lambda: many.core.cancel(in_many, many.now)) < 60


def test_not_to_wait_is_flat() -> None:
    """timeout=0 where all are busy."""

    def refuse(bench: Bench) -> None:
        with pytest.raises(PoolTimeout):
            bench.ask(timeout=0)

    few, many = many_busy_conns(FEW), many_busy_conns(MANY)
    few.ask(), many.ask()
    assert lines_of(lambda: refuse(few)) == lines_of(lambda: refuse(many)) < 300


def test_a_rest_and_its_end_are_flat() -> None:
    """But for a heap, which C keeps in order."""

    def rest(bench: Bench) -> None:
        bench.end(bench.ask(), Reply(1, cooldown=1.0))
        bench.at(bench.now + 1.0)

    few, many = many_alarms(FEW), many_alarms(MANY)
    assert lines_of(lambda: rest(few)) == lines_of(lambda: rest(many)) < 300


def test_a_death_and_a_revival_are_flat() -> None:
    """With nobody waiting, however many other conns there are."""

    def die(bench: Bench) -> None:
        bench.end(bench.ask(), OSError("torn"))
        bench.closed(bench.closing())
        bench.opened(bench.opening())

    def some(count: int) -> Bench:
        bench = Bench(audited=False)
        for _ in range(count):
            bench.conn(revive=True)
        die(bench)
        return bench

    few, many = some(FEW), some(MANY)
    assert lines_of(lambda: die(few)) == lines_of(lambda: die(many)) < 700


def test_what_one_conn_of_many_costs_to_take_out_is_flat() -> None:
    """Ten thousand that are taken out together cost ten thousand times one, not its square."""

    def pop(count: int) -> float:
        bench = many_conns(count)
        entries = list(bench.core.entries.values())
        lines = lines_of(lambda: bench.pop(*entries))
        assert not bench.core.entries
        return lines / count

    assert pop(1000) < 1.5 * pop(FEW)


def test_most_conns_in_a_rotation_being_stale_costs_once() -> None:
    """Those that have left are met once, and then they are gone."""
    bench = Bench(audited=False)
    for _ in range(MANY):
        bench.conn()
    bench.conn(methods=["m", "n"])
    bench.pop(*[entry for entry in bench.core.entries.values() if entry.id <= MANY - 5])
    call(bench)
    assert lines_of(lambda: call(bench)) < 200


def test_among_many_kinds_of_conn_a_few_are_compared() -> None:
    """The rest are not even listed: one free conn is found among ten thousand kinds."""
    bench = many_kinds(MANY)
    offer = bench.core._listings["a"].offers["m"]
    walked = 0

    class Counted(type(offer.rotation)):  # type: ignore[misc]
        def __iter__(self) -> Any:
            nonlocal walked
            for group in super().__iter__():
                walked += 1
                yield group

    offer.rotation = Counted(offer.rotation)
    for _ in range(10):
        call(bench)
    assert walked < 100


# -- filters given as data -------------------------------------------------------------------------

SEVERAL = 50  # more than are looked at one by one


def numbered(count: int) -> Bench:
    """Each conn has a number."""
    bench = Bench(audited=False)
    for number in range(count):
        bench.conn(extra={"number": number, "even": number % 2 == 0})
    return bench


def looked_up(bench: Bench, **items: Any) -> None:
    """A call with a filter given as data, which is written anew each time."""
    filter = check_filter(items)
    entry = bench.core.take("a", "m", filter, None, None, bench.now)
    if entry is None:
        ticket = bench.core.submit(Ticket("a", "m", filter), bench.now)
        assert ticket.entry is not None
        entry = ticket.entry
    bench.core.give(entry, "m", None, bench.now, bench.now)


@pytest.mark.parametrize("items", [{"number": 25}, {"even": True}, {"even": False, "number": 25}])
def test_a_call_with_a_filter_given_as_data_is_flat(items: dict[str, Any]) -> None:
    """One passes, or half of all, or one by two items."""
    few, many = numbered(SEVERAL), numbered(MANY)
    for bench in (few, many):
        for _ in range(3):
            looked_up(bench, **items)  # to make the index is not
    few_lines = lines_of(lambda: looked_up(few, **items))
    assert few_lines == lines_of(lambda: looked_up(many, **items)) < 100


def test_a_new_filter_for_a_known_key_is_flat() -> None:
    """Only the first question for a key looks at all conns."""
    few, many = numbered(SEVERAL), numbered(MANY)
    for bench in (few, many):
        looked_up(bench, number=1)
    few_lines = lines_of(lambda: looked_up(few, number=25))
    assert few_lines == lines_of(lambda: looked_up(many, number=25)) < 200


def test_a_conn_that_was_looked_up_is_not_searched_for_in_the_rotation() -> None:
    """It stays where it lies: C would walk over thousands to take it out."""
    bench = numbered(MANY)
    walked = 0

    class Walked(Entry):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal walked
            walked += 1
            return self is other

        __hash__ = Entry.__hash__

    for entry in bench.core.entries.values():
        entry.__class__ = Walked
    looked_up(bench, number=MANY - 5)
    assert walked == 0


@pytest.mark.parametrize("timeout", [0.0, 30.0])
def test_to_be_refused_by_a_filter_given_as_data_is_flat(timeout: float) -> None:
    """Nobody passes."""

    def refuse(bench: Bench) -> None:
        with pytest.raises(FilterError):
            bench.ask(filter=check_filter({"number": -1}), timeout=timeout)

    few, many = numbered(SEVERAL), numbered(MANY)
    refuse(few)
    refuse(many)
    assert lines_of(lambda: refuse(few)) == lines_of(lambda: refuse(many)) < 300


def test_a_conn_finds_whom_it_suits_among_many_in_line() -> None:
    """Each of whom waits for another one."""

    def line(count: int) -> tuple[Bench, Ticket, Ticket]:
        bench = numbered(count)
        calls = [bench.ask() for _ in range(count)]
        waiting = [bench.ask(filter=check_filter({"number": n})) for n in range(count)]
        bench.ask(filter=lambda info: info.extra["number"] < 0 or info.in_use)
        return bench, calls[25], waiting[25]

    (few, in_few, served), (many, in_many, also_served) = line(SEVERAL), line(1000)
    few_lines = lines_of(lambda: give_back(few, in_few))
    assert few_lines == lines_of(lambda: give_back(many, in_many)) < 150
    assert served.entry is in_few.entry
    assert also_served.entry is in_many.entry


def test_a_function_that_few_pass_is_asked_first_about_those_that_passed() -> None:
    """Though it is written anew each time, and never believed."""
    bench = numbered(MANY)
    asked: list[int] = []

    def one(number: int) -> None:
        asked.clear()

        def filter(info: Any) -> bool:
            asked.append(info.id)
            return bool(info.extra["number"] == number)

        bench.answer(bench.ask(filter=filter))

    one(5000)
    assert len(asked) > 1000
    one(5000)
    assert len(asked) < 30
    bench.core.set_extra(5001, {"number": -1, "even": True}, bench.now)
    bench.core.set_extra(7001, {"number": 5000, "even": True}, bench.now)
    one(5000)
    assert len(asked) > 1000
    one(5000)
    assert len(asked) < 30


def test_what_comes_and_goes_on_a_large_shelf_is_flat() -> None:
    """A new extra, and a pop, where half of all pass."""

    def change(bench: Bench) -> None:
        bench.core.set_extra(25, {"number": -1, "even": True}, bench.now)
        bench.pop(bench.core.entries[27])

    few, many = numbered(SEVERAL), numbered(MANY)
    for bench in (few, many):
        looked_up(bench, even=True)
    assert lines_of(lambda: change(few)) == lines_of(lambda: change(many)) < 400
