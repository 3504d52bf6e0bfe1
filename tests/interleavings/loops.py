"""Both event loops under invented time, with what is ready run in an order that a seed shuffles.

What may not be relied on, that tasks run in the order in which they became ready, is not given.
`trio` does so by itself; here asyncio does as well.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import trio
import trio.testing

from connpool import AsyncPool
from connpool.core import Standing

from ..cancellation.loops import NEVER, JumpingLoop, LoopClock, living_tasks, seed_trio, steps
from ..core.audit import audit


class Watch:
    """Recounts the core of a pool between the steps of tasks, now and then."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.pool: AsyncPool | None = None
        self.error: BaseException | None = None

    def step(self) -> None:
        """Before a task goes on."""
        if self._chance.random() < 0.1:
            self._see(self._recount)

    def rest(self) -> None:
        """When nobody can go on."""
        self._see(self._oversleeps)

    def _see(self, true: Callable[[AsyncPool], None]) -> None:
        if self.pool is not None and self.error is None:
            try:
                true(self.pool)
            except BaseException as error:
                self.error = error  # raised where the story ends: here a loop would swallow it

    @staticmethod
    def _recount(pool: AsyncPool) -> None:
        audit(pool._core, anyio.current_time())

    @staticmethod
    def _oversleeps(pool: AsyncPool) -> None:
        for task in asyncio.all_tasks():
            coro: Any = task.get_coro()
            ticket: Any = None
            while coro is not None:
                if getattr(coro, "cr_code", None) is AsyncPool._obtain.__code__:
                    ticket = coro.cr_frame.f_locals["ticket"]  # the last is what it waits for now
                coro = getattr(coro, "cr_await", None)
            if ticket is not None:
                assert ticket.standing is Standing.QUEUED, (
                    f"{task} was not woken: {ticket.standing}"
                )


class Shuffled(deque[Any]):
    """What is ready to run: anything may be next."""

    def __init__(self, chance: random.Random, watch: Watch) -> None:
        super().__init__()
        self._chance = chance
        self._watch = watch

    def popleft(self) -> Any:
        self._watch.step()
        self.rotate(self._chance.randrange(len(self)))
        return super().popleft()


class ShuffledLoop(JumpingLoop):
    """An asyncio loop with a time and an order of its own."""

    def __init__(self, chance: random.Random, watch: Watch) -> None:
        super().__init__()
        self._ready: Any = Shuffled(chance, watch)
        self._watch = watch

    def _run_once(self) -> None:
        if not self._ready:
            self._watch.rest()
        super()._run_once()  # type: ignore[misc]


class _Instrument(trio.abc.Instrument):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._watch.step()


def run(backend: str, story: Callable[[Watch], Coroutine[Any, Any, Any]], seed: int) -> None:
    """Run a story from beginning to end, and see that no task outlives it."""
    chance = random.Random(f"order {seed}")
    watch = Watch(random.Random(seed))

    async def main() -> None:
        before = living_tasks()
        with anyio.fail_after(NEVER):
            await story(watch)
        watch.pool = None
        await steps(5)  # tasks that have ended leave the lists a few steps later
        assert living_tasks() == before, "a task was left behind"

    options: dict[str, Any]
    if backend == "trio":
        seed_trio(seed)
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(1000.0)
        read = clock.current_time
        options = {"clock": clock, "instruments": [_Instrument(watch)]}
    else:
        loop = ShuffledLoop(chance, watch)
        read, options = loop.time, {"loop_factory": lambda: loop}
    with LoopClock(read):
        try:
            anyio.run(main, backend=backend, backend_options=options)
        finally:
            if watch.error is not None:
                raise watch.error
