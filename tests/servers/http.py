"""A throwaway HTTP server in this process: HTTP/1.1 and, for those who begin with it, HTTP/2.

Owns a thread with a loop of its own, and the books of what was asked and carried out, which a
restart leaves as they are.  Refuses to know who talks to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import attrs
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

PATIENCE = 30.0  # seconds; they only end a hang

# Below the range from which the kernel takes ports for outgoing connections: while the server is
# down nobody else is given its port, and no client can be connected to itself there.
PORTS = range(10_000, 32_000)

Answer = tuple[int, dict[str, str], bytes]


class Limiter:
    """So many calls of one key in so many seconds, from the first call on; then it is refused.

    Parameters:
        calls, per: the limit.
        tells: each answer says how many calls are left, and for how long.
        clock: tells the time.
    """

    def __init__(
        self,
        calls: int,
        per: float,
        *,
        tells: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.calls = calls
        self.per = per
        self.tells = tells
        self.clock = clock
        self.answered: Counter[str] = Counter()
        self.refused: defaultdict[str, list[float]] = defaultdict(list)  # when
        self._windows: dict[str, tuple[float, int]] = {}  # until when, and how many calls so far

    def ask(self, key: str) -> Answer:
        """A call with this key."""
        now = self.clock()
        over, used = self._windows.get(key, (now, 0))
        if now >= over:
            over, used = now + self.per, 0
        if used >= self.calls:
            self.refused[key].append(now)
            return 429, {"retry-after": f"{over - now:.9f}"}, b"too many requests"
        self._windows[key] = over, used + 1
        self.answered[key] += 1
        headers = {
            "ratelimit-remaining": str(self.calls - used - 1),
            "ratelimit-reset": f"{over - now:.9f}",
        }
        return 200, headers if self.tells else {}, b"an answer"


@attrs.frozen
class Asked:
    """A request that came in."""

    method: str
    path: str
    version: str
    port: int  # of the client: tells connections apart
    headers: dict[str, str]


class Listener(socket.socket):
    """A socket that remembers whom it has let in, so that they can be cut off."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            self.listen(128)
            self.setblocking(False)
        except BaseException:
            self.close()
            raise
        self.guests: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """See `socket.socket`."""
        guest, address = super().accept()
        guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.guests.add(guest)
        return guest, address

    def cut_off(self) -> None:
        """End all connections."""
        for guest in tuple(self.guests):
            with contextlib.suppress(OSError):  # it has ended already
                guest.shutdown(socket.SHUT_RDWR)


class HttpServer:
    """A server for a ``with`` block, or from `start` to `stop`.

    ====================  ========================================================================
    ``/do/TOKEN``         counts the token in `done`, and answers with it
    ``/hold/TOKEN``       the same, but not before `let_go`
    ``/half``             sends half of its answer, and the rest after `let_go`
    ``/status/N?a=b``     answers with this status and these headers
    ``/limited``          asks `limiter` about the header "x-api-key"
    what is in `answers`  gives these, one after the other, the last one again and again
    anything else         tells in JSON what it was asked
    ====================  ========================================================================

    A key in `revoked` is answered 401, whatever it asks.

    >>> import urllib.request
    >>> with HttpServer() as server:
    ...     urllib.request.urlopen(server.url + "/do/it").read(), server.done
    (b'it', Counter({'it': 1}))
    """

    host = "127.0.0.1"

    def __init__(self, limiter: Limiter | None = None) -> None:
        self.limiter = limiter
        self.port = 0
        self.asked: list[Asked] = []
        self.done: Counter[str] = Counter()
        self.answers: dict[str, list[Answer]] = {}
        self.revoked: set[str] = set()
        self.held = threading.Semaphore(0)  # one for each request that waits to be let go
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event
        self._let_go: asyncio.Event
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the same after another `start`."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        assert self._thread is None, "the server runs already"
        self._listener = listener = self._listen()
        listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, listening)), name="http server"
        )
        self._thread.start()
        assert listening.wait(PATIENCE)

    def stop(self) -> None:
        """End it with all its connections, whatever is on them; calling it again is fine."""
        thread, self._thread = self._thread, None
        if thread is not None:
            assert self._loop is not None
            assert self._listener is not None
            self._listener.cut_off()  # or hypercorn would tell them that it goes
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def let_go(self) -> None:
        """All that is held may end, and from now on nothing is held any more."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._let_go.set)

    def __enter__(self) -> HttpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self) -> Listener:
        if self.port:
            return Listener(self.address)
        while True:
            try:
                listener = Listener((self.host, random.choice(PORTS)))
            except OSError:
                continue
            self.port = listener.getsockname()[1]
            return listener

    async def _serve(self, listener: Listener, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        # What is cut short when it stops has nothing to tell.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._stopping, self._let_go = asyncio.Event(), asyncio.Event()
        config = Config()
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.01
        config.keep_alive_timeout = PATIENCE
        listening.set()  # the kernel takes connections already
        try:
            await worker_serve(
                wrap_app(self._app, config.wsgi_max_body_size, "asgi"),
                config,
                sockets=Sockets([], [listener], []),
                shutdown_trigger=self._stopping.wait,
            )
        except Exception:  # of a connection that was cut off
            if not self._stopping.is_set():
                raise

    # -- what it does --------------------------------------------------------------------------

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(
            scope["method"], scope["path"], scope["http_version"], scope["client"][1], headers
        )
        body = await _body(receive)
        if body is None:
            return  # it never came in whole
        self.asked.append(asked)
        if asked.path == "/half":
            await self._half(send)
        else:
            await _reply(send, *await self._answer(asked, scope["query_string"].decode(), body))

    async def _answer(self, asked: Asked, query: str, body: bytes) -> Answer:
        key = asked.headers.get("x-api-key", "")
        if key in self.revoked:
            return 401, {}, b"revoked"
        _, what, *rest = asked.path.split("/")
        if canned := self.answers.get(asked.path):
            return canned.pop(0) if len(canned) > 1 else canned[0]
        if what == "limited":
            assert self.limiter is not None
            return self.limiter.ask(key)
        if what == "status":
            return int(rest[0]), dict(parse_qsl(query)), b""
        if what in {"do", "hold"}:
            if what == "hold":
                await self._hold()
            self.done[rest[0]] += 1
            return 200, {}, rest[0].encode()
        told = attrs.asdict(asked) | {"query": query, "body": body.decode()}
        return 200, {"content-type": "application/json"}, json.dumps(told).encode()

    async def _hold(self) -> None:
        self.held.release()
        await self._let_go.wait()

    async def _half(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self._hold()
        await send({"type": "http.response.body", "body": b" and half"})


async def _body(receive: Any) -> bytes | None:
    body = b""
    while True:
        message: dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body


async def _reply(send: Any, status: int, headers: dict[str, str], body: bytes) -> None:
    listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    listed.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
