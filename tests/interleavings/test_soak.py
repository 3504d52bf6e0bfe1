"""The real drivers, everything at once, for a while: nothing leaks, whatever happens beside them.

A second each by default; minutes on demand, see the package.  At quiet points on the way everybody
rests, some with a conn in their hands, and the books must balance: what was opened and is not
closed is what is ready, and in use is what somebody holds.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Backoff, Busy, CallError, Closed, Pool, PoolError, Reply

from ..cancellation.loops import on_both
from ..drivers import Crowd, eventually

SECONDS = float(os.environ.get("CONNPOOL_SOAK", "0")) * 60 or 1.0
POINTS = max(3, int(SECONDS))  # at which everybody rests
LONG = pytest.mark.timeout(120 + 4 * SECONDS)
FAST = Backoff(first=0.001, factor=1.5, most=0.02)
EXPECTED = (PoolError, OSError, CallError, Busy, Closed, ValueError)

pytestmark = [LONG, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """What goes wrong here was meant to."""
    logger = logging.getLogger("connpool")
    told = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(told)


class Mint:
    """Makes conns, and counts what is open: made, opened and closed."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.open: set[Conn] = set()
        self.wrongs: list[str] = []
        self.calm = False

    def change(self, conn: Conn, opens: bool) -> None:
        with self.guard:
            if (conn in self.open) is opens:
                self.wrongs.append("opened twice" if opens else "closed twice")
            (self.open.add if opens else self.open.discard)(conn)


class Conn:
    """Fails by chance; in turn open and closed."""

    def __init__(self, mint: Mint, resource: str, capacity: int = 1) -> None:
        self.mint = mint
        self.resource = resource
        self.capacity = capacity

    def init(self) -> None:
        if not self.mint.calm and random.random() < 0.1:
            raise OSError("refused")
        self.mint.change(self, True)

    def methods(self) -> list[str]:
        return ["say"]

    def call(self, method: str, payload: Any = None) -> Any:
        dice = 1.0 if self.mint.calm else random.random()
        if dice < 0.001:
            raise SystemExit
        if dice < 0.03:
            raise random.choice([Closed(), Busy(), Busy(0.001), OSError(), ValueError()])
        if dice < 0.04:
            return Reply(payload, cooldown=0.001, closed=dice < 0.035)
        return payload

    def check(self) -> bool:
        return self.mint.calm or random.random() > 0.05

    def close(self) -> None:
        self.mint.change(self, False)


class AsyncConn(Conn):
    """The same for tasks."""

    async def init(self) -> None:  # type: ignore[override]
        await anyio.sleep(0)
        super().init()

    async def methods(self) -> list[str]:  # type: ignore[override]
        return ["say"]

    async def call(self, method: str, payload: Any = None) -> Any:
        await anyio.sleep(0)
        try:
            return super().call(method, payload)
        except SystemExit:
            raise ValueError from None

    async def check(self) -> bool:  # type: ignore[override]
        return super().check()

    async def close(self) -> None:  # type: ignore[override]
        super().close()


def settled(pool: Pool | AsyncPool, mint: Mint) -> bool:
    """Whether nothing goes on: what is open is what is ready."""
    now = pool.stats().now
    at_rest = not (now.waiting or now.draining or now.opening or now.reviving or now.cooling)
    return at_rest and now.in_use == 0 and now.ready == now.conns == len(mint.open)


def balances(pool: Pool | AsyncPool, mint: Mint, held: int) -> bool:
    """Whether the books balance while some hold conns, and those of a supply come and go.

    One that dies under who shares it is closed at once, and made anew when he has gone.
    """
    now = pool.stats().now
    dead = sum(info.state == "reviving" and info.in_use > 0 for info in pool.infos())
    moves = now.waiting or now.draining or now.opening or now.reviving - dead
    return not moves and now.in_use == held and now.conns == len(mint.open)


# -- threads -------------------------------------------------------------------------------------


