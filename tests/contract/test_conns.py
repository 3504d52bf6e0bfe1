"""Conns in the pool: how they get in, what is told of them, what is changed, what they do wrong."""

from __future__ import annotations

from typing import Any

import pytest

from connpool import FilterError, IdError, Info, MethodError, PoolFull, Reply, ResourceError

from .worlds import World, scenario

# -- in ------------------------------------------------------------------------------------------


@scenario
async def test_init_initialises_and_put_does_not(world: World) -> None:
    """Both ask for the methods and give the id."""
    pool = await world.pool()
    made, given = world.conn("line"), world.conn("line")
    ids = [await pool.init(made, 1, two=2), await pool.put(given)]
    assert (made.inits, given.inits) == ([((1,), {"two": 2})], [])
    assert [pool.info(id).conn for id in ids] == [made, given]
    assert (len(pool), all(id in pool for id in ids)) == (2, True)


@scenario
async def test_a_conn_that_was_put_is_revived_by_init_without_arguments(world: World) -> None:
    """For the pool knows none."""
    pool, conn = await world.pool(), world.conn("line", [BrokenPipeError(), "back"])
    await pool.put(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    assert await pool.call("line", "say") == "back"
    assert conn.inits == [((), {})]


@scenario
async def test_ids_are_not_used_again(world: World) -> None:
    """Whatever became of the conns before."""
    pool = await world.pool()
    conn, ids = world.conn("line", init=[None, BrokenPipeError(), *[None] * 9]), set()
    for attempt in range(10):
        try:
            ids.add(await pool.init(conn))
        except BrokenPipeError:
            assert attempt == 1
        else:
            assert await pool.pop(max(ids)) is conn
            await pool.put(conn)
            ids.update(info.id for info in pool.infos())
            await pool.pop_all("line")
    assert len(ids) == 18
    world.loose(conn)


@scenario
async def test_a_conn_is_in_a_pool_once(world: World) -> None:
    """A second put or init is a ValueError, as long as it is there; the first one stays well."""
    pool, conn = await world.pool(), world.conn("line", ["fine"])
    id = await pool.put(conn)
    for again in (pool.put, pool.init):
        with pytest.raises(ValueError, match=r"holds the conn .* already"):
            await again(conn)
    assert (await pool.call("line", "say"), len(pool), conn.inits) == ("fine", 1, [])
    assert await pool.pop(id) is conn
    await pool.put(conn)
    assert len(pool) == 1


@scenario
async def test_a_conn_may_be_put_while_another_init_of_it_runs(world: World) -> None:
    """It is in the pool from the beginning of its init, and out if that fails."""
    pool, hang = await world.pool(), world.hang(OSError("refused"))
    conn = world.conn("line", init=[hang])
    opening = world.start(pool.init, conn)
    await world.until(lambda: hang.inside)
    with pytest.raises(ValueError, match="already"):
        await pool.put(conn)
    assert pool.stats().now.opening == 1
    assert (len(pool), pool.infos(), pool.resources()) == (0, [], [])
    hang.release()
    await opening.error(OSError)
    await pool.put(conn)


@scenario
async def test_max_size_counts_what_is_being_opened(world: World) -> None:
    """One more is refused before its init, and there is room again when a conn has gone."""
    pool, hang = await world.pool(max_size=2), world.hang()
    first, third = world.conn("a", [Reply(0, closed=True)]), world.conn(3)
    second = world.conn("b", init=[hang])
    await pool.put(first)
    opening = world.start(pool.init, second)
    await world.until(lambda: hang.inside)
    with pytest.raises(PoolFull, match="2 conns, max_size") as caught:
        await pool.init(third)
    assert (caught.value.limit, caught.value.most, third.inits) == ("max_size", 2, [])
    hang.release()
    await opening.result()
    assert await pool.call("a", "say") == 0
    await pool.init(third)
    assert sorted(map(str, pool.resources())) == ["3", "b"]


@scenario
async def test_a_conn_may_name_several_resources(world: World) -> None:
    """It serves them all, with the places it has."""
    pool = await world.pool()
    for several in (["a", "b"], {"c"}, frozenset({"d", "e"}), ["f", "f"]):
        await pool.put(world.conn(several))
    assert sorted(pool.resources()) == list("abcdef")
    for resource in "abcdef":
        assert await pool.call(resource, "say", resource) == resource
    assert len(pool) == 4
    assert [len(pool.infos(resource)) for resource in "abcdef"] == [1] * 6


@pytest.mark.parametrize("resource", ["text", b"bytes", ("a", 1), 7, frozenset])
@scenario
async def test_anything_hashable_is_a_resource(world: World, resource: Any) -> None:
    """A tuple too, which is one resource; only lists and sets are several."""
    pool = await world.pool()
    id = await pool.put(world.conn(resource))
    assert pool.resources() == [resource]
    assert pool.info(id).resource == resource
    assert await pool.call(resource, "say", 1) == 1


# -- breaches of the contract --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["init", "put"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": None}, r"methods\(\).*expected a collection of hashables, got None"),
        ({"methods": "say"}, r"methods\(\).*expected a collection of hashables, got 'say'"),
        ({"methods": [["say"]]}, r"methods\(\).*expected hashables.*got \[\['say'\]\]"),
        ({"methods": 7}, r"methods\(\).*expected a collection of hashables, got 7"),
        ({"capacity": 0}, r"capacity.*expected a whole number from 1 up, got 0"),
        ({"capacity": -3}, r"capacity.*expected a whole number from 1 up, got -3"),
        ({"capacity": 1.0}, r"capacity.*expected a whole number from 1 up, got 1.0"),
        ({"capacity": None}, r"capacity.*expected a whole number from 1 up, got None"),
        ({"capacity": True}, r"capacity.*expected a whole number from 1 up, got True"),
        ({"resource": None}, r"resource.*expected a hashable, got None"),
        ({"resource": []}, r"resource.*expected at least one, got \[\]"),
        ({"resource": {"a": 1}}, r"resource.*expected a hashable.*got \{'a': 1\}"),
        ({"resource": [["a"]]}, r"resource.*expected a hashable.*got \['a'\]"),
    ],
    ids=repr,
)
@scenario
async def test_a_conn_that_breaks_the_contract(
    world: World, wrong: dict[str, Any], message: str, way: str
) -> None:
    """Its caller is told what was expected and what came; pool and other conns live on."""
    pool = await world.pool()
    await pool.put(world.conn("other"))
    conn = world.conn(**{"resource": "line", **wrong})
    with pytest.raises((TypeError, ValueError), match=message):
        await getattr(pool, way)(conn)
    conn.capacity = 1  # or its world could not check it
    await world.until(lambda: conn.closes == conn.opened)
    assert (len(pool), pool.resources()) == (1, ["other"])
    assert pool.stats().now.opening == 0
    assert await pool.call("other", "say", "fine") == "fine"


