"""The worlds a scenario runs in: threads, asyncio and trio, behind one face.

A scenario is an ``async def test_...(world: World)`` under `@scenario`.  It makes pools and conns
of the world's kind, starts calls in the background, waits until something is true, advances the
invented time, and asserts.  In the world of threads nothing is ever awaited: the same coroutine
runs through in one go, and the background is threads.

When a scenario is over its world closes the pools and checks, for each conn it made, that it was
closed once for each time it was opened, or else handed over by a pop, and that no more calls ran on
it at once than it can carry.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ClassVar, Concatenate, ParamSpec

import anyio
import pytest

import connpool
from connpool import Pool
from connpool.testing import Hang, ManualClock, ScriptedAsyncConn, ScriptedConn
from connpool.testing.steps import perform, perform_async

P = ParamSpec("P")
AnyConn = ScriptedConn | ScriptedAsyncConn

# Real seconds; they only end a hang.
PATIENCE = 30.0


class Handle:
    """Something that runs in the background."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self.scope: anyio.CancelScope | None = None
        self.thread: threading.Thread | None = None

    def keep(self, value: Any = None, error: BaseException | None = None) -> None:
        """It has ended."""
        self._value, self._error = value, error
        self.done = True

    async def end(self) -> BaseException | None:
        """Wait for its end, and give what it raised."""
        await self._world.until(lambda: self.done)
        return self._error

    async def result(self) -> Any:
        """What it gave."""
        if (error := await self.end()) is not None:
            raise error
        return self._value

    async def error(self, kind: type[BaseException]) -> Any:
        """What it raised."""
        error = await self.end()
        assert isinstance(error, kind), f"expected {kind.__name__}, got {error!r}, {self._value!r}"
        return error

    def cancel(self) -> None:
        """Cancel it; only where `world.cancels`."""
        assert self.scope is not None
        self.scope.cancel()


