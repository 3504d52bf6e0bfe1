"""What an HTTP conn is before it sends anything: its options, its client, its name.

Owns the checking of options and the making of httpx clients.  Refuses to send and to wait.

Invariant: nothing that may be secret (headers, auth, user and password, a query) is in what the
conn says of itself.
"""

from __future__ import annotations

import functools
import inspect
import ssl
from collections.abc import Callable, Collection, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal

import attrs
import httpx

from ..conn import Reply, method_names, seconds
from ..errors import Busy, Closed, InitError, show
from .http_errand import Errand, Manners
from .http_pace import Limit, Pace
from .http_rules import rate_limit
from .http_target import Target

VERBS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
SAFE = ("GET", "HEAD", "OPTIONS")
STREAMS = 100  # of an HTTP/2 connection: what most servers allow, and the most that httpx uses

# What httpx.Client takes, but for what a conn decides by itself.
CLIENT = frozenset(inspect.signature(httpx.Client).parameters) - {
    *("base_url", "http1", "http2", "limits", "timeout"),
}
STATUSES = range(100, 600)


class HttpBase:
    """What `HttpConn` and `AsyncHttpConn` have in common; see there."""

    def __init__(
        self,
        url: Any = None,
        *,
        resource: Any = None,
        methods: Collection[str] = VERBS,
        timeout: float | httpx.Timeout | None = 10.0,
        keepalive: float | None = 5.0,
        http2: bool = False,
        capacity: int | None = None,
        busy: Mapping[int, float | None] | None = None,
        closed: Collection[int] = (),
        max_rest: float = 3600.0,
        repeat: Collection[str] = SAFE,
        probe: Any = None,
        pace: Pace | None = None,
        limit: Callable[[Mapping[str, str], float], Limit | None] = rate_limit,
        **options: Any,
    ) -> None:
        self._target = Target(url)
        self.resource = self._target.name if resource is None else resource
        if self.resource is None:
            raise TypeError("resource: expected one, for there is no base url to be called after")
        self._methods = method_names(methods, self)
        self._timeout = _timeout(timeout)
        self._keepalive = None if keepalive is None else seconds(keepalive, "keepalive")
        self._http2 = bool(http2)
        self.capacity = self._capacity(capacity)
        self._probe = probe
        if pace is not None and not isinstance(pace, Pace):
            raise TypeError(f"pace: expected a Pace, got {show(pace)}")
        self._manners = Manners(
            busy=_rests({429: 0.0, 503: None} if busy is None else busy),
            closed=frozenset(_statuses(closed, "closed")),
            max_rest=seconds(max_rest, "max_rest"),
            repeat=frozenset(str(method).upper() for method in repeat),
            pace=pace,
            limit=limit,
        )
        self._options = _checked(options)
        self._begin()

    def _begin(self) -> None:
        """Prepare what is needed before the first `init`."""
        raise NotImplementedError

    def _capacity(self, capacity: int | None) -> int:
        """How many calls at once."""
        raise NotImplementedError

    @property
    def _is_open(self) -> bool:
        raise NotImplementedError

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<{type(self).__name__} {show(self.resource)}, {state}>"

    # -- the client ----------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """The arguments of an httpx client."""
        options = dict(self._options)
        if not {"verify", "cert", "trust_env"} & options.keys():
            options["verify"] = _tls(self._http2)
        if self._target.bases:
            options["base_url"] = self._target.bases[0]
        return options | {
            "timeout": self._timeout,
            # Over a connection without TLS nobody asks which one it is to be.
            "http1": not self._http2,
            "http2": self._http2,
            "limits": httpx.Limits(
                max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive
            ),
        }

    def _tidy(self, client: Any) -> None:
        """Undo what a user may have changed on a client that was lent."""
        options = self._options
        client.headers = httpx.Headers(options.get("headers"))
        client.params = httpx.QueryParams(options.get("params"))
        client.cookies = httpx.Cookies(options.get("cookies"))
        client.auth = options.get("auth")
        client.event_hooks = options.get("event_hooks") or {}
        client.timeout = self._timeout
        client.base_url = self._target.bases[0] if self._target.bases else ""
        client.follow_redirects = options.get("follow_redirects", False)
        _keep_no_cookies(client)

    def _knocks(self) -> bool:
        """Whether `init` can see for itself that there is a server.

        Somebody else's transport might not know how to stop in time, and ask in earnest.
        """
        return bool(self._target.bases) and not {"transport", "mounts"} & self._options.keys()

    # -- calls ---------------------------------------------------------------------------------

    def _errand(self, method: Any, payload: Any) -> Errand:
        return Errand(self, method, payload, self._manners, self._target)

    def _trial(self) -> Errand:
        """The probe.  It is made whatever the pace, which cannot know whether it counts."""
        manners = attrs.evolve(self._manners, pace=None)
        return Errand(self, "GET", self._probe, manners, self._target)

    def _not_open(self) -> Closed:
        return Closed(f"{self!r}: it is not open, nothing was sent")

    def _not_usable(self) -> Closed:
        return Closed(f"{self!r}: its user has closed the client, or left a response open")

    def _tried(self, errand: Errand) -> None:
        """Raise `InitError` unless the probe was answered well."""
        try:
            reply = errand.result()
        except Busy as error:
            raise InitError(error.reason, retry_after=error.cooldown or None) from error
        except Closed as error:
            raise InitError(error.reason) from error
        response = reply.value if isinstance(reply, Reply) else reply
        if response.status_code >= httpx.codes.BAD_REQUEST:
            raise InitError(f"{self!r}: its probe was answered {response.status_code}")


