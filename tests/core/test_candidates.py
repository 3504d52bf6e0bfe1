"""Who can serve whom: the index by resource and method, the rotations, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from connpool.core import ANY
from connpool.core.candidates import WINDOW, Listing
from connpool.errors import FilterError, MethodError, PoolTimeout, ResourceError
from tests.core.bench import Bench, granted, holder, queued


def only(id: int) -> Callable[[Any], bool]:
    return lambda info: bool(info.id == id)


def served_by(bench: Bench, count: int, *args: Any, **wish: Any) -> list[int]:
    """The ids of the conns that serve so many calls in turn."""
    served = []
    for _ in range(count):
        ticket = bench.ask(*args, **wish)
        served.append(holder(ticket).id)
        bench.now += 1.0
        bench.answer(ticket)
    return served


# -- who serves what -------------------------------------------------------------------------------


def test_a_call_goes_to_a_conn_that_has_its_resource_and_method() -> None:
    """And to no other."""
    bench = Bench()
    bench.conn("a", ["m"])
    right = bench.conn("b", ["m", "n"])
    bench.conn("b", ["o"])
    assert served_by(bench, 2, "b", "n") == [right.id, right.id]


def test_any_method_will_do() -> None:
    """Who does not name a method gets whatever conn is free."""
    bench = Bench()
    one, two = bench.conn("a", ["m"]), bench.conn("a", ["n"])
    assert {holder(bench.ask("a", ANY)) for _ in range(2)} == {one, two}
    assert queued(bench.ask("a", ANY))


def test_a_conn_without_methods_serves_who_names_none() -> None:
    """An empty collection of methods is a collection of methods."""
    bench = Bench()
    entry = bench.conn("a", [])
    with pytest.raises(MethodError):
        bench.ask("a", "m")
    assert holder(bench.ask("a", ANY)) is entry


def test_a_conn_of_several_resources_serves_them_all() -> None:
    """In use for one, it is in use for the other; who waits for either gets it."""
    bench = Bench()
    entry = bench.conn(["a", "b"])
    first = bench.ask("a")
    second, third = bench.ask("b"), bench.ask("a")
    assert bench.core.resources(bench.now) == ["a", "b"]
    bench.answer(first)
    assert holder(second) is entry
    bench.answer(second)
    assert granted(third)
    bench.pop(entry)
    assert bench.core.resources(bench.now) == []


def test_a_resource_may_be_named_as_a_set() -> None:
    """Or a list, with repetitions."""
    bench = Bench()
    bench.conn({"a", "b"})
    bench.conn(["c", "c"])
    assert set(bench.core.resources(0.0)) == {"a", "b", "c"}
    assert granted(bench.ask("b"))


def test_resources_are_told_apart_by_equality() -> None:
    """1 and 1.0 are one resource, "1" is another."""
    bench = Bench()
    bench.conn(1)
    assert granted(bench.ask(1.0))
    with pytest.raises(ResourceError):
        bench.ask("1")


def test_what_is_not_hashable_is_a_type_error() -> None:
    """Nothing is harmed by it."""
    bench = Bench()
    bench.conn()
    for wish in ((["a"], "m"), ("a", ["m"])):
        with pytest.raises(TypeError):
            bench.ask(*wish)
    assert granted(bench.ask())


# -- errors: resource before method before filter --------------------------------------------------


def test_no_conn_to_the_resource() -> None:
    """The error names the pool and the resource."""
    bench = Bench()
    bench.conn("b")
    with pytest.raises(ResourceError, match=r"'bench' has no open conn to 'a'") as caught:
        bench.ask("a", "x", filter=lambda info: False)
    assert (caught.value.pool, caught.value.resource) == ("bench", "a")


def test_no_conn_with_the_method() -> None:
    """The error says which methods there are instead."""
    bench = Bench()
    bench.conn(methods=["m", "n"])
    with pytest.raises(MethodError, match=r"'a'.*'x'.*'m', 'n'") as caught:
        bench.ask("a", "x", filter=lambda info: False)
    assert (caught.value.method, set(caught.value.methods)) == ("x", {"m", "n"})


def test_no_conn_passes_the_filter() -> None:
    """The error says how many were looked at."""
    bench = Bench()
    bench.conn(extra="red")
    bench.conn(extra="red")
    bench.conn(methods=["n"], extra="blue")
    with pytest.raises(FilterError, match=r"2.*'a'.*'m'.*filter") as caught:
        bench.ask(filter=lambda info: info.extra == "blue")
    assert caught.value.candidates == 2


def test_lookup_errors_are_lookup_errors() -> None:
    """So that who does not care may catch one class."""
    for kind in (ResourceError, MethodError, FilterError):
        assert issubclass(kind, LookupError)


def test_an_error_has_the_last_failure_as_its_cause() -> None:
    """Who waits in vain learns why."""
    bench = Bench()
    bench.conn()
    first, second = bench.ask(), bench.ask()
    torn = OSError("torn")
    bench.end(first, torn)
    assert isinstance(second.error, ResourceError)
    assert second.error.__cause__ is torn


# -- timeout=0 -------------------------------------------------------------------------------------


def test_without_waiting_a_free_conn_is_given() -> None:
    """timeout=0 is no reason to refuse."""
    bench = Bench()
    bench.conn()
    assert granted(bench.ask(timeout=0))


def test_without_waiting_a_busy_or_resting_conn_is_a_timeout() -> None:
    """It is there, and may be had a little later."""
    bench = Bench()
    bench.conn()
    bench.ask()
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    bench.conn("b", rest=5.0)
    with pytest.raises(PoolTimeout) as caught:
        bench.ask("b", timeout=0)
    assert (caught.value.waited, caught.value.timeout, caught.value.waiting) == (0.0, 0.0, 0)


@pytest.mark.parametrize("others", [0, 2])
def test_without_waiting_a_conn_that_is_being_revived_is_no_conn(others: int) -> None:
    """What may come does not count, even where others wait for it."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    for _ in range(others):
        assert queued(bench.ask())
    with pytest.raises(ResourceError):
        bench.ask(timeout=0)
    assert bench.core.waiting == others


