"""What the simulator has found in the core, each as the shortest story that shows it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.core import Permit, Standing, State, Ticket, Work
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


def test_a_close_that_hangs_takes_no_place_once_the_last_user_has_left() -> None:
    """The conn was closed under him, and the supply may have one only."""
    shop = Workshop()
    shop.supply(max_size=1)
    held = shop.ask("db")
    made = shop.born()
    shop.core.lost(made, made.lives, OSError("torn"), shop.now)
    shop.look()
    assert shop.closing().entry is made
    waiting = shop.ask("db")
    assert shop.permits == []
    shop.end(held, OSError("torn"))
    shop.born()
    assert granted(waiting)


def test_a_check_that_hangs_takes_no_place_of_a_conn_that_is_to_leave() -> None:
    """Another one is opened at once, as if the old one were being closed."""
    shop = Workshop()
    shop.supply(max_size=1, ttl=5.0, ping_interval=1.0)
    running = shop.ask("db")
    made = shop.born(checks=True)
    shop.answer(running)
    shop.at(4.9)
    assert shop.next(Work.CHECK).entry is made
    shop.at(5.0)
    assert shop.opening().entry is not made


def test_a_conn_gives_way_though_one_whom_it_cannot_serve_has_waited_longest() -> None:
    """Who would get it has come later than he who waits at the other resource."""
    shop = Workshop(max_size=2)
    shop.supply("db", min_size=0, max_size=2)
    running = [shop.ask("db"), shop.ask("db")]
    shop.born(), shop.born()
    shop.supply("web", max_size=2)
    shop.update("db", filter=lambda info: info.id == 1, extra="red")
    picky = shop.ask("db", filter=lambda info: info.extra == "red")
    other = shop.ask("web")
    late = shop.ask("db")
    shop.answer(running[1])
    shop.settle()
    assert granted(other)
    assert queued(picky)
    assert queued(late)


def test_a_conn_that_has_just_come_back_is_not_taken_for_an_idle_one() -> None:
    """At the instant of its return another conn's rest ends, and a third resource is told that
    there may be room."""
    shop = Workshop(max_size=2)
    shop.supply("db", max_size=1)
    running = shop.ask("db")
    made = shop.born()
    first = shop.ask("db")
    resting = shop.conn("elsewhere", rest=5.0)
    shop.supply("web", max_size=1)
    shop.now = 1.0
    other = shop.ask("web")
    shop.now = 5.0
    shop.answer(running)
    assert resting.state is State.READY
    assert holder(first) is made
    assert queued(other)


def test_a_conn_gives_way_for_nobody_whom_the_supply_could_not_serve() -> None:
    """He waits for a conn put in by hand, and another one of the supply is of no use to him."""
    shop = Workshop(max_size=3)
    shop.supply("web", max_size=2)
    mine = shop.ask("web")
    shop.make(shop.opening(), methods=("m",))
    shop.conn("web", methods=["n"])
    busy = shop.ask("web", "n")
    shop.supply("db", max_size=1)
    running = shop.ask("db")
    made = shop.born()
    wish = shop.ask("web")
    waiting = shop.ask("web", "n")
    shop.cancel(wish)
    shop.answer(running)
    assert made.state is State.READY
    assert queued(waiting)
    shop.answer(busy)
    assert granted(waiting)
    shop.answer(mine)


def test_a_conn_gives_way_for_nobody_who_has_one_on_its_way() -> None:
    """Another one was wanted, but who wanted it has left."""
    shop = Workshop(max_size=2)
    shop.supply("db", max_size=1)
    running = shop.ask("db")
    made = shop.born()
    shop.supply("web", max_size=2)
    waiting, gone = shop.ask("web"), shop.ask("web")
    shop.cancel(gone)
    shop.answer(running)
    assert made.state is State.READY
    shop.born()
    assert granted(waiting)


def test_a_hungry_resource_that_has_more_does_not_hide_one_that_has_less() -> None:
    """It has waited longest, and gets nothing from one that is smaller; the next one does."""
    shop = Workshop(max_size=4)
    shop.supply("big", max_size=5)
    big = [shop.ask("big"), shop.ask("big")]
    shop.born(), shop.born()
    shop.supply("mid", max_size=2)
    running = [shop.ask("mid"), shop.ask("mid")]
    shop.born(), shop.born()
    shop.supply("new", max_size=1)
    most, least, own = shop.ask("big"), shop.ask("new"), shop.ask("mid")
    shop.answer(running[0])
    shop.settle()
    assert granted(least)
    assert queued(most)
    assert queued(own)
    for ticket in (*big, running[1]):
        shop.answer(ticket)


def test_a_resource_that_starves_itself_gives_way_all_the_same() -> None:
    """Who has waited longest there cannot use the conn, and who could has come last of all."""
    shop = Workshop(max_size=2)
    shop.supply("db", max_size=3)
    running = [shop.ask("db"), shop.ask("db")]
    one = shop.born()
    shop.born()
    shop.update("db", filter=lambda info: info.id == one.id, extra="red")
    picky = shop.ask("db", filter=lambda info: info.extra == "red")
    shop.supply("web", max_size=1)
    other, late = shop.ask("web"), shop.ask("db")
    shop.answer(running[1])
    shop.settle()
    assert granted(other)
    assert queued(picky)
    assert queued(late)


def test_two_conns_do_not_give_way_for_one_caller() -> None:
    """The first has made room for him; what he waits for is a slot."""
    shop = Workshop(max_size=3, max_connecting=1)
    shop.supply("db", max_size=2)
    running = [shop.ask("db"), shop.ask("db")]
    one, two = shop.born(), shop.born()
    shop.supply("web", max_size=2)
    first, second = shop.ask("web"), shop.ask("web")
    opening = shop.opening()
    shop.core._starved[shop.core.supply_of("web")] = None  # as if it had been asked with a slot
    shop.core.in_turn = True
    shop.answer(running[0])
    shop.answer(running[1])
    assert [one.state, two.state] == [State.DRAINING, State.READY]
    shop.make(opening)
    shop.born()
    assert granted(first)
    assert granted(second)


def test_a_pop_given_up_after_its_supply_has_ended_leaves_others_be() -> None:
    """The resource has conns that were put in meanwhile, and they can still be had."""
    shop = Workshop()
    shop.supply(max_size=1)
    running = shop.ask("db")
    made = shop.born()
    shop.collects = False
    pop = shop.pop(made)
    shop.core.withdraw("db", shop.now)
    by_hand = shop.conn("db")
    shop.unpop(pop)
    assert holder(shop.ask("db")) is by_hand
    shop.answer(running)


def test_conns_whose_pop_is_given_up_come_back_together() -> None:
    """Before anybody is told that none of them passes his filter."""
    shop = Workshop()
    shop.supply(max_size=2)
    running = [shop.ask("db"), shop.ask("db")]
    one, two = shop.born(), shop.born()
    shop.collects = False
    pop = shop.pop(one, two)
    waiting = shop.ask("db", filter=lambda info: info.id == two.id)
    assert queued(waiting)
    shop.unpop(pop)
    assert queued(waiting)
    shop.answer(running[1])
    assert holder(waiting) is two


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
    lost = bench.lease(whole=False, who=thread)
    call = bench.ask(who=7)
    if ended == "answered":
        bench.answer(call)
    else:
        bench.end(call, KeyError("no harm"))
    thread.lives = False
    bench.forsake(lost)
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


def test_of_those_who_use_a_kept_conn_and_wait_the_first_has_more_of_it_first() -> None:
    """Whoever has his place for longer, and no more of them than there are places."""
    bench = Bench()
    bench.conn(capacity=4)
    bench.lease(whole=False, who="ann"), bench.lease(whole=False, who="bob")
    users = [bench.ask(), bench.ask()]
    wanted = bench.lease()
    first, second = bench.ask(who="bob"), bench.ask(who="ann")
    bench.answer(users[0])
    assert granted(first)
    assert queued(second)
    assert queued(wanted)
    bench.answer(users[1])
    assert granted(second)


def test_an_interrupt_while_one_is_asked_who_uses_a_kept_conn_is_the_interrupts() -> None:
    """It is not taken for an error of his filter, and nothing is lost by it."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    struck: list[bool] = []

    def anything(info: Any) -> bool:
        if struck:
            raise KeyboardInterrupt
        return True

    own, other, last = bench.lease(whole=False, who="ann"), bench.ask(), bench.ask()
    wanted, more = bench.lease(), bench.ask(who="ann", filter=anything)
    struck.append(True)
    with pytest.raises(KeyboardInterrupt):
        bench.answer(other)
    assert queued(more)
    struck.clear()
    bench.answer(last)
    assert holder(more) is entry
    bench.answer(more)
    bench.release(own)
    assert holder(wanted) is entry
