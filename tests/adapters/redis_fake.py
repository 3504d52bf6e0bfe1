"""A server that speaks like Redis as far as its script goes: for what a real one seldom says."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from connpool.errors import show

OK = b"+OK\r\n"

Answer = bytes | Callable[[socket.socket], None]


def bulk(*words: str) -> bytes:
    """A list of strings, as they go over the wire."""
    parts = (f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def hang_up(sock: socket.socket) -> None:
    """In place of an answer: the end of the connection."""
    sock.shutdown(socket.SHUT_RDWR)


def reset(sock: socket.socket) -> None:
    """In place of an answer: the connection is torn down."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionAbortedError("on purpose")


class FakeRedis:
    """Answers +OK to whatever it has no other answer to; `seen` has all that was asked."""

    COMMANDS = ("get", "set", "eval", "ft.search", "client", "client|kill", "ping", "publish")

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = {
            "PING": b"+PONG\r\n",
            "COMMAND": bulk(*self.COMMANDS),
            **answers,
        }
        self.seen: list[list[bytes]] = []
        self.socks: list[socket.socket] = []  # of all clients, those that have left too
        self.left = 0
        self.deaf = False  # whether the next command is not read, and its connection torn down
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, data: bytes) -> None:
        """Send to all clients what none of them has asked for."""
        for sock in self.socks:
            if sock.fileno() >= 0:
                sock.sendall(data)

    def __enter__(self) -> FakeRedis:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self.socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its client has left

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as wire:
                while head := wire.readline():
                    if self.deaf:
                        self.deaf = False
                        reset(sock)
                    self._answer(sock, read(wire, head))
        except (OSError, ValueError):
            pass  # the connection was torn down, by the one side or the other
        self.left += 1

    def _answer(self, sock: socket.socket, words: list[bytes]) -> None:
        self.seen.append(words)
        answer = self.answers.get(words[0].decode().upper(), OK)
        if callable(answer):
            answer(sock)
        else:
            sock.sendall(answer)


def read(wire: Any, head: bytes) -> list[bytes]:
    """The words of a command whose first line is `head`."""
    assert head.startswith(b"*"), show(head)
    words = []
    for _ in range(int(head[1:])):
        size = int(wire.readline()[1:])
        words.append(wire.read(size + 2)[:-2])
    return words
