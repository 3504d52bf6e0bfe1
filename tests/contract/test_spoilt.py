"""What is raised in the block of a checkout, and what it says of the conn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from connpool import Busy, CallError, Closed, PoolTimeout

from .test_lending import Cut, Loss, hold_and_raise
from .worlds import World, scenario, scenario_of_tasks


@pytest.mark.parametrize("error", [ValueError("no"), OSError("torn"), Closed(), Cut()], ids=repr)
@scenario
async def test_a_conn_that_cannot_be_made_clean(world: World, error: BaseException) -> None:
    """Without a reset it is closed and revived where its user's block raised, whatever."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    conn = world.conn("line")
    id = await pool.put(conn, revive=True)
    world.clock.advance(1)
    await hold_and_raise(world, pool, error)
    assert await world.hold(None, pool, "line") is conn
    assert loss == [(id, "interrupted" if isinstance(error, Cut) else "unclean")]
    assert (conn.closes, conn.opened) == (1, 1)


@pytest.mark.parametrize("error", [ValueError("no"), OSError("torn"), Closed()], ids=repr)
@scenario
async def test_a_conn_that_can_be_made_clean(world: World, error: Exception) -> None:
    """With a reset it stays, whatever Exception its user's block raised."""
    pool, conn = await world.pool(), world.conn("line", reset=[None])
    await pool.put(conn)
    await hold_and_raise(world, pool, error)
    assert (conn.resets, conn.closes, len(pool)) == (1, 0, 1)


@pytest.mark.parametrize("survives", [False, True])
@pytest.mark.parametrize("resets", [False, True])
@scenario
async def test_a_block_that_is_cut_short(world: World, survives: bool, resets: bool) -> None:
    """The conn is closed without being asked; one that survives that, and has a reset, is asked."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    more: dict[str, Any] = {"reset": [None]} if resets else {}
    conn = world.conn("line", survives_cancel=survives, **more)
    await pool.put(conn)
    await hold_and_raise(world, pool, Cut())
    await world.advance(0)
    stays = survives and resets
    assert (conn.closes, conn.resets, len(pool)) == (not stays, stays, stays)
    reason = {(False, False): ["interrupted"], (True, False): ["unclean"], (False, True): [
        "interrupted"], (True, True): []}[survives, resets]  # fmt: skip
    assert [why for _, why in loss] == reason


@pytest.mark.parametrize("survives", [False, True])
@scenario_of_tasks
async def test_a_cancelled_block(world: World, survives: bool) -> None:
    """The same: its conn is closed, unless it survives that; then it is reset all the same."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", reset=[None, None, None], survives_cancel=survives)
    await pool.put(conn, revive=True)
    world.clock.advance(1)
    held = await world.holding(hang, pool, "line")
    behind = await world.in_line(None, pool, "line")
    held.cancel()
    assert isinstance(await held.end(), BaseException)
    assert await behind.result() is conn
    assert (conn.closes, conn.resets) == ((0, 2) if survives else (1, 1))


@pytest.mark.parametrize(
    ("error", "reason", "rest"),
    [
        (ValueError("no"), None, 0),
        (OSError("torn"), "dead", 0),
        (EOFError(), "dead", 0),
        (Closed(), "closed", 0),
        (CallError("no", closed=True), "dead", 0),
        (CallError("no", cooldown=5), None, 5),
        (Busy(5), None, 5),
        (PoolTimeout("of another pool"), None, 0),
        (Cut(), "interrupted", 0),
    ],
    ids=repr,
)
@scenario
async def test_what_a_shared_block_raises(
    world: World, error: BaseException, reason: str | None, rest: float
) -> None:
    """It is read as if a call had raised it; reset is not called, for others are at work."""
    loss = Loss()
    pool, hang = await world.pool(on_disconnect=loss), world.hang()
    conn = world.conn("line", reset=[], capacity=2)
    id = await pool.put(conn)
    other = await world.holding(hang, pool, "line", shared=True)
    await hold_and_raise(world, pool, error, shared=True)
    await world.advance(0)
    assert loss == ([] if reason is None else [(id, reason)])
    assert (id in pool) is (reason is None)
    if reason is None:
        assert pool.info(id).cooldown == rest
    hang.release()
    assert await other.result() is conn
    assert (conn.resets, conn.closes) == (0, reason is not None)
    assert pool.stats().now.in_use == 0


@scenario
async def test_a_shared_block_that_is_cut_short_and_survives(world: World) -> None:
    """The conn stays."""
    pool = await world.pool()
    conn = world.conn("line", capacity=2, survives_cancel=True)
    await pool.put(conn)
    await hold_and_raise(world, pool, Cut(), shared=True)
    assert (conn.closes, len(pool)) == (0, 1)


@scenario
async def test_a_supplied_conn_that_was_spoilt_is_replaced(world: World) -> None:
    """Whoever waits gets a new one at once; nobody is told to ask less often."""
    pool, hang = await world.pool(), world.hang(ValueError("oops"))
    works = world.works()
    await pool.supply("line", works, max_size=1)
    held = await world.holding(hang, pool, "line")
    waiting = await world.in_line(None, pool, "line")
    world.clock.advance(1)
    hang.release()
    await held.error(ValueError)
    assert await waiting.result() is works.made[1]
    assert Counter(conn.closes for conn in works.made) == {0: 1, 1: 1}


@scenario
async def test_a_block_may_end_in_another_way(world: World) -> None:
    """By a return or a break: nothing was raised, so nothing is spoilt."""
    pool, conn = await world.pool(), world.conn("line")
    await pool.put(conn)

    async def leave() -> str:
        async with world.lease(pool, "line"):
            return "left"

    assert await leave() == "left"
    for _ in range(2):
        async with world.lease(pool, "line"):
            break
    assert (conn.closes, pool.stats().now.in_use) == (0, 0)
    assert pool.stats().since_start.checkouts == 2
