"""A value that lives in a thread of its own, and the conn that talks to it.

Owns `Agent`, which answers requests one at a time and in order, and `AgentConn`, which says so in
the words of a pool.  Refuses to know what the value is, and who asks.

Invariant: whoever asks is answered.  With what its function gave, with the error it raised, or with
`Closed`, which says that the function was not run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar, cast, overload

import attrs

from ..conn import Reply
from ..errors import Closed
from .agent_rules import METHODS, AgentHolder, check_function, name_or_number, pair, read

T = TypeVar("T")
R = TypeVar("R")


class Agent(Generic[T]):
    """A value in a daemon thread of its own; any thread may ask it.

    Every request runs whole, alone and in the order of arrival.  The agent lives until it is told
    to `stop` or to `close`, or until its `with` block ends.

    Parameters:
        initial: the value, or a callable that makes it.  The callable runs in the agent's thread,
            so it may make what only one thread may touch; its error is raised here.  A value that
            is itself a callable needs a wrapper: ``Agent(lambda: print)``.
        name: for the thread's name and the repr; default: "agent-" and a number.

    Each request waits until it is answered, without a limit.  A function that raises changes
    nothing, and its error reaches the caller.  Nothing is retried.  A caller that is interrupted
    while it waits takes its request back if that has not begun; one that has begun runs to its end
    and its reply is dropped.

    >>> with Agent(41) as agent:
    ...     agent.update(lambda value: value + 1)
    ...     agent.get(lambda value: value)
    42
    """

    @overload
    def __init__(self, initial: Callable[[], T], *, name: str | None = None) -> None: ...
    @overload
    def __init__(self, initial: T, *, name: str | None = None) -> None: ...
    def __init__(self, initial: Any, *, name: str | None = None) -> None:
        self.name = name_or_number(name)
        self._line: deque[_Request] = deque()
        self._turn = threading.Condition()
        self._open = True
        self._thread = threading.Thread(
            target=self._live, name=f"connpool-{self.name}", daemon=True
        )
        self._thread.start()
        try:
            self._ask(lambda _: (None, initial() if callable(initial) else initial))
        except BaseException:
            self.close(0)  # nobody will ever hold this agent: its thread must not outlive us
            raise

    @property
    def alive(self) -> bool:
        """Whether requests are still taken."""
        # A fork copies the agent but not its thread, which leaves nobody to answer.
        return self._open and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many requests stand in line, without the one that is running."""
        return len(self._line)

    def get(self, fn: Callable[[T], R]) -> R:
        """What `fn` gives for the value.

        Raises `Closed` if the agent ended before `fn` was run, and whatever `fn` raises.
        """
        check_function(fn, "get")
        return cast(R, self._ask(lambda value: (fn(value), value)))

    def get_and_update(self, fn: Callable[[T], tuple[R, T]]) -> R:
        """The reply of `fn`, which gives a pair: the reply and the new value.

        Raises as `get` does, and TypeError where `fn` gives anything but a pair.

        >>> with Agent([1, 2, 3]) as agent:
        ...     agent.get_and_update(lambda value: (value[0], value[1:]))
        1
        """
        check_function(fn, "get_and_update")
        return cast(R, self._ask(lambda value: pair(fn(value))))

    def update(self, fn: Callable[[T], T]) -> None:
        """Make what `fn` gives for the value the new value; raises as `get` does."""
        check_function(fn, "update")
        self._ask(lambda value: (None, fn(value)))

    def stop(self) -> None:
        """End in good order, and return when the thread has ended.

        The requests before this one are served; those behind it, and all later ones, `stop`
        too, raise `Closed`.
        """
        self._ask(self._last)
        self._thread.join()

    def close(self, timeout: float | None = 1.0) -> None:
        """End at once: only the function that runs now is let finish.  Calling it again is fine.

        Requests that stand in line raise `Closed`.  Waits at most `timeout` seconds for the
        thread to end (None: as long as it takes), and not at all when called from that thread.
        """
        self._shut()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def __enter__(self) -> Agent[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Agent {self.name!r} {'running' if self.alive else 'stopped'}>"

    # -- in the caller's thread

    def _ask(self, step: Callable[[Any], tuple[Any, Any]]) -> Any:
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self!r} was asked by its own function: it would wait for itself")
        request = _Request(step)
        try:
            self._queue(request)
            return request.answer.result()
        except BaseException:
            request.answer.cancel()  # an interrupted caller; does nothing to an answered request
            raise
        finally:
            del request  # an error's traceback holds this frame, and would hold itself through it

    def _queue(self, request: _Request) -> None:
        # Looking and queueing under one lock: nothing can be put behind the last look of _shut.
        with self._turn:
            if not self.alive:
                raise self._closed()
            self._line.append(request)
            self._turn.notify()

    # -- in the agent's thread

    def _live(self) -> None:
        value: Any = None  # a local, so that it goes when the thread goes
        try:
            while (request := self._next()) is not None:
                value = request.run(value)
                del request  # an idle agent holds on to nobody's function or reply
        finally:
            self._shut()

    def _next(self) -> _Request | None:
        with self._turn:
            while self._open and not self._line:
                self._turn.wait()
            return self._line.popleft() if self._open else None

    def _last(self, value: T) -> tuple[None, T]:
        self._shut()
        return None, value

    # -- in either

    def _shut(self) -> None:
        with self._turn:
            self._open = False
            left, self._line = self._line, deque()
            self._turn.notify_all()
        for request in left:
            request.refuse(self._closed())

    def _closed(self) -> Closed:
        return Closed(f"agent {self.name!r} has stopped")


