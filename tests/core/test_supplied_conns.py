"""Conns that the pool makes by itself: how many, when, and what becomes of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Backoff, Supply, Work, of_error
from connpool.core.supply import WANTED
from connpool.errors import FilterError, InitError, NestedCall, PoolClosed, ResourceError
from tests.core.bench import error_of, granted, holder, queued
from tests.core.making import Made, Workshop

# -- how many --------------------------------------------------------------------------------------


def test_none_is_made_before_it_is_needed() -> None:
    """min_size is 0."""
    bench = Workshop()
    bench.supply()
    assert not bench.permits
    waiting = bench.ask("db")
    assert queued(waiting)
    entry = bench.born()
    assert holder(waiting) is entry


def test_the_least_is_kept_ready() -> None:
    """As many at once as there are slots."""
    bench = Workshop(max_connecting=2)
    bench.supply(min_size=3)
    assert len(bench.permits) == 2
    bench.settle()
    assert bench.alive() == 3
    assert bench.core.ready(bench.now)


def test_no_more_are_made_than_the_most() -> None:
    """Those that are being opened count."""
    bench = Workshop(max_connecting=9)
    bench.supply(max_size=3)
    callers = [bench.ask("db") for _ in range(9)]
    assert len(bench.permits) == 3
    bench.settle()
    assert [granted(caller) for caller in callers] == [True] * 3 + [False] * 6


def test_a_caller_gets_what_comes_first_new_or_returned() -> None:
    """Nobody is tied to the conn that was begun for him."""
    bench = Workshop()
    bench.supply(min_size=1)
    bench.settle()
    first = bench.ask("db")
    second = bench.ask("db")
    permit = bench.opening()
    bench.answer(first)
    assert holder(second).id == 1
    bench.make(permit)
    assert bench.alive() == 2


def test_a_burst_opens_only_a_few() -> None:
    """50 callers, each served in no time, and openings take long."""
    bench = Workshop(max_connecting=2)
    bench.supply(min_size=5, max_size=50)
    bench.settle()
    callers = [bench.ask("db") for _ in range(50)]
    for caller in callers:
        bench.answer(caller)
    bench.settle()
    assert bench.alive() <= 8


def test_slots_are_shared_in_the_order_asked_for() -> None:
    """Between supplies, and with conns that are revived."""
    bench = Workshop(max_connecting=1)
    line = bench.conn("line", revive=True)
    caller = bench.ask("line")
    bench.supply("a", min_size=1)
    bench.supply("b", min_size=1)
    bench.end(caller, OSError("torn"))
    bench.closed(bench.closing())
    order = []
    while bench.permits:
        permit = bench.opening()
        order.append(permit.resource or permit.entry.id)
        if permit.make is None:
            bench.opened(permit)
        else:
            bench.make(permit)
    assert order == ["a", "b", line.id]


def test_a_method_that_its_conns_have_not_asks_for_none() -> None:
    """Once it is known what they have."""
    bench = Workshop()
    bench.supply()
    lost = bench.ask("db", "other")
    bench.born()
    assert isinstance(error_of(lost), LookupError)
    assert granted(bench.ask("db", ANY))


def test_a_filter_that_no_conn_passes_is_not_waited_for() -> None:
    """Another of their kind would not pass either."""
    bench = Workshop()
    bench.supply(min_size=1, extra="red")
    bench.settle()
    with pytest.raises(FilterError):
        bench.ask("db", filter=lambda info: info.extra == "blue")


def test_a_nested_call_may_wait_for_one_that_can_be_made() -> None:
    """And is refused once no more can be."""
    bench = Workshop()
    bench.supply(max_size=2)
    bench.ask("db", who="ann")
    bench.born()
    assert queued(bench.ask("db", who="ann"))
    bench.born()
    with pytest.raises(NestedCall):
        bench.ask("db", who="ann")


@pytest.mark.parametrize(
    ("known", "kind", "words"),
    [
        ({"min_size": -1}, ValueError, "min_size: expected a whole number from 0 up, got -1"),
        ({"max_size": 0}, ValueError, "max_size: expected a whole number from 1 up, got 0"),
        ({"max_size": None}, TypeError, "max_size: expected a whole number"),
        ({"min_size": 3, "max_size": 2}, ValueError, "min_size: expected at most max_size, 2"),
        ({"min_size": "x"}, TypeError, "min_size: expected a whole number"),
        ({"factory": 7}, TypeError, "factory: expected a function, got 7"),
        ({"max_idle": -1}, ValueError, "max_idle: expected seconds"),
        ({"connect_timeout": "x"}, TypeError, "connect_timeout: expected seconds"),
        ({"ping_interval": 0}, ValueError, "ping_interval: expected more than 0 seconds, got 0"),
        ({"ttl": -1}, ValueError, "ttl: expected seconds"),
        ({"revive": "yes"}, ValueError, "revive: expected False, True"),
    ],
)
def test_wrong_arguments_are_told(known: dict[str, Any], kind: type[Exception], words: str) -> None:
    """What was expected and what came; nothing is supplied."""
    bench = Workshop()
    with pytest.raises(kind, match=words):
        bench.supply(**known)
    assert not bench.core.listings()


def test_no_limit_is_none() -> None:
    """For all that is a time."""
    supply = Supply("db", Made, max_idle=None, connect_timeout=None, ping_interval=None)
    assert supply.max_idle == supply.connect_timeout == supply.ping_interval == math.inf


def test_a_second_supply_for_a_resource_is_refused() -> None:
    """The first goes on."""
    bench = Workshop()
    bench.supply(min_size=1)
    with pytest.raises(ValueError, match="has a supply for 'db' already"):
        bench.supply()
    bench.settle()
    assert bench.alive() == 1


def test_a_closed_pool_takes_no_supply() -> None:
    """And opens no more conns of one that it has."""
    bench = Workshop()
    bench.supply(min_size=2)
    bench.close()
    for permit in [bench.opening(), bench.opening()]:
        assert bench.make(permit) is None
    assert len([permit for permit in bench.permits if permit.work is Work.CLOSE]) == 2
    with pytest.raises(PoolClosed):
        bench.supply("other")


# -- failures --------------------------------------------------------------------------------------


def test_after_a_failure_one_is_tried_at_a_time() -> None:
    """With growing pauses, until one goes well."""
    bench = Workshop(max_connecting=4)
    supply = bench.supply(min_size=4)
    for _ in range(4):
        bench.failed(bench.opening())
    begun = 0
    while begun < 3:
        due = bench.core.next_due()
        assert due is not None
        bench.at(due)
        if bench.permits:
            assert len(bench.permits) == 1
            bench.failed(bench.opening())
            begun += 1
    assert bench.now > 3
    bench.at(supply.retry_at)
    bench.born()
    bench.settle()
    assert bench.alive() == 4


def test_while_somebody_waits_pauses_stay_short() -> None:
    """Nobody is given up, and nothing is tried in a loop."""
    bench = Workshop(backoff=Backoff(first=60, jitter=0))
    supply = bench.supply(min_size=1)
    bench.failed(bench.opening(), OSError("away"))
    assert supply.retry_at == 60
    waiting = bench.ask("db")
    assert supply.retry_at == WANTED
    tries = 0
    while bench.now < 100:
        due = bench.core.next_due()
        assert due is not None
        assert due > bench.now
        bench.at(due)
        while bench.permits:
            bench.failed(bench.opening())
            tries += 1
    assert 40 <= tries <= 51
    bench.at(supply.retry_at)
    entry = bench.born()
    assert holder(waiting) is entry


def test_who_waited_in_vain_is_told_the_last_failure() -> None:
    """As the cause of the timeout."""
    bench = Workshop()
    bench.supply()
    waiting = bench.ask("db", timeout=5)
    away = OSError("away")
    bench.failed(bench.opening(), away)
    assert bench.core.last_failure() is away
    bench.at(5)
    assert error_of(waiting).__cause__ is away


def test_never_again_ends_the_waiting_at_once() -> None:
    """For all, with that as the cause, and nothing more is tried."""
    bench = Workshop()
    bench.supply(min_size=1)
    waiting = [bench.ask("db"), bench.ask("db", ANY)]
    gone = InitError("no such account", retry_after=math.inf)
    while bench.permits:
        bench.failed(bench.opening(), gone)
    assert [error_of(ticket).__cause__ for ticket in waiting] == [gone, gone]
    with pytest.raises(ResourceError):
        bench.ask("db")
    with pytest.raises(ResourceError, match="cannot be opened") as caught:
        bench.core.ready(bench.now)
    assert caught.value.__cause__ is gone


def test_a_hung_opening_is_given_up_and_others_go_on() -> None:
    """If it ever succeeds, it is closed."""
    bench = Workshop(max_connecting=1)
    supply = bench.supply(connect_timeout=3.0)
    waiting = bench.ask("db")
    hung = bench.opening()
    bench.at(3)
    assert supply.failures == 1
    bench.at(supply.retry_at)
    entry = bench.born()
    assert holder(waiting) is entry
    assert bench.make(hung) is None
    late = bench.closing()
    assert late.info is None
    bench.closed(late)
    assert bench.alive() == 1


def test_a_hung_opening_that_fails_in_the_end_is_no_second_failure() -> None:
    """It was counted when it was given up."""
    bench = Workshop()
    supply = bench.supply(min_size=1, connect_timeout=3.0)
    hung = bench.opening()
    bench.at(3)
    bench.failed(hung)
    assert supply.failures == 1


def test_a_factory_that_gives_the_same_conn_twice_is_wrong() -> None:
    """That is an opening that failed."""
    bench = Workshop()
    one = Made()
    bench.supply(factory=lambda: one, min_size=2)
    bench.born()
    with pytest.raises(ValueError, match="factory: expected a new conn each time"):
        bench.core.adopt(bench.opening(), one)


# -- ends ------------------------------------------------------------------------------------------


def test_a_conn_that_died_is_replaced_at_once() -> None:
    """As long as the supply is to keep its size."""
    bench = Workshop()
    bench.supply()
    caller = bench.ask("db")
    bench.born()
    bench.end(caller, OSError("torn"))
    assert [permit.work for permit in bench.permits] == [Work.CLOSE, Work.OPEN]


@pytest.mark.parametrize(("revive", "replaced"), [(False, False), (True, False), ("force", True)])
def test_one_that_ended_in_good_order_is_replaced_only_by_force(
    revive: Any, replaced: bool
) -> None:
    """It was done."""
    bench = Workshop()
    bench.supply(revive=revive)
    caller = bench.ask("db")
    bench.born()
    bench.end(caller, Reply(None, closed=True))
    bench.closed(bench.closing())
    assert bool(bench.permits) is replaced


def test_conns_born_together_do_not_die_together() -> None:
    """No tenth of the spread sees more than a quarter of them expire, and none lives too long."""
    bench = Workshop(max_connecting=100)
    chances = iter([n * 0.618 % 1 for n in range(1000)])
    bench.chances = chances  # type: ignore[assignment]
    bench.supply(min_size=100, max_size=100, ttl=100)
    bench.settle()
    ends = [info.ttl for info in bench.core.infos(None, 0.0)]
    assert all(75 <= (end or 0) <= 100 for end in ends)
    for tenth in range(10):
        low = 75 + 2.5 * tenth
        assert sum(low <= (end or 0) < low + 2.5 for end in ends) <= 25


def test_idle_conns_leave_down_to_the_least() -> None:
    """One that was used meanwhile stays for longer."""
    bench = Workshop()
    bench.supply(min_size=1, max_idle=60)
    callers = [bench.ask("db") for _ in range(3)]
    bench.settle()
    for caller in callers:
        bench.answer(caller)
    for now in (60, 61, 75, 90, 200):
        bench.at(now)
        bench.settle()
    assert bench.alive() == 1
    assert bench.core.stats(bench.now).since_start.ended["idle"] == 2


def test_a_conn_in_use_is_not_idle() -> None:
    """However long."""
    bench = Workshop()
    bench.supply(max_idle=60)
    caller = bench.ask("db")
    bench.born()
    bench.at(100)
    assert holder(caller).in_use
    assert bench.alive() == 1


def test_a_supply_of_another_size() -> None:
    """Larger: more are made.  Smaller: those that idle leave, the others when they do."""
    bench = Workshop(max_connecting=9)
    bench.supply(max_size=4)
    callers = [bench.ask("db") for _ in range(4)]
    bench.settle()
    bench.answer(callers[0])
    bench.core.resize("db", 1, 2, bench.now)
    bench.look()
    bench.settle()
    assert bench.alive() == 2
    for caller in callers[1:]:
        bench.answer(caller)
    bench.core.resize("db", 3, 5, bench.now)
    bench.core.resize("db", None, None, bench.now)
    bench.look()
    bench.settle()
    assert bench.alive() == 3
    with pytest.raises(ResourceError, match="has no supply for 'x'"):
        bench.core.resize("x", 1, 2, bench.now)


def test_resizing_stops_where_enough_have_left() -> None:
    """Not all that idle have to go."""
    bench = Workshop(max_connecting=9)
    bench.supply(min_size=4)
    bench.settle()
    bench.core.resize("db", 0, 3, bench.now)
    bench.look()
    bench.settle()
    assert bench.alive() == 3


def test_a_withdrawn_supply_lets_its_conns_go() -> None:
    """The idle ones at once, those in use later, those being opened when they come."""
    bench = Workshop(max_connecting=9)
    bench.supply(min_size=2)
    bench.settle()
    used, other = bench.ask("db"), bench.ask("db")
    bench.answer(other)
    bench.ask("db")
    waiting = bench.ask("db")
    unborn = bench.opening()
    bench.core.withdraw("db", bench.now)
    bench.look()
    assert isinstance(error_of(waiting), ResourceError)
    assert bench.make(unborn) is None
    bench.answer(used)
    while bench.permits:
        bench.closed(bench.closing())
    with pytest.raises(ResourceError):
        bench.core.withdraw("db", bench.now)


def test_drained_conns_are_replaced_as_needed() -> None:
    """Those that are revived too: they do not come back."""
    bench = Workshop()
    bench.supply(min_size=1)
    bench.settle()
    by_hand = bench.conn("line", revive=True)
    found = bench.core.search("db", None, bench.now)
    assert bench.core.let_go([*found, by_hand], bench.now) == 2
    assert bench.core.let_go([by_hand], bench.now) == 0
    bench.look()
    bench.settle()
    assert bench.alive() == 1
    assert bench.alive("line") == 0


def test_a_popped_conn_makes_room_for_another() -> None:
    """It is no longer the supply's."""
    bench = Workshop()
    bench.supply(min_size=1, max_size=1)
    bench.settle()
    (entry,) = bench.core.search("db", None, bench.now)
    bench.pop(entry)
    bench.settle()
    assert bench.alive() == 1


