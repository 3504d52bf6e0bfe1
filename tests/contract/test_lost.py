"""Checkouts that do not end as they should: lost, outlived by their conn, or by the pool."""

from __future__ import annotations

import functools
import gc
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from connpool import Closed, IdError, PoolClosed, PoolTimeout, ResourceError

from .worlds import PoolFace, World, scenario

# -- leases that are lost ------------------------------------------------------------------------


async def take(pool: PoolFace, world: World, *args: Any, **kwargs: Any) -> Any:
    """Begin a checkout by hand; who drops what this gives has lost it."""
    lease = pool.bare.checkout(*args, **kwargs)
    await world.held(lease).__aenter__()
    return lease


told_of_a_loss = functools.partial(pytest.warns, ResourceWarning, match="never given back")


@pytest.mark.parametrize("waiter", ["call", "hold"])
@scenario
async def test_a_lease_that_is_collected(world: World, waiter: str) -> None:
    """Who waits gets the conn, made anew, within a second; a warning names the line."""
    pool = await world.pool(name="demo")
    conn = world.conn("line", reset=[])
    id = await pool.put(conn, revive=True)
    lease = pool.bare.checkout("line")
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    await world.held(lease).__aenter__()
    if waiter == "call":
        waiting = await world.queued(pool, "line", "say")
    else:
        waiting = await world.in_line(None, pool, "line", timeout=3)
        conn.reset = None
    with told_of_a_loss() as told:
        del lease
        gc.collect()
        await world.advance(1)
        await waiting.result()
    assert [(w.filename, w.lineno) for w in told] == [(__file__, line)]
    assert f"pool 'demo': conn {id} to 'line' was checked out here" in str(told[0].message)
    assert (conn.closes, conn.opened) == (1, 1)
    assert pool.stats().since_start.lost == 1
    assert pool.stats().since_start.ended == {"forsaken": 1}


@pytest.mark.parametrize("ask", ["checkout", "info", "stats"])
@scenario
async def test_whoever_asks_next_finds_a_collected_lease(world: World, ask: str) -> None:
    """Nobody has to wait for it to be found."""
    pool = await world.pool()
    conn = world.conn("line")
    id = await pool.put(conn, revive=True)
    world.clock.advance(1)
    lease = await take(pool, world, "line")
    with told_of_a_loss():
        del lease
        gc.collect()
        if ask == "checkout":
            assert await world.hold(None, pool, "line") is conn
        else:
            assert pool.info(id).in_use == 0 if ask == "info" else not pool.stats().now.in_use
        await world.advance(0)
    assert (conn.closes, conn.opened) == (1, 1)


@scenario
async def test_a_collected_lease_of_a_supply(world: World) -> None:
    """The conn is replaced by another."""
    pool, works = await world.pool(), world.works()
    await pool.supply("line", works, max_size=1)
    lease = await take(pool, world, "line")
    with told_of_a_loss():
        del lease
        gc.collect()
        assert await world.hold(None, pool, "line") is works.made[1]
    assert works.made[0].closes == 1


@pytest.mark.parametrize("shared", [False, True])
@scenario
async def test_the_holder_is_gone(world: World, shared: bool) -> None:
    """Its thread has ended, or its task, and something still refers to the lease: the first one
    that waits gets the conn, made anew, within a second."""
    pool = await world.pool()
    conn = world.conn("line", capacity=2 if shared else 1)
    await pool.put(conn, revive=True)
    handles = [world.start(take, pool, world, "line", shared=shared) for _ in range(1 + shared)]
    for handle in handles:
        await handle.result()
        await world.gone(handle)
    waiting = await world.queued(pool, "line", "say", "served")
    with told_of_a_loss() as told:
        await world.advance(1)
        assert await waiting.result() == "served"
    assert {w.filename for w in told} == {__file__}
    assert (conn.closes, conn.opened) == (1, 1)
    for handle in handles:  # that they are ended after all changes nothing
        await world.held(await handle.result()).__aexit__(None, None, None)
    assert pool.stats().now.in_use == 0
    assert await pool.call("line", "say", "still") == "still"