@pytest.mark.parametrize("junk", [-1, float("nan"), "soon", [1], object(), True], ids=repr)
@scenario
async def test_an_init_that_returns_junk(world: World, junk: Any) -> None:
    """It is a TypeError or ValueError for who added the conn, which is closed again."""
    pool, conn = await world.pool(), world.conn("line", init=[junk])
    with pytest.raises((TypeError, ValueError), match=r"init: expected None, or seconds.*got"):
        await pool.init(conn)
    await world.until(lambda: conn.closes == 1)
    assert (len(pool), pool.stats().now.opening) == (0, 0)


@scenario
async def test_methods_that_raise(world: World) -> None:
    """The error reaches who added the conn; a conn that was initialised for that is closed."""
    pool = await world.pool()
    for way, closes in (("init", 1), ("put", 0)):
        conn = world.conn("line", methods=ZeroDivisionError("no"))
        with pytest.raises(ZeroDivisionError):
            await getattr(pool, way)(conn)
        await world.until(lambda conn=conn, closes=closes: conn.closes == closes)  # type: ignore[misc]
    assert len(pool) == 0


@scenario
async def test_what_is_no_conn_is_refused(world: World) -> None:
    """Before anything is done with it."""
    pool = await world.pool()

    class Half:
        resource = "line"

        def init(self) -> None:
            raise AssertionError("not to be called")

        def call(self, method: Any, payload: Any = None) -> None:
            raise AssertionError("not to be called")

    for wrong in (None, "conn", Half(), object()):
        for way in (pool.init, pool.put):
            with pytest.raises(TypeError, match=r"expected a conn with init, call and methods"):
                await way(wrong)


