"""Supplies: conns that the pool makes, as many as are needed, and what becomes of them."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest

from connpool import (
    Backoff,
    Closed,
    FilterError,
    IdError,
    InitError,
    MethodError,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    Reply,
    ResourceError,
)
from connpool.testing import Do, ScriptedAsyncConn, ScriptedConn

from .worlds import PoolFace, Threads, Works, World, scenario, scenario_of_tasks, told_in

STEADY = Backoff(first=1, factor=2, jitter=0, most=8)
REFUSED = OSError("refused")
NEVER = InitError("banned", retry_after=math.inf)


async def advance_by(world: World, step: float, times: int) -> None:
    """Let time pass in small steps, as it does."""
    for _ in range(times):
        await world.advance(step)


# -- on demand -----------------------------------------------------------------------------------


@scenario
async def test_nothing_is_opened_before_somebody_asks(world: World) -> None:
    """Then one is, and it serves all that come in turn."""
    pool, works = await world.pool(), world.works()
    await pool.supply("db", works)
    await world.advance(100)
    assert (works.made, len(pool), pool.empty("db")) == ([], 0, True)
    assert [await pool.call("db", "say", n) for n in range(5)] == [0, 1, 2, 3, 4]
    assert (len(works.made), len(pool), pool.resources()) == (1, 1, ["db"])


@scenario
async def test_one_is_opened_for_each_that_is_missing(world: World) -> None:
    """Three at once need three; a fourth at most max_size 3 waits for the first to be free."""
    pool, hang = await world.pool(), world.hang("done")
    works = world.works(call=[hang] * 4)
    await pool.supply("db", works, max_size=3)
    callers = [await world.running(hang, pool, "db", "say") for _ in range(3)]
    callers.append(await world.queued(pool, "db", "say"))
    await world.advance(10)
    assert (len(works.made), pool.stats().now.in_use, pool.waiting) == (3, 3, 1)
    hang.release()
    assert [await caller.result() for caller in callers] == ["done"] * 4
    assert len(works.made) == 3


@scenario
async def test_an_opening_belongs_to_nobody(world: World) -> None:
    """Who asked gives up; the conn comes all the same, and serves the next."""
    pool, hang = await world.pool(), world.hang()
    works = world.works(hang)
    await pool.supply("db", works)
    caller = await world.queued(pool, "db", "say", timeout=1)
    await world.until(lambda: hang.inside)
    world.clock.advance(1)
    await caller.error(PoolTimeout)
    hang.release()
    await world.until(lambda: len(pool) == 1)
    assert await pool.call("db", "say", "hello", timeout=0) == "hello"
    assert len(works.made) == 1


@scenario
async def test_whoever_is_first_gets_what_comes_first(world: World) -> None:
    """A conn that is returned serves the one for whom another is being opened."""
    pool, hang, call = await world.pool(), world.hang(), world.hang("first")
    works = world.works(None, hang, call=[call, "second", "third"])
    await pool.supply("db", works, max_size=2)
    first = await world.running(call, pool, "db", "say")
    second = await world.queued(pool, "db", "say")
    await world.until(lambda: hang.inside)
    call.release()
    assert [await first.result(), await second.result()] == ["first", "second"]
    hang.release()


@scenario
async def test_a_caller_that_will_not_wait_is_told_what_is_true_now(world: World) -> None:
    """No live conn: ResourceError, though one could be opened."""
    pool = await world.pool()
    await pool.supply("db", world.works())
    with pytest.raises(ResourceError):
        await pool.call("db", "say", timeout=0)


@scenario
async def test_a_burst_opens_a_few_conns_only(world: World) -> None:
    """Fifty callers, slow connects, quick calls: the first conn serves nearly all of them."""
    pool = await world.pool()
    works = world.works(each=world.hang)
    await pool.supply("db", works, max_size=50)
    callers = [await world.queued(pool, "db", "say", n) for n in range(50)]
    await world.until(lambda: works.connecting == 2)
    works.steps[0].release()
    assert [await caller.result() for caller in callers] == list(range(50))
    assert len(works.made) <= 3
    assert works.most <= 2


@scenario
async def test_what_its_conns_are_given(world: World) -> None:
    """Arguments for init, an extra, the key of the supply as their resource, whatever they say."""
    pool, works = await world.pool(), world.works()
    await pool.supply(("db", 1), works, 7, host="h", extra={"a": 1}, ttl=100, min_size=2)
    await pool.wait_ready()
    infos = pool.infos(("db", 1))
    assert [info.resource for info in infos] == [("db", 1)] * 2
    assert [info.extra for info in infos] == [{"a": 1}] * 2
    assert all(75 <= info.ttl <= 100 for info in infos)
    assert [conn.inits for conn in works.made] == [[((7,), {"host": "h"})]] * 2
    assert {info.conn for info in infos} == set(works.made)


@scenario
async def test_a_supplied_conn_needs_no_resource(world: World) -> None:
    """The key of its supply is its resource."""
    pool, works = await world.pool(), world.works()

    def nameless() -> Any:
        conn = works()
        del conn.resource
        return conn

    await pool.supply("db", nameless)
    assert await pool.call("db", "say", "hello") == "hello"


@scenario
async def test_a_supply_beside_a_conn_of_ones_own(world: World) -> None:
    """One that is idle serves; only beyond that one is made."""
    pool, works, hang = await world.pool(), world.works(), world.hang("mine")
    await pool.put(world.conn("db", [hang]))
    await pool.supply("db", works)
    mine = await world.running(hang, pool, "db", "say")
    assert works.made == []
    assert await pool.call("db", "say", "made") == "made"
    hang.release()
    assert await mine.result() == "mine"
    assert len(works.made) == 1


@scenario
async def test_what_its_conns_cannot_do(world: World) -> None:
    """A method they do not have, a filter they do not pass: told once that is known."""
    pool, works = await world.pool(), world.works()
    await pool.supply("db", works, extra="eu")
    assert await pool.call("db", "say", "hello") == "hello"
    caller = await world.queued(pool, "db", "shout", timeout=5)
    await caller.error(MethodError)
    assert len(works.made) == 1
    assert await pool.call("db", "say", "hello", filter=lambda conn: conn.extra == "eu") == "hello"


@scenario
async def test_it_is_told_of_each_conn(world: World) -> None:
    """on_connect and on_disconnect see them come and go."""
    told: list[Any] = []
    pool = await world.pool(
        on_connect=lambda info: told.append(info.id),
        on_disconnect=lambda info, reason: told.append((info.id, reason)),
    )
    works = world.works(call=[BrokenPipeError()])
    await pool.supply("db", works, revive=False)
    with pytest.raises(BrokenPipeError):
        await pool.call("db", "say")
    await world.advance(0)
    assert len(told) == 2
    assert told[1] == (told[0], "dead")


# -- min_size and wait_ready ---------------------------------------------------------------------


@scenario
async def test_min_size_is_opened_at_once_and_in_the_background(world: World) -> None:
    """supply itself waits for no connect; wait_ready does."""
    pool = await world.pool(max_connecting=3)
    works = world.works(each=world.hang)
    await pool.supply("db", works, min_size=3)
    await world.until(lambda: works.connecting == 3)
    waiter = world.start(pool.wait_ready)
    for step in works.steps[:2]:
        step.release()
    await world.until(lambda: len(pool) == 2)
    assert not waiter.done
    works.steps[2].release()
    assert await waiter.result() is None
    assert (len(pool), len(works.made)) == (3, 3)


@scenario
async def test_wait_ready_where_there_is_nothing_to_wait_for(world: World) -> None:
    """No supply, or none with a min_size: ready at once."""
    pool = await world.pool()
    await pool.wait_ready(0)
    await pool.supply("db", world.works())
    await pool.wait_ready(0)


@scenario
async def test_wait_ready_takes_every_supply_into_account(world: World) -> None:
    """One that lags behind is waited for."""
    pool, hang = await world.pool(), world.hang()
    await pool.supply("swift", world.works(), min_size=1)
    await pool.supply("slow", world.works(hang), min_size=1)
    await world.until(lambda: hang.inside and len(pool) == 1)
    with pytest.raises(PoolTimeout):
        await pool.wait_ready(0)
    hang.release()
    await pool.wait_ready()
    assert set(pool.resources()) == {"slow", "swift"}


@scenario
async def test_wait_ready_gives_up(world: World) -> None:
    """After its timeout, or the pool's, with the last failure as the cause."""

    def refused() -> Exception:
        return REFUSED

    pool = await world.pool(name="p", timeout=7)
    await pool.supply("db", world.works(each=refused), min_size=1)
    await world.until(lambda: pool.stats().since_start.open_failed)
    for timeouts, seconds in (((3,), 3), ((), 7)):
        waiter = world.start(pool.wait_ready, *timeouts)
        await world.advance(seconds - 0.5)
        assert not waiter.done
        for _ in range(3):  # it may have begun to wait a little later than we
            await world.advance(seconds)
        error = await waiter.error(PoolTimeout)
        assert (error.__cause__, error.pool, error.timeout) == (REFUSED, "p", seconds)
        assert error.waited >= seconds
        assert f"{seconds} s" in str(error)


