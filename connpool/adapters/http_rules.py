"""What HTTP's answers and httpx's errors mean, in the words of the contract.

Owns the reading of headers (Retry-After, rate limits) and of errors: did the request happen, did it
not, or can nobody know?  Refuses to send anything, to wait, and to know what time it is.

Invariant: an error says that a request was not carried out only where that is certain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ..errors import Busy, CallError, Closed
from .http_pace import Limit
from .http_wire import Stale, Watch

MAY_HAVE = "it may have been carried out"
REFUSED_STREAM = 7  # HTTP/2's "nothing was processed, try again" (RFC 9113, 8.7)
EPOCH = 1e9  # a "reset" beyond this is an instant, not a duration


class ReplyLost(ConnectionError):
    """The connection was lost before the whole response came: the call may have happened."""


# -- headers -------------------------------------------------------------------------------------


def http_date(text: str) -> float | None:
    """An HTTP-date as seconds since 1970, or None where it is none.

    >>> http_date("Sun, 06 Nov 1994 08:49:37 GMT"), http_date("soon")
    (784111777.0, None)
    """
    try:
        date = parsedate_to_datetime(text)
        # One of its three forms leaves it to us to know that it means GMT.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a server wants us to wait, or None where it does not say (or mumbles).

    Reads ``Retry-After``, in seconds or as a date, and ``Retry-After-Ms``.  A date is an instant of
    the server's clock, so it is held against the ``Date`` of the same response, if there is one,
    and against `now` (our clock, seconds since 1970) if not.

    >>> retry_after({"retry-after": "2"}, now=0)
    2.0
    >>> retry_after({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, now=784111770)
    7.0
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    rest = _number(text)
    if rest is None and (date := http_date(text)) is not None:
        rest = max(0.0, date - _their_now(headers, now))
    return rest


def rate_limit(headers: Mapping[str, str], now: float) -> Limit | None:
    """What a response says of calls left and of when there will be more; None: it does not say.

    Reads the pairs ``RateLimit-Remaining`` and ``-Reset``, ``X-RateLimit-Remaining`` and ``-Reset``
    or ``-Reset-After``, ``X-RateLimit-Remaining-Requests`` and ``-Reset-Requests``, and the single
    ``RateLimit`` with its ``r`` and ``t``.  A reset may be seconds, a duration like ``6m0s``, or an
    instant in seconds since 1970.

    >>> rate_limit({"ratelimit-remaining": "9", "ratelimit-reset": "3"}, now=0)
    Limit(remaining=9, reset=3.0)
    >>> rate_limit({"ratelimit": '"burst";r=1;t=2, "hour";r=9000;t=600'}, now=0)
    Limit(remaining=1, reset=2.0)
    """
    for left, reset in _PAIRS:
        limit = _limit(headers.get(left, ""), headers.get(reset, ""), headers, now)
        if limit is not None:
            return limit
    policies = [
        _limit(_item("r", part), _item("t", part), headers, now)
        for part in headers.get("ratelimit", "").split(",")
    ]
    limits = [limit for limit in policies if limit is not None]
    return max(limits, key=lambda limit: limit.reset / (limit.remaining + 1), default=None)


_PAIRS = [
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
]
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def _limit(left: str, reset: str, headers: Mapping[str, str], now: float) -> Limit | None:
    remaining, duration = _number(left), _duration(reset)
    if remaining is None or duration is None:
        return None
    if duration > EPOCH:
        duration = max(0.0, duration - _their_now(headers, now))
    return Limit(int(remaining), duration)


def _item(key: str, part: str) -> str:
    found = re.search(rf";\s*{key}=(\d+)", part)
    return found[1] if found else ""


def _duration(text: str) -> float | None:
    if re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    return _number(text)


def _number(text: str) -> float | None:
    """A plain number from 0 up, not too big to be meant."""
    if not re.fullmatch(r"\s*\d{1,15}(\.\d{1,15})?\s*", text, re.ASCII):
        return None
    return float(text)


def _their_now(headers: Mapping[str, str], now: float) -> float:
    date = http_date(headers.get("date", ""))
    return now if date is None else date


# -- errors --------------------------------------------------------------------------------------


def is_told(error: Exception) -> bool:
    """Whether `meaning` knows it: what httpx, h2 or we ourselves say of a connection."""
    return isinstance(error, (httpx.TransportError, Stale)) or _of_h2(error)


def _of_h2(error: Exception) -> bool:
    # httpcore lets some of them through as they are.
    return type(error).__module__.startswith("h2.")


def meaning(error: Exception, watch: Watch, who: object) -> Exception:
    """What to raise for a request that failed: did it happen or not, is the conn lost or not.

    `who` is the conn, for the message.
    """
    meant = _meaning(error, watch, who)
    if not isinstance(error, httpx.LocalProtocolError):  # its text may quote a secret
        meant.__cause__ = error
    return meant


def _meaning(error: Exception, watch: Watch, who: object) -> Exception:
    if isinstance(error, httpx.UnsupportedProtocol):
        return ValueError(f"{who!r}: expected a url with http:// or https://")
    if isinstance(error, httpx.LocalProtocolError):
        return _against_the_rules(error, who)
    why = f"{who!r}: {type(error).__name__}"
    if text := str(error).rstrip("."):
        why = f"{why}: {text}"
    if watch.requests == 1 and watch.stream_id and _untouched(error, watch.stream_id):
        return Busy(0.0, f"{why}: the server had not begun with it")
    if not watch.sent and (unsent := _unsent(error, watch, why)) is not None:
        return unsent
    if hasattr(_event(error), "remote_reset"):
        return CallError(f"{why}: the server ended this request alone, {MAY_HAVE}")
    if isinstance(error, httpx.TimeoutException):
        return TimeoutError(f"{why}: no answer in time, {MAY_HAVE}")
    return ReplyLost(f"{why}: {MAY_HAVE}")


def _unsent(error: Exception, watch: Watch, why: str) -> Exception | None:
    """What to raise if it is certain that the request did not leave."""
    if isinstance(error, httpx.PoolTimeout):
        return Busy(0.0, f"{why}: others use its connection, nothing was sent")
    if watch.cut:
        return Closed(f"{why}: the request was not sent in whole")
    if isinstance(error, _CONNECTING) or _of_h2(error):
        return Closed(f"{why}: nothing was sent")
    return None


_CONNECTING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)


def _event(error: Exception) -> Any:
    """What h2 or h11 had to say: httpx's error is made of httpcore's, which is made of that."""
    return next(iter(getattr(error.__cause__, "args", ())), None)


def _untouched(error: Exception, stream_id: int) -> bool:
    """Whether an HTTP/2 server has said that it did nothing about this stream."""
    event = _event(error)
    last = getattr(event, "last_stream_id", None)
    if isinstance(last, int):  # GOAWAY: those above it have not been looked at
        return stream_id > last
    return getattr(event, "error_code", None) == REFUSED_STREAM


def _against_the_rules(error: httpx.LocalProtocolError, who: object) -> Exception:
    if type(_event(error)).__name__ == "TooManyStreamsError":
        return Busy(0.0, f"{who!r}: the connection carries all the streams it may")
    if "ConnectionState" in str(error):  # h2: it ended between our being let in and our sending
        return ReplyLost(f"{who!r}: the connection was ended, {MAY_HAVE}")
    return ValueError(
        f"{who!r}: HTTP does not allow this request: its method, its path or one of its headers "
        f"(not shown, for it may hold a secret)"
    )


def unreachable(error: httpx.TransportError, who: object) -> Exception:
    """What `init` raises where no connection can be had."""
    kind = TimeoutError if isinstance(error, httpx.TimeoutException) else ConnectionError
    failure = kind(f"{who!r}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
