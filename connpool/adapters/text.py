"""A small text protocol over TCP: its wire format, a conn that speaks it, a server to try it with.

Owns the protocol: `parse`, `encode` and `Exchange` know no socket, so that every client and server
can share them; `TextConn` and `TextServer` carry the bytes.  Refuses to know of pools.

Invariant: a request is carried out at most once.  `Closed` and `Busy` say that it was surely not;
where it may have been, the caller gets an OSError, and nobody tries again.

Each line ends in a newline and is UTF-8; what comes after the first or second colon is free text:

=================== ==========================================================================
``:COMMAND``        a request; COMMAND is made of ASCII letters, digits, "_" and "-"
``:COMMAND:ARGS``   the same, with arguments
``ok``, ``ok:DATA`` it was carried out
``err:REASON``      it failed
``err:busy SECS``   it was not carried out: ask again after so many seconds (2 or 0.25)
``:COMMANDS``       every server has it: replies the names of all others, with commas between them
``:STOP``           every server has it: replies ``ok``, then ends the connection
=================== ==========================================================================

Nothing is escaped: text with a newline in it cannot be sent, and is refused before it is.  Replies
come in the order of the requests.  Whoever reads what is no such line cannot know where the next
one begins, so the connection ends there; a line cut short by the end of the stream is no line.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

from ..conn import Reply, places, seconds
from ..errors import Busy, CallError, Closed, show

MAX_LINE = 65_536  # bytes, without the newline
LEAST_LINE = 64  # what a longest line has to allow, so that there is room for an error
CHUNK = 16_384

_COMMAND = re.compile(r"[A-Za-z0-9_-]+")
_BUSY = re.compile(r"busy ([0-9]{1,9}(?:\.[0-9]{1,9})?)")

# -- the wire ----------------------------------------------------------------------------------


class ProtocolError(ConnectionError):
    """The other side sent what is no reply, or more than was asked for: the conn is dead."""


class ReplyLost(ConnectionError):
    """A request was sent and no whole reply came: it may have been carried out, or not."""


@attrs.frozen
class Request:
    """``:COMMAND`` (`args` is None) or ``:COMMAND:ARGS``."""

    command: str
    args: str | None = None


@attrs.frozen
class Ok:
    """``ok`` (`data` is None) or ``ok:DATA``."""

    data: str | None = None


@attrs.frozen
class Err:
    """``err:REASON``; `cooldown` is the seconds of a ``busy SECS``, else None."""

    reason: str

    @property
    def cooldown(self) -> float | None:
        busy = _BUSY.fullmatch(self.reason)
        return float(busy[1]) if busy else None


@attrs.frozen
class Malformed:
    """No line of the protocol; `why` says what is wrong with it."""

    why: str


Message = Request | Ok | Err | Malformed


def parse(data: bytes, *, max_line: int = MAX_LINE) -> tuple[Message | None, bytes]:
    """The first message of `data`, and what follows it; None: more data is needed.

    `max_line` is in bytes, without the newline.  Nothing can be read behind a `Malformed`.

    >>> parse(b":INC:2\\n:GE")
    (Request(command='INC', args='2'), b':GE')
    >>> parse(b":GE")
    (None, b':GE')
    """
    end = data.find(b"\n", 0, max_line + 1)
    if end >= 0:
        return _message(data[:end]), data[end + 1 :]
    if len(data) > max_line:
        return Malformed(f"a line of more than {max_line} bytes"), b""
    return None, data


def _message(line: bytes) -> Message:
    try:
        head, colon, rest = line.decode().partition(":")
    except UnicodeDecodeError:
        return Malformed(f"a line that is not UTF-8: {show(line)}")
    if head == "ok":
        return Ok(rest if colon else None)
    if head == "err" and colon:
        return Err(rest)
    command, more, args = rest.partition(":")
    if head or not _COMMAND.fullmatch(command):
        return Malformed(f"neither a request nor a reply: {show(line)}")
    return Request(command, args if more else None)


def encode(message: Request | Ok | Err, *, max_line: int = MAX_LINE) -> bytes:
    """The line for a message; ValueError where there is none that `parse` would read as the same.

    >>> encode(Request("SAY", "one\\ntwo"))
    Traceback (most recent call last):
    ValueError: expected text without a newline, got ':SAY:one\\ntwo'
    """
    match message:
        case Request(command, text):
            if not _COMMAND.fullmatch(command):
                raise ValueError(f"expected a command of letters, digits, _ and -, got {command!r}")
            head = f":{command}"
        case Ok(text):
            head = "ok"
        case Err(text):
            head = "err"
    line = head if text is None else f"{head}:{text}"
    if "\n" in line:
        raise ValueError(f"expected text without a newline, got {show(line)}")
    if len(data := line.encode()) > max_line:
        raise ValueError(f"expected a line of at most {max_line} bytes, got {len(data)}")
    return data + b"\n"


class Inbox:
    """Bytes as they come in, messages as they come out; nothing comes out after a `Malformed`."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._broken = False
        self.rest = b""  # the beginning of a line whose end has not come yet

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        messages: list[Message] = []
        if self._broken:
            return messages
        message, self.rest = parse(self.rest + data, max_line=self._max_line)
        while message is not None:
            messages.append(message)
            if isinstance(message, Malformed):
                self._broken, self.rest = True, b""
                break
            message, self.rest = parse(self.rest, max_line=self._max_line)
        return messages