@scenario
async def test_wait_ready_where_it_can_never_be(world: World) -> None:
    """Told at once, with the cause; before and after."""
    pool, hang = await world.pool(), world.hang(NEVER)
    await pool.supply("db", world.works(hang), min_size=2)
    waiter = world.start(pool.wait_ready, None)
    await world.until(lambda: hang.inside)
    hang.release()
    assert (await waiter.error(ResourceError)).__cause__ is NEVER
    with pytest.raises(ResourceError) as caught:
        await pool.wait_ready(None)
    assert caught.value.__cause__ is NEVER
    pool.withdraw("db")
    await pool.wait_ready(0)


@scenario
async def test_wait_ready_and_a_pool_that_is_closed(world: World) -> None:
    """PoolClosed at once, whether it was closed before or meanwhile."""
    pool = await world.pool()
    await pool.supply("db", world.works(world.hang()), min_size=1)
    waiter = world.start(pool.wait_ready, None)
    await pool.close(0)
    await waiter.error(PoolClosed)
    with pytest.raises(PoolClosed):
        await pool.wait_ready(None)
    with pytest.raises(PoolClosed):
        await pool.supply("else", world.works())


@pytest.mark.parametrize("timeout", [-1, math.nan, "1", True])
@scenario
async def test_a_wrong_timeout_of_wait_ready(world: World, timeout: Any) -> None:
    """Told even where all is ready."""
    pool = await world.pool()
    with pytest.raises((TypeError, ValueError), match=r"timeout: expected .*, got"):
        await pool.wait_ready(timeout)


