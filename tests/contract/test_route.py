"""route: a live conn at once, without a lease, for what many may share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from connpool import (
    Backoff,
    Closed,
    FilterError,
    MethodError,
    PoolClosed,
    Reply,
    ResourceError,
    sticky,
)

from .worlds import PoolFace, World, scenario

STEADY = Backoff(first=1, factor=2, jitter=0, most=8)
STRATEGIES = [None, "round_robin", "random", "least_used", "least_wait", "two_choices"]


async def filled(world: World, size: int, **options: Any) -> tuple[PoolFace, list[Any]]:
    """A pool with so many conns to "line", and the conns."""
    pool, conns = await world.pool(backoff=STEADY, **options), []
    for number in range(size):
        conns.append(world.conn("line"))
        await pool.init(conns[-1], extra=number, revive=True)
    return pool, conns


# -- what is chosen from -------------------------------------------------------------------------


@pytest.mark.parametrize("by", STRATEGIES)
@scenario
async def test_it_gives_a_live_conn(world: World, by: Any) -> None:
    """Itself, not a copy; nothing is taken or counted, so nothing has to be given back."""
    pool, conns = await filled(world, 3)
    for _ in range(20):
        assert pool.route("line", by=by) in conns
        assert pool.route("line", method="say", by=by) in conns
    now = pool.stats().now
    assert (now.in_use, now.ready, pool.stats().since_start.calls) == (0, 3, 0)


@pytest.mark.parametrize("by", [*STRATEGIES, sticky("key"), lambda conns: conns[0]], ids=str)
@scenario
async def test_none_is_there(world: World, by: Any) -> None:
    """An error that says so, as that of call does: no division by zero, and no waiting."""
    pool = await world.pool(name="p")
    with pytest.raises(ResourceError, match="pool 'p' has no open conn to 'line'"):
        pool.route("line", by=by)
    await pool.put(world.conn("line"), extra="eu")
    with pytest.raises(MethodError, match="no conn has the method 'shout'"):
        pool.route("line", method="shout", by=by)
    with pytest.raises(FilterError, match="no conn passes the filter"):
        pool.route("line", filter=lambda conn: conn.extra == "us", by=by)
    with pytest.raises(ResourceError):
        pool.route("else", method="shout", filter=lambda conn: False, by=by)


@scenario
async def test_a_closed_pool(world: World) -> None:
    """Is told apart from an empty one."""
    pool, _ = await filled(world, 1)
    await pool.close()
    with pytest.raises(PoolClosed):
        pool.route("line")


@pytest.mark.parametrize("by", STRATEGIES)
@scenario
async def test_in_use_or_resting_is_alive(world: World, by: Any) -> None:
    """Nobody has to be free: many share a conn."""
    pool, hang = await world.pool(), world.hang("done")
    busy, resting = world.conn("line", [hang]), world.conn("line", [Reply(1, cooldown=100)])
    await pool.put(resting)
    await pool.call("line", "say")
    await pool.put(busy)
    caller = await world.running(hang, pool, "line", "say")
    assert {id(pool.route("line", by=by)) for _ in range(50)} <= {id(busy), id(resting)}
    hang.release()
    assert await caller.result() == "done"


@scenario
async def test_only_with_the_method(world: World) -> None:
    """Conns to one resource may differ."""
    pool = await world.pool()
    reader, writer = world.conn("line", methods=["read"]), world.conn("line", methods=["write"])
    for conn in (reader, writer):
        await pool.put(conn)
    assert {id(pool.route("line", method="read")) for _ in range(6)} == {id(reader)}
    assert {id(pool.route("line")) for _ in range(6)} == {id(reader), id(writer)}


@scenario
async def test_several_resources(world: World) -> None:
    """A conn that names several is found under each."""
    pool, conn = await world.pool(), world.conn(["a", "b"])
    await pool.put(conn)
    assert pool.route("a") is pool.route("b") is conn


@scenario
async def test_it_opens_nothing(world: World) -> None:
    """A supply's live conns are chosen from; where there is none it is no use to route."""
    pool, works = await world.pool(), world.works()
    await pool.supply("db", works)
    with pytest.raises(ResourceError):
        pool.route("db")
    await world.advance(10)
    assert works.made == []
    pool.resize("db", min_size=2)
    await pool.wait_ready()
    assert {id(pool.route("db")) for _ in range(4)} == {id(conn) for conn in works.made}


# -- coming and going ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", STRATEGIES)
@scenario
async def test_one_that_dies_leaves_and_is_back(world: World, by: Any) -> None:
    """At once, and as soon as it is revived."""
    pool, hang = await world.pool(), world.hang()
    mortal = world.conn("line", [BrokenPipeError()], init=[None, hang])
    await pool.init(mortal, revive=True, extra="mortal")
    steady = world.conn("line")
    await pool.put(steady)
    assert pool.route("line") in (mortal, steady)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say", filter=lambda conn: conn.extra == "mortal")
    assert {id(pool.route("line", by=by)) for _ in range(20)} == {id(steady)}
    hang.release()
    await world.advance(0)
    await world.until(lambda: len(pool) == 2)
    turns = [pool.route("line") for _ in range(4)]
    assert turns.count(mortal) == 2


