"""Pools for asyncio that connpool's is compared with.

Owns what it takes to have each of them hold conns that do nothing.  Refuses to know how they are
compared (`peers`), and how a pool gets a task to live in (`tasks`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from itertools import repeat
from operator import methodcaller
from types import SimpleNamespace
from typing import Any

import attrs

from connpool import AsyncPool

from .conns import TTL
from .field import Entrant, Session, find, within
from .field_threads import PATIENCE, Exchange
from .tasks import Guest, Job, Serve, Trivial, hosted

#: Lives in a task with a pool in it, and serves it.
Host = Callable[[Serve], Awaitable[None]]

QUEUE, QUEUE_CALL = "asyncio.Queue, no call", "asyncio.Queue"


@attrs.frozen(eq=False)
class Way:
    """How one peer's conns are taken and given back; called with a count, it does so that often.

    `open` gives an `async with` block, where that is how it is done: then it is what is timed.
    """

    take: Callable[[], Awaitable[Any]]
    give: Callable[[Any], Awaitable[Any]]
    open: Callable[[], AbstractAsyncContextManager[Any]] | None = None

    async def __call__(self, count: int) -> None:
        if self.open is not None:
            for _ in repeat(None, count):
                async with self.open():
                    pass
        else:
            take, give = self.take, self.give
            for _ in repeat(None, count):
                await give(await take())

    async def use(self, job: Callable[[], Awaitable[Any]]) -> None:
        """Do something with a conn, as a careful user would."""
        if self.open is not None:
            async with self.open():
                await job()
        else:
            conn = await self.take()
            try:
                await job()
            finally:
                await self.give(conn)


async def in_pairs(
    take: Callable[[], Awaitable[Any]], give: Callable[[Any], Awaitable[Any]], conns: int
) -> Way:
    """Take and give back, where each is awaited; all conns have been out once."""
    return await _warm(Way(take, give), conns)


async def in_blocks(open: Callable[[], AbstractAsyncContextManager[Any]], conns: int) -> Way:
    """Take and give back, where both are an `async with` block; all conns have been out once."""

    async def take() -> AbstractAsyncContextManager[Any]:
        block = open()
        await block.__aenter__()
        return block

    return await _warm(Way(take, lambda block: block.__aexit__(None, None, None), open), conns)


async def _warm(way: Way, conns: int) -> Way:
    began = time.perf_counter()
    out = [await way.take() for _ in within(began, conns)]
    for conn, _ in zip(out, within(began, conns), strict=True):
        await way.give(conn)
    return way


def own(how: Callable[[AsyncPool, int], Awaitable[Job]], conns: int) -> Host:
    """A pool of connpool, and the job that `how` makes of it."""

    async def host(serve: Serve) -> None:
        async with AsyncPool(name="benchmark", timeout=None) as pool:
            for _ in range(conns):
                await pool.put(Trivial(), ttl=TTL)
            for _ in range(conns):  # the first answer of a conn costs more than the rest
                await pool.call("r", "m", 5)
            await serve(await how(pool, conns))

    return host


async def called(pool: AsyncPool, conns: int) -> Job:
    """Calls, as users write them."""

    async def job(count: int) -> None:
        for _ in repeat(None, count):
            await pool.call("r", "m", 5)

    return job


async def checked_out(pool: AsyncPool, conns: int) -> Job:
    """Conns lent in an `async with` block."""
    return await in_blocks(partial(pool.checkout, "r"), conns)


def queued(conns: int) -> Host:
    """An asyncio.Queue."""

    async def host(serve: Serve) -> None:
        line: asyncio.Queue[Trivial] = asyncio.Queue()
        for _ in range(conns):
            line.put_nowait(Trivial())
        await serve(await in_pairs(line.get, line.put, conns))

    return host


# -- databases -------------------------------------------------------------------------------------


class AsyncSession(Session):
    """A conn that does nothing, for pools of sessions that await it."""

    async def close(self) -> None:  # type: ignore[override]  # asyncio's colour of the same
        """Nothing to close."""

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to commit."""


def psycopg(make: Callable[[Any, int], Awaitable[Job]], conns: int) -> Host:
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

    return host


def psycopg_pairs(conns: int) -> Host:
    """By getconn and putconn."""
    return psycopg(lambda pool, conns: in_pairs(pool.getconn, pool.putconn, conns), conns)


def psycopg_blocks(conns: int) -> Host:
    """By `async with pool.connection()`."""
    return psycopg(lambda pool, conns: in_blocks(pool.connection, conns), conns)


def sqlalchemy(conns: int) -> Host:
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

    return host


def generic(conns: int) -> Host:
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

    return host


# -- redis-py --------------------------------------------------------------------------------------


def redis(kind: str, conns: int) -> Host:
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

    return host


# -- asyncpg ---------------------------------------------------------------------------------------


