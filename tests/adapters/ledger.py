"""A server that notes what was done, and the books of what its callers were told.

Each request carries a token of its own, so that what happened and what was reported can be
compared one by one: nothing may be done twice, no reply may be false, and where a caller got no
reply it must have been told that its call may have been carried out.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter

from connpool.adapters.text_server import TextServer
from connpool.adapters.text_wire import ReplyLost

from . import PATIENCE


class Ledger:
    """Runs a server with the commands DO and HOLD: both note their ARGS, and give them back."""

    def __init__(self) -> None:
        self.server = TextServer({"DO": self._do, "HOLD": self._hold})
        self.held = threading.Event()  # a HOLD has begun
        self.over = threading.Event()  # it may end
        self.done: list[str] = []  # in the order in which it happened
        self.asked: list[str] = []
        self.replied: list[str] = []
        self.lost: list[str] = []
        self.cancelled: list[str] = []
        self._tokens = itertools.count(1)

    def _do(self, token: str) -> str:
        self.done.append(token)
        return token

    def _hold(self, token: str) -> str:
        self.held.set()
        assert self.over.wait(PATIENCE)
        return self._do(token)

    def token(self) -> str:
        """A token that nobody else has, noted as asked for."""
        token = f"token-{next(self._tokens)}"
        self.asked.append(token)
        return token

    def reply(self, token: str, reply: object) -> None:
        """A caller got a reply: to its own request."""
        assert reply == token
        self.replied.append(token)

    def loss(self, token: str, error: Exception) -> None:
        """A caller got an error: one that says that the call may have been carried out."""
        assert isinstance(error, ReplyLost), repr(error)
        assert "may have been carried out" in str(error)
        self.lost.append(token)

    def balance(self) -> None:
        """Compare; the server is down, so that nothing is under way any more."""
        without = self.lost + self.cancelled
        assert Counter(self.asked) == Counter(self.replied + without)
        assert max(Counter(self.done).values()) == 1
        assert set(self.replied) <= set(self.done)
        assert set(self.done) - set(self.replied) <= set(without)

    def __enter__(self) -> Ledger:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.server.kill()
