"""Checkouts: who gets which conn, whole or a place of it, in which order, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from connpool import (
    FilterError,
    MethodError,
    NestedCall,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    Reply,
    ResourceError,
    sticky,
)
from connpool.testing import Do

from .worlds import World, scenario, scenario_of_tasks

# -- what is held --------------------------------------------------------------------------------


@scenario
async def test_the_conn_itself_is_held(world: World) -> None:
    """It may be used directly, nobody else has it meanwhile, and it is back afterwards."""
    pool = await world.pool()
    conn = world.conn("line")
    id = await pool.put(conn)
    lease = world.lease(pool, "line")
    async with lease as held:
        assert held is conn
        assert lease.conn is conn
        assert (lease.id, lease.info.id, lease.info.in_use) == (id, id, 1)
        assert str(id) in repr(lease.bare)
        with pytest.raises(PoolTimeout):
            await world.hold(None, pool, "line", timeout=0, filter=lambda info: info.in_use < 2)
    assert pool.info(id).in_use == 0
    assert await pool.call("line", "say", "free") == "free"
    assert (conn.closes, len(conn.calls)) == (0, 1)


@pytest.mark.parametrize("capacity", [1, 3])
@scenario
async def test_a_whole_conn_has_one_user(world: World, capacity: int) -> None:
    """Whatever its capacity: neither a holder nor one who shares it, nor a caller, gets a place."""
    pool, hang = await world.pool(), world.hang()
    id = await pool.put(world.conn("line", capacity=capacity))
    held = await world.holding(hang, pool, "line")
    assert pool.info(id).in_use == capacity
    for shared in (False, True):
        with pytest.raises(PoolTimeout):
            await world.hold(None, pool, "line", shared=shared, timeout=0)
    with pytest.raises(PoolTimeout):
        await pool.call("line", "say", timeout=0)
    hang.release()
    await held.result()
    assert pool.info(id).in_use == 0


@scenario
async def test_places_of_a_shared_conn(world: World) -> None:
    """As many as its capacity, beside those that calls have; one more waits."""
    pool, hang, calling = await world.pool(), world.hang(), world.hang("called")
    id = await pool.put(world.conn("line", [calling], capacity=3))
    caller = await world.running(calling, pool, "line", "say")
    holders = [await world.holding(hang, pool, "line", shared=True) for _ in range(2)]
    assert pool.info(id).in_use == 3
    waiting = await world.in_line(None, pool, "line", shared=True)
    assert pool.waiting == 1
    calling.release()
    await waiting.result()
    assert await caller.result() == "called"
    hang.release()
    for holder in holders:
        await holder.result()
    assert pool.info(id).in_use == 0


@scenario
async def test_who_wants_a_shared_conn_whole_is_not_overtaken(world: World) -> None:
    """It takes no more users once somebody waits to have it alone, though places are free."""
    pool, first, second = await world.pool(), world.hang(), world.hang()
    id = await pool.put(world.conn("line", capacity=3))
    sharing = [
        await world.holding(first, pool, "line", shared=True),
        await world.holding(second, pool, "line", shared=True),
    ]
    third = world.hang()
    whole = await world.in_line(third, pool, "line")
    first.release()
    await sharing[0].result()
    late = await world.queued(pool, "line", "say", "late")
    with pytest.raises(PoolTimeout):
        await world.hold(None, pool, "line", shared=True, timeout=0)
    assert pool.waiting == 2
    assert pool.info(id).in_use == 1
    second.release()
    await sharing[1].result()
    await world.until(lambda: third.inside)
    assert (pool.info(id).in_use, late.done) == (3, False)
    third.release()
    await whole.result()
    assert await late.result() == "late"


@scenario
async def test_one_who_wanted_it_whole_gives_up(world: World) -> None:
    """The conn that was kept for him serves those behind him at once."""
    pool, hang, brief = await world.pool(), world.hang(), world.hang()
    await pool.put(world.conn("line", capacity=3))
    sharing = await world.holding(hang, pool, "line", shared=True)
    leaving = await world.holding(brief, pool, "line", shared=True)
    whole = await world.in_line(None, pool, "line", timeout=5)
    brief.release()
    await leaving.result()
    behind = await world.in_line(None, pool, "line", shared=True)
    assert pool.waiting == 2
    await world.advance(5)
    await whole.error(PoolTimeout)
    await behind.result()
    hang.release()
    await sharing.result()
    assert pool.stats().now.in_use == 0


@scenario
async def test_a_whole_one_among_shared_ones(world: World) -> None:
    """Who wants one whole gets one that is idle though others are used in part."""
    pool, hang = await world.pool(), world.hang()
    used = await pool.put(world.conn("line", capacity=2), extra=1)
    idle = await pool.put(world.conn("line", capacity=2), extra=2)
    sharing = await world.holding(hang, pool, "line", shared=True, filter=lambda i: i.extra == 1)
    for _ in range(2):
        lease = world.lease(pool, "line", timeout=0)
        async with lease:
            assert lease.id == idle
    assert pool.info(used).in_use == 1
    hang.release()
    await sharing.result()


@scenario
async def test_by_filter_and_method_choose(world: World) -> None:
    """As they do for calls."""
    pool = await world.pool()
    plain = await pool.put(world.conn("line"), extra="a")
    able = await pool.put(world.conn("line", methods=["say", "ask"]), extra="b")

    async def held_by(**wishes: Any) -> int:
        lease = world.lease(pool, "line", **wishes)
        async with lease:
            return lease.id  # type: ignore[no-any-return]

    for _ in range(3):
        assert await held_by(method="ask") == able
        assert await held_by(filter=lambda info: info.extra == "a") == plain
        assert await held_by(by=lambda infos: max(infos, key=lambda info: info.id)) == able
    assert len({await held_by(by=sticky("key")) for _ in range(5)}) == 1
    world.clock.advance(1)
    assert await held_by(method="ask") == able
    assert await held_by() == plain  # which has been idle longer
    for by in ("round_robin", "random", "least_used", "least_wait", "two_choices"):
        assert await held_by(by=by) in {plain, able}


# -- what cannot be had --------------------------------------------------------------------------


@scenario
async def test_resource_is_tested_before_method_before_filter(world: World) -> None:
    """Each error names what was asked and what there was instead."""
    pool = await world.pool(name="demo")
    await pool.put(world.conn("line"))

    def none(info: Any) -> bool:
        return False

    with pytest.raises(ResourceError) as no_resource:
        await world.hold(None, pool, "else", method="ask", filter=none)
    with pytest.raises(MethodError) as no_method:
        await world.hold(None, pool, "line", method="ask", filter=none)
    with pytest.raises(FilterError) as no_filter:
        await world.hold(None, pool, "line", method="say", filter=none)
    with pytest.raises(FilterError):
        await world.hold(None, pool, "line", filter=none)
    assert no_resource.value.resource == "else"
    assert no_method.value.methods == ("say",)
    assert no_filter.value.candidates == 1
    assert {error.value.pool for error in (no_resource, no_method, no_filter)} == {"demo"}
    assert pool.waiting == 0


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": -1}, {"timeout": "1"}, {"filter": 7}, {"by": "best"}, {"timeout": float("nan")}],
    ids=str,
)
@scenario
async def test_a_wrong_argument(world: World, wrong: dict[str, Any]) -> None:
    """It is told by `checkout` itself, before the block, and even where nothing is there."""
    pool = await world.pool()
    with pytest.raises((TypeError, ValueError)):
        pool.checkout("line", **wrong)


@scenario
async def test_what_no_key_can_be(world: World) -> None:
    """An unhashable resource or method is a TypeError, and nothing is harmed."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    with pytest.raises(TypeError):
        await world.hold(None, pool, [])
    with pytest.raises(TypeError):
        await world.hold(None, pool, "line", method=[])
    async with world.lease(pool, "line"):
        pass


