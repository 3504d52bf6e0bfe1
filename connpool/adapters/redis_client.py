"""What a client of Redis does without waiting, on threads and in tasks alike.

Owns a client's options, and what it makes of commands before they are sent and of replies once they
are there.  Refuses to know how a client waits.

Invariant: whatever goes wrong, its caller is told whether the command may have been carried out,
and no user name, password or argument of a command is in what he is told.
"""

from __future__ import annotations

import math
from typing import Any

from redis import exceptions

from ..conn import seconds
from ..errors import CallError, Closed, InitError, show
from .redis_rules import (
    PIPELINE,
    ProtocolError,
    Traces,
    Words,
    command,
    command_names,
    names,
    of_answer,
    of_answers,
    pipelined,
)

# What the conn decides itself: it retries nothing, looks before it sends, and reads one protocol.
OURS = names("""
    health_check_interval parser_class protocol redis_connect_func retry retry_on_error
    retry_on_timeout socket_connect_timeout socket_timeout
""")
CODING = ("encoding", "encoding_errors", "decode_responses")


class RedisClient:
    """The half of a conn to Redis that never waits."""

    capacity = 1

    _kinds: tuple[Any, Any, Any]  # connections over TCP, TLS and a unix socket
    _locks: Any  # makes a lock

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        *,
        db: int = 0,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        path: str | None = None,
        resource: Any = None,
        timeout: float | None = 10.0,
        connect_timeout: float | None = 10.0,
        commands: Any = None,
        **options: Any,
    ) -> None:
        if ours := OURS & options.keys():
            raise TypeError(f"{', '.join(sorted(ours))}: expected none, the conn sees to that")
        if path is not None and ssl:
            raise TypeError("ssl: expected False with a unix socket")
        plain, tls, local = self._kinds
        if path is None:
            self._kind = tls if ssl else plain
            where = {"host": host, "port": port}
            url = f"{'rediss' if ssl else 'redis'}://{host}:{port}/{db}"
        else:
            self._kind, where, url = local, {"path": path}, f"unix://{path}?db={db}"
        self.resource = url if resource is None else resource
        self.timeout = _limit(timeout, "timeout")
        self.connect_timeout = _limit(connect_timeout, "connect_timeout")
        self._fixed = commands is not None  # not the server's to say
        self._offered = command_names(commands) if self._fixed else frozenset[str]()
        self._options = {
            **options,
            **where,
            "db": db,
            "username": username,
            "password": password,
            "protocol": 2,
            "socket_connect_timeout": self.connect_timeout,
        }
        self._coding = {name: options[name] for name in CODING if name in options}
        self._lock = self._locks()  # under a pool nobody ever waits for it
        self._conn: Any = None
        self._lent: Any = None
        self._kind(**self._options)  # a wrong option is found here, not by the first init

    def __repr__(self) -> str:
        state = "open" if self._conn is not None else "closed"
        return f"<{type(self).__name__} {show(self.resource)}, {state}>"

    def _drop(self, conn: Any) -> None:
        """Close `conn`, and wake the call that runs on it."""
        raise NotImplementedError

    def _end(self) -> None:
        if self._conn is not None:
            self._drop(self._conn)

    # -- opening

    def _greeted(self, pong: Any) -> None:
        if pong != b"PONG":
            raise ProtocolError(f"expected PONG from a Redis server, got {show(pong)}")

    def _unlisted(self) -> InitError:
        return InitError(
            f"{self!r}: it may not ask for the server's commands: name some with commands="
        )

    # -- calls

    def _orders(self, method: Any, payload: Any) -> list[Words]:
        """The commands of a call, checked."""
        if self._conn is None:
            raise self._gone()
        if method == PIPELINE and PIPELINE in self._offered:
            return pipelined(payload, self._offered)
        return [command(method, payload, self._offered)]

    def _pack(self, conn: Any, method: str, orders: list[Words]) -> Any:
        """Their bytes; TypeError for an argument that Redis has no notion of."""
        try:
            if method == PIPELINE:
                return conn.pack_commands(orders)
            return conn.pack_command(*orders[0])
        except exceptions.DataError as error:
            raise TypeError(f"{method}: expected str, bytes, int or float: {error}") from error

    def _gone(self) -> Closed:
        return Closed(f"{self!r}: the connection was not open and silent, nothing was sent")

    @staticmethod
    def _demoted(replies: list[Any]) -> bool:
        """Whether the server was found to be a replica that is not written to."""
        return any(isinstance(reply, exceptions.ReadOnlyError) for reply in replies)

    @staticmethod
    def _reply(method: str, orders: list[Words], replies: list[Any]) -> Any:
        """What the caller gets, or the error in its place."""
        if method == PIPELINE:
            if (busy := of_answers(replies, orders)) is not None:
                raise busy
            return replies
        reply = replies[0]
        if isinstance(reply, exceptions.ResponseError):
            told = of_answer(reply, method)
            raise told from (None if told is reply else reply)
        return reply

    # -- checkouts

    @staticmethod
    def _fresh(conn: Any) -> Any:
        """`conn`, without the traces of its own opening."""
        conn.traces = Traces()
        return conn

    def _held(self, conn: Any) -> bool:
        """Whether what was lent is using `conn` at this moment, perhaps in another thread."""
        lease = self._lent.lease if self._lent is not None else None
        return lease is not None and lease.conn is conn and lease.taken

    def _left(self) -> str:
        """End the lease; why the connection cannot be used by others, if that is known."""
        return self._lent.lease.end() if self._lent is not None else ""

    def _unclean(self, left: str) -> CallError | Closed:
        if left:
            return CallError(f"{self!r} comes back unclean: {left}", closed=True)
        return self._gone()


def _limit(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if not (checked := seconds(value, what, infinite=True)):
        raise ValueError(f"{what}: expected more than 0 seconds, or None for no limit, got 0")
    return None if math.isinf(checked) else checked