@scenario
async def test_the_last_one_dies(world: World) -> None:
    """Nothing is left to choose from until it is back: route does not wait for it."""
    pool, hang = await world.pool(), world.hang()
    conn = world.conn("line", [Closed()], init=[None, hang])
    await pool.init(conn, revive=True)
    caller = await world.queued(pool, "line", "say", timeout=1)
    with pytest.raises(ResourceError):
        pool.route("line")
    world.clock.advance(1)
    pool.stats()  # a turn: what is due happens
    await caller.end()
    hang.release()
    await world.until(lambda: len(pool) == 1)
    assert pool.route("line") is conn


@scenario
async def test_an_expired_one_is_never_given(world: World) -> None:
    """From the very instant on, though nobody has swept."""
    pool, brief, steady = await world.pool(), world.conn("line"), world.conn("line")
    await pool.put(brief, ttl=60)
    await pool.put(steady)
    world.clock.advance(59.9)
    assert {id(pool.route("line")) for _ in range(4)} == {id(brief), id(steady)}
    world.clock.advance(0.1)
    assert {id(pool.route("line")) for _ in range(4)} == {id(steady)}


@scenario
async def test_popped_or_drained_ones_are_never_given(world: World) -> None:
    """Nor does one that has come since wait for its first turn."""
    pool, conns = await filled(world, 3)
    ids = [info.id for info in pool.infos("line")]
    pool.route("line")
    pool.drain(id=ids[0])
    assert {id(pool.route("line")) for _ in range(4)} == {id(conn) for conn in conns[1:]}
    world.count(conns[1], 1)
    await pool.pop(ids[1])
    world.loose(conns[1])
    assert {id(pool.route("line")) for _ in range(4)} == {id(conns[2])}
    late = world.conn("line")
    await pool.put(late)
    assert {id(pool.route("line")) for _ in range(2)} == {id(conns[2]), id(late)}


@scenario
async def test_on_connect_may_call_the_pool(world: World) -> None:
    """The conn it is told of is there already; when on_disconnect is told, it is not."""
    seen: list[Any] = []

    def connected(info: Any) -> None:
        seen.append((pool.route("line") is info.conn, len(pool), info.id in pool))

    def disconnected(info: Any, reason: str) -> None:
        seen.append((reason, info.id in pool, pool.empty("line")))

    pool = await world.pool(on_connect=connected, on_disconnect=disconnected)
    await pool.supply("line", world.works(call=[BrokenPipeError()]), revive=False)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    assert seen == [(True, 1, True), ("dead", False, True)]


# -- whose turn it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, "say"])
@scenario
async def test_round_robin_is_exact(world: World, method: Any) -> None:
    """Forty threads or tasks at once: each conn gets its share, to the last one."""
    pool, conns = await filled(world, 5)
    picked: list[list[int]] = []

    async def work() -> None:
        picked.append([id(pool.route("line", method=method)) for _ in range(250)])

    for handle in [world.start(work) for _ in range(40)]:
        await handle.result()
    shares = Counter(one for many in picked for one in many)
    assert shares == {id(conn): 2000 for conn in conns}


@scenario
async def test_round_robin_takes_turns(world: World) -> None:
    """Always in the same order, wherever it began."""
    pool, conns = await filled(world, 4)
    first = [pool.route("line") for _ in range(4)]
    assert {id(conn) for conn in first} == {id(conn) for conn in conns}
    assert [pool.route("line") for _ in range(8)] == first * 2


@scenario
async def test_many_pools_do_not_begin_alike(world: World) -> None:
    """The first turn is drawn, or all of them would send their first request to one server."""
    firsts: Counter[int] = Counter()
    for _ in range(50):
        pool = await world.pool()
        for number in range(5):
            await pool.put(world.conn("line"), extra=number)
        chosen = pool.route("line")
        firsts[next(info.extra for info in pool.infos() if info.conn is chosen)] += 1
    assert len(firsts) >= 4
    assert max(firsts.values()) <= 30


@pytest.mark.parametrize("by", ["least_used", "least_wait"])
@scenario
async def test_a_stuck_one_gets_no_share(world: World, by: str) -> None:
    """One that carries a call that does not end is not the least used, nor free soonest."""
    pool, hang = await world.pool(), world.hang()
    stuck = world.conn("line", [hang])
    await pool.put(stuck)
    caller = await world.running(hang, pool, "line", "say")
    for _ in range(3):
        await pool.put(world.conn("line"))
    picked = Counter(id(pool.route("line", by=by)) for _ in range(60))
    assert (len(picked), picked[id(stuck)]) == (3, 0)
    assert max(picked.values()) <= 21  # and those that nobody uses take turns
    hang.release()
    await caller.result()


@scenario
async def test_two_choices_shun_a_stuck_one(world: World) -> None:
    """It is drawn, but never against one that is less used."""
    pool, hang = await world.pool(), world.hang()
    stuck = world.conn("line", [hang])
    await pool.put(stuck)
    caller = await world.running(hang, pool, "line", "say")
    await pool.put(world.conn("line"))
    assert all(pool.route("line", by="two_choices") is not stuck for _ in range(50))
    hang.release()
    await caller.result()


