"""Every way in which a task can be cancelled, at a moment that is chosen to the step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from .loops import BACKENDS, now, steps

Doing = Callable[[], Awaitable[Any]]

CUT = "cut"  # what came of it where it was cancelled


class Boom(Exception):
    """What a sibling fails with."""


class Moment:
    """An instant, and so many steps of the loop after it."""

    def __init__(self, group: anyio.abc.TaskGroup, at: float, lag: int) -> None:
        self.group = group
        self.at = at
        self.lag = lag

    async def come(self) -> None:
        """Wait for it."""
        if self.at > now():
            await anyio.sleep_until(self.at)
        await steps(self.lag)

    def then(self, act: Callable[[], Any]) -> None:
        """Do something at this moment, in a task of its own."""

        async def wait_and_act() -> None:
            await self.come()
            act()

        self.group.start_soon(wait_and_act)


async def by_scope(doing: Doing, moment: Moment) -> Any:
    """By scope.cancel()."""
    with anyio.CancelScope() as scope:
        moment.then(scope.cancel)
        return await doing()
    return CUT


async def by_deadline(doing: Doing, moment: Moment) -> Any:
    """By a deadline: at the instant itself."""
    try:
        with anyio.fail_after(moment.at - now()):
            return await doing()
    except TimeoutError as error:
        return _cut(error)


async def by_sibling(doing: Doing, moment: Moment) -> Any:
    """By the failure of another task of the group."""

    async def fail() -> None:
        await moment.come()
        raise Boom

    result: Any = CUT
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            result = await doing()
    except BaseExceptionGroup as errors:
        others = errors.split(Boom)[1]
        if others is not None:
            raise others.exceptions[0] from None
    return result


async def by_task(doing: Doing, moment: Moment) -> Any:
    """By task.cancel()."""
    task = asyncio.ensure_future(doing())
    told: list[bool] = []
    moment.then(lambda: told.append(task.cancel()))
    try:
        result = await task
    except asyncio.CancelledError:
        result = CUT
    await moment.come()
    await steps(1)
    assert told == [task.cancelled()], "it swallowed its cancellation"
    return result


async def by_wait_for(doing: Doing, moment: Moment) -> Any:
    """By asyncio.wait_for: at the instant itself."""
    try:
        return await asyncio.wait_for(doing(), moment.at - now())
    except TimeoutError as error:
        return _cut(error)


async def by_timeout(doing: Doing, moment: Moment) -> Any:
    """By asyncio.timeout: at the instant itself."""
    try:
        async with asyncio.timeout(moment.at - now()):
            return await doing()
    except TimeoutError as error:
        return _cut(error)


def _cut(error: TimeoutError) -> str:
    if type(error) is not TimeoutError:  # the pool's own
        raise error
    return CUT


Way = Callable[[Doing, Moment], Awaitable[Any]]

GENERAL: tuple[Way, ...] = (by_scope, by_deadline, by_sibling)
NATIVE: tuple[Way, ...] = (by_task, by_wait_for, by_timeout)
WAYS = [
    (backend, way)
    for backend in BACKENDS
    for way in (GENERAL if backend == "trio" else GENERAL + NATIVE)
]
NAMES = [f"{backend}-{way.__name__}" for backend, way in WAYS]
