"""What holds for Redis on threads and in tasks alike, before and after the bytes.

Owns which commands a caller may send, which of them would be felt by whoever uses the connection
next, and what an error of redis-py says of call and conn.  Refuses to wait, and to know of sockets.

Invariant: `Closed` and `Busy` are said only of commands that the server surely did not carry out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs
from redis import exceptions

from ..errors import Busy, CallError, Closed, InitError, show

PIPELINE = "pipeline"  # in lower case, which no command of a server is

Words = tuple[Any, ...]  # a command and its arguments


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Each leaves the connection other than it was: in a transaction, in another database, as another
# user, without replies, or with messages that nobody has asked for.
LASTING = names("""
    ASKING AUTH HELLO HIMPORT MONITOR PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY READWRITE REPLCONF
    RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE
""")
LASTING_PARTS = {
    "CLIENT": names("CACHING NO-EVICT NO-TOUCH REPLY SETINFO SETNAME TRACKING"),
    "SCRIPT": names("DEBUG"),
}
TRANSACTION = names("DISCARD EXEC MULTI UNWATCH WATCH")
NOTED = LASTING | TRANSACTION | LASTING_PARTS.keys()

# What these answer was perhaps said by a script, half way through what it does.
SCRIPTS = names("EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO")


class ReplyLost(ConnectionError):
    """A command was sent and no whole reply came: it may have been carried out, or not."""


class ProtocolError(ConnectionError):
    """The other side does not speak as a Redis server does: the conn is dead."""


class Loading(exceptions.ResponseError):
    """LOADING: the server reads its data, and refuses commands until it has them all.

    (For redis-py itself this is the end of the connection, which it need not be.)
    """


class ScriptRuns(exceptions.ResponseError):
    """BUSY: a script runs for so long that the server refuses all other commands."""


#: What parsers of redis-py are told to make of words that a server's errors may begin with.  Those
#: of a cluster it knows by itself, but only later than 5.1 wherever they come.
TOLD = {
    "LOADING": Loading,
    "BUSY": ScriptRuns,
    "MASTERDOWN": exceptions.MasterDownError,
    "MOVED": exceptions.MovedError,
    "ASK": exceptions.AskError,
    "TRYAGAIN": exceptions.TryAgainError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "CROSSSLOT": exceptions.ClusterCrossSlotError,
}

NOT_NOW = (Loading, ScriptRuns, exceptions.MasterDownError)


# -- what may be sent ----------------------------------------------------------------------------


def command_names(chosen: Any) -> frozenset[str]:
    """`chosen` as a set of commands, each one word in upper case; and perhaps "pipeline".

    >>> sorted(command_names(["GET", "SET"]))
    ['GET', 'SET']
    """
    if isinstance(chosen, (str, bytes)) or not isinstance(chosen, Collection):
        raise TypeError(f"commands: expected a collection of commands, got {show(chosen)}")
    for name in chosen:
        if not isinstance(name, str):
            raise TypeError(f"commands: expected each as a str, got {show(name)}")
        if name != PIPELINE and (name != name.upper() or name.split() != [name]):
            raise ValueError(f"commands: expected each as one word in upper case, got {name!r}")
    return frozenset(chosen)


def listed(reply: Any) -> frozenset[str]:
    """The commands in a server's reply to COMMAND LIST or to COMMAND, and "pipeline"."""
    try:
        said = {(entry if isinstance(entry, bytes) else entry[0]).decode() for entry in reply}
    except (AttributeError, IndexError, TypeError, UnicodeDecodeError):
        raise ProtocolError(f"expected a list of commands, got {show(reply)}") from None
    # "client|kill" is a part of the command "client"
    return frozenset({name.upper() for name in said if "|" not in name} | {PIPELINE})


def command(method: Any, payload: Any, offered: frozenset[str]) -> Words:
    """The words of a command; CallError where it cannot be had through a call.

    >>> command("SET", ("key", 1), frozenset({"SET"}))
    ('SET', 'key', 1)
    """
    if method not in offered or method == PIPELINE:
        raise CallError(
            f"unknown command {show(method)}: expected one of the server's, in upper case"
        )
    if isinstance(payload, (tuple, list)):
        words = (method, *payload)
    else:
        words = (method,) if payload is None else (method, payload)
    if method in NOTED and (name := noted(words)):
        raise CallError(
            f"{name} would be felt by the next caller on this connection: it needs a checkout"
        )
    return words


def pipelined(payload: Any, offered: frozenset[str]) -> list[Words]:
    """The commands of a pipeline, each checked as `command` does."""
    if not isinstance(payload, (tuple, list)):
        raise TypeError(f"pipeline: expected a list of commands, got {show(payload)}")
    return [_of_pipeline(entry, offered) for entry in payload]


