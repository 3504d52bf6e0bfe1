"""How pools fail in the field, each failure with the tests that keep it out of here.

`SEEN` lists what was seen in other pools.  Where it concerns calls it was mostly tested elsewhere
already; what was missing follows, mostly for checkouts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from connpool import Backoff, Closed, PoolTimeout, ResourceError
from connpool.testing import Do

from .whereabouts import check
from .worlds import World, scenario

CALLS = "tests/contract/test_calls.py::"
CHECKOUT = "tests/contract/test_checkout.py::"
DRIVERS = "tests/drivers/"
HERE = "tests/contract/test_lessons.py::"
LEAVING = "tests/contract/test_leaving.py::"
LINE = "tests/contract/test_line.py::"
REVIVAL = "tests/contract/test_revival.py::"
ROUTE = "tests/contract/test_route.py::"
SUPPLY = "tests/contract/test_supply.py::"

SEEN = {
    "a conn is destroyed or evicted, and nobody who waits is told": (
        LINE + "test_a_conn_that_dies_serves_those_behind_it_from_another",
        SUPPLY + "test_an_idle_conn_gives_way_to_another_resource",
        SUPPLY + "test_a_busy_resource_does_not_starve_another",
        HERE + "test_a_spoilt_conn_is_for_all_who_wait_for_it",
    ),
    "a holder asks again, and all slots are held by such": (
        CHECKOUT + "test_who_would_wait_for_himself_is_told",
        CHECKOUT + "test_one_place_of_ones_own_is_in_the_way_of_the_whole",
        HERE + "test_two_who_wait_for_each_other_end_with_the_timeout",
    ),
    "waiters hang when the pool closes": (
        CHECKOUT + "test_a_full_line_and_a_closed_pool",
        LEAVING + "test_those_who_wait_are_told_at_once",
    ),
    "waiters hang when every create fails": (
        SUPPLY + "test_never_again",
        HERE + "test_no_conn_can_be_opened",
    ),
    "newcomers overtake those who wait": (
        LINE + "test_a_newcomer_does_not_overtake",
        CHECKOUT + "test_a_newcomer_does_not_overtake",
        DRIVERS + "test_threads.py::test_32_threads_over_2_conns_get_fair_shares",
        HERE + "test_32_holders_over_2_conns_get_fair_shares",
    ),
    "under overload conns go to those whose time is over": (
        HERE + "test_ten_times_overload_wastes_nothing",
    ),
    "a conn that fails at once draws all traffic": (
        CALLS + "test_a_conn_that_fails_at_once_does_not_draw_the_traffic",
        HERE + "test_a_conn_that_is_lent_in_vain_does_not_draw_the_traffic",
    ),
    "two choices pick the same one twice; all pools begin with the same one": (
        "tests/core/test_routing.py::test_two_choices_never_draws_the_same_one_twice",
        ROUTE + "test_many_pools_do_not_begin_alike",
    ),
    "a burst opens as many conns as it has callers": (
        SUPPLY + "test_a_burst_opens_a_few_conns_only",
    ),
    "all conns expire in the same second": (
        SUPPLY + "test_those_born_together_do_not_expire_together",
    ),
    "one connect hangs, and the pool never refills": (
        SUPPLY + "test_a_hung_connect_stops_nobody",
        SUPPLY + "test_a_hung_connect_is_the_cause",
    ),
    "after a restart each borrower meets the dead conns one by one": (
        SUPPLY + "test_the_server_is_restarted",
        HERE + "test_after_a_restart_one_holder_meets_one_dead_conn",
    ),
    "the pool has stopped reconnecting when the server is back": (
        SUPPLY + "test_an_outage_with_traffic",
        SUPPLY + "test_an_outage_without_traffic",
    ),
    "create fails at once: a busy loop, and waiters that are never told": (
        SUPPLY + "test_an_init_that_fails_at_once_is_no_busy_loop",
        REVIVAL + "test_a_conn_that_dies_before_it_answers_is_not_a_busy_loop",
        SUPPLY + "test_a_factory_that_goes_wrong",
    ),
    "a login storm after a failover": (
        SUPPLY + "test_two_hundred_waiters_are_no_login_storm",
        HERE + "test_after_a_long_outage_two_hundred_holders_are_served",
    ),
    "parent and child share a socket": (
        DRIVERS + "test_fork.py::test_a_child_neither_uses_nor_closes_what_it_inherits",
        DRIVERS + "test_fork.py::test_a_pool_of_tasks_is_empty_and_not_open_in_the_child",
    ),
    "bound to another event loop": (
        "tests/cancellation/test_blocks.py::"
        "test_a_pool_made_at_import_time_is_opened_in_one_loop_after_another",
    ),
    "sizes drift": (
        SUPPLY + "test_failures_take_no_place",
        SUPPLY + "test_resize_to_less",
        HERE + "test_sizes_hold_whatever_becomes_of_what_is_held",
    ),
    "what somebody is about to use is evicted": (
        HERE + "test_idle_for_too_long_and_lent_at_one_instant",
        HERE + "test_evicted_and_lent_at_one_instant",
    ),
}


@pytest.mark.parametrize("failure", SEEN)
def test_each_failure_has_its_test(failure: str) -> None:
    """The named tests are there, and those of the contract are told of every driver."""
    for test in SEEN[failure]:
        check(test)


# -- who waits is told ---------------------------------------------------------------------------


@scenario
async def test_a_spoilt_conn_is_for_all_who_wait_for_it(world: World) -> None:
    """It serves two resources: when it is closed under its user, those who wait for either one are
    served by it, revived, or are told that it is gone."""
    for revive in (True, False):
        pool, hang = await world.pool(), world.hang(OSError("torn"))
        conn = world.conn(["one", "two"])
        await pool.put(conn, revive=revive)
        world.clock.advance(1)
        held = await world.holding(hang, pool, "one")
        waiting = [await world.in_line(None, pool, name, timeout=None) for name in ("one", "two")]
        hang.release()
        await held.error(OSError)
        for handle in waiting:
            if revive:
                assert await handle.result() is conn
            else:
                await handle.error(ResourceError)


@scenario
async def test_two_who_wait_for_each_other_end_with_the_timeout(world: World) -> None:
    """Each holds one and asks for a second: one is told when his time is over, and then the other
    is served."""
    pool, met = await world.pool(), world.hang()
    for _ in range(2):
        await pool.put(world.conn("line"), revive=True)

    async def both(timeout: float) -> None:
        async with world.lease(pool, "line"):
            await world.perform(met)
            await world.hold(None, pool, "line", timeout=timeout)

    hasty, patient = world.start(both, 5), world.start(both, 50)
    await world.until(lambda: met.inside == 2)
    met.release()
    await world.until(lambda: pool.waiting == 2)
    await world.advance(5)
    assert "2 in use" in (await hasty.error(PoolTimeout)).summary
    await patient.result()


@scenario
async def test_no_conn_can_be_opened(world: World) -> None:
    """Who waits to check one out gets the cause when his time is over, or sooner."""
    pool = await world.pool(timeout=5)
    works = world.works(each=lambda: OSError("refused"))
    await pool.supply("line", works, max_size=3)
    waiting = [await world.in_line(None, pool, "line") for _ in range(4)]
    for _ in range(5):
        await world.advance(1)
    for handle in waiting:
        error = await handle.error(PoolTimeout)
        assert str(error.__cause__) == "refused"
        assert "see the last failure" in error.summary
    assert len(works.made) <= 8


# -- fair shares ---------------------------------------------------------------------------------


@scenario
async def test_32_holders_over_2_conns_get_fair_shares(world: World) -> None:
    """In a tight loop nobody starves: Jain's index over what each got is 0.99 at least."""
    pool = await world.pool(timeout=None)
    for _ in range(2):
        await pool.put(world.conn("line"))
    served: Counter[int] = Counter()

    def over() -> bool:
        return max(served.values(), default=0) >= 20

    async def loop(number: int) -> None:
        while not over():
            async with world.lease(pool, "line"):
                # The others are all in line again, however the machine switches.
                await world.until(lambda: pool.waiting >= 30 or over())
                served[number] += 1

    for handle in [world.start(loop, number) for number in range(32)]:
        await handle.result()
    shares = [served[number] for number in range(32)]
    assert sum(shares) ** 2 / (32 * sum(share * share for share in shares)) >= 0.99, shares


