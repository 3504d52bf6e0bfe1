"""What a gRPC conn does without waiting, on threads and in tasks alike.

Owns a conn's options, its channel and the methods on it, and what a state of the channel means.
Refuses to know how a call is awaited.

Invariant: a call is begun only on a channel that is connected, as far as can be known; so each conn
is the one connection that its init has made, and what finds it gone was not sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from ..conn import places, seconds
from ..errors import CallError, Closed, show
from .grpc_rules import (
    LOSSES,
    MAY_HAVE,
    OPTIONS,
    UNSURE,
    Method,
    ReplyLost,
    Route,
    busy,
    lost,
    methods_of,
    pairs,
    routes_of,
    said_by_server,
)

State = grpc.ChannelConnectivity

Metadata = Mapping[str, Any] | Iterable[tuple[str, Any]]

# The service by which gRPC's servers are asked how they are.  Whatever comes back, and be it that
# they do not have it, they live.
HEALTH = "/grpc.health.v1.Health/Check"
SIGN_OF_LIFE = 1.0  # seconds to wait for one

# How long a channel may take to notice that it is the connection that failed a call.
NOTICE = 0.1

# For asking a channel that could not connect why: nothing is ever sent.
WHY = "/connpool.Channel/Why"


class GrpcClient:
    """The half of a gRPC conn that never waits; see `GrpcConn` for the parameters."""

    #: A stream ends alone: that of a call whose caller has left is cancelled.
    survives_cancel = True

    def __init__(
        self,
        target: str,
        *,
        stub: Callable[[Any], Any] | None = None,
        methods: Mapping[str, str | Method] | None = None,
        resource: Any = None,
        capacity: int = 100,
        credentials: Any = None,
        metadata: Metadata | Callable[[], Metadata] = (),
        call_timeout: float | None = 10.0,
        timeouts: Mapping[str, float | None] | None = None,
        connect_timeout: float = 10.0,
        check_timeout: float | None = None,
        interceptors: Sequence[Any] = (),
        options: Metadata = (),
    ) -> None:
        if not isinstance(target, str):
            raise TypeError(f"target: expected a str, got {show(target)}")
        if stub is None and methods is None:
            raise TypeError("expected a stub, or methods, or both")
        if stub is not None and not callable(stub):
            raise TypeError(f"stub: expected a class of generated code, got {show(stub)}")
        self.target = target
        self.resource = target if resource is None else resource
        self.capacity = places(capacity)
        self.connect_timeout = seconds(connect_timeout, "connect_timeout")
        self.check_timeout = _limit(check_timeout, "check_timeout")
        self.stub: Any = None
        self._make_stub = stub
        self._described = methods_of({} if methods is None else methods)
        self._call_timeout = _limit(call_timeout, "call_timeout")
        self._timeouts = {
            name: _limit(limit, f"timeouts[{name!r}]") for name, limit in (timeouts or {}).items()
        }
        self._credentials = credentials
        self._metadata = metadata if callable(metadata) else pairs(metadata, "metadata")
        self._interceptors = list(interceptors)
        self._options = list((OPTIONS | dict(pairs(options, "options"))).items())
        self._channel: Any = None
        self._routes: dict[str, Route] = {}
        self._heard = 0.0  # when the server was last heard

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {show(self.resource)}>"

    @property
    def channel(self) -> Any:
        """The channel, while the conn is open; for what a call cannot do.  Never close it."""
        return self._channel

    # -- the channel ---------------------------------------------------------------------------

    def _settle(self, channel: Any, base: Any) -> None:
        """The channel is connected: make what is called on it.  `base` is without interceptors."""
        stub = None if self._make_stub is None else self._make_stub(channel)
        routes = {} if stub is None else routes_of(stub)
        routes |= {name: method.of(channel) for name, method in self._described.items()}
        self._channel, self.stub, self._routes = base, stub, routes

    def _take_down(self) -> Any:
        channel, self._channel = self._channel, None
        self.stub, self._routes = None, {}
        return channel

    def _lent(self) -> Any:
        """What a checkout hands over: the stub where there is one, else the channel."""
        if self._state() is not State.READY:
            raise Closed(f"{self!r}: its connection is gone")
        return self._channel if self.stub is None else self.stub

    def _state(self) -> Any:
        """The state of the channel, now."""
        raise NotImplementedError

    # -- a call --------------------------------------------------------------------------------

    def _begin(self, method: Any) -> tuple[Any, Route, dict[str, Any]]:
        """The channel and the way for a call, and its keyword arguments; `Closed` where the
        connection is gone."""
        channel = self._channel
        if channel is None:
            raise Closed(f"{self!r} is closed, nothing was sent")
        if (state := self._state()) is not State.READY:
            raise Closed(f"{self!r}: its connection is gone ({state.name}), nothing was sent")
        route = self._routes.get(method) if isinstance(method, str) else None
        if route is None:
            raise CallError(f"unknown method {show(method)}: expected one of {show(self._names())}")
        return channel, route, {"timeout": self._limit(method), "metadata": self._sent_along()}

    def _sent_along(self) -> list[tuple[str, Any]] | None:
        metadata = self._metadata
        return (pairs(metadata(), "metadata") if callable(metadata) else metadata) or None

    def _limit(self, method: str) -> float | None:
        return self._timeouts.get(method, self._call_timeout)

    def _names(self) -> list[str]:
        return sorted(self._routes)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _plain(self, error: Any, method: str, channel: Any, *, once: bool) -> Exception | None:
        """What an RpcError means where nobody has to be asked; None: look at the connection."""
        if (refused := busy(error, self, method, once=once)) is not None:
            self._hear()
            return refused
        if self._channel is not channel and error.code() in LOSSES:
            return lost(error, self, method)  # it was closed under the call
        if said_by_server(error) or error.code() not in UNSURE:
            self._hear()
            return error  # type: ignore[no-any-return]  # it is an RpcError
        return None

    # -- openings ------------------------------------------------------------------------------

    def _closed_under(self, method: str) -> ReplyLost:
        return ReplyLost(f"{self!r}: it was closed, before the reply to {method} came: {MAY_HAVE}")

    def _unreachable(self, why: str) -> ConnectionError:
        return ConnectionError(f"{self!r}: {why}")

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"{self!r}: not connected within {self.connect_timeout} s")


def _limit(value: Any, what: str) -> float | None:
    if value is None:
        return None
    limit = seconds(value, what)
    if not limit:
        raise ValueError(f"{what}: expected more than 0 seconds, or None for no limit, got 0")
    return limit