def test_without_waiting_the_order_of_errors_is_the_same() -> None:
    """Resource, then method, then filter, of the conns that live."""
    bench = Bench()
    bench.conn(methods=["m"], extra="red")
    bench.conn(methods=["n"], revive=True)
    bench.end(bench.ask("a", "n"), OSError("torn"))
    assert queued(bench.ask("a", "n"))
    with pytest.raises(MethodError):
        bench.ask("a", "n", timeout=0)
    with pytest.raises(FilterError):
        bench.ask("a", "m", filter=lambda info: info.extra == "blue", timeout=0)


# -- rotation --------------------------------------------------------------------------------------


def test_equal_idle_conns_take_turns() -> None:
    """The one that has idled longest is next."""
    bench = Bench()
    ids = [bench.conn().id for _ in range(4)]
    assert served_by(bench, 8) == ids * 2


def test_conns_with_other_methods_take_turns_too() -> None:
    """Those who can serve the same method lend from several rotations: none is forgotten."""
    bench = Bench()
    ids = [bench.conn(methods=["m", other]).id for other in "xyz"]
    ids.append(bench.conn(methods=["m"]).id)
    assert sorted(served_by(bench, 4)) == ids
    assert served_by(bench, 8).count(ids[0]) == 2


def test_each_of_many_kinds_of_conn_is_used() -> None:
    """More rotations than are compared at a time: all have their turn."""
    bench = Bench()
    ids = [bench.conn(methods=["m", number]).id for number in range(3 * WINDOW)]
    assert sorted(served_by(bench, 3 * WINDOW)) == ids


@pytest.mark.parametrize("failed", [False, True])
def test_conns_that_were_all_busy_are_found_again(failed: bool) -> None:
    """A rotation that was found empty is looked at again when it is not."""
    bench = Bench()
    bench.conn(methods=["m", "x"])
    bench.conn(methods=["m", "y"])
    first, second = bench.ask(), bench.ask()
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    bench.end(second, KeyError("no")) if failed else bench.answer(second)
    assert granted(bench.ask(timeout=0))
    bench.answer(first)
    assert granted(bench.ask(timeout=0))
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)