@scenario
async def test_ten_times_overload_wastes_nothing(world: World) -> None:
    """A hundred callers with the patience of ten: as many are served as there is time for, and no
    work is done for one who has given up."""
    pool, hang = await world.pool(), world.hang()

    def work(*_: Any) -> None:
        world.clock.advance(1)

    conn = world.conn("line", [Do(work)] * 100)
    await pool.put(conn)
    held = await world.holding(hang, pool, "line")
    waiting = []
    for number in range(100):
        waiting.append(await world.queued(pool, "line", "say", timeout=number % 10 + 0.5))
    hang.release()
    await held.result()
    ends = [await handle.end() for handle in waiting]
    assert ends.count(None) == len(conn.calls) == 10
    assert all(isinstance(end, PoolTimeout) for end in ends if end is not None)


@scenario
async def test_a_conn_that_is_lent_in_vain_does_not_draw_the_traffic(world: World) -> None:
    """One of five says at once that it is closed, each time it is revived: it is tried a few times
    and no more, and everybody is lent another one."""
    pool = await world.pool(check_after=None)
    bad = world.conn("line", lend=[Closed()] * 100)
    await pool.put(bad, revive=True)
    good = [world.conn("line") for _ in range(4)]
    for conn in good:
        await pool.put(conn)
    lent = [await world.hold(None, pool, "line") for _ in range(100)]
    assert set(lent) <= set(good)
    assert bad.lends <= 5


# -- the server goes away and is back ------------------------------------------------------------