@scenario
async def test_one_of_those_who_share_a_conn_is_gone(world: World) -> None:
    """The warning names the line where that one has checked it out, and not the last that was."""

    async def take_here(pool: PoolFace, world: World) -> Any:
        lease = pool.bare.checkout("line", shared=True)
        await world.held(lease).__aenter__()
        return lease, inspect.currentframe().f_lineno - 2  # type: ignore[union-attr]

    pool, hang = await world.pool(), world.hang()
    await pool.put(world.conn("line", capacity=3), revive=True)
    handle = world.start(take_here, pool, world)
    lease, line = await handle.result()
    await world.gone(handle)
    living = await world.holding(hang, pool, "line", shared=True)
    waiting = await world.in_line(None, pool, "line", timeout=3)
    with told_of_a_loss() as told:
        await world.advance(1)
        hang.release()
        await living.result()
        await waiting.result()
    assert [(w.filename, w.lineno) for w in told] == [(__file__, line)]
    await world.held(lease).__aexit__(None, None, None)
    assert pool.stats().now.in_use == 0


@scenario
async def test_a_holder_that_lives_keeps_its_conn(world: World) -> None:
    """However long, and whoever waits."""
    pool, hang = await world.pool(timeout=None), world.hang()
    conn = world.conn("line")
    await pool.put(conn)
    held = await world.holding(hang, pool, "line")
    waiting = await world.queued(pool, "line", "say")
    for _ in range(5):
        await world.advance(1)
    assert not waiting.done
    hang.release()
    assert await held.result() is conn
    await waiting.result()
    assert conn.closes == 0


@scenario
async def test_a_lost_lease_may_be_told_as_an_error(world: World) -> None:
    """Where warnings are errors it is logged instead: whoever finds it is not to blame."""
    pool = await world.pool()
    conn = world.conn("line")
    await pool.put(conn)
    lease = await take(pool, world, "line")
    del lease
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert pool.stats().now.in_use == 0
    await world.advance(0)
    assert conn.closes == 1


@scenario
async def test_a_lease_outlives_its_pool(world: World) -> None:
    """Dropped after the pool was closed, it harms nobody and warns of nothing."""
    pool = await world.pool()
    conn = world.conn("line")
    await pool.put(conn)
    lease = await take(pool, world, "line")
    await pool.close(0)
    await world.until(lambda: conn.closes)
    del lease
    gc.collect()
    assert len(pool.infos() if world.name == "threads" else []) == 0


# -- the pool closes -----------------------------------------------------------------------------


@scenario
async def test_close_waits_for_those_who_hold(world: World) -> None:
    """Within its timeout: they end well, are reset no more, and their conns are closed then."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", reset=[None])
    idle = world.conn("line")
    await pool.put(idle)
    await pool.put(conn, extra="held")
    held = await world.holding(hang, pool, "line", filter=lambda info: info.extra == "held")
    waiting = await world.in_line(None, pool, "line", filter=lambda info: info.extra == "held")
    closing = world.start(pool.close, None)
    await waiting.error(PoolClosed)
    await world.until(lambda: idle.closes)
    assert (closing.done, conn.closes) == (False, 0)
    hang.release()
    assert await held.result() is conn
    await closing.result()
    assert conn.closes == 1


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("error", [None, ValueError("late"), Closed()], ids=repr)
@scenario
async def test_who_does_not_come_back_in_time(
    world: World, shared: bool, error: Exception | None, resets: bool
) -> None:
    """The conn is closed under him; when he comes back later, nothing more is done with it."""
    pool, hang = await world.pool(), world.hang(error)
    conn = world.conn("line", capacity=2, **({"reset": []} if resets else {}))
    await pool.put(conn)
    held = await world.holding(hang, pool, "line", shared=shared)
    await pool.close(0)
    await world.until(lambda: conn.closes)
    hang.release()
    assert await held.end() is error
    assert (conn.closes, conn.resets) == (1, 0)


@scenario
async def test_who_holds_may_close_the_pool(world: World) -> None:
    """He is not waited for; his conn is closed under him."""
    pool = await world.pool()
    conn = world.conn("line")
    await pool.put(conn)
    async with world.lease(pool, "line"):
        await pool.close(None)
        await world.until(lambda: conn.closes)
        with pytest.raises(PoolClosed):
            await world.hold(None, pool, "line")
    assert conn.closes == 1


# -- the conn changes meanwhile ------------------------------------------------------------------


@scenario
async def test_a_conn_expires_while_it_is_held(world: World) -> None:
    """Its user keeps it to the end of the block; then it is closed, and revived."""
    pool = await world.pool()
    conn = world.conn("line", reset=[None])
    await pool.init(conn, ttl=10, revive=True)
    async with world.lease(pool, "line"):
        await world.advance(10)
        assert conn.closes == 0
        assert pool.stats().now.conns == 0
    await world.advance(0)
    assert (conn.closes, conn.opened) == (1, 2)
    await world.hold(None, pool, "line", shared=True)


@scenario
async def test_a_pop_waits_for_who_holds(world: World) -> None:
    """It gets the conn, open, when the block is over; within its timeout or not at all."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line")
    id = await pool.put(conn)
    held = await world.holding(hang, pool, "line")
    with pytest.raises(PoolTimeout):
        await pool.pop(id, timeout=0)
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    with pytest.raises(ResourceError):
        await world.hold(None, pool, "line")
    hang.release()
    await held.result()
    assert await popping.result() is conn
    assert conn.closes == 0
    with pytest.raises(IdError):
        pool.info(id)


