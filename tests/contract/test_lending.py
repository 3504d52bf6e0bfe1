"""What a conn says when it is checked out and when it is back: check, lend and reset."""

from __future__ import annotations

from typing import Any

import pytest

from connpool import Busy, CallError, Closed, PoolTimeout, ResourceError
from connpool.testing import Do

from .worlds import PoolFace, World, scenario, scenario_of_tasks


class Cut(BaseException):
    """What cuts a block short, as an interrupt or a cancellation does."""


class Loss(list[tuple[int, str]]):
    """An on_disconnect that keeps who was lost and why."""

    def __call__(self, info: Any, reason: str) -> None:
        self.append((info.id, reason))


async def hold_and_raise(world: World, pool: PoolFace, error: BaseException, **how: Any) -> None:
    """Check a conn out and raise in the block: the very error comes out."""
    with pytest.raises(type(error)) as caught:
        await world.hold(error, pool, "line", **how)
    assert caught.value is error


# -- check ---------------------------------------------------------------------------------------


@scenario
async def test_a_conn_used_a_moment_ago_is_not_asked(world: World) -> None:
    """From half a second of idleness on it is asked whether it is well, each time."""
    pool, conn = await world.pool(), world.conn("line")
    await pool.init(conn)
    for idle, asked in ((0.4, 0), (0.5, 1), (0.4, 1), (0.4, 1), (100, 2)):
        await world.advance(idle)
        await world.hold(None, pool, "line")
        assert conn.checks == asked
    await world.advance(0.4)
    await pool.call("line", "say")
    await world.advance(0.4)
    await world.hold(None, pool, "line")
    assert conn.checks == 2


@pytest.mark.parametrize(("after", "checks"), [(None, 0), (0, 3), (7, 1)])
@scenario
async def test_check_after(world: World, after: float | None, checks: int) -> None:
    """None: it is never asked; 0: always."""
    pool, conn = await world.pool(check_after=after), world.conn("line")
    await pool.init(conn)
    for idle in (0, 1, 10):
        await world.advance(idle)
        await world.hold(None, pool, "line")
    assert conn.checks == checks


