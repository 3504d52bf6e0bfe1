"""Conns to PostgreSQL, over psycopg 3: `PostgresConn` for threads; its twin for tasks on asyncio.

Owns a connection from `init` to `close`.  Refuses to know of pools, and leaves what can be decided
without waiting to `postgres_rules`.

Invariant: a statement is sent at most once, and its reply reaches its own caller or nobody.  A
connection that is not known to be idle and silent is never used again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from typing import Any

import psycopg

from ..errors import Closed
from .postgres_async import AsyncPostgresConn
from .postgres_rules import (
    ACTIVE,
    FORGET,
    IDLE,
    METHODS,
    OPEN,
    ConnectionLost,
    Job,
    PostgresClient,
    hang_up,
    is_stale,
    read,
)

__all__ = ["AsyncPostgresConn", "ConnectionLost", "PostgresConn"]


class _Connection(psycopg.Connection[Any]):
    """psycopg's, with a time limit for what a conn does on it."""

    due: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        if self.due is not None:
            gen = _until(gen, self.due)
        return super().wait(gen, *args, **kwargs)


def _until(gen: Generator[Any, Any, Any], due: float) -> Generator[Any, Any, Any]:
    """A conversation with the server that ends with a TimeoutError at `due`.

    psycopg resumes it whenever the socket is ready, and ten times a second where it is not.
    """
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if time.monotonic() >= due:
                raise TimeoutError
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