@scenario
async def test_what_a_holder_may_tell_the_pool(world: World) -> None:
    """Extra and the rest, by the id of the lease; a new capacity counts when it is back."""
    pool = await world.pool()
    conn = world.conn("line")
    await pool.put(conn, extra="old")
    lease = world.lease(pool, "line")
    async with lease:
        assert pool.extra(lease.id, "new") == "old"
        changed = await pool.update("line", filter=lambda i: i.id == lease.id, capacity=3, ttl=50)
        assert changed == 1
        assert (lease.info.extra, lease.info.capacity, lease.info.ttl) == ("new", 3, 50)
        assert lease.info.in_use == 3
        with pytest.raises(PoolTimeout):
            await pool.call("line", "say", timeout=0)
    assert pool.info(pool.infos()[0].id).in_use == 0
    async with world.lease(pool, "line", shared=True), world.lease(pool, "line", shared=True):
        assert pool.stats().now.in_use == 2
        await pool.update("line", capacity=1)
        assert pool.stats().now.in_use == 2
    assert pool.stats().now.in_use == 0
    async with world.lease(pool, "line", timeout=0):
        assert pool.stats().now.in_use == 1


@scenario
async def test_a_whole_conn_becomes_smaller(world: World) -> None:
    """It is held whole all the same, and is back whole."""
    pool = await world.pool()
    conn = world.conn("line", capacity=3)
    id = await pool.put(conn)
    async with world.lease(pool, "line"):
        await pool.update("line", capacity=2)
        assert pool.info(id).in_use == 2
    assert pool.info(id).in_use == 0
    async with world.lease(pool, "line", shared=True), world.lease(pool, "line", shared=True):
        assert pool.info(id).in_use == 2


@scenario
async def test_route_passes_over_what_somebody_has_for_himself(world: World) -> None:
    """By every strategy; where there is nothing else it is a timeout, and shared ones are given."""
    pool = await world.pool()
    conns = [world.conn("line", capacity=2) for _ in range(2)]
    for conn in conns:
        await pool.put(conn)
    strategies = ("round_robin", "random", "least_used", "least_wait", "two_choices")
    async with world.lease(pool, "line") as held:
        (free,) = [conn for conn in conns if conn is not held]
        for by in strategies:
            assert {pool.route("line", by=by) for _ in range(8)} == {free}
        assert pool.route("line", by=lambda infos: infos[0]) is free
        assert pool.route("line", filter=lambda info: True) is free
        async with world.lease(pool, "line", shared=True):
            assert pool.route("line") is free
        async with world.lease(pool, "line"):
            for by in strategies:
                with pytest.raises(PoolTimeout):
                    pool.route("line", by=by)
    assert {pool.route("line") for _ in range(4)} == set(conns)


# -- a conn that learns of its loss --------------------------------------------------------------


async def listener(world: World, pool: PoolFace, **more: Any) -> tuple[Any, int]:
    """A conn that is told whom to tell."""
    conn = world.conn("line")
    conn.on_lost = None
    id = await pool.put(conn, **more)
    assert callable(conn.on_lost)
    return conn, id


