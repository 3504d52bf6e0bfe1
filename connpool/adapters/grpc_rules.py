"""What gRPC's methods and errors mean to a conn.

Owns the description of a method, the reading of what a server says of retrying, and which error
says what.  Refuses to wait, and to know of channels.

Invariant: `Busy` is said only where the server itself has refused a call and said when to come
back.  That a call failed is never taken for "it did not happen".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import grpc

from ..errors import Busy, show

MAY_HAVE = "it may have been carried out"
MOST_REST = 3600.0  # seconds: no server may keep us away for longer

Code = grpc.StatusCode

# What a call may end with whose connection has ended under it.
LOSSES = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN})

# What may come a moment before the channel tells that it is not connected any more.
UNTOLD = frozenset({Code.UNAVAILABLE, Code.CANCELLED})

# What says nothing by itself: was it the server that said so, or is there no server any more?
UNSURE = LOSSES | {Code.DEADLINE_EXCEEDED}


class ReplyLost(ConnectionError):
    """A call was sent and its connection ended before the reply: it may have been carried out."""


@attrs.frozen
class Method:
    """A method of a server, where there is no generated code for it.

    Parameters:
        path: its full name, such as ``/helloworld.Greeter/SayHello``.
        encode: makes bytes of a request; None: requests are bytes already.
        decode: makes a reply of bytes; None: replies stay bytes.
        many_requests: a call sends a stream of requests; its payload is an iterable of them.
        many_replies: a call gets a stream of replies; its reply is the list of them.

    >>> Method("/helloworld.Greeter/SayHello", encode=str.encode, decode=bytes.decode).path
    '/helloworld.Greeter/SayHello'
    """

    path: str = attrs.field()
    encode: Callable[[Any], bytes] | None = None
    decode: Callable[[bytes], Any] | None = None
    many_requests: bool = attrs.field(default=False, kw_only=True)
    many_replies: bool = attrs.field(default=False, kw_only=True)

    @path.validator
    def _check_path(self, _: Any, path: Any) -> None:
        if not isinstance(path, str) or not re.fullmatch(r"/[^/\s]+/[^/\s]+", path):
            raise ValueError(f"path: expected /package.Service/Method, got {show(path)}")

    def of(self, channel: Any) -> Route:
        """How to call it on this channel, of either kind."""
        asks = "stream" if self.many_requests else "unary"
        tells = "stream" if self.many_replies else "unary"
        make = getattr(channel, f"{asks}_{tells}")
        call = make(self.path, request_serializer=self.encode, response_deserializer=self.decode)
        return Route(call, self.many_requests, self.many_replies, self.encode is None)


@attrs.frozen
class Route:
    """A method on a channel: what to call, with one request or many, for one reply or many.

    `bare` says that requests have to be bytes.
    """

    call: Any
    many_requests: bool
    many_replies: bool
    bare: bool = False

    def request(self, payload: Any, streams: tuple[type[Any], ...] = (Iterable,)) -> Any:
        """What to send for a payload; TypeError where it cannot be sent.

        `streams` is what a stream of requests may be.
        """
        if self.many_requests:
            if isinstance(payload, (bytes, str)) or not isinstance(payload, streams):
                raise TypeError(f"payload: expected an iterable of requests, got {show(payload)}")
            return iter(payload) if isinstance(payload, Iterable) else payload
        if self.bare and payload is None:
            return b""
        if self.bare and not isinstance(payload, bytes):
            raise TypeError(f"payload: expected bytes or None, got {show(payload)}")
        return payload

    def repeats(self, payload: Any) -> bool:
        """Whether the payload can be sent again: an iterator can be read once."""
        if not self.many_requests:
            return True
        return isinstance(payload, Iterable) and not isinstance(payload, Iterator)


# One for each kind of stub, which are told apart by what they hold.
_KINDS = {
    (many_requests, many_replies): tuple(
        getattr(module, f"{asks}{tells}MultiCallable") for module in (grpc, grpc.aio)
    )
    for asks, many_requests in (("Unary", False), ("Stream", True))
    for tells, many_replies in (("Unary", False), ("Stream", True))
}


def routes_of(stub: Any) -> dict[str, Route]:
    """The methods of a stub that was made by generated code: its attributes."""
    found = {
        name: Route(call, *kind)
        for name, call in vars(stub).items()
        for kind, classes in _KINDS.items()
        if isinstance(call, classes)
    }
    if not found:
        raise TypeError(f"stub: expected a class of generated code, got one of {show(stub)}")
    return found


def methods_of(methods: Any) -> dict[str, Method]:
    """`methods`, checked: names, each with a path or a `Method`.

    >>> methods_of({"hello": "/helloworld.Greeter/SayHello"})["hello"].many_replies
    False
    """
    if not isinstance(methods, Mapping):
        raise TypeError(f"methods: expected a mapping of names to methods, got {show(methods)}")
    return {
        name: method if isinstance(method, Method) else Method(method)
        for name, method in methods.items()
    }


# -- what a server says of retrying --------------------------------------------------------------


def rest(metadata: Any) -> float | None:
    """The seconds after which the server wants to be asked again; None: it says nothing of it.

    Read are ``grpc-retry-pushback-ms``, ``retry-after``, and the RetryInfo of a status in detail.

    >>> rest([("grpc-retry-pushback-ms", "250")]), rest([("retry-after", "3")]), rest([])
    (0.25, 3.0, None)
    """
    for key, value in metadata or ():
        found: float | None = None
        if key == "grpc-retry-pushback-ms":
            if (found := _number(value)) is None:
                return None  # a negative one says: do not try again
            found /= 1000
        elif key == "retry-after":
            found = _number(value)
        elif key == "grpc-status-details-bin":
            found = _retry_info(value)
        if found is not None:
            return min(found, MOST_REST)
    return None


def _number(text: Any) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,15}(\.\d{1,9})?", str(text).strip()) else None


def _retry_info(status: Any) -> float | None:
    """The delay in a serialised google.rpc.Status, as far as there is one."""
    try:
        for detail in _parts(status, 3):
            for kind in _parts(detail, 1):
                if kind.endswith(b"/google.rpc.RetryInfo"):
                    return _duration(_first(_parts(_first(_parts(detail, 2)), 1)))
    except (ValueError, LookupError, TypeError):
        pass  # it is not what it says it is
    return None


def _duration(data: bytes) -> float:
    values = {number: value for number, value in _fields(data) if isinstance(value, int)}
    amount = values.get(1, 0) + values.get(2, 0) / 1e9
    return 0.0 if amount >= 1 << 62 else amount  # a negative one


def _parts(data: bytes, number: int) -> list[bytes]:
    return [value for n, value in _fields(data) if n == number and isinstance(value, bytes)]


def _first(parts: list[bytes]) -> bytes:
    return parts[0] if parts else b""


# The types of fields in a message of protocol buffers, and their sizes where these are fixed.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of protocol buffers: their numbers, and ints or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size, at = _varint(data, at) if kind == _BYTES else (_FIXED[kind], at)
        if at + size > len(data):
            raise ValueError("a field ends after the message")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] <= 0x7F:  # noqa: PLR2004 - the bit that says: there is more
            return value, at
    raise ValueError("a number without end")


# -- errors --------------------------------------------------------------------------------------


def busy(error: Any, who: object, method: str, *, once: bool) -> Busy | None:
    """`Busy` where the server refused a call, before anything of it was done, and says till when.

    `once`: the call can be made only once: replies had come already, or its requests are used up.
    """
    if error.code() is not Code.RESOURCE_EXHAUSTED or once:
        return None
    seconds = rest(error.trailing_metadata())
    return None if seconds is None else Busy(seconds, f"{who!r}: {method}: {error.details()}")


def said_by_server(error: Any) -> bool:
    """Whether an error surely came from the server's own code: a connection adds no metadata."""
    return bool(error.initial_metadata() or error.trailing_metadata())