class World:
    """Makes pools and conns of one kind, runs things in the background, and holds the time."""

    name: ClassVar[str]
    cancels: ClassVar[bool] = False
    Conn: ClassVar[type[AnyConn]]

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._pools: list[PoolFace] = []
        self._conns: list[AnyConn] = []
        self._hangs: list[Hang] = []
        self._given: Counter[int] = Counter()  # by id(conn): put into a pool less taken out
        self._loose: set[int] = set()

    # -- what a scenario makes -----------------------------------------------------------------

    async def pool(self, **options: Any) -> PoolFace:
        """A pool of this world, open until the scenario is over."""
        face = PoolFace(self, await self._make_pool(**options))
        self._pools.append(face)
        return face

    def conn(self, resource: Any = "line", *script: Any, **more: Any) -> Any:
        """A scripted conn of this world: the one argument after the resource is its call script."""
        conn = self.Conn(resource, *script, **more)
        self._conns.append(conn)
        return conn

    def works(self, *inits: Any, each: Callable[[], Any] | None = None, **more: Any) -> Works:
        """A factory of scripted conns of this world; see `Works`."""
        return Works(self, list(inits), each, more)

    def hang(self, then: Any = None) -> Hang:
        """A hang that is released at the latest when the scenario is over."""
        hang = Hang(then)
        self._hangs.append(hang)
        return hang

    # -- what a scenario does ------------------------------------------------------------------

    def start(self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Handle:
        """Run a method of a pool in the background."""
        raise NotImplementedError

    def plain(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """A coroutine function as what user code is in this world: plain, where it is threads."""
        return function

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until something is true that is bound to become true."""
        due = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < due, "it did not come true"
            await self._pause()

    async def running(self, hang: Hang, pool: PoolFace, *args: Any, **kwargs: Any) -> Handle:
        """A call that runs, and stays in `hang`, the next step of its conn."""
        before = hang.inside
        handle = self.start(pool.call, *args, **kwargs)
        await self.until(lambda: hang.inside > before or handle.done)
        return handle

    async def queued(self, pool: PoolFace, *args: Any, **kwargs: Any) -> Handle:
        """A call that waits in line."""
        before = pool.waiting
        handle = self.start(pool.call, *args, **kwargs)
        await self.until(lambda: pool.waiting > before or handle.done)
        return handle

    def lease(self, pool: PoolFace, *args: Any, **kwargs: Any) -> Held:
        """A checkout, to be used with `async with` in every world."""
        return self.held(pool.bare.checkout(*args, **kwargs))

    def held(self, checkout: Any) -> Held:
        """The same for one that was made already."""
        return Held(checkout)

    async def hold(self, step: Any, pool: PoolFace, *args: Any, **kwargs: Any) -> Any:
        """Check a conn out, do a step with it (raise it, hang in it), and give what was lent."""
        async with self.lease(pool, *args, **kwargs) as lent:
            await self.perform(step)
            return lent

    async def holding(self, hang: Hang, pool: PoolFace, *args: Any, **kwargs: Any) -> Handle:
        """Somebody who has checked a conn out, and stays in `hang`."""
        before = hang.inside
        handle = self.start(self.hold, hang, pool, *args, **kwargs)
        await self.until(lambda: hang.inside > before or handle.done)
        return handle

    async def in_line(self, step: Any, pool: PoolFace, *args: Any, **kwargs: Any) -> Handle:
        """Somebody who waits in line to check a conn out, and to do a step with it."""
        before = pool.waiting
        handle = self.start(self.hold, step, pool, *args, **kwargs)
        await self.until(lambda: pool.waiting > before or handle.done)
        return handle

    async def perform(self, step: Any) -> Any:
        """Do a step, as a scripted conn of this world would."""
        return await perform_async(step)

    async def gone(self, handle: Handle) -> None:
        """Wait until the thread or task itself has ended."""
        await handle.end()
        await self._pause()

    async def advance(self, seconds: float, *pools: PoolFace) -> None:
        """Let time pass, and all the pools (or these) do what is due."""
        self.clock.advance(seconds)
        for pool in pools or self._pools:
            await pool.sweep()

    def loose(self, conn: AnyConn) -> None:
        """Do not count how often this conn is closed: its test does."""
        self._loose.add(id(conn))

    # -- what a world does ---------------------------------------------------------------------

    @classmethod
    def run(cls, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario from beginning to end."""
        raise NotImplementedError

    async def _play(self, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        with self.clock:
            try:
                await story(self)
                for pool in self._pools:
                    await pool.close(0)
            finally:
                for hang in self._hangs:
                    hang.release()
                await self._end()
        await self.until(lambda: not any(conn.running for conn in self._conns))
        for conn in self._conns:
            await self._check(conn)

    async def _check(self, conn: AnyConn) -> None:
        assert conn.most <= conn.capacity
        if id(conn) not in self._loose:
            # A hung init or close may have been let go only just now.
            await self.until(lambda: conn.closes >= conn.opened + self._given[id(conn)])
            assert conn.closes == conn.opened + self._given[id(conn)]

    def count(self, conn: Any, change: int) -> None:
        """A conn went into a pool open, or came out open."""
        self._given[id(conn)] += change

    async def _make_pool(self, **options: Any) -> Any:
        raise NotImplementedError

    async def _pause(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        """Close the pools for good, and see everything in the background end."""
        raise NotImplementedError


class Held:
    """A checkout of either kind: `async with` begins and ends it, the rest is its own."""

    def __init__(self, bare: Any) -> None:
        self.bare = bare

    async def __aenter__(self) -> Any:
        if hasattr(self.bare, "__enter__"):
            return self.bare.__enter__()
        return await self.bare.__aenter__()

    async def __aexit__(self, *args: Any) -> Any:
        if hasattr(self.bare, "__exit__"):
            return self.bare.__exit__(*args)
        return await self.bare.__aexit__(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class Works:
    """A factory for a supply, whose conns count how many of them connect at once.

    `inits` are the steps of the inits, one for each conn that is made; when they are used up,
    `each` gives them, or all goes well.  `more` goes to every conn.
    """

    def __init__(
        self,
        world: World,
        inits: list[Any],
        each: Callable[[], Any] | None,
        more: dict[str, Any],
    ) -> None:
        self.inits, self.each, self.more = inits, each, more
        self.made: list[Any] = []
        self.steps: list[Any] = []
        self.connecting = self.most = 0
        self._world = world
        self._guard = threading.Lock()

    def __call__(self) -> Any:
        """One more conn."""
        with self._guard:
            step = self.inits.pop(0) if self.inits else self.each() if self.each else None
            conn = self._world.conn("what it says itself", init=[step], **self.more)
            conn.init = self._counted(conn.init)
            self.made.append(conn)
            self.steps.append(step)
        return conn

    def _counted(self, init: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.iscoroutinefunction(init):

            def counted(*args: Any, **kwargs: Any) -> Any:
                with self._connect():
                    return init(*args, **kwargs)

            return counted

        async def counted_async(*args: Any, **kwargs: Any) -> Any:
            with self._connect():
                return await init(*args, **kwargs)

        return counted_async

    @contextlib.contextmanager
    def _connect(self) -> Iterator[None]:
        with self._guard:
            self.connecting += 1
            self.most = max(self.most, self.connecting)
        try:
            yield
        finally:
            with self._guard:
                self.connecting -= 1


class PoolFace:
    """A pool whose waiting methods are awaited, of whichever kind it is."""

    def __init__(self, world: World, pool: Any) -> None:
        self._world = world
        self.bare = pool

    async def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        given = getattr(self.bare, name)(*args, **kwargs)
        return await given if inspect.isawaitable(given) else given

    async def init(self, conn: Any, *args: Any, **kwargs: Any) -> int:
        return await self._do("init", conn, *args, **kwargs)  # type: ignore[no-any-return]

    async def put(self, conn: Any, **kwargs: Any) -> int:
        id = await self._do("put", conn, **kwargs)
        self._world.count(conn, 1)
        return id  # type: ignore[no-any-return]

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        return await self._do("call", *args, **kwargs)

    async def supply(self, *args: Any, **kwargs: Any) -> None:
        await self._do("supply", *args, **kwargs)

    async def wait_ready(self, *args: Any, **kwargs: Any) -> None:
        await self._do("wait_ready", *args, **kwargs)

    async def update(self, *args: Any, **kwargs: Any) -> int:
        return await self._do("update", *args, **kwargs)  # type: ignore[no-any-return]

    async def pop(self, *args: Any, **kwargs: Any) -> Any:
        conn = await self._do("pop", *args, **kwargs)
        self._world.count(conn, -1)
        return conn

    async def pop_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        conns: list[Any] = await self._do("pop_all", *args, **kwargs)
        for conn in conns:
            self._world.count(conn, -1)
        return conns

    async def sweep(self) -> float | None:
        return await self._do("sweep")  # type: ignore[no-any-return]

    async def close(self, *args: Any, **kwargs: Any) -> None:
        await self._do("close", *args, **kwargs)

    @property
    def waiting(self) -> int:
        """How many callers stand in line."""
        return self.bare.stats().now.waiting  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def __len__(self) -> int:
        return len(self.bare)

    def __bool__(self) -> bool:
        return bool(self.bare)

    def __contains__(self, id: object) -> bool:
        return id in self.bare


# -- threads -------------------------------------------------------------------------------------


def run_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never really awaits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("this coroutine awaits something")


class Threads(World):
    """The background is threads, and `Pool` is the pool."""

    name = "threads"
    Conn = ScriptedConn

    def __init__(self) -> None:
        super().__init__()
        self._threads: list[threading.Thread] = []

    @classmethod
    def run(cls, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        run_through(cls()._play(story))

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Handle:
        handle = Handle(self)

        def run() -> None:
            try:
                handle.keep(run_through(function(*args, **kwargs)))
            except BaseException as error:
                handle.keep(error=error)

        handle.thread = thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return handle

    async def perform(self, step: Any) -> Any:
        return perform(step)

    async def gone(self, handle: Handle) -> None:
        thread = handle.thread
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def plain(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        return lambda *args, **kwargs: run_through(function(*args, **kwargs))

    async def _make_pool(self, **options: Any) -> Any:
        return Pool(**options)

    async def _pause(self) -> None:
        time.sleep(0.0005)

    async def _end(self) -> None:
        for pool in self._pools:
            pool.bare.close(0)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


# -- asyncio and trio ----------------------------------------------------------------------------


class Tasks(World):
    """The background is tasks, and `AsyncPool` is the pool."""

    cancels = True
    Conn = ScriptedAsyncConn

    def __init__(self) -> None:
        super().__init__()
        self._stop = anyio.Event()
        self._open = 0

    @classmethod
    def run(cls, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            world, failure = cls(), None
            async with anyio.create_task_group() as world._group:
                try:
                    await world._play(story)
                except BaseException as error:  # out of the group, which would wrap it
                    failure = error
                    world._group.cancel_scope.cancel()
            if failure is not None:
                raise failure

        if not hasattr(connpool, "AsyncPool"):
            pytest.skip("there is no AsyncPool yet")
        anyio.run(main, backend=cls.name)

    _group: anyio.abc.TaskGroup

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Handle:
        handle = Handle(self)
        handle.scope = scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    handle.keep(await function(*args, **kwargs))
                except BaseException as error:
                    handle.keep(error=error)
                    if not isinstance(error, Exception):
                        raise
            assert handle.done

        self._group.start_soon(run)
        return handle

    async def _make_pool(self, **options: Any) -> Any:
        pool = connpool.AsyncPool(**options)
        opened = anyio.Event()

        async def hold() -> None:  # in a task of its own: the order of closing is free then
            async with pool:
                opened.set()
                await self._stop.wait()
            self._open -= 1

        self._open += 1
        self._group.start_soon(hold)
        await opened.wait()
        return pool

    async def _pause(self) -> None:
        await anyio.sleep(0)

    async def _end(self) -> None:
        self._stop.set()
        await self.until(lambda: not self._open)


class Asyncio(Tasks):
    """On asyncio."""

    name = "asyncio"


class Trio(Tasks):
    """On trio."""

    name = "trio"


Story = Callable[Concatenate[World, P], Coroutine[Any, Any, None]]


def told_in(*worlds: type[World]) -> Callable[[Story[P]], Callable[..., None]]:
    """Let a scenario run in these worlds; other parametrizations go above this."""

    def decorate(story: Story[P]) -> Callable[..., None]:
        @functools.wraps(story)
        def test(world: type[World], *args: P.args, **kwargs: P.kwargs) -> None:
            world.run(lambda made: story(made, *args, **kwargs))

        return pytest.mark.parametrize("world", worlds, ids=[world.name for world in worlds])(test)

    return decorate


scenario = told_in(Threads, Asyncio, Trio)

# What only tasks can do is to be cancelled.
scenario_of_tasks = told_in(Asyncio, Trio)
