"""FaultProxy: stands between a client and its server, and misbehaves when told to.

Owns a listening socket, the connections through it and the one thread that serves them.  Refuses to
know what is said over them: to it all is bytes.

Invariant: when a method that asks for a fault has returned, the fault holds; when `close` has,
there is no socket left and no thread.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Any, Self

from ..errors import show
from .proxy_faults import Traffic, fault, scripted
from .proxy_link import Link
from .proxy_loop import Loop, bind

Address = tuple[str, int]


class FaultProxy:
    """A TCP proxy for tests: it passes on what it gets, until it is told to do something worse.

    Parameters:
        host, port: the server, on this machine as a rule.

    It listens on 127.0.0.1, on a port that was free.  Point the client at `address`, then ask for
    faults.  Each takes effect at once, on running connections and on new ones (where its docstring
    does not say otherwise); when its method returns, it holds.  Faults add up, and last until
    `heal`.  They concern the replies, that is what the server sends; requests pass, unless they are
    swallowed in a black hole.

    What to wait for in a test: `accepted` counts the connections ever accepted; `connections` are
    open now, of which `half_open` are those whose clients have got a FIN, and `hung_up` those
    whose clients have sent one, as long as the other side has not done the same; `asked` and
    `answered` count the bytes that came from clients and from the server, and `held` are those
    of replies that are held back now.

    A server that cannot be reached costs the client a reset.  Up to 1 MiB is held for each
    side of a connection, then the other side has to wait.

    All methods may be called from any thread, and in a loop's: they wait for the proxy's own thread
    at most for a moment.  They raise RuntimeError where the proxy does not run.

    >>> from connpool import Pool
    >>> from connpool.adapters.text import TextConn
    >>> from connpool.adapters.text_server import TextServer
    >>> with TextServer() as server, FaultProxy(*server.address) as proxy, Pool() as pool:
    ...     number = pool.init(TextConn(*proxy.address, resource="count"), revive=True)
    ...     pool.call("count", "INC")
    ...     proxy.cut_after(2)
    ...     try:
    ...         pool.call("count", "INC")
    ...     except OSError:
    ...         print("lost the reply")
    ...     proxy.heal()
    ...     pool.call("count", "GET"), proxy.accepted
    '1'
    lost the reply
    ('2', 2)
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = "127.0.0.1", 0
        self._loop: Loop | None = None
        self._lock = threading.Lock()  # for starting and closing
        self._traffic = Traffic()
        self.upstream = (host, port)

    def start(self) -> None:
        """Listen; after a close again, on the same port.  An OSError where it cannot be had."""
        with self._lock:
            if self._loop is not None:
                raise RuntimeError(f"{self!r} is running already")
            listener = bind(self.address)
            try:
                listener.listen()
                self.port = listener.getsockname()[1]
                self._loop = Loop(listener, self._where, self._traffic)
            except BaseException:
                listener.close()
                raise

    def close(self) -> None:
        """Reset all connections, and listen no more.  Calling it again is fine."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._loop is None else f"{self.connections} connections"
        return f"<FaultProxy {self.host}:{self.port} to {show(self.upstream)}, {state}>"

    # -- what it sees --------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Where clients are to connect: (host, port)."""
        return self.host, self.port

    @property
    def upstream(self) -> Address:
        """The server, (host, port); a new one is for new connections."""
        return self._upstream

    @upstream.setter
    def upstream(self, address: Address) -> None:
        host, port = address
        # Looked up here, for the proxy's thread may not wait.
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._upstream, self._where = (host, port), (family, where)
        if (loop := self._loop) is not None:
            loop.where = self._where

    @property
    def accepted(self) -> int:
        """How many connections were ever accepted."""
        return self._traffic.accepted

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open())

    @property
    def half_open(self) -> int:
        """How many of them have sent a FIN to the client, and have not ended yet."""
        return sum(link.half_open for link in self._open())

    @property
    def hung_up(self) -> int:
        """How many of them have got a FIN from the client, and have not ended yet."""
        return sum(link.hung_up for link in self._open())

    @property
    def asked(self) -> int:
        """How many bytes have come from clients."""
        return self._traffic.asked

    @property
    def answered(self) -> int:
        """How many bytes have come from the server."""
        return self._traffic.answered

    @property
    def held(self) -> int:
        """How many bytes of replies are held back."""
        return sum(link.held for link in self._open())

    def _open(self) -> list[Link]:
        loop = self._loop
        return [] if loop is None else list(loop.links)

    # -- faults --------------------------------------------------------------------------------

    def refuse(self) -> None:
        """New connections are refused; running ones go on.

        The port is really closed, but kept, so that nobody else gets it meanwhile.  (In a script it
        cannot be: there the connection is accepted, and reset at once.)
        """
        loop = self._running()
        loop.order(loop.shut_door)

    def black_hole(self) -> None:
        """All is swallowed, in both directions, the end of a connection too; new connections
        are accepted, and the server never hears of them.

        When this is healed, a connection out of which something was swallowed is reset.
        """
        self._impose("black_hole")

    def delay(self, seconds: float) -> None:
        """Each chunk of replies comes so many seconds later, from the next one on."""
        self._impose("delay", seconds)

    def throttle(self, bytes_per_second: float) -> None:
        """Replies trickle: so many bytes a second, for each connection."""
        self._impose("throttle", bytes_per_second)

    def cut_after(self, count: int) -> None:
        """Of the replies from now on, `count` bytes pass on each connection; where there are more,
        the connection ends in the midst of them, for both sides."""
        self._impose("cut_after", count)

    def stall_after(self, count: int) -> None:
        """Of the replies from now on, `count` bytes pass on each connection; the rest, and the end
        of the connection, is held back until this is healed, and then comes at once."""
        self._impose("stall_after", count)

    def half_close(self) -> None:
        """The clients of running connections get a FIN, and no more replies; what they send still
        goes to the server.  New connections are as ever, and `heal` does not undo it."""
        self._impose("half_close")

    def reset(self) -> None:
        """All running connections are reset (RST), to both sides.  New ones are as ever."""
        self._impose("reset")

    def drop(self) -> None:
        """All running connections end in good order (FIN), to both sides.  New ones are as ever."""
        self._impose("drop")

    def script(self, *faults: Any) -> None:
        """The next connections get these faults, each its own, from its beginning.

        Parameters:
            faults: for the first connection accepted from now on, the second, and so on: None, or
                the name of a fault, or a tuple of its name and its argument.

        It comes on top of what holds for all.  Replaces the script that was there; `heal` ends it.

        >>> proxy = FaultProxy("127.0.0.1", 5432)
        >>> with proxy:
        ...     proxy.script("refuse", ("cut_after", 3), None)
        """
        entries = deque(scripted(entry) for entry in faults)
        loop = self._running()
        loop.order(lambda: setattr(loop, "script", entries))

    def heal(self) -> None:
        """All faults and the script end, for running connections too; what was held back comes.

        An OSError where the proxy was refusing, and its port cannot be had again.
        """
        loop = self._running()
        loop.order(loop.heal)

    def _impose(self, name: str, *args: Any) -> None:
        what = fault(name, *args)
        loop = self._running()
        loop.order(lambda: loop.strike(what))

    def _running(self) -> Loop:
        if (loop := self._loop) is None:
            raise RuntimeError(f"{self!r} does not run")
        return loop