@scenario
async def test_a_close_that_raises_harms_nobody(world: World) -> None:
    """It is logged, the conn counts as closed, and it is revived all the same."""
    pool = await world.pool()
    conn = world.conn("line", [BrokenPipeError(), "back"], close=[ValueError("no"), None])
    await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    assert await pool.call("line", "say") == "back"


# -- questions -----------------------------------------------------------------------------------


@scenario
async def test_info_is_a_snapshot(world: World) -> None:
    """It names all there is to know, and does not change afterwards."""
    pool, conn = await world.pool(), world.conn("line", ["a", ArithmeticError(), "c"])
    id = await pool.put(conn, extra="x", ttl=60, revive="force")
    before = pool.info(id)
    assert before == Info(
        id=id,
        conn=conn,
        resource="line",
        methods=frozenset({"say"}),
        extra="x",
        ttl=60.0,
        revive="force",
        capacity=1,
        in_use=0,
        state="ready",
        stats={},
        last_call=None,
        last_init=1000.0,
        cooldown=0.0,
    )
    world.clock.advance(5)
    await pool.call("line", "say")
    with pytest.raises(ArithmeticError):
        await pool.call("line", "say")
    after = pool.info(id)
    assert (before.stats, before.last_call) == ({}, None)
    assert (after.last_call, after.stats["say"].count, after.stats["say"].errors) == (1005.0, 2, 1)
    with pytest.raises(AttributeError):
        after.extra = "y"


@scenario
async def test_mean_call_times_are_measured(world: World) -> None:
    """In seconds, over the answered calls of each method."""
    pool, hangs = await world.pool(), [world.hang() for _ in range(2)]
    id = await pool.put(world.conn("line", [*hangs]))
    for hang, seconds in zip(hangs, (1.0, 3.0), strict=True):
        running = await world.running(hang, pool, "line", "say")
        await world.advance(seconds)
        hang.release()
        await running.result()
    assert pool.info(id).stats["say"].mean == pytest.approx(2.0)


@scenario
async def test_infos_of_all_of_a_resource_or_through_a_filter(world: World) -> None:
    """Dropped conns are not among them."""
    pool = await world.pool()
    ids = []
    for name, ttl in (("a", None), ("a", 5), ("b", None)):
        ids.append(await pool.put(world.conn(name), extra=name, ttl=ttl))
    assert [info.id for info in pool.infos()] == ids
    assert [info.id for info in pool.infos("a")] == ids[:2]
    assert [info.id for info in pool.infos(filter=lambda info: info.extra == "b")] == ids[2:]
    assert [info.id for info in pool.infos("a", lambda info: info.ttl)] == [ids[1]]
    assert pool.infos("c") == []
    await world.advance(5)
    assert [info.id for info in pool.infos()] == [ids[0], ids[2]]
    with pytest.raises(ZeroDivisionError):
        pool.infos(filter=lambda info: 1 / 0)