# -- what is wrong from the start ----------------------------------------------------------------


async def no_factory() -> None:
    """A factory is a plain function, in every world."""


WRONG: list[tuple[str, list[Any]]] = [
    ("min_size", [-1, 11, 1.0, "1", None, True, math.inf]),
    ("max_size", [0, -1, 1.0, "1", None, True, math.inf]),
    ("max_idle", [-1, math.nan, "1", True, []]),
    ("ttl", [-1, math.nan, "1", True, []]),
    ("connect_timeout", [-1, math.nan, "1", True]),
    ("ping_interval", [0, -1, math.nan, "1", True]),
    ("revive", ["yes", 1, None]),
    ("factory", [None, 1, "name", no_factory]),
    ("resource", [None]),
]


@pytest.mark.parametrize(
    ("argument", "value"), [(name, value) for name, values in WRONG for value in values], ids=repr
)
@scenario
async def test_a_wrong_argument(world: World, argument: str, value: Any) -> None:
    """The error names the parameter, what was expected and what came; nothing is changed."""
    pool, works = await world.pool(), world.works()
    wrong = {"resource": "db", "factory": works, argument: value}
    with pytest.raises((TypeError, ValueError), match=rf"^{argument}: expected .*, got"):
        await pool.supply(**wrong)
    await pool.supply("db", works)
    assert await pool.call("db", "say", "hello") == "hello"


@scenario
async def test_an_unhashable_resource(world: World) -> None:
    """Is a TypeError that says what came."""
    pool = await world.pool()
    with pytest.raises(TypeError, match=r"^resource: expected a hashable .*, got \['db'\]"):
        await pool.supply(["db"], world.works())


@scenario
async def test_one_supply_for_a_resource(world: World) -> None:
    """A second is a ValueError; once the first is withdrawn it is not."""
    pool, first, second = await world.pool(), world.works(), world.works()
    await pool.supply("db", first)
    with pytest.raises(ValueError, match="has a supply for 'db' already"):
        await pool.supply("db", second)
    pool.withdraw("db")
    await pool.supply("db", second)
    await pool.call("db", "say")
    assert (len(first.made), len(second.made)) == (0, 1)


# -- factories that go wrong ---------------------------------------------------------------------


def raising(world: World) -> Any:
    raise ZeroDivisionError("my own fault")


def of_the_other_colour(world: World) -> Any:
    return (ScriptedAsyncConn if world.Conn is ScriptedConn else ScriptedConn)("db")


def half_a_conn(world: World) -> Any:
    return object()


def nothing(world: World) -> Any:
    return None


def coroutine(world: World) -> Any:
    return no_factory()


def nonsense_methods(world: World) -> Any:
    return world.conn("db", methods=None)


def nonsense_rest(world: World) -> Any:
    return world.conn("db", init=[-1])


def nonsense_capacity(world: World) -> Any:
    return world.conn("db", capacity=0)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (raising, ZeroDivisionError, "my own fault"),
        (of_the_other_colour, TypeError, "put it into a connpool"),
        (half_a_conn, TypeError, "expected a conn with init, call and methods"),
        (nothing, TypeError, "expected a conn with init, call and methods, got None"),
        (coroutine, TypeError, "factory: expected a plain function"),
        (nonsense_methods, TypeError, "methods()"),
        (nonsense_rest, TypeError, "got -1"),
        (nonsense_capacity, ValueError, "capacity"),
    ],
)
@scenario
async def test_a_factory_that_goes_wrong(
    world: World, make: Any, kind: type[Exception], text: str
) -> None:
    """Harms its own callers only: they learn the cause.  Once it goes right they are served."""
    pool, works, well = await world.pool(backoff=STEADY), world.works(), False

    def factory() -> Any:
        if well:
            return works()
        made = make(world)
        if isinstance(made, world.Conn):
            world.loose(made)
        return made

    await pool.put(world.conn("else"))
    await pool.supply("db", factory)
    impatient = await world.queued(pool, "db", "say", timeout=3)
    patient = await world.queued(pool, "db", "say", "hello", timeout=30)
    await world.until(lambda: pool.stats().since_start.open_failed)
    await advance_by(world, 0.5, 6)
    cause = (await impatient.error(PoolTimeout)).__cause__
    assert isinstance(cause, kind)
    assert text in str(cause)
    assert await pool.call("else", "say", "fine") == "fine"
    well = True
    await advance_by(world, 0.5, 5)
    assert await patient.result() == "hello"
    assert len(works.made) == 1


@scenario
async def test_a_factory_that_gives_one_conn_twice(world: World) -> None:
    """The second is refused, and the first goes on."""
    pool, conn = await world.pool(backoff=STEADY), world.conn("db")
    await pool.supply("db", lambda: conn, min_size=2)
    await world.until(lambda: pool.stats().since_start.open_failed)
    with pytest.raises(PoolTimeout) as caught:
        await pool.wait_ready(0)
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert "factory: expected a new conn each time" in str(cause)
    assert (len(pool), conn.opened, conn.closes) == (1, 1, 0)
    assert await pool.call("db", "say", "hello") == "hello"