def _of_pipeline(entry: Any, offered: frozenset[str]) -> Words:
    if isinstance(entry, str):
        return command(entry, None, offered)
    if not isinstance(entry, (tuple, list)) or not entry:
        raise TypeError(
            f"pipeline: expected each command as a str, or a tuple that begins with one, "
            f"got {show(entry)}"
        )
    return command(entry[0], tuple(entry[1:]), offered)


def noted(words: Sequence[Any]) -> str:
    """The name of a command that is felt by who uses the connection next; of others "".

    >>> noted(("CLIENT SETNAME", "me")), noted((b"client", b"setname", b"me")), noted(("GET", "k"))
    ('CLIENT SETNAME', 'CLIENT SETNAME', '')
    """
    # redis-py has names such as "CLIENT SETNAME"
    name, *parts = _text(words[0]).upper().split() or [""]
    if name in LASTING or name in TRANSACTION:
        return name
    if name in LASTING_PARTS:
        part = parts[0] if parts else _text(words[1]).upper() if len(words) > 1 else ""
        return f"{name} {part}" if part in LASTING_PARTS[name] else ""
    return ""


def _text(word: Any) -> str:
    if isinstance(word, (bytes, bytearray, memoryview)):
        return bytes(word).decode("ascii", "replace")
    return word if isinstance(word, str) else ""


# -- what a connection remembers -----------------------------------------------------------------


@attrs.define
class Traces:
    """What a connection still remembers of those who sent commands over it.

    >>> traces = Traces()
    >>> for words in [("WATCH", "key"), ("MULTI",), ("GET", "key")]:
    ...     traces.note(words)
    >>> traces.left
    'MULTI'
    >>> traces.note(("EXEC",))
    >>> traces.left
    ''
    """

    lasting: str = ""
    watching: bool = False
    queueing: bool = False

    @property
    def left(self) -> str:
        """The command that would be felt by the next user; "" where there is none."""
        return self.lasting or ("MULTI" if self.queueing else "WATCH" if self.watching else "")

    def note(self, words: Sequence[Any]) -> None:
        """A command is about to be sent."""
        match noted(words):
            case "":
                pass
            case "MULTI":
                self.queueing = True
            case "WATCH":
                self.watching = True
            case "UNWATCH":
                self.watching = False
            case "EXEC" | "DISCARD":
                self.watching = self.queueing = False
            case name:
                self.lasting = name


# -- what errors say -----------------------------------------------------------------------------


def of_answer(error: exceptions.ResponseError, name: str) -> Exception:
    """What an error that the server replied to one command means to caller and conn."""
    if isinstance(error, NOT_NOW) and not may_run_code(name):
        return Busy(reason=f"{name} was refused: {error}")
    if isinstance(error, exceptions.ReadOnlyError):
        # After a failover the address may lead to the new master: so the caller is told, and who
        # comes next gets a new connection.  Were the call moved, a replica that was meant to be
        # one would be connected to again and again.
        return CallError(f"READONLY {error}", closed=True)
    return error


def of_answers(replies: Iterable[Any], orders: Iterable[Words]) -> Busy | None:
    """`Busy` where a pipeline was refused as a whole; else each reply has to be looked at."""
    refused = [
        isinstance(reply, NOT_NOW) and not may_run_code(words[0])
        for reply, words in zip(replies, orders, strict=True)
    ]
    return Busy(reason="the pipeline was refused as a whole") if refused and all(refused) else None


def may_run_code(name: str) -> bool:
    """Whether an error may come from within: from a script, or a module's command."""
    return name in SCRIPTS or "." in name


def of_loss(error: Exception, who: str, name: str, *, whole: bool = True) -> Exception:
    """What becomes of a command, or a pipeline, to which no reply could be read.

    `whole` is False where a single command has surely not left in whole: then it was no command.
    """
    perhaps = f"before the reply to {name} came: it may have been carried out"
    match error:
        case exceptions.TimeoutError() | TimeoutError():
            if whole:
                return TimeoutError(f"{who}: the time was over {perhaps}")
            return TimeoutError(f"{who}: the time was over before {name} was sent in whole")
        case exceptions.RedisError() | OSError() if not whole:
            return Closed(f"{who}: {name} was not sent in whole: {error}")
        case exceptions.AuthenticationError() if name != PIPELINE and not may_run_code(name):
            return Closed(f"{who}: {name} was refused: {error}")
        case exceptions.InvalidResponse():
            return ProtocolError(f"{who}: {error}, {perhaps}")
        case exceptions.RedisError() | OSError():
            return ReplyLost(f"{who}: {error}, {perhaps}")
    # How far the reply was read is not known, so nothing can be read behind it.
    return CallError(f"{who}: the reply to {name} cannot be read: {error}", closed=True)


def of_opening(error: Exception, who: str) -> Exception:
    """What an init raises for an error of redis-py."""
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            return InitError(f"{who}: the login was refused: {error}")
        case exceptions.ResponseError():
            return InitError(f"{who}: {error}")
        case exceptions.TimeoutError() | TimeoutError():
            return TimeoutError(f"{who}: {error}")
    return ConnectionError(f"{who}: {error}")
