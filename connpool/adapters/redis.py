"""Conns to a Redis server, or to one that speaks like it, over redis-py's own connections.

Owns the order of things: look before sending, send once, read what was asked for, and leave nothing
unread.  Refuses to know of pools; what commands and errors mean is in `redis_rules`.

Invariant: a command is sent at most once, and a connection on which anything is left unread, or of
which that is not known, is closed before anybody else can read it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import redis
import redis.asyncio
from redis import exceptions

from ..errors import InitError
from .redis_client import RedisClient
from .redis_rules import (
    PIPELINE,
    Loading,
    ProtocolError,
    ReplyLost,
    ScriptRuns,
    listed,
    of_loss,
    of_opening,
)
from .redis_wire import (
    AsyncLentPool,
    AsyncOnceSsl,
    AsyncOnceTcp,
    AsyncOnceUnix,
    LentPool,
    OnceSsl,
    OnceTcp,
    OnceUnix,
)

__all__ = ["AsyncRedisConn", "Loading", "ProtocolError", "RedisConn", "ReplyLost", "ScriptRuns"]


class RedisConn(RedisClient):
    """A conn to a Redis server; its methods are the server's commands, in upper case.

    ``pool.call(resource, "SET", ("key", "value"))``: a payload is the one argument of the command,
    a tuple or list of all of them, or None where there are none; each a str, bytes, int or float.
    A reply is what the server sent, as redis-py reads it (bytes, int, list, None), not converted
    any further.  The method "pipeline" takes a list of commands, each a tuple such as ``("SET",
    "key", 1)`` or a str, sends them in one go, and gives the list of their replies; the error of
    one stands in the place of its reply.

    Parameters:
        host, port: where the server listens.
        db: the number of the database.
        username, password: who to be; they are never shown.
        ssl: whether to speak TLS; redis-py's options of that name (ssl_ca_certs, ...) tell how.
        path: a unix socket to be used in place of host and port.
        resource: what callers name; default: a URL such as "redis://localhost:6379/0".
        timeout: seconds that the server may let us wait for the next part of a reply, or for room
            to send; None: no limit.  What blocks, as BLPOP does, needs a shorter one of its own.
        connect_timeout: seconds that `init` may wait for each address of the host, and for each
            answer; None: no limit.
        commands: those to be offered as methods; default: all that the server has, and "pipeline".
        options: for redis-py's Connection: decode_responses, encoding, client_name, ...

    Refused, as CallError, are commands that the next caller would feel, such as SELECT, MULTI,
    WATCH, SUBSCRIBE or CLIENT REPLY.  They need a checkout: see `lend`.

    >>> from tests.servers.redis import RedisServer
    >>> with RedisServer() as server:
    ...     conn = RedisConn(*server.address)
    ...     conn.init()
    ...     conn.call("INCRBY", ("key", 2)), conn.call("pipeline", [("GET", "key"), "DBSIZE"])
    ...     conn.close()
    (2, [b'2', 1])
    """

    _kinds = (OnceTcp, OnceSsl, OnceUnix)
    _locks = threading.RLock  # under a pool nobody ever waits for it

    def init(self) -> None:
        """Connect, log in and ask for the commands; a connection that was open is closed first.

        Raises OSError where there is no server, `InitError` where there is one that does not want
        us: a wrong password, no such database, or LOADING, which is worth another attempt.
        """
        self.close()
        conn = self._kind(**self._options, later_timeout=self.timeout)
        try:
            conn.connect()
            self._greet(conn)
            conn.open_for_calls()
        except (exceptions.RedisError, TimeoutError) as error:
            conn.disconnect()
            raise of_opening(error, repr(self)) from error
        except BaseException:
            conn.disconnect()
            raise
        self._conn = conn

    def call(self, method: Any, payload: Any = None) -> Any:
        """Send a command, or a pipeline of them, and wait for the reply; nothing is sent twice.

        The conn lives on after an error that the server replied (redis-py's ResponseError, MOVED
        among them), after `Busy` (LOADING, BUSY, MASTERDOWN), and after CallError, TypeError and
        ValueError for what cannot be sent, and was not.  It is dead after `Closed` (the command was
        not carried out), `ReplyLost` and TimeoutError (it may have been), `ProtocolError`, and a
        CallError for READONLY or for a reply that cannot be decoded.
        """
        orders = self._orders(method, payload)
        with self._lock:
            conn = self._idle()
            packed = self._pack(conn, method, orders)
            whole = method == PIPELINE  # of which the beginning may be carried out by itself
            try:
                conn.send_packed_command(packed, check_health=False)
                whole = True
                replies = [_answer(conn) for _ in orders]
            except Exception as error:
                self._drop(conn)
                raise of_loss(error, repr(self), method, whole=whole) from error
            except BaseException:
                self._drop(conn)
                raise
            if self._demoted(replies):
                self._drop(conn)
        return self._reply(method, orders, replies)

    def methods(self) -> frozenset[str]:
        """The commands in upper case, and "pipeline"."""
        return self._offered

    def check(self) -> bool:
        """Whether the connection is open and nothing unread is there.

        Sends nothing, and waits only for a call that runs in another thread.
        """
        with self._lock:
            return self._conn is not None and self._conn.silent()

    def lend(self) -> redis.Redis:
        """A client of redis-py that speaks over this one connection, until `reset`.

        All of it may be used: transactions, WATCH, pubsub, SELECT.  Its errors are redis-py's.  It
        never connects again: where the connection is lost, it stays lost.  Raises `Closed` where
        that has happened already.
        """
        with self._lock:
            self._lent = LentPool(self._fresh(self._idle()), **self._coding)
            return redis.Redis(connection_pool=self._lent)

    def reset(self) -> None:
        """End what `lend` gave; nothing is sent.

        Raises `Closed` where the connection was lost or something unread is there, and CallError
        where its state cannot be vouched for: after SELECT, AUTH, SUBSCRIBE, CLIENT REPLY and their
        like, inside a MULTI or a WATCH, or with a pubsub or a pipeline that still holds it.  The
        conn is closed then.
        """
        with self._lock:
            conn, left = self._conn, self._left()
            if left or conn is None or not conn.silent():
                self._end()
                raise self._unclean(left)
            self._lent = None

    def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another thread is woken."""
        self._end()

    def _greet(self, conn: Any) -> None:
        try:
            self._greeted(_ask(conn, "PING"))
        except exceptions.NoPermissionError:
            pass  # but it answers
        if self._fixed:
            return
        try:
            self._offered = listed(_ask(conn, "COMMAND", "LIST"))
        except exceptions.NoPermissionError as error:
            raise self._unlisted() from error
        except exceptions.ResponseError:  # from a server before 7.0
            self._offered = listed(_ask(conn, "COMMAND"))

    def _idle(self) -> Any:
        """The connection, open and silent; else the error of a call that surely did not happen."""
        conn = self._conn
        if conn is None or not conn.silent():
            self._end()
            raise self._gone()
        return conn

    def _drop(self, conn: Any) -> None:
        if self._conn is conn:
            self._conn = None
        if self._held(conn):
            conn.wake()  # who holds it finds it at its end, and closes it
            return
        if not self._lock.acquire(blocking=False):
            # A call in another thread: it has to be out before the file's number is free for others
            conn.wake()
            self._lock.acquire()
        try:
            conn.disconnect()
        finally:
            self._lock.release()