@told_in(Threads)
async def test_a_factory_that_hangs(world: World) -> None:
    """The same as a connect that hangs: it is given up, and what it makes at last is closed."""
    pool, hang, works = await world.pool(max_connecting=1), world.hang(), world.works()
    slow = ScriptedConn("slow", [hang])

    def factory() -> Any:
        made = works()
        if len(works.made) == 1:
            slow.call("say")
        return made

    await pool.supply("db", factory, connect_timeout=5)
    caller = await world.queued(pool, "db", "say", "hello", timeout=30)
    await world.until(lambda: hang.inside)
    world.clock.advance(5)
    await advance_by(world, 1, 3)
    assert await caller.result() == "hello"
    hang.release()
    await world.until(lambda: works.made[0].closes == works.made[0].opened == 1)
    assert len(pool) == 1


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("advice", [None, 0], ids=["backoff", "at once"])
@scenario
async def test_an_init_that_fails_at_once_is_no_busy_loop(world: World, advice: Any) -> None:
    """With and without a caller that waits; NimblePool began 24,000 inits in 50 ms."""
    pool = await world.pool(backoff=STEADY)
    works = world.works(each=lambda: InitError("no", retry_after=advice))
    await pool.supply("db", works, min_size=3)
    await world.until(lambda: works.made)
    await advance_by(world, 0.1, 200)
    assert 3 <= len(works.made) <= (8 if advice is None else 40)
    before = len(works.made)
    callers = [await world.queued(pool, "db", "say", timeout=None) for _ in range(20)]
    await advance_by(world, 0.1, 200)
    assert 5 <= len(works.made) - before <= 45
    works.each = None
    await advance_by(world, 0.5, 8)
    for caller in callers:
        await caller.result()


@scenario
async def test_a_hung_connect_stops_nobody(world: World) -> None:
    """It is given up after connect_timeout, its slot is free, and if it comes it is closed."""
    pool, hang = await world.pool(max_connecting=1), world.hang()
    works = world.works(hang)
    await pool.supply("black hole", works, connect_timeout=5)
    await pool.supply("well", world.works())
    caller = await world.queued(pool, "black hole", "say", "hello", timeout=60)
    await world.until(lambda: hang.inside)
    other = await world.queued(pool, "well", "say", "fine")
    world.clock.advance(4.9)
    assert not other.done
    await world.advance(0.1)
    assert await other.result() == "fine"
    await advance_by(world, 1, 3)
    assert await caller.result() == "hello"
    hang.release()
    await world.until(lambda: works.made[0].closes == 1)
    assert [info.conn for info in pool.infos("black hole")] == [works.made[1]]


@scenario
async def test_a_hung_connect_is_the_cause(world: World) -> None:
    """Callers learn that it took too long, and after how long."""
    pool = await world.pool(backoff=STEADY)
    works = world.works(each=world.hang)
    await pool.supply("db", works, connect_timeout=5)
    caller = await world.queued(pool, "db", "say", timeout=6)
    await world.until(lambda: works.connecting)
    await world.advance(5)
    world.clock.advance(1)
    pool.stats()  # a turn: what is due happens
    cause = (await caller.error(PoolTimeout)).__cause__
    assert isinstance(cause, TimeoutError)
    assert "5 s" in str(cause)


@scenario_of_tasks
async def test_a_hung_revival_is_the_cause(world: World) -> None:
    """It is cut short by a cancellation, which is no word for those who wait: it took too long."""
    pool = await world.pool(connect_timeout=0.01, backoff=STEADY)
    conn = world.conn("db", [BrokenPipeError()], init=[None, world.hang(), None])
    await pool.init(conn, revive=True)
    with pytest.raises(BrokenPipeError):
        await pool.call("db", "say")
    await world.until(lambda: pool.stats().since_start.open_failed)
    caller = await world.queued(pool, "db", "say", timeout=0.5)
    world.clock.advance(0.5)
    pool.stats()  # a turn: what is due happens
    assert isinstance((await caller.error(PoolTimeout)).__cause__, TimeoutError)


@scenario
async def test_an_outage_with_traffic(world: World) -> None:
    """It outlasts every limit.  Then all that have time left are served."""
    pool = await world.pool()
    works = world.works(each=lambda: REFUSED)
    await pool.supply("db", works, max_size=3)
    for _ in range(10):
        caller = await world.queued(pool, "db", "say", timeout=30)
        await advance_by(world, 1, 30)
        assert (await caller.error(PoolTimeout)).__cause__ is REFUSED
    assert 100 <= len(works.made) <= 330
    patient = [await world.queued(pool, "db", "say", n, timeout=30) for n in range(10)]
    await advance_by(world, 1, 10)
    works.each = None
    await advance_by(world, 1, 4)
    assert [await caller.result() for caller in patient] == list(range(10))


@scenario
async def test_an_outage_without_traffic(world: World) -> None:
    """min_size is there again within the longest pause, however long it took."""
    pool = await world.pool()
    works = world.works(None, None, each=lambda: REFUSED, call=[Closed()], check=[Closed()])
    await pool.supply("db", works, min_size=2)
    await pool.wait_ready()
    with pytest.raises((PoolTimeout, ResourceError)):
        await pool.call("db", "say", timeout=0)
    await world.advance(0)  # the other one is asked, and is lost too
    await advance_by(world, 60, 120)
    assert len(pool) == 0
    works.each = None
    await advance_by(world, 10, 15)
    assert len(pool) == 2
    await pool.wait_ready(0)