@scenario
async def test_after_a_restart_one_holder_meets_one_dead_conn(world: World) -> None:
    """Of 20 idle conns all are dead: the next checkout finds one, and is then lent a new one."""
    pool, hang = await world.pool(), world.hang()
    works = world.works(check=[False])
    await pool.supply("line", works, min_size=20, max_size=20)
    await pool.wait_ready()
    world.clock.advance(1)
    works.more["check"] = None
    began = world.clock.monotonic()
    holds = await world.holding(hang, pool, "line", timeout=30)
    assert world.clock.monotonic() == began
    hang.release()
    assert await holds.result() not in works.made[:20]
    await world.until(lambda: sum(conn.closes for conn in works.made[:20]) == 20)


@pytest.mark.parametrize("traffic", [False, True])
@scenario
async def test_after_a_long_outage_two_hundred_holders_are_served(
    world: World, traffic: bool
) -> None:
    """The server is away for longer than every limit.  When it is back, connects at once never
    exceed max_connecting, and all who have time left are served, whether others come or not."""
    pool = await world.pool(max_connecting=3, backoff=Backoff(most=60), timeout=10)
    works = world.works(each=lambda: OSError("refused"))
    await pool.supply("line", works, max_size=10, connect_timeout=5)
    patient = [await world.in_line(None, pool, "line", timeout=None) for _ in range(200)]
    for _ in range(40):
        await world.advance(30)
        if traffic:
            with pytest.raises((PoolTimeout, ResourceError)):
                await world.hold(None, pool, "line", timeout=0)
    assert pool.waiting == 200
    assert works.most <= 3
    works.each = None
    for _ in range(3):
        await world.advance(1)
        if traffic:
            patient.append(world.start(world.hold, None, pool, "line"))
    for handle in patient:
        await handle.result()
    assert works.most <= 3
    assert pool.stats().now.waiting == 0


# -- sizes ---------------------------------------------------------------------------------------


@scenario
async def test_sizes_hold_whatever_becomes_of_what_is_held(world: World) -> None:
    """Spoilt, dead, resized and drained while they are held: never more than max_size, and in the
    end every place can be had."""
    pool, works = await world.pool(), world.works()
    await pool.supply("line", works, max_size=4)

    def audit(most: int) -> None:
        now = pool.stats().now
        assert 0 <= now.conns + now.opening <= most
        assert now.in_use <= most

    for number, end in enumerate([None, ValueError(), OSError(), KeyError()] * 3):
        hangs = [world.hang(end) for _ in range(4)]
        held = [await world.holding(hang, pool, "line", shared=number % 2 == 1) for hang in hangs]
        audit(4)
        if number == 5:
            pool.resize("line", max_size=2)
        if number == 7:
            pool.drain("line")
        if number == 6:
            pool.resize("line", max_size=4)
        if number == 5:
            for hang in hangs:
                hang.release()
            for handle in held:
                await handle.end()
            await world.advance(1)
            audit(2)
            pool.resize("line", max_size=4)
            continue
        for hang, handle in zip(hangs, held, strict=True):
            hang.release()
            await handle.end()
            audit(4)
        await world.advance(1)
    hang = world.hang()
    held = [await world.holding(hang, pool, "line") for _ in range(4)]
    audit(4)
    assert pool.stats().now.in_use == 4
    with pytest.raises(PoolTimeout):
        await world.hold(None, pool, "line", timeout=0)
    hang.release()
    for handle in held:
        await handle.result()


@pytest.mark.parametrize("way", ["hold", "call"])
@scenario
async def test_idle_for_too_long_and_lent_at_one_instant(world: World, way: str) -> None:
    """Whoever comes in the very instant in which a conn is to go gets one that is open."""
    pool, works = await world.pool(check_after=None), world.works()
    await pool.supply("line", works, max_size=1, max_idle=100)
    await world.hold(None, pool, "line")
    for _ in range(5):
        world.clock.advance(100)
        if way == "call":
            assert await pool.call("line", "say", "answered") == "answered"
            continue
        async with world.lease(pool, "line") as conn:
            await pool.sweep()
            assert conn.closes == 0
    assert all(conn.most <= 1 for conn in works.made)
    assert len(pool) <= 1


@scenario
async def test_evicted_and_lent_at_one_instant(world: World) -> None:
    """A full pool lets an idle conn go for another resource; who comes for it in that instant is
    lent another one, or this one before it goes, but never one that is being closed."""
    pool = await world.pool(max_size=1)
    one, two = world.works(), world.works()
    await pool.supply("one", one, max_size=1)
    await pool.supply("two", two, max_size=1)
    for _ in range(5):
        await world.hold(None, pool, "one")
        other = world.start(world.hold, None, pool, "two")
        async with world.lease(pool, "one") as conn:
            assert conn.closes == 0
        await other.result()
    now = pool.stats().now
    assert (now.in_use, now.waiting) == (0, 0)
    assert now.conns + now.opening + now.draining <= 1
