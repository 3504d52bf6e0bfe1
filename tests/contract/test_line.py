"""The line: who waits, in which order, for how long, and for what in vain."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool import (
    Busy,
    Closed,
    FilterError,
    MethodError,
    PoolFull,
    PoolTimeout,
    Reply,
    ResourceError,
)

from .worlds import World, scenario, scenario_of_tasks

# -- order ---------------------------------------------------------------------------------------


@scenario
async def test_callers_are_served_in_order_of_arrival(world: World) -> None:
    """First come, first served."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang] * 21)
    await pool.put(conn)
    callers = [await world.running(hang, pool, "line", "say", -1)]
    callers += [await world.queued(pool, "line", "say", number) for number in range(20)]
    hang.release()
    for caller in callers:
        await caller.result()
    assert conn.calls == [("say", number) for number in range(-1, 20)]


@scenario
async def test_order_holds_over_methods_and_filters(world: World) -> None:
    """Among all that a conn can serve, whatever they ask for, the first comes first."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang] * 13, methods=["say", "ask"])
    await pool.put(conn)
    callers = [await world.running(hang, pool, "line", "say", -1)]
    wishes: list[tuple[str, Any]] = [("say", None), ("ask", None), ("say", lambda info: True)]
    for number in range(12):
        method, filter = wishes[number % 3]
        callers.append(await world.queued(pool, "line", method, number, filter=filter))
    hang.release()
    for caller in callers:
        await caller.result()
    assert [payload for _, payload in conn.calls] == list(range(-1, 12))


@scenario
async def test_a_newcomer_does_not_overtake(world: World) -> None:
    """Not even where the conn is free for a moment: it is given to who waits."""
    pool, hang, second = await world.pool(), world.hang(), world.hang()
    conn = world.conn("line", [hang, second, "newcomer"])
    await pool.put(conn)
    first = await world.running(hang, pool, "line", "say", "first")
    waiting = await world.queued(pool, "line", "say", "waiting")
    hang.release()
    await first.result()
    with pytest.raises(PoolTimeout):
        await pool.call("line", "say", "newcomer", timeout=0)
    second.release()
    await waiting.result()
    assert await pool.call("line", "say", "newcomer") == "newcomer"


@scenario
async def test_who_cannot_be_served_holds_up_nobody(world: World) -> None:
    """Whoever waits for another conn is passed over."""
    pool, slow, quick = await world.pool(), world.hang(), world.hang()
    await pool.put(world.conn("line", [slow, "slow"], methods=["slow"]))
    await pool.put(world.conn("line", [quick, "quick"], methods=["quick"]))
    running = [
        await world.running(slow, pool, "line", "slow"),
        await world.running(quick, pool, "line", "quick"),
    ]
    first = await world.queued(pool, "line", "slow")
    second = await world.queued(pool, "line", "quick")
    quick.release()
    assert await second.result() == "quick"
    assert not first.done
    slow.release()
    assert await first.result() == "slow"
    for caller in running:
        await caller.result()


@pytest.mark.parametrize("error", [Closed(), Busy(5)], ids=["Closed", "Busy"])
@scenario
async def test_a_moved_call_keeps_its_place(world: World, error: Exception) -> None:
    """It goes before those who came after it, however long its first conn took to refuse it."""
    pool, refusing, busy = await world.pool(), world.hang(error), world.hang()
    conn = world.conn("line", [busy, "moved", "behind"])
    await pool.put(world.conn("line", [refusing]), extra="refuses")
    await pool.put(conn, extra="serves")
    moved = await world.running(
        refusing, pool, "line", "say", "moved", by=lambda c: min(c, key=lambda info: info.extra)
    )
    running = await world.running(busy, pool, "line", "say", "running")
    behind = await world.queued(pool, "line", "say", "behind")
    refusing.release()
    await world.until(lambda: pool.waiting == 2)
    busy.release()
    for caller in (running, moved, behind):
        await caller.result()
    assert [payload for _, payload in conn.calls] == ["running", "moved", "behind"]


@scenario
async def test_a_conn_that_dies_serves_those_behind_it_from_another(world: World) -> None:
    """Their places and their order stay."""
    pool, hang, other = await world.pool(), world.hang(OSError("torn")), world.hang()
    conn = world.conn("line", [other] * 4)
    await pool.put(world.conn("line", [hang]))
    await pool.put(conn)
    dying = await world.running(hang, pool, "line", "say", "dying")
    callers = [await world.running(other, pool, "line", "say", 0)]
    callers += [await world.queued(pool, "line", "say", number) for number in (1, 2, 3)]
    hang.release()
    await dying.error(OSError)
    assert pool.waiting == 3
    other.release()
    for caller in callers:
        await caller.result()
    assert [payload for _, payload in conn.calls] == [0, 1, 2, 3]


@scenario
async def test_a_new_conn_serves_those_who_wait(world: World) -> None:
    """Put, a change of extra, a change of methods, a change of capacity: each wakes who can go."""
    pool, hang = await world.pool(), world.hang("done")
    conn = world.conn("line", [hang] * 9)
    id = await pool.put(conn, extra="old")
    callers = [await world.running(hang, pool, "line", "say")]

    callers.append(await world.queued(pool, "line", "say", 1))
    await pool.put(world.conn("line", ["put"]))
    assert await callers.pop().result() == "put"

    callers.append(await world.queued(pool, "line", "say", filter=lambda info: info.id == id))
    assert await pool.update("line", filter=lambda info: info.id == id, capacity=2) == 1
    await world.until(lambda: conn.running == 2)
    conn.capacity = 2
    hang.release()
    for caller in callers:
        assert await caller.result() == "done"


@scenario
async def test_a_change_of_extra_is_seen_by_those_who_wait(world: World) -> None:
    """Who waits through a filter is served, or told that nobody will, as soon as it is changed."""
    pool, hang = await world.pool(), world.hang()
    first = await pool.put(world.conn("line", [hang, 1]), extra="a")
    second = await pool.put(world.conn("line", [2]), extra="b")
    running = await world.running(hang, pool, "line", "say", filter=lambda info: info.extra == "a")
    waiting = await world.queued(pool, "line", "say", filter=lambda info: info.extra == "a")
    assert pool.extra(second, "a") == "b"
    assert await waiting.result() == 2
    pool.extra(second, "b")
    waiting = await world.queued(pool, "line", "say", filter=lambda info: info.extra == "a")
    assert pool.extra(first, "c") == "a"
    await waiting.error(FilterError)
    hang.release()
    await running.result()
    assert pool.info(first).extra == "c"


@scenario
async def test_who_waits_in_vain_is_told_at_once(world: World) -> None:
    """When the last conn goes, or loses the method, the precise error comes without a timeout."""
    pool, hang = await world.pool(), world.hang(OSError("torn"))
    await pool.put(world.conn("line", [hang], methods=["say", "ask"]))
    running = await world.running(hang, pool, "line", "say")
    asks = await world.queued(pool, "line", "ask", timeout=None)
    says = await world.queued(pool, "line", "say", timeout=None)
    await pool.update("line", methods=["say"])
    assert (await asks.error(MethodError)).methods == ("say",)
    hang.release()
    died = await running.error(OSError)
    assert (await says.error(ResourceError)).__cause__ is died


# -- timeouts ------------------------------------------------------------------------------------


@scenario
async def test_a_wait_ends_at_its_timeout(world: World) -> None:
    """The error carries the numbers, and the call is never made."""
    pool, hang = await world.pool(name="demo"), world.hang()
    conn = world.conn("line", [hang, "next"])
    await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say", "too late", timeout=5)
    await world.advance(4.9)
    assert not waiting.done
    await world.advance(0.1)
    error = await waiting.error(PoolTimeout)
    assert issubclass(PoolTimeout, TimeoutError)
    assert (error.pool, error.resource, error.method) == ("demo", "line", "say")
    assert (error.waited, error.timeout, error.waiting) == (5.0, 5.0, 0)
    hang.release()
    await running.result()
    assert await pool.call("line", "say", "next") == "next"
    assert [payload for _, payload in conn.calls] == [None, "next"]


@scenario
async def test_a_place_that_comes_at_the_deadline_is_not_given(world: World) -> None:
    """Timeout and return at one instant: the error, and the place goes to the next."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang, "next"])
    await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    late = await world.queued(pool, "line", "say", "late", timeout=5)
    behind = await world.queued(pool, "line", "say", "behind")
    world.clock.advance(5)
    hang.release()
    await running.result()
    await late.error(PoolTimeout)
    assert await behind.result() == "next"
    assert [payload for _, payload in conn.calls] == [None, "behind"]


