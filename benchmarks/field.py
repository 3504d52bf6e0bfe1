"""Other people's pools, as something that can be measured.

Owns how a peer is found, tried and made into work.  Refuses to know any of them by name: those for
threads are in `field_threads`, those for asyncio in `field_tasks`.

No peer is needed.  One that is not installed, or that has become another one than these files know
(some are entered by a back door), is absent, with the reason; it is never an error.

Each peer holds conns that do nothing and has them all open before it is timed, so that what is
timed is the taking and giving back of an idle one.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import metadata
from itertools import repeat
from typing import Any

import attrs

from .harness import Absent, Work

#: Builds a pool of that many conns, gives the work, and takes the pool down again.
Peer = Callable[[int], AbstractContextManager[Work]]

# Seconds to have all conns of a peer out once.
WARM_UP = 20.0

#: The distributions whose versions the figures hold for.
LIBRARIES = (
    "psycopg-pool",
    "SQLAlchemy",
    "redis",
    "DBUtils",
    "generic-connection-pool",
    "urllib3",
    "httpcore",
    "aiohttp",
    "asyncpg",
)


@attrs.frozen
class Entrant:
    """A peer that takes part, and what it is compared with.

    `fights` is whether it is of use to have threads fight over its conns: not where they wait for
    none, and not for a second way into the same pool.  `host` is how a task gets the pool, where it
    is one for tasks.
    """

    name: str
    what: str
    build: Peer
    against: str
    fights: bool = True
    host: Callable[[int], Any] | None = None


def find(module: str, distribution: str) -> Any:
    """A module of a peer, or `Absent`."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise Absent(f"not installed: {distribution}") from None
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"cannot be imported: {error}") from error


@contextmanager
def tried(build: Peer, conns: int) -> Iterator[Work]:
    """The work of a peer that has done it once; whatever goes wrong before that, it is absent."""
    with ExitStack() as stack:
        try:
            work = stack.enter_context(build(conns))
            work(1)
        except Absent:
            raise
        except Exception as error:
            raise Absent(f"cannot be measured: {type(error).__name__}: {error}") from error
        yield work


@attrs.frozen(eq=False)
class Way:
    """How one peer's conns are taken and given back; called with a count, it does so that often.

    `open` gives a `with` block, where that is how it is done: then it is what is timed.
    """

    take: Callable[[], Any]
    give: Callable[[Any], Any]
    open: Callable[[], AbstractContextManager[Any]] | None = None

    def __call__(self, count: int) -> None:
        if self.open is not None:
            for _ in repeat(None, count):
                with self.open():
                    pass
        else:
            take, give = self.take, self.give
            for _ in repeat(None, count):
                give(take())


def in_pairs(take: Callable[[], Any], give: Callable[[Any], Any], conns: int) -> Way:
    """Take and give back, where each is a call; all conns have been out once."""
    return _warm(Way(take, give), conns)


def in_blocks(open: Callable[[], AbstractContextManager[Any]], conns: int) -> Way:
    """Take and give back, where both are a `with` block; all conns have been out once."""

    def take() -> AbstractContextManager[Any]:
        block = open()
        block.__enter__()
        return block

    return _warm(Way(take, lambda block: block.__exit__(None, None, None), open), conns)


def _warm(way: Way, conns: int) -> Way:
    began = time.perf_counter()
    out = [way.take() for _ in within(began, conns)]
    for conn, _ in zip(out, within(began, conns), strict=True):
        way.give(conn)
    return way


def within(began: float, conns: int) -> Iterator[int]:
    """Counts the conns that are taken or given back; `Absent` where that takes too long.

    Where each operation goes through all conns, ten thousand of them take hours.
    """
    for number in range(conns):
        if time.perf_counter() - began > WARM_UP:
            raise Absent(f"not in {WARM_UP:g} s: to have {conns:,} conns out once")
        yield number


class Session:
    """A conn that does nothing: with what pools of database sessions ask of one."""

    _pool: Any = None

    def close(self) -> None:
        """Nothing to close."""

    def rollback(self) -> None:
        """Nothing to roll back."""

    def commit(self) -> None:
        """Nothing to commit."""

    def cursor(self) -> None:
        """Nothing to ask."""
