"""Openings: how many conns there may be, and how many may be opened at once."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.core import Entry
from connpool.errors import PoolFull
from tests.core.bench import Bench, granted

# -- slots and permits that hang -------------------------------------------------------------------


def three_to_revive(**options: Any) -> tuple[Bench, list[Entry]]:
    """Three conns, dead and closed, that are to be opened again."""
    bench = Bench(**options)
    conns = [bench.conn(revive=True) for _ in range(3)]
    tickets = [bench.ask() for _ in conns]
    for ticket in tickets:
        bench.end(ticket, OSError("torn"))
        bench.closed(bench.closing())
    return bench, conns


def test_after_a_failover_no_more_than_max_connecting_knock_at_once() -> None:
    """However many wait."""
    bench = Bench(max_connecting=2, audited=False)
    for _ in range(50):
        bench.conn(revive=True)
    tickets = [bench.ask() for _ in range(50)]
    for ticket in tickets:
        bench.end(ticket, OSError("torn"))
        bench.closed(bench.closing())
    waiting = [bench.ask() for _ in range(200)]
    served = 0
    while bench.permits:
        assert len(bench.permits) <= 2
        bench.opened(bench.opening())
        served += 1
    assert served == 50
    assert [granted(ticket) for ticket in waiting] == [True] * 50 + [False] * 150


def test_a_connect_that_hangs_does_not_hold_up_the_others() -> None:
    """After connect_timeout its slot is free; when it ends after all, it counts."""
    bench, conns = three_to_revive(max_connecting=1, connect_timeout=10.0)
    hung = bench.opening()
    assert not bench.permits
    bench.at(9.9)
    assert not bench.permits
    bench.at(10.0)
    assert hung.overdue
    bench.opened(bench.opening())
    bench.opened(bench.opening())
    assert [conn.state.value for conn in conns] == ["reviving", "ready", "ready"]
    bench.at(100.0)
    bench.opened(hung)
    assert [conn.state.value for conn in conns] == ["ready"] * 3
    assert not bench.permits


def test_a_late_failure_frees_no_slot_twice() -> None:
    """Nor does anything else about it go wrong."""
    bench, conns = three_to_revive(max_connecting=1)
    hung = bench.opening()
    bench.at(10.0)
    second = bench.opening()
    bench.failed(hung)
    assert not bench.permits
    bench.opened(second)
    bench.opened(bench.opening())
    bench.at(11.0)
    bench.opened(bench.opening())
    assert [conn.state.value for conn in conns] == ["ready"] * 3


def test_a_close_that_hangs_keeps_its_conn_out_of_service_only() -> None:
    """The others are opened; when it ends, so is this one."""
    bench = Bench(max_connecting=1)
    entry = bench.conn(revive=True)
    other = bench.conn(revive=True)
    tickets = [bench.ask(), bench.ask()]
    for ticket in tickets:
        bench.end(ticket, OSError("torn"))
    hung = bench.closing()
    bench.closed(bench.closing())
    bench.opened(bench.opening())
    bench.at(1000.0)
    assert (entry.state.value, other.state.value) == ("reviving", "ready")
    bench.closed(hung)
    bench.opened(bench.opening())
    assert entry.state.value == "ready"


def test_a_conn_that_is_taken_out_while_it_waits_for_a_slot_is_not_opened() -> None:
    """Nor twice where it is put back meanwhile."""
    bench, conns = three_to_revive(max_connecting=1)
    opening = bench.opening()
    bench.pop(conns[1])
    bench.update(ttl=60.0)
    bench.opened(opening)
    assert bench.opening().entry is conns[2]
    assert not bench.permits


def test_who_is_opened_for_the_first_time_waits_for_no_slot() -> None:
    """max_connecting is for what the pool opens by itself."""
    bench = Bench(max_connecting=1)
    permits = [bench.admit() for _ in range(3)]
    for permit in permits:
        bench.opened(permit)
    assert bench.core.count(0.0) == 3


@pytest.mark.parametrize("how", ["update", "pop that is given up"])
def test_a_conn_that_stands_in_line_for_a_slot_stands_there_once(how: str) -> None:
    """Whatever is done with it meanwhile: its init is not called again while it is open."""
    bench, conns = three_to_revive(max_connecting=1)
    busy = bench.conn()
    bench.ask()
    opening, waits = bench.opening(), conns[2]
    if how == "update":
        bench.update("a", filter=lambda info: info.id == waits.id, ttl=0.0)
        bench.update("a", ttl=60.0)
    else:
        bench.unpop(bench.pop(waits, busy))
    bench.opened(opening)
    bench.opened(bench.opening())
    opening = bench.opening()
    assert opening.entry is waits
    bench.opened(opening)
    assert waits.state.value == "ready"
    assert not bench.permits


def test_a_connect_that_hangs_is_noticed_though_an_alarm_rang_before() -> None:
    """The alarm of what the conn did earlier does not take the place of this one."""
    bench, _ = three_to_revive(max_connecting=1, connect_timeout=10.0)
    hung = bench.opening()
    bench.update("a", filter=lambda info: info.id == hung.entry.id, ttl=5.0)
    bench.at(5.0)
    assert not bench.permits
    bench.at(10.0)
    assert hung.overdue
    assert bench.opening().entry is not hung.entry


# -- max_size --------------------------------------------------------------------------------------


def test_a_pool_holds_no_more_than_max_size() -> None:
    """Whatever state they are in, those that are being opened too."""
    bench = Bench(max_size=3)
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.conn(rest=5.0)
    permit = bench.admit()
    with pytest.raises(PoolFull, match="max_size") as caught:
        bench.admit()
    assert (caught.value.limit, caught.value.most) == ("max_size", 3)
    bench.failed(permit)
    bench.conn()


def test_a_conn_on_its_way_out_takes_no_room_once_nobody_uses_it() -> None:
    """It may be replaced while it is being closed, but not while its call runs."""
    bench = Bench(max_size=1)
    bench.conn(ttl=5.0)
    running = bench.ask()
    bench.at(5.0)
    with pytest.raises(PoolFull, match="max_size"):
        bench.admit()
    bench.answer(running)
    bench.conn()
    assert bench.core.count(5.0) == 1


def test_a_conn_that_may_come_back_from_a_pop_takes_room() -> None:
    """Else there would be one too many when the pop is given up."""
    bench = Bench(max_size=2)
    idle, busy = bench.conn(), bench.conn()
    bench.ask(filter=lambda info: info.id == busy.id)
    pop = bench.pop(idle, busy)
    with pytest.raises(PoolFull, match="max_size"):
        bench.admit()
    bench.unpop(pop)
    assert bench.core.count(0.0) == 2
