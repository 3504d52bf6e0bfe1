"""A real Redis: connpool beside redis-py's own pools.

Owns the rows of Redis.  Refuses to know how a server is got (`servers`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

from connpool import AsyncPool, Pool

from .contended import Call, together
from .field import find
from .harness import Bench, Heat, Row, Work, at_least
from .servers import Shared, running, warm
from .tasks import Job, Serve, hosted, shared_out

THREADS, CONNS = 16, 4
CROWD, ASYNC_CONNS = 100, 10

Calls = Callable[[], Awaitable[Any]]


@contextmanager
def filled() -> Iterator[Any]:
    """A server that has what is asked for."""
    with running("redis", "RedisServer") as server:
        server.ask("SET", "key", "value")
        yield server


SERVER = Shared(filled)


# -- threads ---------------------------------------------------------------------------------------


@contextmanager
def called(server: Any) -> Iterator[Call]:
    """`pool.call`."""
    with connpool_of(server) as pool:
        yield partial(pool.call, "redis", "GET", "key")


@contextmanager
def checked_out(server: Any) -> Iterator[Call]:
    """`with pool.checkout`."""
    with connpool_of(server) as pool:

        def job() -> Any:
            with pool.checkout("redis") as client:
                return client.get("key")

        yield job


@contextmanager
def connpool_of(server: Any) -> Iterator[Pool]:
    """A pool of connpool, full."""
    adapter = find("connpool.adapters.redis", "redis")
    with Pool(name="benchmark") as pool:
        pool.supply(
            "redis", lambda: adapter.RedisConn(*server.address), min_size=CONNS, max_size=CONNS
        )
        pool.wait_ready()
        yield pool


@contextmanager
def blocking(server: Any) -> Iterator[Call]:
    """redis-py's BlockingConnectionPool, as its client uses it."""
    library = find("redis", "redis")
    host, port = server.address
    pool = library.BlockingConnectionPool(host=host, port=port, max_connections=CONNS, timeout=None)
    with closing(pool):
        yield partial(library.Redis(connection_pool=pool).get, "key")


@contextmanager
def crowded(build: Callable[[Any], AbstractContextManager[Call]]) -> Iterator[Work]:
    """Many threads, over a pool."""
    with (
        SERVER() as server,
        build(server) as job,
        together([job] * THREADS) as cold,
        warm(cold, 10 * THREADS) as work,
    ):
        yield work


@contextmanager
def alone() -> Iterator[Work]:
    """As many threads as there are conns, with a client of one connection each."""
    library = find("redis", "redis")
    with SERVER() as server:
        host, port = server.address
        clients = [
            library.Redis(host=host, port=port, single_connection_client=True) for _ in range(CONNS)
        ]
        jobs = [partial(client.get, "key") for client in clients]
        with together(jobs) as cold, warm(cold, 10 * CONNS) as work:
            yield work
        for client in clients:
            client.close()


# -- tasks -----------------------------------------------------------------------------------------


async def async_called(server: Any, serve: Callable[[Calls], Awaitable[None]]) -> None:
    """`AsyncPool.call`."""
    adapter = find("connpool.adapters.redis", "redis")
    async with AsyncPool(name="benchmark") as pool:
        await pool.supply(
            "redis",
            lambda: adapter.AsyncRedisConn(*server.address),
            min_size=ASYNC_CONNS,
            max_size=ASYNC_CONNS,
        )
        await pool.wait_ready()
        await serve(partial(pool.call, "redis", "GET", "key"))


async def async_blocking(server: Any, serve: Callable[[Calls], Awaitable[None]]) -> None:
    """redis-py's BlockingConnectionPool for asyncio, as its client uses it."""
    library = find("redis.asyncio", "redis")
    host, port = server.address
    pool = library.BlockingConnectionPool(
        host=host, port=port, max_connections=ASYNC_CONNS, timeout=None
    )
    await serve(partial(library.Redis(connection_pool=pool).get, "key"))
    await pool.aclose()


@contextmanager
def async_crowded(
    build: Callable[[Any, Callable[[Calls], Awaitable[None]]], Awaitable[None]],
) -> Iterator[Work]:
    """Many tasks, over a pool."""
    find("redis", "redis")
    with SERVER() as server:

        async def host(serve: Serve) -> None:
            async def begin(call: Calls) -> None:
                async def calls(quota: Iterator[None]) -> None:
                    for _ in quota:
                        await call()

                job: Job = partial(shared_out, calls, CROWD)
                await serve(job)

            await build(server, begin)

        with hosted(host) as cold, warm(cold, 10 * CROWD) as work:
            yield work


CALL = f"{THREADS} threads, {CONNS} conns, call"
CHECKOUT = f"{THREADS} threads, {CONNS} conns, checkout"
PEER = "redis-py blocking"
ALONE = f"{CONNS} threads, no pool"
ASYNC_CALL = f"{CROWD} tasks, {ASYNC_CONNS} conns, call"
ASYNC_PEER = "redis-py blocking, asyncio"

BENCHES: list[Bench] = [
    Heat(
        {
            CALL: partial(crowded, called),
            PEER: partial(crowded, blocking),
            CHECKOUT: partial(crowded, checked_out),
            ALONE: alone,
        },
        [
            Row("redis.call", CALL, PEER, at_least(1.0), rate=True),
            Row("redis.checkout", CHECKOUT, PEER, rate=True),
            Row("redis.call.alone", CALL, ALONE, rate=True),
            Row("redis.peer.alone", PEER, ALONE, rate=True),
        ],
        sample=0.1,
        rounds=25,
        processes=2,
        clock=time.perf_counter,
    ),
    Heat(
        {
            ASYNC_CALL: partial(async_crowded, async_called),
            ASYNC_PEER: partial(async_crowded, async_blocking),
        },
        [Row("redis.async.call", ASYNC_CALL, ASYNC_PEER, at_least(1.0), rate=True)],
        sample=0.1,
        rounds=25,
        processes=2,
        clock=time.perf_counter,
    ),
]
