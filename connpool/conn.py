"""The contract: what a connection author writes, and how the pool reads it.

Owns the protocols `Conn` and `AsyncConn`, the `Reply` a call may give, and the few functions that
turn what a conn *says* into plain data or into an error that names what was expected and what
came.  Refuses to know of pools, of time and of I/O.

Invariant: what leaves this module has been checked.  The rest of the house trusts it.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Collection, Hashable
from operator import index
from typing import Any, Generic, Protocol, TypeVar, final

import attrs

from .errors import show

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Conn(Protocol[R_co]):
    """A connection for :class:`connpool.Pool`.  A plain class with these names is enough.

    Optional, used where present:

    ``close()``
        lets go of what `init` took; the pool calls it once for each time it gives the conn up.
    ``check()``
        raises or returns False: the conn is dead.
    ``reset()``
        makes a checked-out conn clean before it is lent again; raises: dead.
    ``lend()``
        what a checkout hands to its user (default: the conn itself); raises `Closed`: dead.
    ``capacity``
        how many calls the conn carries at once, an int, default 1.
    ``survives_cancel``
        True: a call that was cancelled or interrupted part way leaves the conn usable.
    ``on_lost``
        None at first; a pool sets it to a function that the conn may call, with an error or
        without, as soon as it learns by itself that its connection is gone.  It then leaves the
        pool at once, or is revived.  From any thread, but not from a finaliser.
    ``parse(data)``
        reads the wire format of the conn; only adapters use it.

    >>> class Echo:
    ...     resource = "echo"
    ...     def init(self): pass
    ...     def call(self, method, payload=None): return payload
    ...     def methods(self): return ["say"]
    >>> from connpool import Pool
    >>> with Pool() as pool:
    ...     number = pool.init(Echo())
    ...     pool.call("echo", "say", "hello")
    'hello'
    """

    #: What the conn talks to: a hashable, or a list or set of hashables.
    resource: Any

    def init(self, *args: Any, **kwargs: Any) -> float | None:
        """Open the connection.  Returns None, or the seconds to wait before the first call.

        Raises `InitError` to say when to try again; anything else is retried with backoff.
        """

    def call(self, method: Any, payload: Any = None) -> R_co | Reply[R_co]:
        """Do one call and return its reply, plain or as a `Reply`; see `connpool.errors` for what
        may be raised.  Runs in the caller's thread."""

    def methods(self) -> Collection[Hashable]:
        """The kinds of call this conn offers."""


class AsyncConn(Protocol[R_co]):
    """The same contract for :class:`connpool.AsyncPool`.

    `async def` for init, call, methods, and, where present, for close, check, reset and lend.
    """

    #: What the conn talks to: a hashable, or a list or set of hashables.
    resource: Any

    async def init(self, *args: Any, **kwargs: Any) -> float | None:
        """See `Conn.init`."""

    async def call(self, method: Any, payload: Any = None) -> R_co | Reply[R_co]:
        """See `Conn.call`.  Runs in the caller's task, and may be cancelled with it."""

    async def methods(self) -> Collection[Hashable]:
        """See `Conn.methods`."""


@final
@attrs.define
class Reply(Generic[R]):
    """A reply with something to say of the conn that gave it.

    Parameters:
        value: what the caller gets.
        cooldown: seconds the conn rests before its next call.
        closed: True: the conn is done, in good order.  It is dropped, or initialised again where
            it was added with ``revive="force"``.

    >>> Reply(42, cooldown=0.5)
    Reply(value=42, cooldown=0.5, closed=False)
    """

    # Made once a call by conns that need it: no validators, the core checks what it uses.
    value: R
    cooldown: float = attrs.field(default=0.0, kw_only=True)
    closed: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Description:
    """What a conn says of itself once it is open, checked."""

    resource: Any
    resources: tuple[Hashable, ...]
    methods: frozenset[Hashable]
    capacity: int
    checks: bool = False
    lends: bool = False
    resets: bool = False


def asked(conn: Any, name: str, default: Any = None) -> Any:
    """What a conn says of itself that it need not say; one that raises has said nothing."""
    try:
        return getattr(conn, name, default)
    except Exception:
        return default


