"""Cancelled at each step in turn, whatever the conn does meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import anyio
import pytest

from connpool import AsyncPool, Backoff

from .conns import Line, fail, hang, nothing, slow, whole
from .loops import Outcome, now, on_asyncio, on_both, run, start, steps

# How each act of a conn may go.
GOES: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {"ok": nothing, "error": fail(lambda: OSError("torn")), "slow": slow(3), "never": hang}
)
# The acts, as attributes of a Line.  Those that a checkout needs are for its own tests to add.
ACTS = ("on_init", "on_methods", "on_call", "on_close")
LONGEST = 12  # steps after which the victim has done all it wants, or hangs
TIMEOUT = 1.0  # for the pool to close
GRACE = 1.0  # what it takes for itself on top of that
CONNECT = 0.5


class Trial:
    """One conn that is used by a victim, beside one on which nothing goes wrong."""

    def __init__(self, goes: tuple[str, ...], warm: bool) -> None:
        self.warm = warm
        self.line = Line()
        self.goes = dict(zip(ACTS, goes, strict=True))
        self.other = Line("other")
        self.pool = AsyncPool(
            timeout=TIMEOUT, connect_timeout=CONNECT, backoff=Backoff(first=0.01, jitter=0)
        )

    async def set_out(self) -> None:
        """Add the other conn; where it is warm this one, before anything can go wrong, too."""
        await self.pool.init(self.other)
        if self.warm:
            await self.pool.init(self.line, revive=True)
        for act, how in self.goes.items():
            setattr(self.line, act, GOES[how])

    async def live(self) -> None:
        """What the victim does: everything twice, whatever it is told."""
        for _ in range(2):
            try:
                if self.line.opens == 0:
                    await self.pool.init(self.line, revive=True)
                await self.pool.call("line", "say", "victim")
            except Exception:
                await steps(1)

    def check(self) -> None:
        """Fail unless both conns were opened and closed alternately, and are closed now."""
        for line in (self.line, self.other):
            line.audit()
            assert not line.is_open


def cancel_after(count: int, native: bool) -> Any:
    """Start a coroutine in a task, and cancel it so many steps later."""

    async def act(group: anyio.abc.TaskGroup, doing: Callable[[], Any]) -> Outcome:
        if native:
            outcome = Outcome()
            cancel = asyncio.ensure_future(outcome.keep(doing)).cancel
        else:
            outcome = start(group, doing)
            cancel = outcome.scope.cancel  # type: ignore[assignment]
        await steps(max(count, native))  # before its first step it would not even begin
        cancel()
        await steps(1)
        await outcome.end(within=TIMEOUT)
        return outcome

    return act


def in_every_step(
    backend: str, story: Callable[[int, bool], Any], *, thorough: bool = False
) -> None:
    """Tell a story for each step; by task.cancel() at every second one, or at all of them too."""

    async def stories() -> None:
        for count in range(LONGEST):
            await story(count, on_asyncio() and count % 2 == 1)
            if on_asyncio() and thorough:
                await story(count, count % 2 == 0)

    run(backend, stories)


# Every combination of init and call; the tests themselves go through the others.
each_init = pytest.mark.parametrize("init", GOES)
each_call = pytest.mark.parametrize("call", GOES)
warm_or_not = pytest.mark.parametrize("warm", [True, False], ids=["warm", "connecting"])


@warm_or_not
@each_call
@each_init
@on_both
def test_every_place_is_there_again(backend: str, init: str, call: str, warm: bool) -> None:
    """When all goes well again the sizes are what they were, and every place can be had."""

    async def story(count: int, native: bool) -> None:
        for methods, close in itertools.product(GOES, GOES):
            if methods != "ok" and close != "ok":
                continue  # each of them with everything else, not with each other
            trial = Trial((init, methods, call, close), warm)
            async with trial.pool, anyio.create_task_group() as group:
                await trial.set_out()
                await cancel_after(count, native)(group, trial.live)
                trial.line.behave()
                size = len(trial.pool.infos("line"))
                assert size == 1 or (not warm and size == 0)
                await whole(trial.pool, size)
                await whole(trial.pool, 1, "other")
            trial.check()

    in_every_step(backend, story, thorough=warm)


@warm_or_not
@each_call
@each_init
@on_both
def test_the_block_can_be_left(backend: str, init: str, call: str, warm: bool) -> None:
    """When nothing goes well again leaving takes bounded time, and closes all that is open."""

    async def story(count: int, native: bool) -> None:
        for methods, close in [("never", "ok"), *(("ok", close) for close in GOES)]:
            trial = Trial((init, methods, call, close), warm)
            async with trial.pool, anyio.create_task_group() as group:
                await trial.set_out()
                await cancel_after(count, native)(group, trial.live)
                left = now()
            assert now() - left <= TIMEOUT + GRACE
            trial.check()

    in_every_step(backend, story)


@pytest.mark.parametrize("close", GOES)
@each_call
@each_init
@on_both
def test_the_body_can_be_cancelled(backend: str, init: str, call: str, close: str) -> None:
    """Where it is the body of the block that is cancelled, the same holds."""

    async def story(count: int, native: bool) -> None:
        trial = Trial((init, "ok", call, close), warm=True)

        async def body() -> None:
            async with trial.pool:
                await trial.set_out()
                await trial.live()
                await hang()

        async with anyio.create_task_group() as group:
            begun = now()
            outcome = await cancel_after(count + 5, native)(group, body)
            assert outcome.cancelled
            assert now() - begun <= TIMEOUT + GRACE
        trial.check()

    in_every_step(backend, story)