class AsyncRedisConn(RedisClient):
    """The same for an `AsyncPool`, on asyncio only: redis-py has nothing for trio.

    Parameters, payloads, replies and refusals are those of `RedisConn`; but `timeout` and
    `connect_timeout` are the seconds that a whole call and a whole `init` may take, and a checkout
    gives a `redis.asyncio.Redis`.

    >>> from tests.servers.redis import RedisServer
    >>> async def main(address):
    ...     conn = AsyncRedisConn(*address, decode_responses=True)
    ...     await conn.init()
    ...     replies = await conn.call("pipeline", [("SET", "key", 1.5), ("GET", "key")])
    ...     await conn.close()
    ...     return replies
    >>> with RedisServer() as server:
    ...     asyncio.run(main(server.address))
    ['OK', '1.5']
    """

    _kinds = (AsyncOnceTcp, AsyncOnceSsl, AsyncOnceUnix)
    _locks = asyncio.Lock

    async def init(self) -> None:
        """As `RedisConn.init`; on trio it is an `InitError`, and never tried again."""
        _need_asyncio()
        self._end()
        conn = self._kind(**self._options)
        try:
            async with asyncio.timeout(self.connect_timeout):
                await conn.connect()
                await self._greet(conn)
        except (exceptions.RedisError, TimeoutError) as error:
            conn.abort()
            raise of_opening(error, repr(self)) from error
        except BaseException:
            conn.abort()
            raise
        self._end()  # what another task opened meanwhile
        self._conn = conn

    async def call(self, method: Any, payload: Any = None) -> Any:
        """As `RedisConn.call`.

        A call that is cancelled once it has begun to send may have been carried out, and closes the
        connection at once: its reply reaches nobody.
        """
        orders = self._orders(method, payload)
        async with self._lock:
            conn = await self._idle()
            packed = self._pack(conn, method, orders)
            try:
                async with asyncio.timeout(self.timeout):
                    await conn.send_packed_command(packed, check_health=False)
                    replies = [await _async_answer(conn) for _ in orders]
            except Exception as error:
                self._drop(conn)
                raise of_loss(error, repr(self), method) from error
            except BaseException:
                self._drop(conn)
                raise
            if self._demoted(replies):
                self._drop(conn)
        return self._reply(method, orders, replies)

    async def methods(self) -> frozenset[str]:
        """The commands in upper case, and "pipeline"."""
        return self._offered

    async def check(self) -> bool:
        """As `RedisConn.check`."""
        async with self._lock:
            return self._conn is not None and await self._conn.silent()

    async def lend(self) -> redis.asyncio.Redis:
        """As `RedisConn.lend`; `timeout` is then for each part of a command, as redis-py has it."""
        async with self._lock:
            conn = self._fresh(await self._idle())
            conn.socket_timeout = self.timeout
            self._lent = AsyncLentPool(conn, **self._coding)
            return redis.asyncio.Redis(connection_pool=self._lent)

    async def reset(self) -> None:
        """As `RedisConn.reset`."""
        async with self._lock:
            conn, left = self._conn, self._left()
            if left or conn is None or not await conn.silent():
                self._end()
                raise self._unclean(left)
            self._lent, conn.socket_timeout = None, None

    async def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another task is woken.

        Never waits, so that it does the same whether its task is cancelled or not.
        """
        self._end()

    async def _greet(self, conn: Any) -> None:
        try:
            self._greeted(await _async_ask(conn, "PING"))
        except exceptions.NoPermissionError:
            pass  # but it answers
        if self._fixed:
            return
        try:
            self._offered = listed(await _async_ask(conn, "COMMAND", "LIST"))
        except exceptions.NoPermissionError as error:
            raise self._unlisted() from error
        except exceptions.ResponseError:  # from a server before 7.0
            self._offered = listed(await _async_ask(conn, "COMMAND"))

    async def _idle(self) -> Any:
        conn = self._conn
        if conn is None or not await conn.silent():
            self._end()
            raise self._gone()
        return conn

    def _drop(self, conn: Any) -> None:
        if self._conn is conn:
            self._conn = None
        conn.abort()


def _ask(conn: Any, *words: str) -> Any:
    conn.send_command(*words, check_health=False)
    return conn.read_response(disable_decoding=True)


async def _async_ask(conn: Any, *words: str) -> Any:
    await conn.send_command(*words, check_health=False)
    return await conn.read_response(disable_decoding=True)


def _answer(conn: Any) -> Any:
    try:
        return conn.read_response()
    except exceptions.ResponseError as error:
        return error.with_traceback(None)  # it would hold this frame, and whatever is in reach


async def _async_answer(conn: Any) -> Any:
    try:
        return await conn.read_response()
    except exceptions.ResponseError as error:
        return error.with_traceback(None)


def _need_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise InitError(
            "AsyncRedisConn needs asyncio: redis-py has nothing for trio", retry_after=math.inf
        ) from None
