"""Real servers for the benchmarks that talk to one, and what those have in common.

Owns how a server is got, from tests/servers, and how long it lives.  Refuses to know what is asked
of it: each protocol has a file of its own, `servers_postgres` and so on.

A server, or a library to talk to it, that is not installed makes the row absent.  None is in this
process: what it does would be counted as the client's.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any

from .harness import Absent, Work

#: The distributions whose versions the figures hold for, beside those of the peers.
LIBRARIES = ("psycopg", "httpx", "websockets", "hypercorn")

PATIENCE = 30.0  # seconds; they only end a hang


class Shared:
    """A server that the workloads of a heat share: the first starts it, the last ends it."""

    def __init__(self, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self._start = start
        self._users = 0
        self._stack = ExitStack()
        self._server: Any = None

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        """What `start` gives."""
        if not self._users:
            self._server = self._stack.enter_context(self._start())
        self._users += 1
        try:
            yield self._server
        finally:
            self._users -= 1
            if not self._users:
                self._stack.close()


def kind(module: str, name: str) -> Any:
    """A class of tests/servers, or `Absent`."""
    try:
        return getattr(importlib.import_module(f"tests.servers.{module}"), name)
    except ImportError as error:
        raise Absent(f"not installed: {error.name or error}") from error


@contextmanager
def running(module: str, name: str) -> Iterator[Any]:
    """A server of a kind that has processes of its own."""
    start = kind(module, name)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(start())
        except Exception as error:  # most likely there is no program to be run
            raise Absent(f"not installed: {error}") from error
        yield server


@contextmanager
def apart(module: str, name: str, **options: Any) -> Iterator[str]:
    """The URL of a server that would run in this process, and here has one to itself."""
    kind(module, name)  # that it is not installed is found here
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(module, name, options, theirs)
    )
    process.start()
    theirs.close()  # so that ours ends where the process does
    try:
        if not ours.poll(PATIENCE):
            raise TimeoutError(f"{name} does not start")
        url: str = ours.recv()
        yield url
    finally:
        ours.close()
        process.join(PATIENCE)
        process.kill()  # if it hangs; else it has ended


def _serve(module: str, name: str, options: dict[str, Any], pipe: Connection) -> None:
    """Serve until the other end of the pipe is gone, be it that its process was killed."""
    with kind(module, name)(**options) as server:
        pipe.send(server.url)
        try:
            pipe.recv()
        except EOFError:
            pass


@contextmanager
def warm(work: Work, times: int) -> Iterator[Work]:
    """The same work, done so many times already: the first of all opens and imports things."""
    work(times)
    yield work


async def at_once(call: Callable[[], Awaitable[Any]], crowd: int, calls: int, times: int) -> None:
    """So many times `calls` calls, each in a task of its own, `crowd` of them at once."""
    for _ in repeat(None, times * calls // crowd):
        await asyncio.gather(*(call() for _ in range(crowd)))