@scenario
async def test_a_lost_conn_leaves_at_once(world: World) -> None:
    """From that very moment it is neither routed to nor lent; it is revived, and the others are
    told why."""
    losses: list[str] = []
    pool = await world.pool(on_disconnect=lambda info, reason: losses.append(reason))
    conn, id = await listener(world, pool, revive=True)
    torn = OSError("torn")
    conn.on_lost(torn)
    assert id not in pool
    with pytest.raises(ResourceError) as caught:
        pool.route("line")
    assert caught.value.__cause__ is torn
    await world.advance(0)
    assert pool.route("line") is conn
    assert (conn.closes, conn.opened, losses) == (1, 1, ["dead"])


@scenario
async def test_what_is_said_of_an_earlier_life_comes_too_late(world: World) -> None:
    """A duplicate, one from before the revival, and one after the conn has gone change nothing."""
    pool = await world.pool()
    conn, id = await listener(world, pool, revive=True)
    first = conn.on_lost
    first()
    first()
    await world.advance(0)
    assert id in pool
    assert conn.on_lost is not first
    first()
    assert id in pool
    assert (conn.closes, conn.opened) == (1, 1)
    await pool.pop(id)
    conn.on_lost()
    await close_popped(conn)
    other, _ = await listener(world, pool)
    await pool.close(0)
    await world.until(lambda: other.closes)
    other.on_lost()
    assert other.closes == 1


async def close_popped(conn: Any) -> None:
    """Close what was popped, as its user would."""
    given = conn.close()
    if inspect.isawaitable(given):
        await given
    conn.closes -= 1  # the world counts what the pool has closed


@scenario
async def test_a_conn_is_lost_under_its_holder(world: World) -> None:
    """It is closed at once, so that he notices; when he is gone it is revived."""
    pool, hang = await world.pool(), world.hang()
    conn, id = await listener(world, pool, revive=True)
    held = await world.holding(hang, pool, "line")
    waiting = await world.queued(pool, "line", "say", "served")
    conn.on_lost(OSError("torn"))
    assert id not in pool
    await world.until(lambda: conn.closes)
    hang.release()
    await held.result()
    assert await waiting.result() == "served"
    assert (conn.closes, conn.opened) == (1, 1)


@scenario
async def test_a_loss_is_told_from_another_thread(world: World) -> None:
    """As by a thread that reads; the conn leaves at once, or as soon as the loop comes to it."""
    pool = await world.pool()
    conn, id = await listener(world, pool)
    world.loose(conn)
    await in_thread(world, conn.on_lost)
    await world.until(lambda: id not in pool)
    await world.until(lambda: conn.closes)
    assert conn.closes == 1


async def in_thread(world: World, function: Callable[[], Any]) -> None:
    """Do something in a thread of its own, and wait for that to end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await world.until(lambda: not thread.is_alive())
    assert errors == []


# -- what can be seen ----------------------------------------------------------------------------


@scenario
async def test_the_report_names_who_holds_a_conn_and_where(world: World) -> None:
    """With trace=True: the holder, the line of the checkout and the line where he is now."""
    pool, hang = await world.pool(name="demo"), world.hang()
    id = await pool.put(world.conn("line"))
    lease = pool.bare.checkout("line")
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    async with world.held(lease):
        world.clock.advance(7)
        waiting = await world.queued(pool, "line", "say")
        text = pool.report(trace=True)
        assert f"conn {id}: ready, 1 of 1 in use, checked out by" in text
        assert "for 7.00 s" in text
        assert f"checked out at {__file__}:{line} (" in text
        assert f"conn {id} has been in use for 7 s: look at" in text
        assert "ScriptedConn" not in text
        assert "checked out at" not in pool.report()
    await waiting.result()
    held = await world.holding(hang, pool, "line")
    assert "now at" in pool.report(trace=True)
    hang.release()
    await held.result()
    assert "nobody waits" in pool.report(trace=True)


@scenario
async def test_the_numbers_of_checkouts(world: World) -> None:
    """They are counted when they are over, apart from calls."""
    pool = await world.pool()
    conn = world.conn("line", capacity=2)
    await pool.put(conn, revive=True)
    world.clock.advance(1)
    for number in range(3):
        await world.hold(None, pool, "line", shared=number == 1)
    with pytest.raises(ValueError, match="oops"):
        await world.hold(ValueError("oops"), pool, "line")
    await pool.call("line", "say")
    seen = pool.stats().since_start
    assert (seen.checkouts, seen.calls, seen.errors, seen.lost) == (4, 1, 0, 0)
    assert seen.ended == {"unclean": 1}