class PostgresConn(PostgresClient[_Connection]):
    """A conn to a PostgreSQL server, for `connpool.Pool`.

    Its methods; each call is one transaction, committed when the reply comes:

    ``execute``
        runs a statement; replies how many rows it touched.
    ``fetch``, ``fetchone``
        run a statement; reply all its rows as a list, or the first or None.
    ``transaction``
        runs a list of statements, all or none; replies a list of what ``fetch`` would give for
        those with rows, and ``execute`` for the others.

    A payload is a statement (a str, bytes or something of psycopg.sql), or the pair (statement,
    parameters).  A checkout lends the psycopg connection itself.

    Parameters:
        conninfo: where to connect, as psycopg.connect takes it.
        resource: what callers name; default: ``postgresql://user@host:port/dbname``, as far as
            these were given.
        connect_timeout: seconds that connecting may take for each address, at least 2 and in whole
            seconds, which is libpq's rule; default: what `conninfo` says, or 10.  A ping and a
            reset have as long.
        timeout: seconds that a call may take, to a tenth of a second; None: no limit, for the
            server's own ``statement_timeout`` is the better judge of slow statements.
        cancel_timeout: seconds that `close` may spend to have the server cancel what still runs.
        auth_retry: seconds until the next attempt after the server refused who we are.
        ping: True: `check` asks the server too, which costs a round trip.
        discard_all: True: `reset` sends ``DISCARD ALL``, which costs a round trip and leaves
            nothing of the borrower: no settings, temporary tables, locks, prepared statements.
        autocommit: how connections are lent; calls are not concerned.
        more: whatever else psycopg.connect takes (host, password, row_factory...).

    >>> conn = PostgresConn("postgresql://ada:secret@db.example:5433/orders")
    >>> conn
    <PostgresConn 'postgresql://ada@db.example:5433/orders', closed>
    >>> conn.call("fetch", "select 1")
    Traceback (most recent call last):
    connpool.errors.Closed: <PostgresConn ...>: nothing was sent
    """

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        super().__init__(conninfo, **options)
        # Under a pool nobody ever waits for this; users of a shared conn stand in line here.
        self._lock = threading.RLock()

    def init(self) -> None:
        """Connect.  A connection that was open is closed first.

        Raises `InitError` with `auth_retry` where the server refuses who we are, and psycopg's
        errors otherwise, which carry no password.
        """
        self.close()
        try:
            pg = _Connection.connect(**self._connect_with())
        except psycopg.Error as raised:
            error = self._init_error(raised)
        else:
            self._take_up(pg)
            return
        raise error  # out here it has no context, which would hold all the parameters

    def methods(self) -> tuple[str, ...]:
        """execute, fetch, fetchone and transaction."""
        return METHODS

    def call(self, method: Any, payload: Any = None) -> Any:
        """Run statements, and wait for what they give; nothing is ever sent twice.

        The connection lives on after psycopg's errors, its transaction rolled back, and after
        `CallError` and TypeError for what cannot be sent, and was not.  It is of no more use after
        all others: `Closed`, nothing was sent; `ConnectionLost` and TimeoutError, it may have been
        carried out; and after whatever interrupts the wait.
        """
        job = read(method, payload)
        with self._lock:
            pg = self._look()
            pg.due = None if self.timeout is None else time.monotonic() + self.timeout
            try:
                reply = self._carry_out(pg, job)
            except psycopg.Error as error:
                if not self._recover(pg, error):
                    raise self._lost(job.method, error) from error
                raise
            except TimeoutError:
                raise self._too_long(job.method) from None
            if pg.pgconn.transaction_status != IDLE:
                self._recover(pg)
                raise self._left_open(job.method)
            return reply

    def check(self) -> bool:
        """Whether the connection is open, idle and silent; with `ping` the server is asked too.

        Waits only for a ping, as long as `connect_timeout`, which raises what went wrong; and for
        a call that runs in another thread.
        """
        with self._lock:
            try:
                pg = self._look()
            except Closed:
                return False
            if self.ping:
                pg.due = time.monotonic() + self._patience
                try:
                    if not pg.autocommit:
                        pg.autocommit = True
                    pg.execute("", prepare=False)
                except psycopg.Error as error:
                    raise self._lost("a ping", error) from error
                except TimeoutError:
                    raise self._no_answer() from None
            return True

    def lend(self) -> psycopg.Connection[Any]:
        """The psycopg connection, for one borrower until `reset`; `Closed` where it is dead."""
        pg = self._look()
        pg.due = None
        if pg.autocommit is not self.autocommit:
            pg.autocommit = self.autocommit
        return pg

    def reset(self) -> None:
        """Make a connection that was lent clean again: roll back what was not committed.

        What the borrower set on the connection (autocommit, isolation_level, read_only,
        deferrable, row_factory and its like) is as before; with `discard_all` its session is too.
        Waits only where there is something to roll back or to discard, as long as
        `connect_timeout`.  Raises `Closed` where the connection cannot be used again.
        """
        pg = self._pg
        if reason := self._unfit(pg):
            raise Closed(f"{self!r}: {reason}")
        assert pg is not None
        pg.due = None if self._sends_nothing(pg) else time.monotonic() + self._patience
        try:
            pg.rollback()  # looks for blocks that were never left, even where it sends nothing
            for name, value in self._changed(pg):
                setattr(pg, name, value)
            # Whether it is in autocommit everybody sees to before he uses it.
            if self.discard_all:
                if not pg.autocommit:
                    pg.autocommit = True
                pg.execute("DISCARD ALL", prepare=False)  # it would discard its own preparation
        except (psycopg.Error, TimeoutError) as error:
            raise Closed(f"{self!r}: it could not be reset: {error}") from error

    def close(self) -> None:
        """Close the connection; calling it again is fine.

        What still runs on the server is cancelled there, which takes at most `cancel_timeout`.  A
        call in another thread is woken.
        """
        pg, self._pg = self._pg, None
        if pg is None or os.getpid() != self._process:
            return  # in a forked child it is the parent's, and goes on
        if not self._lock.acquire(blocking=False):
            # A call in another thread, which has to let go of the connection first.
            self._cancel(pg)
            hang_up(pg)
            self._lock.acquire()
        try:
            self._cancel(pg)
            pg.close()
        finally:
            self._lock.release()

    def _carry_out(self, pg: _Connection, job: Job) -> Any:
        several = job.method == "transaction"
        if pg.autocommit is several:
            pg.autocommit = not several
        if several:
            replies = [_reply(pg.execute(*statement)) for statement in job.statements]
            pg.commit()
            return replies
        return _reply(pg.execute(*job.statements[0]), job.method)

    def _recover(self, pg: _Connection, error: psycopg.Error | None = None) -> bool:
        """Make the connection fit for the next call; whether that could be done."""
        pg.due = time.monotonic() + self._patience
        try:
            if pg.pgconn.transaction_status in OPEN:
                pg.rollback()
            if error is not None and is_stale(error) and pg.pgconn.transaction_status == IDLE:
                pg.execute(FORGET, prepare=False)
        except (psycopg.Error, TimeoutError):
            pg.close()
        return pg.pgconn.transaction_status == IDLE

    def _cancel(self, pg: _Connection) -> None:
        if pg.pgconn.transaction_status == ACTIVE:
            try:
                pg.cancel_safe(timeout=self.cancel_timeout)
            except (psycopg.Error, OSError):
                pass  # then the server will find out by itself


def _reply(cursor: psycopg.Cursor[Any], method: str | None = None) -> Any:
    """What a statement gave, as the method has it; without one: rows if it has any."""
    has_rows = cursor.rownumber is not None
    if method == "fetchone":
        return cursor.fetchone() if has_rows else None
    if method == "fetch" and not has_rows:
        return []
    return cursor.fetchall() if has_rows and method != "execute" else cursor.rowcount
