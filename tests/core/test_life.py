"""The life of a conn: born, put to rest, found dead, expired, revived, dropped."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Standing
from connpool.errors import Busy, CallError, Closed, PoolClosed, PoolTimeout, ResourceError
from tests.core.bench import Bench, error_of, granted, holder, queued


def states(bench: Bench) -> list[str]:
    return [entry.state.value for entry in bench.core.entries.values()]


def ended(bench: Bench) -> dict[str, int]:
    return dict(bench.core.stats(bench.now).since_start.ended)


# -- birth -----------------------------------------------------------------------------------------


def test_a_conn_is_ready_when_it_is_open() -> None:
    """Until then it is nobody's; its picture is given for who wants to be told."""
    bench = Bench()
    permit = bench.admit(extra="red")
    assert states(bench) == ["opening"]
    assert bench.core.count(0.0) == 0
    info = bench.opened(permit)
    assert info is not None
    assert (info.id, info.state, info.extra) == (permit.entry.id, "ready", "red")
    assert bench.core.count(0.0, "a") == 1
    assert granted(bench.ask())


def test_a_conn_that_asks_for_a_rest_after_init_gets_it() -> None:
    """It is alive, but not lent before."""
    bench = Bench()
    bench.conn(rest=3.0)
    assert states(bench) == ["cooling"]
    assert bench.core.count(0.0) == 1
    waiting = bench.ask()
    bench.at(3.0)
    assert granted(waiting)


def test_a_conn_that_could_not_be_opened_was_never_there() -> None:
    """The next one with the same conn is none the worse for it."""
    bench = Bench()
    permit = bench.admit()
    bench.failed(permit)
    assert not bench.core.entries
    again = bench.core.admit(permit.entry.conn, now=0.0)
    assert again.entry.id != permit.entry.id


def test_ids_are_never_used_twice() -> None:
    """Neither those of conns that have left nor those of conns that never came."""
    bench = Bench()
    ids = []
    for _ in range(5):
        permit = bench.admit()
        ids.append(permit.entry.id)
        bench.failed(permit)
        entry = bench.conn()
        ids.append(entry.id)
        bench.pop(entry)
    assert len(set(ids)) == 10


def test_a_conn_object_is_in_the_pool_once() -> None:
    """A second time is a ValueError; after it has left it may come again."""
    bench = Bench()
    entry = bench.conn()
    with pytest.raises(ValueError, match="already"):
        bench.core.admit(entry.conn, now=0.0)
    bench.pop(entry)
    bench.opened(bench.core.admit(entry.conn, now=0.0))
    assert granted(bench.ask())


def test_a_permit_comes_back_once() -> None:
    """A second time is a bug of the driver, and changes nothing."""
    bench = Bench()
    permit = bench.admit()
    bench.opened(permit)
    with pytest.raises(RuntimeError, match="twice"):
        bench.opened(permit)
    with pytest.raises(RuntimeError, match="twice"):
        bench.failed(permit)
    assert states(bench) == ["ready"]


# -- death -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Closed(), "closed"),
        (OSError("torn"), "dead"),
        (EOFError(), "dead"),
        (CallError(closed=True), "dead"),
        (KeyboardInterrupt(), "interrupted"),
        (Reply(1, closed=True), "done"),
    ],
)
@pytest.mark.parametrize("revive", [False, True, "force"])
def test_who_is_revived_and_who_is_dropped(end: Any, reason: str, revive: Any) -> None:
    """False: nobody; True: who died; "force": also who is done.  Closed in any case."""
    bench = Bench()
    entry = bench.conn(extra="red", ttl=60.0, revive=revive)
    bench.now = 1.0
    bench.answer(bench.ask())
    bench.end(bench.ask(), end)
    assert bench.core.count(1.0) == 0
    closing = bench.closing()
    assert (closing.entry, closing.reason) == (entry, reason)
    assert closing.info.id == entry.id
    bench.closed(closing)
    assert ended(bench) == {reason: 1}
    if revive is False or (revive is True and reason == "done"):
        assert not bench.core.entries
        assert not bench.permits
        return
    bench.opened(bench.opening())
    info = bench.info(entry)
    assert (info.id, info.extra, info.ttl, info.revive) == (entry.id, "red", 60.0, revive)
    assert (info.last_init, info.last_call, info.cooldown) == (1.0, None, 0.0)
    assert info.stats["m"].count >= 1
    assert holder(bench.ask()) is entry
    assert bench.core.stats(1.0).since_start.revived == 1