@scenario
async def test_there_is_one_deadline_over_all_moves(world: World) -> None:
    """However often a call is queued anew, its timeout counts from the beginning."""
    pool = await world.pool()
    conn = world.conn("line", [Busy(3)] * 4)
    await pool.put(conn)
    caller = await world.queued(pool, "line", "say", timeout=10)
    for number in (2, 3, 4):
        await world.advance(3)
        await world.until(lambda number=number: len(conn.calls) == number)  # type: ignore[misc]
        await world.until(lambda: pool.waiting)
    await world.advance(1)
    error = await caller.error(PoolTimeout)
    assert (error.waited, error.timeout) == (10.0, 10.0)
    assert isinstance(error.__cause__, Busy)


@scenario
async def test_timeout_0_does_not_wait(world: World) -> None:
    """The error that is true now: all busy or resting is a timeout, none alive is a resource."""
    pool, hang = await world.pool(), world.hang(Reply(1, cooldown=5))
    conn = world.conn("line", [hang, BrokenPipeError()], init=[None, *[BrokenPipeError()] * 9])
    await pool.init(conn, revive=True)
    running = await world.running(hang, pool, "line", "say")
    with pytest.raises(PoolTimeout):
        await pool.call("line", "say", timeout=0)
    hang.release()
    await running.result()
    with pytest.raises(PoolTimeout):
        await pool.call("line", "say", timeout=0)
    await world.advance(5)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say", timeout=0)
    with pytest.raises(ResourceError):
        await pool.call("line", "say", timeout=0)
    with pytest.raises(ResourceError):
        await pool.call("else", "say", timeout=0)
    assert pool.waiting == 0


