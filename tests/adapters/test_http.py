"""HttpConn and AsyncHttpConn: what they send, and what they make of answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from connpool.adapters.http import AsyncHttpConn, HttpConn, Pace
from connpool.adapters.http_base import _tls
from connpool.conn import AsyncConn, Conn, Reply, check_conn, describe
from connpool.errors import Busy, Closed, InitError
from tests.servers.http import HttpServer, Limiter

from . import PATIENCE
from .http_ways import WAYS, Way

pytestmark = pytest.mark.anyio


@pytest.fixture(params=WAYS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(name: str) -> str:
    return "trio" if name == "trio" else "asyncio"


@pytest.fixture
def way(name: str) -> Way:
    return Way(name)


@pytest.fixture(scope="module")
def running() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def server(running: HttpServer) -> HttpServer:
    """A server that has not been asked anything."""
    running.asked.clear()
    running.done.clear()
    running.answers.clear()
    running.revoked.clear()
    return running


# -- requests


@pytest.mark.parametrize(
    ("method", "payload", "told"),
    [
        ("GET", None, ("GET", "/v1", "", "")),
        ("GET", "/echo?a=b", ("GET", "/v1/echo", "a=b", "")),
        ("get", "echo", ("GET", "/v1/echo", "", "")),
        ("POST", {"url": "/echo", "json": {"a": 1}}, ("POST", "/v1/echo", "", '{"a":1}')),
        ("PUT", {"url": "/echo", "content": "hello"}, ("PUT", "/v1/echo", "", "hello")),
        ("DELETE", {"url": "/echo", "params": {"a": "b"}}, ("DELETE", "/v1/echo", "a=b", "")),
        ("PATCH", {"url": "/echo", "data": {"a": "b"}}, ("PATCH", "/v1/echo", "", "a=b")),
    ],
)
async def test_a_call_is_a_request(
    way: Way, server: HttpServer, method: str, payload: Any, told: tuple[str, ...]
) -> None:
    """A method is a verb, a payload a path or the arguments of httpx; a reply is a response."""
    for http2, version in [(False, "1.1"), (True, "2")]:
        async with way.opened(server.url + "/v1", http2=http2) as conn:
            echo = (await way.call(conn, method, payload)).json()
        assert (echo["method"], echo["path"], echo["query"], echo["body"]) == told
        assert echo["version"] == version


async def test_what_goes_along_with_each_request(way: Way, server: HttpServer) -> None:
    """What the conn was given, and what the payload adds."""
    options: dict[str, Any] = {
        "headers": {"x-api-key": "one", "x-colour": "red"},
        "auth": ("me", "pw"),
        "params": {"page": "2"},
        "cookies": {"taste": "sweet"},
    }
    async with way.opened(server.url, **options) as conn:
        told = (await way.call(conn, "GET", {"url": "/", "headers": {"x-colour": "blue"}})).json()
    assert told["headers"]["x-api-key"] == "one"
    assert told["headers"]["x-colour"] == "blue"
    assert told["headers"]["authorization"] == "Basic bWU6cHc="
    assert told["headers"]["cookie"] == "taste=sweet"
    assert told["query"] == "page=2"


async def test_user_and_password_may_be_in_the_url(way: Way, server: HttpServer) -> None:
    """They are used, and not shown."""
    url = server.url.replace("://", "://me:s3cret@")
    async with way.opened(url) as conn:
        told = (await way.call(conn, "GET", "/echo")).json()
        assert "s3cret" not in repr(conn)
        assert conn.resource == server.url
    assert told["headers"]["authorization"].startswith("Basic ")


async def test_a_function_makes_the_request(way: Way, server: HttpServer) -> None:
    """Payloads are its arguments."""

    def user(name: str, colour: str = "red") -> dict[str, Any]:
        return {"url": f"{server.url}/user/{name}", "json": colour}

    async with way.opened(user, resource="users") as conn:
        assert (await way.call(conn, "PUT", "ada")).json()["path"] == "/user/ada"
        assert (await way.call(conn, "PUT", ("bob", "blue"))).json()["body"] == '"blue"'


async def test_one_connection_for_all_calls(way: Way, server: HttpServer) -> None:
    """The second call finds it open."""
    async with way.opened(server.url) as conn:
        for _ in range(3):
            await way.call(conn, "GET", "/echo")
    assert len({asked.port for asked in server.asked}) == 1


@pytest.mark.parametrize("http2", [False, True])
async def test_an_opening_asks_for_nothing(way: Way, server: HttpServer, http2: bool) -> None:
    """It is seen whether there is a server, and no request is made."""
    async with way.opened(server.url, http2=http2) as conn:
        assert await way.do(conn.check)
    assert server.asked == []


async def test_the_methods_are_the_verbs(way: Way, server: HttpServer) -> None:
    """All of them, or those it was given."""
    async with way.opened(server.url) as conn:
        check_conn(conn, awaits=way.tasks)
        what = describe(conn, await way.do(conn.methods))
        assert {"GET", "POST", "DELETE"} < what.methods
        assert (what.resources, what.capacity, what.checks) == ((server.url,), 1, True)
    async with way.opened(server.url, methods=["GET"], resource="news") as conn:
        assert await way.do(conn.methods) == {"GET"}
        assert conn.resource == "news"


async def test_redirects_are_followed_where_asked_for(way: Way, server: HttpServer) -> None:
    """By the payload or for all calls; else the redirect is the reply."""
    server.answers["/old"] = [(302, {"location": "/new"}, b"")]
    async with way.opened(server.url) as conn:
        assert (await way.call(conn, "GET", "/old")).status_code == 302
        response = await way.call(conn, "GET", {"url": "/old", "follow_redirects": True})
        assert response.json()["path"] == "/new"


async def test_cookies_are_not_kept(way: Way, server: HttpServer) -> None:
    """What one caller is given does not go along with another caller's request."""
    server.answers["/login"] = [(200, {"set-cookie": "session=yours"}, b"")]
    async with way.opened(server.url) as conn:
        response = await way.call(conn, "GET", "/login")
        assert response.cookies["session"] == "yours"
        assert "cookie" not in (await way.call(conn, "GET", "/echo")).json()["headers"]


