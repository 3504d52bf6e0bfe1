"""The HTTP conns in their pools: rests, keys that are no good, callers that leave, secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest

from connpool import AsyncPool, Backoff, Pool
from connpool.adapters.http import AsyncHttpConn, HttpConn, Pace, ReplyLost
from connpool.testing import ManualClock
from tests.servers.http import HttpServer, Limiter

from . import PATIENCE, eventually, soon
from .tasks import Call

SECRET = "s3cret"


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        yield pool


def key(server: HttpServer, name: str, **options: Any) -> HttpConn:
    """A conn with a key of its own; all of them are "api"."""
    headers = {"x-api-key": name}
    return HttpConn(server.url, resource="api", headers=headers, timeout=PATIENCE, **options)


def test_a_refused_call_goes_elsewhere(server: HttpServer) -> None:
    """While a conn rests, another one is asked; when all do, the caller is told when to wait."""
    with ManualClock() as clock, Pool() as pool:
        server.limiter = Limiter(2, 60.0, clock=clock.monotonic)
        for name in ("one", "two"):
            pool.init(key(server, name))
        for _ in range(4):
            assert pool.call("api", "GET", "/limited", timeout=0).status_code == 200
        with pytest.raises(TimeoutError):
            pool.call("api", "GET", "/limited", timeout=0)
        assert [info.state for info in pool.infos("api")] == ["cooling", "cooling"]
        assert [info.cooldown for info in pool.infos("api")] == [60.0, 60.0]
        clock.advance(60, pool)
        assert pool.call("api", "GET", "/limited", timeout=0).status_code == 200
        assert server.limiter.answered == {"one": 2, "two": 2} | {"one": 3}


def test_keys_are_used_to_the_full_and_fairly(server: HttpServer) -> None:
    """Each conn learns its key's limit, and from then on is never refused."""
    with ManualClock() as clock, Pool() as pool:
        server.limiter = limiter = Limiter(5, 1.0, clock=clock.monotonic)
        for n in range(4):
            pool.init(key(server, f"{n}", pace=Pace(clock=clock.monotonic)))

        def use(seconds: float) -> int:
            over, answered = clock.monotonic() + seconds, 0
            while clock.monotonic() < over:
                try:
                    pool.call("api", "GET", "/limited", timeout=0)
                    answered += 1
                except TimeoutError:
                    clock.advance(0.01, pool)
            return answered

        use(2.0)
        assert {name: len(times) for name, times in limiter.refused.items()} == dict.fromkeys(
            "0123", 1
        )
        before = limiter.answered.copy()
        assert use(5.0) == 4 * 5 * 5
        assert set((limiter.answered - before).values()) == {25}
        assert limiter.refused.keys() == set("0123")
        assert all(len(times) == 1 for times in limiter.refused.values())


def test_a_key_that_is_revoked(server: HttpServer, pool: Pool) -> None:
    """Its calls go to the others; its conn comes back when the key does."""
    for name in ("one", "two"):
        pool.init(key(server, name, closed=[401], probe="/"), revive=True)
    server.revoked.add("one")
    for n in range(4):
        assert pool.call("api", "POST", f"/do/{n}").text == f"{n}"
    assert server.done == dict.fromkeys("0123", 1)
    assert pool.stats().since_start.moved == 1
    server.revoked.clear()
    eventually(lambda: pool.stats().since_start.revived)


def test_a_key_that_is_revoked_for_good(server: HttpServer, pool: Pool) -> None:
    """Without "revive" its conn leaves the pool; when it was the last, its caller learns why."""
    pool.init(key(server, "one", closed=[401]))
    server.revoked.add("one")
    with pytest.raises(LookupError) as caught:
        pool.call("api", "GET", "/do/it")
    assert "answered 401" in str(caught.value.__cause__)
    assert pool.empty("api")


def test_threads_get_their_own_answers(server: HttpServer, pool: Pool) -> None:
    """Many threads over few connections, of both versions."""
    for n in range(4):
        pool.init(key(server, f"{n}", http2=n % 2 == 1))

    def ask(n: int) -> bool:
        return bool(pool.call("api", "POST", {"url": "/echo", "json": n}).json()["body"] == f"{n}")

    with ThreadPoolExecutor(8) as crowd:
        assert all(crowd.map(ask, range(80)))
    assert len({asked.port for asked in server.asked}) == 4


