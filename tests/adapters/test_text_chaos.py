"""The conns of the text protocol, and what becomes of their calls when the wire misbehaves."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from connpool.adapters.async_text import AsyncTextConn
from connpool.adapters.text import TextConn
from connpool.adapters.text_server import TextServer

from . import PATIENCE, chaos


class Echoes:
    """A server of the command SAY, which gives back its ARGS, and remembers them."""

    def __init__(self) -> None:
        self._server = TextServer({"SAY": self._say})
        self._said: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.start = self._server.start  # on the port it had

    @property
    def address(self) -> tuple[str, int]:
        return self._server.address

    def stop(self) -> None:
        self._server.kill(PATIENCE)

    def said(self, number: int) -> int:
        with self._lock:
            return self._said[str(number)]

    def _say(self, text: str) -> str:
        with self._lock:
            self._said[text] += 1
        return text


@pytest.fixture(scope="module")
def rig() -> Iterator[chaos.Rig]:
    server = Echoes()
    server.start()
    yield chaos.Rig(
        name="text",
        server=server,
        conn=lambda host, port, timeout: TextConn(host, port, timeout=timeout),
        async_conn=lambda host, port, timeout: AsyncTextConn(host, port, timeout=timeout),
        ask=lambda number: ("SAY", str(number)),
        replied=lambda number, reply: reply == str(number),
        carried_out=server.said,
        errors=(OSError,),
    )
    server.stop()


@pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases())
def test_chaos(rig: chaos.Rig, scenario: Any, driver: str, seed: int) -> None:
    """Whatever happens to the wire, no place, no reply and no call goes astray."""
    chaos.run(rig, scenario, driver, seed)
