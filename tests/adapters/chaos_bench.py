"""The bench on which a chaos scenario is played: a pool, its callers, and the books.

Each request has a number of its own.  The books say what became of it; `settle` compares them at
the end with the pool, with the proxy and with the server.
"""

from __future__ import annotations

import functools
import itertools
import random
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from connpool import AsyncPool, Backoff, Pool, PoolError
from connpool.core.stats import Now, SinceStart
from connpool.testing import FaultProxy

from . import PATIENCE
from .chaos_rig import Rig

SHORT = 0.2  # seconds after which a library, or the pool, gives up what hangs
SIZE = 3  # conns, where a scenario does not say otherwise

_numbers = itertools.count(1001)


class Asked:
    """A call, and what came of it: its own reply, an error, or neither: it was cancelled."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.over = False
        self.replied = False
        self.error: Exception | None = None
        self.left = False
        self.scope = anyio.CancelScope()

    def cancel(self) -> None:
        """Leave it; only where the driver is one of tasks."""
        self.left = True
        self.scope.cancel()

    def __repr__(self) -> str:
        state = "replied" if self.replied else repr(self.error)
        return f"<call {self.number}, {state if self.over else 'not over'}>"


class Bench:
    """Everything a scenario uses.

    rig, driver, seed: what is tried, and how.
    rng: chance, by the seed.
    proxy: between the pool and the server.
    pool: after `open`.
    timeout: what the library of each conn made from now on gets as its time limit.
    calls: all that were ever started.
    wrong: what may not be; it ends the scenario.
    """

    pool: Any

    def __init__(self, rig: Rig, driver: str, seed: int, proxy: FaultProxy) -> None:
        self.rig, self.driver, self.seed, self.proxy = rig, driver, seed, proxy
        self.rng = random.Random(seed)
        self.calls: list[Asked] = []
        self.timeout = PATIENCE
        self.size = 0
        self.tasks: TaskGroup
        self.wrong: list[str] = []
        self._restarted = self._down = False
        self._guard = threading.Lock()
        self._connects = self._disconnects = 0
        self._stack = AsyncExitStack()
        self._crowd = anyio.CapacityLimiter(1000)  # threads that call at once

    @property
    def cancels(self) -> bool:
        """Whether calls can be cancelled."""
        return self.driver != "threads"

    # -- the pool ------------------------------------------------------------------------------

    async def open(
        self,
        size: int = SIZE,
        *,
        timeout: float = PATIENCE,
        connect_timeout: float = PATIENCE,
        ready: bool = True,
    ) -> None:
        """Make the pool, with a supply that always has `size` conns; wait until it has them."""
        self.size, self.timeout = size, timeout
        options: dict[str, Any] = {
            "name": f"{self.rig.name}-{self.driver}",
            "timeout": PATIENCE,
            "max_connecting": size,
            "backoff": Backoff(first=0.01, factor=1),
            "on_connect": functools.partial(self._count, "_connects"),
            "on_disconnect": functools.partial(self._count, "_disconnects"),
        }
        if self.driver == "threads":
            self.pool = Pool(**options)
        else:
            self.pool = await self._stack.enter_async_context(AsyncPool(**options))
        await self._do(
            self.pool.supply,
            self.rig.name,
            self._make,
            min_size=size,
            max_size=size,
            connect_timeout=connect_timeout,
        )
        if ready:
            await self._do(self.pool.wait_ready)

    def _make(self) -> Any:
        make = self.rig.conn if self.driver == "threads" else self.rig.async_conn
        assert make is not None, f"{self.rig.name} has no conn for {self.driver}"
        return make(*self.proxy.address, self.timeout)

    def _count(self, what: str, *_: Any) -> None:
        with self._guard:
            setattr(self, what, getattr(self, what) + 1)

    async def _do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A method of the pool: awaited, or in a thread."""
        if self.driver != "threads":
            return await function(*args, **kwargs)
        return await self._in_thread(functools.partial(function, *args, **kwargs))

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._crowd)

    @property
    def now(self) -> Now:
        """The pool's own numbers."""
        return self.pool.stats().now  # type: ignore[no-any-return]

    @property
    def so_far(self) -> SinceStart:
        """The same, since the start."""
        return self.pool.stats().since_start  # type: ignore[no-any-return]

    def report(self) -> str:
        """How things are, for a message."""
        try:
            text = self.pool.report()
        except PoolError as error:
            text = str(error)
        over = [call for call in self.calls if call.error or not call.over]
        return f"{self.proxy}, {over[-8:]}\n{text}"

    # -- callers -------------------------------------------------------------------------------

    def start(self) -> Asked:
        """A caller with a request of its own, in the background."""
        call = Asked(next(_numbers))
        self.calls.append(call)
        self.tasks.start_soon(self._run, call)
        return call

    async def ask(self) -> Asked:
        """A caller, to its end."""
        call = self.start()
        await self.ended(call)
        return call

    async def ended(self, *calls: Asked) -> None:
        """Wait until all of these are over."""
        await self.until(lambda: all(call.over for call in calls))

    async def _run(self, call: Asked) -> None:
        method, payload = self.rig.ask(call.number)
        try:
            with call.scope:
                reply = await self._do(self.pool.call, self.rig.name, method, payload)
                call.replied = self.rig.replied(call.number, reply)
                if not call.replied:
                    self.wrong.append(f"call {call.number} was given {reply!r}")
        except Exception as error:
            call.error = error
            if isinstance(error, PoolError) or not isinstance(error, self.rig.errors):
                self.wrong.append(f"call {call.number} got {error!r}")
        except BaseException as error:
            if call.left:  # then it is its own scope's, which should have known it
                self.wrong.append(f"the cancellation of call {call.number} came out as {error!r}")
            raise
        finally:
            call.over = True

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true that is bound to become true."""
        due = time.monotonic() + PATIENCE
        while not true():
            assert not self.wrong, self.wrong
            assert time.monotonic() < due, f"it did not come true; {self.report()}"
            await anyio.sleep(0.001)
        assert not self.wrong, self.wrong

    async def serves_again(self) -> None:
        """Wait until one more caller has got its reply."""
        served = self._served()
        await self.until(lambda: self._served() > served)

    def _served(self) -> int:
        return sum(call.replied for call in self.calls)

    async def pause(self, most: float) -> None:
        """A moment, by chance: where a scenario is to be at no particular point."""
        await anyio.sleep(self.rng.uniform(0, most))

    # -- the server ----------------------------------------------------------------------------

    async def stop_server(self) -> None:
        """End the server."""
        self._restarted = self._down = True
        await self._in_thread(self.rig.server.stop)

    async def start_server(self) -> None:
        """Start it again."""
        await self._in_thread(self.rig.server.start)
        self._down = False
        self.proxy.upstream = self.rig.server.address

    async def counts(self, calls: list[Asked]) -> list[int | None]:
        """How often the server did each."""
        return await self._in_thread(  # type: ignore[no-any-return]
            lambda: [self.rig.carried_out(call.number) for call in calls]
        )

    async def carried_out(self, calls: list[Asked]) -> None:
        """Wait until the server has done all of these, or, as far as can be told, some."""
        due = time.monotonic() + PATIENCE
        while not all(counts := await self.counts(calls)):
            if counts[0] is None and self.proxy.held:
                return
            assert time.monotonic() < due, f"{counts} of {calls} were carried out"
            await anyio.sleep(0.002)

    # -- the books -----------------------------------------------------------------------------

    async def fill(self) -> list[Asked]:
        """Have every place of the pool in use at once, by calls whose replies are held back.

        Dead conns that nobody has noticed yet are found on the way, and cost somebody an error;
        then it begins anew.
        """
        while (calls := await self._try_to_fill()) is None:
            pass
        return calls

    async def _try_to_fill(self) -> list[Asked] | None:
        self.proxy.heal()
        await self.until(self._calm)
        places = sum(info.capacity for info in self.pool.infos(self.rig.name))
        moved = self.so_far.moved
        self.proxy.stall_after(0)
        calls = [self.start() for _ in range(places)]

        def disturbed() -> bool:
            return self.so_far.moved > moved or any(call.over for call in calls)

        await self.until(lambda: self.now.in_use == places or disturbed())
        if not disturbed():
            return calls
        self.proxy.heal()
        await self.ended(*calls)
        return None

    def _calm(self) -> bool:
        now = self.now
        busy = now.in_use + now.waiting + now.opening + now.draining
        return now.ready == self.size and not busy

    async def use_all(self) -> None:
        """Every place can be had, all at once, and replies."""
        for _ in range(2 * self.size + 3):  # each conn may have died without a word
            calls = await self.fill()
            self.proxy.heal()
            await self.ended(*calls)
            if all(call.replied for call in calls):
                return
        raise AssertionError(f"not all places of the pool can be had; {self.report()}")

    async def settle(self) -> None:
        """When the scenario is over: nothing is lost, nothing is left, nothing was done twice."""
        self.proxy.heal()
        self.timeout = PATIENCE
        await self.ended(*self.calls)
        await self.use_all()
        await self.until(self._calm)
        await self.until(lambda: self._connects - self._disconnects == self.now.conns)
        assert self.now.conns == len(self.pool) == self.size, self.report()
        await self._do(self.pool.close)
        await self.until(lambda: self._connects == self._disconnects)
        assert not len(self.pool), self.report()
        await self._stack.aclose()
        # A server may take its time: what counts is that no conn has left its connection open.
        await self.until(lambda: self.proxy.connections == self.proxy.hung_up)
        for call, count in zip(self.calls, await self.counts(self.calls), strict=True):
            assert count is None or count <= 1, f"{call} was carried out {count} times"
            if call.replied and not self._restarted:
                assert count != 0, f"{call} was never carried out"

    async def abandon(self) -> None:
        """The scenario has failed: end what it left, and leave the server as it was."""
        with anyio.CancelScope(shield=True):
            self.proxy.close()
            if hasattr(self, "pool"):
                await self._do(self.pool.close, 0)
            if self._down:
                await self.start_server()
        await self._stack.aclose()