@scenario
async def test_timeout_0_does_not_wait(world: World) -> None:
    """A free conn is had; one in use or at rest is a timeout; none alive is a resource."""
    pool = await world.pool()
    conn = world.conn("line", [Reply(1, cooldown=5), OSError("torn")], init=[None, OSError("no")])
    await pool.init(conn, revive=True)
    async with world.lease(pool, "line", timeout=0):
        with pytest.raises(PoolTimeout) as caught:
            await world.hold(None, pool, "line", timeout=0)
        assert "1 in use" in caught.value.summary
    await pool.call("line", "say")
    with pytest.raises(PoolTimeout):
        await world.hold(None, pool, "line", timeout=0)
    await world.advance(5)
    with pytest.raises(OSError, match="torn"):
        await pool.call("line", "say")
    with pytest.raises(ResourceError):
        await world.hold(None, pool, "line", timeout=0)
    assert pool.waiting == 0


@scenario
async def test_a_wait_ends_at_its_timeout(world: World) -> None:
    """Its own or the pool's; the error says what there was, and the place is not lost."""
    pool, hang = await world.pool(name="demo", timeout=9), world.hang()
    id = await pool.put(world.conn("line"))
    held = await world.holding(hang, pool, "line")
    brief = await world.in_line(None, pool, "line", timeout=5)
    long = await world.in_line(None, pool, "line")
    await world.advance(5)
    error = await brief.error(PoolTimeout)
    assert (error.pool, error.resource, error.waited, error.timeout) == ("demo", "line", 5.0, 5.0)
    assert "1 in use, the longest for 5.00 s" in error.summary
    assert not long.done
    await world.advance(4)
    assert (await long.error(PoolTimeout)).timeout == 9.0
    hang.release()
    await held.result()
    assert pool.info(id).in_use == 0
    async with world.lease(pool, "line", timeout=0):
        assert pool.stats().since_start.timeouts == 2


