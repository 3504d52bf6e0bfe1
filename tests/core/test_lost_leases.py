"""Checkouts that nobody gives back, and conns that say by themselves that they are dead."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.core import Outcome, Supply
from connpool.core.lending import LOOKOUT
from connpool.errors import PoolTimeout, ResourceError
from tests.core.bench import Bench, error_of, granted, holder, queued
from tests.core.making import Made, Workshop

# -- what is lost ----------------------------------------------------------------------------------


def test_a_conn_whose_lease_is_lost_is_closed_and_made_anew() -> None:
    """Nobody knows what was done with it; who waits for it is served by what comes after it."""
    bench = Bench()
    entry = bench.conn(revive=True, capacity=2)
    held, waiting = bench.lease(), bench.ask()
    bench.at(3.0)
    bench.forsake(held, where="line 7")
    (told,) = bench.forsaken
    assert (told.info.id, told.info.in_use, told.where) == (entry.id, 2, "line 7")
    closing = bench.closing()
    assert closing.reason == "forsaken"
    bench.closed(closing)
    assert queued(waiting)
    bench.opened(bench.opening())
    assert holder(waiting) is entry


def test_a_conn_that_is_not_revived_leaves_with_its_lost_lease() -> None:
    """Those who hoped for it are told so."""
    bench = Bench()
    bench.conn()
    held, waiting = bench.lease(), bench.lease()
    bench.forsake(held)
    assert isinstance(error_of(waiting), ResourceError)
    bench.work()
    assert not bench.core.entries
    assert dict(bench.core.stats(bench.now).since_start.ended) == {"forsaken": 1}


def test_a_lost_place_of_a_shared_conn_is_for_the_next() -> None:
    """The conn stays with those who share it; the loss is told with the line of who lost it."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    shared, called, waiting = bench.lease(whole=False), bench.ask(), bench.ask()
    entry.where = "line 9"  # of somebody else
    bench.forsake(shared, where="line 7")
    (told,) = bench.forsaken
    assert (told.where, told.stays) == ("line 7", True)
    assert (entry.state.value, entry.holders) == ("ready", [called.who, waiting.who])
    assert not bench.permits
    assert bench.core.stats(bench.now).since_start.lost == 1


@pytest.mark.parametrize("whole", [False, True])
def test_a_conn_of_one_place_is_closed_with_its_lost_lease(whole: bool) -> None:
    """However it was asked for, nobody shared it."""
    bench = Bench()
    bench.conn(revive=True)
    bench.forsake(bench.lease(whole=whole))
    assert bench.closing().reason == "forsaken"
    assert not bench.forsaken[0].stays


