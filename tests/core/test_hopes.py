"""What can still come for who waits, and what he is told when the last of it is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from connpool.errors import Busy, FilterError, InitError, MethodError, NestedCall
from tests.core.bench import Bench, error_of, granted, holder, queued
from tests.core.making import Workshop
from tests.core.test_claims import only


def is_any(number: int) -> Callable[[Any], bool]:
    """A filter like no other, that passes all."""
    return lambda info: number >= 0


def red(info: Any) -> bool:
    """Passes what is red."""
    return bool(info.extra == "red")


# -- hopes that are lost ---------------------------------------------------------------------------


def test_only_who_would_wait_for_himself_is_told_so() -> None:
    """Others who want the same wait on, in their order."""
    bench = Bench()
    own, other = bench.conn(), bench.conn()
    mine, theirs = bench.ask(who="ann"), bench.ask(who="bob")
    assert (holder(mine), holder(theirs)) == (own, other)
    before, nested, after = bench.ask(who="eve"), bench.ask(who="ann"), bench.ask(who="joe")
    bench.end(theirs, OSError("torn"))
    assert isinstance(error_of(nested), NestedCall)
    assert queued(before)
    assert queued(after)
    bench.answer(mine)
    assert holder(before) is own
    bench.answer(before)
    assert holder(after) is own


def test_who_holds_what_others_now_hope_for_keeps_his_place() -> None:
    """The conn that all hoped for is lost; he hopes for a third one, and is first there."""
    bench = Bench()
    first, own, third = bench.conn(), bench.conn(), bench.conn()
    running = [bench.ask(who=who) for who in ("bob", "ann", "joe")]
    assert [holder(ticket) for ticket in running] == [first, own, third]
    nested, later = bench.ask(who="ann"), bench.ask(who="eve")
    bench.end(running[0], OSError("torn"))
    assert queued(nested)
    assert queued(later)
    bench.answer(running[2])
    assert holder(nested) is third
    bench.answer(running[1])
    assert holder(later) is own


def test_the_last_hope_of_several_is_lost() -> None:
    """One after the other, until only his own are left."""
    bench = Bench()
    conns = [bench.conn() for _ in range(4)]
    running = [bench.ask(who=who) for who in ("ann", "bob", "ann", "joe")]
    nested = bench.ask(who="ann")
    bench.end(running[1], OSError("torn"))
    assert queued(nested)
    bench.end(running[3], OSError("torn"))
    assert isinstance(error_of(nested), NestedCall)
    assert bench.core.live == len(conns) - 2


def test_who_holds_nothing_is_told_what_is_true() -> None:
    """And he whose own conn would not serve him either."""
    bench = Bench()
    bench.conn(extra="blue")
    other = bench.conn(extra="red")
    mine, theirs = bench.ask(who="ann"), bench.ask(who="bob")
    assert holder(theirs) is other
    nested, plain = bench.ask(who="ann", filter=red), bench.ask(who="eve", filter=red)
    bench.end(theirs, OSError("torn"))
    assert isinstance(error_of(nested), FilterError)
    assert isinstance(error_of(plain), FilterError)
    bench.answer(mine)


def test_a_shared_conn_that_dies_comes_back_when_all_have_left() -> None:
    """One of those who use it had hoped for another of its places."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    mine, theirs = bench.ask(who="ann"), bench.ask(who="bob")
    nested, plain = bench.ask(who="ann"), bench.ask(who="eve")
    assert queued(nested)
    bench.end(theirs, OSError("torn"))
    assert isinstance(error_of(nested), NestedCall)
    assert queued(plain)
    bench.answer(mine)
    bench.work()
    assert holder(plain) is entry


def test_a_change_of_extra_takes_the_last_other_hope() -> None:
    """As a death does."""
    bench = Bench()
    bench.conn(extra="red")
    other = bench.conn(extra="red")
    bench.ask(who="ann"), bench.ask(who="bob")
    nested, plain = bench.ask(who="ann", filter=red), bench.ask(who="eve", filter=red)
    bench.extra(other, "blue")
    assert isinstance(error_of(nested), NestedCall)
    assert queued(plain)


def test_a_place_less_is_a_hope_less() -> None:
    """The caller holds the one that is left, though another uses the conn still."""
    bench = Bench()
    bench.conn(capacity=2)
    mine, theirs = bench.ask(who="ann"), bench.ask(who="bob")
    nested, plain = bench.ask(who="ann"), bench.ask(who="eve")
    bench.update("a", capacity=1)
    assert isinstance(error_of(nested), NestedCall)
    bench.answer(theirs)
    assert queued(plain)
    bench.answer(mine)
    assert granted(plain)


def test_a_filter_that_raises_when_it_is_asked_again_tells_its_own_caller() -> None:
    """Whether he shared his need or not."""
    bench = Bench(audited=False)
    bench.conn(), bench.conn(), bench.conn()
    running = [bench.ask(who=who) for who in ("ann", "bob", "joe")]
    angry = False

    def moody(info: Any) -> bool:
        if angry:
            raise ValueError("asked again")
        return True

    nested, plain = bench.ask(who="ann", filter=moody), bench.ask(who="eve", filter=moody)
    other = bench.ask(who="bob", filter=moody)
    angry = True
    bench.end(running[0], OSError("torn"))
    assert [type(error_of(ticket)) for ticket in (plain, other)] == [ValueError] * 2
    bench.end(running[1], OSError("torn"))
    assert isinstance(error_of(nested), ValueError)


