"""Scripted conns: they do what a list of steps says.

Owns `ScriptedConn` and `ScriptedAsyncConn`.  Refuses to know what is tested.

Invariant: steps are taken in order, each once; one that is missing is an AssertionError.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from .steps import perform, perform_async


class _Script:
    """What both scripted conns have: the scripts, and the memory."""

    def __init__(
        self,
        resource: Any,
        call: Iterable[Any] | None = None,
        *,
        init: Iterable[Any] | None = None,
        check: Iterable[Any] | None = None,
        lend: Iterable[Any] | None = None,
        reset: Iterable[Any] | None = None,
        close: Iterable[Any] | None = None,
        methods: Any = ("say",),
        capacity: Any = 1,
        survives_cancel: bool = False,
    ) -> None:
        self.resource = resource
        self.capacity = capacity
        self.survives_cancel = survives_cancel
        self.offers = methods
        self.inits: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.calls: list[tuple[Any, Any]] = []
        self.checks = self.lends = self.resets = self.closes = 0
        self.opened = self.running = self.most = 0
        self._guard = threading.Lock()
        steps = {
            "init": init,
            "call": call,
            "check": check,
            "lend": lend,
            "reset": reset,
            "close": close,
        }
        self._steps = {what: deque(s) for what, s in steps.items() if s is not None}
        self._unforeseen: list[str] = []
        # A pool looks whether a conn has these two: without a script it has not.
        if lend is not None:
            self.lend = self._lend
        if reset is not None:
            self.reset = self._reset

    def _lend(self) -> Any:
        raise NotImplementedError

    def _reset(self) -> Any:
        raise NotImplementedError

    def assert_drained(self) -> None:
        """Fail unless every step was taken, and nothing was asked that no step was there for."""
        left = [f"{len(steps)} of {what} left" for what, steps in self._steps.items() if steps]
        if wrong := ", ".join(left + self._unforeseen):
            raise AssertionError(f"the script of {self!r} was not followed: {wrong}")

    def _next(self, what: str, default: Any = None) -> Any:
        """The step that is next; where there is no script for this at all, the default."""
        with self._guard:
            steps = self._steps.get(what)
            if steps is None:
                return default
            if steps:
                return steps.popleft()
            self._unforeseen.append(f"of {what} missing")
        raise AssertionError(f"the script of {self!r} has no more steps of {what}")

    @contextlib.contextmanager
    def _counted(self, method: Any, payload: Any) -> Iterator[None]:
        with self._guard:
            self.calls.append((method, payload))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            yield
        finally:
            with self._guard:
                self.running -= 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.resource!r})"


class ScriptedConn(_Script):
    """A `Conn` that does what a list of steps says.

    Parameters:
        resource: what it talks to; a hashable, or a list or set of them.
        call, init, check, close: the steps of each, one for each time it is called.  Without any,
            call answers its payload, init and close do nothing, and check says that all is well.
        lend, reset: the same; without any, the conn has no such method.  What a step of lend
            answers is what the user of a checkout gets.
        methods: what its `methods` gives; the attribute `offers` changes it later.
        capacity, survives_cancel: see `connpool.Conn`.

    A step is an error, which is raised; a `Hang`; a `Do`; or anything else, which is answered: a
    `Reply` says that the conn is to rest or is closed in good order, a number from init is its
    first rest.  `Closed`, `Busy`, `InitError` and `CallError` are errors like others.

    What happened is in `inits` (arguments), `calls` (method and payload), `checks`, `lends`,
    `resets` and `closes` (how often); `opened` is how many inits have succeeded, `running` how many
    calls run now, `most` how many did at once.

    >>> from connpool import Closed
    >>> conn = ScriptedConn("line", [Closed("gone")], init=[OSError("refused"), None])
    >>> conn.init(7)
    Traceback (most recent call last):
    OSError: refused
    >>> conn.init(7)
    >>> conn.call("say", "hello")
    Traceback (most recent call last):
    connpool.errors.Closed: gone
    >>> conn.assert_drained()
    >>> conn.inits, conn.opened, conn.calls
    ([((7,), {}), ((7,), {})], 1, [('say', 'hello')])
    """

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """The next step of init."""
        self.inits.append((args, kwargs))
        value = perform(self._next("init"), *args, **kwargs)
        self.opened += 1
        return value

    def call(self, method: Any, payload: Any = None) -> Any:
        """The next step of call."""
        with self._counted(method, payload):
            return perform(self._next("call", payload), method, payload)

    def methods(self) -> Any:
        """What it was told to offer; an error is raised."""
        return perform(self.offers)

    def check(self) -> Any:
        """The next step of check."""
        self.checks += 1
        return perform(self._next("check", True))

    def _lend(self) -> Any:
        """The next step of lend."""
        self.lends += 1
        return perform(self._next("lend"))

    def _reset(self) -> Any:
        """The next step of reset."""
        self.resets += 1
        return perform(self._next("reset"))

    def close(self) -> Any:
        """The next step of close."""
        self.closes += 1
        return perform(self._next("close"))


class ScriptedAsyncConn(_Script):
    """The same as an `AsyncConn`, for asyncio and for trio.

    Parameters:
        resource, call, init, check, lend, reset, close, methods, capacity, survives_cancel: see
            `ScriptedConn`.

    >>> import asyncio
    >>> conn = ScriptedAsyncConn("line", ["hello"])
    >>> asyncio.run(conn.call("say"))
    'hello'
    """

    async def init(self, *args: Any, **kwargs: Any) -> Any:
        self.inits.append((args, kwargs))
        value = await perform_async(self._next("init"), *args, **kwargs)
        self.opened += 1
        return value

    async def call(self, method: Any, payload: Any = None) -> Any:
        with self._counted(method, payload):
            return await perform_async(self._next("call", payload), method, payload)

    async def methods(self) -> Any:
        return await perform_async(self.offers)

    async def check(self) -> Any:
        self.checks += 1
        return await perform_async(self._next("check", True))

    async def _lend(self) -> Any:
        self.lends += 1
        return await perform_async(self._next("lend"))

    async def _reset(self) -> Any:
        self.resets += 1
        return await perform_async(self._next("reset"))

    async def close(self) -> Any:
        self.closes += 1
        return await perform_async(self._next("close"))
