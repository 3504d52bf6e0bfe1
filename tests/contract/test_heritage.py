"""What a checkout pool and a routing pool must do, row by row: which test holds it to that.

`HELD` lists the behaviours of a pool that lends its conns, `ROUTED` those of one that routes.  What
was tested elsewhere already is there; what was missing follows.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from connpool import Closed
from connpool.testing import Do

from .whereabouts import check
from .worlds import World, scenario

CALLS = "tests/contract/test_calls.py::"
CHECKOUT = "tests/contract/test_checkout.py::"
CONNS = "tests/contract/test_conns.py::"
HERE = "tests/contract/test_heritage.py::"
LEAVING = "tests/contract/test_leaving.py::"
LENDING = "tests/contract/test_lending.py::"
LOST = "tests/contract/test_lost.py::"
ROUTE = "tests/contract/test_route.py::"
SPOILT = "tests/contract/test_spoilt.py::"
SUPPLY = "tests/contract/test_supply.py::"

HELD = {
    "told when a conn is ready and when it is given up": (
        LEAVING + "test_on_connect_and_on_disconnect_are_told",
    ),
    "conns are made off the caller's path": (
        SUPPLY + "test_an_opening_belongs_to_nobody",
        SUPPLY + "test_min_size_is_opened_at_once_and_in_the_background",
    ),
    "one that cannot be made is tried again, never in a busy loop": (
        SUPPLY + "test_an_init_that_fails_at_once_is_no_busy_loop",
    ),
    "eager": (SUPPLY + "test_min_size_is_opened_at_once_and_in_the_background",),
    "lazy": (
        SUPPLY + "test_nothing_is_opened_before_somebody_asks",
        HERE + "test_two_checkouts_in_turn_open_one_conn",
    ),
    "a size that makes no sense is told": (SUPPLY + "test_a_wrong_argument",),
    "a checkout may hand out something else": (
        LENDING + "test_what_lend_gives_is_what_the_block_gets",
        LENDING + "test_what_was_lent_can_be_cut_off",
    ),
    "a checkout may remove the conn, and the same client is served": (
        LENDING + "test_lend_says_closed",
        LENDING + "test_who_met_a_dead_conn_keeps_his_place",
    ),
    "a checkout may be refused, and the conn is kept": (
        LENDING + "test_what_else_lend_raises_is_for_its_caller",
    ),
    "a return makes the conn clean": (LENDING + "test_a_conn_is_reset_after_each_block",),
    "a return may remove the conn, and the client has its result": (
        LENDING + "test_a_reset_that_raises",
    ),
    "the client raises": (
        SPOILT + "test_a_conn_that_cannot_be_made_clean",
        SPOILT + "test_a_conn_that_can_be_made_clean",
        SPOILT + "test_a_block_that_is_cut_short",
    ),
    "the client dies": (
        LOST + "test_the_holder_is_gone",
        LOST + "test_a_lease_that_is_collected",
        SPOILT + "test_a_cancelled_block",
    ),
    "a queued client gives up": (
        CHECKOUT + "test_a_wait_ends_at_its_timeout",
        CHECKOUT + "test_a_place_that_comes_at_the_deadline_is_not_given",
        CHECKOUT + "test_cancelled_in_line",
    ),
    "the line may be full": (CHECKOUT + "test_a_full_line_and_a_closed_pool",),
    "the client tells the pool something while it holds": (
        LOST + "test_what_a_holder_may_tell_the_pool",
    ),
    "an idle conn learns of its loss": (
        LOST + "test_a_lost_conn_leaves_at_once",
        SUPPLY + "test_the_server_is_restarted",
    ),
    "idle conns are asked, not all at once, and let go": (
        SUPPLY + "test_ping",
        HERE + "test_pings_are_spread",
        SUPPLY + "test_max_idle",
    ),
    "stopping: idle ones, queued clients, and those that are out": (
        LOST + "test_close_waits_for_those_who_hold",
        LOST + "test_who_does_not_come_back_in_time",
    ),
    "first in, first out": (
        HERE + "test_conns_are_lent_in_turn",
        CHECKOUT + "test_calls_and_checkouts_stand_in_one_line",
    ),
    "nothing is copied between the pool and its users": (
        HERE + "test_a_conn_runs_where_its_user_does",
        CHECKOUT + "test_the_conn_itself_is_held",
    ),
}

ROUTED = {
    "only live conns are listed": (
        ROUTE + "test_one_that_dies_leaves_and_is_back",
        ROUTE + "test_an_expired_one_is_never_given",
        LOST + "test_a_lost_conn_leaves_at_once",
    ),
    "round robin": (
        ROUTE + "test_round_robin_is_exact",
        ROUTE + "test_round_robin_takes_turns",
        ROUTE + "test_many_pools_do_not_begin_alike",
    ),
    "other ways to choose": (
        ROUTE + "test_two_choices_shun_a_stuck_one",
        ROUTE + "test_sticky",
        ROUTE + "test_a_function_of_ones_own",
    ),
    "nobody is there": (ROUTE + "test_none_is_there",),
    "added twice by mistake": (CONNS + "test_a_conn_is_in_a_pool_once",),
    "a stuck member": (ROUTE + "test_a_stuck_one_gets_no_share",),
    "a conn that has died in one's hands": (
        CALLS + "test_a_call_moves_from_a_closed_conn",
        HERE + "test_a_routed_conn_may_die_in_its_users_hands",
    ),
    "callbacks": (
        LEAVING + "test_a_callback_that_raises_is_logged",
        LEAVING + "test_callbacks_may_ask_the_pool",
    ),
    "what is held by one is not routed to": (
        LOST + "test_route_passes_over_what_somebody_has_for_himself",
    ),
    "a lookup costs the same with many": (HERE + "test_a_lookup_costs_the_same_with_many_conns",),
}


@pytest.mark.parametrize("row", [*HELD, *ROUTED])
def test_each_row_has_its_test(row: str) -> None:
    """The named tests are there, and are told of every driver."""
    for test in (HELD | ROUTED)[row]:
        check(test)


# -- held ----------------------------------------------------------------------------------------


@scenario
async def test_two_checkouts_in_turn_open_one_conn(world: World) -> None:
    """No more are made than are needed at once."""
    pool, works, hang = await world.pool(), world.works(), world.hang()
    await pool.supply("line", works, max_size=5)
    for _ in range(2):
        await world.hold(None, pool, "line")
    assert len(works.made) == 1
    held = await world.holding(hang, pool, "line")
    await world.hold(None, pool, "line")
    assert len(works.made) == 2
    hang.release()
    await held.result()


@scenario
async def test_pings_are_spread(world: World) -> None:
    """Conns born together are asked at different times, each before its interval is over."""
    pool, works = await world.pool(max_connecting=20), world.works()
    await pool.supply("line", works, min_size=20, max_size=20, ping_interval=100, max_idle=None)
    await pool.wait_ready()
    asked: list[int] = []
    for _ in range(110):
        await world.advance(1)
        asked.append(sum(conn.checks for conn in works.made))
    assert asked[70] == 0
    assert min(conn.checks for conn in works.made) >= 1
    each = Counter(b - a for a, b in itertools.pairwise(asked))
    assert max(each) <= 10, "half of them were asked in one second"


@scenario
async def test_conns_are_lent_in_turn(world: World) -> None:
    """The one that has been idle longest comes next."""
    pool = await world.pool()
    conns = [world.conn("line") for _ in range(3)]
    for conn in conns:
        await pool.put(conn)
    assert [await world.hold(None, pool, "line") for _ in range(6)] == conns * 2


@scenario
async def test_a_conn_runs_where_its_user_does(world: World) -> None:
    """call, check, lend and reset run in the thread or the task of who uses the conn."""
    pool, seen = await world.pool(check_after=0), []

    def note(*_: Any) -> None:
        seen.append((threading.get_ident(), anyio.get_current_task().id if world.cancels else 0))

    conn = world.conn("line", [Do(note)], check=[Do(note)], lend=[Do(note)], reset=[Do(note)])
    await pool.put(conn)
    note()
    await pool.call("line", "say")
    await world.hold(None, pool, "line")
    assert len(seen) == 5
    assert len(set(seen)) == 1


# -- routed --------------------------------------------------------------------------------------


@scenario
async def test_a_routed_conn_may_die_in_its_users_hands(world: World) -> None:
    """He gets what the conn raises, and the pool has no part in it."""
    pool, conn = await world.pool(), world.conn("line", [Closed("gone"), "called"])
    id = await pool.put(conn)
    routed = pool.route("line")
    with pytest.raises(Closed, match="gone"):
        given = routed.call("say")
        if world.cancels:
            await given
    assert id in pool
    assert await pool.call("line", "say") == "called"


async def count_calls(doing: Callable[[], Awaitable[Any]]) -> int:
    """How many Python functions are called meanwhile, in this thread."""
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    gc.collect()
    gc.disable()  # what it finds may call anything
    sys.setprofile(profile)
    try:
        await doing()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


@scenario
async def test_a_lookup_costs_the_same_with_many_conns(world: World) -> None:
    """A route and a checkout take as many steps among 300 conns as among two."""
    costs = []
    for size in (2, 300):
        pool = await world.pool(check_after=None)
        for _ in range(size):
            await pool.put(world.conn("line"))

        async def use() -> None:
            for _ in range(5):
                pool.route("line")  # noqa: B023
                async with world.lease(pool, "line"):  # noqa: B023
                    pass

        await use()
        costs.append(await count_calls(use))
    assert costs[0] == costs[1]