@pytest.mark.parametrize("answer", [False, OSError("torn"), ValueError("no"), Closed()], ids=repr)
@scenario
async def test_a_conn_that_is_not_well_is_not_lent(world: World, answer: Any) -> None:
    """It is dropped as dead, and the same caller gets another one."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    ill, well = world.conn("line", check=[answer]), world.conn("line")
    id = await pool.init(ill)
    await pool.init(well)
    world.clock.advance(1)
    assert await world.hold(None, pool, "line") is well
    await world.advance(0)
    assert loss == [(id, "dead")]
    assert (ill.closes, ill.lends, len(pool)) == (1, 0, 1)
    assert pool.stats().since_start.moved == 1


@scenario
async def test_the_only_conn_is_not_well(world: World) -> None:
    """Its caller waits for it to be revived; where it is not, he is told why."""
    pool = await world.pool()
    first = world.conn("line", check=[False])
    await pool.init(first, revive=True)
    world.clock.advance(1)
    assert await world.hold(None, pool, "line") is first
    assert (first.opened, first.closes) == (2, 1)
    await pool.init(world.conn("else", check=[OSError("torn")]))
    world.clock.advance(1)
    with pytest.raises(ResourceError) as caught:
        await world.hold(None, pool, "else")
    assert isinstance(caught.value.__cause__, OSError)


@scenario
async def test_who_met_a_dead_conn_keeps_his_place(world: World) -> None:
    """He goes before those who came after him, however long the check took."""
    pool, hang, asked = await world.pool(), world.hang(), world.hang(False)
    await pool.init(world.conn("line", check=[asked]), extra="ill")
    well = world.conn("line")
    await pool.init(well, extra="well")
    world.clock.advance(1)
    order: list[str] = []
    held = await world.holding(hang, pool, "line", filter=lambda info: info.extra == "well")
    met = world.start(world.hold, Do(lambda: order.append("met")), pool, "line")
    await world.until(lambda: asked.inside)
    behind = await world.in_line(Do(lambda: order.append("behind")), pool, "line")
    asked.release()
    await world.until(lambda: pool.waiting == 2)
    hang.release()
    for handle in (held, met, behind):
        await handle.result()
    assert order == ["met", "behind"]


@scenario
async def test_who_met_a_dead_conn_keeps_his_deadline(world: World) -> None:
    """What the check took is taken from his time; the error names the cause."""
    pool, hang, asked = await world.pool(), world.hang(), world.hang(OSError("torn"))
    await pool.init(world.conn("line", check=[asked]), extra="ill")
    await pool.init(world.conn("line"), extra="well")
    world.clock.advance(1)
    held = await world.holding(hang, pool, "line", filter=lambda info: info.extra == "well")
    met = world.start(world.hold, None, pool, "line", timeout=5)
    await world.until(lambda: asked.inside)
    world.clock.advance(3)
    asked.release()
    await world.until(lambda: pool.waiting == 1)
    await world.advance(1.9)
    assert not met.done
    await world.advance(0.1)
    error = await met.error(PoolTimeout)
    assert (error.waited, error.timeout) == (5.0, 5.0)
    assert isinstance(error.__cause__, OSError)
    hang.release()
    await held.result()


@scenario
async def test_who_does_not_wait_meets_a_dead_conn(world: World) -> None:
    """The error that is true then: its peers are being asked, or there are none."""
    pool, asked = await world.pool(), world.hang()
    await pool.init(world.conn("line", check=[False]))
    spare = world.conn("line", check=[asked, True, False])
    await pool.init(spare)
    world.clock.advance(1)
    with pytest.raises(PoolTimeout):
        await world.hold(None, pool, "line", timeout=0)
    asked.release()
    await world.until(lambda: pool.stats().now.ready == 1)
    assert await world.hold(None, pool, "line", timeout=0) is spare
    world.clock.advance(1)
    with pytest.raises(ResourceError):
        await world.hold(None, pool, "line", timeout=0)


@scenario
async def test_one_that_others_share_is_not_asked(world: World) -> None:
    """It is being used: only who has it alone asks."""
    pool, hang = await world.pool(check_after=0), world.hang()
    conn = world.conn("line", capacity=2)
    await pool.init(conn)
    held = await world.holding(hang, pool, "line", shared=True)
    assert conn.checks == 1
    await world.hold(None, pool, "line", shared=True)
    assert conn.checks == 1
    hang.release()
    await held.result()


@scenario_of_tasks
async def test_a_check_that_hangs_is_an_answer(world: World) -> None:
    """After connect_timeout the conn is dead, and its caller gets another one."""
    pool = await world.pool(connect_timeout=0.01)
    ill, well = world.conn("line", check=[world.hang()]), world.conn("line")
    await pool.init(ill)
    await pool.init(well)
    world.clock.advance(1)
    assert await world.hold(None, pool, "line") is well
    await world.until(lambda: ill.closes)


# -- lend ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lent", ["a session", None, False, 0])
@scenario
async def test_what_lend_gives_is_what_the_block_gets(world: World, lent: Any) -> None:
    """Whatever it is, shared or not; the lease remembers it."""
    pool, conn = await world.pool(), world.conn("line", lend=[lent, lent])
    id = await pool.put(conn)
    for shared in (False, True):
        lease = world.lease(pool, "line", shared=shared)
        async with lease as given:
            assert given is lent
            assert lease.conn is lent
            assert (lease.id, lease.info.conn) == (id, conn)
    assert (conn.lends, pool.route("line")) == (2, conn)


@scenario
async def test_lend_says_closed(world: World) -> None:
    """The conn is dropped, and the same caller gets another one."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    closed, other = world.conn("line", lend=[Closed()]), world.conn("line", lend=["fine"])
    id = await pool.put(closed)
    await pool.put(other)
    assert await world.hold(None, pool, "line") == "fine"
    await world.advance(0)
    assert loss == [(id, "closed")]
    assert (closed.closes, len(pool), pool.stats().since_start.moved) == (1, 1, 1)


@scenario
async def test_lend_says_closed_again_and_again(world: World) -> None:
    """Through all conns; who finds no other one is told, with the cause."""
    pool = await world.pool()
    for number in range(3):
        await pool.put(world.conn("line", lend=[Closed(f"{number}")]))
    with pytest.raises(ResourceError) as caught:
        await world.hold(None, pool, "line")
    assert isinstance(caught.value.__cause__, Closed)
    assert (len(pool), pool.stats().now.in_use) == (0, 0)


@pytest.mark.parametrize(
    "error", [ValueError("busy"), OSError("no"), CallError("no", closed=True), Busy(5)], ids=repr
)
@scenario
async def test_what_else_lend_raises_is_for_its_caller(world: World, error: Exception) -> None:
    """The conn stays and serves the next one: it has said nothing of itself."""
    pool, conn = await world.pool(), world.conn("line", lend=[error, "next"])
    await pool.put(conn)
    with pytest.raises(type(error)) as caught:
        await world.hold(None, pool, "line")
    assert caught.value is error
    assert pool.stats().now.in_use == 0
    assert await world.hold(None, pool, "line", timeout=0) == "next"
    assert conn.closes == 0