@pytest.mark.parametrize("id", [0, -1, 99, "1", None, 1.5])
@scenario
async def test_an_id_that_is_not_there(world: World, id: Any) -> None:
    """It is an IdError that names it, and simply not in the pool."""
    pool = await world.pool(name="demo")
    await pool.put(world.conn("line"))
    for question in (pool.info, lambda id: pool.extra(id, 1)):
        with pytest.raises(IdError, match=r"'demo' holds no conn") as caught:
            question(id)
        assert (caught.value.id, caught.value.pool) == (id, "demo")
        assert isinstance(caught.value, LookupError)
    with pytest.raises(IdError):
        await pool.pop(id)
    assert id not in pool


@scenario
async def test_an_empty_pool(world: World) -> None:
    """It has no conns and no resources, and is true all the same."""
    pool = await world.pool()
    assert (len(pool), pool.resources(), pool.infos(), bool(pool)) == (0, [], [], True)
    assert pool.empty("line")
    assert await pool.pop_all("line") == []
    assert await pool.update("line", extra=1) == 0
    with pytest.raises(ResourceError):
        await pool.call("line", "say")


@scenario
async def test_stats_keep_now_and_since_the_start_apart(world: World) -> None:
    """What is gone still counts for what has happened."""
    pool, hang = await world.pool(), world.hang()
    await pool.put(
        world.conn("line", ["a", ArithmeticError(), hang, Reply(1, cooldown=9), BrokenPipeError()])
    )
    await pool.call("line", "say")
    with pytest.raises(ArithmeticError):
        await pool.call("line", "say")
    running = await world.running(hang, pool, "line", "say")
    waiting = await world.queued(pool, "line", "say")
    now = pool.stats().now
    assert (now.conns, now.in_use, now.waiting, now.cooling) == (1, 1, 1, 0)
    hang.release()
    await running.result()
    await waiting.result()
    assert pool.stats().now.cooling == 1
    await world.advance(9)
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "say")
    await world.advance(0)
    now, since = pool.stats().now, pool.stats().since_start
    assert (now.conns, now.in_use, now.waiting) == (0, 0, 0)
    assert (since.calls, since.errors, since.queued, since.rests) == (5, 2, 1, 1)
    assert since.ended == {"dead": 1}


@scenario
async def test_the_report_says_who_holds_what_and_who_waits(world: World) -> None:
    """It shows resources and numbers, and no conn, extra or payload."""
    pool, hang = await world.pool(name="demo"), world.hang()
    await pool.put(world.conn("line", [hang] * 2), extra="secret")
    running = await world.running(hang, pool, "line", "say", "secret")
    waiting = await world.queued(pool, "line", "say", "secret")
    await world.advance(7)
    report = pool.report()
    for part in ("demo", "'line'", "1 of 1 in use", "1 wait for method 'say'", "for 7"):
        assert part in report
    assert "secret" not in report
    assert "demo" in repr(pool.bare)
    hang.release()
    await running.result()
    await waiting.result()


# -- changes -------------------------------------------------------------------------------------


@scenario
async def test_extra_is_replaced_and_given_back(world: World) -> None:
    """At once."""
    pool = await world.pool()
    id = await pool.put(world.conn("line"), extra=1)
    assert [pool.extra(id, value) for value in (2, None, 3)] == [1, 2, None]
    assert pool.info(id).extra == 3


@scenario
async def test_extra_set_during_a_call_stays(world: World) -> None:
    """The end of the call rolls nothing back, and the call's effects stay too."""
    pool, hang = await world.pool(), world.hang(Reply("done", cooldown=5))
    id = await pool.put(world.conn("line", [hang]), extra="before")
    running = await world.running(hang, pool, "line", "say")
    assert pool.extra(id, "during") == "before"
    hang.release()
    assert await running.result() == "done"
    assert (pool.info(id).extra, pool.info(id).state) == ("during", "cooling")


