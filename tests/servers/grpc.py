"""A throwaway gRPC server in this process, without generated code: its messages are bytes.

Owns the server and the books of what was asked and carried out, which a restart leaves as they are.
Refuses to know who talks to it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

PATIENCE = 30.0  # seconds; they only end a hang

# Below the range from which the kernel takes ports for outgoing connections: while the server is
# down nobody else is given its port, and no client can be connected to itself there.
PORTS = range(10_000, 32_000)

SERVICE = "tests.Books"


class GrpcServer:
    """A server for a ``with`` block, or from `start` to `close`.

    Its methods: ``Echo`` replies the request; ``Do`` the same, and notes it in `done`; ``Hold`` the
    same, but not before `let_go` is called; ``Fail`` ends with the code, the text and the metadata
    that a request in JSON says; ``Count`` streams the numbers up to the request, and holds where
    that ends with an "h"; ``Sum`` takes a stream of numbers, and is asked too much by a sum below
    0; ``Chat`` echoes a stream.

    `metadata` is what came along with each call, `peers` from where each came, `over` how each hold
    ended: True where its caller was still there; `sums` is how many sums are over.

    >>> with GrpcServer() as server, grpc.insecure_channel(server.target) as channel:
    ...     channel.unary_unary("/tests.Books/Echo")(b"hello")
    b'hello'
    """

    host = "127.0.0.1"

    def __init__(self, credentials: Any = None) -> None:
        self.port = 0
        self.done: Counter[bytes] = Counter()
        self.metadata: list[dict[str, Any]] = []
        self.peers: list[str] = []
        self.held = threading.Semaphore(0)  # released as often as something is held
        self.over: list[bool] = []
        self.sums = 0
        self._credentials = credentials
        self._server: Any = None
        self._crowd: futures.ThreadPoolExecutor | None = None
        self._let_go = threading.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the same after another `start`."""
        return self.host, self.port

    @property
    def target(self) -> str:
        """The same in the words of gRPC."""
        return f"{self.host}:{self.port}"

    # -- beginning and end ---------------------------------------------------------------------

    def start(self) -> None:
        """Listen, on the same port as before."""
        assert self._server is None, "the server runs already"
        self._let_go = threading.Event()
        due = time.monotonic() + PATIENCE
        while not self._started(self.port or random.choice(PORTS)):
            assert time.monotonic() < due, f"port {self.port} cannot be had"
            time.sleep(0.002)

    def _started(self, port: int) -> bool:
        self._crowd = futures.ThreadPoolExecutor(100, "grpc-server")
        server = grpc.server(self._crowd, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([self._handlers()])
        where = f"{self.host}:{port}"
        try:
            if self._credentials is None:
                server.add_insecure_port(where)
            else:
                server.add_secure_port(where, self._credentials)
        except RuntimeError:
            return False  # somebody else has it
        server.start()
        self.port, self._server = port, server
        return True

    def stop(self, grace: float | None = None) -> None:
        """End it: no new calls, and after `grace` seconds what still runs is cancelled."""
        assert self._server is not None, "the server does not run"
        assert self._crowd is not None
        self._server.stop(grace).wait(PATIENCE)
        self._let_go.set()
        self._crowd.shutdown()
        self._server = None

    def close(self) -> None:
        """End it for good; calling it again is fine."""
        if self._server is not None:
            self.stop()

    def __enter__(self) -> GrpcServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def let_go(self) -> None:
        """Let what is held go on, and hold nothing any more."""
        self._let_go.set()

    # -- what it does --------------------------------------------------------------------------

    def _handlers(self) -> Any:
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        kinds = {
            "Echo": one(self._echo),
            "Do": one(self._do),
            "Hold": one(self._hold),
            "Fail": one(self._fail),
            "Count": many(self._count),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }
        return grpc.method_handlers_generic_handler(SERVICE, kinds)

    def _note(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.peers.append(context.peer())

    def _echo(self, request: bytes, context: Any) -> bytes:
        self._note(context)
        return request

    def _do(self, request: bytes, context: Any) -> bytes:
        self._note(context)
        self.done[request] += 1
        return request

    def _hold(self, request: bytes, context: Any) -> bytes:
        self._note(context)
        if self._wait(context):
            self.done[request] += 1
        return request

    def _wait(self, context: Any) -> bool:
        """Until the server lets go, or the caller has left, which gives False."""
        let_go, left = self._let_go, threading.Event()
        here = context.add_callback(left.set)
        self.held.release()
        while here and not left.is_set() and not let_go.wait(0.005):
            pass
        here = bool(here and not left.is_set())
        self.over.append(here)
        return here

    def _fail(self, request: bytes, context: Any) -> bytes:
        said = json.loads(request)
        extra = said.get("metadata", [])
        binary = [(key, bytes.fromhex(value)) for key, value in said.get("binary", [])]
        context.set_trailing_metadata([tuple(pair) for pair in extra] + binary)
        context.abort(grpc.StatusCode[said["code"]], said.get("text", "told so"))
        return b""

    def _count(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request.rstrip(b"h"))):
            yield b"%d" % number
        if request.endswith(b"h"):
            self._wait(context)

    def _sum(self, requests: Iterator[bytes], context: Any) -> bytes:
        context.add_callback(self._end_sum)
        total = sum(map(int, requests))
        if total < 0:
            context.set_trailing_metadata([("retry-after", "3")])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "told so")
        return b"%d" % total

    def _end_sum(self) -> None:
        self.sums += 1

    def _chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests


#: Its methods, as a `GrpcConn` wants them to be described, but for those with streams.
PLAIN = {name: f"/{SERVICE}/{name}" for name in ("Echo", "Do", "Hold", "Fail")}
