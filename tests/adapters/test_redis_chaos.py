"""The conns to Redis in the chaos that every adapter has to survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from connpool.adapters.redis import AsyncRedisConn, RedisConn
from tests.servers.redis import RedisServer

from . import chaos

DRIVERS = ("threads", "asyncio")  # redis-py knows no trio


def ask(number: int) -> tuple[str, Any]:
    """A counter that is raised by its number: what it replies is the number, if only once."""
    counter = ("INCRBY", f"n:{number}", number)
    return ("pipeline", [counter, ("ECHO", number)]) if number % 2 else ("INCRBY", counter[1:])


def replied(number: int, reply: Any) -> bool:
    """Whether this is what the server says to it."""
    return bool(reply == ([number, str(number).encode()] if number % 2 else number))


@pytest.fixture(scope="module")
def rig() -> Iterator[chaos.Rig]:
    with RedisServer() as server:
        yield chaos.Rig(
            name="redis",
            server=server,
            ask=ask,
            replied=replied,
            carried_out=lambda number: int(server.ask("GET", f"n:{number}") or 0) // number,
            conn=lambda host, port, timeout: RedisConn(host, port, timeout=timeout),
            async_conn=lambda host, port, timeout: AsyncRedisConn(host, port, timeout=timeout),
            drivers=DRIVERS,
            errors=(OSError,),
        )


@pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases(DRIVERS))
def test_chaos(rig: chaos.Rig, scenario: chaos.Scenario, driver: str, seed: int) -> None:
    """Nothing is lost, mixed up or done twice, whatever becomes of the wire and the server."""
    chaos.run(rig, scenario, driver, seed)
