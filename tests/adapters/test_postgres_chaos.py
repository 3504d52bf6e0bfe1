"""The conns to PostgreSQL in the chaos that every adapter has to survive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from connpool.adapters.postgres import AsyncPostgresConn, PostgresConn
from tests.servers.postgres import PostgresServer

from . import chaos

DRIVERS = ("threads", "asyncio")  # psycopg knows no trio

NOTE = "insert into notes values (%s) returning n"


def ask(number: int) -> tuple[str, Any]:
    """A note with the number, committed in one round trip."""
    return ("fetch" if number % 2 else "fetchone"), (NOTE, [number])


def replied(number: int, reply: Any) -> bool:
    """Whether this is what the server says to it."""
    return bool(reply == ([(number,)] if number % 2 else (number,)))


class Notes:
    """What the server has noted, asked over a connection that nobody disturbs."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._pg = self._connect()
        self._pg.execute("create table notes (n int)")

    def count(self, number: int) -> int:
        """How often a number was noted."""
        with self._lock:
            try:
                return self._count(number)
            except psycopg.OperationalError:  # the server was restarted meanwhile
                self._pg.close()
                self._pg = self._connect()
                return self._count(number)

    def close(self) -> None:
        self._pg.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._server.conninfo, autocommit=True)

    def _count(self, number: int) -> int:
        row = self._pg.execute("select count(*) from notes where n = %s", [number]).fetchone()
        assert row is not None
        return int(row[0])


def make(kind: Any, host: str, port: int, timeout: float) -> Any:
    """A conn that soon gives up to have a query cancelled where nobody listens."""
    conninfo = f"host={host} port={port} user=postgres dbname=postgres"
    return kind(conninfo, timeout=timeout, connect_timeout=2, cancel_timeout=0.1)


@pytest.fixture(scope="module")
def rig() -> Iterator[chaos.Rig]:
    with PostgresServer() as server:
        notes = Notes(server)
        yield chaos.Rig(
            name="postgres",
            server=server,
            ask=ask,
            replied=replied,
            carried_out=notes.count,
            conn=lambda *args: make(PostgresConn, *args),
            async_conn=lambda *args: make(AsyncPostgresConn, *args),
            drivers=DRIVERS,
            errors=(OSError,),
        )
        notes.close()


@pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases(DRIVERS))
def test_chaos(rig: chaos.Rig, scenario: chaos.Scenario, driver: str, seed: int) -> None:
    """Nothing is lost, mixed up or done twice, whatever becomes of the wire and the server."""
    chaos.run(rig, scenario, driver, seed)
