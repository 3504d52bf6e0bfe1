"""What a conn to a program does without waiting, on threads and in tasks alike.

Owns its options, what becomes of a payload and of a reply, and what callers are told of a program's
end.  Refuses to know how a process is started and waited for.

Invariant: `Closed` is said only where nothing of the request was written; of the program's command
no more is shown than its first word, and of its environment nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from ..conn import method_names, places, seconds
from ..errors import CallError, Closed, ConnError, show
from .subprocess_wire import FRAMINGS, Exchange, ProtocolError, Tail

Encode = Callable[[Any, Any], bytes]
Decode = Callable[[bytes], Any]


class ProgramEnded(EOFError):
    """A request was written, and the program ended before its reply: it may have been carried out.

    `code` is the program's exit code, minus the signal that ended it, or None where it had to be
    ended; `stderr` is what it said last.
    """

    code: int | None = None
    stderr: str = ""


class SubprocessClient:
    """The half of a conn to a program that never waits."""

    capacity = 1

    _locks: Any  # makes a lock

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        resource: Any = None,
        framing: str = "lines",
        methods: Collection[Hashable] = ("ask",),
        encode: Encode | None = None,
        decode: Decode | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float | None = 10.0,
        grace: float = 1.0,
        max_size: int = 1_048_576,
    ) -> None:
        self._command = _words(command)
        self.program = self._command[0]
        self.resource = self.program if resource is None else resource
        if framing not in FRAMINGS:
            raise ValueError(f"framing: expected {' or '.join(FRAMINGS)}, got {show(framing)}")
        self._pack, self._find = FRAMINGS[framing]
        self._methods = method_names(methods, self)
        if not self._methods:
            raise ValueError("methods: expected at least one")
        for what, function in (("encode", encode), ("decode", decode)):
            if function is not None and not callable(function):
                raise TypeError(f"{what}: expected a function, got {show(function)}")
        if encode is None and len(self._methods) > 1:
            raise ValueError("encode: expected a function, or the program is not told which method")
        self._encode = _encoded if encode is None else encode
        self._decode = bytes.decode if decode is None else decode
        if env is not None and not isinstance(env, Mapping):
            raise TypeError(f"env: expected a mapping, got a {type(env).__name__}")
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self.timeout = None if timeout is None else seconds(timeout, "timeout")
        if self.timeout == 0:
            raise ValueError("timeout: expected more than 0 seconds, or None for no limit, got 0")
        self.grace = seconds(grace, "grace")
        self.max_size = places(max_size, "max_size")
        self._lock = self._locks()
        self._child: Any = None

    @property
    def pid(self) -> int | None:
        """The process that runs; None: none does."""
        return None if self._child is None else int(self._child.process.pid)

    def __repr__(self) -> str:
        state = "closed" if self.pid is None else f"pid {self.pid}"
        return f"<{type(self).__name__} {show(self.resource)}, {state}>"

    def _exchange(self, method: Any, payload: Any) -> Exchange:
        """The request of a call, checked; nothing is written yet."""
        if method not in self._methods:
            offered = ", ".join(map(show, self._methods))
            raise CallError(f"unknown method {show(method)}, expected one of {offered}")
        data = _shielded("encode", self._encode, method, payload)
        if not isinstance(data, bytes):
            raise TypeError(f"encode: expected bytes, got {show(data)}")
        if len(data) > self.max_size:
            raise ValueError(
                f"expected a request of at most {self.max_size} bytes, got {len(data)}"
            )
        return Exchange(self._pack(data), self._find, self.max_size)

    def _reply(self, exchange: Exchange) -> Any:
        """What the caller gets."""
        return _shielded("decode", self._decode, exchange.reply)

    # -- what callers are told

    def _unfit(self, trouble: str, end: str = "") -> Closed:
        return Closed(f"{self!r}: {trouble}, nothing was written{end}")

    def _late(self, method: Any, tail: Tail) -> TimeoutError:
        return TimeoutError(
            f"{self!r}: no reply to {show(method)} within {self.timeout} s: it may have been "
            f"carried out; the program was ended{_said(tail)}"
        )

    def _broken(
        self, error: Exception, exchange: Exchange, code: int | None, tail: Tail
    ) -> Exception:
        """What became of a call that met with `error`; `code` is how the program ended."""
        if not exchange.begun:
            return self._unfit(str(error), end_of(code, tail))
        told = (
            f"{self!r}: {error}, before the reply came: it may have been carried out"
            f"{end_of(code, tail)}"
        )
        if isinstance(error, ProtocolError):
            return ProtocolError(told)
        ended = ProgramEnded(told)
        ended.code, ended.stderr = code, tail.text
        return ended


def _words(command: Any) -> list[str]:
    """A command as a list; what is wrong with it is told without showing it."""
    if isinstance(command, (str, bytes)) or not isinstance(command, Sequence):
        raise TypeError(
            f"command: expected a list of a program and its arguments, "
            f"got a {type(command).__name__}"
        )
    if not command:
        raise ValueError("command: expected a program, got an empty list")
    for word in command:
        if not isinstance(word, (str, os.PathLike)):
            raise TypeError(f"command: expected each word as a str, got a {type(word).__name__}")
    return [os.fspath(word) for word in command]


def _encoded(method: Any, payload: Any) -> bytes:
    match payload:
        case None:
            return b""
        case bytes():
            return payload
        case str():
            return payload.encode()
    raise TypeError(f"expected a str or bytes, got {show(payload)}; encode= takes others")


def _shielded(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """What a user's function gives; none of its errors is taken for the program's."""
    try:
        return function(*args)
    except CallError:
        raise
    except (OSError, EOFError, ConnError) as error:
        raise CallError(f"{what} raised {show(error)}") from error


def end_of(code: int | None, tail: Tail) -> str:
    """How a program ended, and what it said last, for the end of a message."""
    if code is None:
        how = "the program was ended"
    elif code < 0:
        how = f"the program was ended by signal {-code}"
    else:
        how = f"the program's exit code was {code}"
    return f"; {how}{_said(tail)}"


def _said(tail: Tail) -> str:
    return f"; on stderr: {said}" if (said := tail.text) else ""
