"""Conns that are looked up by what they have: found without a scan, and never wrongly."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Entry, Where, check_filter, index
from connpool.core.index import Index, Shelf
from connpool.errors import FilterError, MethodError, NestedCall, PoolTimeout
from tests.core.bench import Bench, error_of, granted, holder, queued
from tests.core.making import Workshop
from tests.core.test_where import Broken, Sour

RED, BLUE = {"colour": "red"}, {"colour": "blue"}


@pytest.fixture(autouse=True)
def indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few conns are taken for many."""
    monkeypatch.setattr(index, "FEW", 0)


def where(**items: Any) -> Where:
    made = check_filter(items)
    assert isinstance(made, Where)
    return made


RED_ONE, BLUE_ONE = where(**RED), where(**BLUE)


def index_of(entry: Entry) -> Index:
    assert entry.group is not None
    assert entry.group.index is not None
    return entry.group.index


def shelf_of(entry: Entry, test: Where) -> Shelf:
    return index_of(entry).shelves[test]


def _is(id: int, info: Any) -> bool:
    return bool(info.id == id)


def painted(*colours: Any, **options: Any) -> tuple[Bench, list[Entry]]:
    """A bench with a conn of each colour."""
    bench = Bench()
    return bench, [bench.conn(extra={"colour": colour}, **options) for colour in colours]


# -- calls -----------------------------------------------------------------------------------------


def test_the_one_that_passes_is_lent() -> None:
    """Wherever it lies."""
    bench, conns = painted("blue", "red", "blue")
    assert holder(bench.ask(filter=RED_ONE)) is conns[1]
    assert queued(bench.ask(filter=RED_ONE))


def test_those_that_pass_are_lent_in_turn() -> None:
    """None is worn out while its like idle."""
    bench, conns = painted("red", "blue", "red", "red")
    seen = []
    for _ in range(6):
        call = bench.ask(filter=RED_ONE)
        seen.append(holder(call))
        bench.answer(call)
    red = [conns[0], conns[2], conns[3]]
    assert seen == red * 2


def test_the_longest_idle_is_first_in_a_new_row() -> None:
    """As in the rotation."""
    bench, conns = painted("red", "red", "red")
    for at in (1, 0):
        bench.now += 1.0
        bench.answer(bench.ask(filter=partial(_is, conns[at].id)))
    assert [holder(bench.ask(filter=RED_ONE)) for _ in conns] == [conns[2], conns[1], conns[0]]


def test_one_that_is_busy_when_met_comes_back_when_it_is_free() -> None:
    """It leaves the row, and its return brings it back; nobody else is told."""
    bench, conns = painted("red", "red", "blue")
    first = bench.ask()
    assert holder(first) is conns[0]
    second = bench.ask(filter=RED_ONE)
    assert holder(second) is conns[1]
    assert conns[0].away == [shelf_of(conns[0], RED_ONE)]
    assert conns[2].away is None
    bench.answer(first)
    assert conns[0].away is None
    assert holder(bench.ask(filter=RED_ONE)) is conns[0]


def test_one_that_stays_in_the_rotation_is_passed_over_there() -> None:
    """Who does not care gets another, and then it is there again."""
    bench, conns = painted("blue", "red")
    call = bench.ask(filter=RED_ONE)
    assert conns[1].listed
    assert holder(bench.ask()) is conns[0]
    assert queued(bench.ask())
    bench.answer(call)
    assert conns[1].in_use  # by the one who waited


def test_a_shared_conn_is_lent_until_it_is_full() -> None:
    """An idle one first, then the one that is expected to be free soonest."""
    bench = Bench()
    conns = [bench.conn(extra=RED, capacity=2) for _ in range(2)]
    bench.conn(extra=BLUE, capacity=2)
    calls = [bench.ask(filter=RED_ONE) for _ in range(4)]
    assert {holder(call) for call in calls[:2]} == set(conns)
    assert all(granted(call) for call in calls)
    waiting = bench.ask(filter=RED_ONE)
    assert queued(waiting)
    bench.answer(calls[2])
    assert granted(waiting)


