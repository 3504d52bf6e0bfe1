"""JSON-RPC 2.0 as one end of a connection sees it: requests, ids, and which reply is whose.

Owns the encoding of requests, the reading of messages and the calls that wait for a reply.  Refuses
to wait, and to know what carries the messages.

Invariant: a reply goes to the call whose id it carries, or to nobody.  An id is used once in the
life of a conn, so that no late reply can be taken for another one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import attrs

from ..conn import seconds
from ..errors import Busy, CallError, show

MAY_HAVE = "it may have been carried out"

# What a conn needs of json, with a message as short as can be.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class JsonRpcError(CallError):
    """The server answered a call with an error; the conn is well.

    `code` is an int, `message` what the server says of it, `data` whatever came along, or None.

    >>> raise JsonRpcError(-32601, "no such method")
    Traceback (most recent call last):
    connpool.adapters.websocket_rpc.JsonRpcError: no such method (-32601)
    """

    code: int
    message: str
    data: Any

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code, self.message, self.data = code, message, data


class ReplyLost(ConnectionError):
    """A call was sent and its connection ended before the reply: it may have been carried out."""


class ProtocolError(ConnectionError):
    """The server sent what is no JSON-RPC: the conn is dead."""


class CallTimeout(CallError, TimeoutError):
    """No reply came in time, though the server was heard meanwhile: the conn is well.

    The call may have been carried out, and still may be; its reply is dropped when it comes.
    """


class Push(NamedTuple):
    """What the server says without being asked: a notification."""

    method: str
    params: Any


class Numbers:
    """Ids for the requests of a conn, over all its connections: 1, 2, 3..."""

    def __init__(self) -> None:
        self.last = 0
        self._lock = threading.Lock()

    def take(self) -> int:
        """The next one."""
        with self._lock:
            self.last += 1
            return self.last


@attrs.define(eq=False)
class Call:
    """A request, and what came of it once `wake` was called.

    `text` is the message to send; `wake` is called once, from wherever the reply is read.
    """

    number: int
    method: str
    text: str = attrs.field(repr=False)
    wake: Callable[[], object]
    over: bool = False
    _result: Any = None
    _error: Exception | None = None

    def settle(self, result: Any, error: Exception | None = None) -> None:
        """Give it its reply or its error, and wake who waits."""
        self._result, self._error, self.over = result, error, True
        self.wake()

    def reply(self) -> Any:
        """What the server replied; raises where that was an error, or where nothing came."""
        error, self._error = self._error, None  # an error's traceback holds this very call
        if error is not None:
            raise error
        return self._result


class Calls:
    """The calls of one connection that wait for a reply.

    Parameters:
        numbers: where ids come from.
        busy_codes: codes of errors that say "not now, and nothing was done", with the seconds to
            rest.
        max_size: characters that a request may have; None: no limit.

    `heard` counts the messages that came.  Any thread may use it.

    >>> calls = Calls(Numbers())
    >>> call = calls.begin("add", [1, 2], lambda: print("woken"))
    >>> call.text
    '{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}'
    >>> calls.feed('{"jsonrpc":"2.0","id":1,"result":3}')
    woken
    []
    >>> call.reply()
    3
    """

    def __init__(
        self,
        numbers: Numbers,
        busy_codes: Mapping[int, float] | None = None,
        max_size: int | None = None,
    ) -> None:
        self.heard = 0
        self._numbers = numbers
        self._busy_codes = busy_codes or {}
        self._max_size = max_size
        self._waiting: dict[int, Call] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    # -- what is sent --------------------------------------------------------------------------

    def begin(self, method: Any, params: Any, wake: Callable[[], object]) -> Call:
        """A call that waits for its reply from now on; its `text` is to be sent.

        TypeError or ValueError where JSON-RPC has no way to say this.
        """
        if not isinstance(method, str):
            raise TypeError(f"method: expected a str, got {show(method)}")
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": self._numbers.take(), "method": method}
        if isinstance(params, (list, tuple, dict)):
            message["params"] = params
        elif params is not None:
            raise TypeError(
                f"payload: expected a list or a tuple, or a dict of names, or None, "
                f"got {show(params)}"
            )
        text = _encode(message)
        if self._max_size is not None and len(text) > self._max_size:
            raise ValueError(
                f"payload: expected a request of at most {self._max_size} characters, "
                f"got one of {len(text)}"
            )
        call = Call(message["id"], method, text, wake)
        self._waiting[call.number] = call
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this call any more: its reply is dropped, if one ever comes."""
        self._waiting.pop(call.number, None)

    # -- what comes ----------------------------------------------------------------------------

    def feed(self, data: str | bytes) -> list[Push]:
        """Read a message: wake the calls that it answers, and give what else it says, in order.

        ProtocolError where it makes no sense: nothing that comes later can be trusted.
        """
        self.heard += 1
        try:
            message = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"expected JSON from the server, got {_excerpt(data)}") from error
        if not isinstance(message, list):
            push = self._one(message, data)
            return [] if push is None else [push]
        if not message:
            raise _nonsense(data)
        pushes = (self._one(part, data) for part in message)
        return [push for push in pushes if push is not None]

    def _one(self, message: Any, data: str | bytes) -> Push | None:
        if not isinstance(message, dict):
            raise _nonsense(data)
        if "method" in message:
            return _push(message, data)
        number, error = message.get("id"), message.get("error")
        if error is None and "result" not in message:
            raise _nonsense(data)
        problem = None if error is None else self._problem(error, data)
        if number is None and problem is not None:
            # It could not make out whose request it was, so that somebody waits in vain.
            raise ProtocolError(f"the server could not read a request: {problem}")
        if type(number) is not int or not 0 < number <= self._numbers.last:
            raise _nonsense(data)
        # Where it is not there any more, its caller has left.
        if (call := self._waiting.pop(number, None)) is not None:
            call.settle(message.get("result"), problem)
        return None

    def _problem(self, error: Any, data: str | bytes) -> Exception:
        code = error.get("code") if isinstance(error, dict) else None
        if type(code) is not int:
            raise _nonsense(data)
        problem = JsonRpcError(code, str(error.get("message", "")), error.get("data"))
        if code not in self._busy_codes:
            return problem
        busy = Busy(self._busy_codes[code], str(problem))
        busy.__cause__ = problem
        return busy

    def fail(self, why: Callable[[Call], Exception]) -> None:
        """Nothing will come any more: each call that waits gets an error of its own."""
        while self._waiting:
            try:
                _, call = self._waiting.popitem()
            except KeyError:
                return  # the last one has left in this moment
            call.settle(None, why(call))