# -- a full pool -----------------------------------------------------------------------------------


def test_an_idle_conn_of_another_supply_gives_way() -> None:
    """The longest idle of the one that has most."""
    bench = Workshop(max_size=3)
    bench.supply("a", min_size=1)
    callers = [bench.ask("a") for _ in range(3)]
    bench.settle()
    for caller in callers:
        bench.answer(caller)
    bench.supply("b")
    waiting = bench.ask("b")
    bench.settle()
    assert granted(waiting)
    assert (bench.alive("a"), bench.alive("b")) == (2, 1)


def test_of_supplies_that_have_as_many_the_longest_idle_conn_gives_way() -> None:
    """Not the oldest: with many resources that would be one that everybody asks for."""
    bench = Workshop(max_size=3)
    for resource in "abcd":
        bench.supply(resource)
    for now, resource in enumerate("abca", start=1):
        bench.now = float(now)
        caller = bench.ask(resource)
        bench.settle()
        bench.answer(caller)
    waiting = bench.ask("d")
    bench.settle()
    assert granted(waiting)
    assert [bench.alive(resource) for resource in "abcd"] == [1, 0, 1, 1]


def test_a_conn_that_is_free_again_goes_to_who_waited_longer_elsewhere() -> None:
    """A busy resource does not keep all conns for ever, and none is taken back and forth."""
    bench = Workshop(max_size=2)
    bench.supply("a")
    bench.supply("b")
    first, second = bench.ask("a"), bench.ask("a")
    bench.settle()
    starving = bench.ask("b")
    later = bench.ask("a")
    assert not bench.permits
    bench.answer(first)
    bench.settle()
    assert granted(starving)
    assert queued(later)
    bench.ask("b")
    bench.answer(second)
    assert granted(later)
    assert (bench.alive("a"), bench.alive("b")) == (1, 1)


