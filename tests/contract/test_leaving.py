"""Taking conns out, closing the pool, and what is told of both: pop, pop_all, close, callbacks."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from connpool import (
    Busy,
    Closed,
    FilterError,
    IdError,
    Info,
    NestedCall,
    PoolClosed,
    PoolTimeout,
    Reply,
    ResourceError,
)
from connpool.testing import Do

from .worlds import World, scenario, scenario_of_tasks

# -- pop -----------------------------------------------------------------------------------------


@scenario
async def test_pop_gives_the_conn_without_closing_it(world: World) -> None:
    """It is gone from the pool, and may be put into this or another one."""
    pool, other, conn = await world.pool(), await world.pool(), world.conn("line", ["fine"])
    id = await pool.put(conn, revive=True)
    assert await pool.pop(id) is conn
    assert (id in pool, len(pool), pool.resources(), conn.closes) == (False, 0, [], 0)
    for question in (pool.info, pool.pop):
        with pytest.raises(IdError):
            given = question(id)
            await given
    await other.put(conn)
    assert await other.call("line", "say") == "fine"
    assert pool.stats().since_start.ended == {"popped": 1}


@scenario
async def test_pop_then_call(world: World) -> None:
    """Callers are told that there is no conn any more, or get another one."""
    pool = await world.pool()
    ids = [await pool.put(world.conn("line", ["first"])), await pool.put(world.conn("line", [2]))]
    await pool.pop(ids[0])
    assert await pool.call("line", "say") == 2
    await pool.pop(ids[1])
    with pytest.raises(ResourceError):
        await pool.call("line", "say")


@scenario
async def test_pop_waits_for_the_call_that_runs(world: World) -> None:
    """That one ends well; the conn gets no new ones meanwhile."""
    pool, hang = await world.pool(), world.hang("finished")
    conn = world.conn("line", [hang])
    id = await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    with pytest.raises(ResourceError):
        await pool.call("line", "say")
    assert (id in pool, popping.done) == (False, False)
    hang.release()
    assert await running.result() == "finished"
    assert await popping.result() is conn
    conn.assert_drained()


@scenario
async def test_pop_with_calls_queued_behind_it(world: World) -> None:
    """They go to another conn in their order, and where there is none they are told at once."""
    pool, hang, busy = await world.pool(), world.hang(), world.hang()
    first, second = world.conn("line", [hang]), world.conn("line", [busy, "a", "b"])
    ids = [await pool.put(first), await pool.put(second)]
    running = [await world.running(h, pool, "line", "say") for h in (hang, busy)]
    queued = [await world.queued(pool, "line", "say", number) for number in range(2)]
    picky = await world.queued(pool, "line", "say", filter=lambda info: info.id == ids[0])
    popping = world.start(pool.pop, ids[0])
    await picky.error(FilterError)
    busy.release()
    assert [await caller.result() for caller in queued] == ["a", "b"]
    hang.release()
    for caller in running:
        await caller.result()
    assert await popping.result() is first
    assert [payload for _, payload in second.calls] == [None, 0, 1]


@pytest.mark.parametrize(
    "end",
    [Reply("bye", closed=True), Reply("tired", cooldown=9), Closed(), Busy(9), OSError("torn")],
    ids=lambda end: type(end).__name__,
)
@scenario
async def test_pop_takes_the_conn_however_its_call_ends(world: World, end: Any) -> None:
    """What it says of itself at the end is no longer the pool's affair."""
    pool, hang = await world.pool(), world.hang(end)
    conn = world.conn("line", [hang])
    id = await pool.put(conn, revive="force")
    running = await world.running(hang, pool, "line", "say")
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    hang.release()
    assert await popping.result() is conn
    await running.end()
    assert (len(pool), conn.inits, conn.closes) == (0, [], 0)


