"""Each driver on its own: what only threads, or only tasks, can get wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from connpool import Pool

# Real seconds; they only end a hang.
PATIENCE = 30.0


def eventually(true: Callable[[], Any]) -> None:
    """Wait for what other threads are about to make true."""
    due = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < due, "it did not come true"
        time.sleep(0.0005)


class Crowd:
    """Threads that begin together.  Each result, or error, is kept in its place."""

    def __init__(self, size: int, work: Callable[[int], Any]) -> None:
        self.results: list[Any] = [None] * size
        self._gate = threading.Barrier(size)
        self._work = work
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        self._gate.wait(PATIENCE)
        try:
            self.results[number] = self._work(number)
        except BaseException as error:
            self.results[number] = error

    def join(self) -> list[Any]:
        """Wait for all of them, and give the results in order."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        return self.results


def in_background(work: Callable[[], Any]) -> Crowd:
    """One thread, begun at once."""
    return Crowd(1, lambda _: work())


def threads_of(pool: Pool) -> list[str]:
    """The names of the threads that a pool runs, or has left behind."""
    return [
        thread.name for thread in threading.enumerate() if f"connpool {pool.name}" in thread.name
    ]
