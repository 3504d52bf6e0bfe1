"""The adapters on their own: against the contract of a conn, without a pool."""

import time
from collections.abc import Callable


def eventually(true: Callable[[], object], within: float = 30.0) -> None:
    """Wait for what another thread or the kernel is about to make true."""
    due = time.monotonic() + within
    while not true():
        assert time.monotonic() < due, "it did not come true"
        time.sleep(0.001)