@scenario
async def test_two_hundred_waiters_are_no_login_storm(world: World) -> None:
    """The server is back: never more than max_connecting connect at once, and all are served."""
    pool, call = await world.pool(max_connecting=4, backoff=STEADY), world.hang("served")
    works = world.works(each=lambda: REFUSED, call=[call] * 200)
    await pool.supply("db", works, max_size=20, connect_timeout=None)
    callers = [await world.queued(pool, "db", "say", timeout=None) for _ in range(200)]
    await world.until(lambda: works.made and not pool.stats().now.opening)
    down = len(works.made)
    works.each = world.hang
    world.clock.advance(2)
    pool.stats()  # a turn: what is due happens
    await world.until(lambda: works.connecting)
    assert works.connecting == 1  # after a failure, one at a time

    def opened(number: int) -> bool:
        return call.inside == number and works.connecting == min(4, 20 - number)

    for done in range(20):
        works.steps[down + done].release()
        await world.until(functools.partial(opened, done + 1))
    assert (works.most, len(pool)) == (4, 20)
    call.release()
    assert [await caller.result() for caller in callers] == ["served"] * 200
    assert len(works.made) == down + 20


@scenario
async def test_never_again(world: World) -> None:
    """All that wait are told at once, and so is who comes later; a new supply begins anew."""
    pool, hang = await world.pool(), world.hang(NEVER)
    await pool.supply("db", world.works(each=lambda: hang))
    callers = [await world.queued(pool, "db", "say", timeout=None) for _ in range(5)]
    await world.until(lambda: hang.inside)
    hang.release()
    for caller in callers:
        assert (await caller.error(ResourceError)).__cause__ is NEVER
    with pytest.raises(ResourceError) as caught:
        await pool.call("db", "say", timeout=None)
    assert caught.value.__cause__ is NEVER
    pool.withdraw("db")
    await pool.supply("db", world.works())
    assert await pool.call("db", "say", "hello") == "hello"


@scenario
async def test_never_again_but_one_is_alive(world: World) -> None:
    """Who waits then waits for that one."""
    pool, hang, call = await world.pool(), world.hang(NEVER), world.hang("first")
    works = world.works(None, hang, call=[call, "second"])
    await pool.supply("db", works, max_size=2)
    first = await world.running(call, pool, "db", "say")
    second = await world.queued(pool, "db", "say")
    await world.until(lambda: hang.inside)
    hang.release()
    await world.until(lambda: pool.stats().since_start.open_failed)
    assert pool.waiting == 1
    call.release()
    assert [await first.result(), await second.result()] == ["first", "second"]


# -- lives ---------------------------------------------------------------------------------------


async def filled(world: World, works: Works, size: int, **more: Any) -> PoolFace:
    """A pool with a supply of `size` live conns, none of which has to stay."""
    pool = await world.pool(backoff=STEADY)
    await pool.supply("db", works, min_size=size, **more)
    await pool.wait_ready()
    pool.resize("db", min_size=0)
    return pool


@scenario
async def test_max_idle(world: World) -> None:
    """What nobody uses is closed, down to min_size; what is used stays."""
    works = world.works()
    pool = await filled(world, works, 4)
    pool.resize("db", min_size=2)
    await world.advance(599)
    assert len(pool) == 4
    await advance_by(world, 150, 10)
    assert (len(pool), pool.stats().since_start.ended["idle"]) == (2, 2)
    assert sum(conn.closes for conn in works.made) == 2
    pool.resize("db", min_size=0)
    for _ in range(10):
        await world.advance(150)
        await pool.call("db", "say")
    assert len(pool) == 1
    assert len(works.made) == 5  # the two had been idle for too long, and left at once


@scenario
async def test_max_idle_for_ever(world: World) -> None:
    """None: never."""
    pool = await filled(world, world.works(), 2, max_idle=None)
    await world.advance(1e6)
    assert len(pool) == 2


@scenario
async def test_those_born_together_do_not_expire_together(world: World) -> None:
    """A ttl is shortened by up to a quarter, and never made longer; each is replaced."""
    works = world.works()
    pool = await filled(world, works, 30, max_size=30, ttl=1000, max_idle=None)
    await world.advance(749)
    assert len(works.made) == 30
    expired = []
    for _ in range(10):
        before = len(works.made)
        await world.advance(25.1)
        expired.append(len(works.made) - before)
    assert sum(expired) == 30
    assert max(expired) <= 15
    assert len(pool) == 30


@scenario
async def test_a_dead_conn_is_replaced(world: World) -> None:
    """revive: at once though nobody asks; False: when somebody does."""
    for revive, number in ((True, 2), (False, 1)):
        works = world.works(call=[BrokenPipeError()])
        pool = await filled(world, works, 1, revive=revive)
        (before,) = pool.infos()
        with pytest.raises(BrokenPipeError):
            await pool.call("db", "say")
        works.more = {}
        await world.advance(1)
        assert len(works.made) == number
        assert await pool.call("db", "say", "hello") == "hello"
        (after,) = pool.infos()
        assert (len(works.made), after.id != before.id) == (2, True)