@pytest.mark.parametrize("survives", [False, True])
@scenario
async def test_lend_is_cut_short(world: World, survives: bool) -> None:
    """The conn is closed and revived, unless it survives that."""
    pool = await world.pool()
    conn = world.conn("line", lend=[Cut(), "next"], survives_cancel=survives)
    await pool.put(conn, revive=True)
    world.clock.advance(1)
    with pytest.raises(Cut):
        await world.hold(None, pool, "line")
    assert await world.hold(None, pool, "line") == "next"
    assert conn.closes == (not survives)


@scenario
async def test_a_check_is_cut_short(world: World) -> None:
    """Nobody knows whether it is well: it is closed and revived."""
    pool, conn = await world.pool(), world.conn("line", check=[Cut()])
    await pool.put(conn, revive=True)
    world.clock.advance(1)
    with pytest.raises(Cut):
        await world.hold(None, pool, "line")
    await world.hold(None, pool, "line")
    assert (conn.closes, conn.opened) == (1, 1)


class Wrapper:
    """What a conn lends, and cuts off when it is back."""

    over = False

    def use(self) -> str:
        """Use it, while that is allowed."""
        if self.over:
            raise RuntimeError("it was given back")
        return "used"


@scenario
async def test_what_was_lent_can_be_cut_off(world: World) -> None:
    """Who keeps what he was lent is told, when the conn's reset sees to that."""
    pool, lent = await world.pool(), [Wrapper(), Wrapper()]

    def cut_off() -> None:
        current.over = True

    await pool.put(world.conn("line", lend=list(lent), reset=[Do(cut_off)] * 2))
    kept = []
    for _ in range(2):
        async with world.lease(pool, "line") as current:
            kept.append(current)
            assert current.use() == "used"
        for wrapper in kept:
            with pytest.raises(RuntimeError, match="given back"):
                wrapper.use()
    assert kept == lent


# -- reset ---------------------------------------------------------------------------------------


@scenario
async def test_a_conn_is_reset_after_each_block(world: World) -> None:
    """Whether that raised or not, before the next one gets it; not after a shared block."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", reset=[hang, None])
    await pool.put(conn)
    first = world.start(world.hold, None, pool, "line")
    await world.until(lambda: hang.inside)
    assert pool.stats().now.in_use == 1
    second = await world.in_line(ValueError("oops"), pool, "line")
    assert pool.waiting == 1
    hang.release()
    await first.result()
    await second.error(ValueError)
    await world.hold(None, pool, "line", shared=True)
    await hold_and_raise(world, pool, ValueError("oops"), shared=True)
    assert (conn.resets, conn.closes) == (2, 0)
    conn.assert_drained()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("torn"), "dead"), (Closed(), "dead"), (ValueError("dirty"), "unclean")],
    ids=repr,
)
@scenario
async def test_a_reset_that_raises(world: World, error: Exception, reason: str) -> None:
    """The block ends as if nothing had happened; the conn is closed and revived or replaced."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    conn = world.conn("line", reset=[error, None])
    id = await pool.put(conn, revive=True)
    world.clock.advance(1)
    assert await world.hold(None, pool, "line") is conn
    assert await world.hold(None, pool, "line") is conn
    assert loss == [(id, reason)]
    assert (conn.closes, conn.opened) == (1, 1)


@scenario
async def test_block_and_reset_raise(world: World) -> None:
    """What the block raised comes out, and the conn is closed."""
    pool, conn = await world.pool(), world.conn("line", reset=[OSError("torn")])
    await pool.put(conn)
    await hold_and_raise(world, pool, KeyError("mine"))
    await world.advance(0)
    assert (conn.resets, conn.closes, len(pool)) == (1, 1, 0)


@scenario
async def test_a_reset_is_cut_short(world: World) -> None:
    """The interrupt is seen, and the conn, half reset, is closed and revived."""
    loss = Loss()
    pool = await world.pool(on_disconnect=loss)
    conn = world.conn("line", reset=[Cut(), None])
    id = await pool.put(conn, revive=True)
    world.clock.advance(1)
    with pytest.raises(Cut):
        await world.hold(None, pool, "line")
    assert await world.hold(None, pool, "line") is conn
    assert loss == [(id, "interrupted")]


@scenario_of_tasks
async def test_a_reset_that_hangs_is_given_up(world: World) -> None:
    """After connect_timeout: the block ends, and the conn is closed."""
    pool = await world.pool(connect_timeout=0.01)
    conn = world.conn("line", reset=[world.hang()])
    await pool.put(conn)
    assert await world.hold(None, pool, "line") is conn
    await world.until(lambda: conn.closes)
