"""The whole error tree, on one screen.

Two families, by whose fault it is.  A **PoolError** is the pool speaking to a caller: what was
asked for cannot be had.  A **ConnError** is a conn speaking to the pool: a row of the contract in
:mod:`connpool.conn`.  Errors carry fields as well as text, and survive pickling.

This module imports nothing of the project, and knows nothing of how an error comes about.
"""

from __future__ import annotations

from typing import Any, ClassVar


def show(value: object, limit: int = 120) -> str:
    """The repr of a user's object for a message: never raises, never longer than `limit`.

    >>> show("tcp://a")
    "'tcp://a'"
    """
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ must not hide the error that is being told
        text = f"<{type(value).__name__} object whose repr fails>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


class _Fielded(Exception):
    """An error whose keyword arguments become attributes, and that pickles with them."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


# -- the pool to a caller ----------------------------------------------------------------------


class PoolError(_Fielded):
    """Something the pool was asked for cannot be had.  `pool` is the name of the pool."""

    pool: str | None = None


class ResourceError(PoolError, LookupError):
    """No open conn to the resource, and none that can still come."""

    resource: Any = None


class MethodError(PoolError, LookupError):
    """There are conns to the resource, but none has the method; `methods` lists what they have."""

    resource: Any = None
    method: Any = None
    methods: tuple[Any, ...] = ()


class FilterError(PoolError, LookupError):
    """`candidates` conns have the resource and the method, but none passes the filter."""

    resource: Any = None
    method: Any = None
    candidates: int = 0


class IdError(PoolError, LookupError):
    """No conn with this id is in the pool."""

    id: Any = None


class PoolTimeout(PoolError, TimeoutError):
    """No conn became free in time; its `__cause__` is the last failure of the resource, if any.

    `waited` and `timeout` are seconds, `waiting` is how many others stood in line, `summary` says
    in one line what there was instead of a free conn, and what would help.
    """

    resource: Any = None
    method: Any = None
    waited: float = 0.0
    timeout: float | None = None
    waiting: int = 0
    summary: str = ""


class PoolFull(PoolError):
    """A limit of the pool is reached: `limit` names it (max_waiting or max_size), `most` is it."""

    limit: str = ""
    most: int = 0


class PoolClosed(PoolError):
    """The pool is closed, or was closed while the caller waited."""


class NestedCall(PoolError):
    """The caller would wait for a conn that only the caller itself can give back."""

    resource: Any = None
    method: Any = None


# -- a conn to the pool ------------------------------------------------------------------------


class ConnError(_Fielded):
    """What a conn may say of itself by raising; its subclasses are the rows of the contract."""

    default: ClassVar[str] = "the conn reported an error"

    def __init__(self, reason: Any = None, **fields: Any) -> None:
        super().__init__(self.default if reason is None else reason, **fields)
        self.reason = reason


class Closed(ConnError):
    """The call did not happen: the conn was closed.  The call moves to another conn.

    >>> raise Closed("the server said goodbye")
    Traceback (most recent call last):
    connpool.errors.Closed: the server said goodbye
    """

    default = "the conn is closed"


class Busy(ConnError):
    """The call did not happen: the conn must rest `cooldown` seconds first (a 429, a full window).

    The call goes to another conn, or waits for this one, with its place and its deadline.  Where
    no cooldown is known, 0 leaves it to the pool, which then doubles a short rest each time.
    """

    default = "the conn is busy"

    def __init__(self, cooldown: float = 0.0, reason: Any = None) -> None:
        super().__init__(reason, cooldown=cooldown)

    cooldown: float


class InitError(ConnError):
    """init failed.  `retry_after`: seconds until the next attempt, `math.inf`: never, None: the
    pool's own backoff."""

    default = "the conn cannot be initialised"

    def __init__(self, reason: Any = None, *, retry_after: float | None = None) -> None:
        super().__init__(reason, retry_after=retry_after)

    retry_after: float | None


class CallError(ConnError):
    """The call failed, and its caller is told; the conn rests `cooldown` seconds or is `closed`."""

    default = "the call failed"

    def __init__(self, reason: Any = None, *, cooldown: float = 0.0, closed: bool = False) -> None:
        super().__init__(reason, cooldown=cooldown, closed=closed)

    cooldown: float
    closed: bool
