"""The block in which a pool is open: entered again, left early, by an error, or cancelled."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from connpool import AsyncPool, Backoff, Busy, CallError, Closed, PoolClosed, Reply

from .conns import Line, fail, hang, whole
from .loops import living_tasks, now, on_asyncio, on_both, run, start, steps, until

made_at_import_time = AsyncPool(name="global")

TIMEOUT = 5.0
GRACE = 1.0


def pool_of(**options: Any) -> AsyncPool:
    """A pool with the timeouts of these tests."""
    return AsyncPool(**{"timeout": TIMEOUT, "connect_timeout": 3.0, **options})


# -- one loop after another ----------------------------------------------------------------------


def test_a_pool_made_at_import_time_is_opened_in_one_loop_after_another() -> None:
    """Twice under asyncio, under trio, under asyncio again: each time it is empty first."""

    async def use() -> None:
        async with made_at_import_time as pool, anyio.create_task_group() as group:
            assert len(pool) == 0
            line = Line()
            await pool.init(line)
            calls = [start(group, pool.call, "line", "say", n) for n in range(5)]
            for number, call in enumerate(calls):
                await call.end(within=5)
                assert call.value == number
            await whole(pool, 1)
        line.audit()
        assert line.closes == 1

    asyncio.run(use())
    asyncio.run(use())
    trio.run(use)
    asyncio.run(use())


def test_a_block_that_was_left_in_disorder_leaves_nothing_for_the_next_loop() -> None:
    """What was waited for in vain in one loop does not trip the next one."""
    pool = AsyncPool(name="again", timeout=0.01, connect_timeout=0.01)

    async def leave_in_disorder() -> None:
        line = Line(capacity=2)
        line.on_saying = {"hangs": hang, "breaks": fail(lambda: OSError("torn"))}
        async with anyio.create_task_group() as group:
            async with pool:
                await pool.init(line)
                start(group, pool.call, "line", "say", "hangs")
                await until(lambda: line.inside)
                with pytest.raises(OSError, match="torn"):
                    await pool.call("line", "say", "breaks")
                await steps(9)  # it is closed already: nothing ends while the block is left
            group.cancel_scope.cancel()
        assert not line.is_open

    async def leave_while_a_call_hangs() -> None:
        line = Line()
        line.on_call = hang
        async with anyio.create_task_group() as group:
            async with pool:
                await pool.init(line)
                start(group, pool.call, "line", "say")
                await until(lambda: line.inside)
            group.cancel_scope.cancel()
        line.audit()

    loops: list[Callable[[Callable[[], Any]], Any]] = [run_on_asyncio, trio.run]
    for first, second in itertools.product(loops, repeat=2):
        first(leave_in_disorder)
        second(leave_while_a_call_hangs)


def run_on_asyncio(story: Callable[[], Any]) -> None:
    """What trio.run is for trio."""
    asyncio.run(story())


@on_both
def test_another_threads_loop_is_refused_and_harms_nothing(backend: str) -> None:
    """While the pool is open here, everything it is asked elsewhere is a RuntimeError."""
    pool = AsyncPool(name="shared")
    refused: list[str] = []

    async def intrude() -> None:
        for doing in everything(pool):
            with pytest.raises(RuntimeError, match="'shared' is open in the event loop of another"):
                await doing()
            refused.append("")
        with pytest.raises(RuntimeError, match="'shared' is open already, in another event loop"):
            async with pool:
                pass
        refused.append("")

    async def story() -> None:
        line = Line()
        line.on_saying["hangs"] = hang
        async with pool, anyio.create_task_group() as group:
            await pool.init(line, revive=True)
            running = start(group, pool.call, "line", "say", "hangs")
            await until(lambda: line.inside)
            waiting = start(group, pool.call, "line", "say", "waiting")
            await until(lambda: pool.stats().now.waiting)
            before = pool.stats()
            thread = threading.Thread(target=anyio.run, args=(intrude,))
            thread.start()
            thread.join()  # it holds this loop up, which has nothing to do
            assert len(refused) == len(everything(pool)) + 1
            assert pool.stats() == before
            running.scope.cancel()
            assert await waiting.end(within=5) is None
            assert waiting.value == "waiting"
            await whole(pool, 1)
        line.audit()

    run(backend, story)


def everything(pool: AsyncPool) -> list[Callable[[], Any]]:
    """All that a pool can be asked for."""

    def at_once(act: Callable[[], Any]) -> Callable[[], Any]:
        async def doing() -> None:
            act()

        return doing

    return [
        lambda: pool.call("line", "say"),
        lambda: pool.init(Line()),
        lambda: pool.put(Line()),
        lambda: pool.pop(1),
        lambda: pool.pop_all("line"),
        lambda: pool.update("line", extra=1),
        pool.sweep,
        at_once(pool.stats),
        at_once(pool.report),
        at_once(pool.infos),
        at_once(lambda: pool.info(1)),
        at_once(lambda: pool.extra(1, 2)),
        at_once(pool.resources),
        at_once(lambda: pool.empty("line")),
        at_once(lambda: len(pool)),
        at_once(lambda: 1 in pool),
    ]


@on_both
def test_before_and_after_its_block_a_pool_says_what_is_wrong(backend: str) -> None:
    """Before: that `async with` is missing; after: that it is closed.  Conns stay as they were."""

    async def story() -> None:
        pool = AsyncPool(name="early")
        for doing in [*everything(pool), pool.close]:
            with pytest.raises(RuntimeError, match="'early' is not open: use `async with pool:`"):
                await doing()
        async with pool:
            await pool.init(line := Line())
        for doing in everything(pool):
            with pytest.raises(PoolClosed, match="'early' is closed"):
                await doing()
        await pool.close()
        assert "closed" in repr(pool)
        assert (line.opens, line.closes) == (1, 1)

    run(backend, story)


@on_both
def test_a_pool_is_not_opened_twice_at_once(backend: str) -> None:
    """A second `async with` inside the first is refused, and the first goes on."""

    async def story() -> None:
        async with AsyncPool(name="twice") as pool:
            await pool.init(Line())
            with pytest.raises(RuntimeError, match="'twice' is open already, in this event loop"):
                async with pool:
                    pass
            await whole(pool, 1)

    run(backend, story)


# -- errors in the body --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("mine", [ValueError()])])
@pytest.mark.parametrize("busy", [False, True])
@on_both
def test_an_error_in_the_body_comes_out_as_itself(
    backend: str, error: Exception, busy: bool
) -> None:
    """Not wrapped, whether or not a call runs meanwhile and a close hangs."""

    async def story() -> None:
        line = Line()
        line.on_call = hang
        async with anyio.create_task_group() as group:
            with pytest.raises(type(error)) as caught:
                async with pool_of() as pool:
                    await pool.init(line)
                    if busy:
                        start(group, pool.call, "line", "say")
                        await steps(3)
                        line.on_close = hang
                    raise error
            assert caught.value is error
            group.cancel_scope.cancel()
        line.audit()
        assert not line.is_open

    run(backend, story)


@pytest.mark.parametrize("close", [None, hang], ids=["", "close hangs"])
@on_both
def test_a_cancelled_body_ends_cancelled(backend: str, close: Any) -> None:
    """The cancellation comes out as itself, within the grace period, and conns are closed."""

    async def story() -> None:
        line = Line()
        line.on_call = hang

        async def body() -> None:
            async with pool_of() as pool:
                await pool.init(line)
                line.on_close = close or line.on_close
                await pool.call("line", "say")

        async with anyio.create_task_group() as group:
            outcome = start(group, body)
            await until(lambda: line.inside)
            begun = now()
            outcome.scope.cancel()
            await outcome.end(within=GRACE + 0.1)
            assert outcome.cancelled
            assert outcome.scope.cancelled_caught
            assert now() - begun <= GRACE
        if on_asyncio():
            task = asyncio.create_task(body())
            await until(lambda: line.inside)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        line.audit()
        assert not line.is_open

    run(backend, story)


@on_both
def test_a_deadline_of_the_body_is_a_timeout(backend: str) -> None:
    """`fail_after` around the block raises its TimeoutError, even where leaving takes a while."""

    async def story() -> None:
        line = Line()
        line.on_call = line.on_close = hang
        begun = now()
        with pytest.raises(TimeoutError) as caught, anyio.fail_after(2):
            async with pool_of() as pool:
                await pool.init(line)
                await pool.call("line", "say")
        assert type(caught.value) is TimeoutError
        assert now() - begun <= 2 + GRACE
        assert line.closes == 1

    run(backend, story)


# -- leaving -------------------------------------------------------------------------------------


@on_both
def test_closed_inside_then_left(backend: str) -> None:
    """close(), once or twice, then leaving: each conn is closed once, and no task is left."""

    async def story() -> None:
        before = living_tasks()
        line = Line()
        async with pool_of() as pool:
            await pool.init(line, revive="force")
            await pool.close()
            assert line.closes == 1
            with pytest.raises(PoolClosed):
                await pool.call("line", "say")
            await pool.close()
        assert line.closes == 1
        await steps(3)
        assert living_tasks() == before

    run(backend, story)


@on_both
def test_left_while_calls_run_hang_and_wait(backend: str) -> None:
    """Who waits gets PoolClosed at once, a call that ends in time its reply; a conn whose call
    hangs is closed under it when the time is over."""

    async def story() -> None:
        lines = [Line(), Line()]
        async with anyio.create_task_group() as group:
            async with pool_of() as pool:
                for line in lines:
                    line.on_saying = {"runs": lambda: anyio.sleep(2), "hangs": hang}
                    await pool.init(line, revive="force")
                runs = start(group, pool.call, "line", "say", "runs")
                hangs = start(group, pool.call, "line", "say", "hangs")
                await until(lambda: lines[0].inside and lines[1].inside)
                waits = start(group, pool.call, "line", "say", "waits")
                await until(lambda: pool.stats().now.waiting)
                begun = now()
            assert now() - begun <= TIMEOUT + GRACE
            assert waits.ended == begun
            assert isinstance(waits.error, PoolClosed)
            assert (runs.value, runs.ended) == ("runs", begun + 2)
            assert not hangs.done
            assert [line.closes for line in lines] == [1, 1]
            hangs.scope.cancel()
            await hangs.end()
            assert hangs.cancelled

    run(backend, story)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize(
    ("end", "seen"),
    [
        (lambda: OSError("torn"), OSError),
        (lambda: ValueError("mine"), ValueError),
        (lambda: CallError("no", closed=True), CallError),
        (Closed, PoolClosed),
        (Busy, PoolClosed),
        (lambda: Reply("late", closed=True), None),
        (lambda: "late", None),
    ],
)
@on_both
def test_a_call_that_outlives_the_block(
    backend: str, end: Callable[[], Any], seen: type[Exception] | None, reopened: bool
) -> None:
    """Its end reaches its caller, unless it would move; the next block is not hurt."""

    async def story() -> None:
        line, gate = Line(), anyio.Event()

        async def call() -> Any:
            await gate.wait()
            ended = end()
            if isinstance(ended, Exception):
                raise ended
            return ended

        line.on_call = call
        async with anyio.create_task_group() as group:
            async with pool_of(timeout=1) as pool:
                await pool.init(line)
                late = start(group, pool.call, "line", "say")
                await steps(3)
            if not reopened:
                gate.set()
                await late.end()
            else:
                async with pool:
                    await pool.init(Line())
                    before = pool.stats()
                    gate.set()
                    await late.end()
                    assert pool.stats() == before
                    await whole(pool, 1)
        assert late.value == "late" if seen is None else type(late.error) is seen
        line.audit()

    run(backend, story)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("how", ["init", "put"])
@pytest.mark.parametrize("ends", [True, False], ids=["opens", "fails"])
@on_both
def test_an_init_that_outlives_the_block(
    backend: str, how: str, ends: bool, reopened: bool
) -> None:
    """What it has opened is closed again; a conn that was put stays open; the caller is told."""

    async def story() -> None:
        line, gate = Line(), anyio.Event()

        async def late() -> None:
            await gate.wait()
            if not ends:
                raise OSError("refused")

        if how == "put":
            await line.init()
            line.on_methods = late
        else:
            line.on_init = late
        pool = pool_of(timeout=1)
        async with anyio.create_task_group() as group:
            async with pool:
                adding = start(group, getattr(pool, how), line)
                await steps(3)
                begun = now()
            assert now() - begun <= 1 + GRACE
            if reopened:
                async with pool:
                    gate.set()
                    await adding.end()
                    assert len(pool) == 0
                    await pool.init(Line())
                    await whole(pool, 1)
            else:
                gate.set()
                await adding.end()
        assert isinstance(adding.error, PoolClosed if ends else OSError)
        line.audit()
        assert line.is_open is (how == "put")

    run(backend, story)


@pytest.mark.parametrize("ends", [True, False], ids=["opens", "fails"])
@on_both
def test_leaving_ends_when_the_last_init_does(backend: str, ends: bool) -> None:
    """Who leaves waits for an init that runs, and no longer than that."""

    async def story() -> None:
        line = Line()

        async def init() -> None:
            await anyio.sleep(2)
            if not ends:
                raise OSError("refused")

        line.on_init = init
        async with anyio.create_task_group() as group:
            async with pool_of() as pool:
                adding = start(group, pool.init, line)
                await steps(3)
                begun = now()
            assert now() - begun < 2.1
            assert isinstance(adding.error, PoolClosed if ends else OSError)
        line.audit()
        assert not line.is_open

    run(backend, story)


@on_both
def test_leaving_ends_when_the_last_call_on_a_broken_conn_does(backend: str) -> None:
    """The same for a call on a shared conn that was closed already when another call broke it."""

    async def story() -> None:
        line = Line(capacity=2)
        line.on_saying = {"runs": lambda: anyio.sleep(2), "breaks": fail(lambda: OSError("torn"))}
        async with anyio.create_task_group() as group:
            async with pool_of() as pool:
                await pool.init(line)
                runs = start(group, pool.call, "line", "say", "runs")
                await steps(3)
                with pytest.raises(OSError, match="torn"):
                    await pool.call("line", "say", "breaks")
                begun = now()
            assert now() - begun < 2.1
            assert runs.value == "runs"
        line.audit()

    run(backend, story)


@pytest.mark.parametrize("what", ["on_init", "on_methods", "on_close"])
@pytest.mark.parametrize("cancelled", [False, True])
@on_both
def test_what_hangs_in_the_background_is_given_up(backend: str, what: str, cancelled: bool) -> None:
    """An init, a methods() or a close that hangs while a conn is revived: leaving ends in bounded
    time, with no error of its own, and what was opened is closed."""

    async def story() -> None:
        line, left = Line(), anyio.CancelScope()
        with left:
            async with pool_of(connect_timeout=100.0) as pool:
                await pool.init(line, revive=True)
                line.on_call = fail(lambda: OSError("torn"))
                setattr(line, what, hang)
                with pytest.raises(OSError, match="torn"):
                    await pool.call("line", "say")
                await steps(9)
                begun = now()
                if cancelled:
                    left.cancel()
        assert now() - begun <= (0 if cancelled else TIMEOUT) + GRACE
        line.audit()
        assert not line.is_open
        assert line.closes == line.opens

    run(backend, story)


@on_both
def test_a_close_within_the_timeout_is_not_cut_short(backend: str) -> None:
    """A conn that takes its time to say goodbye gets it, where nobody was cancelled."""

    async def story() -> None:
        line, said = Line(), []

        async def goodbye() -> None:
            await anyio.sleep(2.5)
            said.append("goodbye")

        line.on_close = goodbye
        async with pool_of() as pool:
            await pool.init(line)
        assert said

    run(backend, story)


@on_both
def test_a_cancelled_body_leaves_time_to_say_goodbye(backend: str) -> None:
    """Who leaves the block cancelled still closes his conns in good order, if that is soon done."""

    async def story() -> None:
        line, said = Line(), []

        async def goodbye() -> None:
            await anyio.sleep(GRACE / 2)
            said.append("goodbye")

        line.on_close = goodbye
        with anyio.move_on_after(1):
            async with pool_of() as pool:
                await pool.init(line)
                await hang()
        assert said

    run(backend, story)


@on_both
def test_a_cancelled_init_does_not_wait_for_the_close(backend: str) -> None:
    """Who is cancelled while a conn that is open is asked for its methods goes at once; the conn is
    closed in the background."""

    async def story() -> None:
        line = Line()
        line.on_methods = hang
        line.on_close = lambda: anyio.sleep(1)
        async with pool_of() as pool, anyio.create_task_group() as group:
            adding = start(group, pool.init, line)
            await until(lambda: line.is_open)
            begun = now()
            adding.scope.cancel()
            await adding.end()
            assert adding.ended == begun
            await until(lambda: not line.is_open)
            assert len(pool) == 0
        line.audit()

    run(backend, story)


@on_both
def test_a_conn_that_is_never_open_again_does_not_hold_up_the_leaving(backend: str) -> None:
    """Who waits for the next attempt to revive a conn is told, and the block is left at once."""

    async def story() -> None:
        line = Line()
        async with anyio.create_task_group() as group:
            async with pool_of(backoff=Backoff(first=100)) as pool:
                await pool.init(line, revive=True)
                line.on_call = line.on_init = fail(lambda: OSError("torn"))
                with pytest.raises(OSError, match="torn"):
                    await pool.call("line", "say")
                await steps(9)
                waits = start(group, pool.call, "line", "say", timeout=None)
                await steps(3)
                begun = now()
            assert now() == begun
            assert isinstance(await waits.end(), PoolClosed)
        line.audit()

    run(backend, story)
