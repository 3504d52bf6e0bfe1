"""Supplies in bad company: hung openings, full pools, factories that misbehave, and the close."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.core import Work
from connpool.errors import Closed, PoolFull
from tests.core.bench import error_of, granted, holder, queued
from tests.core.making import Made, Workshop


def full(size: int = 1, **options: Any) -> Workshop:
    """A pool that holds no more than `size`, with supplies `a` and `b`."""
    bench = Workshop(max_size=size, **options)
    bench.supply("a")
    bench.supply("b")
    return bench


# -- slots -----------------------------------------------------------------------------------------


def test_a_hung_opening_of_a_withdrawn_supply_holds_no_slot() -> None:
    """It may hang for ever, and nobody waits for it; it is closed if it ever succeeds."""
    bench = Workshop(max_connecting=1)
    bench.supply(connect_timeout=None)
    bench.ask("db")
    hung = bench.opening()
    bench.core.withdraw("db", bench.now)
    bench.look()
    bench.supply("other")
    waiting = bench.ask("other")
    bench.born()
    assert granted(waiting)
    assert bench.make(hung) is None
    assert bench.closing().entry is hung.entry


def test_a_supply_made_smaller_gives_up_what_is_not_born_yet() -> None:
    """Rather than conns that are there; their slots are free again."""
    bench = Workshop(max_connecting=2)
    bench.supply(min_size=2, max_size=4)
    bench.settle()
    callers = [bench.ask("db") for _ in range(4)]
    unborn = [bench.opening(), bench.opening()]
    bench.core.resize("db", 0, 2, bench.now)
    bench.look()
    assert bench.alive() == 2
    for permit in unborn:
        assert bench.make(permit) is None
    assert [granted(caller) for caller in callers] == [True, True, False, False]
    bench.answer(callers[0])
    assert granted(callers[2])


def test_a_conn_that_expires_in_use_is_replaced_at_once() -> None:
    """Where there is room: nobody need wait for the call on it."""
    bench = Workshop()
    bench.supply(max_size=2, ttl=5.0)
    running = bench.ask("db")
    bench.born()
    bench.at(5.0)
    waiting = bench.ask("db")
    bench.born()
    assert granted(waiting)
    bench.answer(running)
    assert bench.closing().entry is running.entry


# -- a full pool -----------------------------------------------------------------------------------


def test_a_withdrawn_supply_starves_no_more() -> None:
    """A conn that is returned afterwards goes to who waits for it."""
    bench = full()
    running = bench.ask("a")
    bench.born()
    hopeful = bench.ask("b")
    bench.core.withdraw("b", bench.now)
    bench.look()
    assert isinstance(error_of(hopeful), LookupError)
    waiting = bench.ask("a")
    bench.answer(running)
    assert granted(waiting)


def test_the_room_of_one_that_gives_way_is_for_who_starved() -> None:
    """Not for another conn of its own supply, which has callers too."""
    bench = full(2)
    running = [bench.ask("a"), bench.ask("a")]
    bench.settle()
    starving = bench.ask("b")
    late = bench.ask("a")
    bench.answer(running[0])
    assert queued(late)
    assert bench.opening().resource == "b"
    assert bench.next(Work.CLOSE).entry is running[0].entry
    bench.answer(running[1])
    assert granted(late)
    assert queued(starving)


def test_one_that_was_opened_for_nobody_gives_way() -> None:
    """Its caller has left: it idles, and another supply starves."""
    bench = full()
    gone = bench.ask("a")
    permit = bench.opening()
    waiting = bench.ask("b")
    bench.cancel(gone)
    bench.make(permit)
    bench.settle()
    assert granted(waiting)


def test_one_that_is_well_after_all_gives_way() -> None:
    """While it was asked nobody could have it."""
    bench = full()
    bench.core.withdraw("a", bench.now)
    bench.supply("a", min_size=0, ping_interval=1.0)
    caller = bench.ask("a")
    bench.born(checks=True)
    bench.answer(caller)
    bench.at(1.0)
    check = bench.next(Work.CHECK)
    waiting = bench.ask("b")
    assert queued(waiting)
    bench.checked(check)
    bench.settle()
    assert granted(waiting)


def test_a_conn_by_hand_that_could_not_be_opened_leaves_its_room() -> None:
    """To who starves, at once."""
    bench = full()
    permit = bench.admit("c")
    waiting = bench.ask("b")
    assert not bench.permits
    bench.failed(permit)
    bench.born()
    assert granted(waiting)


def test_a_close_that_hangs_does_not_keep_others_hungry() -> None:
    """What only waits to be closed takes no room."""
    bench = full()
    bench.conn("c")
    running = bench.ask("c")
    waiting = bench.ask("b")
    bench.end(running, OSError("torn"))
    assert bench.next(Work.CLOSE).entry is running.entry
    bench.born()
    assert granted(waiting)


def test_the_least_of_a_supply_comes_though_nobody_waits() -> None:
    """A conn that is returned in passing tells nobody: it is looked for again, soon."""
    bench = Workshop(max_size=1)
    bench.supply("a")
    caller = bench.ask("a")
    bench.born()
    bench.supply("b", min_size=1)
    bench.answer(caller)
    bench.at(2.0)
    bench.settle()
    assert bench.alive("b") == 1
    assert bench.core.ready(bench.now)


def test_smaller_least_lets_idle_conns_give_way() -> None:
    """They were kept for nobody."""
    bench = Workshop(max_size=1)
    bench.supply("a", min_size=1)
    bench.settle()
    bench.supply("b")
    waiting = bench.ask("b")
    assert queued(waiting)
    bench.core.resize("a", 0, None, bench.now)
    bench.look()
    bench.settle()
    assert granted(waiting)


def test_two_that_starve_do_not_take_a_conn_back_and_forth() -> None:
    """Each caller costs one opening at most, and all are served in order."""
    bench = full()
    order = ["a", "b"] * 10
    callers = [bench.ask(resource) for resource in order]
    served: list[int] = []
    opened = 0
    while len(served) < len(callers):
        while bench.permits:
            permit = bench.permits.pop(0)
            if permit.work is Work.CLOSE:
                bench.closed(permit)
            else:
                opened += 1
                bench.make(permit)
        (running,) = [caller for caller in callers if granted(caller)]
        served.append(callers.index(running))
        bench.answer(running)
    assert served == list(range(20))
    assert opened <= 20


def test_a_pool_full_of_conns_by_hand_says_so_to_who_adds_one() -> None:
    """Conns of a supply that are busy are not pushed out either."""
    bench = full()
    bench.ask("a")
    bench.born()
    with pytest.raises(PoolFull, match="max_size"):
        bench.admit("c")


# -- factories and conns that misbehave ------------------------------------------------------------


def test_a_factory_that_hangs_and_gives_a_conn_in_use_harms_it_not() -> None:
    """It came too late, and would be closed: but it is somebody's."""
    shared = Made()
    bench = Workshop(max_connecting=1)
    bench.supply(factory=lambda: shared, connect_timeout=5.0)
    waiting = bench.ask("db")
    hung = bench.opening()
    bench.at(5.0)
    bench.at(7.0)
    bench.born()
    assert holder(waiting).conn is shared
    with pytest.raises(ValueError, match="factory: expected a new conn each time"):
        bench.make(hung)
    bench.failed(hung)
    assert not bench.permits
    assert granted(waiting)