def test_a_conn_that_became_smaller_stays_with_those_who_share_it() -> None:
    """While there are two of them, one place of one is not lost alone."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    first, second = bench.lease(whole=False), bench.lease(whole=False)
    bench.update(capacity=1)
    bench.forsake(first)
    assert (entry.state.value, entry.holders) == ("ready", [second.who])
    bench.forsake(second)
    assert bench.closing().reason == "forsaken"


def test_a_loss_is_noticed_once() -> None:
    """And one of a conn that has come back meanwhile is none."""
    bench = Bench()
    entry = bench.conn(revive=True)
    held = bench.lease()
    bench.forsake(held)
    bench.forsake(held)
    bench.at(1.0)
    bench.work()
    other = bench.lease()
    bench.forsake(held)
    bench.release(held)
    assert len(bench.forsaken) == 1
    assert holder(other) is entry
    assert entry.state.value == "ready"


def test_a_loss_comes_after_what_is_due() -> None:
    """Who had no more time is told first."""
    bench = Bench()
    bench.conn(revive=True)
    held, late = bench.lease(), bench.lease(timeout=1.0)
    bench.now = 2.0
    bench.forsake(held)
    assert isinstance(error_of(late), PoolTimeout)


@pytest.mark.parametrize("end", ["forsaken", "unclean", "interrupted"])
def test_a_conn_that_its_user_has_spoilt_is_revived_at_once(end: str) -> None:
    """It says nothing of its server."""
    bench = Bench()
    bench.conn(revive=True)
    for lap in range(1, 4):
        bench.at(lap * 1.0)
        held = bench.lease()
        assert granted(held)
        if end == "forsaken":
            bench.forsake(held)
        else:
            bench.forfeit(held, Outcome(end=end))
        bench.work()


# -- who is gone -----------------------------------------------------------------------------------


def test_those_who_are_gone_are_known_by_their_ghosts() -> None:
    """Whatever they hold, whole or shared, and once; nothing is taken from them, and their leases
    end as any."""
    bench = Bench()
    whole, shared, single = bench.conn(capacity=3), bench.conn(capacity=3), bench.conn()
    held = bench.lease(who="ann", filter=lambda info: info.id == whole.id)
    kept = bench.lease(who="ann", filter=lambda info: info.id == single.id)
    for who in ("ann", "bob"):
        bench.lease(who=who, whole=False, filter=lambda info: info.id == shared.id)
    assert not bench.core.orphaned(lambda who: None)
    ghosts = {"ann": Ann()}
    assert bench.core.orphaned(ghosts.get)
    bench.look()
    assert (whole.holders, shared.holders, single.holders) == (["ann"], ["ann", "bob"], ["ann"])
    known = [whole.user, *whole.holders, shared.holders[0], single.user]
    assert all(isinstance(who, Ann) for who in known)
    assert not bench.core.orphaned(lambda who: None if isinstance(who, Ann) else ghosts.get(who))
    bench.release(held)
    bench.release(kept)
    assert (whole.in_use, shared.in_use, single.in_use) == (0, 2, 0)
    assert granted(bench.lease(who="ann", filter=lambda info: info.id == whole.id))
    assert not bench.forsaken


class Ann:
    """A ghost."""

    def __eq__(self, other: object) -> bool:
        return other == "ann" or self is other

    def __hash__(self) -> int:
        return hash("ann")


def test_who_is_gone_leaves_no_error_behind() -> None:
    """It may refer to what he held, by its traceback; where nobody is gone it is kept."""
    bench = Bench()
    bench.conn(revive=True), bench.conn("b")
    bench.lease("b", who="ann")
    bench.end(bench.ask(), OSError("torn"))
    (line,) = [listing for listing in bench.core.listings() if listing.resource == "a"]
    bench.core.orphaned(lambda who: None)
    assert line.last_error is not None
    bench.core.orphaned({"ann": Ann()}.get)
    assert line.last_error is None


# -- when it is looked at --------------------------------------------------------------------------


def beat(bench: Bench, seconds: float) -> int:
    """How often the driver was asked to look, in so many seconds."""
    before, until = bench.looks, bench.now + seconds
    while (due := bench.core.next_due()) is not None and due <= until:
        bench.at(due)
    bench.at(until)
    return bench.looks - before


def test_while_somebody_waits_there_is_a_look_each_second() -> None:
    """At those who hold conns, and whether they are still there."""
    bench = Bench()
    bench.conn()
    held, waiting = bench.lease(), bench.ask()
    assert beat(bench, 10 * LOOKOUT) == 10
    bench.cancel(waiting)
    assert beat(bench, 10 * LOOKOUT) == 0
    assert bench.core.next_due() is None
    waiting = bench.lease()
    assert beat(bench, 3 * LOOKOUT) == 3
    bench.release(held)
    assert granted(waiting)
    assert beat(bench, 3 * LOOKOUT) == 0


def test_where_nothing_was_ever_checked_out_nobody_looks() -> None:
    """Nothing can be lost that way."""
    bench = Bench()
    bench.conn()
    bench.ask(), bench.ask()
    assert beat(bench, 10 * LOOKOUT) == 0


def test_who_waits_since_before_the_first_checkout_is_looked_for_too() -> None:
    """What he waits for may be lost now."""
    bench = Bench()
    bench.conn(), bench.conn("b")
    bench.ask(), bench.ask()
    bench.lease("b")
    assert beat(bench, 3 * LOOKOUT) == 3


# -- supplies --------------------------------------------------------------------------------------


def test_a_supply_replaces_what_was_lost() -> None:
    """At once, for those who wait."""
    bench = Workshop()
    bench.supply(max_size=1)
    held = bench.lease("db")
    first = bench.born()
    assert holder(held) is first
    waiting = bench.ask("db")
    bench.forsake(held)
    bench.settle()
    assert granted(waiting)
    assert holder(waiting) is not first


def test_a_conn_that_was_checked_out_with_success_has_not_died_young() -> None:
    """Its server does more than accept and hang up."""
    bench = Workshop()
    supply = bench.supply(max_size=1)
    for _ in range(5):
        held = bench.lease("db")
        bench.settle()
        bench.release(held)
        bench.end(bench.ask("db"), OSError("torn"))
    assert supply.young == 0


def test_a_conn_that_dies_in_its_first_checkout_has_died_young() -> None:
    """As one that dies in its first call has; the next one takes its time."""
    bench = Workshop()
    supply = bench.supply(max_size=1)
    for _ in range(2):
        held = bench.lease("db")
        bench.settle()
        bench.forfeit(held, Outcome(end="dead", error=OSError("torn")), OSError("torn"))
    assert supply.young == 2
    assert supply.retry_at > bench.now


def test_a_conn_that_is_spoilt_again_and_again_has_not_died_young() -> None:
    """That is its users' doing."""
    bench = Workshop()
    supply = bench.supply(max_size=1)
    for _ in range(5):
        held = bench.lease("db")
        bench.settle()
        bench.forfeit(held, Outcome(end="unclean"))
    assert supply.young == 0
    assert supply.retry_at <= bench.now