@scenario
async def test_a_place_that_comes_at_the_deadline_is_not_given(world: World) -> None:
    """Timeout and return at one instant: the error, and the conn goes to the next."""
    pool, hang = await world.pool(), world.hang()
    await pool.put(world.conn("line"))
    held = await world.holding(hang, pool, "line")
    late = await world.in_line(None, pool, "line", timeout=5)
    behind = await world.in_line(None, pool, "line")
    world.clock.advance(5)
    hang.release()
    await held.result()
    await late.error(PoolTimeout)
    await behind.result()


@scenario
async def test_a_full_line_and_a_closed_pool(world: World) -> None:
    """PoolFull and PoolClosed, as for calls; who waits is told when the pool closes."""
    pool, hang = await world.pool(max_waiting=1), world.hang()
    await pool.put(world.conn("line"))
    held = await world.holding(hang, pool, "line")
    waiting = await world.in_line(None, pool, "line")
    with pytest.raises(PoolFull):
        await world.hold(None, pool, "line")
    closing = world.start(pool.close, None)
    await waiting.error(PoolClosed)
    with pytest.raises(PoolClosed):
        await world.hold(None, pool, "line")
    hang.release()
    await held.result()
    await closing.result()


# -- the line ------------------------------------------------------------------------------------


@scenario
async def test_calls_and_checkouts_stand_in_one_line(world: World) -> None:
    """First come, first served, whichever of them they are."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", capacity=1)
    await pool.put(conn)
    order: list[int] = []

    async def hold(number: int) -> None:
        async with world.lease(pool, "line", shared=number % 3 == 2):
            order.append(number)

    async def call(number: int) -> None:
        await pool.call("line", "say", number)
        order.append(number)

    waiting = [await world.holding(hang, pool, "line")]
    for number in range(12):
        waiting.append(world.start(call if number % 3 == 0 else hold, number))
        await world.until(lambda: pool.waiting == len(waiting) - 1)
    hang.release()
    for one in waiting:
        await one.result()
    # What a call has noted it has noted after it gave its place back, and so perhaps too late.
    assert [number for number in order if number % 3] == [n for n in range(12) if n % 3]
    assert [payload for _, payload in conn.calls] == [0, 3, 6, 9]


@scenario
async def test_a_newcomer_does_not_overtake(world: World) -> None:
    """The conn is given to who waits, in the step in which it is returned."""
    pool, hang, second = await world.pool(), world.hang(), world.hang()
    await pool.put(world.conn("line"))
    first = await world.holding(hang, pool, "line")
    waiting = await world.in_line(second, pool, "line")
    hang.release()
    await first.result()
    for shared in (True, False):
        with pytest.raises(PoolTimeout):
            await world.hold(None, pool, "line", timeout=0, shared=shared)
    second.release()
    await waiting.result()


@scenario_of_tasks
async def test_cancelled_in_line(world: World) -> None:
    """It leaves the line, is lent nothing, and whoever stood behind it moves up."""
    pool, hang = await world.pool(), world.hang()
    await pool.put(world.conn("line", lend=["first", "behind"]))
    held = await world.holding(hang, pool, "line")
    waiting = await world.in_line(None, pool, "line")
    behind = await world.in_line(None, pool, "line")
    waiting.cancel()
    await waiting.end()
    assert pool.waiting == 1
    hang.release()
    assert await held.result() == "first"
    assert await behind.result() == "behind"
    assert pool.stats().since_start.cancelled == 1


# -- one lease, one block ------------------------------------------------------------------------


@scenario
async def test_a_lease_that_has_not_begun_or_is_over(world: World) -> None:
    """It has nothing to give, and says so."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    lease = world.lease(pool, "line")
    for what in ("has not begun", "is over"):
        for name in ("conn", "id", "info"):
            with pytest.raises(RuntimeError, match=f"this checkout of 'line' {what}"):
                getattr(lease.bare, name)
        with pytest.raises(RuntimeError, match=what):
            await lease.__aexit__(None, None, None)
        assert "nothing" in repr(lease.bare)
        if what == "has not begun":
            async with lease:
                pass