def test_a_conn_that_nobody_waits_for_goes_to_who_starves() -> None:
    """Even where its supply has no more conns than the other."""
    bench = Workshop(max_size=2)
    bench.supply("a")
    bench.supply("b")
    first, second = bench.ask("a"), bench.ask("b")
    bench.settle()
    starving = bench.ask("b")
    bench.answer(first)
    bench.settle()
    assert granted(starving)
    bench.answer(second)


def test_conns_by_hand_and_those_of_the_least_do_not_give_way() -> None:
    """They were asked for."""
    bench = Workshop(max_size=2)
    line = bench.conn("line")
    bench.supply("a", min_size=1)
    bench.settle()
    bench.supply("b")
    starving = bench.ask("b")
    bench.answer(bench.ask("line"))
    bench.answer(bench.ask("a"))
    assert queued(starving)
    assert not bench.permits
    bench.cancel(starving)
    bench.answer(bench.ask("a"))
    bench.core.withdraw("b", bench.now)
    bench.answer(bench.ask("a"))
    bench.pop(line)
    bench.settle()
    assert bench.alive("a") == 1


# -- checks ----------------------------------------------------------------------------------------


def test_an_idle_conn_is_asked_whether_it_is_well() -> None:
    """It is not lent meanwhile; each is asked a little earlier than it might be."""
    bench = Workshop()
    bench.supply(min_size=1, ping_interval=10)
    entry = bench.born(checks=True)
    bench.at(10)
    permit = bench.next(Work.CHECK)
    assert bench.info(entry).state == "checking"
    waiting = bench.ask("db")
    assert queued(waiting)
    bench.checked(permit)
    assert granted(waiting)


