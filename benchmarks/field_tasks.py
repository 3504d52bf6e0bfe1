"""Pools for asyncio that connpool's is compared with.

Owns what it takes to have each of them hold conns that do nothing.  Refuses to know how they are
compared (`peers`), and how a pool gets a task to live in (`tasks`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from functools import partial
from itertools import repeat
from operator import methodcaller
from types import SimpleNamespace
from typing import Any

from connpool import AsyncPool

from .conns import TTL
from .field import Entrant, Session, find
from .field_threads import PATIENCE, Exchange
from .harness import Work
from .tasks import Job, Serve, Trivial, hosted

Hosted = AbstractContextManager[Work]

QUEUE, QUEUE_CALL = "asyncio.Queue, no call", "asyncio.Queue"


async def in_pairs(
    take: Callable[[], Awaitable[Any]], give: Callable[[Any], Awaitable[Any]], conns: int
) -> Job:
    """Take and give back, where each is awaited; all conns have been out once."""
    for conn in [await take() for _ in range(conns)]:
        await give(conn)

    async def job(count: int) -> None:
        for _ in repeat(None, count):
            await give(await take())

    return job


async def in_blocks(open: Callable[[], AbstractAsyncContextManager[Any]], conns: int) -> Job:
    """Take and give back, where both are an `async with` block; all conns have been out once."""
    async with AsyncExitStack() as stack:
        for _ in range(conns):
            await stack.enter_async_context(open())

    async def job(count: int) -> None:
        for _ in repeat(None, count):
            async with open():
                pass

    return job


def own(how: Callable[[AsyncPool, int], Awaitable[Job]], conns: int) -> Hosted:
    """A pool of connpool, and the job that `how` makes of it."""

    async def host(serve: Serve) -> None:
        async with AsyncPool(name="benchmark", timeout=None) as pool:
            for _ in range(conns):
                await pool.put(Trivial(), ttl=TTL)
            for _ in range(conns):  # the first answer of a conn costs more than the rest
                await pool.call("r", "m", 5)
            await serve(await how(pool, conns))

    return hosted(host)


async def called(pool: AsyncPool, conns: int) -> Job:
    """Calls, as users write them."""

    async def job(count: int) -> None:
        for _ in repeat(None, count):
            await pool.call("r", "m", 5)

    return job


async def checked_out(pool: AsyncPool, conns: int) -> Job:
    """Conns lent in an `async with` block."""
    return await in_blocks(partial(pool.checkout, "r"), conns)


def queued(conns: int) -> Hosted:
    """An asyncio.Queue."""

    async def host(serve: Serve) -> None:
        line: asyncio.Queue[Trivial] = asyncio.Queue()
        for _ in range(conns):
            line.put_nowait(Trivial())
        await serve(await in_pairs(line.get, line.put, conns))

    return hosted(host)


# -- databases -------------------------------------------------------------------------------------


class AsyncSession(Session):
    """A conn that does nothing, for pools of sessions that await it."""

    async def close(self) -> None:  # type: ignore[override]  # asyncio's colour of the same
        """Nothing to close."""

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to commit."""


def psycopg(make: Callable[[Any, int], Awaitable[Job]], conns: int) -> Hosted:
    """A psycopg_pool, full, and the job that `make` makes of it."""
    library = find("psycopg_pool", "psycopg-pool")
    idle = find("psycopg.pq", "psycopg").TransactionStatus.IDLE

    class Connection(AsyncSession):
        pgconn = SimpleNamespace(transaction_status=idle)

        @classmethod
        async def connect(cls, *_: Any, **__: Any) -> Connection:
            return cls()

    async def host(serve: Serve) -> None:
        async with library.AsyncConnectionPool(
            connection_class=Connection, min_size=conns, timeout=PATIENCE, open=False
        ) as pool:
            await pool.wait()
            await serve(await make(pool, conns))

    return hosted(host)


def psycopg_pairs(conns: int) -> Hosted:
    """By getconn and putconn."""
    return psycopg(lambda pool, conns: in_pairs(pool.getconn, pool.putconn, conns), conns)


def psycopg_blocks(conns: int) -> Hosted:
    """By `async with pool.connection()`."""
    return psycopg(lambda pool, conns: in_blocks(pool.connection, conns), conns)