def _push(message: dict[str, Any], data: str | bytes) -> Push | None:
    method, params = message["method"], message.get("params")
    if not isinstance(method, str):
        raise _nonsense(data)
    # One with an id is a request to us, who serve nothing.
    return Push(method, params) if message.get("id") is None else None


def _nonsense(data: str | bytes) -> ProtocolError:
    return ProtocolError(f"expected a reply or a notification of JSON-RPC, got {_excerpt(data)}")


def _excerpt(data: str | bytes) -> str:
    return show(data[:200])


# -- options ------------------------------------------------------------------------------------


def busy_rests(codes: Any) -> dict[int, float]:
    """`busy_codes`, checked: a mapping of codes to the seconds to rest.

    >>> busy_rests({-32005: 1})
    {-32005: 1.0}
    """
    if not isinstance(codes, Mapping):
        raise TypeError(f"busy_codes: expected a mapping of codes to seconds, got {show(codes)}")
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, int):
            raise TypeError(f"busy_codes: expected codes that are ints, got {show(code)}")
    return {code: seconds(rest, f"busy_codes[{code}]") for code, rest in codes.items()}


def listed(reply: Any) -> list[str]:
    """The methods in a server's answer: a list of names, or what ``rpc.discover`` gives.

    >>> listed(["add"]), listed({"openrpc": "1.2.6", "methods": [{"name": "add"}]})
    (['add'], ['add'])
    """
    methods = reply.get("methods") if isinstance(reply, dict) else reply
    if isinstance(methods, list):
        names = [entry.get("name") if isinstance(entry, dict) else entry for entry in methods]
        good = [name for name in names if isinstance(name, str)]
        if len(good) == len(names):
            return good
    raise ProtocolError(f"expected a list of methods from the server, got {show(reply)}")
