"""What threads under a chosen schedule have found in the core, each as the shortest story."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.conn import Description
from connpool.core import Outcome, Standing, State, Ticket, Work
from connpool.core.entry import Entry
from connpool.errors import PoolClosed, PoolTimeout
from tests.core.bench import Bench
from tests.core.making import Workshop


def test_a_pop_that_is_done_is_not_woken_again_by_the_close() -> None:
    """Who pops has been told already, and has not come yet."""
    bench = Bench()
    bench.collects = False
    entry = bench.conn()
    pop = bench.pop(entry)
    assert bench.popped == [pop]
    bench.close()
    assert bench.popped == [pop]
    assert pop.error is not None


def test_a_conn_that_was_given_open_is_not_closed_where_it_comes_too_late() -> None:
    """The pool was closed meanwhile: it is its owner's still."""
    bench = Bench()
    given, made = bench.admit(given=True), bench.admit()
    bench.close()
    assert bench.opened(given) is None
    assert bench.opened(made) is None
    assert [permit.entry for permit in bench.permits] == [made.entry]


def test_a_conn_drained_while_it_is_revived_is_closed_unannounced() -> None:
    """Nobody was told that it is there, so nobody is told that it goes."""
    bench = Bench()
    entry = bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    opening = bench.opening()
    bench.core.let_go([entry], bench.now)
    bench.look()
    assert bench.opened(opening) is None
    assert bench.closing().info is None


def test_a_conn_that_comes_too_late_and_is_held_is_closed_when_it_comes_back() -> None:
    """Its holder had it from before it died."""
    bench = Bench()
    entry = bench.conn(revive=True, ttl=5.0)
    held = bench.ask()
    bench.at(5.0)
    assert entry.state is State.REVIVING
    bench.answer(held)
    bench.closed(bench.closing())
    opening = bench.opening()
    bench.close()
    bench.opened(opening)
    bench.work()
    assert bench.core.entries == {}


def test_a_permit_that_was_given_up_may_come_back_undone() -> None:
    """Nobody had begun with it."""
    shop = Workshop(connect_timeout=1.0)
    shop.supply(min_size=2, max_size=2, ping_interval=100.0)
    one = shop.born(checks=True)
    shop.born(checks=True)
    shop.end(shop.ask("db", filter=lambda info: info.id == one.id), ConnectionError("torn"))
    asked = shop.next(Work.CHECK)
    shop.at(1.0)
    assert asked.given_up
    shop.core.never_done(asked, shop.now)
    shop.look()
    assert asked not in shop.core.permits


def test_a_supply_asked_with_an_older_clock_is_armed_again() -> None:
    """The clock was read before a turn that rang the alarm already."""
    shop = Workshop()
    supply = shop.supply()
    shop.ask("db")
    shop.failed(shop.opening())
    due = supply.retry_at
    shop.core.tick(due)
    shop.core.drain()
    supply.retry_at = due + 1.0  # as if it had been asked before
    shop.core._ask_for_more(supply)
    shop.core._grant_openings(due)
    assert supply.alarm <= due + 1.0


def test_what_a_conn_can_is_remembered() -> None:
    """Each of the three by itself."""
    entry = Entry(1, object(), None, None, False)
    for number in range(8):
        checks, lends, resets = (bool(number & bit) for bit in (1, 2, 4))
        entry.learn(Description("a", ("a",), frozenset(), 1, checks, lends, resets))
        assert (entry.checks, entry.lends, entry.resets) == (checks, lends, resets)


class Watched(Ticket):
    """One whose caller looks at it the moment it is said to be over, outside any turn."""

    __slots__ = ("_standing", "known")

    @property
    def standing(self) -> Standing:
        return self._standing

    @standing.setter
    def standing(self, standing: Standing) -> None:
        self._standing = standing
        if standing in (Standing.GRANTED, Standing.FAILED):
            self.known: Any = self.entry or self.error


def test_who_looks_at_his_ticket_early_finds_all_he_needs() -> None:
    """When it says that it was granted the conn is there, when it failed the error: a thread may
    look in the middle of another one's turn."""
    bench = Bench()
    entry = bench.conn()
    running = bench.ask()
    late, served, failed = (Watched("a", "m", deadline=due) for due in (1.0, 9.0, 9.0))
    for ticket in (late, served, failed):
        bench.submit(ticket)
    bench.at(1.0)
    assert isinstance(late.known, PoolTimeout)
    assert late.known.waiting == 2
    bench.answer(running)
    assert served.known is entry
    bench.close()
    assert isinstance(failed.known, PoolClosed)


class Known:
    """One who makes calls by another name than he holds conns by; equal to it while he is there."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.gone = False

    def __eq__(self, other: object) -> bool:
        return self is other or (not self.gone and other == self.alias)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("way", ["release", "forfeit", "forsake"])
def test_a_place_held_by_one_who_has_called_on_the_same_conn_comes_back(way: str) -> None:
    """Of his two names the wrong one was crossed out when the call was over, and he is gone."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    ann = Known("ann")
    held = bench.lease(who=ann, whole=False)
    bench.answer(bench.ask(who="ann"))
    ann.gone = True
    getattr(bench, way)(held, *((Outcome(),) if way == "forfeit" else ()))
    assert (entry.in_use, entry.users) == (0, [])
    getattr(bench, way)(held, *((Outcome(),) if way == "forfeit" else ()))
    assert entry.in_use == 0