def seconds(value: Any, what: str, *, infinite: bool = False) -> float:
    """`value` as a duration in seconds: a number, not negative, not nan.

    >>> seconds(-1, "cooldown")
    Traceback (most recent call last):
    ValueError: cooldown: expected seconds, a number from 0 up, got -1
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what}: expected seconds, a number from 0 up, got {show(value)}")
    try:
        # Of a subclass neither its own arithmetic nor its own conversion is asked.
        amount = float(index(value)) if isinstance(value, int) else float.__pos__(value)
    except OverflowError:
        amount = math.nan
    if not amount >= 0 or (math.isinf(amount) and not infinite):
        raise ValueError(f"{what}: expected seconds, a number from 0 up, got {show(value)}")
    return amount


def places(value: Any, what: str = "capacity") -> int:
    """`value` as a capacity: a whole number from 1 up, that can be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}: expected a whole number from 1 up, got {show(value)}")
    number = index(value)
    if number < 1:
        raise ValueError(f"{what}: expected a whole number from 1 up, got {show(value)}")
    if number > sys.maxsize:
        raise ValueError(f"{what}: expected at most {sys.maxsize}, got {show(value)}")
    return number


def check_conn(conn: Any, *, awaits: bool) -> None:
    """Raise TypeError unless `conn` has the names of the contract, in the right colour."""
    for name in ("init", "call", "methods"):
        if not callable(getattr(conn, name, None)):
            raise TypeError(
                f"expected a conn with init, call and methods, got {show(conn)}, "
                f"which has no callable {name!r}"
            )
    if inspect.iscoroutinefunction(conn.call) is not awaits:
        have, need = ("Conn", "Pool") if awaits else ("AsyncConn", "AsyncPool")
        raise TypeError(f"{show(conn)} is of the kind {have}: put it into a connpool.{need}")


def describe(conn: Any, methods: Any, *, resource: Any = None) -> Description:
    """What `conn` says of itself, checked; `methods` is what its methods() gave.

    `resource` is what to call it, whatever it says itself: the key of its supply.
    """
    if resource is not None:  # whatever it is: a supply has one key
        named, resources = resource, _resources(conn, [resource])
    else:
        named = getattr(conn, "resource", None)
        resources = _resources(conn, named)
        named = tuple(named) if isinstance(named, (list, set, frozenset)) else named
    return Description(
        resource=named,
        resources=resources,
        methods=method_names(methods, conn),
        capacity=places(getattr(conn, "capacity", 1), f"capacity of {show(conn)}"),
        checks=callable(getattr(conn, "check", None)),
        lends=callable(getattr(conn, "lend", None)),
        resets=callable(getattr(conn, "reset", None)),
    )


_OR_SEVERAL = ", or a list or set of them"


def _resources(conn: Any, named: Any) -> tuple[Hashable, ...]:
    if named is None:
        raise TypeError(f"resource of {show(conn)}: expected a hashable, got None")
    several = isinstance(named, (list, set, frozenset))
    what = f"resource of {show(conn)}"
    keys = named if several else (named,)
    listed = tuple(dict.fromkeys(hashable(key, what, _OR_SEVERAL) for key in keys))
    if not listed:
        raise ValueError(f"resource of {show(conn)}: expected at least one, got {show(named)}")
    return listed


_STRANGER = object()


def hashable(key: Any, what: str, also: str = "") -> Hashable:
    """`key`, where it can be looked up beside others: hashed, and compared with whatever comes.

    One that raises when it is compared would raise at whoever looks for another of its hash.
    """
    try:
        hash(key)
        bool(key == _STRANGER)
    except Exception as error:
        raise TypeError(
            f"{what}: expected a hashable that can be compared with anything{also}, got {show(key)}"
        ) from error
    return key  # type: ignore[no-any-return]  # the lines above are the proof


def has(methods: frozenset[Hashable], method: Any) -> bool:
    """Whether `method` is among them.  One that was well when it was asked for, and now raises when
    it is hashed or compared, is not: who happens to look must not pay for it."""
    try:
        return method in methods
    except Exception:
        return False


def method_names(methods: Any, conn: Any) -> frozenset[Hashable]:
    """What methods() gave, as a frozenset.

    >>> method_names(None, "a conn")
    Traceback (most recent call last):
    TypeError: methods() of 'a conn': expected a collection of hashables, got None
    """
    if isinstance(methods, (str, bytes)) or not isinstance(methods, Collection):
        raise TypeError(
            f"methods() of {show(conn)}: expected a collection of hashables, got {show(methods)}"
        )
    what, listed = f"methods() of {show(conn)}", list(methods)
    try:
        return frozenset(hashable(method, what) for method in listed)
    except TypeError as error:
        raise TypeError(
            f"{what}: expected hashables in the collection, got {show(methods)}"
        ) from error
