"""The table of the contract: what a call's end says, to the caller and of the conn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool import (
    Busy,
    CallError,
    Closed,
    FilterError,
    MethodError,
    NestedCall,
    PoolTimeout,
    Reply,
    ResourceError,
    sticky,
)
from connpool.testing import Do

from .worlds import World, scenario

# -- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [42, None, "text", Exception, [1]])
@scenario
async def test_a_value_is_the_reply(world: World, value: Any) -> None:
    """What call returns is what the caller gets, whatever it is."""
    pool, conn = await world.pool(), world.conn("line", [value])
    id = await pool.put(conn)
    assert await pool.call("line", "say", "payload") == value
    assert conn.calls == [("say", "payload")]
    assert pool.info(id).state == "ready"


@scenario
async def test_a_reply_may_ask_for_a_rest(world: World) -> None:
    """The caller gets the value, and the conn nothing to do for that long."""
    pool, conn = await world.pool(), world.conn("line", [Reply("value", cooldown=5), "next"])
    id = await pool.put(conn)
    assert await pool.call("line", "say") == "value"
    assert (pool.info(id).state, pool.info(id).cooldown) == ("cooling", 5.0)
    caller = await world.queued(pool, "line", "say")
    await world.advance(4.5)
    assert not caller.done
    await world.advance(0.5)
    assert await caller.result() == "next"


@scenario
async def test_callers_go_where_nobody_rests(world: World) -> None:
    """While one conn rests the other one serves."""
    pool, first = await world.pool(), world.conn("line", [Reply(1, cooldown=5), 3])
    second = world.conn("line", [2, 2, 2, Reply(2, cooldown=9)])
    await pool.put(first)
    await pool.put(second)
    assert [await pool.call("line", "say") for _ in range(5)] == [1, 2, 2, 2, 2]
    await world.advance(5)
    assert await pool.call("line", "say") == 3


@scenario
async def test_a_caller_gets_the_conn_that_is_free_soonest(world: World) -> None:
    """Where all of them rest, the one whose rest ends first serves first."""
    pool, slow = await world.pool(), world.conn("line", [Reply(1, cooldown=50)])
    soon = world.conn("line", [Reply(2, cooldown=5), "soon"])
    await pool.put(slow)
    await pool.put(soon)
    assert {await pool.call("line", "say"), await pool.call("line", "say")} == {1, 2}
    caller = await world.queued(pool, "line", "say")
    await world.advance(5)
    assert await caller.result() == "soon"


@pytest.mark.parametrize("revive", [False, True])
@scenario
async def test_a_conn_that_closes_in_good_order_is_dropped(world: World, revive: bool) -> None:
    """The caller gets the value; the conn is closed and gone, to be revived or not."""
    pool, conn = await world.pool(), world.conn("line", [Reply("bye", closed=True)])
    id = await pool.put(conn, revive=revive)
    assert await pool.call("line", "say") == "bye"
    await world.advance(0)
    assert id not in pool
    assert (conn.closes, conn.inits, pool.resources()) == (1, [], [])
    with pytest.raises(ResourceError):
        await pool.call("line", "say")


@scenario
async def test_force_revives_a_conn_that_closes_in_good_order(world: World) -> None:
    """It is closed, initialised with its arguments again, listed again, and keeps its id."""
    pool, conn = await world.pool(), world.conn("line", [Reply("bye", closed=True), "back"])
    id = await pool.init(conn, 1, extra="kept", revive="force", two=2)
    assert await pool.call("line", "say") == "bye"
    await world.advance(1)
    assert conn.inits == [((1,), {"two": 2})] * 2
    assert (conn.closes, pool.resources(), pool.info(id).extra) == (1, ["line"], "kept")
    assert await pool.call("line", "say") == "back"


@pytest.mark.parametrize("cooldown", [-1, math.nan, math.inf, "1", None, True])
@scenario
async def test_a_rest_that_makes_no_sense(world: World, cooldown: Any) -> None:
    """It is an error for that caller, which says so; the conn stays, and so does the pool."""
    pool = await world.pool()
    steps = [Reply(1, cooldown=cooldown), Busy(cooldown), CallError("no", cooldown=cooldown), 4]
    id = await pool.put(world.conn("line", steps))
    for _ in range(3):
        with pytest.raises((TypeError, ValueError), match=r"cooldown.*expected.*got"):
            await pool.call("line", "say")
    assert await pool.call("line", "say") == 4
    assert id in pool


# -- calls that did not happen -------------------------------------------------------------------


@scenario
async def test_a_call_moves_from_a_closed_conn(world: World) -> None:
    """The caller sees nothing of it, the other conn gets the call, the closed one is dropped."""
    pool, gone = await world.pool(), world.conn("line", [Closed()])
    other = world.conn("line", ["answer"])
    id = await pool.put(gone)
    await pool.put(other)
    assert await pool.call("line", "say", "payload") == "answer"
    assert gone.calls == other.calls == [("say", "payload")]
    await world.advance(0)
    assert (gone.closes, other.closes, len(pool), id in pool) == (1, 0, 1, False)
    assert pool.stats().since_start.moved == 1


@scenario
async def test_a_call_moves_through_all_conns_until_one_answers(world: World) -> None:
    """However many of them are closed."""
    pool = await world.pool()
    for _ in range(5):
        await pool.put(world.conn("line", [Closed()]))
    await pool.put(world.conn("line", ["at last"]))
    assert await pool.call("line", "say") == "at last"
    await world.advance(0)
    assert pool.stats().since_start.moved == 6 - len(pool)  # each of the closed is dropped


@scenario
async def test_where_the_last_conn_is_closed_nobody_can_serve(world: World) -> None:
    """The error says that there is no conn, and what became of the last one."""
    pool = await world.pool()
    closed = [Closed("one"), Closed("two")]
    for error in closed:
        await pool.put(world.conn("line", [error]))
    with pytest.raises(ResourceError) as caught:
        await pool.call("line", "say")
    assert caught.value.__cause__ in closed


@scenario
async def test_a_call_waits_for_the_closed_conn_to_be_revived(world: World) -> None:
    """Where no other conn is there, it moves to the same one, revived."""
    pool, conn = await world.pool(), world.conn("line", [Closed(), "back"])
    await pool.init(conn, revive=True)
    caller = world.start(pool.call, "line", "say")
    await world.until(lambda: conn.opened == 2)
    assert await caller.result() == "back"
    assert conn.closes == 1


@scenario
async def test_a_busy_conn_hands_the_call_on(world: World) -> None:
    """It rests as long as it says, the call goes to another conn, and nothing is closed."""
    pool, busy = await world.pool(), world.conn("line", [Busy(30), "well again"])
    other = world.conn("line", ["answer"])
    id = await pool.put(busy)
    await pool.put(other)
    assert await pool.call("line", "say") == "answer"
    assert (pool.info(id).state, pool.info(id).cooldown, busy.closes) == ("cooling", 30.0, 0)
    await world.advance(30)
    assert await pool.call("line", "say", filter=lambda info: info.id == id) == "well again"


@scenario
async def test_a_call_waits_for_the_only_conn_that_is_busy(world: World) -> None:
    """Until it has rested."""
    pool, conn = await world.pool(), world.conn("line", [Busy(3), "answer"])
    await pool.put(conn)
    caller = await world.queued(pool, "line", "say")
    await world.advance(2.5)
    assert len(conn.calls) == 1
    await world.advance(0.5)
    assert await caller.result() == "answer"


@scenario
async def test_two_busy_conns_do_not_play_ping_pong(world: World) -> None:
    """Conns that say Busy without a cooldown rest longer each time, and calls between them few."""
    pool = await world.pool()
    conns = [world.conn("line", [Busy()] * 60), world.conn("line", [Busy()] * 60)]
    for conn in conns:
        await pool.put(conn)
    caller = await world.queued(pool, "line", "say", timeout=10)
    for _ in range(100):
        await world.advance(0.1)
        await world.until(lambda: pool.waiting or caller.done)
    error = await caller.error(PoolTimeout)
    assert isinstance(error.__cause__, Busy)
    assert sum(len(conn.calls) for conn in conns) <= 60


# -- calls that failed ---------------------------------------------------------------------------


@scenario
async def test_a_failed_call_may_ask_for_a_rest(world: World) -> None:
    """The caller gets the very error, and the conn rests."""
    error = CallError("no", cooldown=7)
    pool, conn = await world.pool(), world.conn("line", [error, "better"])
    id = await pool.put(conn)
    with pytest.raises(CallError) as caught:
        await pool.call("line", "say")
    assert caught.value is error
    assert pool.info(id).cooldown == 7.0
    await world.advance(7)
    assert await pool.call("line", "say") == "better"


@pytest.mark.parametrize(
    "error",
    [CallError("no", closed=True), OSError("torn"), EOFError(), TimeoutError(), BrokenPipeError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("revive", [False, True])
@scenario
async def test_an_error_that_means_the_conn_is_dead(
    world: World, error: Exception, revive: bool
) -> None:
    """The caller gets it; the conn is closed, and dropped or revived."""
    pool, conn = await world.pool(), world.conn("line", [error, "back"])
    id = await pool.init(conn, revive=revive)
    with pytest.raises(type(error)) as caught:
        await pool.call("line", "say")
    assert caught.value is error
    await world.advance(0)
    assert conn.closes == 1
    assert (id in pool) is revive
    if revive:
        assert await pool.call("line", "say") == "back"
    else:
        assert pool.empty("line")


@pytest.mark.parametrize(
    "error",
    [CallError("no"), ValueError("no"), KeyError("no"), StopAsyncIteration(), RuntimeError()],
    ids=lambda error: type(error).__name__,
)
@scenario
async def test_any_other_error_leaves_the_conn(world: World, error: Exception) -> None:
    """The caller gets it, and the conn serves on."""
    pool, conn = await world.pool(), world.conn("line", [error, "fine"])
    id = await pool.put(conn)
    with pytest.raises(type(error)) as caught:
        await pool.call("line", "say")
    assert caught.value is error
    assert await pool.call("line", "say") == "fine"
    assert (id in pool, conn.closes) == (True, 0)


@scenario
async def test_the_error_of_another_pool_is_not_the_death_of_the_conn(world: World) -> None:
    """A conn may use a pool itself: that pool's timeout says nothing of the conn."""
    pool = await world.pool()
    id = await pool.put(world.conn("line", [PoolTimeout("another pool's"), "fine"]))
    with pytest.raises(PoolTimeout, match="another"):
        await pool.call("line", "say")
    assert id in pool


