"""Connections of redis-py that live once and remember what was sent, and clients bound to one.

Owns what is taken from redis-py, and what of it has to be kept from happening: a connection of its
own opens itself again whenever it is used.  Refuses to know of calls and of what they mean.

Invariant: a connection is opened at most once.  Whoever still holds one that has ended, be it a
client that outlived its checkout, cannot reach the server through it.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterable
from typing import Any

import redis
import redis.asyncio
from redis import _parsers
from redis import connection as threads
from redis.asyncio import connection as tasks

from .redis_rules import TOLD, Traces

# redis-py's own classes promise less to a type checker than they keep.
_ThreadBase: Any = threads.AbstractConnection
_TaskBase: Any = tasks.AbstractConnection


# Before this was there, what hiredis had read too much of could not be seen.
SEES_ALL = hasattr(tasks.AbstractConnection, "can_read")

_telling: dict[Any, Any] = {}


def telling(parser: Any, plain: Any) -> Any:
    """A parser like `parser`, or else `plain`, that makes of some errors what `TOLD` says."""
    chosen = parser if SEES_ALL else plain
    if chosen not in _telling:
        told = {"EXCEPTION_CLASSES": {**chosen.EXCEPTION_CLASSES, **TOLD}}
        _telling[chosen] = type(f"Telling{chosen.__name__}", (chosen,), told)
    return _telling[chosen]


def _ended() -> OSError:
    return ConnectionAbortedError("this connection has ended, and is not opened again")


# -- for threads -----------------------------------------------------------------------------------


class Once(_ThreadBase):  # type: ignore[misc]  # see above
    """What is the same whatever a connection runs over."""

    def __init__(self, *, later_timeout: float | None = None, **options: Any) -> None:
        # While it is being opened the one limit holds, and afterwards the other.
        super().__init__(**options, socket_timeout=options.get("socket_connect_timeout"))
        self.set_parser(telling(type(self._parser), _parsers._RESP2Parser))
        # That of hiredis takes True for 1, and has an encoding of its own.
        self._command_packer = threads.PythonRespSerializer(6_000, self.encoder.encode)
        self.traces = Traces()
        self.sock: socket.socket | None = None
        self._later_timeout = later_timeout

    def _connect(self) -> socket.socket:
        if self.sock is not None:
            raise _ended()
        sock: socket.socket = super()._connect()
        self.sock = sock
        # The parser, which is told next, sets this one again whenever it has looked.
        self.socket_timeout = self._later_timeout
        return sock

    def open_for_calls(self) -> None:
        """The opening is over."""
        assert self.sock is not None
        self.sock.settimeout(self._later_timeout)

    def wake(self) -> None:
        """Have whoever waits for it find it at its end."""
        try:
            if self.sock is not None and self.ours:
                self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def send_command(self, *words: Any, **options: Any) -> None:
        self.traces.note(words)
        super().send_command(*words, **options)

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        listed = list(commands)
        packed = super().pack_commands(listed)
        for words in listed:
            self.traces.note(words)
        return packed

    @property
    def ours(self) -> bool:
        """Whether this process opened it; in a forked child it is the parent's."""
        return self.pid == os.getpid()  # type: ignore[no-any-return]  # redis-py says nothing

    def silent(self) -> bool:
        """Whether it is open and nothing unread is there; never waits."""
        try:
            return self.ours and not self.can_read(0)
        except (redis.RedisError, OSError):
            return False


class OnceTcp(Once, threads.Connection):
    """Over TCP."""


class OnceSsl(Once, threads.SSLConnection):
    """Over TLS."""


class OnceUnix(Once, threads.UnixDomainSocketConnection):
    """Over a unix socket."""


class LentPool(redis.ConnectionPool):
    """What a client takes for its pool: one connection, as long as the checkout lasts."""

    def __init__(self, conn: Any, **options: Any) -> None:
        super().__init__(connection_class=type(conn), max_connections=1, protocol=2, **options)
        self.lease = Lease(conn)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """The connection, if it is there to be had."""
        conn = self.lease.take()
        if not conn.silent():
            self.lease.taken = False
            raise redis.ConnectionError("the connection was lost")
        return conn

    def release(self, connection: Any) -> None:
        """The client, its pipeline or its pubsub is done with the connection."""
        self.lease.taken = False