@scenario
async def test_update_changes_all_that_match(world: World) -> None:
    """By keywords, by a function, or by both, where the function has the last word."""
    pool = await world.pool()
    ids = [await pool.put(world.conn("line"), extra=number) for number in range(3)]
    other = await pool.put(world.conn("other"), extra=0)

    def extras() -> list[Any]:
        return [pool.info(id).extra for id in (*ids, other)]

    assert await pool.update("line", extra=9, filter=lambda info: info.extra) == 2
    assert extras() == [0, 9, 9, 0]
    assert await pool.update("line", lambda info: {"extra": info.id}) == 3
    assert extras() == [*ids, 0]
    both = await pool.update(
        "line", lambda info: {"extra": "fn"} if info.id == ids[0] else {}, extra="key", ttl=5
    )
    assert (both, extras()) == (3, ["fn", "key", "key", 0])
    assert [pool.info(id).ttl for id in ids] == [5.0] * 3
    assert await pool.update("nowhere", extra=1) == 0


@scenario
async def test_update_changes_what_a_conn_is_for(world: World) -> None:
    """Methods, capacity and revive count from the next call on."""
    pool, conn = await world.pool(), world.conn("line", ["a", BrokenPipeError(), "back"])
    id = await pool.put(conn)
    assert await pool.update("line", methods=["sing"], revive=True) == 1
    assert await pool.call("line", "sing") == "a"
    with pytest.raises(MethodError):
        await pool.call("line", "say")
    with pytest.raises(BrokenPipeError):
        await pool.call("line", "sing")
    await world.until(lambda: id in pool)
    assert await pool.call("line", "say") == "back"  # revived, it was asked again
    assert id in pool


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": -1},
        {"ttl": "1"},
        {"revive": "yes"},
        {"revive": None},
        {"capacity": 0},
        {"methods": None},
        {"methods": "say"},
        {"resource": "else"},
        {"fn": lambda info: None},
        {"fn": lambda info: {"capacity": 1 if info.extra == 0 else 0}},
        {"fn": lambda info: 1 / 0 if info.extra else {"extra": 7}},
        {"filter": lambda info: 1 / info.extra},
    ],
    ids=str,
)
@scenario
async def test_an_update_changes_all_or_none(world: World, wrong: dict[str, Any]) -> None:
    """Where anything is wrong or raises, nothing is changed at all."""
    pool = await world.pool()
    ids = [await pool.put(world.conn("line"), extra=number) for number in range(3)]
    before = [pool.info(id) for id in ids]
    changes = {"extra": "changed", **wrong}
    fn = changes.pop("fn", None)
    with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
        await pool.update("line", fn, **changes)
    assert [pool.info(id) for id in ids] == before


@scenario
async def test_an_update_may_not_call_the_pool(world: World) -> None:
    """Its function runs while the pool stands still."""
    pool = await world.pool()
    id = await pool.put(world.conn("line"))
    with pytest.raises(RuntimeError, match="may not call the pool"):
        await pool.update("line", lambda info: {"extra": pool.info(id)})
    assert pool.info(id).extra is None


@scenario
async def test_fewer_places_than_calls_that_run(world: World) -> None:
    """Those that run go on; the next is served when there is a place again."""
    pool, hangs = await world.pool(), [world.hang() for _ in range(3)]
    conn = world.conn("line", [*hangs, "next"], capacity=3)
    id = await pool.put(conn)
    running = [await world.running(hang, pool, "line", "say") for hang in hangs]
    await pool.update("line", capacity=1)
    waiting = await world.queued(pool, "line", "say")
    for number in range(3):
        assert (pool.info(id).in_use, waiting.done) == (3 - number, False)
        hangs[number].release()
        await running[number].result()
    assert await waiting.result() == "next"


@scenario
async def test_a_filter_that_no_conn_passes_any_more(world: World) -> None:
    """Conns that come later are looked at anew."""
    pool = await world.pool()
    await pool.put(world.conn("line"), extra=1)
    with pytest.raises(FilterError):
        await pool.call("line", "say", filter=lambda info: info.extra == 2)
    await pool.put(world.conn("line", ["two"]), extra=2)
    assert await pool.call("line", "say", filter=lambda info: info.extra == 2) == "two"
