"""Pools for threads that connpool's is compared with.

Owns what it takes to have each of them hold conns that do nothing.  Refuses to know how they are
compared (`peers`).

They do not all do the same.  The two queues keep objects and nothing else; psycopg_pool, SQLAlchemy
and DBUtils look after what they hold (age, health, transactions); redis-py asks the socket before
it lends; httpcore's unit is a request with its response, not a conn.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from operator import methodcaller
from threading import Lock
from types import SimpleNamespace
from typing import Any

from connpool import Pool

from .conns import caller, one_resource, warm_pool_of
from .field import Entrant, Session, find, in_blocks, in_pairs
from .harness import Work

# Seconds until a caller in line gives up, for peers that need such a number.
PATIENCE = 30.0

# A database driver whose connections are for one thread at a time: most are.
DRIVER = SimpleNamespace(threadsafety=1, connect=Session)

BARE, BARE_CALL = "bare, no call", "bare"


@contextmanager
def own(how: Callable[[Pool, int], Work], conns: int) -> Iterator[Work]:
    """A pool of connpool, and the work that `how` makes of it."""
    with warm_pool_of(one_resource(conns)) as pool:
        yield how(pool, conns)


def checked_out(pool: Pool, conns: int) -> Work:
    """Conns lent in a `with` block."""
    return in_blocks(partial(pool.checkout, "r"), conns)


@contextmanager
def queued(kind: Callable[[], Any], conns: int) -> Iterator[Work]:
    """A queue of the standard library."""
    line = kind()
    for conn in one_resource(conns):
        line.put(conn)
    yield in_pairs(line.get, line.put, conns)


# -- psycopg_pool ----------------------------------------------------------------------------------


@contextmanager
def psycopg_pool(conns: int) -> Iterator[Any]:
    """A psycopg_pool, full."""
    library = find("psycopg_pool", "psycopg-pool")
    idle = find("psycopg.pq", "psycopg").TransactionStatus.IDLE

    class Connection(Session):
        pgconn = SimpleNamespace(transaction_status=idle)

        @classmethod
        def connect(cls, *_: Any, **__: Any) -> Connection:
            return cls()

        def __enter__(self) -> Connection:
            return self

        def __exit__(self, *_: object) -> None:
            self.commit()

    with library.ConnectionPool(
        connection_class=Connection, min_size=conns, timeout=PATIENCE, open=False
    ) as pool:
        pool.wait()
        yield pool


@contextmanager
def psycopg_pairs(conns: int) -> Iterator[Work]:
    """By getconn and putconn."""
    with psycopg_pool(conns) as pool:
        yield in_pairs(pool.getconn, pool.putconn, conns)


@contextmanager
def psycopg_blocks(conns: int) -> Iterator[Work]:
    """By `with pool.connection()`."""
    with psycopg_pool(conns) as pool:
        yield in_blocks(pool.connection, conns)


# -- databases at large ----------------------------------------------------------------------------


@contextmanager
def sqlalchemy(conns: int) -> Iterator[Work]:
    """SQLAlchemy's QueuePool: what an engine holds."""
    library = find("sqlalchemy.pool", "SQLAlchemy")
    pool = library.QueuePool(Session, pool_size=conns, max_overflow=0, timeout=PATIENCE)
    try:
        yield in_pairs(pool.connect, methodcaller("close"), conns)
    finally:
        pool.dispose()


@contextmanager
def dbutils(conns: int) -> Iterator[Work]:
    """DBUtils' PooledDB, over connections that it hardens (SteadyDB)."""
    library = find("dbutils.pooled_db", "DBUtils")
    with closing(
        library.PooledDB(
            DRIVER, maxcached=conns, maxconnections=conns, blocking=True, failures=(OSError,)
        )
    ) as pool:
        yield in_pairs(pool.connection, methodcaller("close"), conns)


@contextmanager
def dbutils_simple(conns: int) -> Iterator[Work]:
    """DBUtils' SimplePooledDB, for connections that only one thread may use at a time."""
    library = find("dbutils.simple_pooled_db", "DBUtils")
    pool = library.PooledDB(DRIVER, conns)
    yield in_pairs(pool.connection, methodcaller("close"), conns)


@contextmanager
def generic(conns: int) -> Iterator[Work]:
    """generic-connection-pool."""
    library = find("generic_connection_pool.threading", "generic-connection-pool")
    base: Any = library.BaseConnectionManager

    class Manager(base):  # type: ignore[misc]  # it may not be there
        def create(self, endpoint: str, timeout: float | None = None) -> Session:
            return Session()

        def dispose(self, endpoint: str, conn: Session, timeout: float | None = None) -> None:
            """Nothing to close."""

    with closing(
        library.ConnectionPool(
            Manager(),
            min_idle=conns,
            max_size=conns,
            total_max_size=conns,
            acquire_timeout=PATIENCE,
        )
    ) as pool:
        yield in_pairs(partial(pool.acquire, "r"), lambda conn: pool.release(conn, "r"), conns)


