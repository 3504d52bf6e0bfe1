"""Conns and pools to measure with, and the bare thing that they are measured against.

Owns what several files need.  Refuses to know what is compared with what.

Every conn gets a ttl, so that expiry and statistics are on: that is how pools are used.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from threading import Lock
from typing import Any

from connpool import Pool

from .harness import Work

TTL = 1000.0


class Trivial:
    """A conn whose call costs nothing: it gives back what it got."""

    def __init__(self, resource: str = "r") -> None:
        self.resource = resource

    def init(self) -> None:
        """Nothing to open."""

    def call(self, method: str, payload: Any = None) -> Any:
        """Give back what came."""
        return payload

    def methods(self) -> Collection[str]:
        """The one it has."""
        return ("m",)


class Holding(Trivial):
    """A conn that is busy for 100 us with each call."""

    def call(self, method: str, payload: Any = None) -> Any:
        """Give back what came, later."""
        time.sleep(0.0001)
        return payload


def one_resource(conns: int) -> list[Trivial]:
    """That many conns, all to one resource."""
    return [Trivial() for _ in range(conns)]


def many_resources(resources: int) -> list[Trivial]:
    """A conn to each of that many resources."""
    return [Trivial(f"r{number}") for number in range(resources)]


@contextmanager
def pool_of(conns: Iterable[Trivial]) -> Iterator[Pool]:
    """A pool of these conns."""
    with Pool(name="benchmark") as pool:
        for conn in conns:
            pool.put(conn, ttl=TTL)
        yield pool


@contextmanager
def warm_pool_of(conns: Sequence[Trivial]) -> Iterator[Pool]:
    """The same, once each of them has answered its first call, which costs more than the rest."""
    with pool_of(conns) as pool:
        for conn in conns:
            pool.call(conn.resource, "m", 5)
        yield pool


@contextmanager
def bare(conns: int = 10) -> Iterator[Work]:
    """Calls through the least that a pool of conns can be: a lock and a deque."""
    lock, idle = Lock(), deque(one_resource(conns))

    def work(count: int) -> None:
        for _ in repeat(None, count):
            with lock:
                conn = idle.pop()
            conn.call("m", 5)
            with lock:
                idle.append(conn)

    yield work


@contextmanager
def borrowed(conns: int = 10) -> Iterator[Work]:
    """Taking a conn and giving it back, by a lock and a deque, with no call between."""
    lock, idle = Lock(), deque(one_resource(conns))

    def work(count: int) -> None:
        for _ in repeat(None, count):
            with lock:
                conn = idle.pop()
            with lock:
                idle.append(conn)

    yield work


@contextmanager
def calls(conns: int = 10, filter: Callable[[Any], Any] | None = None) -> Iterator[Work]:
    """Calls through an idle pool of conns to one resource."""
    with warm_pool_of(one_resource(conns)) as pool:
        yield caller(pool) if filter is None else choosy_caller(pool, filter)


def caller(pool: Pool, resource: str = "r") -> Work:
    """Calls to one resource, as users write them."""

    def work(count: int) -> None:
        for _ in repeat(None, count):
            pool.call(resource, "m", 5)

    return work


def choosy_caller(pool: Pool, filter: Callable[[Any], Any]) -> Work:
    """The same with a filter."""

    def work(count: int) -> None:
        for _ in repeat(None, count):
            pool.call("r", "m", 5, filter=filter)

    return work