@pytest.mark.parametrize(("revive", "number"), [(False, 1), (True, 1), ("force", 2)])
@scenario
async def test_a_conn_that_ends_in_good_order(world: World, revive: Any, number: int) -> None:
    """It is replaced though nobody asks with "force" only."""
    works = world.works(call=[Reply("bye", closed=True)])
    pool = await filled(world, works, 1, revive=revive)
    assert await pool.call("db", "say") == "bye"
    await world.advance(1)
    assert (len(works.made), len(pool)) == (number, number - 1)


@scenario
async def test_the_server_is_restarted(world: World) -> None:
    """The first that finds its conn dead is enough: nobody else meets the others one by one."""
    works = world.works(call=[Closed()] * 9, check=[OSError("torn")])
    pool = await filled(world, works, 20, max_size=20, revive=False)
    works.more = {}
    assert await pool.call("db", "say", "hello") == "hello"
    assert sum(len(conn.calls) for conn in works.made) == 2
    await world.advance(0)
    assert [conn.checks for conn in works.made[:20]].count(1) == 19
    assert pool.stats().since_start.ended == {"closed": 1, "dead": 19}


@scenario
async def test_ping(world: World) -> None:
    """An idle conn is asked whether it is alive; one that says no or raises is replaced."""
    answers: list[Any] = [True, False, OSError("torn"), None, True]
    works = world.works()
    for answer in answers:
        works.more = {"check": [answer] * 3}
        pool = await filled(world, works, 1, ping_interval=60, max_idle=None)
        conn = works.made[-1]
        await world.advance(44)
        assert conn.checks == 0
        works.more = {}
        await world.advance(16.1)
        assert conn.checks == 1
        await world.advance(1)
        well = answer in (True, None)
        assert (conn.closes, len(pool)) == (0 if well else 1, 1)
        assert pool.stats().since_start.ended.get("dead", 0) == (0 if well else 1)
        await pool.close()


@scenario
async def test_a_ping_that_hangs(world: World) -> None:
    """The conn is not lent meanwhile; after connect_timeout it is dead."""
    hang = world.hang()
    works = world.works(check=[hang])
    pool = await filled(world, works, 1, ping_interval=60, max_size=1)
    works.more = {}
    world.clock.advance(61)
    len(pool)  # a turn: what is due happens
    await world.until(lambda: hang.inside)
    caller = await world.queued(pool, "db", "say", "hello", timeout=30)
    assert (pool.waiting, works.made[0].calls) == (1, [])
    await world.advance(10)
    assert await caller.result() == "hello"
    assert (len(works.made), works.made[0].calls) == (2, [])


@scenario
async def test_without_an_interval_nobody_is_asked(world: World) -> None:
    """Nor is a conn that has no check."""
    works = world.works()
    await filled(world, works, 2, max_idle=None)
    await advance_by(world, 1000, 3)
    assert [conn.checks for conn in works.made] == [0, 0]


@scenario
async def test_a_supplied_conn_may_be_popped(world: World) -> None:
    """It is the user's from then on; the supply makes another when one is needed."""
    works = world.works()
    pool = await filled(world, works, 1, max_size=1)
    conn = await pool.pop(pool.infos()[0].id)
    assert conn is works.made[0]
    world.count(conn, 1)  # the pool opened it itself
    world.loose(conn)
    assert await pool.call("db", "say", "hello") == "hello"
    assert (len(works.made), conn.closes) == (2, 0)


@scenario
async def test_close_with_a_supply(world: World) -> None:
    """Who waits is told; what is being opened is closed if it comes."""
    pool, hang = await world.pool(), world.hang()
    works = world.works(hang)
    await pool.supply("db", works, min_size=1)
    caller = await world.queued(pool, "db", "say", timeout=None)
    await world.until(lambda: hang.inside)
    await pool.close(0)
    await caller.error(PoolClosed)
    hang.release()
    with pytest.raises(PoolClosed):
        await pool.call("db", "say")


# -- resize, withdraw, drain ---------------------------------------------------------------------


@scenario
async def test_resize_to_more(world: World) -> None:
    """Those who wait are served at once; a new min_size is opened at once."""
    pool, hang = await world.pool(), world.hang("done")
    works = world.works(call=[hang])
    await pool.supply("db", works, max_size=1)
    first = await world.running(hang, pool, "db", "say")
    works.more = {}
    second = await world.queued(pool, "db", "say", "second")
    pool.resize("db", max_size=2)
    assert await second.result() == "second"
    pool.resize("db", 5, 7)
    await pool.wait_ready()
    assert len(pool) == 5
    hang.release()
    assert await first.result() == "done"


