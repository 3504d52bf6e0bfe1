"""gRPC in the chaos that every adapter has to survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from connpool.adapters.grpc import AsyncGrpcConn, GrpcConn

from ..servers.grpc import PLAIN, GrpcServer
from . import chaos
from .chaos import Rig, Scenario

DRIVERS = ("threads", "asyncio")


def make(kind: Any, host: str, port: int, timeout: float) -> Any:
    """A conn that is a little shared."""
    return kind(f"{host}:{port}", methods=PLAIN, capacity=2, call_timeout=timeout)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with GrpcServer() as server:
        yield Rig(
            name="grpc",
            server=server,
            ask=lambda number: ("Do", b"%d" % number),
            replied=lambda number, reply: reply == b"%d" % number,
            carried_out=lambda number: server.done[b"%d" % number],
            conn=lambda *args: make(GrpcConn, *args),
            async_conn=lambda *args: make(AsyncGrpcConn, *args),
            drivers=DRIVERS,
            errors=(OSError, grpc.RpcError),  # the latter where a server says that it is stopping
        )


@pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases(DRIVERS))
def test_chaos(rig: Rig, scenario: Scenario, driver: str, seed: int) -> None:
    """Nothing is lost, mixed up or done twice, whatever becomes of the wire and the server."""
    chaos.run(rig, scenario, driver, seed)
