"""The benchmarks that talk to real servers: that they do what their rows say.  None is judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import (
    rows,
    servers,
    servers_http,
    servers_postgres,
    servers_redis,
    servers_websocket,
)
from benchmarks.harness import Absent, Gauges, Heat

WITH_CROWDS = (servers_http, servers_websocket)
HEATS = [
    bench
    for idea in (servers_postgres, servers_redis)
    for bench in idea.BENCHES
    if isinstance(bench, Heat)
]


def missing(*_: Any) -> Any:
    """A server whose library is not there."""
    raise ImportError("no such thing", name="fancy")


@pytest.mark.parametrize("heat", HEATS, ids=lambda heat: heat.rows[0].name)
def test_every_pool_answers(heat: Heat) -> None:
    """Each does what it is asked, or says that it is not installed."""
    for workload in heat.workloads.values():
        try:
            with workload() as work:
                work(20)
        except Absent as why:
            assert str(why).startswith("not installed: ")  # noqa: PT017 - it is no error


def test_what_is_compared_gives_the_same() -> None:
    """A pool that were quick because it answers something else would win nothing."""
    with servers_postgres.SERVER() as server:
        for build in (servers_postgres.called, servers_postgres.checked_out):
            with build(server) as ours, servers_postgres.psycopg_pool(server) as theirs:
                assert ours() == theirs() == (1,)
    with servers_redis.SERVER() as server:
        for other in (servers_redis.called, servers_redis.checked_out):
            with other(server) as ours, servers_redis.blocking(server) as theirs:
                assert ours() == theirs() == b"value"


def test_every_way_of_asking_a_web_server_answers() -> None:
    """The pool, httpx's own and clients without a pool, all at one server."""
    with servers_http.SERVER() as url:
        for build in (servers_http.called, servers_http.httpx, servers_http.alone):
            with servers_http.crowded(build, 40) as work:
                work(1)
            with servers_http.SERVER() as again:
                assert again == url


def test_every_way_of_calling_over_websockets_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line and without, by the conns alone, and by hand."""
    monkeypatch.setattr(servers_websocket, "CALLS", 60)
    ways = (servers_websocket.direct, servers_websocket.by_hand, servers_websocket.IN_LINE)
    with servers_websocket.SERVER():
        for build in ways:
            with servers_websocket.crowded(build, 20) as work:
                work(1)


@pytest.mark.parametrize("checks", [False, True])
def test_a_storm_ends_with_everybody_served(checks: bool) -> None:
    """All sessions are ended, and all threads get their answer; ours meet no error."""
    with servers_postgres.SERVER() as server:
        took, errors = servers_postgres.storm(servers_postgres.called, server)
        assert 0 < took < servers.PATIENCE
        assert errors == 0
        took, _ = servers_postgres.storm(servers_postgres.psycopg_pool, server, check=checks)
        assert 0 < took < servers.PATIENCE


def test_workloads_share_a_server() -> None:
    """It is started by the first, ended by the last, and may be started again."""
    events: list[str] = []

    @contextmanager
    def start() -> Iterator[str]:
        events.append("start")
        yield "server"
        events.append("end")

    shared = servers.Shared(start)
    for _ in range(2):
        with shared() as first, shared() as second:
            assert first is second
            assert events[-1] == "start"
        assert events[-1] == "end"
    assert events == ["start", "end"] * 2


@pytest.mark.parametrize("idea", [servers_postgres, servers_redis, *WITH_CROWDS])
def test_what_is_not_installed_leaves_its_rows_empty(
    idea: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, and no error."""
    monkeypatch.setattr(servers, "importlib", SimpleNamespace(import_module=missing))
    for bench in idea.BENCHES:
        if isinstance(bench, (Heat, Gauges)):
            for result in bench.run(lambda name: True, quick=True):
                assert result.absent.startswith("not installed: ")


def test_a_server_without_a_program_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library may be there, and not what it would run."""

    class Nothing:
        def __init__(self) -> None:
            raise RuntimeError("no program to be found")

    monkeypatch.setattr(servers, "kind", lambda *_: Nothing)
    with (
        pytest.raises(Absent, match="not installed: no program to be found"),
        servers.running("postgres", "PostgresServer"),
    ):
        pass


def test_the_rows_are_in_the_table() -> None:
    """Each idea is named, so that the command finds it."""
    assert {"postgres.call", "redis.call", "http.1000", "websocket.1000"} <= set(rows.NAMES)