def test_a_place_of_a_shared_conn_comes_back_though_others_are_free() -> None:
    """It was full when it was met, and it lies in the rotation still."""
    bench = Bench()
    red = bench.conn(extra=RED, capacity=2)
    bench.conn(extra=BLUE, capacity=2)
    calls = [bench.ask(filter=RED_ONE) for _ in range(2)]
    with pytest.raises(PoolTimeout):
        bench.ask(filter=RED_ONE, timeout=0)
    assert red.away
    bench.answer(calls[0])
    assert not red.away
    assert holder(bench.ask(filter=RED_ONE)) is red


def test_a_whole_conn_is_lent_and_comes_back() -> None:
    """One that nobody uses, by the same index."""
    bench, conns = painted("red", "red", "blue", capacity=2)
    bench.ask()
    lease = bench.lease(filter=RED_ONE)
    assert holder(lease) is conns[1]
    with pytest.raises(PoolTimeout):
        bench.lease(filter=RED_ONE, timeout=0)
    bench.release(lease)
    assert holder(bench.lease(filter=RED_ONE)) is conns[1]


def test_a_released_conn_that_was_met_busy_comes_back() -> None:
    """Taken out of the rotation or not."""
    bench, conns = painted("red", "blue")
    for filter in (None, RED_ONE):
        lease = bench.lease(filter=filter)
        assert holder(lease) is conns[0]
        with pytest.raises(PoolTimeout):
            bench.ask(filter=RED_ONE, timeout=0)
        assert conns[0].away
        bench.release(lease)
        assert not conns[0].away
        bench.answer(bench.ask(filter=BLUE_ONE))
        bench.answer(bench.ask(filter=BLUE_ONE))


def test_by_chooses_among_those_that_pass() -> None:
    """Whichever way."""
    bench, conns = painted("red", "blue", "red")
    assert holder(bench.ask(filter=RED_ONE, by=lambda infos: infos[-1])) is conns[2]
    assert holder(bench.ask(filter=RED_ONE, by="least_wait")) is conns[0]
    assert queued(bench.ask(filter=RED_ONE, by="least_wait"))


def test_conns_of_several_kinds_are_found() -> None:
    """Each kind has an index of its own."""
    bench = Bench()
    one = bench.conn(methods=["m"], extra=RED)
    other = bench.conn(methods=["m", "n"], extra=RED)
    bench.conn(methods=["m", "o"], extra=BLUE)
    calls = [bench.ask(filter=RED_ONE) for _ in range(2)]
    assert {holder(call) for call in calls} == {one, other}
    assert queued(bench.ask(filter=RED_ONE))


def test_several_items_are_all_looked_at() -> None:
    """The rarest finds, the others decide."""
    bench = Bench()
    for number in range(4):
        bench.conn(extra={"region": "eu", "tier": number % 2})
    both = bench.conn(extra={"region": "us", "tier": 1})
    bench.conn(extra={"region": "us", "tier": 0})
    assert holder(bench.ask(filter=where(region="us", tier=1))) is both
    assert queued(bench.ask(filter=where(region="us", tier=1)))
    with pytest.raises(FilterError):
        bench.ask(filter=where(region="us", tier=2))


# -- route and questions ---------------------------------------------------------------------------


def test_route_goes_to_those_that_pass() -> None:
    """Each in turn, and busy or not."""
    bench, conns = painted("red", "blue", "red")
    bench.ask()
    core = bench.core
    routed = {id(core.route("a", "m", RED_ONE, None, bench.now)) for _ in range(4)}
    assert routed == {id(conns[0].conn), id(conns[2].conn)}
    with pytest.raises(FilterError):
        core.route("a", "m", where(colour="green"), None, bench.now)


