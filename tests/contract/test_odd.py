"""Odd things that only a driver meets: what objects of the user's do when they are looked at.

What the core makes of them is in ``tests/core/test_odd.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connpool import PoolTimeout, Reply, ResourceError, sticky

from ..odd import NO_COUNTS, NO_SECONDS, OddError, OddFailure, OddTorn, Proxy, spoilt
from .worlds import World, scenario

# -- what is passed through ------------------------------------------------------------------------


@scenario
async def test_a_reply_is_not_asked_what_it_is(world: World) -> None:
    """A lazy proxy would answer by itself, or raise: it reaches its caller as it is."""
    pool, proxy = await world.pool(max_waiting=0), Proxy()

    def call(self: Any, method: Any, payload: Any = None) -> Any:
        return proxy

    async def call_async(self: Any, method: Any, payload: Any = None) -> Any:
        return proxy

    conn = world.conn("line")
    conn.__class__ = type("Lazy", (type(conn),), {"call": call_async if world.cancels else call})
    await pool.put(conn)
    for _ in range(2):
        given = pool.bare.call("line", "say", timeout=0)
        assert (await given if world.cancels else given) is proxy
    assert pool.stats().now.in_use == 0


@scenario
async def test_payloads_and_extras_are_not_looked_at(world: World) -> None:
    """Whatever they raise."""
    pool = await world.pool()
    odd = spoilt()
    id = await pool.put(world.conn("line"), extra=odd)
    assert await pool.call("line", "say", odd) is odd
    async with world.lease(pool, "line") as conn:
        assert pool.extra(id, None) is odd
        assert conn is not None
    assert "1 conns alive" in pool.report()


@pytest.mark.parametrize("error", [OddFailure, OddTorn])
@scenario
async def test_an_odd_error_reaches_its_caller(world: World, error: type[Exception]) -> None:
    """As it is; those who wait for the conn get it, or their own error with this one as cause."""
    pool, hang = await world.pool(), world.hang(error())
    await pool.put(world.conn("line", [hang, "served"], capacity=1))
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say")
    hang.release()
    assert await running.end() is hang.then
    if error is OddTorn:
        assert (await waiting.error(ResourceError)).__cause__ is hang.then
    else:
        assert await waiting.result() == "served"
    pool.report()


# -- conns -----------------------------------------------------------------------------------------


def refusing(base: Any, *names: str) -> Any:
    """A kind of conn whose attributes of these names raise."""

    def refuse(self: Any) -> Any:
        raise OddError

    def ignore(self: Any, value: Any) -> None:
        """Not kept."""

    return type("Refusing", (base,), {name: property(refuse, ignore) for name in names})


def odd_conn(world: World, *names: str, **more: Any) -> Any:
    conn = world.conn("line", **more)
    conn.__class__ = refusing(type(conn), *names)
    return conn


@scenario
async def test_what_a_conn_may_leave_unsaid_it_may_raise(world: World) -> None:
    """Its calls go on: nobody knows what it would have said."""
    pool = await world.pool()
    conn = odd_conn(world, "survives_cancel", "on_lost", call=[ValueError("no"), "fine"])
    id = await pool.put(conn)
    with pytest.raises(ValueError, match="no"):
        await pool.call("line", "say")
    assert await pool.call("line", "say") == "fine"
    assert await pool.pop(id) is conn
    assert conn.closes == 0


@pytest.mark.parametrize("what", ["methods", "init", "call"])
@scenario
async def test_what_a_conn_must_say_it_may_not_raise(world: World, what: str) -> None:
    """Its error reaches who adds it, and nothing is added."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    conn = odd_conn(world, what)
    world.loose(conn)
    with pytest.raises(OddError):
        await pool.init(conn)
    assert (len(pool), pool.stats().now.opening) == (1, 0)
    assert await pool.call("line", "say", 1) == 1


@scenario
async def test_a_conn_whose_close_cannot_be_had(world: World) -> None:
    """It goes all the same, and the pool goes on."""
    gone: list[str] = []
    pool = await world.pool(on_disconnect=lambda info, reason: gone.append(reason))
    conn = odd_conn(world, "close", call=[Reply(1, closed=True)])
    world.loose(conn)
    await pool.put(conn)
    await pool.put(world.conn("other"))
    assert await pool.call("line", "say") == 1
    await world.until(lambda: gone)
    assert await pool.call("other", "say", 2) == 2