def test_when_one_kind_is_left_it_is_found() -> None:
    """Also where its rotation was empty when the other kind left, and where that comes back."""
    bench = Bench()
    one, other = bench.conn(methods=["m", "x"]), bench.conn(methods=["m", "y"])
    first, second = bench.ask(), bench.ask()
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    bench.answer(first)
    bench.answer(second)
    bench.pop(one)
    assert holder(bench.ask()) is other
    third = bench.conn(methods=["m", "x"])
    assert holder(bench.ask()) is third


def test_a_kind_that_leaves_while_its_rotation_was_found_empty_is_gone() -> None:
    """Its place among the others is given up with it."""
    bench = Bench()
    one, other = bench.conn(methods=["m", "x"]), bench.conn(methods=["m", "y"])
    first = bench.ask(filter=lambda info: info.id == one.id)
    second = bench.ask()
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    pop = bench.pop(one)
    bench.answer(first)
    assert pop.done
    bench.answer(second)
    assert served_by(bench, 2) == [other.id, other.id]


def test_conns_of_several_resources_and_of_one_take_turns() -> None:
    """They are different kinds, and serve the same."""
    bench = Bench()
    both, one = bench.conn(["a", "b"]), bench.conn("a")
    assert sorted(served_by(bench, 4, "a")) == [both.id, both.id, one.id, one.id]


# -- capacity --------------------------------------------------------------------------------------


def test_a_conn_carries_as_many_calls_as_it_can() -> None:
    """And the next one waits."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    tickets = [bench.ask() for _ in range(4)]
    assert [granted(ticket) for ticket in tickets] == [True, True, True, False]
    assert bench.info(entry).in_use == 3
    bench.answer(tickets[1])
    assert granted(tickets[3])


def test_a_shared_conn_lies_in_its_rotation_once() -> None:
    """Also when a place of it comes back while others wait for something else."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    bench.conn("b")
    bench.ask("b"), bench.ask("b")
    tickets = [bench.ask(), bench.ask()]
    bench.answer(tickets[0])
    assert entry.group is not None
    assert list(entry.group.free) == [entry]


def test_idle_conns_come_before_those_with_a_free_place() -> None:
    """Nobody shares a conn while another one idles."""
    bench = Bench()
    conns = {bench.conn(capacity=2) for _ in range(4)}
    assert {holder(bench.ask()) for _ in range(4)} == conns
    assert {holder(bench.ask()) for _ in range(4)} == conns


def test_of_those_with_a_free_place_the_one_that_is_expected_first_is_taken() -> None:
    """The mean of its calls, the call in flight included."""
    bench = Bench()
    slow, quick = bench.conn(capacity=2), bench.conn(capacity=2)
    for entry, took in ((slow, 9.0), (quick, 1.0)):
        bench.answer(bench.ask(filter=only(entry.id)), took)
    bench.ask(), bench.ask()
    assert holder(bench.ask()) is quick


def test_more_than_a_few_shared_conns_are_not_all_compared() -> None:
    """With and without a filter: the choice is bounded."""
    bench = Bench(audited=False)
    entries = [bench.conn(capacity=3) for _ in range(3 * WINDOW)]
    for _ in entries:
        bench.ask()
    looked_at: list[int] = []

    def everybody(info: Any) -> bool:
        looked_at.append(info.id)
        return True

    assert granted(bench.ask())
    assert granted(bench.ask(filter=everybody))
    assert len(looked_at) <= WINDOW + 1


def test_who_was_passed_over_is_not_all_that_is_looked_at_next() -> None:
    """Or the busiest would gather where newcomers look, and a choice among them is none."""
    bench = Bench(audited=False)
    entries = [bench.conn(capacity=3) for _ in range(3 * WINDOW)]
    for entry in entries:
        bench.answer(bench.ask(filter=only(entry.id)), 1.0 if entry is entries[WINDOW - 1] else 9.0)
    for _ in entries:
        bench.ask()
    looked_at: list[int] = []

    def everybody(info: Any) -> bool:
        looked_at.append(info.id)
        return True

    assert holder(bench.ask(filter=everybody)) is entries[WINDOW - 1]
    before = set(looked_at)
    looked_at.clear()
    assert granted(bench.ask(filter=everybody))
    assert before.isdisjoint(looked_at)