def test_questions_are_answered() -> None:
    """In the order of the conns."""
    bench, conns = painted("red", "blue", "red")
    core = bench.core
    assert [info.id for info in core.infos(RED_ONE, bench.now)] == [conns[0].id, conns[2].id]
    assert core.search("a", RED_ONE, bench.now) == [conns[0], conns[2]]


# -- what changes ----------------------------------------------------------------------------------


def test_a_new_extra_counts_at_once() -> None:
    """On every shelf."""
    bench, conns = painted("red", "blue")
    assert granted(bench.ask(filter=RED_ONE))
    waiting = bench.ask(filter=RED_ONE)
    bench.extra(conns[1], RED)
    assert holder(waiting) is conns[1]
    bench.extra(conns[0], None)
    bench.extra(conns[1], BLUE)
    with pytest.raises(FilterError):
        bench.ask(filter=RED_ONE)


def test_an_idle_conn_with_a_new_extra_is_lent_for_that_only() -> None:
    """It has left the row of what it was before."""
    bench, conns = painted("red", "red", "blue")
    for _ in range(2):
        bench.answer(bench.ask(filter=RED_ONE))
    bench.extra(conns[0], BLUE)
    assert holder(bench.ask(filter=RED_ONE)) is conns[1]
    assert queued(bench.ask(filter=RED_ONE))
    assert {holder(bench.ask(filter=BLUE_ONE)) for _ in range(2)} == {conns[0], conns[2]}


def test_an_update_counts_at_once() -> None:
    """Of extras, and of methods with them."""
    bench, conns = painted("red", "blue")
    assert bench.update(filter=BLUE_ONE, extra=RED) == 1
    assert bench.update(filter=RED_ONE, extra=BLUE, methods=frozenset({"n"})) == 2
    with pytest.raises(MethodError):
        bench.ask(filter=BLUE_ONE)
    assert {holder(bench.ask(method="n", filter=BLUE_ONE)) for _ in conns} == set(conns)


def test_a_conn_that_comes_is_found_and_one_that_goes_is_not() -> None:
    """A birth, a pop, a pop that is given up, a death and a revival."""
    bench, conns = painted("red")
    bench.answer(bench.ask(filter=RED_ONE))
    new = bench.conn(extra=RED, revive=True)
    popped = bench.pop(conns[0])
    assert popped.done
    call = bench.ask(filter=RED_ONE)
    assert holder(call) is new
    pop = bench.pop(new)
    bench.conn(extra=BLUE)
    with pytest.raises(FilterError):
        bench.ask(filter=RED_ONE)
    bench.unpop(pop)
    bench.end(call, OSError("torn"))
    waiting = bench.ask(filter=RED_ONE)
    assert queued(waiting)
    bench.work()
    assert holder(waiting) is new


def test_a_lease_of_one_that_rests_elsewhere_in_the_rotation_comes_back() -> None:
    """It was lent where it lay, met there in vain, and is back in the row with its release."""
    bench, conns = painted("blue", "red")
    lease = bench.lease(filter=RED_ONE)
    assert conns[1].listed
    with pytest.raises(PoolTimeout):
        bench.lease(filter=RED_ONE, timeout=0)
    assert conns[1].away
    bench.release(lease)
    assert not conns[1].away
    assert holder(bench.lease(filter=RED_ONE)) is conns[1]


def test_one_that_rests_is_not_lent_until_it_has_rested() -> None:
    """It is met, leaves the row, and comes back by itself."""
    bench, conns = painted("red", "blue")
    bench.end(bench.ask(filter=RED_ONE), Reply(1, cooldown=1.0))
    with pytest.raises(PoolTimeout):
        bench.ask(filter=RED_ONE, timeout=0)
    assert conns[0].away
    bench.at(1.0)
    assert holder(bench.ask(filter=RED_ONE)) is conns[0]