@scenario
async def test_resize_to_less(world: World) -> None:
    """Idle ones leave at once, those in use when they are free."""
    hang = world.hang("done")
    works = world.works(call=[hang])
    pool = await filled(world, works, 4)
    callers = [await world.running(hang, pool, "db", "say") for _ in range(2)]
    pool.resize("db", max_size=1)
    await world.advance(0)
    assert (len(pool) <= 2, pool.stats().now.in_use) == (True, 2)
    assert sum(conn.closes for conn in works.made) == 2
    hang.release()
    for caller in callers:
        assert await caller.result() == "done"
    await world.advance(0)
    assert (len(works.made), len(pool)) == (4, 1)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"min_size": -1}, "min_size"),
        ({"min_size": 3}, "min_size"),
        ({"max_size": 0}, "max_size"),
        ({"max_size": "2"}, "max_size"),
        ({"min_size": 1.0, "max_size": 9}, "min_size"),
        ({"min_size": 9, "max_size": 8}, "min_size"),
    ],
    ids=repr,
)
@scenario
async def test_wrong_sizes(world: World, sizes: dict[str, Any], named: str) -> None:
    """They change nothing, not even the one of two that was right."""
    pool, works = await world.pool(), world.works()
    await pool.supply("db", works, min_size=1, max_size=2)
    await pool.wait_ready()
    with pytest.raises((TypeError, ValueError), match=rf"^{named}: expected .*, got"):
        pool.resize("db", **sizes)
    pool.resize("db")
    await world.advance(10)
    assert len(pool) == 1
    pool.resize("db", min_size=2)
    await pool.wait_ready()
    assert len(pool) == 2


@scenario
async def test_there_is_no_such_supply(world: World) -> None:
    """A conn of one's own is no supply."""
    pool = await world.pool()
    await pool.put(world.conn("db"))
    for resource in ("db", "else"):
        with pytest.raises(ResourceError, match=f"no supply for '{resource}'"):
            pool.resize(resource, max_size=2)
        with pytest.raises(ResourceError, match=f"no supply for '{resource}'"):
            pool.withdraw(resource)
    assert len(pool) == 1


@scenario
async def test_withdraw(world: World) -> None:
    """Idle conns are closed, a running call ends well, those who wait are told, none is made."""
    hang, works = world.hang("done"), world.works()
    works.more = {"call": [hang]}
    pool = await filled(world, works, 2, max_size=2)
    running = [await world.running(hang, pool, "db", "say") for _ in range(2)]
    waiting = await world.queued(pool, "db", "say", timeout=None)
    pool.withdraw("db")
    await waiting.error(ResourceError)
    assert (len(pool), pool.empty("db")) == (0, True)
    assert [conn.closes for conn in works.made] == [0, 0]
    hang.release()
    assert [await caller.result() for caller in running] == ["done"] * 2
    await world.advance(0)
    assert [conn.closes for conn in works.made] == [1, 1]
    with pytest.raises(ResourceError):
        await pool.call("db", "say", timeout=None)
    with pytest.raises(ResourceError):
        pool.withdraw("db")
    assert len(works.made) == 2


@scenario
async def test_withdraw_while_one_is_being_opened(world: World) -> None:
    """It is closed if it comes, and counts for nothing; its successor has all the room."""
    pool, hang = await world.pool(max_connecting=2, max_size=1), world.hang()
    works = world.works(hang)
    await pool.supply("db", works, min_size=1)
    await world.until(lambda: hang.inside)
    pool.withdraw("db")
    second = world.works()
    await pool.supply("db", second)
    assert await pool.call("db", "say", "hello") == "hello"
    hang.release()
    await world.until(lambda: works.made[0].closes == 1)
    assert (len(pool), len(second.made)) == (1, 1)


@scenario
async def test_withdraw_leaves_ones_own_conns(world: World) -> None:
    """Who waits goes on waiting for them."""
    pool, hang = await world.pool(), world.hang("mine")
    await pool.put(world.conn("db", [hang, "next"]))
    works = world.works(world.hang())
    await pool.supply("db", works)
    mine = await world.running(hang, pool, "db", "say")
    waiting = await world.queued(pool, "db", "say")
    pool.withdraw("db")
    assert pool.waiting == 1
    hang.release()
    assert [await mine.result(), await waiting.result()] == ["mine", "next"]


@scenario
async def test_drain_a_resource(world: World) -> None:
    """All its conns go, one's own too, as soon as nobody uses them; others come as needed."""
    hang = world.hang("done")
    works = world.works(call=[hang])
    pool = await filled(world, works, 2)
    mine, other = world.conn("db", [hang]), world.conn("else")
    await pool.put(mine, revive=True)
    await pool.put(other)
    running = [await world.running(hang, pool, "db", "say") for _ in range(3)]
    works.more = {}
    assert pool.drain("db") == 3
    assert pool.drain("db") == 0
    assert pool.resources() == ["else"]
    assert await pool.call("db", "say", "new") == "new"
    hang.release()
    assert [await caller.result() for caller in running] == ["done"] * 3
    await world.advance(0)
    assert [conn.closes for conn in (mine, *works.made, other)] == [1, 1, 1, 0, 0]
    assert mine.opened == 0


@scenario
async def test_drain_one(world: World) -> None:
    """By its id; min_size is filled up again."""
    works = world.works()
    pool = await filled(world, works, 2)
    pool.resize("db", min_size=2)
    id = pool.infos("db")[0].id
    assert pool.drain(id=id) == 1
    assert id not in pool
    await pool.wait_ready()
    assert (len(works.made), len(pool), works.made[0].closes) == (3, 2, 1)
    with pytest.raises(IdError):
        pool.drain(id=id)


@scenario
async def test_drain_what_is_not_there(world: World) -> None:
    """An id is an error, a resource is nothing; neither or both is a TypeError."""
    pool = await world.pool()
    id = await pool.put(world.conn("db"))
    assert pool.drain("else") == 0
    with pytest.raises(IdError):
        pool.drain(id=id + 1)
    with pytest.raises(TypeError, match="either a resource or an id"):
        pool.drain()
    with pytest.raises(TypeError, match="either a resource or an id"):
        pool.drain("db", id=id)
    assert len(pool) == 1