@scenario
async def test_a_lease_is_for_one_block(world: World) -> None:
    """A second one is refused, within the first and after it, and nothing is lost by that."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    await pool.put(world.conn("line"))
    lease = world.lease(pool, "line")
    async with lease as held:
        with pytest.raises(RuntimeError, match="used already"):
            await lease.__aenter__()
        assert lease.conn is held
        assert pool.stats().now.in_use == 1
    with pytest.raises(RuntimeError, match="used already"):
        await lease.__aenter__()
    assert pool.stats().now.in_use == 0
    assert pool.stats().since_start.checkouts == 1


# -- nested --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@scenario
async def test_who_would_wait_for_himself_is_told(world: World, shared: bool) -> None:
    """A checkout within a checkout of the only conn, or a call: an error at once, not a hang."""
    pool = await world.pool(timeout=None)
    id = await pool.put(world.conn("line"))
    async with world.lease(pool, "line", shared=shared):
        for inner in (False, True):
            with pytest.raises(NestedCall):
                await world.hold(None, pool, "line", shared=inner)
        with pytest.raises(NestedCall):
            await pool.call("line", "say")
        with pytest.raises(NestedCall):
            await pool.pop(id)
    assert await pool.call("line", "say", "fine") == "fine"


@scenario
async def test_one_place_of_ones_own_is_in_the_way_of_the_whole(world: World) -> None:
    """Who shares a conn and asks for the same one whole would wait for himself."""
    pool = await world.pool(timeout=None)
    await pool.put(world.conn("line", capacity=2))
    async with world.lease(pool, "line", shared=True):
        with pytest.raises(NestedCall):
            await world.hold(None, pool, "line")
        async with world.lease(pool, "line", shared=True):
            assert pool.stats().now.in_use == 2
            with pytest.raises(NestedCall):
                await world.hold(None, pool, "line", shared=True)


@scenario
async def test_a_checkout_within_a_call(world: World) -> None:
    """On the same conn it is told, on another it is fine; the call goes on."""
    pool = await world.pool(timeout=None)
    ends: list[Any] = []

    async def act(method: Any, payload: Any) -> str:
        try:
            await world.hold(None, pool, "line")
        except NestedCall as error:
            ends.append(error.resource)
        ends.append(await world.hold(None, pool, "else"))
        return "called"

    other = world.conn("else")
    await pool.put(world.conn("line", [Do(world.plain(act))]))
    await pool.put(other)
    assert await pool.call("line", "say") == "called"
    assert ends == ["line", other]


@scenario
async def test_others_may_have_what_one_does_not_hold(world: World) -> None:
    """A nested checkout of a second conn is granted; where somebody else has it, it is waited
    for, and the error of the timeout says so."""
    pool, hang = await world.pool(), world.hang()
    await pool.put(world.conn("line"))
    await pool.put(world.conn("line"))
    async with world.lease(pool, "line") as mine:
        async with world.lease(pool, "line", timeout=0) as second:
            assert second is not mine
        held = await world.holding(hang, pool, "line")
        with pytest.raises(PoolTimeout):
            await world.hold(None, pool, "line", timeout=0)
        hang.release()
        assert await held.result() is second
        async with world.lease(pool, "line") as second:
            assert second is not mine
