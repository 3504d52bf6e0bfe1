"""Filters given as data, wherever a filter is taken: `filter={"region": "eu"}`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from connpool import FilterError, PoolTimeout

from .worlds import World, scenario

REGIONS = ("eu", "us", "ap", "eu", "sa", "af", "eu")


async def filled(world: World) -> tuple[Any, list[int]]:
    """A pool with conns in several regions, more than are looked at one by one."""
    pool = await world.pool()
    ids = []
    for number, region in enumerate(REGIONS):
        conn = world.conn("line", [number] * 9)
        ids.append(await pool.put(conn, extra={"region": region, "number": number}))
    ids.append(await pool.put(world.conn("line", ["plain"] * 9)))
    return pool, ids


@scenario
async def test_a_call_goes_to_conns_that_have_the_items(world: World) -> None:
    """Each in turn, one item or several, whatever mapping says so."""
    pool, _ = await filled(world)
    served = [await pool.call("line", "say", filter={"region": "eu"}) for _ in range(6)]
    assert sorted(served) == [0, 0, 3, 3, 6, 6]
    assert await pool.call("line", "say", filter={"region": "eu", "number": 3}) == 3
    assert await pool.call("line", "say", filter=MappingProxyType({"number": 4})) == 4
    with pytest.raises(FilterError, match=r"\{'number': 4, 'region': 'eu'\}") as refused:
        await pool.call("line", "say", filter={"region": "eu", "number": 4})
    assert refused.value.candidates == 8


@scenario
async def test_an_empty_mapping_asks_for_nothing(world: World) -> None:
    """It is the same as no filter, also where the extra is no mapping."""
    pool = await world.pool()
    await pool.put(world.conn("line", ["fine"] * 2))
    assert await pool.call("line", "say", filter={}) == "fine"
    assert await pool.call("line", "say", filter=MappingProxyType({})) == "fine"
    assert pool.route("line", filter={}) is not None
    assert len(pool.infos("line", {})) == 1


@scenario
async def test_a_checkout_holds_a_conn_that_has_the_items(world: World) -> None:
    """Until it is over nobody else has it."""
    pool, ids = await filled(world)
    hang = world.hang()
    holding = await world.holding(hang, pool, "line", filter={"region": "us"})
    assert pool.info(ids[1]).in_use == 1
    with pytest.raises(PoolTimeout):
        await world.hold(None, pool, "line", filter={"region": "us"}, timeout=0)
    waiting = await world.queued(pool, "line", "say", filter={"region": "us"})
    hang.release()
    await holding.result()
    assert await waiting.result() == 1


@scenario
async def test_route_update_infos_and_pop_all_take_it(world: World) -> None:
    """And nothing else is touched."""
    pool, ids = await filled(world)
    assert {pool.route("line", filter={"number": 2}) for _ in range(4)} == {pool.info(ids[2]).conn}
    assert [info.id for info in pool.infos("line", {"region": "eu"})] == [ids[0], ids[3], ids[6]]
    assert [info.id for info in pool.infos(filter={"region": "us"})] == [ids[1]]
    assert await pool.update("line", filter={"region": "us"}, extra={"region": "eu"}) == 1
    assert len(pool.infos("line", {"region": "eu"})) == 4
    popped = await pool.pop_all("line", {"region": "eu"})
    assert len(popped) == 4
    assert len(pool) == 4
    for conn in popped:
        world.loose(conn)
    with pytest.raises(FilterError):
        pool.route("line", filter={"region": "eu"})


@scenario
async def test_who_waits_is_served_by_the_first_that_suits(world: World) -> None:
    """In order of arrival, those who write the same apart; a new extra is seen at once."""
    pool, ids = await filled(world)
    hangs = [world.hang(), world.hang()]
    us = await world.holding(hangs[0], pool, "line", filter={"region": "us"})
    ap = await world.holding(hangs[1], pool, "line", filter={"region": "ap"})
    first = await world.queued(pool, "line", "say", filter={"region": "us"})
    second = await world.queued(pool, "line", "say", filter={"region": "ap"})
    third = await world.queued(pool, "line", "say", filter={"region": "us"})
    pool.extra(ids[4], {"region": "ap"})
    assert await second.result() == 4
    hangs[0].release()
    await us.result()
    assert [await first.result(), await third.result()] == [1, 1]
    hangs[1].release()
    await ap.result()


@scenario
async def test_a_supply_is_waited_for_only_where_it_makes_what_passes(world: World) -> None:
    """What it pins to its conns is known before one is made."""
    pool, works = await world.pool(), world.works(call=["made"])
    await pool.supply("line", works, extra={"region": "eu"})
    with pytest.raises(FilterError):
        await pool.call("line", "say", filter={"region": "us"})
    assert await pool.call("line", "say", filter={"region": "eu"}) == "made"


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}])
@scenario
async def test_values_must_be_hashable(world: World, value: Any) -> None:
    """A TypeError at once, wherever a filter is taken."""
    pool, _ = await filled(world)
    wrong, told = {"region": value}, r"filter: expected hashable values in a mapping, got \{"
    for ask in (
        lambda: pool.infos(filter=wrong),
        lambda: pool.route("line", filter=wrong),
        lambda: world.lease(pool, "line", filter=wrong),
    ):
        with pytest.raises(TypeError, match=told):
            ask()
    for way in (pool.update, pool.pop_all):
        with pytest.raises(TypeError, match=told):
            await way("line", filter=wrong)
    with pytest.raises(TypeError, match=told):
        await pool.call("line", "say", filter=wrong)
    assert len(pool) == 8


@scenario
async def test_filters_that_are_never_asked_again_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes up new ones all the time does not fill the memory."""
    monkeypatch.setattr("connpool.driver.MOST_WHERES", 3)
    pool, _ = await filled(world)
    for number in range(20):
        with pytest.raises(FilterError):
            await pool.call("line", "say", filter={"number": number + 100})
        assert len(pool.bare._wheres) <= 3
    assert await pool.call("line", "say", filter={"number": 5}) == 5
