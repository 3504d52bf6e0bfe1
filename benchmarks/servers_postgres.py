"""A real PostgreSQL: connpool beside psycopg_pool, and after all sessions were killed.

Owns the rows of PostgreSQL.  Refuses to know how a server is got (`servers`).

`pool.call` runs each statement in autocommit, in one round trip; psycopg_pool's connections, as
they come, need three (begin, the statement, commit), and a checkout's too.  So both are compared
twice: as they come, and with autocommit on both sides, which is the comparison of pools alone.

A storm: the sessions are gone, and their ends have been waited for, before anybody calls.  Whoever
gets an error calls again at once, until he has been served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from connpool import Pool

from .contended import Call, together
from .field import find
from .harness import Bench, Dial, Gauges, Heat, Row, Work, at_least, at_most
from .servers import PATIENCE, Shared, running, warm
from .storms import in_threads

THREADS, CONNS = 16, 4
STATEMENT = "select 1"

SERVER = Shared(partial(running, "postgres", "PostgresServer"))

KILL = """
    select pg_terminate_backend(pid, 10000) from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


# -- pools, each as the call that its users make ---------------------------------------------------


@contextmanager
def called(server: Any) -> Iterator[Call]:
    """`pool.call`."""
    with connpool_of(server) as pool:
        yield partial(pool.call, "db", "fetchone", STATEMENT)


@contextmanager
def checked_out(server: Any, autocommit: bool = False) -> Iterator[Call]:
    """`with pool.checkout`."""
    with connpool_of(server, autocommit=autocommit) as pool:

        def job() -> Any:
            with pool.checkout("db") as pg:
                return pg.execute(STATEMENT).fetchone()

        yield job


@contextmanager
def connpool_of(server: Any, **options: Any) -> Iterator[Pool]:
    """A pool of connpool, full."""
    adapter = find("connpool.adapters.postgres", "psycopg")
    with Pool(name="benchmark") as pool:
        pool.supply(
            "db",
            lambda: adapter.PostgresConn(server.conninfo, **options),
            min_size=CONNS,
            max_size=CONNS,
        )
        pool.wait_ready()
        yield pool


@contextmanager
def psycopg_pool(server: Any, autocommit: bool = False, check: bool = False) -> Iterator[Call]:
    """psycopg_pool; with `check` it asks the server before it lends."""
    kind = find("psycopg_pool", "psycopg-pool").ConnectionPool
    with kind(
        server.conninfo,
        min_size=CONNS,
        max_size=CONNS,
        kwargs={"autocommit": autocommit},
        check=kind.check_connection if check else None,
        open=True,
    ) as pool:
        pool.wait()

        def job() -> Any:
            with pool.connection() as pg:
                return pg.execute(STATEMENT).fetchone()

        yield job


# -- throughput ------------------------------------------------------------------------------------


@contextmanager
def crowded(build: Callable[..., Any], **options: Any) -> Iterator[Work]:
    """Many threads, over a pool."""
    with (
        SERVER() as server,
        build(server, **options) as job,
        together([job] * THREADS) as cold,
        warm(cold, 10 * THREADS) as work,
    ):
        yield work


@contextmanager
def alone() -> Iterator[Work]:
    """As many threads as there are conns, with a connection each."""
    library = find("psycopg", "psycopg")

    def own(pg: Any) -> Call:
        return lambda: pg.execute(STATEMENT).fetchone()

    with SERVER() as server:
        connections = [library.connect(server.conninfo, autocommit=True) for _ in range(CONNS)]
        with together([own(pg) for pg in connections]) as cold, warm(cold, 10 * CONNS) as work:
            yield work
        for pg in connections:
            pg.close()


# -- storms ----------------------------------------------------------------------------------------


def storm(build: Callable[..., Any], server: Any, **options: Any) -> tuple[float, int]:
    """Seconds from the first call until the last thread is served, and the errors that came."""
    library = find("psycopg", "psycopg")
    errors: list[Exception] = []

    def job(call: Call) -> None:
        due = time.monotonic() + PATIENCE
        while True:
            try:
                call()
                return
            except Exception as error:
                errors.append(error)
                if time.monotonic() > due:
                    raise

    with (
        build(server, **options) as call,
        closing(library.connect(server.conninfo, autocommit=True)) as other,
    ):
        in_threads([call] * THREADS)  # all conns have been out once
        other.execute(KILL)
        return in_threads([partial(job, call)] * THREADS), len(errors)


def weather(quick: bool) -> list[list[float]]:
    """Storms in turns, over one pool and the other: the ratios, milliseconds and errors."""
    rows: list[list[float]] = []
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it warns of each lost connection
    with SERVER() as server:
        for _ in range(5 if quick else 25):
            ours, met = storm(called, server)
            theirs, their_errors = storm(psycopg_pool, server, autocommit=True)
            careful, _ = storm(psycopg_pool, server, autocommit=True, check=True)
            rows.append(
                [ours / theirs, ours / careful, 1000 * ours, float(met), float(their_errors)]
            )
    return [list(column) for column in zip(*rows, strict=True)]


CALL = f"{THREADS} threads, {CONNS} conns, call"
CHECKOUT, CHECKOUT_AUTO = "checkout, 3 trips", "checkout, autocommit"
PEER, PEER_AUTO = "psycopg_pool, 3 trips", "psycopg_pool, autocommit"
ALONE = f"{CONNS} threads, no pool"

BENCHES: list[Bench] = [
    Heat(
        {
            CALL: partial(crowded, called),
            PEER: partial(crowded, psycopg_pool),
            PEER_AUTO: partial(crowded, psycopg_pool, autocommit=True),
            CHECKOUT: partial(crowded, checked_out),
            CHECKOUT_AUTO: partial(crowded, checked_out, autocommit=True),
            ALONE: alone,
        },
        [
            Row("postgres.call", CALL, PEER, at_least(1.0), rate=True),
            Row("postgres.call.autocommit", CALL, PEER_AUTO, at_least(1.0), rate=True),
            Row("postgres.checkout", CHECKOUT, PEER, at_least(1.0), rate=True),
            Row("postgres.checkout.autocommit", CHECKOUT_AUTO, PEER_AUTO, at_least(1.0), rate=True),
            Row("postgres.call.alone", CALL, ALONE, rate=True),
            Row("postgres.peer.alone", PEER_AUTO, ALONE, rate=True),
        ],
        sample=0.1,
        rounds=25,
        processes=2,
        clock=time.perf_counter,
    ),
    Gauges(
        [
            Dial(
                "postgres.storm",
                f"{THREADS} threads served after a kill / psycopg_pool",
                at_most(1),
                unit="x",
            ),
            Dial("postgres.storm.checked", "the same / psycopg_pool that checks", unit="x"),
            Dial("postgres.storm.ms", "until the last one is served", unit="ms"),
            Dial("postgres.storm.errors", "errors that callers met", at_most(0), unit="errors"),
            Dial("postgres.storm.peer.errors", "the same, psycopg_pool", unit="errors"),
        ],
        weather,
    ),
]