async def test_somebody_elses_transport(way: Way) -> None:
    """One that sends nothing anywhere is asked what it is asked, and for nothing else."""
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, text="by hand")

    async with way.opened("http://nowhere", transport=httpx.MockTransport(handle)) as conn:
        assert (await way.call(conn, "GET", "/a")).text == "by hand"
        assert await way.do(conn.check)
    assert asked == ["/a"]


async def test_a_payload_that_cannot_be_sent(way: Way, server: HttpServer) -> None:
    """Its caller is told what is wrong, but not what may be a secret; the conn goes on."""
    async with way.opened(server.url) as conn:
        for method, payload, error in [
            (1, "/", TypeError),
            ("GET", 1, TypeError),
            ("GET", {"headers": {"x": "s3cret\nmore"}}, ValueError),
            ("GET", "http://elsewhere/?key=s3cret", ValueError),
        ]:
            with pytest.raises(error) as caught:
                await way.do(conn.call, method, payload)
            assert not isinstance(caught.value, OSError)
            assert "s3cret" not in str(caught.value)
            assert caught.value.__cause__ is None
        assert (await way.call(conn, "GET", "/do/it")).text == "it"


# -- answers


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 503])
async def test_an_answer_is_a_reply_whatever_its_status(
    way: Way, server: HttpServer, status: int
) -> None:
    """Only the caller knows what it means."""
    async with way.opened(server.url) as conn:
        assert (await way.call(conn, "POST", f"/status/{status}")).status_code == status


@pytest.mark.parametrize(
    ("path", "options", "cooldown"),
    [
        ("/status/429?retry-after=2", {}, 2.0),
        ("/status/429?retry-after=1.5", {}, 1.5),
        ("/status/429?retry-after-ms=250", {}, 0.25),
        ("/status/429", {}, 0.0),
        ("/status/429", {"busy": {429: 7}}, 7.0),
        ("/status/503?retry-after=2", {}, 2.0),
        ("/status/503", {"busy": {503: 3}}, 3.0),
        ("/status/529?retry-after=2", {"busy": {529: None}}, 2.0),
        ("/status/429?retry-after=99999", {"max_rest": 60}, 60.0),
        ("/status/429?retry-after=Sun,+06+Nov+1994+08:49:37+GMT", {}, 0.0),
    ],
)
async def test_not_now(
    way: Way, server: HttpServer, path: str, options: dict[str, Any], cooldown: float
) -> None:
    """A status that means "come back later" is no reply: the call moves, and the conn rests."""
    async with way.opened(server.url, **options) as conn:
        with pytest.raises(Busy, match=r"answered \d\d\d, it has to rest") as caught:
            await way.do(conn.call, "POST", path)
        assert caught.value.cooldown == cooldown
        assert (await way.call(conn, "GET", "/do/it")).text == "it"


