"""HttpConn and AsyncHttpConn through the proxy that misbehaves: see chaos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from connpool.adapters.http import AsyncHttpConn, HttpConn
from tests.servers.http import HttpServer

from . import chaos
from .chaos_rig import Rig

# How a conn can be: what it is made with, and where that is tried.
SORTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "http1": ({}, ("threads", "trio")),
    "http1-probed": ({"probe": "/"}, ("threads", "asyncio")),
    "http2-probed": ({"probe": "/", "http2": True}, chaos.DRIVERS),
}
CASES = [
    pytest.param(*case.values, sort, id=f"{case.id}-{sort}")
    for sort, (_, drivers) in SORTS.items()
    for case in chaos.cases(drivers)
]


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


def maker(kind: Any, options: dict[str, Any]) -> Callable[[str, int, float], Any]:
    """Makes conns of this kind."""

    def make(host: str, port: int, timeout: float) -> Any:
        return kind(f"http://{host}:{port}", timeout=timeout, **options)

    return make


@pytest.fixture
def rig(server: HttpServer, sort: str) -> Rig:
    """Each request is a POST, which may not be repeated, of a number that nobody else has."""
    options, _ = SORTS[sort]
    streams = {"capacity": 3} if options.get("http2") else {}

    def replied(number: int, reply: Any) -> bool:
        return isinstance(reply, httpx.Response) and reply.text == f"number-{number}"

    return Rig(
        name=sort,
        server=server,
        conn=maker(HttpConn, options),
        async_conn=maker(AsyncHttpConn, options | streams),
        ask=lambda number: ("POST", f"/do/number-{number}"),
        replied=replied,
        carried_out=lambda number: server.done[f"number-{number}"],
        greets="probe" in options,
    )


@pytest.mark.parametrize(("scenario", "driver", "seed", "sort"), CASES)
def test_chaos(rig: Rig, scenario: chaos.Scenario, driver: str, seed: int) -> None:
    """No place is lost, no reply goes astray, no call is done twice."""
    chaos.run(rig, scenario, driver, seed)