def test_who_is_set_apart_and_whose_filter_raises_is_told() -> None:
    """Others with the same filter had the answer before it raised."""
    bench = Bench(audited=False)
    bench.conn(), bench.conn(), bench.conn()
    running = [bench.ask(who=who) for who in ("bob", "ann", "joe")]
    asked = 0

    def once(info: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise ValueError("asked too often")
        return True

    plain, nested = bench.ask(who="eve", filter=once), bench.ask(who="ann", filter=once)
    asked = 2
    bench.core.pop([holder(running[0])], None, bench.now)
    bench.core.drain()
    assert isinstance(error_of(nested), ValueError)
    assert queued(plain)


def test_who_waits_for_a_whole_conn_and_is_set_apart_gives_up_what_was_kept_for_him() -> None:
    """It is kept for the next one who wants all of it."""
    bench = Bench()
    first, kept, own = bench.conn(capacity=2), bench.conn(capacity=2), bench.conn(capacity=2)
    mine = [bench.ask(who="ann", filter=only(own)) for _ in range(2)]
    used = [bench.ask(who="bob", filter=only(kept)) for _ in range(2)]
    alone = [bench.ask(who="joe", filter=only(first)) for _ in range(2)]
    wanted, next_one = bench.lease(who="ann"), bench.lease(who="eve")
    bench.answer(used[0])
    assert kept.claim is not None
    bench.core.pop([first], None, bench.now)
    bench.look()
    assert queued(wanted)
    assert queued(next_one)
    bench.answer(used[1])
    assert holder(wanted) is kept
    for ticket in mine:
        bench.answer(ticket)
    assert holder(next_one) is own
    assert all(granted(ticket) for ticket in alone)


# -- supplies --------------------------------------------------------------------------------------


def test_a_supply_made_smaller_brings_no_more() -> None:
    """Who had hoped for one more, and holds all there are, would wait for himself."""
    shop = Workshop()
    shop.supply(max_size=2)
    mine = shop.ask("db", who="ann")
    shop.born()
    nested, plain = shop.ask("db", who="ann"), shop.ask("db", who="bob")
    shop.core.resize("db", 0, 1, shop.now)
    shop.look()
    assert isinstance(error_of(nested), NestedCall)
    assert queued(plain)
    shop.answer(mine)
    assert granted(plain)


def test_a_supply_that_gives_up_brings_no_more() -> None:
    """The conn he holds is all that is left."""
    shop = Workshop()
    shop.supply(max_size=2)
    shop.ask("db", who="ann")
    shop.born()
    nested, plain = shop.ask("db", who="ann"), shop.ask("db", who="bob")
    shop.failed(shop.opening(), InitError("never", retry_after=math.inf))
    assert isinstance(error_of(nested), NestedCall)
    assert queued(plain)


def test_what_a_supply_would_bring_must_pass() -> None:
    """One that does not is no hope for who holds one, put in by hand, that does."""
    shop = Workshop()
    shop.conn("db", extra="red")
    shop.supply(min_size=1, max_size=2)
    shop.born()
    assert granted(shop.ask("db", who="ann", filter=red))
    with pytest.raises(NestedCall):
        shop.ask("db", who="ann", filter=red)
    assert queued(shop.ask("db", who="bob", filter=red))


def test_what_makes_room_only_when_its_holder_leaves_is_no_hope_for_him() -> None:
    """Another one will come once he has given his back; others may wait for it."""
    shop = Workshop()
    shop.supply(max_size=1)
    mine = shop.ask("db", who="ann")
    made = shop.born()
    shop.core.let_go([made], shop.now)
    shop.look()
    with pytest.raises(NestedCall):
        shop.ask("db", who="ann")
    plain = shop.ask("db", who="bob")
    assert queued(plain)
    shop.answer(mine)
    shop.settle()
    assert granted(plain)


def test_a_pop_given_up_takes_a_hope_away() -> None:
    """The conn to be popped would have made room for another; now it is back, and of no use."""
    shop = Workshop()
    shop.supply(max_size=2, min_size=2)
    one, two = shop.born(), shop.born()
    mine = shop.ask("db", who="ann", filter=only(one))
    busy = shop.ask("db", who="bob", filter=only(two))
    shop.update("db", filter=only(two), methods=["n"])
    shop.collects = False
    pop = shop.pop(two)
    nested = shop.ask("db", who="ann")
    assert queued(nested)
    shop.unpop(pop)
    assert isinstance(error_of(nested), NestedCall)
    for ticket in (mine, busy):
        shop.answer(ticket)


def test_a_supply_that_lacks_the_method_is_no_hope() -> None:
    """For nobody."""
    shop = Workshop()
    shop.supply(max_size=2, min_size=1)
    shop.born()
    with pytest.raises(MethodError):
        shop.ask("db", "n", who="ann")


# -- the order of needs ----------------------------------------------------------------------------


def test_a_moved_call_comes_before_those_of_other_needs() -> None:
    """Each has a filter of its own; it has its place among them."""
    bench = Bench()
    entry = bench.conn(revive=True)
    early, second = bench.ask(), bench.ask(filter=is_any(1))
    others = [bench.ask(filter=is_any(n)) for n in (2, 3)]
    bench.answer(early)
    again = bench.move(second, Busy(1.0))
    bench.at(1.0)
    assert holder(again) is entry
    for ticket in others:
        bench.answer(again)
        assert granted(ticket)
        again = ticket


def test_a_moved_call_comes_before_those_who_share_its_need() -> None:
    """Where another need would have been served before theirs, it is not served before it."""
    bench = Bench()
    bench.conn()
    wish = is_any(1)
    running = bench.ask(filter=wish)
    other, late = bench.ask(filter=is_any(2)), bench.ask(filter=wish)
    last = bench.ask(filter=is_any(3))
    bench.answer(running)
    assert granted(other)
    again = bench.submit(running.again(Busy(1.0)))
    bench.answer(other)
    assert granted(again)
    bench.answer(again)
    assert granted(late)
    bench.answer(late)
    assert granted(last)


@pytest.mark.parametrize("kinds", [4, 40])
def test_needs_are_served_in_the_order_of_their_firsts(kinds: int) -> None:
    """Whatever came and went before."""
    bench = Bench()
    bench.conn()
    running = bench.ask()
    filters = [is_any(n) for n in range(kinds)]
    waiting = [bench.ask(filter=filters[n % kinds]) for n in range(200)]
    gone = {n for n in range(200) if n % 7 in (0, 3, 4)}
    for n in gone:
        bench.cancel(waiting[n])
    for n, ticket in enumerate(waiting):
        if n not in gone:
            bench.answer(running)
            assert granted(ticket)
            running = ticket


def test_those_who_leave_do_not_stay_in_the_order() -> None:
    """However many have come and gone while others waited."""
    bench = Bench(audited=False)
    bench.conn()
    running = bench.ask()
    waiting = [bench.ask(filter=is_any(n)) for n in range(4)]
    bench.answer(running)
    for n in range(200):
        bench.cancel(bench.ask(filter=is_any(n)))
    assert len(bench.core._listings["a"].line.order()) < 100
    for before, ticket in pairwise(waiting):
        bench.answer(before)
        assert granted(ticket)


def test_needs_whose_filters_raise_are_passed_over_and_told() -> None:
    """Where all of them do nobody is left, and the conn is free."""
    bench = Bench(audited=False)
    bench.conn()
    running = bench.ask()

    def wish(number: int) -> Callable[[Any], bool]:
        def angry(info: Any) -> bool:
            if info.in_use:
                return True
            raise ValueError(f"angry {number}")

        return angry

    waiting = [bench.ask(filter=wish(number)) for number in range(3)]
    bench.answer(running)
    assert [type(error_of(ticket)) for ticket in waiting] == [ValueError] * 3
    assert granted(bench.ask())


def test_what_leaves_a_supply_made_smaller_makes_no_room() -> None:
    """One of two stays, and the caller holds it; it is another's that leaves."""
    shop = Workshop()
    shop.supply(max_size=2)
    shop.ask("db", who="bob"), shop.ask("db", who="ann")
    shop.born(), shop.born()
    nested, plain = shop.ask("db", who="ann"), shop.ask("db", who="eve")
    shop.core.resize("db", 0, 1, shop.now)
    shop.look()
    assert isinstance(error_of(nested), NestedCall)
    assert queued(plain)


def test_who_holds_nothing_of_a_supply_may_wait_for_what_it_cannot_bring_yet() -> None:
    """He does not wait for himself, though nothing can come before somebody else is done."""
    shop = Workshop()
    shop.supply(max_size=1)
    running = shop.ask("db", who="bob")
    made = shop.born()
    own = shop.conn("db")
    mine = shop.ask("db", who="ann", filter=only(own))
    shop.core.let_go([made], shop.now)
    shop.look()
    shop.pop(own)
    waiting = shop.ask("db", who="ann")
    assert queued(waiting)
    shop.answer(mine)
    shop.answer(running)
    shop.born()
    assert granted(waiting)


def test_who_holds_none_of_a_supply_waits_for_it_like_anybody_else() -> None:
    """What he holds is of no use to him any more, and nothing of the supply hangs on it."""
    shop = Workshop()
    shop.conn("db")
    mine = shop.ask("db", who="ann")
    shop.supply(max_size=1)
    running = shop.ask("db")
    shop.born()
    nested, plain = shop.ask("db", who="ann"), shop.ask("db")
    shop.update("db", methods=("n",))
    assert queued(nested)
    assert queued(plain)
    shop.answer(mine)
    shop.end(running, OSError("torn"))
    shop.born()
    assert granted(nested)