async def test_not_now_by_the_servers_clock(way: Way, server: HttpServer) -> None:
    """A date is held against the server's own, whatever ours shows."""
    headers = {
        "date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "retry-after": "Sun, 06 Nov 1994 08:50:07 GMT",
    }
    server.answers["/"] = [(429, headers, b"")]

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers=headers)

    async with way.opened(server.url, transport=httpx.MockTransport(handle)) as conn:
        with pytest.raises(Busy) as caught:
            await way.do(conn.call, "GET", "/")
    assert caught.value.cooldown == 30.0


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/status/429?retry-after=2", {"busy": {}}),
        ("/status/503", {}),
        ("/status/503?retry-after=2", {"busy": {429: 0}}),
        ("/status/401", {}),
    ],
)
async def test_it_can_be_left_to_the_caller(
    way: Way, server: HttpServer, path: str, options: dict[str, Any]
) -> None:
    """What is not to be treated so, or does not say how long, is a response."""
    async with way.opened(server.url, **options) as conn:
        response = await way.call(conn, "GET", path)
        assert response.status_code == int(path[8:11])


async def test_not_with_these_credentials(way: Way, server: HttpServer) -> None:
    """A status in `closed` ends the conn: the call had not happened, and moves."""
    async with way.opened(server.url, closed=[401]) as conn:
        with pytest.raises(Closed, match="answered 401"):
            await way.do(conn.call, "POST", "/status/401")


# -- mirrors


async def test_a_mirror_that_does_not_know_is_followed_by_one_that_does(
    way: Way, server: HttpServer
) -> None:
    """And the one that knew is asked first the next time."""
    server.answers["/a/x"] = [(404, {}, b"")]
    server.answers["/b/x"] = [(200, {}, b"from b")]
    async with way.opened([server.url + "/a", server.url + "/b"]) as conn:
        for _ in range(2):
            assert (await way.call(conn, "GET", "/x")).text == "from b"
    assert [asked.path for asked in server.asked] == ["/a/x", "/b/x", "/b/x"]


async def test_a_request_that_may_not_be_repeated_is_not(way: Way, server: HttpServer) -> None:
    """One mirror has answered, however badly: that is the answer, unless the method may repeat."""
    server.answers["/a/x"] = [(500, {}, b"")]
    mirrors = [server.url + "/a", server.url + "/b"]
    async with way.opened(mirrors) as conn:
        assert (await way.call(conn, "PUT", "/x")).status_code == 500
    assert len(server.asked) == 1
    async with way.opened(mirrors, repeat=["GET", "PUT"]) as conn:
        assert (await way.call(conn, "PUT", "/x")).json()["path"] == "/b/x"


async def test_a_mirror_that_is_not_there_is_passed_over(way: Way, server: HttpServer) -> None:
    """By any method, for nothing was sent."""
    with HttpServer() as gone:
        pass
    async with way.opened([gone.url, server.url]) as conn:
        assert (await way.call(conn, "POST", "/do/it")).text == "it"
    assert server.done == {"it": 1}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ((404, {}, b""), (500, {}, b""), 500),
        ((404, {}, b""), (429, {}, b""), 404),
        ((429, {"retry-after": "9"}, b""), (401, {}, b""), Busy),
        ((401, {}, b""), (401, {}, b""), Closed),
    ],
)
async def test_mirrors_that_all_fail(
    way: Way, server: HttpServer, first: Any, second: Any, outcome: Any
) -> None:
    """Any answer is better than none, and a rest is better than the end."""
    server.answers["/a"], server.answers["/b"] = [first], [second]
    async with way.opened([server.url + "/a", server.url + "/b"], closed={401}) as conn:
        if isinstance(outcome, int):
            assert (await way.call(conn, "GET")).status_code == outcome
        else:
            with pytest.raises(outcome):
                await way.do(conn.call, "GET")
    assert len(server.asked) == 2


# -- a probe


async def test_a_probe_that_is_answered(way: Way, server: HttpServer) -> None:
    """The first call finds its connection open."""
    async with way.opened(server.url, probe="/health") as conn:
        await way.call(conn, "GET", "/x")
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/health"),
        ("GET", "/x"),
    ]
    assert len({asked.port for asked in server.asked}) == 1


@pytest.mark.parametrize(
    ("path", "retry_after"),
    [
        ("/status/500", None),
        ("/status/401", None),
        ("/status/403", None),
        ("/status/429", None),
        ("/status/429?retry-after=9", 9.0),
    ],
)
async def test_a_probe_that_fails(
    way: Way, server: HttpServer, path: str, retry_after: float | None
) -> None:
    """So does the opening, which says when to try again if the server did."""
    conn = way.kind(server.url, probe=path, closed=[401])
    with pytest.raises(InitError, match=path[8:11]) as caught:
        await way.do(conn.init)
    assert caught.value.retry_after == retry_after
    assert repr(conn).endswith("closed>")


