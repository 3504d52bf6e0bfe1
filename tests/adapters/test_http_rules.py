"""What HTTP's answers and httpx's errors mean, without a socket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from h2.events import StreamReset
from h2.exceptions import StreamClosedError
from hypothesis import given
from hypothesis import strategies as st

from connpool.adapters.http_pace import Limit
from connpool.adapters.http_rules import (
    ReplyLost,
    http_date,
    is_told,
    meaning,
    rate_limit,
    retry_after,
    unreachable,
)
from connpool.adapters.http_target import Target, public
from connpool.adapters.http_wire import Knock, Reached, Stale, Watch, Wire, hung_up, readable, wake
from connpool.errors import Busy, CallError, Closed

# -- headers

NOVEMBER = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_a_date(text: str) -> None:
    """In the form that is used today, and in those that were."""
    assert http_date(text) == NOVEMBER


@pytest.mark.parametrize("text", ["", "soon", "120", "Sun, 06 Nov 99994 08:49:37 GMT", "\x00"])
def test_what_is_no_date(text: str) -> None:
    """It never raises."""
    assert http_date(text) is None


@given(st.text() | st.text("0123456789 :,-GMTSunNov"))
def test_whatever_a_server_says_is_read_without_an_error(text: str) -> None:
    """Nonsense is no time; what is a time is finite and not negative."""
    for name in ("retry-after", "retry-after-ms", "date"):
        rest = retry_after({name: text}, now=NOVEMBER)
        assert rest is None or 0 <= rest < 1e17
    for left, reset in [("ratelimit-remaining", "ratelimit-reset"), ("ratelimit", "ratelimit")]:
        limit = rate_limit({left: "3", reset: text}, now=NOVEMBER)
        assert limit is None or (limit.remaining >= 0 and limit.reset >= 0)


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:40 GMT"}, 3.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:30 GMT"}, 0.0),
        # our clock is an hour behind, and it does not matter
        (
            {
                "retry-after": "Sun, 06 Nov 1994 09:50:00 GMT",
                "date": "Sun, 06 Nov 1994 09:49:37 GMT",
            },
            23.0,
        ),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:40 GMT", "date": "today"}, 3.0),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], rest: float | None) -> None:
    """In seconds, as a date by the server's own clock, or not at all."""
    assert retry_after(httpx.Headers(headers), NOVEMBER) == rest


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({}, None),
        ({"RateLimit-Remaining": "9", "RateLimit-Reset": "30"}, Limit(9, 30.0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1.5"}, Limit(0, 1.5)),
        ({"X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "784111780"}, Limit(4, 784111780)),
        ({"X-RateLimit-Remaining": "4", "X-RateLimit-Reset-After": "0.25"}, Limit(4, 0.25)),
        (
            {"X-RateLimit-Remaining-Requests": "59", "X-RateLimit-Reset-Requests": "6m0s"},
            Limit(59, 360.0),
        ),
        (
            {"X-RateLimit-Remaining-Requests": "59", "X-RateLimit-Reset-Requests": "1h2s20ms"},
            Limit(59, 3602.02),
        ),
        ({"RateLimit": '"default";r=50;t=30'}, Limit(50, 30.0)),
        ({"RateLimit": '"a";r=50;t=30, "b";r=0;t=3, "c"'}, Limit(0, 3.0)),
        ({"RateLimit-Remaining": "9"}, None),
        ({"RateLimit-Remaining": "some", "RateLimit-Reset": "30"}, None),
        ({"RateLimit-Remaining": "9", "RateLimit-Reset": "soon"}, None),
    ],
)
def test_how_much_is_left(headers: dict[str, str], limit: Limit | None) -> None:
    """In all the ways in which servers say so."""
    assert rate_limit(httpx.Headers(headers), NOVEMBER) == limit


def test_a_reset_may_be_an_instant() -> None:
    """A number that is too big for a duration is held against the server's clock, or ours."""
    headers = {"x-ratelimit-remaining": "4", "x-ratelimit-reset": "1700000007"}
    assert rate_limit(headers, now=1700000000) == Limit(4, 7.0)
    headers["date"] = "Tue, 14 Nov 2023 22:13:25 GMT"  # 1700000005
    assert rate_limit(headers, now=1700000000) == Limit(4, 2.0)
    assert rate_limit(headers | {"date": ""}, now=1700000099) == Limit(4, 0.0)


# -- errors


class WriteError(Exception):
    """As httpcore's."""


def watch(*events: str | tuple[str, dict[str, Any]]) -> Watch:
    """What has been seen of a request after these events."""
    seen = Watch(Wire(None))
    for event in events:
        seen(*(event if isinstance(event, tuple) else (event, {})))
    return seen


def caused(error: httpx.TransportError, event: object) -> httpx.TransportError:
    """As httpx raises it: made of an error that is made of what h2 said."""
    error.__cause__ = Exception(event)
    return error


STARTED = "http11.send_request_headers.started"
STREAM_5 = ("http2.send_request_headers.started", {"stream_id": 5})
BROKEN = ("http11.send_request_headers.failed", {"exception": WriteError()})
LATE = ("http11.send_request_headers.failed", {"exception": TimeoutError()})


@pytest.mark.parametrize(
    ("error", "events", "meant"),
    [
        # before anything was sent
        (httpx.ConnectError("refused"), [], Closed),
        (httpx.ConnectTimeout("slow"), [], Closed),
        (httpx.ProxyError("403"), [], Closed),
        (httpx.PoolTimeout(""), [], Busy),
        # a redirect was followed: something had happened before
        (httpx.ConnectError("refused"), [STARTED], ReplyLost),
        (httpx.PoolTimeout(""), [STARTED], TimeoutError),
        # not sent in whole
        (httpx.ReadError("reset"), [STARTED, BROKEN], Closed),
        (httpx.RemoteProtocolError("disconnected"), [STARTED, BROKEN], Closed),
        (httpx.ReadError("reset"), [STARTED, STARTED, BROKEN], ReplyLost),
        (httpx.WriteTimeout(""), [STARTED, LATE], TimeoutError),
        # sent, as far as anybody knows
        (httpx.ReadTimeout(""), [STARTED], TimeoutError),
        (httpx.ReadError("reset"), [STARTED], ReplyLost),
        (httpx.RemoteProtocolError("disconnected"), [STARTED], ReplyLost),
        (httpx.WriteError("broken"), [STREAM_5], ReplyLost),
        # a transport that tells nothing
        (httpx.ReadError("reset"), [], ReplyLost),
        # HTTP/2: the server says what it has not begun with
        (
            caused(httpx.RemoteProtocolError(""), SimpleNamespace(last_stream_id=3)),
            [STREAM_5],
            Busy,
        ),
        (
            caused(httpx.RemoteProtocolError(""), SimpleNamespace(last_stream_id=0)),
            [STREAM_5],
            Busy,
        ),
        (
            caused(httpx.RemoteProtocolError(""), SimpleNamespace(last_stream_id=5)),
            [STREAM_5],
            ReplyLost,
        ),
        (
            caused(httpx.RemoteProtocolError(""), SimpleNamespace(last_stream_id=None)),
            [STREAM_5],
            ReplyLost,
        ),
        (
            caused(httpx.RemoteProtocolError(""), SimpleNamespace(last_stream_id=3)),
            [STREAM_5, STREAM_5],
            ReplyLost,
        ),
        (
            caused(httpx.RemoteProtocolError(""), StreamReset(stream_id=5, error_code=7)),
            [STREAM_5],
            Busy,
        ),
        (
            caused(httpx.RemoteProtocolError(""), StreamReset(stream_id=5, error_code=8)),
            [STREAM_5],
            CallError,
        ),
        # what httpcore lets through as it is
        (StreamClosedError(5), [], Closed),
        (StreamClosedError(5), [STREAM_5], ReplyLost),
        (Stale(), [STARTED], ReplyLost),
        # not allowed
        (httpx.LocalProtocolError("Illegal header value b's3cret'"), [STARTED], ValueError),
        (
            caused(httpx.LocalProtocolError(""), type("TooManyStreamsError", (), {})()),
            [STREAM_5],
            Busy,
        ),
        (
            httpx.LocalProtocolError("SEND_HEADERS in state ConnectionState.CLOSED"),
            [STREAM_5],
            ReplyLost,
        ),
        (httpx.UnsupportedProtocol("ftp"), [], ValueError),
    ],
)
def test_what_became_of_a_request_that_failed(
    error: Exception, events: list[Any], meant: type[Exception]
) -> None:
    """That it did not happen is said only where it is certain; no secret is told."""
    assert is_told(error)
    found = meaning(error, watch(*events), "the conn")
    assert type(found) is meant
    assert "'the conn'" in str(found)
    assert "s3cret" not in str(found)
    if isinstance(found, (OSError, CallError)):
        assert "may have been carried out" in str(found)
    told = not isinstance(error, httpx.LocalProtocolError)
    assert (found.__cause__ is error) is told


def test_other_errors_are_left_alone() -> None:
    """What a user's own code raises on the way is his."""
    assert not is_told(KeyError("colour"))
    assert not is_told(httpx.InvalidURL("no"))
    assert not is_told(httpx.TooManyRedirects("20"))


def test_a_stream_is_seen_as_soon_as_it_is_there() -> None:
    """TCP first, TLS over it then."""
    wire = Wire(None)
    seen = Watch(wire)
    seen("connection.connect_tcp.started", {})
    seen("connection.connect_tcp.complete", {"return_value": "tcp"})
    assert wire.stream == "tcp"
    seen("connection.start_tls.complete", {"return_value": "tls"})
    assert wire.stream == "tls"
    assert not seen.sent


def test_a_knock_stops_before_the_first_byte() -> None:
    """It goes as far as the connection, which it tells of as others do."""
    knock = Knock(Wire(None))
    knock("connection.connect_tcp.complete", {"return_value": "tcp"})
    with pytest.raises(Reached):
        knock(STARTED, {})
    assert (knock.wire.stream, knock.sent) == ("tcp", False)


def test_nothing_new_is_sent_over_a_worn_wire() -> None:
    """What its other end has understood of the last request is not known."""
    wire = Wire(None, worn=True)
    with pytest.raises(Stale):
        Watch(wire)(STARTED, {})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), ConnectionError),
        (httpx.ConnectTimeout("slow"), TimeoutError),
    ],
)
def test_a_server_that_cannot_be_reached(
    error: httpx.TransportError, kind: type[Exception]
) -> None:
    """An OSError with its cause."""
    found = unreachable(error, "the conn")
    assert type(found) is kind
    assert found.__cause__ is error


