"""Where a request goes: the base URL, its mirrors, or a function that gives the URL.

Owns the making of URLs out of payloads, and the order of mirrors.  Refuses to send anything.

Invariant: what a conn sends along by itself, keys above all, goes to the servers that its maker
named and to no others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from ..errors import show

# What a payload may hold: the arguments of httpx.Client.request, but for the method.
ARGUMENTS = frozenset(inspect.signature(httpx.Client.request).parameters) - {"self", "method"}


class Target:
    """The places that one conn talks to.

    Parameters:
        url: as of the conns in `connpool.adapters.http`.

    >>> target = Target(["https://one.example/v1", "https://two.example/v1"])
    >>> [str(request["url"]) for _, request in target.requests("/users?page=2")]
    ['https://one.example/v1/users?page=2', 'https://two.example/v1/users?page=2']
    """

    def __init__(self, url: Any) -> None:
        self._function: Callable[..., Any] | None = url if callable(url) else None
        self.bases: list[httpx.URL] = []
        if self._function is None and url is not None:
            mirrors = url if isinstance(url, (list, tuple)) else [url]
            self.bases = [_base(mirror) for mirror in mirrors]
            if not self.bases:
                raise ValueError("url: expected at least one mirror, got none")
        self._first = 0  # the mirror that was the last to answer well

    @property
    def name(self) -> str | None:
        """The first base, without user and password; None: there is none."""
        return public(self.bases[0]) if self.bases else None

    def prefer(self, mirror: int) -> None:
        """The next request asks this mirror first."""
        self._first = mirror

    def requests(self, payload: Any) -> list[tuple[int, dict[str, Any]]]:
        """The arguments of the request for each mirror, in the order in which to ask them."""
        given = self._arguments(payload)
        urls = given.pop("url", None)
        several = list(urls) if isinstance(urls, (list, tuple)) else [urls]
        if len(several) > 1 and self._function is None:
            raise TypeError(f"url in a payload: expected one, got {len(several)}")
        places = [place for url in several for place in self._places(url)]
        if len(several) > 1:
            places = [(mirror, url) for mirror, (_, url) in enumerate(places)]
        first = self._first % len(places)
        return [(mirror, given | {"url": url}) for mirror, url in places[first:] + places[:first]]

    def _arguments(self, payload: Any) -> dict[str, Any]:
        if self._function is not None:
            arguments = payload if isinstance(payload, tuple) else (payload,)
            payload = self._function(*(() if payload is None else arguments))
        if isinstance(payload, Mapping):
            if unknown := payload.keys() - ARGUMENTS:
                raise TypeError(
                    f"payload: expected arguments of an httpx request "
                    f"({', '.join(sorted(ARGUMENTS))}), got also {show(sorted(unknown, key=str))}"
                )
            if "trace" in (payload.get("extensions") or {}):
                raise ValueError("extensions: expected no 'trace', for the conn needs it itself")
            return dict(payload)
        several = isinstance(payload, (list, tuple)) and self._function is not None
        if payload is not None and not several and not isinstance(payload, (str, httpx.URL)):
            raise TypeError(
                f"payload: expected a URL, a dict of an httpx request's arguments, or None, "
                f"got {type(payload).__name__}"
            )
        return {"url": payload}

    def _places(self, url: Any) -> list[tuple[int, httpx.URL]]:
        """Where a request for `url` can be sent, each with the number of its mirror."""
        if url is None:
            if not self.bases:
                raise ValueError("url: expected one in the payload, for the conn has none")
            return list(enumerate(self.bases))
        wanted = httpx.URL(url)
        if wanted.scheme or wanted.host:
            # Our headers go along, and there may be a key among them.
            if self.bases and _origin(wanted) not in map(_origin, self.bases):
                raise ValueError(
                    f"url: expected a path, or one at {self.name}, got one at "
                    f"{wanted.scheme}://{wanted.host}"
                )
            return [(self._first, wanted)]
        if not self.bases:
            raise ValueError("url: expected a whole one, for the conn has no base to add to it")
        return [(mirror, _joined(base, wanted)) for mirror, base in enumerate(self.bases)]


def _base(url: Any) -> httpx.URL:
    if not isinstance(url, (str, httpx.URL)):
        raise TypeError(
            f"url: expected a URL, a list of them or a function, got {type(url).__name__}"
        )
    base = httpx.URL(url)
    if base.scheme not in {"http", "https"} or not base.host:
        raise ValueError(f"url: expected http://... or https://..., got {show(public(base))}")
    if base.query or base.fragment:
        raise ValueError(f"url: expected a base without ? and #, got more than {public(base)}")
    return base


def _joined(base: httpx.URL, path: httpx.URL) -> httpx.URL:
    return base.copy_with(
        raw_path=base.raw_path.rstrip(b"/") + b"/" + path.raw_path.lstrip(b"/"),
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def public(url: httpx.URL) -> str:
    """A URL without what may be secret: user, password, and all that follows a question mark.

    >>> public(httpx.URL("https://me:pw@example.org/v1/?key=x"))
    'https://example.org/v1'
    """
    netloc = url.netloc.decode("ascii")
    return f"{url.scheme}://{netloc}{url.path.rstrip('/')}"