def test_one_that_has_left_the_shelf_meanwhile_does_not_come_back_to_it() -> None:
    """Its extra has changed while it was in use."""
    bench, conns = painted("red", "blue")
    call = bench.ask(filter=RED_ONE)
    with pytest.raises(PoolTimeout):
        bench.ask(filter=RED_ONE, timeout=0)
    shelf = shelf_of(conns[0], RED_ONE)
    bench.extra(conns[0], BLUE)
    bench.answer(call)
    assert not shelf.row
    assert not shelf.members


# -- those who wait --------------------------------------------------------------------------------


def test_equal_filters_share_a_need() -> None:
    """Two who write the same wait for the same."""
    bench, _ = painted("red")
    call = bench.ask(filter=RED_ONE)
    first, second = bench.ask(filter=where(**RED)), bench.ask(filter=where(**RED))
    assert first.need is second.need
    bench.answer(call)
    assert granted(first)
    assert queued(second)


def test_a_conn_goes_to_the_first_whom_it_suits() -> None:
    """Of those with functions, those with data and those without, in order of arrival."""
    bench, conns = painted("red", "blue")
    red, blue = bench.ask(filter=RED_ONE), bench.ask(filter=BLUE_ONE)
    wants_blue = bench.ask(filter=BLUE_ONE)
    shown_red = bench.ask(filter=lambda info: info.extra == RED)
    wants_red = bench.ask(filter=RED_ONE)
    wants_any = bench.ask()
    for call in (red, shown_red, wants_red, blue):
        bench.answer(call)
    assert bench.woken == [shown_red, wants_red, wants_any, wants_blue]
    assert conns[0].group is not None
    assert conns[0].group.listings[0].line.sieve is None


def test_who_waits_in_vain_is_told_at_once() -> None:
    """Nobody passes, or nobody does any more."""
    bench, conns = painted("red", "blue")
    with pytest.raises(FilterError, match=r"no conn passes the filter \{'colour': 'green'\}"):
        bench.ask(filter=where(colour="green"))
    call, waiting = bench.ask(filter=RED_ONE), bench.ask(filter=RED_ONE)
    bench.extra(conns[0], BLUE)
    assert isinstance(error_of(waiting), FilterError)
    assert granted(call)


def test_who_would_wait_for_himself_is_told() -> None:
    """The only conn that passes is his own."""
    bench, _ = painted("red", "blue")
    assert granted(bench.ask(filter=RED_ONE, who="ann"))
    with pytest.raises(NestedCall):
        bench.ask(filter=RED_ONE, who="ann")


def test_a_supply_that_will_not_pass_is_not_waited_for() -> None:
    """What it pins to its conns is known before one is made."""
    bench = Workshop()
    bench.supply(extra=RED)
    with pytest.raises(FilterError):
        bench.ask("db", filter=BLUE_ONE)
    waiting = bench.ask("db", filter=RED_ONE)
    assert queued(waiting)
    entry = bench.born()
    assert holder(waiting) is entry
    bench.extra(entry, BLUE)
    assert queued(bench.ask("db", filter=RED_ONE))  # another one will pass


# -- values that misbehave -------------------------------------------------------------------------


def test_values_that_are_not_hashable_are_found_all_the_same() -> None:
    """By those to whom they are equal."""
    test = where(tags=frozenset({1}))
    bench = Bench()
    odd = bench.conn(extra={"tags": {1}})
    other = bench.conn(extra={"tags": {2}})
    bench.answer(bench.ask(filter=test))
    call = bench.ask(filter=test)
    assert holder(call) is odd
    waiting = bench.ask(filter=test)
    assert queued(waiting)
    bench.extra(other, {"tags": {1}})
    assert holder(waiting) is other
    bench.extra(odd, {"tags": frozenset({3})})
    with pytest.raises(PoolTimeout):
        bench.ask(filter=test, timeout=0)


class Same(Sour):
    """One that cannot be compared, and whose hash is that of others."""

    def __hash__(self) -> int:
        return hash("red")


