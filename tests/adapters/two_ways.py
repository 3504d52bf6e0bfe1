"""One test for the two conns of an adapter: for threads, and for tasks on asyncio.

What is to be awaited runs in a loop that has a thread of its own, so that it goes on all the time,
as it does in a program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from . import PATIENCE


class Way:
    """Makes conns of one kind, and calls what they have; `with` closes them."""

    awaits = False

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self._conns: list[Any] = []

    def conn(self, *args: Any, **options: Any) -> Any:
        """A conn, not initialised."""
        conn = self.kind(*args, **options)
        self._conns.append(conn)
        return conn

    def opened(self, *args: Any, **options: Any) -> Any:
        """A conn, initialised."""
        conn = self.conn(*args, **options)
        self.do(conn.init)
        return conn

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Begin a call of this kind."""
        raise NotImplementedError

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same, to its end."""
        return self.start(function, *args).result(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for conn in self._conns:
            self.do(conn.close)


class Threads(Way):
    """Each call in a thread of its own."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__(kind)
        self._crowd = ThreadPoolExecutor(200)

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._crowd.submit(function, *args)

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        self._crowd.shutdown()


class Asyncio(Way):
    """Each call in a task of its own."""

    awaits = True

    def __init__(self, kind: type[Any]) -> None:
        super().__init__(kind)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        async def run() -> Any:
            given = function(*args)
            return await given if isinstance(given, Awaitable) else given

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        left = self.do(lambda: [repr(task) for task in asyncio.all_tasks()][1:])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        assert not left, left
