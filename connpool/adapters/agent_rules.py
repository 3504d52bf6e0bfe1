"""What holds for agents in threads and in tasks alike.

Owns which requests there are, what their functions have to be, and whose an agent is.  Refuses to
know where an agent lives, and how it is asked.

Invariant: no error of a user's function is taken for one of the agent's own.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from ..errors import CallError, Closed, InitError, show

A = TypeVar("A")

METHODS = ("get", "get_and_update", "update", "stop")

_numbers = itertools.count(1)


def name_or_number(name: str | None) -> str:
    """`name`, or where there is none "agent-" and the next number."""
    return f"agent-{next(_numbers)}" if name is None else name


def check_function(fn: object, method: str) -> None:
    """Raise TypeError unless `fn` is a plain function; one to be awaited would not be run here."""
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise TypeError(f"{method}: expected a function of the agent's value, got {show(fn)}")


def pair(given: Any) -> tuple[Any, Any]:
    """What the function of a get_and_update gave, or the TypeError that says what is wrong."""
    match given:
        case tuple((reply, value)):
            return reply, value
    raise TypeError(
        f"get_and_update: expected the pair (reply, new value) from the function, got {show(given)}"
    )


def read(method: Any, payload: Any) -> Callable[[Any], Any] | None:
    """The function that a conn's call asks the agent to run; None: it is to stop.

    Raises CallError for an unknown method, and TypeError for a payload that it cannot have.
    """
    if method not in METHODS:
        raise CallError(f"unknown method {show(method)}, expected one of {', '.join(METHODS)}")
    if method != "stop":
        check_function(payload, method)
        return _shielded(payload)
    if payload is not None:
        raise TypeError(f"stop: expected no payload, got {show(payload)}")
    return None


def _shielded(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn`, whose own errors can no longer be taken for the agent's."""

    def run(value: Any) -> Any:
        try:
            return fn(value)
        except (OSError, EOFError, Closed) as error:
            raise CallError(f"the function raised {show(error)}") from error

    return run


class AgentHolder(Generic[A]):
    """The half of a conn to an agent that never waits: which agent it is, and whose."""

    #: What an agent is; a subclass says it.
    kind: ClassVar[type[Any]]

    def __init__(self, source: Any = attrs.NOTHING, *, resource: Any = None) -> None:
        self._source = source
        self._named = resource is not None
        self._owned = False
        self.agent: A | None = None
        self.resource: Any = resource
        if not self._named and isinstance(source, self.kind):
            self.resource = source

    def __repr__(self) -> str:
        inside = "closed" if self.agent is None else f"to {self.agent!r}"
        return f"<{type(self).__name__} {inside}>"

    def _choose(self, source: Any) -> Any:
        chosen = self._source if source is attrs.NOTHING else source
        if chosen is attrs.NOTHING:
            what = self.kind.__name__
            raise TypeError(f"init: expected an {what}, a value or a callable that makes one")
        return chosen

    def _take_up(self, source: Any) -> None:
        self._owned = not isinstance(source, self.kind)
        if self._owned:
            source = self.kind(source, name=str(self.resource) if self._named else None)
        elif not source.alive:
            raise InitError(f"{source!r} will not start again", retry_after=math.inf)
        self.agent = source
        if not self._named:
            self.resource = source

    def _let_go(self) -> A | None:
        """Forget the agent, and give it where it is to be ended."""
        agent, self.agent = self.agent, None
        return agent if self._owned else None

    def _live(self) -> A:
        if self.agent is None:
            raise Closed("the conn has no agent: it was closed, or never initialised")
        return self.agent