@scenario
async def test_timeout_0_is_served_where_a_conn_is_free(world: World) -> None:
    """Not waiting is not the same as not asking."""
    pool = await world.pool(timeout=0)
    await pool.put(world.conn("line", ["a", "b"]))
    assert await pool.call("line", "say") == "a"
    assert await pool.call("line", "say", timeout=0) == "b"


@pytest.mark.parametrize("forever", [None, math.inf])
@scenario
async def test_no_timeout_waits_for_ever(world: World, forever: float | None) -> None:
    """A caller may say so, and the pool may for all of them."""
    pool, hang = await world.pool(timeout=forever), world.hang()
    await pool.put(world.conn("line", [hang] * 3))
    callers = [
        await world.running(hang, pool, "line", "say"),
        await world.queued(pool, "line", "say"),
        await world.queued(pool, "line", "say", timeout=forever),
    ]
    for _ in range(3):
        await world.advance(1e9)
    assert pool.waiting == 2
    hang.release()
    for caller in callers:
        await caller.result()


@scenario
async def test_the_pools_timeout_is_the_default(world: World) -> None:
    """And 30 seconds where it says nothing."""
    for options, seconds in (({}, 30), ({"timeout": 2}, 2)):
        pool, hang = await world.pool(**options), world.hang()
        await pool.put(world.conn("line", [hang]))
        running = await world.running(hang, pool, "line", "say")
        waiting = await world.queued(pool, "line", "say")
        await world.advance(seconds - 0.1, pool)
        assert not waiting.done
        await world.advance(0.1, pool)
        await waiting.error(PoolTimeout)
        hang.release()
        await running.result()


@scenario
async def test_the_call_itself_is_not_timed(world: World) -> None:
    """A timeout is for the wait for a conn only."""
    pool, hang = await world.pool(), world.hang("slow")
    await pool.put(world.conn("line", [hang]))
    running = await world.running(hang, pool, "line", "say", timeout=1)
    await world.advance(100)
    hang.release()
    assert await running.result() == "slow"


@scenario
async def test_a_timeout_is_not_held_against_the_conn(world: World) -> None:
    """Callers that give up leave nothing behind."""
    pool, hang = await world.pool(), world.hang()
    id = await pool.put(world.conn("line", [hang, "fine"]))
    running = await world.running(hang, pool, "line", "say")
    given_up = [await world.queued(pool, "line", "say", timeout=1) for _ in range(5)]
    await world.advance(1)
    for caller in given_up:
        await caller.error(PoolTimeout)
    hang.release()
    await running.result()
    assert (pool.waiting, pool.info(id).in_use) == (0, 0)
    assert pool.stats().since_start.timeouts == 5
    assert await pool.call("line", "say") == "fine"


# -- a full line ---------------------------------------------------------------------------------