def test_a_stream_that_is_not_there() -> None:
    """Nothing can be asked of it, and nothing breaks."""
    gone = SimpleNamespace(get_extra_info=lambda name: None)
    for stream in (None, gone):
        wire = Wire(None, stream)
        assert not readable(wire)
        assert not hung_up(wire)
        wake(wire)


# -- urls


def urls(target: Target, payload: Any) -> list[str]:
    return [str(request["url"]) for _, request in target.requests(payload)]


@pytest.mark.parametrize(
    ("base", "payload", "wanted"),
    [
        ("http://h", None, "http://h"),
        ("http://h", "/a?b=c", "http://h/a?b=c"),
        ("http://h/v1", "a", "http://h/v1/a"),
        ("http://h/v1/", "/a", "http://h/v1/a"),
        ("http://h:81/v1", {"url": "/a", "json": 1}, "http://h:81/v1/a"),
        ("http://h/v1", {"json": 1}, "http://h/v1"),
        ("http://h/v1", "http://h/v2", "http://h/v2"),
        ("http://h/v1", httpx.URL("http://h:80/v2"), "http://h/v2"),
        (None, "http://h/v2", "http://h/v2"),
        (lambda name: f"http://{name}/", "h", "http://h/"),
        (lambda: "http://h/now", None, "http://h/now"),
        (lambda a, b: f"http://{a}/{b}", ("h", "x"), "http://h/x"),
        (lambda a: {"url": f"http://h/{a}", "json": a}, 7, "http://h/7"),
    ],
)
def test_where_a_request_goes(base: Any, payload: Any, wanted: str) -> None:
    """To a path behind the base, to a whole URL at the same server, to what a function says."""
    assert urls(Target(base), payload) == [wanted]