async def test_a_probe_does_not_wait_for_its_turn(way: Way, server: HttpServer) -> None:
    """A conn may come back at any time; its first call keeps the pace again."""
    pace = Pace(1, 60.0)
    async with way.opened(server.url, probe="/", pace=pace) as conn:
        await way.call(conn, "GET", "/x")
        await way.do(conn.init)
        with pytest.raises(Busy, match="too early"):
            await way.do(conn.call, "GET", "/x")
    assert [asked.path for asked in server.asked] == ["/", "/x", "/"]


# -- pace


async def test_a_conn_keeps_the_pace_it_is_told(way: Way, server: HttpServer) -> None:
    """It says how long to rest, and is not called by force before that."""
    now = 1000.0
    server.limiter = Limiter(4, 2.0, tells=True, clock=lambda: now)
    async with way.opened(server.url, pace=Pace(clock=lambda: now)) as conn:
        for _ in range(10):
            reply = await way.do(conn.call, "GET", "/limited")
            assert isinstance(reply, Reply)
            assert reply.cooldown == pytest.approx(0.5, abs=1e-4)
            with pytest.raises(Busy, match="too early"):
                await way.do(conn.call, "GET", "/limited")
            now += reply.cooldown + 1e-6
    assert server.limiter.answered == {"": 10}
    assert not server.limiter.refused


async def test_a_conn_learns_its_pace(way: Way, server: HttpServer) -> None:
    """From the first refusal, and never gets another one."""
    now = 1000.0
    server.limiter = Limiter(3, 1.5, clock=lambda: now)
    pace = Pace(clock=lambda: now)
    async with way.opened(server.url, pace=pace) as conn:
        for _ in range(3):
            assert isinstance(await way.do(conn.call, "GET", "/limited"), httpx.Response)
        with pytest.raises(Busy) as caught:
            await way.do(conn.call, "GET", "/limited")
        assert caught.value.cooldown == pytest.approx(1.5)
        now += caught.value.cooldown
        for _ in range(10):
            reply = await way.do(conn.call, "GET", "/limited")
            assert reply.cooldown == pytest.approx(0.5)
            now += reply.cooldown
    assert len(server.limiter.refused[""]) == 1
    assert repr(pace) == "<Pace: 3 in 1.5 s>"


async def test_what_the_headers_mean_can_be_said(way: Way, server: HttpServer) -> None:
    """Where a server has its own words for what is left."""
    from connpool.adapters.http import Limit

    async with way.opened(
        server.url,
        pace=Pace(clock=lambda: 0.0),
        limit=lambda headers, now: Limit(int(headers["x-left"]), 8.0),
    ) as conn:
        reply = await way.do(conn.call, "GET", "/status/200?x-left=3")
        assert reply.cooldown == 2.0


# -- lending


async def test_a_client_is_lent(way: Way, server: HttpServer) -> None:
    """With all that the conn was given; what its user changes is undone."""
    options: dict[str, Any] = {"headers": {"x-api-key": "one"}, "auth": ("me", "pw")}
    async with way.opened(server.url, **options) as conn:
        client = await way.do(conn.lend)
        client.headers["x-api-key"] = "mine"
        client.headers["x-more"] = "mine"
        client.cookies.set("session", "mine")
        client.auth = None
        client.params = {"mine": "1"}
        told = (await way.do(client.get, "/echo")).json()
        assert told["headers"]["x-api-key"] == "mine"
        await way.do(conn.reset)
        told = (await way.do((await way.do(conn.lend)).get, "/echo")).json()
        assert "mine" not in str(told)
        assert told["headers"]["x-api-key"] == "one"
        assert told["headers"]["authorization"].startswith("Basic ")
    assert len({asked.port for asked in server.asked}) == 1


async def test_a_response_that_was_left_open(way: Way, server: HttpServer) -> None:
    """Nobody could use the connection after that: the conn is done."""
    async with way.opened(server.url) as conn:
        client = await way.do(conn.lend)
        request = client.build_request("GET", "/echo")
        response = await way.do(client.send, request, stream=True)
        with pytest.raises(Closed):
            await way.do(conn.reset)
        await way.do(response.aclose if way.tasks else response.close)
        await way.do(conn.reset)


async def test_a_client_that_its_user_closed(way: Way, server: HttpServer) -> None:
    """That conn is done too."""
    async with way.opened(server.url) as conn:
        client = await way.do(conn.lend)
        await way.do(client.aclose if way.tasks else client.close)
        with pytest.raises(Closed):
            await way.do(conn.reset)