def test_a_filter_is_not_asked_about_conns_that_have_left() -> None:
    """Its place in the rotation may still be there: it is passed over."""
    bench = Bench()
    seen: list[int] = []
    first, second, third = bench.conn(), bench.conn(), bench.conn()
    bench.pop(second)

    def third_only(info: Any) -> bool:
        seen.append(info.id)
        return bool(info.id == third.id)

    assert holder(bench.ask(filter=third_only)) is third
    assert second.id not in seen
    assert first.id in seen


def test_a_full_conn_in_the_rotation_is_passed_over() -> None:
    """With a filter as well: a conn whose places became fewer has none to give."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    first = bench.ask()
    bench.update(capacity=1)
    with pytest.raises(PoolTimeout):
        bench.ask(filter=lambda info: True, timeout=0)
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)
    bench.answer(first)
    assert holder(bench.ask()) is entry
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0)


def test_a_filter_may_choose_the_one_that_is_in_the_middle() -> None:
    """It is lent, and the others keep their turns."""
    bench = Bench()
    one, two, three = (bench.conn(extra=colour) for colour in ("red", "green", "blue"))
    assert holder(bench.ask(filter=lambda info: info.extra == "green")) is two
    assert [holder(bench.ask()), holder(bench.ask())] == [one, three]


def test_a_router_is_not_shown_conns_that_have_left() -> None:
    """Wherever in the rotation their places still are."""
    bench = Bench()
    entries = [bench.conn() for _ in range(5)]
    bench.pop(entries[1], entries[3])
    shown: list[int] = []

    def first(views: list[Any]) -> Any:
        shown.extend(view.id for view in views)
        return views[0]

    bench.ask(by=first)
    assert shown == [1, 3, 5]


def test_a_resource_that_nobody_offers_has_no_conns() -> None:
    """Asked of a listing that is there for those who wait only."""
    assert list(Listing("a").members()) == []


# -- what is left behind ---------------------------------------------------------------------------


def test_places_of_conns_that_have_left_do_not_pile_up() -> None:
    """A rotation stays in proportion to its members, however many come and go."""
    bench = Bench(audited=False)
    lasting = bench.conn(rest=1e9)
    group = lasting.group
    assert group is not None
    for _ in range(500):
        bench.pop(bench.conn())
        assert len(group.free) <= 2 * len(group.members) + WINDOW + 1


def test_a_place_that_was_tidied_away_is_given_anew() -> None:
    """Who comes back into the pool after its stale place was dropped lies there once."""
    bench = Bench()
    lasting = bench.conn(rest=100.0)
    popped = [bench.conn(capacity=2) for _ in range(30)]
    busy = [bench.ask() for _ in range(30)]
    pop = bench.pop(*popped)
    bench.unpop(pop)
    for ticket in busy:
        bench.answer(ticket)
    bench.at(100.0)
    assert {holder(bench.ask()) for _ in range(31)} == {lasting, *popped}


def test_nothing_is_remembered_of_a_resource_without_conns_and_waiters() -> None:
    """Listings do not leak."""
    bench = Bench()
    for number in range(50):
        entry = bench.conn(f"host-{number}")
        bench.pop(entry)
    assert bench.core.listings() == []
    assert not bench.core._directory._groups


def test_kinds_of_conn_that_have_left_do_not_pile_up() -> None:
    """Beside one that stays, and whether their rotations were found empty or not."""
    bench = Bench()
    bench.conn()
    bench.ask()
    for number in range(50):
        bench.pop(bench.conn(methods=["m", number]))
    offer = bench.core._listings["a"].offers["m"]
    assert len(offer.rotation) <= 1 + len(offer.groups)
