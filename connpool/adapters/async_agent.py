"""A value that tasks ask in turn, and the conn that does so: `agent` for asyncio and trio.

Owns `AsyncAgent`, which answers requests one at a time and in order, and `AsyncAgentConn`, which
says so in the words of a pool.  Refuses to know what the value is, and who asks.

Invariant: nothing is awaited once a function has begun.  So it runs whole and alone, and whoever is
cancelled instead of answered knows that his function was not run.

A task of the value's own would add nothing to that: its functions are plain, so in whichever task
they run, no other task runs meanwhile.  What is left of it is the line, and a fair lock is one.
There is no task to start, to lose or to wait for, and an error has its caller's own traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

import anyio
import attrs

from ..conn import Reply
from ..errors import Closed
from .agent_rules import METHODS, AgentHolder, check_function, name_or_number, pair, read

T = TypeVar("T")
R = TypeVar("R")


class AsyncAgent(Generic[T]):
    """A value that any task of one event loop may ask.

    Every request runs whole, alone and in the order of arrival, in the task that asks.  The agent
    lives until it is told to `stop` or to `close`, or until its ``async with`` block ends.

    Parameters:
        initial: the value, or a callable that makes it, at once; its error is raised here.  A value
            that is itself a callable needs a wrapper: ``AsyncAgent(lambda: print)``.
        name: for the repr and in errors; default: "agent-" and a number.

    A function is a plain one and should be short: the event loop stands still meanwhile.  (One that
    takes long belongs to an `Agent`, which has a thread.)  A function that raises changes nothing,
    and its error reaches the caller.  Nothing is retried.  A caller that is cancelled leaves the
    line, and its function is not run; once it has begun, the caller gets the reply.

    >>> import asyncio
    >>> async def main():
    ...     async with AsyncAgent(41) as agent:
    ...         await agent.update(lambda value: value + 1)
    ...         return await agent.get(lambda value: value)
    >>> asyncio.run(main())
    42
    """

    @overload
    def __init__(self, initial: Callable[[], T], *, name: str | None = None) -> None: ...
    @overload
    def __init__(self, initial: T, *, name: str | None = None) -> None: ...
    def __init__(self, initial: Any, *, name: str | None = None) -> None:
        self.name = name_or_number(name)
        self._open = True
        self._turn = anyio.Lock()
        if callable(initial):
            check_function(initial, "initial")
            initial = initial()
        self._value = initial

    @property
    def alive(self) -> bool:
        """Whether requests are still taken."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many requests stand in line, without the one whose turn it is."""
        return self._turn.statistics().tasks_waiting

    async def get(self, fn: Callable[[T], R]) -> R:
        """What `fn` gives for the value.

        Raises `Closed` if the agent ended before `fn` was run, and whatever `fn` raises.
        """
        check_function(fn, "get")
        return cast(R, await self._ask(lambda value: (fn(value), value)))

    async def get_and_update(self, fn: Callable[[T], tuple[R, T]]) -> R:
        """The reply of `fn`, which gives a pair: the reply and the new value.

        Raises as `get` does, and TypeError where `fn` gives anything but a pair.
        """
        check_function(fn, "get_and_update")
        return cast(R, await self._ask(lambda value: pair(fn(value))))

    async def update(self, fn: Callable[[T], T]) -> None:
        """Make what `fn` gives for the value the new value; raises as `get` does."""
        check_function(fn, "update")
        await self._ask(lambda value: (None, fn(value)))

    async def stop(self) -> None:
        """End in good order.

        The requests before this one are served; those behind it, and all later ones, `stop`
        too, raise `Closed`.
        """
        await self._ask(self._last)

    def close(self) -> None:
        """End at once; requests that stand in line raise `Closed`.

        Never waits; calling it again is fine.
        """
        self._open = False
        self._value = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<AsyncAgent {self.name!r} {'running' if self.alive else 'stopped'}>"

    async def _ask(self, step: Callable[[Any], tuple[Any, Any]]) -> Any:
        # The lock is fair, and lets others run even where it is free.  A cancellation surfaces
        # while it is waited for, or not at all.
        async with self._turn:
            if not self._open:
                raise Closed(f"agent {self.name!r} has stopped")
            reply, value = step(self._value)
            if self._open:
                self._value = value
            return reply

    def _last(self, value: T) -> tuple[None, T]:
        self.close()
        return None, value


class AsyncAgentConn(AgentHolder[AsyncAgent[Any]]):
    """A conn to an `AsyncAgent`; its methods are get, get_and_update, update and stop.

    The payload of the first three is a function, as the agent's own methods take it; stop takes
    none.  `update` and `stop` reply None, and after `stop` the conn is closed in good order.

    Parameters:
        source: an `AsyncAgent`, which stays its owner's: the conn never ends it unless a caller
            asks for stop.  Or what an `AsyncAgent` is made from, a value or a callable that makes
            one: then each `init` makes a fresh agent, and `close` ends it.  It may be left to
            `init`.
        resource: what callers name; default: the agent, which is a new one after each `init` that
            makes one.

    The value is shared by all that `init` makes of it: where it can change, give a callable that
    makes it anew (``AsyncAgentConn(list)`` rather than ``AsyncAgentConn([])``).

    Nothing is retried.  A cancelled call did not happen, and leaves nothing behind.

    >>> import asyncio
    >>> from connpool import AsyncPool
    >>> async def main():
    ...     async with AsyncPool() as pool:
    ...         await pool.init(AsyncAgentConn(41, resource="answers"))
    ...         await pool.call("answers", "update", lambda value: value + 1)
    ...         return await pool.call("answers", "get", lambda value: value)
    >>> asyncio.run(main())
    42
    """

    #: A function runs whole or not at all: a cancelled call leaves nothing half done.
    survives_cancel = True

    kind = AsyncAgent

    async def init(self, source: Any = attrs.NOTHING) -> None:
        """Take up the agent, or make one; `source`, where given, is used in place of the conn's.

        Raises TypeError where there is no source at all, `InitError`, never to be tried again,
        where the given agent has stopped, and whatever a callable source raises.  Never waits.
        """
        chosen = self._choose(source)
        await self.close()  # a second init starts afresh
        self._take_up(chosen)

    async def call(self, method: Any, payload: Any = None) -> Any:
        """Ask the agent; waits until it has answered.

        Raises `Closed` where the agent stopped before the function was run, `CallError` for an
        unknown method and TypeError for a payload that is no plain function; neither of these
        reaches the agent.  What the function raises reaches the caller, and both conn and value
        stay.  Only an OSError, EOFError or `Closed` of the function comes as the cause of a
        `CallError`, because raised here it would say that the *agent* is lost.
        """
        fn, agent = read(method, payload), self._live()
        if fn is not None:
            return await getattr(agent, method)(fn)
        await agent.stop()
        return Reply(None, closed=True)

    async def methods(self) -> tuple[str, ...]:
        """get, get_and_update, update and stop."""
        return METHODS

    async def check(self) -> bool:
        """Whether the agent still takes requests; never waits."""
        return self.agent is not None and self.agent.alive

    async def close(self) -> None:
        """Let go of the agent, and end it if the conn made it; calling it again is fine.

        Requests that stand in line raise `Closed`.  Never waits.
        """
        if (agent := self._let_go()) is not None:
            agent.close()
