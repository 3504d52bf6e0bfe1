"""What a websocket conn does without waiting, on threads and in tasks alike.

Owns a conn's options, what is shown of it, and what a failure to connect means.  Refuses to know
how anything is sent or awaited.

Invariant: what may hold a secret, the query and the user of a URL and all headers, is handed to the
library alone, and is in no text that leaves here.
"""

from __future__ import annotations

import email.utils
import inspect
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI
from websockets.protocol import State
from websockets.uri import parse_uri

from ..conn import places, seconds
from ..errors import Closed, InitError, show
from .websocket_rpc import MAY_HAVE, Call, CallTimeout, Numbers, Push, ReplyLost, busy_rests

logger = logging.getLogger("connpool")

# What the library tells at the level of DEBUG has headers and queries in it.
_quiet = logging.getLogger("connpool.websockets")
_quiet.setLevel(logging.INFO)

MOST_RETRY_AFTER = 3600.0  # seconds: no server may keep us away for longer

OnPush = Callable[[str, Any], object]
Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


class WebSocketClient:
    """The half of a websocket conn that never waits; see `WebSocketConn` for the parameters."""

    #: Ids tell replies apart: that of a call whose caller has left reaches nobody.
    survives_cancel = True

    #: Called with the error when a connection is found to be gone, once for each; or None.
    on_lost: Callable[..., object] | None = None

    #: The library's function that connects.
    _connect: Callable[..., Any]

    def __init__(
        self,
        url: str,
        *,
        methods: Collection[str] | str,
        resource: Any = None,
        capacity: int = 100,
        headers: Headers | None = None,
        on_push: OnPush | None = None,
        busy_codes: Mapping[int, float] | None = None,
        call_timeout: float | None = 10.0,
        connect_timeout: float = 10.0,
        check_timeout: float | None = 5.0,
        close_timeout: float = 1.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        max_size: int | None = 2**20,
        **options: Any,
    ) -> None:
        self.resource = shown(url) if resource is None else resource
        self.capacity = places(capacity)
        self.call_timeout = _limit(call_timeout, "call_timeout")
        self.check_timeout = _limit(check_timeout, "check_timeout")
        self.close_timeout = seconds(close_timeout, "close_timeout")
        self.max_size = None if max_size is None else places(max_size, "max_size")
        self._url = url
        self._methods = _method_names(methods)
        self._headers = headers
        self._on_push = _callback(on_push)
        self._busy_codes = busy_rests({} if busy_codes is None else busy_codes)
        self._numbers = Numbers()
        self._options = {
            "open_timeout": _limit(connect_timeout, "connect_timeout"),
            "close_timeout": self.close_timeout,
            "max_size": self.max_size,
            "logger": _quiet,
            **self._pings(ping_interval, ping_timeout),
            **options,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {show(self.resource)}>"

    @classmethod
    def _takes(cls, option: str) -> bool:
        """Whether the library that is installed has this option."""
        return option in inspect.signature(cls._connect).parameters

    def _pings(self, interval: float | None, timeout: float | None) -> dict[str, Any]:
        pings = {
            "ping_interval": _limit(interval, "ping_interval"),
            "ping_timeout": _limit(timeout, "ping_timeout"),
        }
        # Before websockets 15 its connections for threads sent none.
        return pings if self._takes("ping_interval") else {}

    def _setup(self) -> dict[str, Any]:
        """The arguments of the library's connect, headers of this moment among them."""
        headers = self._headers() if callable(self._headers) else self._headers
        return {**self._options, "additional_headers": headers}

    # -- what it means -------------------------------------------------------------------------

    def _unopened(self, error: Exception) -> Exception:
        """What an init raises for an error of the library's connect."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            after = retry_after(error.response.headers.get("Retry-After"), time.time())
            return InitError(f"{self!r}: the server answered {status}", retry_after=after)
        return ConnectionError(f"{self!r}: {type(error).__name__}: {without_secrets(str(error))}")

    def _timed_out(self, call: Call, *, alive: bool) -> Exception:
        text = f"{self!r}: no reply to {call.method} within {self.call_timeout} s"
        if alive:
            return CallTimeout(f"{text}, {MAY_HAVE}")
        return TimeoutError(f"{text}, nor any other sign of life, {MAY_HAVE}")

    def _lost_reply(self, call: Call, why: Exception | None) -> ReplyLost:
        what = "it was closed" if why is None else str(why)
        lost = ReplyLost(f"{self!r}: {what}, before the reply to {call.method} came: {MAY_HAVE}")
        lost.__cause__ = why
        return lost

    def _not_sent(self, why: object) -> Closed:
        return Closed(f"{self!r}: {why}; the call was not sent in whole")

    # -- callbacks -----------------------------------------------------------------------------

    def _deliver(self, push: Push) -> None:
        if self._on_push is not None:
            try:
                self._on_push(push.method, push.params)
            except Exception:
                logger.exception("%r: on_push failed for %s", self, show(push.method))

    def _tell_lost(self, error: Exception) -> None:
        if (on_lost := self.on_lost) is not None:
            try:
                on_lost(error)
            except Exception:
                logger.exception("%r: on_lost failed", self)


class Loss(ConnectionError):
    """Why a connection is gone, for those who were on it."""


def loss(error: Exception | None) -> Exception:
    """What ended a connection, as an error to show."""
    if isinstance(error, ConnectionClosed):
        return Loss(f"the connection ended, {_how(error)}")
    return Loss("the connection was given up") if error is None else error


def _how(error: ConnectionClosed) -> str:
    """A close in the words of websockets, and what the wire said."""
    cause = error.__cause__
    return f"{error}: {cause}" if isinstance(cause, OSError) and str(cause) else str(error)


def is_open(ws: Any) -> bool:
    """Whether nobody has begun to close this connection of the library."""
    return ws.protocol.state is State.OPEN


# -- options ------------------------------------------------------------------------------------


def shown(url: Any) -> str:
    """A URL without what may be secret in it; ValueError where it is not one of a websocket.

    >>> shown("wss://me:password@api.example/v1?token=secret")
    'wss://api.example/v1'
    """
    if not isinstance(url, str):
        raise TypeError(f"url: expected a str, got {type(url).__name__}")
    try:
        parse_uri(url)
        parts = urlsplit(url)
    except (InvalidURI, ValueError):  # whose texts have all of it
        raise ValueError(
            "url: expected ws:// or wss://, a host, and no #, got another, which is not shown, for "
            "it may hold a password"
        ) from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_secrets(text: str) -> str:
    """A text about URLs, without their users and queries.

    >>> without_secrets("cannot go to ws://me:password@there/path?token=secret now")
    'cannot go to ws://there/path now'
    """
    text = re.sub(r"(?<=//)[^\s/]*@", "", text)
    return re.sub(r"[?#]\S*", "", text)


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds of a ``Retry-After``, a number or a date of HTTP; None: nothing to go by.

    >>> retry_after("7", 0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 50), retry_after("", 0)
    (7.0, 10.0, None)
    """
    if not value:
        return None
    try:
        rest = float(value)
    except ValueError:
        try:
            rest = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return None if math.isnan(rest) else min(max(0.0, rest), MOST_RETRY_AFTER)


def _limit(value: Any, what: str) -> float | None:
    if value is None:
        return None
    limit = seconds(value, what)
    if not limit:
        raise ValueError(f"{what}: expected more than 0 seconds, or None for no limit, got 0")
    return limit


def _method_names(methods: Any) -> str | frozenset[str]:
    if isinstance(methods, str):
        return methods
    if not isinstance(methods, Collection) or not all(isinstance(name, str) for name in methods):
        raise TypeError(
            f"methods: expected a collection of names, or the name of the method that lists them, "
            f"got {show(methods)}"
        )
    return frozenset(methods)


def _callback(on_push: Any) -> OnPush | None:
    if on_push is not None and (not callable(on_push) or inspect.iscoroutinefunction(on_push)):
        raise TypeError(f"on_push: expected a plain function, got {show(on_push)}")
    return on_push  # type: ignore[no-any-return]  # the line above is the proof