def sqlalchemy(conns: int) -> Hosted:
    """SQLAlchemy's AsyncAdaptedQueuePool: what an async engine holds, and enters by greenlets."""
    library = find("sqlalchemy.pool", "SQLAlchemy")
    find("greenlet", "greenlet")
    spawn = find("sqlalchemy.util.concurrency", "SQLAlchemy").greenlet_spawn

    async def host(serve: Serve) -> None:
        pool = library.AsyncAdaptedQueuePool(
            Session, pool_size=conns, max_overflow=0, timeout=PATIENCE
        )
        take, give = partial(spawn, pool.connect), lambda held: spawn(held.close)
        try:
            await serve(await in_pairs(take, give, conns))
        finally:
            await spawn(pool.dispose)

    return hosted(host)


def generic(conns: int) -> Hosted:
    """generic-connection-pool."""
    library = find("generic_connection_pool.asyncio", "generic-connection-pool")
    base: Any = library.BaseConnectionManager

    class Manager(base):  # type: ignore[misc]  # it may not be there
        async def create(self, endpoint: str) -> Session:
            return Session()

        async def dispose(self, endpoint: str, conn: Session) -> None:
            """Nothing to close."""

    async def host(serve: Serve) -> None:
        pool = library.ConnectionPool(
            Manager(),
            min_idle=conns,
            max_size=conns,
            total_max_size=conns,
            acquire_timeout=PATIENCE,
        )
        try:
            take, give = partial(pool.acquire, "r"), lambda conn: pool.release(conn, "r")
            await serve(await in_pairs(take, give, conns))
        finally:
            await pool.close()

    return hosted(host)


# -- redis-py --------------------------------------------------------------------------------------


def redis(kind: str, conns: int) -> Hosted:
    """One of redis-py's pools."""
    library = find("redis.asyncio.connection", "redis")
    base: Any = library.Connection

    class Connection(base):  # type: ignore[misc]  # it may not be there
        async def connect(self) -> None:
            """Nothing to open."""

        async def can_read(self) -> bool:
            return False

        can_read_destructive = can_read  # its name in older versions

        async def disconnect(self, *_: Any, **__: Any) -> None:
            """Nothing to close."""

    async def host(serve: Serve) -> None:
        more = {"timeout": PATIENCE} if kind == "BlockingConnectionPool" else {}
        pool = getattr(library, kind)(connection_class=Connection, max_connections=conns, **more)
        try:
            await serve(await in_pairs(pool.get_connection, pool.release, conns))
        finally:
            await pool.aclose()

    return hosted(host)


# -- HTTP ------------------------------------------------------------------------------------------


class AsyncExchange(Exchange):
    """The same as for threads, awaited."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    async def handle_async_request(self, request: Any) -> Any:
        """Answer."""
        return self.handle_request(request)

    async def aclose(self) -> None:
        """The response has been read, or the pool is closed."""
        self.close()


def httpcore(conns: int) -> Hosted:
    """httpcore: a request that is handled, a response that is closed."""
    library = find("httpcore", "httpcore")

    async def host(serve: Serve) -> None:
        async with library.AsyncConnectionPool(max_connections=conns) as pool:
            pool.create_connection = lambda origin: AsyncExchange(library)
            take = partial(pool.handle_async_request, library.Request("GET", "http://localhost/"))
            await serve(await in_pairs(take, methodcaller("aclose"), conns))

    return hosted(host)


ENTRANTS = [
    Entrant("AsyncPool.call", "AsyncPool.call", partial(own, called), QUEUE_CALL),
    Entrant("AsyncPool.checkout", "AsyncPool.checkout", partial(own, checked_out), QUEUE),
    Entrant("psycopg_pool", "psycopg_pool getconn, putconn", psycopg_pairs, QUEUE),
    Entrant("psycopg_pool.with", "psycopg_pool connection()", psycopg_blocks, QUEUE),
    Entrant("sqlalchemy", "AsyncAdaptedQueuePool", sqlalchemy, QUEUE),
    Entrant("redis", "redis-py", partial(redis, "ConnectionPool"), QUEUE),
    Entrant("redis.blocking", "redis-py blocking", partial(redis, "BlockingConnectionPool"), QUEUE),
    Entrant("generic", "generic-connection-pool", generic, QUEUE),
    Entrant("httpcore", "httpcore request, response", httpcore, QUEUE),
]