@pytest.mark.parametrize("survives", [False, True])
@scenario
async def test_a_call_that_is_cut_short(world: World, survives: bool) -> None:
    """What is no Exception leaves the state of the conn unknown: it goes, or says it survives."""

    class Cut(BaseException):
        pass

    pool = await world.pool()
    conn = world.conn("line", [Cut(), "fine"], survives_cancel=survives)
    id = await pool.put(conn)
    with pytest.raises(Cut):
        await pool.call("line", "say")
    await world.advance(0)
    assert (id in pool, conn.closes) == (survives, 0 if survives else 1)


@scenario
async def test_a_conn_that_fails_at_once_does_not_draw_the_traffic(world: World) -> None:
    """It looks idle while the others work: it gets no more calls than one of them would."""
    pool, hang = await world.pool(), world.hang()

    def work(method: Any, payload: Any) -> None:
        world.clock.advance(0.1)

    for _ in range(4):
        await pool.put(world.conn("line", [Do(work), hang]))
    for _ in range(4):
        await pool.call("line", "say")
    running = [await world.running(hang, pool, "line", "say") for _ in range(4)]
    bad = world.conn("line", [ValueError("at once")] * 100)
    await pool.put(bad)
    for _ in range(10):
        for _ in range(10):
            with pytest.raises((ValueError, PoolTimeout)):
                await pool.call("line", "say", timeout=0)
        await world.advance(0.1)
    assert 5 <= len(bad.calls) <= 12
    hang.release()
    for caller in running:
        await caller.result()


