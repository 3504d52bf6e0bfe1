"""The adapters: on their own against the contract of a conn, and through a pool."""

import time
from collections.abc import Callable

import anyio

PATIENCE = 30.0  # seconds; they only end a hang


def eventually(true: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait for what another thread or the kernel is about to make true."""
    due = time.monotonic() + within
    while not true():
        assert time.monotonic() < due, "it did not come true"
        time.sleep(0.001)


async def soon(true: Callable[[], object], within: float = PATIENCE) -> None:
    """The same for a task, while the others run."""
    due = time.monotonic() + within
    while not true():
        assert time.monotonic() < due, "it did not come true"
        await anyio.sleep(0.001)