@scenario
async def test_one_caller_more_than_may_wait(world: World) -> None:
    """It gets PoolFull at once; when somebody has left, the next may wait."""
    pool, hang = await world.pool(max_waiting=2), world.hang()
    await pool.put(world.conn("line", [hang] * 4))
    callers = [await world.running(hang, pool, "line", "say")]
    brief = await world.queued(pool, "line", "say", timeout=1)
    callers.append(await world.queued(pool, "line", "say"))
    with pytest.raises(PoolFull, match="2 callers wait") as caught:
        await pool.call("line", "say")
    assert (caught.value.limit, caught.value.most) == ("max_waiting", 2)
    await world.advance(1)
    await brief.error(PoolTimeout)
    callers.append(await world.queued(pool, "line", "say"))
    hang.release()
    for caller in callers:
        await caller.result()


@scenario
async def test_nobody_may_wait(world: World) -> None:
    """max_waiting=0: who finds no free conn is refused; who finds one is served."""
    pool, hang = await world.pool(max_waiting=0), world.hang()
    await pool.put(world.conn("line", [hang, "fine"]))
    running = await world.running(hang, pool, "line", "say")
    with pytest.raises(PoolFull):
        await pool.call("line", "say")
    hang.release()
    await running.result()
    assert await pool.call("line", "say") == "fine"


@scenario
async def test_a_moved_call_is_not_refused_for_a_full_line(world: World) -> None:
    """It had its place before the line was full."""
    pool, busy, hang = await world.pool(max_waiting=1), world.hang(Busy(5)), world.hang()
    await pool.put(world.conn("line", [busy]), extra=1)
    await pool.put(world.conn("line", [hang, "moved", "waiting"]), extra=2)
    moved = await world.running(busy, pool, "line", "say", filter=lambda info: info.extra)
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say")
    busy.release()
    await world.until(lambda: pool.waiting == 2)
    hang.release()
    await running.result()
    assert (await moved.result(), await waiting.result()) == ("moved", "waiting")


# -- being cancelled -----------------------------------------------------------------------------


@scenario_of_tasks
async def test_a_caller_cancelled_in_line_leaves_it(world: World) -> None:
    """Its call is never made, and whoever stood behind it moves up."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang, "next"])
    await pool.put(conn)
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say", "cancelled")
    behind = await world.queued(pool, "line", "say", "behind")
    waiting.cancel()
    await waiting.end()
    assert pool.waiting == 1
    hang.release()
    await running.result()
    assert await behind.result() == "next"
    assert [payload for _, payload in conn.calls] == [None, "behind"]


@pytest.mark.parametrize("cancel_first", [False, True])
@scenario_of_tasks
async def test_granted_and_cancelled_in_one_tick(world: World, cancel_first: bool) -> None:
    """In either order no place is lost: whoever stood behind is served."""
    pool, hang = await world.pool(), world.hang()
    spare = world.conn("line")
    await pool.put(world.conn("line", [hang]), extra="wanted")
    id = await pool.put(spare)

    def wanted(info: Any) -> bool:
        return bool(info.extra == "wanted")

    running = await world.running(hang, pool, "line", "say", filter=wanted)
    waiting = await world.queued(pool, "line", "say", "cancelled", filter=wanted)
    behind = await world.queued(pool, "line", "say", "behind", filter=wanted)
    if cancel_first:
        waiting.cancel()
        pool.extra(id, "wanted")
    else:
        pool.extra(id, "wanted")
        waiting.cancel()
    assert await behind.result() == "behind"
    await waiting.end()
    assert spare.calls[-1] == ("say", "behind")
    if cancel_first:
        assert len(spare.calls) == 1
    hang.release()
    await running.result()
    assert pool.stats().now.in_use == 0


@pytest.mark.parametrize("survives", [False, True])
@scenario_of_tasks
async def test_a_call_cancelled_part_way(world: World, survives: bool) -> None:
    """Its conn is closed and goes, unless it survives that; the next caller gets its own reply."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [hang, "own"], survives_cancel=survives)
    id = await pool.init(conn, revive=True)
    running = await world.running(hang, pool, "line", "say", "cancelled")
    waiting = await world.queued(pool, "line", "say", "own")
    running.cancel()
    await running.end()
    assert await waiting.result() == "own"
    assert (conn.closes, conn.opened) == ((0, 1) if survives else (1, 2))
    assert id in pool
