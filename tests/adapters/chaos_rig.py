"""What the chaos scenarios have to know of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

import attrs

from connpool import CallError

DRIVERS = ("threads", "asyncio", "trio")


class Server(Protocol):
    """A real server on loopback.  Both methods may block: they are called in a thread."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, (host, port); `start` may change it."""

    def stop(self) -> object:
        """End it with all its connections, in whatever manner it ends.  It is running now."""

    def start(self) -> object:
        """Start it again after a stop, on the same port if it can.  It may have forgotten all."""


def _cannot_tell(number: int) -> None:
    return None


@attrs.frozen(kw_only=True)
class Rig:
    """An adapter and its server, as the scenarios need them.

    name: for messages.
    server: runs already when a scenario begins, and runs again when it has passed; one will do for
        all scenarios, one after the other.
    conn: ``conn(host, port, timeout)`` makes a conn for `Pool`, not initialised, to this address
        (it is the proxy's, not the server's).  `timeout` is the library's own: seconds that a call
        may take before it fails by itself (per read, where the library has no other).  An init
        may take longer: the pool has its own limit.  None: the adapter has no conn for threads.
    async_conn: the same for `AsyncPool`.
    ask: ``ask(number)`` gives (method, payload) of a request whose reply tells its number, such as
        an echo, and has more than 3 bytes.  The server should count it.  No number is used twice.
    replied: ``replied(number, reply)``: whether this is the reply to ``ask(number)``.
    carried_out: ``carried_out(number)``: how often the server did that request, as far as it knows
        (what it forgot in a restart need not count); None where it cannot be told.  The server is
        running; may block, and is called in a thread.
    drivers: those that the adapter supports: of "threads", "asyncio" and "trio".
    greets: whether an opening (init and methods) needs an answer from the server.  False for one
        that may connect as late as in its first call: its callers, not its openings, then see what
        is wrong with the wire.
    errors: what a caller may get when the wire fails.  Whatever else it gets fails the scenario;
        so does a `PoolError`.

    A conn may have a `capacity` above 1, better small (2 to 4): all places are used at once.
    """

    name: str
    server: Server
    ask: Callable[[int], tuple[Any, Any]]
    replied: Callable[[int, Any], bool]
    conn: Callable[[str, int, float], Any] | None = None
    async_conn: Callable[[str, int, float], Any] | None = None
    carried_out: Callable[[int], int | None] = _cannot_tell
    drivers: Collection[str] = DRIVERS
    greets: bool = True
    errors: tuple[type[Exception], ...] = (OSError, EOFError, CallError)
