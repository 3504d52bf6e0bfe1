"""One test for both conns to PostgreSQL: what is to be awaited runs in a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import psycopg

from connpool import AsyncPool, Pool
from connpool.adapters.postgres import AsyncPostgresConn, PostgresConn
from tests.servers.postgres import PostgresServer

from . import PATIENCE, eventually

AnyConn = PostgresConn | AsyncPostgresConn


class Way:
    """Makes conns of one kind, and calls what they have; `with` closes them."""

    Conn: ClassVar[type[Any]]
    Pool: ClassVar[type[Any]]

    def __init__(self) -> None:
        self._conns: list[AnyConn] = []

    def conn(self, conninfo: str, **options: Any) -> Any:
        """A conn, not initialised."""
        conn = self.Conn(conninfo, **options)
        self._conns.append(conn)
        return conn

    def opened(self, conninfo: str, **options: Any) -> Any:
        """A conn, initialised."""
        conn = self.conn(conninfo, **options)
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

    Conn, Pool = PostgresConn, Pool

    def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Asyncio(Way):
    """One loop, that of the test."""

    Conn, Pool = AsyncPostgresConn, AsyncPool

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


class Other:
    """Another client of the server, which sees what the server holds and does."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def fetch(self, statement: Any, params: Any = None) -> list[Any]:
        """The rows of a statement, on a connection of its own."""
        with psycopg.connect(self._server.conninfo, autocommit=True) as pg:
            cursor = pg.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def running(self, text: str) -> list[int]:
        """The backends that run a statement with this text."""
        rows = self.fetch(
            "select pid from pg_stat_activity where state = 'active' "
            "and pid <> pg_backend_pid() and strpos(query, %s) > 0",
            [text],
        )
        return [pid for (pid,) in rows]

    def wait_running(self, text: str) -> int:
        """Until a statement with this text runs; gives its backend."""
        eventually(lambda: self.running(text))
        return self.running(text)[0]

    def wait_over(self, text: str) -> None:
        """Until none does."""
        eventually(lambda: not self.running(text))

    def end(self, pid: int) -> None:
        """End a session, and wait until it has gone."""
        self.fetch("select pg_terminate_backend(%s, 30000)", [pid])


@contextmanager
def meanwhile(function: Callable[[], Any]) -> Iterator[None]:
    """Do something in a thread while the block waits; what it raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert not errors, errors
