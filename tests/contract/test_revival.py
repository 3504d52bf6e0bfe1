"""Expiry, death and revival: what becomes of a conn over time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool import (
    Backoff,
    Closed,
    InitError,
    PoolFull,
    PoolTimeout,
    Reply,
    ResourceError,
)

from .worlds import World, scenario

STEADY = Backoff(first=1, factor=2, jitter=0, most=8)

# -- init ----------------------------------------------------------------------------------------


@scenario
async def test_init_may_ask_for_a_rest(world: World) -> None:
    """A number that init returns is the seconds until the first call."""
    pool, conn = await world.pool(), world.conn("line", ["served"], init=[2.5])
    id = await pool.init(conn)
    assert (pool.info(id).state, pool.info(id).cooldown, id in pool) == ("cooling", 2.5, True)
    caller = await world.queued(pool, "line", "say")
    await world.advance(2.5)
    assert await caller.result() == "served"


@pytest.mark.parametrize(
    "error",
    [OSError("refused"), InitError("later", retry_after=5), InitError("never"), ValueError("no")],
    ids=str,
)
@scenario
async def test_an_error_of_the_first_init_reaches_its_caller(
    world: World, error: Exception
) -> None:
    """Nothing is added, nothing is tried again, and the same conn may be added later."""
    pool, conn = await world.pool(), world.conn("line", init=[error, None])
    with pytest.raises(type(error)) as caught:
        await pool.init(conn, revive=True)
    assert caught.value is error
    await world.advance(1000)
    assert (len(conn.inits), conn.closes, len(pool)) == (1, 0, 0)
    await pool.init(conn)
    assert len(pool) == 1


@scenario
async def test_a_revival_that_fails_is_tried_again_with_backoff(world: World) -> None:
    """The waits grow, up to the longest one; whoever waits in vain learns the cause."""
    pool = await world.pool(backoff=STEADY, timeout=None)
    refused = OSError("refused")
    conn = world.conn("line", [OSError("torn"), "back"], init=[None, *[refused] * 6, None])
    id = await pool.init(conn, revive=True)
    with pytest.raises(OSError, match="torn"):
        await pool.call("line", "say")
    await world.advance(0)
    caller = await world.queued(pool, "line", "say")
    impatient = await world.queued(pool, "line", "say", timeout=3)
    for wait, attempts in ((1, 3), (2, 4), (4, 5), (8, 6), (8, 7), (8, 8)):
        await world.advance(wait - 0.1)
        assert len(conn.inits) == attempts - 1
        await world.advance(0.1)
        assert len(conn.inits) == attempts
    assert await caller.result() == "back"
    assert (await impatient.error(PoolTimeout)).__cause__ is refused
    assert id in pool
    assert conn.closes == 1


@scenario
async def test_backoff_begins_anew_after_an_answered_call(world: World) -> None:
    """What went wrong before is forgotten."""
    pool = await world.pool(backoff=STEADY)
    script = [BrokenPipeError(), "well", BrokenPipeError(), "well"]
    conn = world.conn(
        "line",
        script,
        init=[None, BrokenPipeError(), BrokenPipeError(), None, BrokenPipeError(), None],
    )
    await pool.init(conn, revive=True)
    for waits in ((0, 1, 2), (0, 1)):
        with pytest.raises(BrokenPipeError):
            await pool.call("line", "say")
        for wait in waits:
            await world.advance(wait)
        assert await pool.call("line", "say") == "well"
    conn.assert_drained()


@scenario
async def test_a_conn_that_dies_before_it_answers_is_not_a_busy_loop(world: World) -> None:
    """Init succeeds, the first call fails, again and again: the attempts are bounded in number."""
    pool, conn = await world.pool(backoff=STEADY), world.conn("line", [Closed()] * 200)
    await pool.init(conn, revive=True)
    caller = await world.queued(pool, "line", "say", timeout=30)
    for _ in range(300):
        await world.advance(0.1)
        await world.until(lambda: pool.waiting or caller.done)
    await caller.error(PoolTimeout)
    assert 3 <= len(conn.calls) <= 10


@scenario
async def test_an_init_may_say_when_to_try_again(world: World) -> None:
    """Its advice counts instead of the backoff; 0 is at once, but never a busy loop."""
    pool = await world.pool(backoff=STEADY)
    soon = [InitError("soon", retry_after=0)] * 300
    conn = world.conn(
        "line", [BrokenPipeError()], init=[None, InitError("later", retry_after=50), *soon]
    )
    await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    await world.advance(49)
    assert len(conn.inits) == 2
    await world.advance(1)
    for _ in range(200):
        await world.advance(0.05)
    assert 10 <= len(conn.inits) <= 25  # in the ten seconds since


@scenario
async def test_an_init_may_say_never_again(world: World) -> None:
    """The conn is dropped, and those who wait for it are told at once, with the cause."""
    pool, never = await world.pool(), InitError("banned", retry_after=math.inf)
    hang = world.hang(never)
    conn = world.conn("line", [BrokenPipeError()], init=[None, hang])
    id = await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.until(lambda: hang.inside)
    caller = await world.queued(pool, "line", "say", timeout=None)
    hang.release()
    assert (await caller.error(ResourceError)).__cause__ is never
    assert (id in pool, pool.infos(), conn.closes) == (False, [], 1)
    assert pool.stats().since_start.ended["gave up"] == 1


@pytest.mark.parametrize("advice", [-1, math.nan, "soon", True])
@scenario
async def test_advice_that_makes_no_sense_is_none(world: World, advice: Any) -> None:
    """The backoff counts, and the pool lives on."""
    pool = await world.pool(backoff=STEADY)
    wrong = InitError("later", retry_after=advice)
    conn = world.conn("line", [BrokenPipeError()], init=[None, wrong, None])
    id = await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    await world.advance(1)
    assert id in pool
    conn.assert_drained()


@pytest.mark.parametrize("junk", [-1, math.nan, math.inf, "soon", [1], object()], ids=repr)
@scenario
async def test_a_revival_whose_init_returns_junk_has_failed(world: World, junk: Any) -> None:
    """It is tried again later, and the pool's other conns live on."""
    pool = await world.pool(backoff=STEADY)
    conn = world.conn("line", [BrokenPipeError(), "back"], init=[None, junk, None])
    await pool.init(conn, revive=True)
    await pool.put(world.conn("else"))
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    assert pool.empty("line")
    assert await pool.call("else", "say", "fine") == "fine"
    await world.advance(1)
    assert await pool.call("line", "say") == "back"
    assert conn.closes == 2  # the second for the init that had worked but said nonsense


