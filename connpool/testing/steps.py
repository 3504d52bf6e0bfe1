"""The steps of a script: answers, errors, functions of a test's own, and hangs.

Owns what a step means.  Refuses to know whose script it stands in.

Invariant: who hangs is let go by `release`, and by nothing else that a step knows of.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs

# How long to wait, in real seconds, for what a test says must happen.  It only ends a hang.
PATIENCE = 30.0


class Hang:
    """A step that hangs until it is released.

    Parameters:
        then: the step that follows at once: what the call is to answer or raise.

    One that was released lets everybody pass; one that stands in several scripts holds all of them.

    >>> from connpool.testing import ScriptedConn
    >>> hang = Hang(then="at last")
    >>> conn = ScriptedConn("line", [hang])
    >>> hang.release()
    >>> conn.call("say")
    'at last'
    """

    def __init__(self, then: Any = None) -> None:
        self.then = then
        self.inside = 0
        self.released = False
        self._changed = threading.Condition()  # a reentrant lock
        self._events: list[Any] = []  # one for each task that is inside or waits in reached_async

    def release(self) -> None:
        """Let everybody pass who hangs here or comes later.

        Tasks hang in their loop: where a conn is a `ScriptedAsyncConn`, call this in that loop.
        """
        with self._changed:
            self.released = True
            self._notify()

    def reached(self) -> None:
        """Wait until somebody hangs here, or fail."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.inside, PATIENCE):
                raise AssertionError("nobody came to this hang")

    async def reached_async(self) -> None:
        """The same in a task."""
        with importlib.import_module("anyio").fail_after(PATIENCE):
            while not self.inside:
                await self._event_set()

    def _pass(self) -> None:
        with self._changed, self._inside():
            self._changed.wait_for(lambda: self.released)

    async def _pass_async(self) -> None:
        with self._inside():
            while not self.released:
                await self._event_set()

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        with self._changed:
            self.inside += 1
            self._notify()
        try:
            yield
        finally:
            with self._changed:
                self.inside -= 1

    def _notify(self) -> None:
        self._changed.notify_all()
        events, self._events = self._events, []
        for event in events:
            event.set()

    async def _event_set(self) -> None:
        event = importlib.import_module("anyio").Event()  # who tests threads need not have it
        self._events.append(event)
        await event.wait()


@attrs.frozen
class Do:
    """A step that is a function of your own.

    Parameters:
        function: called with what the conn was called with; what it gives, or awaiting that gives,
            is the step that follows.

    >>> from connpool.testing import ScriptedConn
    >>> ScriptedConn("line", [Do(lambda method, payload: payload.upper())]).call("say", "hello")
    'HELLO'
    """

    function: Callable[..., Any]


def perform(step: Any, *args: Any, **kwargs: Any) -> Any:
    """Do a step: give its answer, or raise its error."""
    while isinstance(step, (Hang, Do)):
        if isinstance(step, Do):
            step = step.function(*args, **kwargs)
        else:
            step._pass()
            step = step.then
    if isinstance(step, BaseException):
        raise step
    return step


async def perform_async(step: Any, *args: Any, **kwargs: Any) -> Any:
    """The same in a task."""
    while isinstance(step, (Hang, Do)):
        if isinstance(step, Do):
            step = step.function(*args, **kwargs)
            if inspect.isawaitable(step):
                step = await step
        else:
            await step._pass_async()
            step = step.then
    if isinstance(step, BaseException):
        raise step
    return step