@attrs.define(eq=False)
class _Request:
    """A step, from a value to a reply and the next value, and the place for the reply."""

    step: Callable[[Any], tuple[Any, Any]]
    answer: Future[Any] = attrs.field(init=False, factory=Future)

    def run(self, value: Any) -> Any:
        """Do the step, answer, and return the next value."""
        if not self.answer.set_running_or_notify_cancel():
            return value  # its caller was interrupted and has left
        try:
            reply, value = self.step(value)
        except BaseException as error:  # the caller's, whatever it is: the agent goes on
            self.answer.set_exception(error)
        else:
            self.answer.set_result(reply)
        return value

    def refuse(self, error: Exception) -> None:
        """Answer without doing the step."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


class AgentConn(AgentHolder[Agent[Any]]):
    """A conn to an `Agent`; its methods are get, get_and_update, update and stop.

    The payload of the first three is a function, as the agent's own methods take it; stop takes
    none.  `update` and `stop` reply None, and after `stop` the conn is closed in good order.

    Parameters:
        source: an `Agent`, which stays its owner's: the conn never ends it unless a caller asks
            for stop.  Or what an `Agent` is made from, a value or a callable that makes one: then
            each `init` starts a fresh agent, and `close` ends it.  It may be left to `init`.
        resource: what callers name; default: the agent, which is a new one after each `init` that
            starts one.

    The value is shared by all that `init` makes of it: where it can change, give a callable that
    makes it anew (``AgentConn(list)`` rather than ``AgentConn([])``).

    >>> conn = AgentConn(lambda: 42, resource="answers")
    >>> conn.init()
    >>> conn.call("get", lambda value: value + 1)
    43
    >>> conn.call("stop")
    Reply(value=None, cooldown=0.0, closed=True)
    >>> conn.call("get", repr)
    Traceback (most recent call last):
    connpool.errors.Closed: agent 'answers' has stopped
    """

    #: A function that has begun runs to its end, whoever still waits: nothing is left half done.
    survives_cancel = True

    kind = Agent

    def init(self, source: Any = attrs.NOTHING) -> None:
        """Take up the agent, or start one; `source`, where given, is used in place of the conn's.

        Raises TypeError where there is no source at all, `InitError`, never to be tried again,
        where the given agent has stopped, and whatever a callable source raises.
        """
        chosen = self._choose(source)
        self.close()  # a second init starts afresh and leaves no thread behind
        self._take_up(chosen)

    def call(self, method: Any, payload: Any = None) -> Any:
        """Ask the agent; waits until it has answered.

        Raises `Closed` where the agent stopped before the function was run, `CallError` for an
        unknown method and TypeError for a payload that is no function; neither of these reaches
        the agent.  What the function raises reaches the caller, and both conn and value stay.  Only
        an OSError, EOFError or `Closed` of the function comes as the cause of a `CallError`,
        because raised here it would say that the *agent* is lost.
        """
        fn, agent = read(method, payload), self._live()
        if fn is not None:
            return getattr(agent, method)(fn)
        agent.stop()
        return Reply(None, closed=True)

    def methods(self) -> tuple[str, ...]:
        """get, get_and_update, update and stop."""
        return METHODS

    def check(self) -> bool:
        """Whether the agent still takes requests; never waits."""
        return self.agent is not None and self.agent.alive

    def close(self) -> None:
        """Let go of the agent, and end it if the conn started it; calling it again is fine.

        Requests that stand in line raise `Closed`; a function that runs is waited for a second.
        """
        if (agent := self._let_go()) is not None:
            agent.close()