# -- revive --------------------------------------------------------------------------------------


@scenario
async def test_a_revived_conn_keeps_what_it_is(world: World) -> None:
    """Id, extra, ttl, arguments and figures stay; what came of its last life is forgotten."""
    pool = await world.pool()
    conn = world.conn("line", ["one", Reply("two", cooldown=500), BrokenPipeError(), "back"])
    id = await pool.init(conn, "arg", key="word", extra={"a": 1}, ttl=900, revive=True)
    assert [await pool.call("line", "say") for _ in range(2)] == ["one", "two"]
    await world.advance(500)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    info = pool.info(id)
    assert conn.inits == [(("arg",), {"key": "word"})] * 2
    assert (info.extra, info.ttl, info.revive, info.conn) == ({"a": 1}, 900.0, True, conn)
    assert (info.stats["say"].count, info.stats["say"].errors) == (3, 1)
    assert (info.cooldown, info.last_call, info.last_init) == (0.0, None, 1500.0)
    assert await pool.call("line", "say") == "back"


@scenario
async def test_a_revived_conn_is_listed_under_what_it_names_now(world: World) -> None:
    """Its resource, methods and capacity may have changed."""
    pool = await world.pool()
    hang = world.hang()
    conn = world.conn("old", [BrokenPipeError(), "new"], init=[None, hang])
    id = await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("old", "say")
    await world.until(lambda: hang.inside)
    waits = await world.queued(pool, "old", "say")
    conn.resource, conn.offers, conn.capacity = ["new", "newer"], ["sing"], 3
    hang.release()
    await waits.error(ResourceError)
    assert sorted(pool.resources()) == ["new", "newer"]
    info = pool.info(id)
    assert (info.resource, info.methods, info.capacity) == (("new", "newer"), {"sing"}, 3)
    assert await pool.call("newer", "sing") == "new"