@scenario
async def test_a_pop_that_takes_too_long_leaves_the_conn_in_the_pool(world: World) -> None:
    """PoolTimeout; after that the conn serves on."""
    pool, hang = await world.pool(), world.hang("finished")
    id = await pool.put(world.conn("line", [hang, "waits", "next"]))
    running = await world.running(hang, pool, "line", "say")
    for timeout in (0, 0.01):
        with pytest.raises(PoolTimeout):
            await pool.pop(id, timeout=timeout)
        assert id in pool
    waiting = await world.queued(pool, "line", "say")
    hang.release()
    assert (await running.result(), await waiting.result()) == ("finished", "waits")
    assert await pool.call("line", "say") == "next"


@scenario
async def test_timeout_0_pops_a_conn_that_nobody_uses(world: World) -> None:
    """A resting one too."""
    pool = await world.pool()
    conns = [world.conn("a"), world.conn("b", [Reply(1, cooldown=50)])]
    ids = [await pool.put(conn) for conn in conns]
    await pool.call("b", "say")
    assert [await pool.pop(id, timeout=0) for id in ids] == conns


@scenario
async def test_two_pops_of_one_conn(world: World) -> None:
    """The second finds it gone already."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang])
    id = await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    with pytest.raises(IdError):
        await pool.pop(id)
    hang.release()
    await running.result()
    assert await popping.result() is conn


@scenario
async def test_a_pop_from_inside_a_call_on_the_same_conn(world: World) -> None:
    """It would wait for itself: an error at once, and the conn stays."""
    pool = await world.pool()

    async def nest(method: Any, payload: Any) -> Any:
        with pytest.raises(NestedCall, match="wait for itself"):
            await pool.pop(payload)
        with pytest.raises(NestedCall, match="wait for itself"):
            await pool.pop_all("line")
        return "outer"

    id = await pool.put(world.conn("line", [Do(world.plain(nest)), "after"]))
    assert await pool.call("line", "say", id) == "outer"
    assert await pool.call("line", "say") == "after"


@scenario
async def test_pop_of_a_conn_that_is_being_revived(world: World) -> None:
    """It comes out when its init is over, whatever came of that."""
    for end in (None, OSError("refused")):
        pool, hang = await world.pool(), world.hang(end)
        conn = world.conn("line", [BrokenPipeError()], init=[None, hang])
        id = await pool.init(conn, revive=True)
        with pytest.raises(BrokenPipeError):
            await pool.call("line", "say")
        await world.until(lambda hang=hang: hang.inside)  # type: ignore[misc]
        popping = world.start(pool.pop, id)
        await world.until(lambda pool=pool: pool.stats().now.draining)  # type: ignore[misc]
        hang.release()
        assert await popping.result() is conn
        assert (len(pool), pool.infos()) == (0, [])
        world.loose(conn)
        assert conn.closes == 1


@scenario_of_tasks
async def test_a_cancelled_pop_leaves_the_conn_in_the_pool(world: World) -> None:
    """As if nobody had asked."""
    pool, hang = await world.pool(), world.hang()
    id = await pool.put(world.conn("line", [hang, "next"]))
    running = await world.running(hang, pool, "line", "say")
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    popping.cancel()
    await popping.end()
    assert id in pool
    hang.release()
    await running.result()
    assert await pool.call("line", "say") == "next"


# -- pop_all -------------------------------------------------------------------------------------


@scenario
async def test_pop_all_takes_the_conns_of_a_resource(world: World) -> None:
    """Those that pass the filter, whatever they do; the others stay."""
    pool, hang = await world.pool(), world.hang()
    conns = [world.conn("line", [hang]), world.conn("line"), world.conn(["line", "else"])]
    for extra, conn in enumerate(conns):
        await pool.put(conn, extra=extra)
    stays = await pool.put(world.conn("line"), extra=9)
    other = await pool.put(world.conn("other"))
    running = await world.running(hang, pool, "line", "say")
    popping = world.start(pool.pop_all, "line", lambda info: info.extra < 9)
    await world.until(lambda: pool.stats().now.draining == 3)
    hang.release()
    await running.result()
    assert await popping.result() == conns
    assert (stays in pool, other in pool, len(pool)) == (True, True, 2)
    assert pool.empty("else")
    assert await pool.pop_all("nowhere") == []


@scenario
async def test_pop_all_takes_all_or_none(world: World) -> None:
    """Where one is not free within the pool's timeout, all of them stay."""
    pool, hang = await world.pool(timeout=0.01), world.hang()
    ids = [await pool.put(world.conn("line", [hang, 1, 2, 3])) for _ in range(3)]
    running = await world.running(hang, pool, "line", "say", timeout=None)
    with pytest.raises(PoolTimeout):
        await pool.pop_all("line")
    assert all(id in pool for id in ids)
    hang.release()
    await running.result()
    assert len(await pool.pop_all("line")) == 3