def test_a_conn_that_is_not_well_is_dead() -> None:
    """And replaced."""
    bench = Workshop()
    bench.supply(min_size=1, ping_interval=10)
    entry = bench.born(checks=True)
    bench.at(10)
    bench.checked(bench.next(Work.CHECK), OSError("torn"))
    bench.settle()
    assert entry.id not in bench.core.entries
    assert bench.alive() == 1


def test_a_check_that_hangs_is_an_answer() -> None:
    """What it says later counts no more."""
    bench = Workshop(connect_timeout=5)
    bench.supply(min_size=1, ping_interval=10)
    entry = bench.born(checks=True)
    bench.at(10)
    permit = bench.next(Work.CHECK)
    bench.at(15)
    assert bench.core.stats(15).since_start.ended == {"dead": 1}
    bench.checked(permit)
    bench.settle()
    assert entry.id not in bench.core.entries


def test_a_conn_that_expires_while_it_is_asked_leaves_when_it_has_answered() -> None:
    """Or when it has hung for too long."""
    bench = Workshop(connect_timeout=5)
    for resource in ("a", "b"):
        bench.supply(resource, min_size=1, ping_interval=10, ttl=12)
        bench.born(checks=True)
    bench.at(10)
    answers, _ = bench.next(Work.CHECK), bench.next(Work.CHECK)
    bench.at(12)
    assert not [permit for permit in bench.permits if permit.work is Work.CLOSE]
    bench.checked(answers)
    assert bench.closing().entry is answers.entry
    bench.at(15)
    assert bench.closing().entry is not answers.entry