class Soak:
    """8 threads at one pool, until the time is over."""

    def __init__(self) -> None:
        self.mint = Mint()
        self.pool = Pool(name="soak", backoff=FAST, timeout=1, check_after=0.001)
        begin = time.monotonic()
        self.points = [begin + SECONDS * (lap + 1) / POINTS for lap in range(POINTS)]
        self.resting = threading.Barrier(8, action=self.balance)
        self.held = 0
        self.mint.calm = True
        for number in range(4):
            conn = Conn(self.mint, "line", 1 + number % 3)
            self.pool.init(conn, revive="force", ttl=0.05 if number % 2 else None)
        self.pool.supply(
            "made", lambda: Conn(self.mint, "made"), min_size=1, max_size=4, max_idle=0.02,
            ttl=0.05, ping_interval=0.01,
        )  # fmt: skip
        self.mint.calm = False

    def going(self) -> bool:
        return time.monotonic() < self.points[-1]

    def rest(self, number: int) -> None:
        """All meet here; some hold a conn meanwhile, whole or shared."""
        with ExitStack() as stack:
            if number % 3 == 0:
                lease = self.pool.checkout("line", shared=number > 3, timeout=0.5)
                with suppress(*EXPECTED):
                    stack.enter_context(lease)
                    self.pool.update("line", filter=lambda i: i.id == lease.id, ttl=None)
                    held = lease.info
                    if held.state != "ready":
                        stack.close()  # it has expired by now, and is out of service
                    else:
                        with self.mint.guard:
                            self.held += 1 if number > 3 else held.in_use
            self.resting.wait(60)

    def balance(self) -> None:
        """What the last one who comes sees to."""
        self.mint.calm = True
        self.pool.update("line", ttl=None)
        gc.collect()
        eventually(lambda: balances(self.pool, self.mint, self.held))
        assert not self.mint.wrongs, self.mint.wrongs
        self.held, self.mint.calm = 0, False
        self.pool.update("line", filter=lambda info: info.id % 2, ttl=0.05)

    def work(self, number: int) -> int:
        chance, answered = random.Random(number), 0
        acts = [self.call, self.hold, self.share, self.lose, self.take_out, self.change]
        for point in self.points:
            while time.monotonic() < point:
                act = chance.choices(acts, [80, 8, 6, 1, 1, 2])[0]
                try:
                    act(chance)
                    answered += 1
                except (*EXPECTED, SystemExit):
                    pass
            self.rest(number)
        return answered

    def call(self, chance: random.Random) -> None:
        asked = object()
        resource = chance.choice(["line", "made"])
        answered = self.pool.call(resource, "say", asked, timeout=chance.choice([0, 0.001, 0.5]))
        assert answered is asked

    def hold(self, chance: random.Random) -> None:
        with self.pool.checkout(chance.choice(["line", "made"]), timeout=0.1) as conn:
            conn.call("say")

    def share(self, chance: random.Random) -> None:
        with self.pool.checkout("line", shared=True, timeout=0.1) as conn:
            conn.call("say")

    def lose(self, chance: random.Random) -> None:
        """A checkout that only the garbage collector finds, wherever it runs."""
        lease: Any = self.pool.checkout(chance.choice(["line", "made"]), timeout=0.1)
        lease.__enter__()
        ring: list[Any] = [lease]
        ring.append(ring)

    def take_out(self, chance: random.Random) -> None:
        infos = self.pool.infos("line")
        if infos:
            conn = self.pool.pop(chance.choice(infos).id, timeout=0.01)
            if conn not in self.mint.open:
                self.mint.change(conn, True)  # it was being revived
            self.pool.put(conn, revive="force", ttl=0.1)

    def change(self, chance: random.Random) -> None:
        self.pool.resize("made", 0, chance.choice([1, 2, 4]))
        self.pool.route("line")
        self.pool.report()

    def quiet(self) -> None:
        """Nothing has leaked; every place can be had; then the pool closes."""
        self.mint.calm = True
        self.pool.update("line", ttl=None)
        gc.collect()
        self.pool._look()
        self.pool.withdraw("made")
        eventually(lambda: settled(self.pool, self.mint))
        infos = self.pool.infos("line")
        leases = [
            self.pool.checkout("line", shared=True, timeout=0)
            for info in infos
            for _ in range(info.capacity)
        ]
        for lease in leases:
            lease.__enter__()
        assert self.pool.stats().now.in_use == len(leases) > 0
        for lease in leases:
            lease.__exit__(None, None, None)
        self.pool.close()
        assert not self.mint.open
        assert not self.mint.wrongs


def soak(beside: Callable[[Soak], Any] = lambda soak: None) -> None:
    """Have 8 threads at it, and one that does something beside them."""
    story = Soak()
    ends = Crowd(9, lambda number: story.work(number) if number else beside(story))
    limit = time.monotonic() + SECONDS + 60
    for thread in ends._threads:
        thread.join(max(0.0, limit - time.monotonic()))
    results = ends.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert min(results[1:]) > 0
    story.quiet()


def test_threads() -> None:
    """Calls, checkouts, pops and sizes, with conns that fail."""
    soak()


def test_threads_while_garbage_is_collected() -> None:
    """All the time, in any thread, so that lost checkouts are found while the lock is held."""

    def collect(story: Soak) -> None:
        while story.going():
            gc.collect(0)
            time.sleep(0.0005)

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    gc.collect()
    gc.freeze()
    try:
        soak(collect)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_threads_while_the_process_forks() -> None:
    """Each child finds its pool free and working; the parent notices nothing."""

    def child(story: Soak) -> int:
        story.mint = Mint()
        story.mint.calm = True
        story.pool.init(Conn(story.mint, "child"))
        return 0 if story.pool.call("child", "say", 42) == 42 else 1

    def fork(story: Soak) -> None:
        while story.going():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
                pid = os.fork()
            if not pid:
                status = 1
                try:
                    status = child(story)
                finally:
                    os._exit(status)
            due = time.monotonic() + 30
            while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
                assert time.monotonic() < due, "a child hangs"
                time.sleep(0.001)
            assert ended[1] == 0
            time.sleep(0.02)

    soak(fork)