# -- who can serve -------------------------------------------------------------------------------


@scenario
async def test_resource_is_tested_before_method_before_filter(world: World) -> None:
    """Each error names what was asked and what there was instead."""
    pool = await world.pool(name="demo")
    await pool.put(world.conn("line", methods=["say", "ask"]))

    def never(info: Any) -> bool:
        return False

    with pytest.raises(ResourceError, match=r"'demo'.*'else'") as resource:
        await pool.call("else", "sing", filter=never)
    with pytest.raises(MethodError, match=r"'demo'.*'line'.*'sing'.*'ask', 'say'") as method:
        await pool.call("line", "sing", filter=never)
    with pytest.raises(FilterError, match=r"'demo'.*'line'.*'say'.*never") as filtered:
        await pool.call("line", "say", filter=never)
    assert resource.value.resource == "else"
    assert set(method.value.methods) == {"say", "ask"}
    assert (filtered.value.candidates, filtered.value.pool) == (1, "demo")
    for caught in (resource, method, filtered):
        assert isinstance(caught.value, LookupError)


@scenario
async def test_only_conns_that_have_the_method_and_pass_the_filter_serve(world: World) -> None:
    """A filter sees the names of Info."""
    pool = await world.pool()
    for resource, methods, extra in (("a", ["x"], 1), ("a", ["x", "y"], 2), ("b", ["x"], 1)):
        conn = world.conn(resource, [(resource, extra)] * 3, methods=methods)
        await pool.put(conn, extra=extra)
    for _ in range(3):
        assert await pool.call("a", "x", filter=lambda info: info.extra == 1) == ("a", 1)
    for _ in range(3):
        assert await pool.call("a", "y") == ("a", 2)
    assert await pool.call("b", "x") == ("b", 1)


@scenario
async def test_a_filter_that_raises_is_its_callers_affair(world: World) -> None:
    """The error reaches that caller, at once or when a conn it waits for is offered to it."""
    pool, hang = await world.pool(), world.hang()
    await pool.put(world.conn("line", [hang, "fine"]))

    def broken(info: Any) -> bool:
        if info.in_use:
            return True
        raise ZeroDivisionError

    busy = await world.running(hang, pool, "line", "say")
    late = await world.queued(pool, "line", "say", filter=broken)
    behind = await world.queued(pool, "line", "say")
    hang.release()
    await busy.result()
    await late.error(ZeroDivisionError)
    assert await behind.result() == "fine"
    with pytest.raises(ZeroDivisionError):
        await pool.call("line", "say", filter=broken)
    assert pool.stats().now.in_use == 0