def test_a_conn_popped_while_it_is_asked_is_handed_over_afterwards() -> None:
    """And where the pop is given up, it is being asked still."""
    bench = Workshop()
    bench.supply(min_size=1, ping_interval=10)
    entry = bench.born(checks=True)
    bench.at(10)
    permit = bench.next(Work.CHECK)
    pop = bench.pop(entry)
    assert not pop.done
    bench.unpop(pop)
    assert bench.info(entry).state == "checking"
    pop = bench.pop(entry)
    bench.checked(permit)
    assert pop.done


def test_one_that_is_popped_while_it_is_asked_is_replaced_at_once() -> None:
    """The answer may be long in coming, and its place is no longer taken."""
    bench = Workshop(max_connecting=1)
    bench.supply(min_size=1, max_size=2, ping_interval=10)
    entry = bench.born(checks=True)
    bench.at(10.0)
    assert bench.next(Work.CHECK).entry is entry
    bench.pop(entry)
    assert bench.opening().entry is not entry


def test_when_a_conn_dies_its_idle_peers_are_asked_once() -> None:
    """Before they are lent; 20 dead conns cost the next caller one reconnect."""
    bench = Workshop(max_connecting=1)
    bench.supply(min_size=20, max_size=20)
    for _ in range(20):
        bench.born(checks=True)
    bench.end(bench.ask("db"), OSError("torn"))
    checks = [permit for permit in bench.permits if permit.work is Work.CHECK]
    assert len(checks) == 19
    waiting = bench.ask("db")
    assert queued(waiting)
    for permit in checks:
        bench.permits.remove(permit)
        bench.checked(permit, OSError("torn too"))
    openings = [permit for permit in bench.permits if permit.work is Work.OPEN]
    assert len(openings) == 1
    bench.make(openings[0])
    assert granted(waiting)


