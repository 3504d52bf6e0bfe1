"""The wire format of a small text protocol, for every client and server that speaks it.

Owns what the bytes mean, and what a reply means to a caller.  Refuses to know of sockets.

Invariant: however a stream is cut into packets, it is read as the same messages.

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

import re
from typing import Any

import attrs

from ..conn import Reply, places
from ..errors import Busy, CallError, show

MAX_LINE = 65_536  # bytes, without the newline
LEAST_LINE = 64  # what a longest line has to allow, so that there is room for an error
CHUNK = 16_384

COMMAND = re.compile(r"[A-Za-z0-9_-]+")  # what the name of a command has to match
_BUSY = re.compile(r"busy ([0-9]{1,9}(?:\.[0-9]{1,9})?)")


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
    if head or not COMMAND.fullmatch(command):
        return Malformed(f"neither a request nor a reply: {show(line)}")
    return Request(command, args if more else None)


def line_limit(max_line: int) -> int:
    """`max_line`, or the error that says what is wrong with it."""
    if places(max_line, "max_line") < LEAST_LINE:
        raise ValueError(f"max_line: expected at least {LEAST_LINE} bytes, got {max_line}")
    return max_line


def encode(message: Request | Ok | Err, *, max_line: int = MAX_LINE) -> bytes:
    """The line for a message; ValueError where there is none that `parse` would read as the same.

    >>> encode(Request("SAY", "one\\ntwo"))
    Traceback (most recent call last):
    ValueError: expected text without a newline, got ':SAY:one\\ntwo'
    """
    match message:
        case Request(command, text):
            if not COMMAND.fullmatch(command):
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
