"""How a program is spoken to: messages over its stdin and stdout, and its last words on stderr.

Owns the framing, the pipes, and the thread that keeps stderr from filling up.  Refuses to know of
processes, of calls and of how their ends are waited for.

Invariant: a program never hangs because nobody reads its stderr, and no pipe of ours outlives it.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Callable

import attrs

from ..errors import show

CHUNK = 65_536
TAIL = 4_096  # bytes of stderr that are kept
HEAD = struct.Struct(">I")  # before each frame: how many bytes it has


class ProtocolError(ConnectionError):
    """The program said what is no reply, or more than it was asked for: the conn is dead."""


# -- messages --------------------------------------------------------------------------------------


def pack_line(data: bytes) -> bytes:
    """A message as a line, which ends in a newline and has no other."""
    if b"\n" in data:
        raise ValueError(f"expected one line, without a newline in it, got {show(data)}")
    return data + b"\n"


def find_line(data: bytearray, seen: int, most: int) -> tuple[int, int, int] | None:
    """Where the first line begins and ends, and what follows it begins; None: it is not whole.

    `seen` is how much of the data was looked through before.
    """
    end = data.find(b"\n", seen, most + 1)
    if end < 0:
        if len(data) > most:
            raise ProtocolError(f"a line of more than {most} bytes")
        return None
    return 0, end, end + 1


def pack_frame(data: bytes) -> bytes:
    """A message as a frame: four bytes that count its bytes, the highest first, then these."""
    return HEAD.pack(len(data)) + data


def find_frame(data: bytearray, seen: int, most: int) -> tuple[int, int, int] | None:
    """The same for the first frame."""
    if len(data) < HEAD.size:
        return None
    (size,) = HEAD.unpack_from(data)
    if size > most:
        raise ProtocolError(f"a frame of {size} bytes, where at most {most} are expected")
    end = HEAD.size + int(size)
    return (HEAD.size, end, end) if len(data) >= end else None


Pack = Callable[[bytes], bytes]
Find = Callable[[bytearray, int, int], tuple[int, int, int] | None]

FRAMINGS: dict[str, tuple[Pack, Find]] = {
    "lines": (pack_line, find_line),
    "frames": (pack_frame, find_frame),
}


class Exchange:
    """One request and its reply, without waiting: `push` and `pull` until it is `over`."""

    def __init__(self, request: bytes, find: Find, most: int) -> None:
        self.begun = False  # whether any of the request was written
        self.over = False
        self.reply = b""
        self._left = memoryview(request)
        self._find, self._most = find, most
        self._got = bytearray()

    @property
    def sending(self) -> bool:
        """Whether some of the request is still to be written."""
        return bool(self._left)

    def push(self, pipes: Pipes) -> None:
        """Write as much of the request as can be written now; an OSError where nobody reads."""
        try:
            while self._left:
                self._left = self._left[os.write(pipes.into, self._left[:CHUNK]) :]
                self.begun = True
        except BlockingIOError:
            pass

    def pull(self, pipes: Pipes) -> bool:
        """Read what is there; False: nothing.  EOFError where nothing will ever come."""
        try:
            data = os.read(pipes.out, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            raise EOFError("it ended its output")
        seen = len(self._got)
        self._got += data
        if (found := self._find(self._got, seen, self._most)) is not None:
            self._end(*found)
        return True

    def _end(self, start: int, end: int, rest: int) -> None:
        if len(self._got) > rest:
            raise ProtocolError(f"more than one reply, {show(bytes(self._got[rest:]))} as well")
        if self._left:
            raise ProtocolError("a reply before the request was written in whole")
        self.reply, self.over = bytes(self._got[start:end]), True


# -- pipes -----------------------------------------------------------------------------------------


@attrs.define
class Pipes:
    """The ends of three pipes; `theirs` are stdin, stdout and stderr of the program."""

    into: int
    out: int
    tail: Tail
    theirs: tuple[int, ...]

    @classmethod
    def open(cls) -> Pipes:
        """Make them; ours do not block."""
        made: list[int] = []
        try:
            for _ in range(4):  # the fourth wakes the one who reads stderr
                made += os.pipe()
            stdin, into, out, stdout, err, stderr, called, call = made
            os.set_blocking(into, False)
            os.set_blocking(out, False)
            return cls(into, out, Tail(err, called, call), (stdin, stdout, stderr))
        except BaseException:
            for number in made:
                os.close(number)
            raise

    def hand_over(self) -> None:
        """The program has its ends now, or never will."""
        theirs, self.theirs = self.theirs, ()
        for number in theirs:
            os.close(number)

    def hang_up(self) -> None:
        """End the program's input."""
        if self.into >= 0:
            os.close(self.into)
            self.into = -1

    def close(self) -> None:
        """Close our ends; the program has ended, and nobody waits for them."""
        self.hand_over()
        self.hang_up()
        if self.out >= 0:
            os.close(self.out)
            self.out = -1
        self.tail.close()

    def wait(self, sending: bool, seconds: float | None) -> None:
        """Until there is something to be read, or while `sending` to be written, or too late."""
        poll = select.poll()
        poll.register(self.out, select.POLLIN)
        if sending:
            poll.register(self.into, select.POLLOUT)
        poll.poll(None if seconds is None else max(seconds, 0) * 1000)

    def trouble(self) -> str:
        """Why nothing should be written now, or ""; never waits."""
        poll = select.poll()
        poll.register(self.out, select.POLLIN)
        poll.register(self.into, 0)  # errors are always told
        for number, what in poll.poll(0):
            if number == self.into:
                return "it had ended its input"
            if what & select.POLLIN and _unread(self.out):
                return "it had said what nobody had asked for"
            return "it had ended its output"
        return ""


def _unread(number: int) -> int:
    """How many bytes lie in a pipe."""
    (size,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, b"\0" * 4))
    return int(size)


class Tail:
    """Reads stderr in a thread, to its end, and keeps the last of it."""

    def __init__(self, err: int, called: int, call: int) -> None:
        self._err, self._called, self._call = err, called, call
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="connpool-stderr", daemon=True)
        self._thread.start()

    @property
    def reading(self) -> bool:
        """Whether more may come: the program, or one that it has started, has not closed it."""
        return self._thread.is_alive()

    @property
    def text(self) -> str:
        """What came last."""
        with self._lock:
            return self._kept.decode("utf-8", "replace").strip()

    def wait(self, seconds: float) -> None:
        """Until all was read, or too late."""
        self._thread.join(seconds)

    def close(self) -> None:
        """End the thread; what it has kept stays.  Calling it again is fine."""
        if self._call >= 0:
            os.close(self._call)
            self._call = -1
        self._thread.join()

    def _read(self) -> None:
        poll = select.poll()
        for number in (self._err, self._called):
            poll.register(number, select.POLLIN)
        try:
            while self._called not in dict(poll.poll()) and (data := os.read(self._err, CHUNK)):
                with self._lock:
                    self._kept = (self._kept + data)[-TAIL:]
        finally:
            os.close(self._err)
            os.close(self._called)