def test_values_that_cannot_be_compared_harm_nobody() -> None:
    """They are different from all others."""
    bench = Bench()
    sour, broken = bench.conn(extra={"colour": Same()}), bench.conn(extra=Broken())
    red = bench.conn(extra=RED)
    assert holder(bench.ask(filter=RED_ONE)) is red
    assert queued(bench.ask(filter=RED_ONE))
    bench.extra(sour, None)
    bench.extra(broken, None)
    bench.extra(sour, {"colour": Same()})
    assert bench.pop(sour).done


def test_a_filter_that_cannot_be_compared_fails_its_own_caller() -> None:
    """Here it is he who gets the error, and nothing else has changed."""
    bench, conns = painted("red", "blue")
    assert granted(bench.ask(filter=RED_ONE))
    with pytest.raises(ValueError, match="not with me"):
        bench.ask(filter=where(colour=Same()))
    assert holder(bench.ask(filter=BLUE_ONE)) is conns[1]


# -- limits ----------------------------------------------------------------------------------------


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is kept."""
    monkeypatch.setattr(index, "MOST_SHELVES", 4)
    monkeypatch.setattr(index, "MOST_COLUMNS", 2)


@pytest.mark.usefixtures("cramped")
def test_what_was_not_asked_for_lately_is_dropped() -> None:
    """And made anew when it is asked for."""
    bench, conns = painted(0, 1, 2, 3, 4, 5)
    for number in (0, 1, 2, 3, 4, 0, 5, 0, 1, 0, 2, 0, 9, 0, 8, 0, 7):
        if number < 6:
            call = bench.ask(filter=where(colour=number))
            assert holder(call) is conns[number]
            bench.answer(call)
        else:
            with pytest.raises(FilterError):
                bench.ask(filter=where(colour=number))
        assert len(index_of(conns[0]).shelves) <= 4
    assert where(colour=0) in index_of(conns[0]).shelves


@pytest.mark.usefixtures("cramped")
def test_of_too_many_keys_none_is_kept() -> None:
    """The next question begins anew."""
    bench = Bench()
    entry = bench.conn(extra={"a": 1, "b": 1, "c": 1, "d": 1, "e": 1})
    bench.conn()
    for key in "abcdeabcde":
        call = bench.ask(filter=where(**{key: 1}))
        assert holder(call) is entry
        with pytest.raises(PoolTimeout):
            bench.ask(filter=where(**{key: 1}), timeout=0)
        bench.answer(call)
        assert len(index_of(entry).columns) <= 3


# -- without an index ------------------------------------------------------------------------------


def test_a_few_conns_are_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they lie, and nothing is kept."""
    monkeypatch.setattr(index, "FEW", 3)
    bench, conns = painted("red", "blue", "red")
    assert conns[0].group is not None
    for _ in range(2):
        calls = [bench.ask(filter=RED_ONE) for _ in range(2)]
        assert [holder(call) for call in calls] == [conns[0], conns[2]]
        waiting = bench.ask(filter=RED_ONE)
        assert queued(waiting)
        bench.cancel(waiting)
        for call in calls:
            bench.answer(call)
    assert conns[0].group.index is None
    bench.conn(extra=RED)
    assert granted(bench.ask(filter=RED_ONE))
    assert conns[0].group.index is not None


def test_a_sour_value_in_a_filter_is_found_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits with one whose __eq__ raises is asked like those with functions."""
    monkeypatch.setattr(index, "FEW", 3)
    sour = Same()
    bench = Bench()
    conns = [bench.conn(extra={"colour": sour}), bench.conn(extra=RED)]
    calls = [bench.ask(), bench.ask()]
    red, same = bench.ask(filter=RED_ONE), bench.ask(method=ANY, filter=where(colour=sour))
    assert queued(red)
    assert queued(same)
    bench.answer(next(call for call in calls if holder(call) is conns[0]))
    assert holder(same) is conns[0]
    bench.answer(next(call for call in calls if granted(call)))
    assert holder(red) is conns[1]
    assert conns[0].group is not None
    assert conns[0].group.listings[0].line.sieve is None
