"""A throwaway JSON-RPC server over websockets, in this process.

Owns a thread with a loop of its own, and the books of what was asked and carried out, which a
restart leaves as they are.  Refuses to know who talks to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

PATIENCE = 30.0  # seconds; they only end a hang

# Below the range from which the kernel takes ports for outgoing connections: while the server is
# down nobody else is given its port, and no client can be connected to itself there.
PORTS = range(10_000, 32_000)

# What a peer that misbehaves costs is what is tested, and no news.
_logger = logging.getLogger("tests.servers.websocket")
_logger.setLevel(logging.CRITICAL + 1)


class WebSocketServer:
    """A server for a ``with`` block, or from `start` to `close`.

    Its methods: ``echo`` replies its params; ``add`` their sum; ``do`` its only one, and notes it
    in `done`; ``hold`` the same, but not before `let_go` is called; ``push`` sends so many
    notifications "tick" first; ``error`` and ``raw`` send what they are told; ``close`` ends the
    connection with the code it is told; ``big`` replies so many letters; ``rpc.methods`` lists
    these names.

    `refuse` is the status and the headers with which handshakes are refused, or None; `handshakes`
    are the requests of all of them.

    >>> from websockets.sync.client import connect
    >>> with WebSocketServer() as server, connect(server.url) as client:
    ...     client.send('{"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2]}')
    ...     client.recv()
    '{"jsonrpc": "2.0", "id": 1, "result": 3}'
    """

    host = "127.0.0.1"

    def __init__(self, **options: Any) -> None:
        self.port = 0
        self.options = options
        self.done: Counter[Any] = Counter()
        self.seen: list[str] = []  # the messages that came
        self.held = threading.Semaphore(0)  # released as often as something is held
        self.handshakes: list[Request] = []
        self.refuse: tuple[int, dict[str, str]] | None = None
        self._clients: set[ServerConnection] = set()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the same after another `start`."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"ws://{self.host}:{self.port}/rpc"

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return len(self._clients)

    # -- beginning and end ---------------------------------------------------------------------

    def start(self) -> None:
        """Listen, on the same port as before."""
        assert self._thread is None, "the server runs already"
        sock = _listen(self.port)
        self.port = sock.getsockname()[1]
        listening = threading.Event()
        name = f"websocket-server-{self.port}"
        run = self._run(sock, listening)
        self._thread = threading.Thread(target=asyncio.run, args=(run,), name=name, daemon=True)
        self._thread.start()
        assert listening.wait(PATIENCE)

    def stop(self) -> None:
        """End it: each connection is told, with the code 1001, and closed."""
        assert self._thread is not None, "the server does not run"
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        self._thread = None

    def kill(self) -> None:
        """End it as a crash would: connections end without a word."""
        assert self._thread is not None, "the server does not run"
        self.cut()
        self.stop()

    def close(self) -> None:
        """End it for good; calling it again is fine."""
        if self._thread is not None:
            self.stop()

    def __enter__(self) -> WebSocketServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, sock: socket.socket, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._let_go = asyncio.Event(), asyncio.Event()
        options = {"close_timeout": 0.1, "ping_interval": None, "logger": _logger} | self.options
        async with serve(self._serve, sock=sock, process_request=self._greet, **options):
            listening.set()
            await self._stopping.wait()

    # -- what a test tells it ------------------------------------------------------------------

    def let_go(self) -> None:
        """Let what is held go on, and hold nothing any more."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def cut(self) -> None:
        """Reset all connections."""
        self._each(lambda client: client.transport.abort())

    def stop_reading(self) -> None:
        """Read nothing more from the connections that there are."""
        self._each(lambda client: client.transport.pause_reading())

    def _each(self, what: Callable[[ServerConnection], object]) -> None:
        async def run() -> None:
            for client in tuple(self._clients):
                what(client)

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE)

    # -- what it does --------------------------------------------------------------------------

    def _greet(self, client: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        if self.refuse is None:
            return None
        status, headers = self.refuse
        response = client.respond(HTTPStatus(status), "no\n")
        response.headers.update(headers)
        return response

    async def _serve(self, client: ServerConnection) -> None:
        self._clients.add(client)
        answers = set()
        try:
            async for data in client:
                text = data if isinstance(data, str) else data.decode()
                self.seen.append(text)
                # Each in a task of its own, so that what is held does not hold what follows.
                answers.add(asyncio.create_task(self._answer(client, json.loads(text))))
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            for answer in answers:
                answer.cancel()

    async def _answer(self, client: ServerConnection, request: dict[str, Any]) -> None:
        try:
            params: Any = request.get("params")
            if request["method"] == "close":
                await client.close(*params or ())
                return
            if request["method"] == "raw":
                await client.send(params[0])
                return
            try:
                part = await self._reply(client, request["method"], params)
            except (IndexError, TypeError) as error:
                part = {"error": {"code": -32602, "message": str(error)}}
            await client.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], **part}))
        except ConnectionClosed:
            pass

    async def _reply(self, client: ServerConnection, method: str, params: Any) -> dict[str, Any]:
        match method:
            case "echo":
                return {"result": params}
            case "add":
                return {"result": sum(params)}
            case "do" | "hold":
                if method == "hold":
                    self.held.release()
                    await self._let_go.wait()
                self.done[params[0]] += 1
                return {"result": params[0]}
            case "push":
                for number in range(params[0]):
                    tick = {"jsonrpc": "2.0", "method": "tick", "params": [number]}
                    await client.send(json.dumps(tick))
                return {"result": params[0]}
            case "big":
                return {"result": "x" * params[0]}
            case "error":
                return {"error": params[0]}
            case "rpc.methods":
                return {"result": list(METHODS)}
        return {"error": {"code": -32601, "message": f"no method {method}"}}


METHODS = ("add", "big", "close", "do", "echo", "error", "hold", "push", "raw", "rpc.methods")


def _listen(port: int) -> socket.socket:
    """A socket that listens on this port; 0: on one that is free."""
    due = time.monotonic() + PATIENCE
    while True:
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((WebSocketServer.host, port or random.choice(PORTS)))
            sock.listen(128)
            return sock
        except OSError:
            sock.close()
            assert time.monotonic() < due, f"port {port} cannot be had"
            time.sleep(0.002)