def lost(error: Any, who: object, method: str) -> ReplyLost:
    """The connection of a call has ended, which its status does not say for sure."""
    return ReplyLost(f"{who!r}: {error.details()}, before the reply to {method} came: {MAY_HAVE}")


def silent(who: object, method: str, limit: float | None) -> TimeoutError:
    """A call's time is over, and nothing else is heard either."""
    return TimeoutError(
        f"{who!r}: no reply to {method} within {limit} s, nor any other sign of life: {MAY_HAVE}"
    )


# -- options -------------------------------------------------------------------------------------

#: What makes one connection of a channel, over which a call goes once.
OPTIONS: dict[str, Any] = {
    "grpc.use_local_subchannel_pool": 1,  # else all channels to a target share one connection
    "grpc.enable_retries": 0,
    "grpc.service_config_disable_resolution": 1,  # no retries by order of a name server
    "grpc.client_idle_timeout_ms": 2**31 - 1,  # the pool decides how long it may be idle
}


def pairs(value: Any, what: str) -> list[tuple[str, Any]]:
    """A mapping, or an iterable of pairs, as a list of pairs; its values are not shown."""
    try:
        items = value.items() if isinstance(value, Mapping) else value
        listed = [(key, part) for key, part in items]
    except (TypeError, ValueError):
        listed = [(None, None)]
    if not all(isinstance(key, str) for key, _ in listed):
        raise TypeError(f"{what}: expected a mapping, or a list of pairs of a str and a value")
    return listed