@scenario
async def test_callers_wait_while_a_conn_is_revived(world: World) -> None:
    """All but those who do not wait at all, for whom there is none now."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [BrokenPipeError(), "back"], init=[None, hang])
    id = await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.until(lambda: hang.inside)
    assert (pool.info(id).state, id in pool, len(pool)) == ("reviving", False, 0)
    assert (pool.empty("line"), pool.resources()) == (True, [])
    caller = await world.queued(pool, "line", "say")
    with pytest.raises(ResourceError):
        await pool.call("line", "say", timeout=0)
    hang.release()
    assert await caller.result() == "back"
    assert (pool.info(id).state, id in pool) == ("ready", True)


@scenario
async def test_many_who_find_the_same_conn_dead(world: World) -> None:
    """It is closed once and initialised once, and each call is served or told."""
    pool, hang = await world.pool(), world.hang(Closed())
    conn = world.conn("line", [hang] * 5 + ["back"] * 5, capacity=5)
    await pool.init(conn, revive=True)
    callers = [await world.running(hang, pool, "line", "say") for _ in range(5)]
    hang.release()
    assert [await caller.result() for caller in callers] == ["back"] * 5
    assert (conn.closes, conn.opened, len(pool)) == (1, 2, 1)


@scenario
async def test_a_conn_is_not_revived_under_those_who_use_it(world: World) -> None:
    """One of its calls finds it dead: it is closed at once, and opened when the others are over."""
    pool, hang = await world.pool(), world.hang("late but true")
    conn = world.conn("line", [hang, OSError("torn"), "back"], capacity=2)
    await pool.init(conn, revive=True)
    running = await world.running(hang, pool, "line", "say")
    with pytest.raises(OSError, match="torn"):
        await pool.call("line", "say")
    await world.advance(0)
    assert (conn.closes, len(conn.inits)) == (1, 1)
    waiting = await world.queued(pool, "line", "say")
    hang.release()
    assert await running.result() == "late but true"
    assert await waiting.result() == "back"
    assert (conn.closes, len(conn.inits)) == (1, 2)


@scenario
async def test_only_so_many_conns_are_opened_at_once(world: World) -> None:
    """max_connecting bounds the revivals that run; the others follow."""
    pool, hangs = await world.pool(max_connecting=2), [world.hang() for _ in range(4)]
    conns = [
        world.conn(name, [BrokenPipeError(), "back"], init=[None, hang])
        for name, hang in zip("abcd", hangs, strict=True)
    ]
    for conn in conns:
        await pool.init(conn, revive=True)
        with pytest.raises(BrokenPipeError):
            await pool.call(conn.resource, "say")
    await world.until(lambda: all(conn.closes for conn in conns))
    for released in range(2):
        await world.until(lambda: sum(hang.inside for hang in hangs) == 2)
        assert sum(len(conn.inits) for conn in conns) == 4 + 2 + released
        leaving = next(hang for hang in hangs if hang.inside)
        leaving.release()
        await world.until(lambda leaving=leaving: not leaving.inside)  # type: ignore[misc]
    for hang in hangs:
        hang.release()
    for conn in conns:
        assert await pool.call(conn.resource, "say") == "back"


# -- ttl -----------------------------------------------------------------------------------------


@scenario
async def test_an_expired_conn_is_dropped(world: World) -> None:
    """It is closed, does not count, and nobody gets it, not even before a sweep."""
    pool, conn = await world.pool(), world.conn("line", [])
    id = await pool.put(conn, ttl=10)
    world.clock.advance(9.9)
    assert (id in pool, len(pool), pool.resources()) == (True, 1, ["line"])
    world.clock.advance(0.1)
    with pytest.raises(ResourceError):
        await pool.call("line", "say")
    assert (id in pool, len(pool), pool.resources(), pool.empty("line")) == (False, 0, [], True)
    await pool.sweep()
    assert conn.closes == 1
    assert pool.stats().since_start.ended == {"expired": 1}


@scenario
async def test_an_expired_conn_is_revived(world: World) -> None:
    """Its next life is as long as the first."""
    pool, conn = await world.pool(), world.conn("line", ["a", "b"])
    await pool.init(conn, ttl=10, revive=True)
    assert await pool.call("line", "say") == "a"
    for life in (1, 2, 3):
        await world.advance(10)
        assert (conn.closes, conn.opened) == (life, life + 1)
    assert await pool.call("line", "say") == "b"


@scenario
async def test_a_conn_that_expires_during_a_call_lets_it_finish(world: World) -> None:
    """The call ends well, and then the conn goes; whoever waits gets another or an error."""
    pool, hang = await world.pool(), world.hang("finished")
    conn = world.conn("line", [hang])
    await pool.put(conn, ttl=10)
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say")
    await world.advance(10)
    await waiting.error(ResourceError)
    assert conn.closes == 0
    hang.release()
    assert await running.result() == "finished"
    await world.advance(0)
    assert conn.closes == 1


@scenario
async def test_a_resting_conn_expires_too(world: World) -> None:
    """Those who wait for the end of its rest are told."""
    pool, conn = await world.pool(), world.conn("line", [Reply(1, cooldown=20)])
    await pool.put(conn, ttl=10)
    assert await pool.call("line", "say") == 1
    waiting = await world.queued(pool, "line", "say")
    await world.advance(10)
    await waiting.error(ResourceError)
    assert conn.closes == 1


@pytest.mark.parametrize("ttl", [0, 1e-9])
@scenario
async def test_a_tiny_ttl_is_not_a_busy_loop(world: World, ttl: float) -> None:
    """Two inits of one conn are some time apart, whatever its ttl."""
    pool, conn = await world.pool(), world.conn("line")
    await pool.init(conn, ttl=ttl, revive=True)
    for _ in range(100):
        await world.advance(0.01)
    assert 5 <= conn.opened <= 22


@scenario
async def test_a_ttl_may_be_changed(world: World) -> None:
    """It counts from the last init, whether it is longer, shorter or gone."""
    pool, conn = await world.pool(), world.conn("line")
    id = await pool.put(conn, ttl=10)
    await world.advance(5)
    assert await pool.update("line", ttl=20) == 1
    await world.advance(10)
    assert id in pool
    assert await pool.update("line", ttl=None) == 1
    await world.advance(1000)
    assert (id in pool, pool.info(id).ttl) == (True, None)
    assert await pool.update("line", ttl=30) == 1
    assert id not in pool
    await world.advance(0)
    assert conn.closes == 1


@pytest.mark.parametrize("ttl", [None, math.inf])
@scenario
async def test_no_ttl_is_for_ever(world: World, ttl: float | None) -> None:
    """Nothing is ever due."""
    pool = await world.pool()
    id = await pool.put(world.conn("line"), ttl=ttl)
    await world.advance(1e9)
    assert (id in pool, pool.info(id).ttl, await pool.sweep()) == (True, None, None)


@scenario
async def test_expired_conns_make_room(world: World) -> None:
    """What has expired does not count against max_size."""
    pool = await world.pool(max_size=1)
    await pool.put(world.conn("line"), ttl=10)
    with pytest.raises(PoolFull, match="max_size") as caught:
        await pool.put(world.conn("else"))
    assert (caught.value.limit, caught.value.most) == ("max_size", 1)
    world.clock.advance(10)
    await pool.put(world.conn("else"))
    assert pool.resources() == ["else"]


@scenario
async def test_sweep_says_when_something_is_due(world: World) -> None:
    """The seconds until then, or None where nothing will be."""
    pool = await world.pool()
    assert await pool.sweep() is None
    await pool.put(world.conn("line", [Reply(1, cooldown=4)]), ttl=60)
    assert await pool.sweep() == 60.0
    assert await pool.call("line", "say") == 1
    assert await pool.sweep() == 4.0
    await world.advance(1)
    assert await pool.sweep() == 3.0


@scenario
async def test_a_conn_of_no_use_is_closed_before_anything_else_is_done_with_it(
    world: World,
) -> None:
    """Its init went well, and what it says of its methods makes no sense: it is neither opened
    again nor handed over before its close has ended."""
    pool = await world.pool(backoff=Backoff(first=0, jitter=0))
    hang = world.hang()
    conn = world.conn("line", [OSError("torn")], close=[None, hang])
    id = await pool.put(conn, revive=True)
    conn.offers = None
    with pytest.raises(OSError, match="torn"):
        await pool.call("line", "say")
    await world.until(lambda: hang.inside)
    popping = world.start(pool.pop, id)
    await world.until(lambda: pool.stats().now.draining)
    assert (popping.done, conn.opened) == (False, 1)
    hang.release()
    assert await popping.result() is conn
    assert (conn.opened, conn.closes) == (1, 2)
    world.loose(conn)  # it was handed over closed
