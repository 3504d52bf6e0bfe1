"""What holds for conns to PostgreSQL in threads and in tasks alike.

Owns a conn's options, what it may be asked, and how an error of psycopg reads to a pool.  Refuses
to know how a conn waits.

Invariant: `Closed` is said only where nothing was sent; and no secret is in any text made here.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import attrs
import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict

from ..conn import seconds
from ..errors import CallError, Closed, InitError, show

C = TypeVar("C", bound=psycopg.BaseConnection[Any])

METHODS = ("execute", "fetch", "fetchone", "transaction")

IDLE = pq.TransactionStatus.IDLE
ACTIVE = pq.TransactionStatus.ACTIVE
OPEN = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)

# Has psycopg drop all that it prepared on a connection: after a rollback it no longer trusts it.
FORGET = "BEGIN; ROLLBACK"

# Where conninfo does not say otherwise.
DEFAULTS = {
    "fallback_application_name": "connpool",
    "connect_timeout": "10",
    # A server whose machine has vanished is noticed within a minute, even by a call that waits.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

# The parameters of psycopg.connect that are not libpq's.
OF_PSYCOPG = frozenset({"context", "cursor_factory", "prepare_threshold", "row_factory"})

# What a borrower may have changed on a psycopg connection, by how it is put back: at once, or by a
# setter that only a connection outside of a transaction takes.
FACTORIES = (
    "cursor_factory",
    "prepare_threshold",
    "prepared_max",
    "row_factory",
    "server_cursor_factory",
)
SETTERS = ("isolation_level", "read_only", "deferrable")
_settings = attrgetter(*FACTORIES, *SETTERS)

# A refusal that time alone does not mend.  libpq gives no code for it, and this is how a server
# that speaks English says it; what another language says is retried like any other failure.
REFUSED = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|is not permitted to log in"
    r'|role ".*" does not exist'
)


class ConnectionLost(psycopg.OperationalError, ConnectionError):
    """The connection ended during a call, which may have been carried out.

    Caught as psycopg's own error or as an OSError alike; `sqlstate` is that of its cause.
    """

    sqlstate: str | None = None


@attrs.frozen
class Job:
    """A call, read: statements with their parameters, in order."""

    method: str
    statements: tuple[tuple[Any, Any], ...]


def read(method: Any, payload: Any) -> Job:
    """The job that a call asks for.

    Raises CallError for an unknown method, and TypeError for a payload that it cannot have; no
    error shows a statement or its parameters, which may be secret.
    """
    if method not in METHODS:
        raise CallError(f"unknown method {show(method)}, expected one of {', '.join(METHODS)}")
    if method != "transaction":
        return Job(method, (_statement(payload, method),))
    if isinstance(payload, (str, bytes)) or not isinstance(payload, Sequence):
        raise TypeError(f"transaction: expected a list of statements, got {_kind(payload)}")
    return Job(method, tuple(_statement(each, method) for each in payload))


def _statement(payload: Any, method: str) -> tuple[Any, Any]:
    query, params = payload, None
    match payload:
        case (query, params):
            pass
    if not isinstance(query, (str, bytes, sql.Composable)):
        raise TypeError(
            f"{method}: expected a statement, or the pair (statement, parameters), "
            f"got {_kind(payload)}"
        )
    if params is not None and (
        isinstance(params, (str, bytes)) or not isinstance(params, (Sequence, Mapping))
    ):
        raise TypeError(
            f"{method}: expected the parameters as a sequence or a mapping, got {_kind(params)}"
        )
    return query, params


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


# -- parameters


@attrs.frozen
class Parameters:
    """What psycopg.connect is called with."""

    libpq: dict[str, Any] = attrs.field(repr=False)
    of_psycopg: dict[str, Any] = attrs.field(repr=False)

    @classmethod
    def read(cls, conninfo: str, more: dict[str, Any], connect_timeout: float | None) -> Parameters:
        """From what a user gave; a TypeError or ValueError where libpq would not take it."""
        if not isinstance(conninfo, str):
            raise TypeError(f"conninfo: expected a string, got {_kind(conninfo)}")
        known = {option.keyword.decode(): option for option in pq.Conninfo.get_defaults()}
        if strange := more.keys() - known.keys() - OF_PSYCOPG:
            raise TypeError(
                f"expected parameters of psycopg.connect, got {', '.join(sorted(strange))}"
            )
        of_psycopg = {name: more[name] for name in more.keys() & OF_PSYCOPG}
        libpq = {name: more[name] for name in more.keys() - OF_PSYCOPG}
        try:
            given = conninfo_to_dict(conninfo, **libpq)
        except psycopg.Error:
            given = None
        if given is None:  # libpq's own words quote what it could not read
            raise ValueError(
                "conninfo: expected what libpq reads, a postgresql:// address or pairs of "
                "name=value, got something else (not shown: it may hold a password)"
            )
        if connect_timeout is not None:
            # libpq counts in whole seconds, and takes 1 for 2.
            given["connect_timeout"] = math.ceil(_not_0(connect_timeout, "connect_timeout"))
        defaults = {name: value for name, value in DEFAULTS.items() if name in known}
        return cls({**defaults, **given}, of_psycopg)

    @property
    def patience(self) -> float:
        """Seconds within which a living server gets a trifle done: those to connect, or 10."""
        try:
            limit = float(self.libpq["connect_timeout"])
        except ValueError:
            limit = 0  # psycopg will say what is wrong with it
        return max(limit, 2.0) if limit > 0 else 10.0

    def name(self) -> str:
        """The server and the database, without secrets, as far as they were given."""
        user, host, port, database = (
            quote(str(self.libpq.get(name, "")), safe=",")
            for name in ("user", "host", "port", "dbname")
        )
        return (
            "postgresql://"
            + (f"{user}@" if user else "")
            + host
            + (f":{port}" if port else "")
            + (f"/{database}" if database else "")
        )

    def censor(self, text: str) -> str:
        """`text` without any secret that is in here or in libpq's surroundings."""
        for option in pq.Conninfo.get_defaults():
            name = option.keyword.decode()
            if option.dispchar == b"*" or name.startswith("scram_"):  # libpq marks what to hide
                fallback = option.val.decode(errors="replace") if option.val else ""
                for secret in {str(self.libpq.get(name) or ""), fallback} - {""}:
                    text = text.replace(secret, "***")
        return text