# -- tasks ---------------------------------------------------------------------------------------


class AsyncSoak:
    """1,000 tasks at one pool, until the time is over; many of them are cancelled."""

    def __init__(self) -> None:
        self.mint = Mint()
        self.pool = AsyncPool(name="soak", backoff=FAST, timeout=5, check_after=0.001)
        self.points: list[float] = []
        self.resting = self.held = 0
        self.goes_on = anyio.Event()

    async def run(self) -> None:
        begin = anyio.current_time()
        self.points = [begin + SECONDS * (lap + 1) / POINTS for lap in range(POINTS)]
        async with self.pool:
            self.mint.calm = True
            for number in range(4):
                conn = AsyncConn(self.mint, "line", 1 + number % 3)
                await self.pool.init(conn, revive="force", ttl=0.05 if number % 2 else None)
            await self.pool.supply(
                "made", lambda: AsyncConn(self.mint, "made"), min_size=1, max_size=4,
                max_idle=0.02, ttl=0.05, ping_interval=0.01,
            )  # fmt: skip
            self.mint.calm = False
            async with anyio.create_task_group() as group:
                for number in range(1000):
                    group.start_soon(self.work, number)
            await self.quiet()
        assert not self.mint.open
        assert not self.mint.wrongs

    async def work(self, number: int) -> None:
        chance = random.Random(number)
        for point in self.points:
            while anyio.current_time() < point:
                with anyio.move_on_after(chance.choice([0.001, 0.01, 1.0])):
                    try:
                        await self.act(chance)
                    except EXPECTED:
                        await anyio.sleep(0)
            await self.rest(number)

    async def rest(self, number: int) -> None:
        """All meet here; some hold a place meanwhile."""
        async with AsyncExitStack() as stack:
            if number % 333 == 0:
                lease = self.pool.checkout("line", shared=True, timeout=0.5)
                with suppress(*EXPECTED):
                    await stack.enter_async_context(lease)
                    await self.pool.update("line", filter=lambda i: i.id == lease.id, ttl=None)
                    if lease.info.state != "ready":
                        await stack.aclose()  # it has expired by now, and is out of service
                    else:
                        self.held += 1
            self.resting += 1
            if self.resting < 1000:
                await self.goes_on.wait()
            else:
                await self.balance()

    async def balance(self) -> None:
        """What the last one who comes sees to."""
        self.mint.calm = True
        await self.pool.update("line", ttl=None)
        gc.collect()
        with anyio.fail_after(30):
            while not balances(self.pool, self.mint, self.held):
                await anyio.sleep(0.001)
        assert not self.mint.wrongs, self.mint.wrongs
        self.resting = self.held = 0
        self.mint.calm = False
        await self.pool.update("line", filter=lambda info: info.id % 2, ttl=0.05)
        self.goes_on.set()
        self.goes_on = anyio.Event()

    async def act(self, chance: random.Random) -> None:
        dice, resource = chance.random(), chance.choice(["line", "made"])
        if dice < 0.8:
            asked = object()
            assert await self.pool.call(resource, "say", asked) is asked
        elif dice < 0.97:
            async with self.pool.checkout(resource, shared=dice < 0.9) as conn:
                await conn.call("say")
        elif dice < 0.98:
            self.pool.resize("made", 0, chance.choice([1, 2, 4]))
            self.pool.route("line")
        elif dice < 0.99:
            lease: Any = self.pool.checkout(resource)
            await lease.__aenter__()
        elif infos := self.pool.infos("line"):
            await self.take_out(chance.choice(infos).id)

    async def take_out(self, id: int) -> None:
        conn = await self.pool.pop(id, timeout=0.01)
        with anyio.CancelScope(shield=True):  # or it would be lost on the way
            if conn not in self.mint.open:
                self.mint.change(conn, True)  # it was being revived
            await self.pool.put(conn, revive="force", ttl=0.1)

    async def quiet(self) -> None:
        """Nothing has leaked."""
        self.mint.calm = True
        await self.pool.update("line", ttl=None)
        gc.collect()
        self.pool._look()
        self.pool.withdraw("made")
        with anyio.fail_after(30):
            while not settled(self.pool, self.mint):
                await anyio.sleep(0.01)


@on_both
def test_tasks(backend: str) -> None:
    """Calls, checkouts, pops and sizes, with conns that fail and users that are cancelled."""
    anyio.run(AsyncSoak().run, backend=backend)