@scenario
async def test_a_filter_may_not_call_its_pool(world: World) -> None:
    """It raises at once instead of locking everybody out."""
    pool = await world.pool()
    id = await pool.put(world.conn("line", ["fine"]))
    with pytest.raises(RuntimeError, match="filter or a router may not call the pool"):
        await pool.call("line", "say", filter=lambda info: pool.info(info.id))
    assert await pool.call("line", "say", filter=lambda info: info.id == id) == "fine"


@pytest.mark.parametrize("by", ["least_wait", "round_robin", "random", "least_used", "two_choices"])
@scenario
async def test_each_strategy_chooses_among_the_conns_that_can_serve(world: World, by: str) -> None:
    """And over many calls leaves none of the equal ones out."""
    pool = await world.pool()
    conns = [world.conn("line") for _ in range(3)]
    for conn in conns:
        await pool.put(conn)
    await pool.put(world.conn("line", [], methods=["other"]))
    for number in range(90):
        assert await pool.call("line", "say", number, by=by) == number
    assert sum(len(conn.calls) for conn in conns) == 90
    if by != "least_used":
        assert all(conn.calls for conn in conns)


@scenario
async def test_equal_conns_take_turns(world: World) -> None:
    """Without `by` the one that has been idle longest comes next."""
    pool = await world.pool()
    conns = [world.conn("line") for _ in range(3)]
    for conn in conns:
        await pool.put(conn)
    for _ in range(9):
        await pool.call("line", "say")
    assert [len(conn.calls) for conn in conns] == [3, 3, 3]


@scenario
async def test_sticky_and_functions_choose(world: World) -> None:
    """The same key goes to the same conn; a function picks one of the conns it is shown."""
    pool = await world.pool()
    for name in "abc":
        await pool.put(world.conn("line", [name] * 20), extra=name)
    assert len({await pool.call("line", "say", by=sticky("key")) for _ in range(9)}) == 1
    for _ in range(3):
        assert await pool.call("line", "say", by=lambda conns: conns[-1]) in "abc"
    assert await pool.call("line", "say", by=lambda c: min(c, key=lambda i: i.extra)) == "a"
    with pytest.raises(ValueError, match="expected one of the conns"):
        await pool.call("line", "say", by=lambda conns: "a")
    assert pool.stats().now.in_use == 0


# -- calls inside calls --------------------------------------------------------------------------


@scenario
async def test_a_call_from_inside_a_call_on_the_same_conn(world: World) -> None:
    """It would wait for itself: an error at once, and the outer call goes on."""
    pool = await world.pool()

    async def nest(method: Any, payload: Any) -> Any:
        with pytest.raises(NestedCall, match="wait for itself"):
            await pool.call("line", "say", timeout=None)
        return "outer"

    await pool.put(world.conn("line", [Do(world.plain(nest)), "after"]))
    assert await pool.call("line", "say") == "outer"
    assert await pool.call("line", "say") == "after"


@scenario
async def test_a_call_from_inside_a_call_on_another_conn(world: World) -> None:
    """Another resource, another conn or another place of the same conn: all are fine."""
    pool = await world.pool()

    async def nest(method: Any, payload: Any) -> Any:
        return await pool.call(*payload) if payload else "other conn"

    await pool.put(world.conn("a", [Do(world.plain(nest))]))
    await pool.put(world.conn("b", ["other resource"]))
    assert await pool.call("a", "say", ("b", "say")) == "other resource"
    for _ in range(2):
        await pool.put(world.conn("c", [Do(world.plain(nest))]))
    assert await pool.call("c", "say", ("c", "say")) == "other conn"
    await pool.put(world.conn("d", [Do(world.plain(nest)), "other place"], capacity=2))
    assert await pool.call("d", "say", ("d", "say")) == "other place"


# -- capacity ------------------------------------------------------------------------------------


@scenario
async def test_a_conn_carries_as_many_calls_as_it_has_places(world: World) -> None:
    """And one more waits."""
    pool, hang = await world.pool(), world.hang("done")
    conn = world.conn("line", [hang] * 4, capacity=3)
    id = await pool.put(conn)
    callers = [await world.running(hang, pool, "line", "say") for _ in range(3)]
    callers.append(await world.queued(pool, "line", "say"))
    assert (pool.info(id).in_use, conn.running, pool.waiting) == (3, 3, 1)
    hang.release()
    assert [await caller.result() for caller in callers] == ["done"] * 4
    assert conn.most == 3
