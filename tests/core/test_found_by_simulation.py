"""What the simulator has found in the core, each as the shortest story that shows it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.core import ANY, Outcome, Permit, Standing, State, Ticket, Work
from connpool.errors import Busy, InitError, MethodError, NestedCall
from tests.core.bench import Bench, error_of, granted, holder, queued
from tests.core.making import Made, Workshop
from tests.core.test_claims import only


def test_the_first_failure_of_a_supply_is_followed_by_a_pause() -> None:
    """Though the slot that it held is free at once, and another caller waits."""
    shop = Workshop(max_connecting=1)
    supply = shop.supply()
    shop.ask("db"), shop.ask("db")
    shop.failed(shop.opening())
    assert shop.permits == []
    assert supply.retry_at > shop.now


def test_after_never_again_nothing_more_is_begun() -> None:
    """And all who wait are told."""
    shop = Workshop(max_connecting=1)
    shop.supply()
    first, second = shop.ask("db"), shop.ask("db")
    shop.failed(shop.opening(), InitError("never", retry_after=math.inf))
    assert shop.permits == []
    assert error_of(first).__cause__ is error_of(second).__cause__


def test_what_a_conn_can_is_known_before_another_is_begun() -> None:
    """Callers whom no conn of the supply can serve do not have more of them opened."""
    shop = Workshop(max_connecting=1)
    shop.supply()
    one, other = shop.ask("db"), shop.ask("db", "what none can")
    shop.make(shop.opening())
    assert granted(one)
    assert isinstance(error_of(other), MethodError)
    assert shop.permits == []


def test_who_holds_all_but_one_that_is_being_opened_may_wait_for_that() -> None:
    """At its max_size a supply brings one more all the same."""
    shop = Workshop()
    shop.supply(min_size=2, max_size=2)
    shop.born()
    assert granted(shop.ask("db", who="me"))
    again = shop.ask("db", who="me")
    assert queued(again)
    shop.born()
    assert granted(again)


def test_who_holds_all_but_one_that_is_replaced_may_wait_for_that() -> None:
    """The one that is being closed makes room for another."""
    shop = Workshop()
    shop.supply(max_size=1, min_size=1)
    made = shop.born()
    by_hand = shop.conn("db")
    spoilt = shop.ask("db", filter=lambda info: info.id == made.id)
    assert granted(shop.ask("db", filter=lambda info: info.id == by_hand.id, who="me"))
    shop.end(spoilt, OSError("torn"))
    again = shop.ask("db", who="me")
    assert queued(again)
    shop.settle()
    assert granted(again)


def test_a_conn_that_is_being_asked_keeps_why_it_is_given_up() -> None:
    """Until its check is over and it can be closed."""
    shop = Workshop()
    shop.supply(min_size=2, max_size=2)
    one = shop.born(checks=True)
    shop.born(checks=True)
    torn = shop.ask("db", filter=lambda info: info.id == one.id)
    shop.end(torn, ConnectionError("torn"))
    asked = shop.next(Work.CHECK)
    shop.close()
    shop.checked(asked)
    closing = [permit for permit in shop.permits if permit.work is Work.CLOSE]
    assert [permit.reason for permit in closing if permit.entry is asked.entry] == ["pool closed"]


def test_a_conn_on_its_way_out_is_nobodys_spare() -> None:
    """The idle one stays, for it is all that is left of min_size."""
    shop = Workshop()
    shop.supply(min_size=1, max_size=2, max_idle=3.0, revive=False)
    first = shop.born()
    shop.ask("db")
    waiting = shop.ask("db")
    second = shop.born()
    shop.answer(waiting)
    shop.update("db", filter=lambda info: info.id == first.id, ttl=2.0)
    for now in (2.0, 3.0, 4.0, 5.0):
        shop.at(now)
    assert (first.state, second.state) == (State.DRAINING, State.READY)


def test_what_is_missing_is_opened_while_the_old_one_is_still_in_use() -> None:
    """A conn on its way out does not count for min_size."""
    shop = Workshop()
    shop.supply(min_size=1, max_size=2, revive=False)
    first = shop.born()
    shop.ask("db")
    shop.core.let_go([first], shop.now)
    shop.look()
    assert shop.opening().entry is not first


def test_who_holds_a_conn_that_is_to_be_revived_does_not_wait_for_it() -> None:
    """It is revived when its last user has left, and that is the one who asks."""
    bench = Bench()
    bench.conn(capacity=2, revive=True)
    bench.ask(who="me")
    bench.end(bench.ask(who="other"), OSError("torn"))
    with pytest.raises(NestedCall):
        bench.ask(who="me")


def test_a_conn_that_came_up_during_a_pop_goes_back_as_new() -> None:
    """What was wrong with it before is forgotten, and its new life counts from now."""
    bench = Bench()
    entry, _ = bench.conn(revive=True, ttl=2.0), bench.conn()
    bench.at(2.0)
    bench.closed(bench.closing())
    opening = bench.opening()
    bench.collects = False
    pop = bench.pop(entry)
    bench.now = 3.0
    assert bench.opened(opening) is not None
    bench.unpop(pop)
    assert (entry.state, entry.last_init, entry.expires) == (State.READY, 3.0, 5.0)
    assert bench.permits == []


def test_what_expired_during_a_pop_is_not_lent_after_it() -> None:
    """Though it is still being asked whether it is well, and says so."""
    shop = Workshop()
    shop.supply(min_size=2, max_size=2, revive=False)
    one, two = shop.born(checks=True), shop.born(checks=True)
    shop.update("db", filter=lambda info: info.id == two.id, ttl=5.0)
    torn = shop.ask("db", filter=lambda info: info.id == one.id)
    shop.end(torn, ConnectionError("torn"))
    asked = shop.next(Work.CHECK)
    shop.collects = False
    pop = shop.pop(two)
    shop.at(5.0)
    shop.now = 6.0
    shop.unpop(pop)
    waiting = shop.ask("db")
    shop.now = 7.0
    shop.checked(asked)
    assert waiting.entry is not two
    assert two.state is State.DRAINING


def test_a_supply_may_make_what_a_conn_put_in_by_hand_is_not() -> None:
    """That one says nothing of what the supply's own would be like."""
    shop = Workshop()
    shop.conn("db")
    shop.supply("db", Made, extra="red")
    asked = shop.ask("db", filter=lambda info: info.extra == "red")
    assert asked.standing is Standing.QUEUED
    permit: Permit = shop.opening()
    shop.make(permit)
    assert holder(asked) is permit.entry
    assert isinstance(asked, Ticket)