def test_a_lent_client(server: HttpServer, pool: Pool) -> None:
    """One user at a time, for as many requests as he likes."""
    pool.init(key(server, "one"))
    with pool.checkout("api") as client:
        assert isinstance(client, httpx.Client)
        client.headers["x-api-key"] = "mine"
        assert client.get("/echo").json()["headers"]["x-api-key"] == "mine"
    with pool.checkout("api") as client:
        assert client.get("/echo").json()["headers"]["x-api-key"] == "one"


@pytest.mark.anyio
async def test_a_caller_that_leaves_takes_nobody_with_him(server: HttpServer) -> None:
    """Over HTTP/2 the conn stays in the pool, and the others on it get their answers."""
    async with AsyncPool(timeout=PATIENCE) as pool, anyio.create_task_group() as tasks:
        conn = AsyncHttpConn(server.url, resource="api", http2=True, timeout=PATIENCE)
        number = await pool.init(conn)
        calls = [Call() for _ in range(5)]
        for n, call in enumerate(calls):
            tasks.start_soon(call.run, pool.call, "api", "GET", f"/hold/{n}")
            await soon(lambda: server.held.acquire(blocking=False))
        calls[2].scope.cancel()
        await calls[2].over.wait()
        assert (await pool.call("api", "GET", "/do/more")).text == "more"
        server.let_go()
        for n, call in enumerate(calls):
            await call.over.wait()
            assert call.reply is None if n == 2 else call.reply.text == f"{n}"
        assert number in pool
        assert not pool.stats().since_start.ended


@pytest.mark.anyio
async def test_a_caller_that_leaves_ends_a_conn_of_http1(server: HttpServer) -> None:
    """It is revived, and nobody gets the answer that was on its way."""
    async with AsyncPool(timeout=PATIENCE) as pool, anyio.create_task_group() as tasks:
        conn = AsyncHttpConn(server.url, resource="api", timeout=PATIENCE)
        await pool.init(conn, revive=True)
        call = Call()
        tasks.start_soon(call.run, pool.call, "api", "GET", "/hold/first")
        await soon(lambda: server.held.acquire(blocking=False))
        call.scope.cancel()
        server.let_go()
        assert (await pool.call("api", "GET", "/do/second")).text == "second"
        assert pool.stats().since_start.ended == {"interrupted": 1}


def test_secrets_are_never_told(
    server: HttpServer, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by the conn, the pool, its report, its log, nor by any error and what caused it."""
    caplog.set_level(logging.DEBUG, "connpool")
    url = server.url.replace("://", f"://me:{SECRET}@")
    options: dict[str, Any] = {
        "headers": {"authorization": f"Bearer {SECRET}"},
        "params": {"key": SECRET},
        "cookies": {"session": SECRET},
        "timeout": PATIENCE,
    }
    told = []

    def note(error: BaseException) -> None:
        told.append("".join(traceback.format_exception(error)))
        while error.__cause__ is not None:
            error = error.__cause__
            told.append(repr(error))

    conn = HttpConn(url, closed=[401], **options)
    pool.init(conn, revive=True)
    told += [repr(conn), pool.report(), repr(pool.infos()), repr(conn.resource)]
    for path in ("/status/401", "/status/429", "/half"):
        server.let_go()
        try:
            pool.call(server.url, "GET", {"url": path, "auth": ("me", SECRET)}, timeout=0.05)
        except Exception as error:
            note(error)
    other = HttpConn(url, **options)
    other.init()
    with pytest.raises(ValueError, match="HTTP does not allow") as refused:
        other.call("GET", {"headers": {"x": f"{SECRET}\n"}})
    note(refused.value)
    other.close()
    server.stop()
    with pytest.raises((ReplyLost, LookupError, TimeoutError)) as lost:
        pool.call(server.url, "GET", "/", timeout=0.05)
    note(lost.value)
    told += [pool.report(), repr(pool.stats()), caplog.text]
    assert len(told) > 8
    assert SECRET not in "\n".join(told)