# -- close ---------------------------------------------------------------------------------------


@scenario
async def test_close_closes_every_conn_once(world: World) -> None:
    """Free ones, resting ones, and those that are being revived; closing again does nothing."""
    pool, never = await world.pool(), OSError("refused")
    conns = [
        world.conn("a"),
        world.conn("b", [Reply(1, cooldown=50)]),
        world.conn("c", [BrokenPipeError()], init=[None, never]),
    ]
    for conn in conns:
        await pool.init(conn, revive=True)
    assert await pool.call("b", "say") == 1
    with pytest.raises(BrokenPipeError):
        await pool.call("c", "say")
    await world.advance(0)
    for _ in range(3):
        await pool.close()
        assert [conn.closes for conn in conns] == [1, 1, 1]
    assert "closed" in repr(pool.bare)


@scenario
async def test_a_closed_pool_does_no_new_work(world: World) -> None:
    """Everything that asks for some is a PoolClosed; questions are answered."""
    pool = await world.pool(name="demo")
    await pool.put(world.conn("line"))
    await pool.close()
    conn = world.conn("line")
    with pytest.raises(PoolClosed, match="'demo' is closed") as caught:
        await pool.call("line", "say")
    assert caught.value.pool == "demo"
    for refused in (pool.put(conn), pool.init(conn)):
        with pytest.raises(PoolClosed):
            await refused
    assert (conn.inits, conn.closes) == ([], 0)


@scenario
async def test_those_who_wait_are_told_at_once(world: World) -> None:
    """Callers and poppers get PoolClosed; the call that runs may finish."""
    pool, hang = await world.pool(), world.hang("finished")
    conn = world.conn("line", [hang])
    id = await pool.put(conn)
    other = world.hang()
    await pool.put(world.conn("else", [other]))
    running = [await world.running(hang, pool, "line", "say")]
    running.append(await world.running(other, pool, "else", "say"))
    waiting = [await world.queued(pool, "line", "say", timeout=None) for _ in range(5)]
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    for caller in waiting:
        await caller.error(ResourceError)
    waiting = [await world.queued(pool, "else", "say", timeout=None) for _ in range(5)]
    closing = world.start(pool.close, timeout=None)
    for caller in (*waiting, popping):
        await caller.error(PoolClosed)
    assert not closing.done
    hang.release()
    other.release()
    assert await running[0].result() == "finished"
    await running[1].result()
    await closing.result()
    assert conn.closes == 1


@scenario
async def test_a_call_that_outlasts_the_close(world: World) -> None:
    """Its conn is closed under it, and the pool forgets it."""
    pool, hang = await world.pool(), world.hang("late")
    conn = world.conn("line", [hang])
    await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    await pool.close(timeout=0)
    assert conn.closes == 1
    hang.release()
    assert await running.result() == "late"
    assert conn.closes == 1