@pytest.mark.parametrize("end", [CallError("no"), KeyError("no"), Busy(1.0), Reply(1, cooldown=1)])
def test_who_only_failed_or_rests_stays(end: Any) -> None:
    """The conn is well, whatever became of the call."""
    bench = Bench()
    entry = bench.conn()
    bench.end(bench.ask(), end)
    assert not bench.permits
    bench.at(1.0)
    assert holder(bench.ask()) is entry


def test_two_callers_find_the_same_conn_dead() -> None:
    """It is closed once and revived once, and neither of them does any harm."""
    bench = Bench()
    bench.conn(capacity=3, revive=True)
    first, second, third = bench.ask(), bench.ask(), bench.ask()
    moved = [bench.move(first, Closed()), bench.move(second, Closed())]
    assert len(bench.permits) == 1
    bench.closed(bench.closing())
    assert not bench.permits, "not opened again while somebody uses it"
    bench.end(third, OSError("torn"))
    bench.opened(bench.opening())
    assert [granted(ticket) for ticket in moved] == [True, True]
    assert ended(bench) == {"closed": 1}
    assert not bench.permits


def test_a_dead_conn_is_closed_under_those_who_hang_on_it() -> None:
    """That frees them; one that ended in good order is closed when they are done."""
    bench = Bench()
    bench.conn(capacity=2)
    bench.conn("b", capacity=2)
    dead, hangs = bench.ask(), bench.ask()
    done, runs = bench.ask("b"), bench.ask("b")
    bench.end(dead, OSError("torn"))
    bench.end(done, Reply(1, closed=True))
    assert bench.closing().entry is hangs.entry
    assert not bench.permits
    bench.end(runs, OSError("torn"))
    assert bench.closing().reason == "done"
    assert hangs.standing is Standing.GRANTED


def test_a_conn_on_its_way_out_that_is_found_dead_is_closed_at_once() -> None:
    """Nothing is gained by waiting for who still uses it."""
    bench = Bench()
    bench.conn(capacity=3)
    done, dead, _ = bench.ask(), bench.ask(), bench.ask()
    bench.end(done, Reply(1, closed=True))
    assert not bench.permits
    bench.end(dead, OSError("torn"))
    assert bench.closing().info.in_use == 1


def test_nobody_is_given_a_dead_conn() -> None:
    """Not even who waited for it, nor while others still use it."""
    bench = Bench()
    bench.conn(capacity=2)
    dead, runs = bench.ask(), bench.ask()
    waiting = bench.ask()
    bench.end(dead, OSError("torn"))
    assert isinstance(error_of(waiting), ResourceError)
    with pytest.raises(ResourceError):
        bench.ask()
    bench.answer(runs)
    with pytest.raises(ResourceError):
        bench.ask()