@pytest.mark.parametrize("error", [SystemExit, OddError, asyncio.CancelledError])
@pytest.mark.parametrize("what", ["init", "close", "check", "factory"])
@scenario
async def test_whatever_is_raised_in_the_background_stays_there(
    world: World, what: str, error: type[BaseException]
) -> None:
    """It fails that conn, and neither the pool nor its loop."""
    pool = await world.pool()
    await pool.put(world.conn("other"))
    if what == "factory":

        def fail() -> Any:
            raise error

        await pool.supply("line", fail, min_size=1)
    elif what == "check":
        works = world.works(check=[error()] * 9)
        await pool.supply("line", works, min_size=1, ping_interval=1)
        await pool.wait_ready()
        await world.advance(1)
    else:
        script = {"init": [None, error(), None], "close": [error(), None]}
        conn = world.conn("line", [OSError("torn")], **{what: script[what]})
        world.loose(conn)
        await pool.init(conn, revive=True)
        with pytest.raises(OSError, match="torn"):
            await pool.call("line", "say")
    for _ in range(3):
        await world.advance(2)
    assert await pool.call("other", "say", 1) == 1
    assert pool.stats().now.conns >= 1


@pytest.mark.parametrize(
    "reason", ["gone", 7, OSError, OddTorn()], ids=["str", "int", "class", "odd"]
)
@scenario
async def test_a_loss_that_is_told_oddly(world: World, reason: Any) -> None:
    """Others are shown it as the cause of theirs, so an error is made of it."""
    pool = await world.pool()
    conn = world.conn("line")
    conn.on_lost = None
    await pool.put(conn, revive=True)
    conn.on_lost(reason)
    with pytest.raises(ResourceError) as caught:
        pool.route("line")
    assert isinstance(caught.value.__cause__, BaseException)


# -- the user's functions --------------------------------------------------------------------------


@scenario
async def test_the_truth_of_a_filters_answer_may_not_call_the_pool(world: World) -> None:
    """No more than the filter itself; it does not hang either."""
    pool = await world.pool()
    await pool.put(world.conn("line"))

    class Answer:
        def __bool__(self) -> bool:
            return bool(pool.stats())

    with pytest.raises(RuntimeError, match="may not call the pool it serves"):
        await pool.call("line", "say", filter=lambda info: Answer())
    with pytest.raises(RuntimeError, match="may not call the pool it serves"):
        pool.infos(filter=lambda info: Answer())
    assert await pool.call("line", "say", 1, filter=lambda info: [info]) == 1


@scenario
async def test_a_router_that_sorts(world: World) -> None:
    """It gets what it chose."""
    pool = await world.pool()
    conns = [world.conn("line") for _ in range(3)]
    for conn in conns:
        await pool.put(conn)

    def last(infos: list[Any]) -> Any:
        infos.sort(key=lambda info: info.id, reverse=True)
        return infos[0]

    assert pool.route("line", by=last) is conns[-1]
    async with world.lease(pool, "line", by=last) as conn:
        assert conn is conns[-1]


@pytest.mark.parametrize("error", [SystemExit, OddError])
@scenario
async def test_a_callback_that_raises_whatever_it_likes(
    world: World, error: type[BaseException]
) -> None:
    """It is logged."""

    def fail(*_: Any) -> None:
        raise error

    pool = await world.pool(on_connect=fail, on_disconnect=fail)
    await pool.init(world.conn("line", [Reply(1, closed=True)]))
    assert await pool.call("line", "say") == 1
    await world.advance(0)
    assert len(pool) == 0


# -- numbers ---------------------------------------------------------------------------------------


@scenario
async def test_numbers_that_are_none(world: World) -> None:
    """Wherever seconds or counts are given: what was expected, and what came."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    refused = pytest.raises((TypeError, ValueError), match=r"expected .*got ")
    for value in NO_SECONDS:
        with refused:
            await pool.call("line", "say", timeout=value)
        with refused:
            await pool.put(world.conn("line"), ttl=value)
        for name in ("ttl", "max_idle", "connect_timeout", "ping_interval"):
            with refused:
                await pool.supply("made", world.works(), **{name: value})
    for value in NO_COUNTS:
        for name in ("min_size", "max_size"):
            with refused:
                await pool.supply("made", world.works(), **{name: value})
        for name in ("max_size", "max_waiting", "max_connecting"):
            with refused:
                await world.pool(**{name: value})
        with refused:
            await pool.update("line", capacity=value)
    assert (len(pool), pool.resources()) == (1, ["line"])


@pytest.mark.parametrize("value", [1e308, 10**300])
@scenario
async def test_huge_numbers_are_numbers(world: World, value: Any) -> None:
    """A pool may be told to wait, to rest and to live for longer than the world."""
    pool, hang = await world.pool(timeout=value, connect_timeout=value), world.hang()
    await pool.put(world.conn("line", [hang, Reply(1, cooldown=value)]), ttl=value)
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say", timeout=value)
    hang.release()
    await running.result()
    assert await waiting.result() == 1
    with pytest.raises(PoolTimeout):
        await pool.call("line", "say", timeout=0)


@scenario
async def test_a_key_of_sticky_that_has_no_hash(world: World) -> None:
    """Is refused, wherever it is given."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    key: Any = ["key"]
    with pytest.raises(TypeError, match=r"by: sticky\(key\): expected a hashable"):
        pool.route("line", by=sticky(key))
    with pytest.raises(TypeError, match=r"by: sticky\(key\): expected a hashable"):
        await pool.call("line", "say", by=sticky(key))