@scenario
async def test_a_conn_that_opens_while_the_pool_closes(world: World) -> None:
    """Who adds it gets PoolClosed, and it is closed again."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", init=[hang])
    opening = world.start(pool.init, conn)
    await world.until(lambda: hang.inside)
    await pool.close(timeout=0)
    hang.release()
    await opening.error(PoolClosed)
    await world.until(lambda: conn.closes == conn.opened)


@scenario
async def test_a_call_that_closes_its_own_pool(world: World) -> None:
    """It is not waited for, and still gets its reply."""
    pool = await world.pool()

    async def nest(method: Any, payload: Any) -> Any:
        await pool.close()
        return "closed it"

    conn = world.conn("line", [Do(world.plain(nest))])
    await pool.put(conn)
    assert await pool.call("line", "say") == "closed it"
    assert conn.closes == 1


# -- callbacks -----------------------------------------------------------------------------------


@scenario
async def test_on_connect_and_on_disconnect_are_told(world: World) -> None:
    """Each time a conn is ready, and each time it is given up, with the reason."""
    told: list[tuple[str, ...]] = []

    def connected(info: Info) -> None:
        told.append((info.extra, info.state))

    def disconnected(info: Info, reason: str) -> None:
        told.append((info.extra, "gone", reason))

    pool = await world.pool(on_connect=connected, on_disconnect=disconnected)
    steps = {
        "done": [Reply(1, closed=True)],
        "closed": [Closed()],
        "dead": [OSError()],
        "call error": [RuntimeError()],
    }
    for extra, script in steps.items():
        await pool.put(world.conn(extra, script), extra=extra)
        try:
            await pool.call(extra, "say")
        except (OSError, RuntimeError, ResourceError):
            pass
        await world.advance(0)
    await pool.put(world.conn("ttl"), extra="ttl", ttl=5)
    await world.advance(5)
    id = await pool.init(world.conn("pop", init=[3]), extra="pop")
    await pool.pop(id)
    await pool.init(world.conn("again", [OSError()]), extra="again", revive=True)
    with pytest.raises(OSError):  # noqa: PT011 - it has no text
        await pool.call("again", "say")
    await world.advance(0)
    await pool.close()
    expected = [
        ("done", "ready"),
        ("done", "gone", "done"),
        ("closed", "ready"),
        ("closed", "gone", "closed"),
        ("dead", "ready"),
        ("dead", "gone", "dead"),
        ("call error", "ready"),
        ("ttl", "ready"),
        ("ttl", "gone", "expired"),
        ("pop", "cooling"),
        ("pop", "gone", "popped"),
        ("again", "ready"),
        ("again", "gone", "dead"),
        ("again", "ready"),
        ("again", "gone", "pool closed"),
        ("call error", "gone", "pool closed"),
    ]
    assert (told[:-2], sorted(told[-2:])) == (expected[:-2], expected[-2:])


@scenario
async def test_callbacks_may_ask_the_pool(world: World) -> None:
    """They run outside every lock, when what they tell of is true already."""
    seen: list[tuple[str, bool, int]] = []

    def connected(info: Info) -> None:
        seen.append(("up", info.id in pool, pool.info(info.id).id))

    def disconnected(info: Info, reason: str) -> None:
        seen.append(("down", info.id in pool, len(pool)))

    pool = await world.pool(on_connect=connected, on_disconnect=disconnected)
    id = await pool.put(world.conn("line", [Reply(1, closed=True)]))
    assert await pool.call("line", "say") == 1
    await world.advance(0)
    assert seen == [("up", True, id), ("down", False, 0)]


@scenario
async def test_a_callback_that_raises_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And changes nothing."""

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("in a callback")

    pool = await world.pool(name="demo", on_connect=broken, on_disconnect=broken)
    conn = world.conn("line", ["fine", BrokenPipeError(), "back"])
    with caplog.at_level(logging.ERROR, "connpool"):
        id = await pool.init(conn, revive=True)
        assert await pool.call("line", "say") == "fine"
        with pytest.raises(BrokenPipeError):
            await pool.call("line", "say")
        assert await pool.call("line", "say") == "back"
        await world.advance(0)
    assert id in pool
    assert [record.getMessage() for record in caplog.records] == ["demo: a callback raised"] * 3