def asyncpg(make: Callable[[Any, int], Awaitable[Job]], conns: int) -> Host:
    """asyncpg, without a server behind it: it asks one to reset the session, which costs more."""
    library = find("asyncpg", "asyncpg")
    base: Any = library.Connection

    class Connection(base):  # type: ignore[misc]  # it may not be there
        def __init__(self) -> None:
            self._pool_release_ctr, self._proxy = 0, None
            self._listeners: dict[Any, Any] = {}
            self._log_listeners = ()
            self._protocol = SimpleNamespace(queries_count=0, _is_cancelling=lambda: False)

        def is_closed(self) -> bool:
            return False

        async def reset(self, *, timeout: float | None = None) -> None:
            """Nothing to reset."""

        async def close(self, *, timeout: float | None = None) -> None:
            self.terminate()

        def terminate(self) -> None:
            self._pool_holder()._release_on_close()

        def __del__(self) -> None:
            """Nothing to warn of."""

    async def connect(*_: Any, **__: Any) -> Connection:
        return Connection()

    async def host(serve: Serve) -> None:
        pool = await library.create_pool(
            min_size=conns, max_size=conns, connect=connect, connection_class=Connection
        )
        try:
            await serve(await make(pool, conns))
        finally:
            pool.terminate()  # its close waits for what is out

    return host


def asyncpg_pairs(conns: int) -> Host:
    """By acquire and release."""
    return asyncpg(lambda pool, conns: in_pairs(pool.acquire, pool.release, conns), conns)


def asyncpg_blocks(conns: int) -> Host:
    """By `async with pool.acquire()`."""
    return asyncpg(lambda pool, conns: in_blocks(pool.acquire, conns), conns)


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


def httpcore(conns: int) -> Host:
    """httpcore: a request that is handled, a response that is closed."""
    library = find("httpcore", "httpcore")

    async def host(serve: Serve) -> None:
        async with library.AsyncConnectionPool(max_connections=conns) as pool:
            pool.create_connection = lambda origin: AsyncExchange(library)
            take = partial(pool.handle_async_request, library.Request("GET", "http://localhost/"))
            await serve(await in_pairs(take, methodcaller("aclose"), conns))

    return host


class Protocol:
    """What aiohttp keeps of a connection."""

    should_close = False
    transport = closed = None

    def is_connected(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing to close."""


def aiohttp(conns: int) -> Host:
    """aiohttp's connector, by the door that its sessions use."""
    library = find("aiohttp", "aiohttp")
    base: Any = library.BaseConnector

    class Connector(base):  # type: ignore[misc]  # it may not be there
        async def _create_connection(self, *_: Any) -> Protocol:
            return Protocol()

    async def release(conn: Any) -> None:
        conn.release()

    async def host(serve: Serve) -> None:
        key = find("aiohttp.client_reqrep", "aiohttp").ConnectionKey(
            "localhost", 80, False, True, None, None, None
        )
        request = SimpleNamespace(connection_key=key, proxy=None)
        timeout = library.ClientTimeout(connect=PATIENCE)
        async with Connector(limit=conns, keepalive_timeout=3600) as connector:
            take = partial(connector.connect, request, [], timeout)
            await serve(await in_pairs(take, release, conns))

    return host


def entrant(
    name: str, what: str, host: Callable[[int], Host], against: str, *, fights: bool = True
) -> Entrant:
    """A peer that lives in a task."""

    def build(conns: int) -> AbstractContextManager[Guest]:
        return hosted(host(conns))

    return Entrant(name, what, build, against, fights, host)


ENTRANTS = [
    entrant("AsyncPool.call", "AsyncPool.call", partial(own, called), QUEUE_CALL, fights=False),
    entrant("AsyncPool.checkout", "AsyncPool.checkout", partial(own, checked_out), QUEUE),
    entrant("psycopg_pool", "psycopg_pool getconn, putconn", psycopg_pairs, QUEUE),
    entrant("psycopg_pool.with", "psycopg_pool connection()", psycopg_blocks, QUEUE, fights=False),
    entrant("sqlalchemy", "AsyncAdaptedQueuePool", sqlalchemy, QUEUE),
    entrant("redis", "redis-py", partial(redis, "ConnectionPool"), QUEUE, fights=False),
    entrant("redis.blocking", "redis-py blocking", partial(redis, "BlockingConnectionPool"), QUEUE),
    entrant("generic", "generic-connection-pool", generic, QUEUE),
    entrant("asyncpg", "asyncpg acquire, release", asyncpg_pairs, QUEUE),
    entrant("asyncpg.with", "asyncpg acquire()", asyncpg_blocks, QUEUE, fights=False),
    entrant("aiohttp", "aiohttp connector", aiohttp, QUEUE),
    entrant("httpcore", "httpcore request, response", httpcore, QUEUE),
]
