"""Conns of a simulated world that nobody has written: peers that echo over a wire.

Owns what they answer.  Refuses to know when they are harmed: that is the world's.

Invariant: an answer lies on the wire until somebody reads it, as on a socket; so a conn that is
lent on after a call was cut short gives the next caller what is not his.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable
from typing import Any

from .sim_contract import Took
from .steps import Do


class Peer:
    """A conn that echoes."""

    def __init__(
        self,
        resource: Any,
        names: Collection[Hashable] = ("m",),
        capacity: int = 1,
        *,
        survives: bool = False,
    ) -> None:
        self.resource = resource
        self.names = frozenset(names)
        self.capacity = capacity
        self.survives_cancel = survives
        self.wire: deque[Any] = deque()
        self.cut = False

    def init(self) -> None:
        """The wire is new, and empty."""
        self.wire.clear()
        self.cut = False

    def methods(self) -> Collection[Hashable]:
        """What it was told to offer."""
        return self.names

    def call(self, method: Any, payload: Any = None) -> Any:
        """Send, and read when the time is over."""
        self.wire.append(payload)
        return Took(Do(self._read))

    def _read(self, method: Any, payload: Any) -> Any:
        if self.cut:
            raise ConnectionAbortedError("the wire is cut")
        if self.capacity > 1 or self.survives_cancel:  # answers carry the number of their call
            if payload in self.wire:
                self.wire.remove(payload)
            return payload
        return self.wire.popleft() if self.wire else None

    def close(self) -> None:
        """The wire is cut."""
        self.wire.clear()
        self.cut = True


class AskedPeer(Peer):
    """The same, and it can be asked whether it is well."""

    def check(self) -> bool:
        """It is."""
        return True


class CleanPeer(AskedPeer):
    """One that can be made clean as well."""

    def reset(self) -> None:
        """Nothing is on the wire any more."""
        self.wire.clear()


class LentPeer(Peer):
    """One that hands something else over when it is checked out."""

    def lend(self) -> Lent:
        """Something to call it by."""
        return Lent(self)


class Lent:
    """What a peer hands over."""

    def __init__(self, peer: Peer) -> None:
        self.call = peer.call


def is_echo(payload: Any, reply: Any) -> bool:
    """Whether a reply is that of its own call."""
    return bool(payload == reply)
