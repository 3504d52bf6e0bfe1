"""A small server of the text protocol, to try clients with.

Owns the server's end of its connections, and the counts of what it served.  Refuses to know of
pools and of the wire format.

Invariant: a client without manners harms its own connection only.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from ..conn import seconds
from ..errors import Busy, show
from .text_wire import (
    CHUNK,
    COMMAND,
    MAX_LINE,
    Err,
    Inbox,
    Malformed,
    Message,
    Ok,
    Request,
    encode,
    line_limit,
)

Command = Callable[[str], str | None]

_STEP = re.compile(r"-?[0-9]{1,18}")  # a counter that grows by these can always be shown
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no seconds: a close drops what is on its way


class _Service:
    """What the server answers, without its I/O."""

    def __init__(self, commands: Mapping[str, Command], max_line: int) -> None:
        self._max_line = max_line
        self._lock = threading.Lock()
        self.counter = 0
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        fixed: dict[str, Command] = {"COMMANDS": self._names, "STOP": lambda _: None}
        for name, command in commands.items():
            _check_command(name, command, taken=fixed)
        self._commands = {"INC": self._inc, "GET": self._get, **commands, **fixed}

    def answer(self, message: Message) -> tuple[bytes, bool]:
        """The line to send, and whether the connection ends with it."""
        if not isinstance(message, Request):
            why = message.why if isinstance(message, Malformed) else f"not a request: {message}"
            return self._err(f"malformed: {why}"), True
        command = self._commands.get(message.command)
        if command is None:
            return self._err(f"unknown command {message.command}"), False
        try:
            line = encode(Ok(_text(command(message.args or ""))), max_line=self._max_line)
        except Exception as error:
            self._count(self.refused, message)
            return self._err(_reason(error)), False
        self._count(self.served, message)
        return line, message.command == "STOP"

    def _err(self, reason: str) -> bytes:
        # A reason is for people to read: it is made to fit, whatever is in it.
        data = reason.encode(errors="backslashreplace")[: self._max_line - len("err:")]
        return encode(Err(data.decode(errors="ignore")), max_line=self._max_line)

    def _count(self, counts: Counter[str], request: Request) -> None:
        with self._lock:
            counts[request.command] += 1

    def counts(self, counts: Counter[str]) -> dict[str, int]:
        with self._lock:
            return dict(counts)

    def _inc(self, args: str) -> str:
        if not _STEP.fullmatch(args or "1"):
            raise ValueError(f"expected a whole number of at most 18 digits, got {show(args)}")
        with self._lock:
            self.counter += int(args or 1)
            return str(self.counter)

    def _get(self, _: str) -> str:
        return str(self.counter)

    def _names(self, _: str) -> str:
        return ",".join(name for name in self._commands if name != "COMMANDS")


def _check_command(name: str, command: Command, taken: Mapping[str, Command]) -> None:
    if not COMMAND.fullmatch(name) or name in taken:
        raise ValueError(f"expected a name of letters, digits, _ and - that is free, got {name!r}")
    if not callable(command):
        raise TypeError(f"{name}: expected a function of the request's ARGS, got {show(command)}")


def _text(result: object) -> str | None:
    if not isinstance(result, str | None):
        raise TypeError(f"expected the command to give str or None, got {show(result)}")
    return result


def _reason(error: Exception) -> str:
    try:
        if isinstance(error, Busy):
            cooldown = min(seconds(error.cooldown, "cooldown"), 999_999_999)
            return "busy " + f"{cooldown:.6f}".rstrip("0").rstrip(".")
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    # No other error may look like a Busy, which promises that nothing was done.
    return text if text and Err(text).cooldown is None else " ".join(show(error).split())


class TextServer:
    """A small server of this protocol, a daemon thread for each client; for tests and demos.

    Its own commands are INC (adds ARGS, default 1, to a counter and replies the new value), GET
    (replies the counter) and STOP.  A client that sends garbage, a line that is too long or cut
    short, gets an ``err:malformed`` and is let go; the others notice nothing.

    Parameters:
        commands: more of them, by name.  Each is called with the ARGS ("" where there are none)
            in its client's thread, and gives the DATA, a str or None.  What it raises becomes an
            ``err``, and `Busy` an ``err:busy`` with its cooldown: then nothing may have been done.
        host, port: where to listen; port 0: one that is free, which is then kept.
        max_line: bytes that a request or a reply may have.

    >>> from connpool.adapters.text import TextConn
    >>> with TextServer({"SAY": str.upper}) as server:
    ...     conn = TextConn(*server.address)
    ...     conn.init()
    ...     conn.call("SAY", "hello")
    ...     conn.close()
    'HELLO'
    >>> server.served
    {'SAY': 1}
    """

    def __init__(
        self,
        commands: Mapping[str, Command] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_line: int = MAX_LINE,
    ) -> None:
        self.address = (host, port)
        self._max_line = line_limit(max_line)
        self._service = _Service(commands or {}, max_line)
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._doorman: threading.Thread | None = None
        self._clients: dict[socket.socket, threading.Thread] = {}

    @property
    def counter(self) -> int:
        """What GET replies; it outlives a kill."""
        return self._service.counter

    @property
    def served(self) -> dict[str, int]:
        """How often each command was carried out, also where its reply did not arrive."""
        return self._service.counts(self._service.served)

    @property
    def refused(self) -> dict[str, int]:
        """How often each command raised, `Busy` or any other error."""
        return self._service.counts(self._service.refused)

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return len(self._clients)

    def start(self) -> None:
        """Listen, the first time and after each kill; an OSError where the port cannot be had."""
        with self._lock:
            if self._listener is not None:
                raise RuntimeError(f"{self!r} is running already")
            listener = socket.create_server(self.address)  # reuses the port of one just killed
            self.address = listener.getsockname()[:2]
            self._listener = listener
            self._doorman = self._thread(self._welcome, listener)
            self._doorman.start()

    def kill(self, wait: float = 1.0) -> None:
        """Drop the listener and every connection at once, without a word to anybody.

        No request is begun any more.  Waits at most `wait` seconds for the commands under way, so
        that the counts are final.  Calling it again is fine.
        """
        with self._lock:
            listener, self._listener = self._listener, None
            threads = [*self._clients.values(), self._doorman]
            for sock in self._clients:
                _cut(sock)
            self._clients.clear()
        if listener is not None:
            _wake(listener)
        due = time.monotonic() + wait
        for thread in threads:
            if thread not in (None, threading.current_thread()):
                thread.join(max(0.0, due - time.monotonic()))

    def __enter__(self) -> TextServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __repr__(self) -> str:
        state = "down" if self._listener is None else f"{self.clients} clients"
        return f"<TextServer {self.address}, {state}>"

    def _thread(
        self, target: Callable[[socket.socket], None], sock: socket.socket
    ) -> threading.Thread:
        name = f"connpool-text-server-{self.address[1]}"
        return threading.Thread(target=target, args=(sock,), name=name, daemon=True)

    def _welcome(self, listener: socket.socket) -> None:
        with listener:
            while self._listener is listener:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    time.sleep(0.01)  # killed, which ends the loop, or out of file numbers
                else:
                    self._admit(sock, listener)

    def _admit(self, sock: socket.socket, listener: socket.socket) -> None:
        with self._lock:
            if self._listener is listener:
                self._clients[sock] = thread = self._thread(self._serve, sock)
                try:
                    thread.start()
                    return
                except RuntimeError:  # no more threads: this client goes, the others stay
                    del self._clients[sock]
        _cut(sock)
        sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._converse(sock)
        except OSError:
            pass  # this client is gone, or was cut off
        finally:
            with self._lock:
                self._clients.pop(sock, None)
            sock.close()

    def _converse(self, sock: socket.socket) -> None:
        inbox = Inbox(self._max_line)
        while data := sock.recv(CHUNK):
            for message in inbox.feed(data):
                if sock not in self._clients:
                    return  # killed: the rest of what it had sent is not begun
                line, last = self._service.answer(message)
                sock.sendall(line)
                if last:
                    _part(sock)
                    return
        if inbox.rest:
            line, _ = self._service.answer(Malformed("a line cut short"))
            sock.sendall(line)


def _cut(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # some systems refuse this where the other side has gone already
    try:
        sock.shutdown(socket.SHUT_RDWR)  # a close alone would not wake the thread that reads
    except OSError:
        pass  # it has ended already


def _wake(listener: socket.socket) -> None:
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        listener.close()  # where a listener cannot be shut down, this wakes its thread


def _part(sock: socket.socket) -> None:
    # Closing with input unread would reset the connection, and the last line could be lost on
    # its way: so say that this was all, and read a little more until the client has seen it.
    sock.shutdown(socket.SHUT_WR)
    due = time.monotonic() + 1.0
    while (left := due - time.monotonic()) > 0:
        sock.settimeout(left)
        if not sock.recv(CHUNK):
            return