def test_what_takes_too_long_is_a_failure_before_its_slot_is_given_on() -> None:
    """As one that says so itself."""
    shop = Workshop(max_connecting=1)
    supply = shop.supply(connect_timeout=1.0)
    shop.ask("db"), shop.ask("db")
    shop.opening()
    shop.at(1.0)
    assert shop.permits == []
    assert supply.retry_at > shop.now


def test_who_holds_nothing_does_not_wait_for_itself() -> None:
    """Where nothing passes, it waits for what the supply may bring yet."""
    shop = Workshop()
    shop.supply(max_size=1, min_size=1)
    shop.born()
    shop.update("db", methods=["n"])
    shop.conn("db", extra="x")
    asked = shop.ask("db", who="me", filter=lambda info: info.extra == "y", timeout=1.0)
    assert queued(asked)


def test_a_supply_without_the_method_is_no_hope_for_a_nested_call() -> None:
    """Though it could bring more."""
    shop = Workshop()
    shop.supply(max_size=2, min_size=1)
    shop.make(shop.opening(), methods=("n",))
    shop.conn("db")
    assert granted(shop.ask("db", who="me"))
    with pytest.raises(NestedCall):
        shop.ask("db", who="me")


# -- checkouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["a call", "a place", "by filter"])
def test_who_uses_a_conn_has_more_of_it_when_it_comes_to_be_kept_for_another(wish: str) -> None:
    """He waited before there was a place free: the other waits for him, and he would for ever."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    own, other = bench.lease(whole=False, who="ann"), bench.ask()
    wanted, stranger = bench.lease(), bench.ask()
    if wish == "a place":
        more = bench.lease(whole=False, who="ann")
    else:
        more = bench.ask(who="ann", filter=only(entry) if wish == "by filter" else None)
    bench.answer(other)
    assert holder(more) is entry
    bench.release(more)
    assert queued(stranger)
    bench.release(own)
    assert holder(wanted) is entry


def test_who_uses_a_kept_conn_has_no_more_than_there_is_and_what_he_asked_for() -> None:
    """First come, first served; what he cannot have there he waits for."""
    bench = Bench()
    entry = bench.conn(methods=["m", "n"], capacity=3)
    there = bench.conn(methods=["m", "o"])
    bench.ask(filter=only(there))
    users = [bench.lease(whole=False, who="ann"), bench.ask(), bench.ask()]
    wanted = bench.lease(filter=only(entry))
    elsewhere = bench.ask(method="o", who="ann")
    picky = bench.ask(filter=only(there), who="ann")
    whole = bench.lease(who="ann")
    unknown = bench.ask(who=None)
    more = [bench.ask(who="ann"), bench.ask(method="n", who="ann"), bench.ask(who="ann")]
    bench.answer(users[1])
    assert [granted(call) for call in more] == [True, False, False]
    bench.answer(users[2])
    assert [granted(call) for call in more] == [True, True, False]
    assert all(map(queued, (wanted, elsewhere, picky, whole, unknown)))


def test_a_filter_that_raises_for_who_uses_a_kept_conn_tells_him() -> None:
    """And nobody else."""

    def raises(info: Any) -> bool:
        if info.extra == "odd":
            raise ZeroDivisionError("odd")
        return True

    bench = Bench(audited=False)
    entry = bench.conn(capacity=2)
    bench.lease(whole=False, who="ann")
    other, wanted = bench.ask(), bench.lease()
    first, more = bench.ask(filter=raises), bench.ask(filter=raises, who="ann")
    entry.extra = "odd"
    bench.answer(other)
    assert isinstance(error_of(more), ZeroDivisionError)
    assert queued(first)
    assert queued(wanted)


def test_no_conn_is_kept_for_one_who_holds_it_himself() -> None:
    """It would be kept in vain; he waits for another, and that is kept for him."""
    bench = Bench()
    one, two = bench.conn(capacity=2), bench.conn(capacity=2)
    own = bench.lease(whole=False, who="ann", filter=only(one))
    others = [bench.ask(filter=only(entry)) for entry in (one, two, two)]
    wanted, waiting = bench.lease(who="ann"), bench.ask(filter=only(one))
    bench.answer(others[0])
    assert one.claim is None
    assert holder(waiting) is one
    bench.answer(others[1])
    assert two.claim is not None
    bench.answer(others[2])
    assert holder(wanted) is two
    bench.release(own)


class Thread:
    """One that holds conns: it equals its number for as long as it lives."""

    def __init__(self) -> None:
        self.lives = True

    def __eq__(self, other: object) -> bool:
        return self is other or (other == 7 and self.lives)

    def __hash__(self) -> int:
        return 7


@pytest.mark.parametrize("ended", ["answered", "failed"])
def test_a_call_of_a_thread_is_not_taken_for_what_it_holds(ended: str) -> None:
    """What it holds of a shared conn is found when it is gone."""
    bench = Bench()
    entry = bench.conn(capacity=3, revive=True)
    thread = Thread()
    bench.lease(whole=False, who=thread)
    call = bench.ask(who=7)
    if ended == "answered":
        bench.answer(call)
    else:
        bench.end(call, KeyError("no harm"))
    thread.lives = False
    bench.core.reclaim(lambda who: isinstance(who, Thread) and not who.lives, bench.now)
    bench.look()
    assert not entry.in_use
    assert len(bench.forsaken) == 1


def test_what_a_conn_says_that_comes_up_during_a_pop_counts_if_it_is_given_up() -> None:
    """As when it comes up at any other time."""
    shop = Workshop()
    entry = shop.conn("db", methods=["m"], revive=True)
    shop.end(shop.ask("db"), OSError("torn"))
    shop.collects = False
    shop.closed(shop.closing())
    opening = shop.opening()
    pop = shop.pop(entry)
    entry.conn.names, entry.conn.capacity = ["n"], 2
    shop.opened(opening)
    shop.unpop(pop)
    assert [granted(shop.ask("db", "n")) for _ in range(2)] == [True, True]


def test_a_place_in_the_line_of_a_parent_process_is_none_behind_those_who_come_later() -> None:
    """A call that forked, and moves in the child, comes before whoever comes after it there."""
    bench = Bench()
    bench.conn()
    user = bench.ask()
    moved = Ticket("a", "m", None, None, "ann", 0.0, math.inf, 4711.5, OSError("torn"))
    bench.submit(moved)
    after = [bench.ask(), bench.ask()]
    bench.answer(user)
    assert granted(moved)
    assert all(map(queued, after))


def test_of_those_who_share_a_conn_each_has_taken_his_place_somewhere_else() -> None:
    """Who lost it is told so, and not who took his place last; one may have taken several."""
    bench = Bench()
    sole, several = bench.conn("a"), bench.conn("b", capacity=4)
    ann, bob = [bench.lease("b", whole=False, who="ann") for _ in range(2)], bench.lease("a")
    eve = bench.lease("b", whole=False)
    sole.where, several.where = "line 8", "line 9"
    marks = [(several, eve.who, "line 9"), (several, "ann", "line 3"), (several, "ann", "line 4")]
    bench.core.reclaim(lambda who: who in ("ann", bob.who), bench.now, marks)
    bench.look()
    told = sorted((told.info.id, told.where) for told in bench.forsaken)
    assert told == [(sole.id, "line 8"), (several.id, "line 3"), (several.id, "line 4")]
    assert several.holders == [eve.who]
    assert len(ann) == 2


def test_nothing_is_kept_for_one_whose_time_is_over_at_this_instant() -> None:
    """Or those who come after him would be passed over for who uses the conn already."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    bench.lease(whole=False, who="ann")
    users = [bench.ask(), bench.ask()]
    bench.lease(timeout=5.0)
    first, more = bench.ask(), bench.ask(who="ann")
    bench.end(users[0], Busy(5.0))
    bench.at(5.0)
    assert holder(first) is entry
    assert queued(more)