def test_peers_that_cannot_be_asked_are_retired_together() -> None:
    """Where the peer is lost for sure; a call that took too long is no sign of that."""
    bench = Workshop(max_connecting=9)
    bench.supply(min_size=4)
    bench.settle()
    bench.end(bench.ask("db"), TimeoutError())
    assert bench.alive() == 3
    busy = bench.ask("db")
    bench.end(bench.ask("db"), ConnectionResetError())
    assert bench.alive() == 1
    assert holder(busy).in_use
    assert bench.core.stats(0.0).since_start.ended == {"dead": 2, "suspect": 1}


def test_conns_that_die_young_make_no_loop() -> None:
    """The first is replaced at once, then pauses grow; one that has answered begins anew."""
    bench = Workshop()
    bench.supply()
    for _ in range(4):
        caller = bench.ask("db")
        while queued(caller):
            due = bench.core.next_due()
            if not bench.permits:
                assert due is not None
                bench.at(due)
            bench.settle()
        bench.end(caller, OSError("torn"))
    assert bench.now >= 2
    bench.settle()
    while not bench.alive():
        due = bench.core.next_due()
        assert due is not None
        bench.at(due)
        bench.settle()
    began = bench.now
    bench.answer(bench.ask("db"))
    bench.end(bench.ask("db"), OSError("torn"))
    bench.settle()
    assert bench.alive() == 1
    assert bench.now == began