class Exchange:
    """One call without its I/O: send `line`, `feed` what comes until it says True, take `reply()`.

    A method or payload that cannot be sent is a TypeError or ValueError here, before anything is.
    """

    def __init__(self, method: Any, payload: Any = None, *, max_line: int = MAX_LINE) -> None:
        if not isinstance(method, str) or not isinstance(payload, str | None):
            raise TypeError(
                f"expected a command and its arguments as str, got {show(method)}, {show(payload)}"
            )
        self.method = method
        self.line = encode(Request(method, payload), max_line=max_line)
        self._inbox = Inbox(max_line)
        self._answer: Ok | Err | None = None

    def feed(self, data: bytes) -> bool:
        """Whether the reply is there; b"" stands for the end of the stream."""
        if not data:
            raise ReplyLost(
                f"the connection ended before the reply to {self.method} came: "
                f"it may have been carried out"
            )
        messages = self._inbox.feed(data)
        if not messages:
            return False
        if not isinstance(messages[0], (Ok, Err)):
            raise ProtocolError(f"expected a reply to {self.method}, got {show(messages[0])}")
        if len(messages) > 1 or self._inbox.rest:
            # Two replies to one request: either may belong to somebody else.
            raise ProtocolError(f"expected one reply to {self.method}, got {show(data)}")
        self._answer = messages[0]
        return True

    def reply(self) -> str | Reply[str | None] | None:
        """The reply, or `Busy` or `CallError` in the place of an ``err``."""
        assert self._answer is not None, "feed has not said True"
        if isinstance(self._answer, Ok):
            data = self._answer.data
            return Reply(data, closed=True) if self.method == "STOP" else data
        if (cooldown := self._answer.cooldown) is not None:
            raise Busy(cooldown)
        raise CallError(self._answer.reason)


# -- the client --------------------------------------------------------------------------------


