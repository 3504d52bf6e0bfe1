"""The launcher of PostgreSQL: it comes up, stays where it is, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.adapters import eventually

from . import postgres
from .postgres import PostgresServer, _find_install

ROOT = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    """Whether a process is there; one that has ended, and that nobody has asked after, is not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # no /proc here: the signal's word has to do
    return state != "Z"


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made in this test; those of the servers are gone at its end."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)  # who runs the server may be somebody else
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(name)
        assert list(Path(name).glob("connpool-*")) == []


def test_a_restart_keeps_port_and_data(folders: Path) -> None:
    """stop and start are those of one server; close leaves neither process nor folder."""
    with PostgresServer(settings={"max_connections": "7"}) as server:
        address = server.address
        with psycopg.connect(server.conninfo, autocommit=True) as pg:
            assert pg.execute("show max_connections").fetchone() == ("7",)
            pg.execute("create table kept ()")
        for at_once in (False, True):
            server.stop(at_once=at_once)
            server.stop()
            assert not server.running
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            server.start()
            assert server.address == address
            with psycopg.connect(server.conninfo) as pg:
                assert pg.execute("select to_regclass('kept') is null").fetchone() == (False,)
        pid = server.pid
    server.close()
    assert not alive(pid)


def test_a_server_that_cannot_start(folders: Path) -> None:
    """Its own words say why, and nothing is left behind."""
    server = PostgresServer(settings={"nonsense": "1"})
    with pytest.raises(RuntimeError, match=r"did not start: [^$]*nonsense"), server:
        pass


def test_an_environment_that_only_its_owner_may_enter(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's user gets a copy of the programs where he cannot go himself."""
    install, locked = _find_install(), folders / "locked"
    package = install.parent
    shutil.copytree(install, locked / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, locked / libraries.name)
    locked.chmod(0o700)
    monkeypatch.setattr(postgres, "_find_install", lambda: locked / package.name / install.name)
    with PostgresServer() as server, psycopg.connect(server.conninfo) as pg:
        assert pg.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_us(folders: Path, how: signal.Signals) -> None:
    """Even where we are killed outright: no process, no folder."""
    code = """
import sys, time
from tests.servers.postgres import PostgresServer
server = PostgresServer()
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    run = [sys.executable, "-c", code]
    with subprocess.Popen(run, stdout=subprocess.PIPE, cwd=ROOT) as us:
        assert us.stdout is not None
        pid = int(us.stdout.readline())
        assert alive(pid)
        assert len(list(folders.glob("connpool-*"))) == 1
        us.send_signal(how)
    eventually(lambda: not alive(pid))
    eventually(lambda: not list(folders.glob("connpool-*")))