@scenario
async def test_sticky(world: World) -> None:
    """A key keeps its conn while that is there; only its own keys move when one leaves."""
    pool, conns = await filled(world, 5)
    keys = [f"user {n}" for n in range(200)]
    before = {key: pool.route("line", by=sticky(key)) for key in keys}
    assert before == {key: pool.route("line", by=sticky(key)) for key in keys}
    assert len({id(conn) for conn in before.values()}) == 5
    (gone,) = [info.id for info in pool.infos("line") if info.conn is conns[2]]
    pool.drain(id=gone)
    after = {key: pool.route("line", by=sticky(key)) for key in keys}
    assert all(after[key] is conn for key, conn in before.items() if conn is not conns[2])
    assert conns[2] not in after.values()


@scenario
async def test_a_function_of_ones_own(world: World) -> None:
    """It gets live views of those that pass the filter, and gives one of them."""
    pool, conns = await filled(world, 4)
    shown: list[list[int]] = []

    def last(views: Any) -> Any:
        shown.append([view.extra for view in views])
        return max(views, key=lambda view: view.extra)

    assert pool.route("line", by=last) is conns[3]
    assert pool.route("line", by=last, filter=lambda conn: conn.extra < 2) is conns[1]
    assert [sorted(extras) for extras in shown] == [[0, 1, 2, 3], [0, 1]]


@scenario
async def test_a_filter_sees_what_is_true_now(world: World) -> None:
    """An extra that changes counts at once, also round robin."""
    pool, conns = await filled(world, 3)
    for wanted in (0, 1):
        chosen = {id(pool.route("line", filter=lambda c, w=wanted: c.extra != w)) for _ in range(6)}
        assert chosen == {id(conn) for n, conn in enumerate(conns) if n != wanted}
    pool.extra(pool.infos("line")[0].id, 7)
    assert pool.route("line", filter=lambda conn: conn.extra == 7) is conns[0]


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("filter", value) for value in (1, "name", ["a"], True)),
        *(("by", value) for value in (1, "fastest", ["a"])),
    ],
    ids=repr,
)
@scenario
async def test_a_wrong_argument(world: World, argument: str, value: Any) -> None:
    """It is told even where there is nothing to choose from."""
    pool, _ = await filled(world, 1)
    for resource in ("line", "else"):
        with pytest.raises((TypeError, ValueError), match=rf"{argument}: expected .*, got"):
            pool.route(resource, **{argument: value})
    with pytest.raises(TypeError, match="unhashable"):
        pool.route(["line"])
    assert pool.route("line") is not None


@pytest.mark.parametrize("argument", ["filter", "by"])
@scenario
async def test_a_function_that_raises(world: World, argument: str) -> None:
    """Its error reaches its caller, and nothing is harmed."""
    pool, conns = await filled(world, 1)

    def wrong(_: Any) -> Any:
        raise ZeroDivisionError("my own fault")

    with pytest.raises(ZeroDivisionError):
        pool.route("line", **{argument: wrong})
    assert pool.route("line") is conns[0]


@pytest.mark.parametrize("argument", ["filter", "by"])
@scenario
async def test_a_function_that_calls_the_pool(world: World, argument: str) -> None:
    """It is refused, not a deadlock, whichever door it takes."""
    pool, conns = await filled(world, 2)
    for door in (
        lambda: pool.route("line"),
        lambda: pool.route("line", by="least_used"),
        lambda: len(pool),
        lambda: pool.drain("line"),
        lambda: pool.resize("line", 1),
    ):
        with pytest.raises(RuntimeError, match="may not call the pool"):
            pool.route("line", **{argument: lambda _, door=door: door()})
    assert pool.route("line") in conns


@pytest.mark.parametrize("given", [None, 1, "other"])
@scenario
async def test_a_function_that_gives_none_of_them(world: World, given: Any) -> None:
    """Is a ValueError that says what came."""
    pool, conns = await filled(world, 1)
    with pytest.raises(ValueError, match="by: expected one of the conns it was given, got"):
        pool.route("line", by=lambda _: given)
    assert pool.route("line") is conns[0]


@scenario
async def test_the_last_failure_is_the_cause(world: World) -> None:
    """As with the errors of call."""
    pool, torn = await world.pool(), BrokenPipeError("torn")
    await pool.init(world.conn("line", [torn], init=[None, world.hang()]), revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    with pytest.raises(ResourceError) as caught:
        pool.route("line")
    assert caught.value.__cause__ is torn


@scenario
async def test_the_last_failure_is_the_cause_where_none_was_ever_alive(world: World) -> None:
    """A supply that has not opened one yet."""
    pool, refused = await world.pool(), OSError("refused")
    await pool.supply("line", world.works(each=lambda: refused), min_size=1)
    await world.until(lambda: pool.stats().since_start.open_failed)
    with pytest.raises(ResourceError) as caught:
        pool.route("line")
    assert caught.value.__cause__ is refused