class TextConn:
    """A conn to a server of this protocol; its methods are the server's commands.

    A payload is the ARGS of the request, a str or None; a reply is the DATA, a str or None.

    Parameters:
        host, port: where the server listens.
        resource: what callers name; default: the pair (host, port).
        timeout: seconds that `init` may take, and that a call may from its first byte sent to the
            last one received; None: no limit.
        max_line: bytes that a request or a reply may have.

    >>> with TextServer() as server:
    ...     conn = TextConn(*server.address)
    ...     conn.init()
    ...     conn.call("INC", "2"), sorted(conn.methods()), conn.call("STOP")
    ('2', ['GET', 'INC', 'STOP'], Reply(value=None, cooldown=0.0, closed=True))
    """

    capacity = 1

    def __init__(
        self,
        host: str,
        port: int,
        *,
        resource: Any = None,
        timeout: float | None = 10.0,
        max_line: int = MAX_LINE,
    ) -> None:
        self.address = (host, port)
        self.resource = self.address if resource is None else resource
        self.timeout = None if timeout is None else _not_0(seconds(timeout, "timeout"))
        self.max_line = _line_limit(max_line)
        self._sock: socket.socket | None = None
        # Under a pool nobody ever waits for this; users of a shared conn stand in line here.
        self._lock = threading.RLock()

    def init(self) -> None:
        """Connect; an OSError says why that failed.  A connection that was open is closed first."""
        self.close()
        sock = socket.create_connection(self.address, self.timeout)
        try:
            _refuse_own_echo(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def call(self, method: Any, payload: Any = None) -> str | Reply[str | None] | None:
        """Send one request and wait for its reply; nothing is ever sent twice.

        The connection lives on after `CallError` (the server said err), `Busy` (it said err:busy),
        TypeError and ValueError (what cannot be sent, and was not).  It is closed by all others:
        `Closed`, the request was not sent in whole, so it was not carried out; `ReplyLost` and
        TimeoutError, it may have been; `ProtocolError`; and by whatever interrupts the wait, for
        the reply on its way would be taken for that of the next call.
        """
        exchange = Exchange(method, payload, max_line=self.max_line)
        with self._lock:
            sock = self._idle()
            try:
                self._carry(sock, exchange)
            except BaseException:
                self._drop(sock)
                raise
        reply = exchange.reply()
        if isinstance(reply, Reply):
            self.close()
        return reply

    def methods(self) -> list[str]:
        """Ask the server for its commands; waits and raises as `call` does."""
        names = cast("str | None", self.call("COMMANDS"))
        listed = names.split(",") if names else []
        if not all(map(_COMMAND.fullmatch, listed)):
            self.close()
            raise ProtocolError(f"expected a list of commands, got {show(names)}")
        return listed

    def parse(self, data: bytes) -> tuple[Message | None, bytes]:
        """`parse`, with this conn's longest line."""
        return parse(data, max_line=self.max_line)

    def check(self) -> bool:
        """Whether the connection is open and silent, as far as this side knows; sends nothing."""
        with self._lock:
            return self._sock is not None and _peek(self._sock) is None

    def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another thread is woken."""
        if (sock := self._sock) is not None:
            self._drop(sock)

    def __repr__(self) -> str:
        return f"<TextConn {show(self.resource)}, {'open' if self._sock else 'closed'}>"

    def _idle(self) -> socket.socket:
        sock = self._sock
        if sock is None:
            raise Closed(f"{self!r}: nothing was sent")
        if (seen := _peek(sock)) is None:
            return sock
        self._drop(sock)
        if seen:
            raise ProtocolError(f"{self!r} received what nobody had asked for; nothing was sent")
        raise Closed(f"{self!r}: the server had ended the connection, nothing was sent")

    def _carry(self, sock: socket.socket, exchange: Exchange) -> None:
        due = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            sock.settimeout(_left(due))
            sock.sendall(exchange.line)
        except TimeoutError as error:
            raise TimeoutError(f"{self!r}: not sent within {self.timeout} s") from error
        except OSError as error:
            # Its newline has not left, and without that it is no request.
            raise Closed(f"{self!r}: the request was not sent in whole: {error}") from error
        try:
            while not exchange.feed(_receive(sock, due)):
                pass
        except TimeoutError as error:
            raise TimeoutError(
                f"{self!r}: no reply to {exchange.method} within {self.timeout} s, "
                f"it may have been carried out"
            ) from error

    def _drop(self, sock: socket.socket) -> None:
        if self._sock is sock:
            self._sock = None
        _shut(sock)  # wakes a call in another thread, which must be out before the number is freed
        with self._lock:
            sock.close()


def _line_limit(max_line: int) -> int:
    if places(max_line, "max_line") < LEAST_LINE:
        raise ValueError(f"max_line: expected at least {LEAST_LINE} bytes, got {max_line}")
    return max_line


def _not_0(timeout: float) -> float:
    if not timeout:
        raise ValueError("timeout: expected more than 0 seconds, or None for no limit, got 0")
    return timeout


def _left(due: float | None) -> float | None:
    if due is None:
        return None
    # Never 0, which to a socket means "do not wait at all".
    return max(due - time.monotonic(), 1e-6)


def _receive(sock: socket.socket, due: float | None) -> bytes:
    try:
        sock.settimeout(_left(due))
        return sock.recv(CHUNK)
    except TimeoutError:
        raise
    except OSError as error:
        raise ReplyLost(f"{error}, before the reply came: it may have been carried out") from error


def _peek(sock: socket.socket) -> bytes | None:
    """None: open and silent; b"": ended; anything else: the first byte of what nobody asked for."""
    try:
        sock.settimeout(0)
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already


def _refuse_own_echo(sock: socket.socket) -> None:
    # Where nobody listens on a port of this machine, the kernel may choose that very port for our
    # side, and connect us to ourselves.
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


# -- the server --------------------------------------------------------------------------------

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
    if not _COMMAND.fullmatch(name) or name in taken:
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
    return text if text and not _BUSY.fullmatch(text) else " ".join(show(error).split())


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
        self._max_line = _line_limit(max_line)
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
    _shut(sock)  # closing alone would not wake the thread that reads from it


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
    for _ in range(256):
        sock.settimeout(_left(due))
        if not sock.recv(CHUNK):
            return
