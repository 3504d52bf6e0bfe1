"""The conn to PostgreSQL for tasks on asyncio: `postgres` with tasks for threads.

Owns a connection from `init` to `close`.  Refuses to know of pools, and leaves what can be decided
without waiting to `postgres_rules`.

Invariant: a statement is sent at most once, and its reply reaches its own caller or nobody.  A
connection that is not known to be idle and silent is never used again.

psycopg waits through asyncio and nothing else, so on trio `init` refuses at once.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import waiting

from ..errors import Closed, InitError
from .postgres_rules import (
    ACTIVE,
    FORGET,
    IDLE,
    METHODS,
    OPEN,
    SETTERS,
    Job,
    PostgresClient,
    hang_up,
    is_stale,
    read,
)


class _Connection(psycopg.AsyncConnection[Any]):
    """psycopg's, which can leave a cancelled query to its owner.

    psycopg has the query cancelled on the server, and keeps the cancelled task waiting until that
    is done, up to ten seconds.  Where cancellations come again and again, as those of anyio do, it
    gives up: the connection is closed, and the query runs on.  A conn would rather let its caller
    go at once, and have `close` see to the server.
    """

    hands_off = False

    async def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        if self.hands_off:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=0.1)
        return await super().wait(gen, *args, **kwargs)


class AsyncPostgresConn(PostgresClient[_Connection]):
    """A conn to a PostgreSQL server, for `connpool.AsyncPool` on asyncio.

    Methods, payloads, replies and parameters are those of `PostgresConn`; a checkout lends a
    psycopg.AsyncConnection.

    A call that is cancelled part way may have been carried out.  It leaves the conn unfit, at once,
    and `close`, which a pool calls then, has the server cancel what still runs.  In a checkout
    cancellations are psycopg's own affair: it waits until the server has cancelled the query.

    >>> import asyncio
    >>> asyncio.run(AsyncPostgresConn("host=db.example password=secret").call("fetch", "select 1"))
    Traceback (most recent call last):
    connpool.errors.Closed: <AsyncPostgresConn 'postgresql://db.example', closed>: nothing was sent
    """

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        super().__init__(conninfo, **options)
        # Under a pool nobody ever waits for this; users of a shared conn stand in line here.
        self._turn = asyncio.Lock()
        self._running: _Connection | None = None  # where a call runs

    async def init(self) -> None:
        """Connect.  A connection that was open is closed first.

        Raises `InitError` with `auth_retry` where the server refuses who we are, and psycopg's
        errors otherwise, which carry no password.  On trio an `InitError` says "never".
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InitError(
                f"{self!r} needs asyncio: psycopg waits through nothing else", retry_after=math.inf
            ) from None
        await self.close()
        self._turn = asyncio.Lock()  # it may be another loop than last time
        try:
            pg = await _Connection.connect(**self._connect_with())
        except psycopg.Error as raised:
            error = self._init_error(raised)
        else:
            self._take_up(pg)
            return
        raise error  # out here it has no context, which would hold all the parameters

    async def methods(self) -> tuple[str, ...]:
        """execute, fetch, fetchone and transaction."""
        return METHODS

    async def call(self, method: Any, payload: Any = None) -> Any:
        """Run statements, and wait for what they give; nothing is ever sent twice.

        The connection lives on after psycopg's errors, its transaction rolled back, and after
        `CallError` and TypeError for what cannot be sent, and was not.  It is of no more use after
        all others: `Closed`, nothing was sent; `ConnectionLost` and TimeoutError, it may have been
        carried out; and after a cancellation.
        """
        job = read(method, payload)
        async with self._turn:
            pg = self._running = self._look()
            pg.hands_off = True
            try:
                async with asyncio.timeout(self.timeout):
                    reply = await self._carry_out(pg, job)
                if pg.pgconn.transaction_status != IDLE:
                    await self._recover(pg)
                    raise self._left_open(job.method)
            except psycopg.Error as error:
                if not await self._recover(pg, error):
                    raise self._lost(job.method, error) from error
                raise
            except TimeoutError:
                raise self._too_long(job.method) from None
            finally:
                self._running = None
                if self._pg is not pg:  # closed meanwhile
                    await pg.close()
            return reply

    async def check(self) -> bool:
        """Whether the connection is open, idle and silent; with `ping` the server is asked too.

        Waits only for a ping, as long as `connect_timeout`, which raises what went wrong; and for
        a call that runs in another task.
        """
        async with self._turn:
            try:
                pg = self._look()
            except Closed:
                return False
            if self.ping:
                pg.hands_off = True
                try:
                    async with asyncio.timeout(self._patience):
                        if not pg.autocommit:
                            await pg.set_autocommit(True)
                        await pg.execute("", prepare=False)
                except psycopg.Error as error:
                    raise self._lost("a ping", error) from error
                except TimeoutError:
                    raise self._no_answer() from None
            return True

    async def lend(self) -> psycopg.AsyncConnection[Any]:
        """The psycopg connection, for one borrower until `reset`; `Closed` where it is dead."""
        pg = self._look()
        pg.hands_off = False
        if pg.autocommit is not self.autocommit:
            await pg.set_autocommit(self.autocommit)
        return pg

    async def reset(self) -> None:
        """Make a connection that was lent clean again: roll back what was not committed.

        What the borrower set on the connection (autocommit, isolation_level, read_only,
        deferrable, row_factory and its like) is as before; with `discard_all` its session is too.
        Waits only where there is something to roll back or to discard, as long as
        `connect_timeout`.  Raises `Closed` where the connection cannot be used again.  Cancelled,
        it leaves the conn unfit.
        """
        pg = self._pg
        if reason := self._unfit(pg):
            raise Closed(f"{self!r}: {reason}")
        assert pg is not None
        pg.hands_off = True
        try:
            async with asyncio.timeout(None if self._sends_nothing(pg) else self._patience):
                await pg.rollback()  # looks for blocks that were never left, even if it sends none
                for name, value in self._changed(pg):
                    if name in SETTERS:
                        await getattr(pg, f"set_{name}")(value)
                    else:
                        setattr(pg, name, value)
                # Whether it is in autocommit everybody sees to before he uses it.
                if self.discard_all:
                    if not pg.autocommit:
                        await pg.set_autocommit(True)
                    await pg.execute("DISCARD ALL", prepare=False)
        except (psycopg.Error, TimeoutError) as error:
            raise Closed(f"{self!r}: it could not be reset: {error}") from error

    async def close(self) -> None:
        """Close the connection; calling it again is fine.

        What still runs on the server is cancelled there, which takes at most `cancel_timeout`.  A
        call in another task is woken.  Cancelled, it closes the connection all the same.
        """
        pg, self._pg = self._pg, None
        if pg is None or os.getpid() != self._process:
            return  # in a forked child it is the parent's, and goes on
        try:
            if pg.pgconn.transaction_status == ACTIVE:
                await pg.cancel_safe(timeout=self.cancel_timeout)
        except (psycopg.Error, OSError):
            pass  # then the server will find out by itself
        finally:
            if self._running is pg:
                hang_up(pg)
            else:
                await pg.close()  # which never waits

    async def _carry_out(self, pg: _Connection, job: Job) -> Any:
        several = job.method == "transaction"
        if pg.autocommit is several:
            await pg.set_autocommit(not several)
        if several:
            replies = [await _reply(await pg.execute(*each)) for each in job.statements]
            await pg.commit()
            return replies
        return await _reply(await pg.execute(*job.statements[0]), job.method)

    async def _recover(self, pg: _Connection, error: psycopg.Error | None = None) -> bool:
        """Make the connection fit for the next call; whether that could be done."""
        try:
            async with asyncio.timeout(self._patience):
                if pg.pgconn.transaction_status in OPEN:
                    await pg.rollback()
                if error is not None and is_stale(error) and pg.pgconn.transaction_status == IDLE:
                    await pg.execute(FORGET, prepare=False)
        except (psycopg.Error, TimeoutError):
            await pg.close()
        return pg.pgconn.transaction_status == IDLE


async def _reply(cursor: psycopg.AsyncCursor[Any], method: str | None = None) -> Any:
    """What a statement gave, as the method has it; without one: rows if it has any."""
    has_rows = cursor.rownumber is not None
    if method == "fetchone":
        return await cursor.fetchone() if has_rows else None
    if method == "fetch" and not has_rows:
        return []
    return await cursor.fetchall() if has_rows and method != "execute" else cursor.rowcount
