"""A story for tasks: what may happen to a pool, by chance; then it must be whole."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.abc

from connpool import AsyncPool, Backoff, PoolError, PoolTimeout, ResourceError

from ..cancellation.loops import on_asyncio, steps
from .async_conns import AsyncChecked, AsyncLent, AsyncLine, World
from .loops import Watch
from .story import BY, EXPECTED, LIMITS, Gone

Act = Callable[[], Awaitable[Any]]


class AsyncStory:
    """One pool, its conns and its users."""

    def __init__(self, seed: int, watch: Watch) -> None:
        self.chance = random.Random(f"story {seed}")
        self.watch = watch
        self.world = World(self.chance)
        self.closes = self.chance.random() < 0.2
        self.supplied = self.chance.random() < 0.5
        self.payloads = 0
        self.told: dict[int, int] = {}
        self.heirs = 0
        self.group: anyio.abc.TaskGroup
        self.pool = AsyncPool(
            name="story",
            timeout=20,
            max_connecting=self.chance.choice([1, 2]),
            max_size=self.chance.choice([None, None, 4]),
            check_after=self.chance.choice([0.0, 0.02, 0.5]),
            connect_timeout=self.chance.choice([0.1, 10]),
            backoff=Backoff(first=0.01, factor=1.5, jitter=0.2, most=0.1),
            on_connect=lambda info: self.tally(info.id, 1),
            on_disconnect=self.gone,
        )
        self.acts: list[tuple[float, Act]] = [
            (8, self.call),
            (3, self.exclusive),
            (3, self.shared),
            (1, self.nested),
            (1, self.again),
            (1, self.lose),
            (1, self.hand_on),
            (1, self.pop),
            (0.3, self.pop_all),
            (1, self.add),
            (4, self.ask),
            (0.5, self.wait_ready),
            (1, self.sweep),
            (0.2, self.withdraw),
            (2 * self.closes, self.close),
        ]

    # -- beginning and end -----------------------------------------------------------------------

    async def tell(self) -> None:
        """From the first conn to the last check."""
        async with self.pool, anyio.create_task_group() as self.group:
            self.pool._core._rng = self.chance.random
            self.watch.pool = self.pool
            self.world.calm = True
            for _ in range(self.chance.choice([1, 1, 2, 3])):
                await self.add()
            if self.supplied:
                await self.supply()
            self.world.calm = False
            async with anyio.create_task_group() as users:
                for _ in range(self.chance.randint(2, 6)):
                    users.start_soon(self.live)
            while self.heirs:
                await anyio.sleep(0.13)
            self.world.calm = True
            if not self.pool._core.closed:
                with anyio.fail_after(1000):
                    await self.payoff()
        for book in self.world.books:
            book.end()
        assert not self.world.wrongs, self.world.wrongs
        repeated = [payload for payload, times in self.world.done.items() if times > 1]
        assert not repeated, f"calls that happened twice: {repeated}"
        assert all(count <= 0 for count in self.told.values()), self.told

    async def live(self) -> None:
        """Do a few things; some of them are cancelled."""
        ways = [self.in_peace, self.in_peace, self.by_scope, self.by_deadline]
        if on_asyncio():
            ways.append(self.by_task)
        acts, weights = [act for _, act in self.acts], [weight for weight, _ in self.acts]
        for _ in range(self.chance.randint(2, 8)):
            act = self.chance.choices(acts, weights)[0]
            try:
                await self.chance.choice(ways)(act)
            except Gone:
                return
            except EXPECTED:
                await steps(1)
            if act == self.lose:
                gc.collect()  # one that had moved before it was lost lies in a cycle

    async def payoff(self) -> None:
        """Everything the pool has can be had at the same time."""
        for book in self.world.books:
            if book.popped:
                book.popped = False
                book.closing()
        await self.pool.update("line", ttl=None)
        if self.supplied:
            self.pool.resize("made", max_size=3)
        self.pool._look()  # as if somebody waited: an error may keep alive what was lost
        await anyio.sleep(1)
        while not self.at_rest():
            await self.pool.sweep()
            await anyio.sleep(0.13)
            gc.collect()
        places = sum(info.capacity for info in self.pool.infos("line"))
        async with AsyncExitStack() as held:
            for _ in range(places):
                await held.enter_async_context(self.pool.checkout("line", shared=True, timeout=0))
            assert await self.fails("line")
            if self.supplied and self.pool._options.max_size is None:
                for _ in range(3):
                    await held.enter_async_context(self.pool.checkout("made", timeout=60))
                assert await self.fails("made")
        while not self.at_rest():
            await anyio.sleep(0.13)

    def at_rest(self) -> bool:
        """Whether nobody uses the pool or waits, and every conn is ready.  Those of a supply may
        come and go."""
        seen = self.pool.stats().now
        states = {info.state for info in self.pool.infos("line")}
        return states <= {"ready"} and not (seen.in_use or seen.waiting)

    async def fails(self, resource: str) -> bool:
        """Whether there is nothing to be had."""
        try:
            await self.pool.call(resource, "say", 0, timeout=0)
        except (PoolTimeout, ResourceError):
            return True
        return False

    def tally(self, id: int, change: int) -> None:
        self.told[id] = self.told.get(id, 0) + change

    def gone(self, info: Any, reason: str) -> None:
        if reason != "popped" or info.conn.is_open:
            self.tally(info.id, -1)

    # -- ways to be cancelled --------------------------------------------------------------------

    async def in_peace(self, act: Act) -> None:
        await act()

    async def by_scope(self, act: Act) -> None:
        with anyio.CancelScope() as scope:
            self.group.start_soon(self.later, scope.cancel, self.chance.randint(0, 15))
            await act()

    async def by_deadline(self, act: Act) -> None:
        with anyio.move_on_after(self.chance.choice([0, 0.001, 0.02, 0.3])):
            await act()

    async def by_task(self, act: Act) -> None:
        task = asyncio.ensure_future(act())
        self.group.start_soon(self.later, task.cancel, self.chance.randint(1, 15))
        try:
            await task
        except asyncio.CancelledError:
            assert task.cancelled()

    @staticmethod
    async def later(act: Callable[[], Any], count: int) -> None:
        """Wherever everybody is so many steps from now."""
        await steps(count)
        act()

    # -- what users do ---------------------------------------------------------------------------

    def asked(self) -> dict[str, Any]:
        """What somebody asks for."""
        wishes: dict[str, Any] = {"timeout": self.chance.choice(LIMITS)}
        if self.pool._options.max_size is not None:
            wishes["timeout"] = wishes["timeout"] or 5.0  # there may be no room for what is made
        if self.chance.random() < 0.2:
            wishes["filter"] = self.passes
        if self.chance.random() < 0.3:
            wishes["by"] = self.chance.choice(BY)
        return wishes

    def passes(self, info: Any) -> bool:
        return bool(info.extra != 1)

    def payload(self) -> int:
        self.payloads += 1
        return self.payloads

    def resource(self) -> str:
        return self.chance.choice(["line", "made"] if self.supplied else ["line"])

    async def call(self) -> None:
        asked = self.payload()
        answered = await self.pool.call(self.resource(), "say", asked, **self.asked())
        if answered != asked or self.world.done[asked] != 1:
            self.world.wrong(f"{asked} was answered {answered}, {self.world.done[asked]} times")

    async def exclusive(self) -> None:
        async with self.pool.checkout(self.resource(), **self.asked()) as conn:
            await self.use(conn, whole=True)

    async def shared(self) -> None:
        async with self.pool.checkout(self.resource(), shared=True, **self.asked()) as conn:
            await self.use(conn, whole=False)

    async def use(self, conn: AsyncLine, *, whole: bool) -> None:
        """The body of a block."""
        conn.enter(whole or None)
        try:
            await self.world.linger()
            conn.fail_before()
            conn.fail_after()
        finally:
            conn.leave()

    async def nested(self) -> None:
        async with self.pool.checkout(self.resource(), shared=True, **self.asked()):
            asked = self.asked() | {"timeout": 0.05}  # two such users may wait for each other
            await self.pool.call(self.resource(), "ask", self.payload(), **asked)

    async def again(self) -> None:
        """Somebody who holds a conn for himself asks for another, which may be the same."""
        async with self.pool.checkout(self.resource(), **self.asked()):
            asked = self.asked() | {"timeout": 0.05}
            async with self.pool.checkout(self.resource(), **asked) as conn:
                await self.use(conn, whole=True)

    async def begun(self, *, shared: bool) -> Any:
        """A checkout that is begun by hand."""
        lease: Any = self.pool.checkout(self.resource(), shared=shared, **self.asked())
        await lease.__aenter__()
        return lease

    async def lose(self) -> None:
        """A checkout that nobody ends: it is dropped, or its task dies and leaves it in a ring,
        which is looked for where it is known that the task is gone."""
        ring: list[Any] = [await self.begun(shared=self.chance.random() < 0.4)]
        if self.chance.random() < 0.6:
            ring.append(ring)
            raise Gone

    async def hand_on(self) -> None:
        """A checkout that another task ends, when this one is perhaps long gone."""
        shared = self.chance.random() < 0.4
        lease = await self.begun(shared=shared)
        self.heirs += 1
        self.group.start_soon(self.inherit, lease, shared)
        if self.chance.random() < 0.6:
            raise Gone

    async def inherit(self, lease: Any, shared: bool) -> None:
        """Use what another one has checked out."""
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_exit(lease)
                await self.world.linger()
                await self.use(lease.conn, whole=not shared)
        except EXPECTED:
            await steps(1)
        finally:
            self.heirs -= 1

    async def pop(self) -> None:
        infos = self.pool.infos("line")
        if infos:
            id, timeout = self.chance.choice(infos).id, self.chance.choice([0, 0.001, 1.0])
            await self.have(await self.pool.pop(id, timeout=timeout))

    async def pop_all(self) -> None:
        conns = await self.pool.pop_all("line")
        for conn in conns:
            conn.popped = conn.is_open  # or a cancelled put would leave the others to nobody
        for conn in conns:
            await self.have(conn)

    async def have(self, conn: AsyncLine) -> None:
        """A conn was handed over."""
        conn.hand_over()
        if not conn.is_open:
            return  # it was being revived
        conn.popped = False
        try:
            await self.pool.put(conn, revive=self.chance.choice([True, "force"]))
        except BaseException:
            conn.popped = True
            raise

    async def add(self) -> None:
        kind = self.chance.choice([AsyncLine, AsyncLine, AsyncChecked, AsyncLent])
        conn = kind(self.world, "line", self.chance.choice([1, 1, 2, 3]))
        await self.pool.init(
            conn,
            revive=self.chance.choice([False, True, True, "force"]),
            ttl=self.chance.choice([None, None, 0.05, 1.0]),
        )

    async def supply(self) -> None:
        kind = self.chance.choice([AsyncLine, AsyncChecked, AsyncLent])
        await self.pool.supply(
            "made",
            lambda: kind(self.world, "made"),
            min_size=self.chance.choice([0, 1]),
            max_size=self.chance.choice([1, 2, 3]),
            max_idle=self.chance.choice([0.05, 600]),
            ttl=self.chance.choice([None, 0.3]),
            revive=self.chance.choice([False, True]),
            connect_timeout=self.chance.choice([0.01, 10.0]),
            ping_interval=self.chance.choice([None, 0.02]),
        )

    async def withdraw(self) -> None:
        if self.supplied:
            self.pool.withdraw("made")
            await self.supply()

    async def ask(self) -> None:
        """Something that never waits."""
        dice = self.chance.randrange(6)
        if dice == 0:
            self.pool.resize("made", self.chance.choice([0, 1]), self.chance.choice([1, 2, 3]))
        elif dice == 1:
            self.pool.drain(self.resource())
        elif dice == 2:
            self.pool.route(self.resource(), method="say", by=self.chance.choice(BY))
        elif dice == 3:
            for info in self.pool.infos(self.resource()):
                self.pool.extra(info.id, self.chance.choice([0, 1, 2]))
        elif dice == 4:
            book = self.chance.choice(self.world.books)
            if isinstance(book, AsyncLine) and book.on_lost is not None:
                book.on_lost(OSError("gone"))
        else:
            self.pool.report(trace=True)

    async def sweep(self) -> None:
        await self.pool.sweep()

    async def wait_ready(self) -> None:
        await self.pool.wait_ready(self.chance.choice([0, 0.05, 1.0]))

    async def close(self) -> None:
        await self.pool.close(self.chance.choice([0, 0.05, 1.0]))
        if not self.pool._core.closed:
            raise PoolError("it was to be closed")