def test_one_accident_counts_once() -> None:
    """Young conns that were alive when the first one died."""
    bench = Workshop()
    supply = bench.supply(min_size=3, max_size=3)
    bench.settle()
    callers = [bench.ask("db") for _ in range(3)]
    bench.at(0.5)
    for caller in callers:
        bench.end(caller, TimeoutError())
    assert supply.young <= 1


def test_a_conn_that_has_rested_may_be_what_another_waits_for() -> None:
    """Whoever starves is asked again whenever something is free."""
    bench = Workshop(max_size=1)
    line = bench.conn("line")
    bench.supply("b")
    starving = bench.ask("b")
    bench.end(bench.ask("line"), Reply(None, cooldown=5))
    bench.at(5)
    assert queued(starving)
    bench.pop(line)
    bench.settle()
    assert granted(starving)


def test_what_is_revived_or_popped_is_let_go_as_well() -> None:
    """It does not come back, should the pop be given up."""
    bench = Workshop()
    dead, popped = bench.conn("line", revive=True), bench.conn("line")
    for _ in range(2):
        bench.ask("line")
    bench.core.conclude(dead, "m", 1, _torn(), 0.0, 0.0)
    pop = bench.pop(popped)
    assert bench.core.let_go([dead], bench.now) == 1
    bench.look()
    bench.core._dismiss(popped, bench.now)
    bench.unpop(pop)
    assert bench.alive("line") == 0


def _torn() -> Any:
    return of_error(OSError("torn"), False)


def test_a_pool_is_not_ready_before_each_supply_is() -> None:
    """And then it is; nothing has failed."""
    bench = Workshop()
    bench.supply("a", min_size=1)
    bench.supply("b")
    assert not bench.core.ready(bench.now)
    bench.settle()
    assert bench.core.ready(bench.now)
    assert bench.core.last_failure() is None


def test_who_starves_alone_is_not_given_its_own_conn() -> None:
    """A conn of its own supply serves it anyway."""
    bench = Workshop(max_size=1)
    bench.supply("a", max_size=3)
    first, second = bench.ask("a"), bench.ask("a")
    bench.settle()
    bench.answer(first)
    assert granted(second)


def test_whoever_waited_less_does_not_take_a_conn_away() -> None:
    """First come, first served, between resources as well."""
    bench = Workshop(max_size=2)
    bench.supply("a", max_size=2)
    bench.supply("b")
    running = [bench.ask("a"), bench.ask("a")]
    bench.settle()
    own, other = bench.ask("a"), bench.ask("b")
    bench.answer(running[0])
    assert granted(own)
    assert queued(other)


def test_a_conn_that_is_leaving_already_is_left_alone() -> None:
    """It goes when its call has ended."""
    bench = Workshop()
    bench.supply()
    caller = bench.ask("db")
    bench.born()
    bench.core.let_go([holder(caller)], bench.now)
    bench.core.withdraw("db", bench.now)
    bench.look()
    bench.answer(caller)
    bench.closed(bench.closing())
    assert not bench.core.entries


def test_a_supply_that_is_over_still_lends_what_it_has() -> None:
    """Whoever waits for that waits on."""
    bench = Workshop()
    bench.supply()
    first = bench.ask("db")
    bench.born()
    second = bench.ask("db")
    bench.failed(bench.opening(), InitError("no more", retry_after=math.inf))
    third = bench.ask("db")
    bench.answer(first)
    assert granted(second)
    assert queued(third)


def test_the_end_of_the_pool_is_the_end_of_its_supplies() -> None:
    """Beside conns that were put in by hand."""
    bench = Workshop()
    bench.conn("line")
    bench.supply(min_size=1)
    bench.settle()
    bench.close()
    bench.settle()
    assert not bench.core.entries
    assert bench.core.next_due() is None
