"""One test for both conns to Redis: what is to be awaited runs in a loop of its own.

That loop stands still between two steps of a test, so that it learns nothing of what comes
meanwhile: a conn has to look for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import redis
import redis.asyncio

from connpool import AsyncPool, Pool
from connpool.adapters.redis import AsyncRedisConn, RedisConn

from . import PATIENCE


class Way:
    """Makes conns of one kind, and calls what they have; `with` closes them."""

    Conn: ClassVar[type[Any]]
    Client: ClassVar[type[Any]]
    Pool: ClassVar[type[Any]]

    def __init__(self) -> None:
        self._conns: list[Any] = []

    def conn(self, *address: Any, **options: Any) -> Any:
        """A conn, not initialised."""
        conn = self.Conn(*address, **{"timeout": PATIENCE, **options})
        self._conns.append(conn)
        return conn

    def opened(self, *address: Any, **options: Any) -> Any:
        """A conn, initialised."""
        conn = self.conn(*address, **options)
        self.do(conn.init)
        return conn

    def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of this kind; what it gives is awaited, where it is to be."""
        raise NotImplementedError

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        for conn in self._conns:
            self.do(conn.close)


class Threads(Way):
    """Nothing is ever awaited."""

    Conn, Client, Pool = RedisConn, redis.Redis, Pool

    def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Asyncio(Way):
    """One loop, that of the test."""

    Conn, Client, Pool = AsyncRedisConn, redis.asyncio.Redis, AsyncPool

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()

    def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            given = function(*args, **kwargs)
            return await given if isinstance(given, Awaitable) else given

        return self._runner.run(run())

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._runner.close()


WAYS: list[type[Way]] = [Threads, Asyncio]
