"""The wire: how far a request has come on its connection, and how that connection is.

Owns what httpx lets us see of its network streams, by the ``trace`` extension of a request.
Refuses to know what follows from it (`http_rules`), and to send.

Invariant: what is not known counts as sent.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import attrs

LONGEST_WRITE = 60.0  # seconds for one frame, during which a call cannot be cancelled


@attrs.define(eq=False)
class Wire:
    """A client of httpx, and what is known of its connection."""

    client: Any
    stream: Any = None  # httpx's word for a connected socket
    on_stream: Callable[[Any], None] | None = None
    users: int = 0
    lent: bool = False  # in somebody's hands
    worn: bool = False  # good enough for those who wait for an answer, but for no new request


class Stale(Exception):
    """Not an error: a request was stopped in time, for its wire is worn."""


@attrs.define
class Watch:
    """How far a request has come: what httpx's ``trace`` extension tells.

    Parameters:
        wire: what it goes over; learns of each new stream.
    """

    wire: Wire
    requests: int = 0  # more than one where httpx follows a redirect, or an auth needs a second
    cut: bool = False  # the one request surely did not leave in whole
    stream_id: int | None = None  # of HTTP/2

    @property
    def sent(self) -> bool:
        """Whether anything may have been carried out."""
        return self.requests > 0 and not self.cut

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """An event, by its name, such as ``http11.send_request_headers.complete``."""
        if event.endswith(".send_request_headers.started"):
            if self.wire.worn:
                raise Stale
            self.requests += 1
            self.cut = False
            self.stream_id = info.get("stream_id")
        elif event == "http11.send_request_headers.failed":
            # A WriteError leaves at least the empty line unsent that ends the headers, and without
            # that it is no request.  (After a timeout it may still lie in a buffer and leave; and
            # in HTTP/2 another stream's write may have taken these frames along.)
            unsent = type(info.get("exception")).__name__ == "WriteError"
            self.cut = unsent and self.requests == 1
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self.wire.stream = stream = info.get("return_value")
            if self.wire.on_stream is not None:
                self.wire.on_stream(stream)
        elif event.startswith("http2.") and not isinstance(info.get("exception", _NONE), Exception):
            # Cancelled.  httpcore loses count of what the two sides may send each other.  This is
            # the moment to say so: before it has tidied up, others may send.
            self.wire.worn = True

    async def follow(self, event: str, info: Mapping[str, Any]) -> None:
        """The same for an async client."""
        self(event, info)


_NONE = Exception()


class Reached(Exception):
    """Not an error: a `Knock` has reached the server."""


class Knock(Watch):
    """Stops a request just before its first byte leaves: the connection stands, no more is asked.

    >>> Knock(Wire(None))("http11.send_request_headers.started", {})
    Traceback (most recent call last):
    connpool.adapters.http_wire.Reached
    """

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """See `Watch`."""
        if event.endswith(".send_request_headers.started"):
            raise Reached
        super().__call__(event, info)


# -- the network stream --------------------------------------------------------------------------

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


def open_socket(wire: Wire) -> Any:
    """The socket of a wire; None where there is none, or where our side has closed it."""
    sock = None if wire.stream is None else wire.stream.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else sock


def readable(wire: Wire) -> bool:
    """Whether something has come, be it the end: on an idle HTTP/1.1 connection it is the end."""
    return open_socket(wire) is not None and bool(wire.stream.get_extra_info("is_readable"))


def hung_up(wire: Wire) -> bool:
    """Whether the server is known to have closed; False where the system cannot tell.

    An idle HTTP/2 connection may well have something to read, for servers send settings and pings.
    """
    sock = open_socket(wire)
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def wake(wire: Wire) -> None:
    """End the connection under whoever waits for it in another thread."""
    sock = open_socket(wire)
    try:
        if sock is not None:
            # Not ssl's own, which takes the TLS away from under the reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already


def write_in_whole(stream: Any) -> None:
    """Let no cancellation cut short what is being written.

    httpcore takes the frames of all calls of a connection along with those of one.  Were they lost
    with that one, the others would wait in vain; and the server could not understand what follows,
    for HTTP/2 abbreviates headers by referring to earlier ones.
    """
    write = stream.write

    async def whole(buffer: bytes, timeout: float | None = None) -> None:
        with anyio.CancelScope(shield=True):
            await write(buffer, LONGEST_WRITE if timeout is None else timeout)

    stream.write = whole