def test_an_idle_conn_that_comes_back_late_leaves_for_another_resource() -> None:
    """A pool that is full gives the place of a conn that was checked out to those who starve."""
    bench = Workshop(max_size=1)
    bench.supply(), bench.supply("other")
    held = bench.lease("db")
    bench.born()
    waiting = bench.ask("other")
    bench.release(held)
    bench.settle()
    assert granted(waiting)


def test_a_supply_can_be_made_anew() -> None:
    """With all that was said of it, and nothing of what it has made."""
    known: dict[str, Any] = {"min_size": 1, "max_size": 3, "ttl": 9.0, "extra": "red"}
    supply = Supply("db", Made, ((1,), {}), max_idle=7.0, ping_interval=5.0, **known)
    supply.began()
    anew = supply.anew()
    assert (anew.size, anew.unborn, anew.owed) == (0, 0, 0)
    for name in ("resource", "factory", "setup", "max_idle", "ping_interval", "revive", *known):
        assert getattr(anew, name) == getattr(supply, name)


# -- conns that say that they are dead -------------------------------------------------------------


def lose(bench: Bench, entry: Any, life: int) -> None:
    bench.core.lost(entry, life, EOFError("gone"), bench.now)
    bench.look()


def test_a_conn_that_says_that_it_is_dead_is_not_lent_again() -> None:
    """Though nobody has used it."""
    bench = Bench()
    entry = bench.conn(revive=True)
    lose(bench, entry, entry.lives)
    assert bench.closing().reason == "dead"
    assert entry.state.value == "reviving"


def test_a_conn_that_dies_while_it_is_held_is_closed_under_its_holder() -> None:
    """He gives it back later, and that it was well changes nothing."""
    bench = Bench()
    entry = bench.conn(capacity=2, revive=True)
    held, waiting = bench.lease(), bench.lease()
    lose(bench, entry, entry.lives)
    bench.closed(bench.closing())
    bench.release(held)
    assert entry.checkouts == 1
    assert queued(waiting)
    bench.work()
    assert holder(waiting) is entry


def test_what_a_conn_says_of_an_earlier_life_changes_nothing() -> None:
    """It has been opened anew since, by itself or after a death."""
    bench = Bench()
    entry = bench.conn(revive=True)
    life = entry.lives
    bench.at(1.0)
    bench.end(bench.ask(), OSError("torn"))
    lose(bench, entry, life)
    bench.work()
    lose(bench, entry, life)
    assert holder(bench.lease()) is entry
    assert bench.core.stats(bench.now).since_start.ended["dead"] == 1


def test_what_a_conn_says_as_it_leaves_changes_nothing() -> None:
    """It has expired in the same instant, or was taken out."""
    bench = Bench()
    entry, other = bench.conn(revive=True, ttl=5.0), bench.conn("b")
    bench.ask("b")
    bench.pop(other)
    bench.now = 5.0
    for leaving in (entry, other):
        lose(bench, leaving, leaving.lives)
    assert dict(bench.core.stats(bench.now).since_start.ended) == {"expired": 1}