def test_an_update_of_revive_says_whether_it_is_replaced() -> None:
    """It is not revived besides, or there would be one too many."""
    bench = Workshop()
    bench.supply(max_size=1, revive=False)
    caller = bench.ask("db")
    bench.born()
    bench.answer(caller)
    bench.update("db", revive=True)
    bench.at(bench.now + 50.0)
    bench.end(bench.ask("db"), OSError("torn"))
    bench.settle()
    assert bench.alive() == 1
    assert bench.core.info(2, bench.now).revive is False
    bench.end(bench.ask("db"), OSError("torn"))
    bench.settle()
    assert bench.alive() == 0


def attempts_in(bench: Workshop, seconds: float, end: Any) -> int:
    """How many conns are begun in so many seconds; `end` says what becomes of each."""
    began, until = 0, bench.now + seconds
    while True:
        while bench.permits:
            permit = bench.permits.pop(0)
            began += permit.work is Work.OPEN
            assert began < 10_000, "a busy loop"
            end(permit)
        due = bench.core.next_due()
        if due is None or max(due, bench.now) >= until:
            return began
        bench.at(max(due, bench.now))


def test_refused_at_once_is_no_busy_loop() -> None:
    """200 wait for a server that is down: a probe each two seconds, one at a time."""
    bench = Workshop(max_connecting=9)
    bench.supply(max_size=50)
    callers = [bench.ask("db") for _ in range(200)]
    assert 25 <= attempts_in(bench, 60.0, bench.failed) < 50
    assert all(queued(caller) for caller in callers)


def test_a_ttl_of_nothing_is_no_busy_loop() -> None:
    """Each conn expires as it is born."""
    bench = Workshop()
    bench.supply(min_size=1, ttl=0.0)

    def end(permit: Any) -> None:
        bench.make(permit) if permit.work is Work.OPEN else bench.closed(permit)

    assert 10 < attempts_in(bench, 1.0, end) < 50


def test_conns_that_are_closed_as_they_are_born_are_no_busy_loop() -> None:
    """A call that moves from one to the next, though no time passes between."""
    bench = Workshop()
    bench.supply()
    caller = [bench.ask("db")]

    def end(permit: Any) -> None:
        if permit.work is Work.CLOSE:
            bench.closed(permit)
        else:
            bench.make(permit)
        if granted(caller[0]):
            caller[0] = bench.move(caller[0], Closed())

    assert attempts_in(bench, 20.0, end) < 20
    assert queued(caller[0])


def test_an_idle_conn_stays_until_the_other_is_born() -> None:
    """One that is being opened does not stand in for the least."""
    bench = Workshop()
    bench.supply(min_size=1, max_idle=5.0, connect_timeout=None)
    bench.settle()
    callers = [bench.ask("db"), bench.ask("db")]
    hung = bench.opening()
    for caller in callers:
        bench.answer(caller)
    bench.at(60.0)
    assert bench.alive() == 1
    bench.failed(hung)
    assert bench.alive() == 1


# -- the end ---------------------------------------------------------------------------------------


def test_a_closed_pool_has_no_supplies() -> None:
    """Nothing is due any more, and what is not born yet is closed when it comes."""
    bench = Workshop(max_size=1)
    bench.supply("a", min_size=1)
    bench.supply("b", min_size=1)
    unborn = bench.opening()
    bench.close()
    assert not bench.core.abandon(bench.now)
    assert not bench.core.listings()
    assert bench.core.next_due() is None
    assert bench.make(unborn) is None
    bench.closed(bench.closing())
    assert not bench.core.busy(None)