async def test_one_that_is_not_open(way: Way, server: HttpServer) -> None:
    """Before its init and after its close there is nothing to call and nothing to lend."""
    conn = way.kind(server.url)
    for _ in range(2):
        for function in (partial(conn.call, "GET"), conn.lend, conn.reset):
            with pytest.raises(Closed, match="not open"):
                await way.do(function)
        assert not await way.do(conn.check)
        await way.do(conn.init)
        await way.do(conn.close)
        await way.do(conn.close)
    assert server.asked == []


# -- what can be said before anything is sent


def test_the_contract() -> None:
    """They have the names of the contract, as a type checker sees it too."""
    conn: Conn[httpx.Response] = HttpConn("http://h")
    async_conn: AsyncConn[httpx.Response] = AsyncHttpConn("http://h")
    assert HttpConn.survives_cancel is False
    assert (conn.resource, async_conn.resource) == ("http://h", "http://h")


def test_how_many_at_once() -> None:
    """In tasks as many as HTTP/2 has streams; else one."""
    assert HttpConn("http://h").capacity == HttpConn("http://h", http2=True).capacity == 1
    assert AsyncHttpConn("http://h").capacity == 1
    assert AsyncHttpConn("http://h", http2=True).capacity == 100
    assert AsyncHttpConn("http://h", http2=True, capacity=7).capacity == 7
    assert AsyncHttpConn("http://h", http2=True).survives_cancel is True
    assert AsyncHttpConn("http://h").survives_cancel is False


@pytest.mark.parametrize("kind", [HttpConn, AsyncHttpConn])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"url": None}, TypeError, "resource"),
        ({"url": print}, TypeError, "resource"),
        ({"capacity": 0}, ValueError, "capacity"),
        ({"capacity": 2}, ValueError, "capacity"),
        ({"capacity": 101, "http2": True}, ValueError, "capacity"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": "soon"}, TypeError, "timeout"),
        ({"keepalive": -1}, ValueError, "keepalive"),
        ({"busy": [429]}, TypeError, "busy"),
        ({"busy": {"429": 0}}, ValueError, "busy"),
        ({"busy": {429: -1}}, ValueError, r"busy\[429\]"),
        ({"closed": 401}, TypeError, "closed"),
        ({"closed": [4010]}, ValueError, "closed"),
        ({"max_rest": -1}, ValueError, "max_rest"),
        ({"methods": "GET"}, TypeError, "methods"),
        ({"pace": 0.5}, TypeError, "pace"),
        ({"limits": httpx.Limits()}, TypeError, "got limits"),
        ({"base_url": "http://h"}, TypeError, "got base_url"),
        ({"colour": "red"}, TypeError, "got colour"),
        ({"headers": {"x": "s3cret\n"}}, ValueError, "one line"),
        ({"headers": {"x": "s3cr\xe9t"}}, ValueError, "ASCII"),
    ],
)
def test_options_that_make_no_sense(
    kind: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """They are refused at once, and no secret is told."""
    with pytest.raises(error, match=text) as caught:
        kind(**{"url": "http://h"} | options)
    assert "s3cr" not in repr(caught.value)
    assert "s3cr" not in repr(caught.value.__context__)


def test_certificates_are_read_once() -> None:
    """However many conns there are; but those of HTTP/2 have their own, for httpcore marks it."""
    first, second = HttpConn("https://h"), AsyncHttpConn("https://h")
    assert first._settings()["verify"] is second._settings()["verify"] is _tls(False)
    assert HttpConn("https://h", http2=True)._settings()["verify"] is _tls(True) is not _tls(False)
    assert HttpConn("https://h", verify=False)._settings()["verify"] is False


def test_threads_that_share_a_conn_stand_in_line(server: HttpServer) -> None:
    """Without a pool as well, and over HTTP/2, which httpx would mix up in threads."""
    for http2 in (False, True):
        conn = HttpConn(server.url, http2=http2, timeout=PATIENCE)
        conn.init()
        go = threading.Barrier(8)

        def work(n: int, conn: HttpConn = conn, go: threading.Barrier = go) -> bool:
            go.wait()
            replies = [conn.call("POST", {"url": "/echo", "content": f"{n}"}) for _ in range(5)]
            return all(
                isinstance(r, httpx.Response) and r.json()["body"] == f"{n}" for r in replies
            )

        with ThreadPoolExecutor(8) as crowd:
            assert all(crowd.map(work, range(8)))
        conn.close()
    assert len({asked.port for asked in server.asked}) == 2