def test_a_conn_that_was_dead_once_is_not_closed_under_its_users_later() -> None:
    """It is as good as new: when it expires its call goes on to the end."""
    bench = Bench()
    bench.conn(ttl=5.0, revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.work()
    running = bench.ask()
    bench.at(5.0)
    assert not bench.permits
    bench.answer(running)
    assert bench.closing().reason == "expired"


def test_who_waited_too_long_for_a_conn_that_dies_is_told_that_he_waited_too_long() -> None:
    """Time comes first, also where the driver comes late."""
    bench = Bench()
    bench.conn()
    running, late, in_time = bench.ask(), bench.ask(timeout=1.0), bench.ask()
    bench.now = 2.0
    bench.end(running, OSError("torn"))
    assert isinstance(error_of(late), PoolTimeout)
    assert isinstance(error_of(in_time), ResourceError)


# -- expiry ----------------------------------------------------------------------------------------


def test_a_conn_expires_by_itself() -> None:
    """With nobody asking: it does not count, is not lent, and is closed."""
    bench = Bench()
    bench.conn(ttl=10.0)
    assert bench.core.next_due() == 10.0
    bench.at(9.9)
    assert bench.core.count(9.9) == 1
    bench.at(10.0)
    assert bench.core.count(10.0, "a") == bench.core.count(10.0) == 0
    assert bench.core.resources(10.0) == []
    bench.closed(bench.closing())
    assert not bench.core.entries
    assert ended(bench) == {"expired": 1}


def test_an_expired_conn_is_never_lent_however_late_the_driver_comes() -> None:
    """Each door sees to what is due before anything else."""
    bench = Bench()
    entry = bench.conn(ttl=10.0)
    bench.now = 10.0
    assert not bench.core.alive(entry.id, 10.0)
    with pytest.raises(ResourceError):
        bench.ask()
    bench.conn(ttl=10.0)
    bench.now = 20.0
    assert bench.core.take("a", "m", None, None, None, 20.0) is None
    bench.look()


def test_a_conn_that_expires_while_it_is_used_is_not_lent_again() -> None:
    """Its call goes on to the end, then it is closed, and opened again where it is revived."""
    bench = Bench()
    entry = bench.conn(ttl=10.0, revive=True)
    running = bench.ask()
    waiting = bench.ask()
    bench.at(10.0)
    assert bench.core.count(10.0) == 0
    assert not bench.permits
    bench.now = 12.0
    bench.answer(running)
    assert queued(waiting)
    bench.closed(bench.closing())
    bench.opened(bench.opening())
    assert holder(waiting) is entry
    assert entry.expires == 22.0


def test_a_return_at_the_very_end_of_its_life_does_not_lend_a_conn_once_more() -> None:
    """Though somebody waits for it, and the clockwork has not rung yet."""
    bench = Bench()
    bench.conn(ttl=10.0)
    running, waiting = bench.ask(), bench.ask()
    bench.now = 10.0
    bench.answer(running)
    assert isinstance(error_of(waiting), ResourceError)


def test_a_conn_that_expires_while_it_rests_does_not_come_back() -> None:
    """Expiry counts more than the end of a rest, also where the driver comes late for both."""
    bench = Bench()
    bench.conn(ttl=10.0, rest=9.0)
    waiting = bench.ask()
    bench.at(11.0)
    assert isinstance(error_of(waiting), ResourceError)


def test_a_return_at_the_end_of_its_life_closes_a_conn_at_once() -> None:
    """With nobody waiting, and without a look at the clock in between."""
    bench = Bench()
    bench.conn(ttl=5.0)
    running = bench.ask()
    bench.now = 5.0
    bench.answer(running)
    assert bench.closing().reason == "expired"


def test_a_rest_that_became_longer_does_not_hide_the_end_of_a_life() -> None:
    """The alarm for the shorter rest rings early, and sets the one that is next."""
    bench = Bench()
    bench.conn(ttl=5.0, capacity=2)
    first, second = bench.ask(), bench.ask()
    bench.end(first, Busy(3.0))
    bench.end(second, Busy(9.0))
    bench.at(3.0)
    bench.at(5.0)
    assert bench.closing().reason == "expired"


def test_an_alarm_for_a_rest_does_not_hide_the_end_of_a_life() -> None:
    """After each early ring the next one is set."""
    bench = Bench()
    bench.conn(ttl=10.0)
    for second in (1.0, 4.0, 8.0):
        bench.now = second
        bench.end(bench.ask(), Reply(1, cooldown=1.0))
        bench.at(second + 1.0)
    bench.at(10.0)
    assert ended(bench) == {"expired": 1}


def test_a_conn_without_time_to_live_is_never_lent() -> None:
    """Not even to who waits for it when it comes; and its revivals make no busy loop."""
    bench = Bench()
    hope = bench.conn(revive=True)
    bench.ask()
    waiting = bench.ask()
    short = bench.conn(ttl=0.0, revive=True)
    revived = 0
    while bench.now < 1.0:
        bench.at(max(bench.now, bench.core.next_due() or 0.0))
        while bench.permits:
            revived += bench.permits[0].entry is short
            bench.work()
    assert queued(waiting)
    assert revived < 50
    assert hope.in_use == 1


def test_many_conns_that_expire_together_are_opened_a_few_at_a_time() -> None:
    """No storm: at most max_connecting at once, in turn."""
    bench = Bench(max_connecting=3)
    conns = [bench.conn(ttl=10.0, revive=True) for _ in range(20)]
    bench.at(10.0)
    for _ in conns:
        bench.closed(bench.closing())
    opened = []
    while bench.permits:
        assert len(bench.permits) <= 3
        opened.append(bench.permits[0].entry)
        bench.opened(bench.opening())
    assert opened == conns


# -- revival ---------------------------------------------------------------------------------------


def test_a_conn_is_opened_again_when_it_is_closed_and_nobody_uses_it() -> None:
    """Whichever comes last."""
    bench = Bench()
    bench.conn(capacity=2, revive=True)
    dead, hangs = bench.ask(), bench.ask()
    bench.end(dead, OSError("torn"))
    closing = bench.closing()
    bench.answer(hangs)
    assert not bench.permits
    bench.closed(closing)
    assert bench.opening().entry is closing.entry


def test_a_revived_conn_may_name_other_resources_and_methods() -> None:
    """It is listed under what it names now; who waited for what it was is told or served."""
    bench = Bench()
    entry = bench.conn(["a", "b"], ["m", "n"], revive=True)
    bench.conn("c")
    bench.ask("c")
    bench.end(bench.ask(), OSError("torn"))
    gone, there, other = bench.ask("a", "m"), bench.ask("b", "m"), bench.ask("c", "m")
    lost = bench.ask("b", "n")
    bench.closed(bench.closing())
    entry.conn.resource, entry.conn.names, entry.conn.capacity = ["b", "c"], ["m"], 2
    bench.opened(bench.opening())
    assert isinstance(error_of(gone), ResourceError)
    assert str(error_of(lost)).find("'n'") > 0
    assert [holder(there), holder(other)] == [entry, entry]
    assert bench.core.resources(0.0) == ["b", "c"]
    assert bench.info(entry).resource == ("b", "c")


def test_a_revived_conn_may_have_another_capacity() -> None:
    """Under the same names."""
    bench = Bench()
    entry = bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    entry.conn.capacity = 3
    bench.opened(bench.opening())
    assert bench.info(entry).capacity == 3
    assert all(granted(bench.ask()) for _ in range(3))


def test_when_a_conn_is_back_nothing_is_due() -> None:
    """No alarm is left of what was done with it."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())
    bench.failed(bench.opening())
    bench.at(1.0)
    bench.opened(bench.opening())
    assert bench.core.next_due() is None


def test_a_revived_conn_may_ask_for_a_rest() -> None:
    """Whatever rest it had before is forgotten."""
    bench = Bench()
    entry = bench.conn(revive=True, capacity=2)
    rests, dies = bench.ask(), bench.ask()
    bench.end(rests, Busy(99.0))
    bench.end(dies, OSError("torn"))
    bench.closed(bench.closing())
    bench.opened(bench.opening(), rest=1.0)
    assert bench.info(entry).cooldown == 1.0
    bench.at(1.0)
    assert granted(bench.ask())


# -- a closed pool ---------------------------------------------------------------------------------


def test_a_closed_pool_takes_nothing_in() -> None:
    """Neither conns nor callers."""
    bench = Bench()
    bench.close()
    with pytest.raises(PoolClosed):
        bench.admit()
    with pytest.raises(PoolClosed):
        bench.ask()