# -- for tasks -------------------------------------------------------------------------------------


class AsyncOnce(_TaskBase):  # type: ignore[misc]  # see above
    """What is the same whatever a connection runs over."""

    _reader: Any
    _writer: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, socket_timeout=None)  # the conn has a limit for all of a call
        self.set_parser(telling(type(self._parser), _parsers._AsyncRESP2Parser))
        self.traces = Traces()
        self.begun = False
        self.stream: asyncio.StreamWriter | None = None

    async def _connect(self) -> None:
        if self.begun:
            raise _ended()
        self.begun = True
        await self._dial()
        self.stream = self._writer

    async def _dial(self) -> None:
        await super()._connect()

    def pack_command(self, *words: Any) -> Any:
        packed = super().pack_command(*words)
        self.traces.note(words)
        return packed

    async def silent(self) -> bool:
        """Whether it is open and nothing unread is there."""
        if not self.is_connected or self.stream is None:
            return False
        if self._unread():
            if self.stream.get_extra_info("ssl_object") is None:
                return False
            for _ in range(3):  # TLS has matters of its own to read, which the loop has to do
                await asyncio.sleep(0)
            if self._unread():
                return False
        look = getattr(self, "can_read", None) or self.can_read_destructive
        return not self._reader._buffer and not await look()

    def _unread(self) -> bool:
        # Asked of the kernel: the loop may not have looked at the socket since it was closed.
        assert self.stream is not None
        sock = self.stream.get_extra_info("socket")
        return sock is None or sock.fileno() < 0 or readable(sock.fileno())

    def abort(self) -> None:
        """Close it at once, whether or not something is still to be sent."""
        for stream in {self.stream, self._writer} - {None}:
            try:
                stream.transport.abort()
            except RuntimeError:
                pass  # its event loop has ended, and it with it
        self._reader = self._writer = None


class AsyncOnceTcp(AsyncOnce, tasks.Connection):
    """Over TCP."""


class AsyncOnceSsl(AsyncOnce, tasks.SSLConnection):
    """Over TLS."""


class AsyncOnceUnix(AsyncOnce, tasks.UnixDomainSocketConnection):
    """Over a unix socket."""

    async def _dial(self) -> None:
        # That of redis-py logs in here, and again afterwards.
        self._reader, self._writer = await asyncio.open_unix_connection(path=self.path)


class AsyncLentPool(redis.asyncio.ConnectionPool):
    """What a client takes for its pool: one connection, as long as the checkout lasts."""

    def __init__(self, conn: Any, **options: Any) -> None:
        super().__init__(connection_class=type(conn), max_connections=1, protocol=2, **options)
        self.lease = Lease(conn)

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """The connection, if it is there to be had."""
        conn = self.lease.take()
        if not await conn.silent():
            self.lease.taken = False
            raise redis.ConnectionError("the connection was lost")
        return conn

    async def release(self, connection: Any) -> None:
        """The client, its pipeline or its pubsub is done with the connection."""
        self.lease.taken = False


# -- for both --------------------------------------------------------------------------------------


class Lease:
    """The time for which a client may use its one connection."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.taken = False
        self.over = False

    def take(self) -> Any:
        """The connection; redis-py's ConnectionError where it is not there to be had."""
        if self.over:
            raise redis.ConnectionError("the checkout is over")
        if self.taken:
            raise redis.ConnectionError(
                "a checkout has one connection, and a pubsub or a pipeline holds it"
            )
        self.taken = True
        return self.conn

    def end(self) -> str:
        """End it; what keeps the connection from being used by others, or ""."""
        self.over = True
        if self.taken:
            return "a pubsub or a pipeline still holds it"
        return f"what {left} did is still felt" if (left := self.conn.traces.left) else ""


def readable(number: int) -> bool:
    """Whether something can be read from this file, its end included; never waits."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([number], [], [], 0)[0])
