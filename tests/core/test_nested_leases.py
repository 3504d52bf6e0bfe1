"""Who comes before one for whom a conn is kept; and who would wait for himself."""

from __future__ import annotations

import pytest

from connpool.core import ANY
from connpool.errors import Closed, NestedCall
from tests.core.bench import Bench, granted, holder, queued
from tests.core.making import Workshop
from tests.core.test_claims import only

# -- before him ------------------------------------------------------------------------------------


def test_a_call_that_was_moved_is_before_him_if_it_was_before_him() -> None:
    """Its place in line is that of its first attempt, and there it finds the conn not kept yet."""
    bench = Bench()
    bench.conn(), bench.conn()
    early = [bench.ask(), bench.ask()]
    entry = bench.conn(capacity=2)
    users = [bench.ask(), bench.ask()]
    wanted = bench.lease(filter=only(entry))
    bench.answer(users[0])
    bench.conn()
    late = bench.ask()
    again = [bench.move(call, Closed()) for call in (late, *early)]
    assert [granted(call) for call in again] == [False, True, False]
    assert holder(again[1]) is entry
    bench.answer(users[1])
    assert granted(again[2])
    bench.answer(again[1])
    bench.answer(again[2])
    assert holder(wanted) is entry
    assert queued(again[0])


@pytest.mark.parametrize("wish", ["a filter", "a method", "all places"])
def test_a_call_that_was_moved_gets_what_it_asked_for(wish: str) -> None:
    """However early it came."""
    bench = Bench()
    first = bench.conn(revive=True)
    if wish == "a filter":
        early = bench.ask(filter=only(first))
    else:
        early = bench.ask(whole=wish == "all places")
    entry = bench.conn(methods=["n"] if wish == "a method" else ["m", "n"], capacity=3)
    users = [bench.ask(method="n"), bench.ask(method="n")]
    wanted = bench.lease(method="n")
    bench.answer(users[0])
    again = bench.move(early, Closed())
    assert queued(again)
    bench.answer(users[1])
    assert holder(again if wish == "all places" else wanted) is entry


def test_who_uses_a_kept_conn_may_have_more_of_it() -> None:
    """Until he has left it is kept in vain, and he may not leave before he has had it: both would
    wait for ever."""
    bench = Bench()
    entry = bench.conn(capacity=4)
    own, other = bench.lease(whole=False, who="ann"), bench.ask(who="bob")
    wanted = bench.lease()
    bench.answer(other)
    waiting = bench.ask(who="bob")
    assert entry.claim is not None
    nested = [bench.ask(who="ann"), bench.lease(whole=False, who="ann", timeout=0)]
    assert [holder(ticket) for ticket in nested] == [entry] * 2
    assert nested[0].place is not None
    assert queued(waiting)
    last = bench.ask(who="ann")
    with pytest.raises(NestedCall):
        bench.ask(who="ann")
    bench.answer(nested[0])
    bench.release(nested[1])
    bench.answer(last)
    assert not granted(wanted)
    bench.release(own)
    assert holder(wanted) is entry


def test_who_cannot_be_told_is_not_taken_for_a_user() -> None:
    """Else anybody would be."""
    bench = Bench()
    bench.conn(capacity=3)
    bench.ask(who=None)
    other = bench.ask(who=None)
    bench.lease()
    bench.answer(other)
    assert queued(bench.ask(who=None))


def test_who_uses_a_conn_and_waits_for_more_of_it_is_not_kept_from_it() -> None:
    """Here it was full as he asked, and was kept for another when a place became free."""
    bench = Bench()
    bench.conn(capacity=2)
    bench.ask(who="ann")
    other = bench.ask(who="bob")
    bench.lease(who="eve")
    nested = bench.ask(who="ann")
    bench.answer(other)
    assert granted(nested)


# -- waiting for oneself ---------------------------------------------------------------------------


def test_who_holds_a_conn_whole_cannot_have_a_place_of_it() -> None:
    """Where it is the only one: he would wait for himself."""
    bench = Bench()
    bench.conn(capacity=3)
    held = bench.lease(who="ann")
    with pytest.raises(NestedCall, match="wait for itself"):
        bench.ask(who="ann")
    with pytest.raises(NestedCall):
        bench.lease(whole=False, who="ann")
    with pytest.raises(NestedCall):
        bench.lease(who="ann")
    assert queued(bench.ask(who="bob"))
    bench.release(held)


def test_who_uses_a_place_of_every_conn_cannot_have_one_whole() -> None:
    """None would be idle before he leaves; that others use them too does not matter."""
    bench = Bench()
    one, two = bench.conn(capacity=3), bench.conn(capacity=3)
    bench.ask(who="ann", filter=only(one)), bench.ask(who="ann", filter=only(two))
    other = bench.ask(who="bob", filter=only(two))
    with pytest.raises(NestedCall):
        bench.lease(who="ann")
    bench.answer(other)
    with pytest.raises(NestedCall):
        bench.lease(who="ann", filter=only(two))
    third = bench.conn(capacity=3)
    running = bench.ask(who="bob", filter=only(third))
    wanted = bench.lease(who="ann")
    assert queued(wanted)
    bench.answer(running)
    assert holder(wanted) is third


def test_who_uses_a_place_waits_for_a_whole_conn_that_is_still_to_be_made() -> None:
    """A supply has room for another one."""
    bench = Workshop()
    bench.supply(max_size=2)
    first = bench.ask("db", who="ann")
    bench.born()
    wanted = bench.lease("db", who="ann")
    assert queued(wanted)
    second = bench.born()
    assert holder(wanted) is second
    assert holder(first) is not second
    with pytest.raises(NestedCall):
        bench.lease("db", who="ann")


def test_any_method_will_do_for_a_whole_conn() -> None:
    """Of those that have different ones the first idle one is had."""
    bench = Bench()
    conns = [bench.conn(methods=[name], capacity=2) for name in ("m", "n")]
    users = [bench.ask(method="m"), bench.ask(method="n")]
    wanted = bench.lease(method=ANY)
    bench.answer(users[1])
    assert holder(wanted) is conns[1]