def test_a_conn_that_expires_as_he_gives_up_for_whom_it_is_kept_is_lent_to_nobody() -> None:
    """What is due at an instant comes before what else happens then."""
    bench = Bench()
    entry = bench.conn(capacity=3, ttl=5.0, revive=True)
    users = [bench.ask(), bench.ask(), bench.ask()]
    wanted, waiting = bench.lease(), bench.ask()
    bench.answer(users[0])
    assert entry.claim is not None
    bench.now = 5.0
    bench.cancel(wanted)
    assert queued(waiting)
    assert entry.state is State.REVIVING


def test_a_conn_is_not_kept_for_one_who_moves_to_the_front_and_holds_it() -> None:
    """His checkout was moved, and he comes before him for whom it was kept."""
    bench = Bench()
    one, two, busy = bench.conn(capacity=3), bench.conn(), bench.conn()
    bench.lease(whole=False, who="ann", filter=only(one))
    bench.ask(filter=only(busy))
    other, user = bench.ask(filter=only(one)), bench.ask(filter=only(one))
    early = bench.lease(who="ann")
    assert holder(early) is two
    bench.lease()
    bench.answer(user)
    assert one.claim is not None
    waiting = bench.ask(filter=only(one))
    bench.forfeit(early, Outcome(end="closed", moves=True))
    moved = Ticket("a", ANY, None, None, "ann", 0.0, math.inf, early.place, OSError("torn"), True)
    bench.submit(moved)
    assert one.claim is None
    assert holder(waiting) is one
    bench.answer(other)
    assert queued(moved)