def test_mirrors_in_turn() -> None:
    """The one that answered last is the first to be asked."""
    target = Target(["http://a/x", "http://b"])
    assert urls(target, "/1") == ["http://a/x/1", "http://b/1"]
    assert urls(target, None) == ["http://a/x", "http://b"]
    target.prefer(1)
    assert urls(target, "/1") == ["http://b/1", "http://a/x/1"]
    assert urls(target, "http://b/other") == ["http://b/other"]
    function = Target(lambda name: [f"http://a/{name}", f"http://b/{name}"])
    function.prefer(1)
    assert function.requests("x") == [
        (1, {"url": httpx.URL("http://b/x")}),
        (0, {"url": httpx.URL("http://a/x")}),
    ]


@pytest.mark.parametrize(
    ("base", "error", "text"),
    [
        (1, TypeError, "got int"),
        ([], ValueError, "at least one mirror"),
        (["http://a", None], TypeError, "got NoneType"),
        ("ftp://a", ValueError, "http://"),
        ("/path", ValueError, "http://"),
        ("http://me:s3cret@a/?key=s3cret", ValueError, "base without"),
    ],
)
def test_a_base_that_is_none(base: Any, error: type[Exception], text: str) -> None:
    """It is refused at once, and no secret is told."""
    with pytest.raises(error, match=text) as caught:
        Target(base)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "payload", "error", "text"),
    [
        ("http://h", 1, TypeError, "payload"),
        ("http://h", ["/a"], TypeError, "payload"),
        ("http://h", {"url": ["/a", "/b"]}, TypeError, "url"),
        ("http://h", {"method": "GET"}, TypeError, "method"),
        ("http://h", {"extensions": {"trace": print}}, ValueError, "trace"),
        ("http://h", "http://other/a?key=s3cret", ValueError, "http://other"),
        ("http://h", "https://h/a", ValueError, "https://h"),
        ("http://h", "http://h:81/a", ValueError, "http://h"),
        ("http://h", "//other/a", ValueError, "other"),
        (None, None, ValueError, "url"),
        (None, "/a", ValueError, "url"),
    ],
)
def test_a_payload_that_goes_nowhere(
    base: Any, payload: Any, error: type[Exception], text: str
) -> None:
    """Above all not to a server that the conn was not made for: its key would go along."""
    with pytest.raises(error, match=text) as caught:
        Target(base).requests(payload)
    assert "s3cret" not in str(caught.value)


def test_a_name_without_secrets() -> None:
    """User, password and query are left out."""
    assert Target("https://me:s3cret@h:8443/v1/").name == "https://h:8443/v1"
    assert public(httpx.URL("https://h/?key=s3cret#s3cret")) == "https://h"
    assert Target(None).name is None