def _keep_no_cookies(client: Any) -> None:
    """What one caller's answer sets must not be sent along with another caller's request."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))


def make_client(kind: Any, settings: dict[str, Any]) -> Any:
    """An httpx client of the kind that keeps no cookies."""
    client = kind(**settings)
    _keep_no_cookies(client)
    return client


def left_open(client: Any) -> bool:
    """Whether a response still holds the client's connection, as far as httpx lets us see."""
    transport = getattr(client, "_transport", None)
    connections = getattr(getattr(transport, "_pool", None), "connections", ())
    return not all(connection.is_idle() or connection.is_closed() for connection in connections)


@functools.cache
def _tls(http2: bool) -> ssl.SSLContext:
    """All conns of a kind share one, for each costs 20 ms to make.

    (Not those of both kinds: httpcore writes into it which protocols it would speak.)
    """
    return httpx.create_ssl_context()


# -- options -------------------------------------------------------------------------------------


def _timeout(value: Any) -> httpx.Timeout:
    if isinstance(value, httpx.Timeout):
        return value
    if value is not None and not seconds(value, "timeout"):
        raise ValueError("timeout: expected more than 0 seconds, or None for no limit, got 0")
    return httpx.Timeout(value)


def _statuses(values: Any, what: str) -> list[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Collection):
        raise TypeError(f"{what}: expected statuses such as 401, got {show(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value not in STATUSES:
            raise ValueError(f"{what}: expected statuses from 100 to 599, got {show(value)}")
    return list(values)


def _rests(busy: Any) -> dict[int, float | None]:
    if not isinstance(busy, Mapping):
        raise TypeError(
            f"busy: expected a dict of statuses and seconds to rest, such as "
            f"{{429: 0, 503: None}}, got {show(busy)}"
        )
    return {
        status: None if busy[status] is None else seconds(busy[status], f"busy[{status}]")
        for status in _statuses(busy.keys(), "busy")
    }


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    if unknown := options.keys() - CLIENT:
        raise TypeError(
            f"expected options of an httpx client that a conn does not set by itself, "
            f"got {', '.join(sorted(unknown))}"
        )
    problem: Literal["", "ASCII", "one line"] = ""
    try:
        headers = httpx.Headers(options.get("headers"))
    except UnicodeEncodeError:
        problem = "ASCII"
    else:
        if any(sign in value for value in headers.values() for sign in "\r\n\0"):
            problem = "one line"
    if problem:  # outside of "except": the error holds the text, and that may be a key
        raise ValueError(f"headers: expected each value in {problem} (not shown)")
    return options