@scenario
async def test_who_waits_for_a_drained_conn(world: World) -> None:
    """Is told at once where no other can come."""
    pool, hang = await world.pool(), world.hang("done")
    id = await pool.put(world.conn("db", [hang]), revive=True)
    running = await world.running(hang, pool, "db", "say")
    waiting = await world.queued(pool, "db", "say", timeout=None)
    assert pool.drain(id=id) == 1
    await waiting.error(ResourceError)
    hang.release()
    assert await running.result() == "done"


# -- the size of the pool ------------------------------------------------------------------------


@scenario
async def test_an_idle_conn_gives_way_to_another_resource(world: World) -> None:
    """The pool is full; one of those that nobody uses is closed, never below min_size."""
    pool, one, two = await world.pool(max_size=3), world.works(), world.works()
    await pool.supply("one", one, min_size=3)
    await pool.wait_ready()
    await pool.supply("two", two)
    refused = await world.queued(pool, "two", "say", timeout=1)
    await world.advance(1)
    await refused.error(PoolTimeout)
    pool.resize("one", min_size=1)
    for n in range(3):
        assert await pool.call("two", "say", n) == n
    assert (len(two.made), len(pool)) == (1, 3)
    assert pool.stats().since_start.ended["evicted"] == 1


@scenario
async def test_a_busy_resource_does_not_starve_another(world: World) -> None:
    """The conn that is returned gives way, since there somebody has waited longer."""
    pool, hang = await world.pool(max_size=1), world.hang("done")
    one, two = world.works(call=[hang]), world.works()
    await pool.supply("one", one)
    await pool.supply("two", two)
    first = await world.running(hang, pool, "one", "say")
    one.more = {}
    other = await world.queued(pool, "two", "say", "other")
    later = await world.queued(pool, "one", "say", "later")
    hang.release()
    assert await first.result() == "done"
    assert await other.result() == "other"
    assert await later.result() == "later"


@scenario
async def test_ones_own_conns_count(world: World) -> None:
    """A put beyond max_size is PoolFull; a supply does not go beyond it either."""
    pool, works = await world.pool(max_size=2), world.works()
    await pool.put(world.conn("mine"))
    await pool.supply("db", works, min_size=3)
    await world.until(lambda: len(pool) == 2)
    await world.advance(10)
    assert len(works.made) == 1
    refused = world.conn("else")
    world.loose(refused)
    with pytest.raises(PoolFull):
        await pool.put(refused)
    with pytest.raises(PoolTimeout):
        await pool.wait_ready(0)


@scenario
async def test_failures_take_no_place(world: World) -> None:
    """After a hundred failed openings all the places are there."""
    pool = await world.pool(max_size=2, max_connecting=2, backoff=STEADY)
    works = world.works(*[REFUSED] * 100)
    await pool.supply("db", works, min_size=2, max_size=2)
    await world.until(lambda: works.made)
    while len(works.made) < 100:
        await world.advance(10)
        now = pool.stats().now
        assert 0 <= now.conns + now.opening <= 2
    await advance_by(world, 10, 3)
    assert len(pool) == 2


@scenario
async def test_an_init_that_has_the_pool_do_things(world: World) -> None:
    """User code that runs in the background may ask the pool, and change its sizes."""
    pool, seen = await world.pool(), []
    await pool.put(world.conn("else"))

    def look(*_: Any) -> None:
        seen.append((pool.route("else"), len(pool)))
        pool.resize("db", max_size=5)

    await pool.supply("db", world.works(Do(look)))
    assert await pool.call("db", "say", "hello") == "hello"
    assert seen[0][1] == 1


@scenario
async def test_the_first_caller_asks_for_a_method_they_do_not_have(world: World) -> None:
    """As soon as the first conn says what it has, it is told; it does not wait in vain."""
    pool, hang = await world.pool(), world.hang()
    await pool.supply("db", world.works(hang), min_size=1)
    caller = await world.queued(pool, "db", "shout", timeout=5)
    await world.until(lambda: hang.inside)
    hang.release()
    await pool.wait_ready()
    world.clock.advance(5)
    pool.stats()  # a turn: what is due happens
    await caller.error(MethodError)


@scenario
async def test_a_filter_that_none_of_them_passes(world: World) -> None:
    """It may open no more conns than max_size, and ends with an error."""
    pool, works = await world.pool(), world.works()
    await pool.supply("db", works, max_size=3, extra="eu")
    caller = await world.queued(
        pool, "db", "say", filter=lambda conn: conn.extra == "us", timeout=5
    )
    for _ in range(6):
        await world.advance(1)
    await caller.error((FilterError, PoolTimeout))  # type: ignore[arg-type]
    assert len(works.made) <= 3


@scenario
async def test_a_key_that_is_a_set(world: World) -> None:
    """The key of a supply is one resource, whatever its type."""
    pool, works = await world.pool(), world.works()
    key = frozenset({"a", "b"})
    await pool.supply(key, works, min_size=1)
    await pool.wait_ready()
    assert pool.resources() == [key]
    assert await pool.call(key, "say", "hello", timeout=0) == "hello"
