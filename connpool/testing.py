"""Testing aids for whoever uses a pool: a clock to turn by hand, conns that follow a script.

Owns `ManualClock`, `ScriptedConn`, `ScriptedAsyncConn` and the steps of their scripts.  Refuses to
know what is tested: nothing in here needs a test framework, and nothing in here sleeps.

Invariant: a scripted conn does what its script says, in order, and remembers what was asked of it;
what the script did not foresee is an AssertionError, there and again in `assert_drained`.

>>> from connpool import Pool, Reply
>>> with ManualClock() as clock, Pool() as pool:
...     conn = ScriptedConn("line", ["hello", Reply("later", cooldown=60), OSError("torn")])
...     number = pool.put(conn)
...     pool.call("line", "say")
...     pool.call("line", "say")
...     pool.info(number).cooldown
...     clock.advance(60, pool)
...     pool.info(number).state
'hello'
'later'
60.0
'ready'
>>> conn.calls, conn.closes
([('say', None), ('say', None)], 1)
>>> conn.assert_drained()
Traceback (most recent call last):
AssertionError: the script of ScriptedConn('line') was not followed: 1 of call left
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Self

import attrs

from .conn import seconds as in_seconds
from .errors import show

# The modules that read the time, each through its own name `time`.
DRIVERS = ("face", "pool", "backstage", "supplies", "async_pool", "async_backstage")
# How long to wait, in real seconds, for what a test says must happen.  It only ends a hang.
PATIENCE = 30.0


class ManualClock:
    """A clock that stands still until it is told to go on; every pool reads it while it is entered.

    Parameters:
        start: the instant at which it begins.

    It replaces the name `time` in the modules that drive pools, and nothing else: `time.sleep`, the
    time outs of locks and the loops of asyncio and trio go on as before.  So a test never waits for
    a conn's ttl, rest or backoff, nor for a caller's timeout: it advances the clock.  Make the pool
    inside the with block, and close it there.

    >>> with ManualClock() as clock:
    ...     clock.monotonic()
    ...     clock.advance(0.5)
    ...     clock.monotonic()
    1000.0
    1000.5
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = in_seconds(start, "start")
        self._before: list[tuple[ModuleType, Any]] | None = None

    def __enter__(self) -> Self:
        if self._before is not None:
            raise RuntimeError("this clock is in use already")
        self._before = [(module, vars(module)["time"]) for module in _drivers()]
        for module, _ in self._before:
            vars(module)["time"] = self
        return self

    def __exit__(self, *_: object) -> None:
        for module, before in self._before or ():
            vars(module)["time"] = before
        self._before = None

    def monotonic(self) -> float:
        """The instant it is, in seconds."""
        return self._now

    def advance(self, seconds: float, /, *pools: Any) -> None:
        """Move on, and let each of these pools do all that has become due.

        Parameters:
            seconds: how far, from 0 up.
            pools: their `sweep` is called: conns expire, rest no longer or are revived, and callers
                whose timeout is over get their error.

        Where an init or close hangs in its script, `sweep` waits for it: leave such a pool out.
        """
        for pool in pools:
            if inspect.iscoroutinefunction(pool.sweep):
                raise TypeError(f"expected a Pool, got {show(pool)}: await advance_async(...)")
        self._move(seconds)
        for pool in pools:
            pool.sweep()

    async def advance_async(self, seconds: float, /, *pools: Any) -> None:
        """The same for an `AsyncPool`."""
        self._move(seconds)
        for pool in pools:
            await pool.sweep()

    def _move(self, duration: float) -> None:
        # Rounded, or after 0.1 and 0.2 seconds what is due in 0.3 would not be.
        self._now = round(self._now + in_seconds(duration, "advance"), 9)


def _drivers() -> list[ModuleType]:
    found = []
    for name in DRIVERS:
        with contextlib.suppress(ImportError):  # half of them need anyio
            found.append(importlib.import_module(f"connpool.{name}"))
    return [module for module in found if "time" in vars(module)]


# -- steps ---------------------------------------------------------------------------------------


class Hang:
    """A step that hangs until it is released.

    Parameters:
        then: the step that follows at once: what the call is to answer or raise.

    One that was released lets everybody pass; one that stands in several scripts holds all of them.

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

    >>> ScriptedConn("line", [Do(lambda method, payload: payload.upper())]).call("say", "hello")
    'HELLO'
    """

    function: Callable[..., Any]


# -- conns ---------------------------------------------------------------------------------------


class _Script:
    """What both scripted conns have: the scripts, and the memory."""

    def __init__(
        self,
        resource: Any,
        call: Iterable[Any] | None = None,
        *,
        init: Iterable[Any] | None = None,
        check: Iterable[Any] | None = None,
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
        self.checks = self.closes = 0
        self.opened = self.running = self.most = 0
        self._guard = threading.Lock()
        steps = {"init": init, "call": call, "check": check, "close": close}
        self._steps = {what: deque(s) for what, s in steps.items() if s is not None}
        self._unforeseen: list[str] = []

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
        methods: what its `methods` gives; the attribute `offers` changes it later.
        capacity, survives_cancel: see `connpool.Conn`.

    A step is an error, which is raised; a `Hang`; a `Do`; or anything else, which is answered: a
    `Reply` says that the conn is to rest or is closed in good order, a number from init is its
    first rest.  `Closed`, `Busy`, `InitError` and `CallError` are errors like others.

    What happened is in `inits` (arguments), `calls` (method and payload), `checks` and `closes`
    (how often); `opened` is how many inits have succeeded, `running` how many calls run now, `most`
    how many did at once.

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
        value = _perform(self._next("init"), *args, **kwargs)
        self.opened += 1
        return value

    def call(self, method: Any, payload: Any = None) -> Any:
        """The next step of call."""
        with self._counted(method, payload):
            return _perform(self._next("call", payload), method, payload)

    def methods(self) -> Any:
        """What it was told to offer; an error is raised."""
        return _perform(self.offers)

    def check(self) -> Any:
        """The next step of check."""
        self.checks += 1
        return _perform(self._next("check", True))

    def close(self) -> Any:
        """The next step of close."""
        self.closes += 1
        return _perform(self._next("close"))


class ScriptedAsyncConn(_Script):
    """The same as an `AsyncConn`, for asyncio and for trio.

    Parameters:
        resource, call, init, check, close, methods, capacity, survives_cancel: see `ScriptedConn`.

    >>> import asyncio
    >>> conn = ScriptedAsyncConn("line", ["hello"])
    >>> asyncio.run(conn.call("say"))
    'hello'
    """

    async def init(self, *args: Any, **kwargs: Any) -> Any:
        self.inits.append((args, kwargs))
        value = await _perform_async(self._next("init"), *args, **kwargs)
        self.opened += 1
        return value

    async def call(self, method: Any, payload: Any = None) -> Any:
        with self._counted(method, payload):
            return await _perform_async(self._next("call", payload), method, payload)

    async def methods(self) -> Any:
        return await _perform_async(self.offers)

    async def check(self) -> Any:
        self.checks += 1
        return await _perform_async(self._next("check", True))

    async def close(self) -> Any:
        self.closes += 1
        return await _perform_async(self._next("close"))


def _perform(step: Any, *args: Any, **kwargs: Any) -> Any:
    while isinstance(step, (Hang, Do)):
        if isinstance(step, Do):
            step = step.function(*args, **kwargs)
        else:
            step._pass()
            step = step.then
    if isinstance(step, BaseException):
        raise step
    return step


async def _perform_async(step: Any, *args: Any, **kwargs: Any) -> Any:
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