def test_what_he_keeps_from_leaving_brings_him_no_other() -> None:
    """A supply at its max_size replaces a conn once it has left, and not before."""
    shop = Workshop()
    shop.supply(max_size=2)
    shop.ask("db", who="me")
    first = shop.born()
    shop.core.let_go([first], shop.now)
    shop.look()
    again = shop.ask("db", who="me")
    shop.born()
    assert granted(again)
    with pytest.raises(NestedCall):
        shop.ask("db", who="me")


def test_one_that_leaves_since_there_are_too_many_brings_no_other() -> None:
    """The supply was made smaller: when it has left there is no room either."""
    shop = Workshop()
    shop.supply(min_size=2, max_size=2)
    shop.born()
    shop.born()
    assert granted(shop.ask("db", who="me"))
    shop.core.resize("db", 0, 1, shop.now)
    shop.look()
    with pytest.raises(NestedCall):
        shop.ask("db", who="me")


def test_a_conn_that_hangs_in_its_check_during_a_pop_is_dead_when_it_is_given_up() -> None:
    """It is not lent to anybody."""
    shop = Workshop(connect_timeout=1.0)
    shop.supply(min_size=2, max_size=2)
    one, two = shop.born(checks=True), shop.born(checks=True)
    held = shop.ask("db", filter=only(two))
    torn = shop.ask("db", filter=only(one))
    shop.end(held, ConnectionError("torn"))
    shop.end(torn, KeyError("no harm"))
    three = shop.born(checks=True)
    shop.end(shop.ask("db", filter=only(three)), ConnectionError("torn"))
    shop.next(Work.CHECK)
    shop.collects = False
    pop = shop.pop(one)
    shop.at(2.0)
    shop.unpop(pop)
    assert one.state is State.DRAINING
    assert one.reason == "dead"