# -- redis-py --------------------------------------------------------------------------------------


@contextmanager
def redis(kind: str, conns: int) -> Iterator[Work]:
    """One of redis-py's pools."""
    library = find("redis.connection", "redis")
    base: Any = library.Connection

    class Connection(base):  # type: ignore[misc]  # it may not be there
        def connect(self) -> None:
            """Nothing to open."""

        def can_read(self, timeout: float = 0) -> bool:
            return False

        def disconnect(self, *_: Any, **__: Any) -> None:
            """Nothing to close."""

    more = {"timeout": PATIENCE} if kind == "BlockingConnectionPool" else {}
    pool = getattr(library, kind)(connection_class=Connection, max_connections=conns, **more)
    with closing(pool):
        yield in_pairs(pool.get_connection, pool.release, conns)


# -- HTTP ------------------------------------------------------------------------------------------


@contextmanager
def urllib3(conns: int) -> Iterator[Work]:
    """The pool of one host, by the doors that urllib3 keeps to itself."""
    library = find("urllib3", "urllib3")

    class Connection:
        is_connected = True

        def __init__(self, **_: Any) -> None: ...

        def close(self) -> None:
            """Nothing to close."""

    with closing(library.HTTPConnectionPool("localhost", maxsize=conns, block=True)) as pool:
        pool.ConnectionCls = Connection
        yield in_pairs(pool._get_conn, pool._put_conn, conns)


class Exchange:
    """A conn of httpcore, which answers without a network.  It is the stream of its response, too,
    and idle again once that is closed."""

    def __init__(self, library: Any) -> None:
        self._response = partial(library.Response, 200, content=self)
        self._refusal = library.ConnectionNotAvailable
        self._lock = Lock()

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def handle_request(self, request: Any) -> Any:
        """Answer; where somebody was quicker, say so as a conn of HTTP/1.1 does: one at a time."""
        if not self._lock.acquire(blocking=False):
            raise self._refusal
        return self._response()

    def close(self) -> None:
        """The response has been read, or the pool is closed."""
        if self._lock.locked():
            self._lock.release()

    def can_handle_request(self, origin: Any) -> bool:
        """Whatever it is."""
        return True

    def is_available(self) -> bool:
        """One request at a time, as in HTTP/1.1."""
        return not self._lock.locked()

    def is_idle(self) -> bool:
        """Nothing is being answered."""
        return not self._lock.locked()

    def is_closed(self) -> bool:
        """Never."""
        return False

    def has_expired(self) -> bool:
        """Never."""
        return False


@contextmanager
def httpcore(conns: int) -> Iterator[Work]:
    """httpcore: a request that is handled, a response that is closed."""
    library = find("httpcore", "httpcore")
    with library.ConnectionPool(max_connections=conns) as pool:
        pool.create_connection = lambda origin: Exchange(library)
        request = library.Request("GET", "http://localhost/")
        yield in_pairs(partial(pool.handle_request, request), methodcaller("close"), conns)


ENTRANTS = [
    Entrant("pool.call", "pool.call", partial(own, lambda pool, _: caller(pool)), BARE_CALL),
    Entrant("pool.checkout", "pool.checkout", partial(own, checked_out), BARE),
    Entrant("SimpleQueue", "queue.SimpleQueue", partial(queued, queue.SimpleQueue), BARE),
    Entrant("LifoQueue", "queue.LifoQueue", partial(queued, queue.LifoQueue), BARE),
    Entrant("psycopg_pool", "psycopg_pool getconn, putconn", psycopg_pairs, BARE),
    Entrant(
        "psycopg_pool.with", "psycopg_pool with connection()", psycopg_blocks, BARE, fights=False
    ),
    Entrant("sqlalchemy", "SQLAlchemy QueuePool", sqlalchemy, BARE),
    Entrant("redis", "redis-py", partial(redis, "ConnectionPool"), BARE, fights=False),
    Entrant("redis.blocking", "redis-py blocking", partial(redis, "BlockingConnectionPool"), BARE),
    Entrant("dbutils", "DBUtils PooledDB", dbutils, BARE),
    Entrant("dbutils.simple", "DBUtils SimplePooledDB", dbutils_simple, BARE),
    Entrant("generic", "generic-connection-pool", generic, BARE),
    Entrant("urllib3", "urllib3 _get_conn, _put_conn", urllib3, BARE),
    Entrant("httpcore", "httpcore request, response", httpcore, BARE),
]
