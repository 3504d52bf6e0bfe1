"""Wrong arguments: a TypeError or a ValueError at once, with what was expected and what came."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool import Pool

from .worlds import World, scenario

NO_SECONDS: list[Any] = [-1, -0.001, math.nan, "1", [], True]
NO_SIZE: list[Any] = [0, -1, 1.0, "1", True, math.inf]
NO_FUNCTION: list[Any] = [1, "name", ["a"], True]

NO_BACKOFF: list[Any] = [1, None, "fast"]
NO_STRATEGY: list[Any] = [1, "fastest", ["a"]]
NO_REVIVE: list[Any] = ["yes", "True", 1, 0, None, []]

EXPECTED = r"expected .*, got"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout", value) for value in NO_SECONDS),
        *(("connect_timeout", value) for value in [*NO_SECONDS, None]),
        *(("max_size", value) for value in NO_SIZE),
        *(("max_connecting", value) for value in [*NO_SIZE, None]),
        *(("max_waiting", value) for value in NO_SIZE if value != 0),
        *(("on_connect", value) for value in NO_FUNCTION),
        *(("on_disconnect", value) for value in NO_FUNCTION),
        *(("backoff", value) for value in NO_BACKOFF),
        *(("name", value) for value in (1, b"name")),
    ],
    ids=repr,
)
@scenario
async def test_a_wrong_option(world: World, option: str, value: Any) -> None:
    """The pool is not made."""
    with pytest.raises((TypeError, ValueError), match=rf"{option}: {EXPECTED}"):
        await world.pool(**{option: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("timeout", value) for value in NO_SECONDS),
        *(("filter", value) for value in NO_FUNCTION),
        *(("by", value) for value in NO_STRATEGY),
    ],
    ids=repr,
)
@scenario
async def test_a_wrong_argument_of_call(world: World, argument: str, value: Any) -> None:
    """It is told even where the call could be served or refused at once."""
    pool, conn = await world.pool(), world.conn("line", [])
    await pool.put(conn)
    for resource in ("line", "else"):
        with pytest.raises((TypeError, ValueError), match=rf"{argument}: {EXPECTED}"):
            await pool.call(resource, "say", **{argument: value})
    assert (conn.calls, pool.stats().now.in_use) == ([], 0)


@pytest.mark.parametrize("asked", [(["line"], "say"), ("line", ["say"]), ({}, "say")], ids=repr)
@scenario
async def test_what_no_key_can_be(world: World, asked: tuple[Any, Any]) -> None:
    """An unhashable resource or method is a TypeError, and nothing is harmed."""
    pool = await world.pool()
    await pool.put(world.conn("line", ["fine"]))
    with pytest.raises(TypeError, match="unhashable"):
        await pool.call(*asked)
    assert await pool.call("line", "say") == "fine"


@pytest.mark.parametrize("way", ["init", "put"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("ttl", value) for value in NO_SECONDS),
        *(("revive", value) for value in NO_REVIVE),
    ],
    ids=repr,
)
@scenario
async def test_a_wrong_argument_of_init_and_put(
    world: World, argument: str, value: Any, way: str
) -> None:
    """The conn is left as it is, and may be added rightly."""
    pool, conn = await world.pool(), world.conn("line")
    with pytest.raises((TypeError, ValueError), match=rf"{argument}: {EXPECTED}"):
        await getattr(pool, way)(conn, **{argument: value})
    assert (conn.inits, conn.closes, pool.stats().now.opening) == ([], 0, 0)
    await getattr(pool, way)(conn)
    assert len(pool) == 1


@pytest.mark.parametrize("value", NO_FUNCTION)
@scenario
async def test_a_filter_that_is_no_function(world: World, value: Any) -> None:
    """Wherever one is taken."""
    pool = await world.pool()
    await pool.put(world.conn("line"))
    with pytest.raises(TypeError, match=rf"filter: {EXPECTED}"):
        pool.infos(filter=value)
    for way in (pool.update, pool.pop_all):
        with pytest.raises(TypeError, match=rf"filter: {EXPECTED}"):
            await way("line", filter=value)
    with pytest.raises(TypeError, match=rf"fn: {EXPECTED}"):
        await pool.update("line", value)
    assert len(pool) == 1


@pytest.mark.parametrize("value", NO_SECONDS)
@scenario
async def test_a_wrong_timeout_of_pop_and_close(world: World, value: Any) -> None:
    """Nothing is taken out, and nothing is closed."""
    pool = await world.pool()
    id = await pool.put(world.conn("line", ["fine"]))
    with pytest.raises((TypeError, ValueError), match=rf"timeout: {EXPECTED}"):
        await pool.pop(id, timeout=value)
    with pytest.raises((TypeError, ValueError), match=rf"timeout: {EXPECTED}"):
        await pool.close(timeout=value)
    assert await pool.call("line", "say") == "fine"


@scenario
async def test_a_conn_of_the_other_kind(world: World) -> None:
    """A Conn is not for tasks and an AsyncConn not for threads; the error says which pool is."""
    from connpool.testing import ScriptedAsyncConn, ScriptedConn

    pool = await world.pool()
    other = ScriptedConn("line") if world.cancels else ScriptedAsyncConn("line")
    for way in (pool.init, pool.put):
        with pytest.raises(TypeError, match=r"put it into a connpool\.(Async)?Pool"):
            await way(other)
    assert len(pool) == 0


@scenario
async def test_options_are_keyword_only_and_known(world: World) -> None:
    """A misspelt one is a TypeError."""
    with pytest.raises(TypeError, match="max_sise"):
        await world.pool(max_sise=3)
    with pytest.raises(TypeError):
        Pool("name")  # type: ignore[call-arg]