def _not_0(value: Any, what: str) -> float:
    amount = seconds(value, what)
    if not amount:
        raise ValueError(f"{what}: expected more than 0 seconds, or None, got 0")
    return amount


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what}: expected True or False, got {show(value)}")
    return value


# -- the half of a conn that never waits


class PostgresClient(Generic[C]):
    """The half of a conn to PostgreSQL that never waits."""

    capacity = 1

    def __init__(
        self,
        conninfo: str = "",
        *,
        resource: Any = None,
        connect_timeout: float | None = None,
        timeout: float | None = None,
        cancel_timeout: float = 2.0,
        auth_retry: float = 60.0,
        ping: bool = False,
        discard_all: bool = False,
        autocommit: bool = False,
        **more: Any,
    ) -> None:
        self._parameters = Parameters.read(conninfo, more, connect_timeout)
        self.resource = self._parameters.name() if resource is None else resource
        self.timeout = None if timeout is None else _not_0(timeout, "timeout")
        self.cancel_timeout = _not_0(cancel_timeout, "cancel_timeout")
        self.auth_retry = seconds(auth_retry, "auth_retry", infinite=True)
        self.ping = _flag(ping, "ping")
        self.discard_all = _flag(discard_all, "discard_all")
        self.autocommit = _flag(autocommit, "autocommit")
        self._pg: C | None = None
        self._before: tuple[Any, ...] = ()  # how the connection was before anybody borrowed it
        self._process = 0
        self._readable: Callable[[], Any] = bool

    def __repr__(self) -> str:
        state = "closed" if self._pg is None or self._pg.closed else "open"
        return f"<{type(self).__name__} {show(self.resource)}, {state}>"

    @property
    def _patience(self) -> float:
        return self._parameters.patience

    def _connect_with(self) -> dict[str, Any]:
        # A call is a transaction of its own: with autocommit that takes one round trip, not three.
        return {**self._parameters.libpq, **self._parameters.of_psycopg, "autocommit": True}

    def _take_up(self, pg: C) -> None:
        """A connection has been made: make it the conn's."""
        self._before = _settings(pg)
        self._readable = _watch(pg.pgconn.socket)
        self._process = os.getpid()
        self._pg = pg

    def _init_error(self, error: psycopg.Error) -> Exception:
        """What init raises for an error of psycopg.connect."""
        # A new one: psycopg's own carries all the parameters, the password too.
        text = self._parameters.censor(str(error))
        if REFUSED.search(text):
            return InitError(text, retry_after=self.auth_retry)
        return type(error)(text)

    def _look(self) -> C:
        """The connection, open, idle and silent; else the error of a call that did not happen."""
        pg = self._pg
        if pg is None:
            raise Closed(f"{self!r}: nothing was sent")
        if os.getpid() != self._process:
            raise Closed(f"{self!r}: the connection is that of the parent process")
        if pg.pgconn.transaction_status != IDLE:
            raise Closed(f"{self!r}: the connection was left unfit, nothing was sent")
        if self._readable():
            raise Closed(f"{self!r}: the server has hung up or speaks unasked, nothing was sent")
        return pg

    def _unfit(self, pg: C | None) -> str | None:
        """Why a connection that comes back cannot be used again, as far as this side knows."""
        if pg is None or pg.closed:
            return "it was closed"
        if pg.pgconn.pipeline_status:
            return "it was left in pipeline mode"
        if pg.pgconn.transaction_status == ACTIVE:
            return "it was left in the middle of a query or a copy"
        if pg.lock.locked():  # type: ignore[attr-defined]  # of both kinds, not of their base
            return "something still reads from it"
        return None

    def _changed(self, pg: C) -> list[tuple[str, Any]]:
        """What a borrower has changed, with the values to put back."""
        if _settings(pg) == self._before:
            return []
        before = zip((*FACTORIES, *SETTERS), self._before, strict=True)
        return [(name, value) for name, value in before if getattr(pg, name) != value]

    def _sends_nothing(self, pg: C) -> bool:
        """Whether a reset can do without the server."""
        return pg.pgconn.transaction_status == IDLE and not self.discard_all

    def _lost(self, method: str, error: BaseException) -> ConnectionLost:
        lost = ConnectionLost(
            f"{self!r}: the connection ended during {method}, "
            f"which may have been carried out: {error}"
        )
        lost.sqlstate = getattr(error, "sqlstate", None)
        return lost

    def _too_long(self, method: str) -> TimeoutError:
        return TimeoutError(
            f"{self!r}: no reply to {method} within {self.timeout} s, it may have been carried out"
        )

    def _no_answer(self) -> TimeoutError:
        return TimeoutError(f"{self!r}: no answer to a ping within {self._patience:g} s")

    def _left_open(self, method: str) -> CallError:
        return CallError(
            f"{method}: the statement left a transaction open, which was rolled back; "
            f"use the method transaction, or a checkout"
        )


def is_stale(error: psycopg.Error) -> bool:
    """Whether a prepared statement no longer fits its tables, and never will again."""
    return error.sqlstate == "0A000"  # "cached plan must not change result type"


def _watch(fd: int) -> Callable[[], Any]:
    """A function that says whether anything is to be read from a socket, without reading it."""
    if not hasattr(select, "poll"):
        return lambda: select.select([fd], [], [], 0)[0]
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return lambda: poll.poll(0)


def hang_up(pg: psycopg.BaseConnection[Any]) -> None:
    """End a connection under a call that waits for its reply; the call closes it."""
    try:
        # A copy of the file number, for the call still uses the original.
        with socket.fromfd(pg.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # it has ended already
