"""One test for both conns to a program: for threads, and for tasks on asyncio and on trio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from connpool import AsyncPool, Pool
from connpool.adapters.subprocess import AsyncSubprocessConn, SubprocessConn

from . import PATIENCE

# Reads a line, and does what its first word says.
PROGRAM = r"""
while read -r word rest; do
    case $word in
        echo) printf '%s\n' "$rest" ;;
        twice) printf 'one\ntwo\n' ;;
        half) printf 'half a re'; exec sleep 600 ;;
        cut) printf 'half a re'; exit 0 ;;
        hang) echo 'now I hang' >&2; exec sleep 600 ;;
        exit) echo "so I leave" >&2; exit "$rest" ;;
        deaf) exec <&-; printf 'deaf\n'; exec sleep 600 ;;
        mute) exec >&-; exec sleep 600 ;;
        later) printf 'now\n'; sleep "$rest"; printf 'later\n' ;;
        env) printf '%s\n' "$SECRET" ;;
        pwd) pwd ;;
        stubborn) trap '' TERM; printf 'no\n' ;;
    esac
done
"""


def program(script: str = PROGRAM) -> list[str]:
    """The command for a program in the language of the shell."""
    return ["/bin/sh", "-c", script]


class Way:
    """Makes conns of one kind, and calls what they have; `with` closes them."""

    def __init__(self, backend: str) -> None:
        self._portals = start_blocking_portal(backend) if backend != "threads" else None
        self.awaits = self._portals is not None
        self.kind: Any = AsyncSubprocessConn if self.awaits else SubprocessConn
        self._conns: list[Any] = []

    def conn(self, command: Any = None, **options: Any) -> Any:
        """A conn, not initialised."""
        limits = {"timeout": PATIENCE, "grace": PATIENCE}
        conn = self.kind(program() if command is None else command, **{**limits, **options})
        self._conns.append(conn)
        return conn

    def opened(self, command: Any = None, **options: Any) -> Any:
        """A conn, initialised."""
        conn = self.conn(command, **options)
        self.do(conn.init)
        return conn

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of this kind."""
        return self._portal.call(function, *args) if self._portals else function(*args)

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Begin to; where tasks run, `cancel` cancels."""
        if self._portals:
            return self._portal.start_task_soon(function, *args)
        return self._crowd.submit(function, *args)

    @contextmanager
    def pool(self, **options: Any) -> Iterator[Any]:
        """A pool for conns of this kind."""
        if self._portals:
            with self._portal.wrap_async_context_manager(AsyncPool(**options)) as pool:
                yield pool
        else:
            with Pool(**options) as pool:
                yield pool

    def __enter__(self) -> Way:
        if self._portals:
            self._portal = self._portals.__enter__()
        else:
            self._crowd = ThreadPoolExecutor(20)
        return self

    def __exit__(self, *exc: Any) -> None:
        try:
            for conn in self._conns:
                self.do(conn.close)
        finally:
            if self._portals:
                self._portals.__exit__(*exc)
            else:
                self._crowd.shutdown()


WAYS = ("threads", "asyncio", "trio")


def gone(pid: int) -> bool:
    """Whether a child of ours has ended and was waited for."""
    return _state(pid) == "gone"


def ended(pid: int) -> bool:
    """Whether it has ended, and may yet have to be waited for."""
    return _state(pid) != "running"


def _state(pid: int) -> str:
    try:
        dead = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "gone"
    return "dead" if dead is not None else "running"
