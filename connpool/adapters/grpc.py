"""Conns over gRPC channels: `GrpcConn` for threads, and its twin for tasks on asyncio.

Owns a channel from `init` to `close`.  Refuses to know of pools; what methods and errors mean is in
`grpc_rules`, and what can be said without waiting in `grpc_client`.

Invariant: a call is begun at most once, and only on a connection that was there.  `Closed` says
that it was not begun, `Busy` that the server refused it; where it may have been carried out the
caller gets another error.
"""

from __future__ import annotations

import time
from typing import Any

import grpc

from ..errors import Closed
from .grpc_async import AsyncGrpcConn
from .grpc_client import HEALTH, NOTICE, SIGN_OF_LIFE, WHY, GrpcClient, State
from .grpc_rules import UNTOLD, Code, Method, ReplyLost, Route, lost, silent

__all__ = ["AsyncGrpcConn", "GrpcConn", "Method", "ReplyLost"]

_STATES = {state.value[0]: state for state in State}

# Seconds for which the library may be waited for at once: a close has to wait as long.
TURN = 0.1


class GrpcConn(GrpcClient):
    """A conn over a gRPC channel, which is one connection and carries many calls at once.

    ``pool.call(resource, "SayHello", HelloRequest(name="Ada"))``: a payload is the request, a reply
    the reply.  Of a method with a stream of requests the payload is an iterable of them; of one
    with a stream of replies the reply is the list of them all, for a call is over when it returns.
    Streams to be read as they come are for a shared checkout, which hands over the stub (or the
    channel, where there is no stub).

    Parameters:
        target: the server, as gRPC names it: ``host:port``, ``dns:///name:port``, ``unix:path``.
        stub: a class of generated code; the methods of the conn are its methods.
        methods: names of methods, each with its path or a `Method`; besides a stub, or in its
            place.
        resource: what callers name; default: the target.
        capacity: how many calls it carries at once.
        credentials: channel credentials; None: no TLS.
        metadata: goes with each call: a mapping or pairs, or a function that is called for them
            each time.  Never shown.
        call_timeout: seconds that a call may take, its deadline; None: no limit.
        timeouts: the same for single methods, by name.
        connect_timeout: seconds that `init` may take.
        check_timeout: seconds for a sign of life that `check` asks the server for; None: `check`
            only looks whether the channel is connected.
        interceptors: of the library.
        options: of the channel, a mapping or pairs; they replace those that the adapter sets.

    The conn itself retries nothing, and has the library retry nothing: neither calls nor, once its
    connection is gone, to connect.  A call that is interrupted is cancelled, on the server too, and
    leaves the conn as it is.

    >>> GrpcConn("127.0.0.1:50051", methods={"hello": "/helloworld.Greeter/SayHello"})
    <GrpcConn '127.0.0.1:50051'>
    """

    def init(self) -> None:
        """Connect, and wait until that is done.  A channel that was there is closed first.

        ConnectionError says why it failed, as far as the library knows; TimeoutError that it took
        too long.
        """
        self.close()
        if self._credentials is None:
            base = grpc.insecure_channel(self.target, options=self._options)
        else:
            base = grpc.secure_channel(self.target, self._credentials, options=self._options)
        try:
            self._connect(base)
            channel = grpc.intercept_channel(base, *self._interceptors)
            self._settle(channel, base)
        except BaseException:
            base.close()
            raise

    def call(self, method: Any, payload: Any = None) -> Any:
        """Call a method of the server, and wait for its reply or for all of its replies.

        The connection lives on after an RpcError of the library (a status of the server, or a
        deadline that is over although the server lives), `Busy` (RESOURCE_EXHAUSTED, with the time
        to wait), `CallError` (no such method) and TypeError (what cannot be sent).  It is gone
        after `Closed` (the call was not begun), `ReplyLost` (it may have been carried out) and
        TimeoutError (the deadline is over, and the server gave no sign of life).
        """
        channel, route, options = self._begin(method)
        request = route.request(payload)
        replies: list[Any] = []
        started = time.monotonic()
        try:
            reply = self._carry(route, request, options, replies)
        except grpc.RpcError as error:
            # What it went through in the library would keep the call alive, and that keeps the
            # connection open: a failure may be remembered for long.
            error.__traceback__ = None
            once = bool(replies) or not route.repeats(payload)
            meaning = self._meaning(error, method, channel, started, once=once)
            try:
                raise meaning from (None if meaning is error else error)
            finally:
                del meaning  # its traceback holds this frame, and would hold itself through it
        except ValueError as error:
            if self._channel is channel:
                raise
            raise Closed(f"{self!r} was closed, nothing was sent") from error
        except BaseException as error:
            if not isinstance(error, Exception):  # interrupted: a call ends when it is let go
                error.__traceback__ = None
            raise
        self._hear()
        return reply

    def methods(self) -> list[str]:
        """The methods of the stub, and those that were described; never waits."""
        return self._names()

    def check(self) -> bool:
        """Whether the channel is connected and, within `check_timeout`, the server gives a sign of
        life: whatever it answers to gRPC's question for its health."""
        if self._state() is not State.READY:
            return False
        limit = self.check_timeout
        return limit is None or self._lives(self._channel, limit)

    def lend(self) -> Any:
        """What a checkout hands over: the stub, or the channel where there is none."""
        return self._lent()

    def close(self) -> None:
        """Close the channel; calling it again is fine.  Calls in other threads are cancelled."""
        if (channel := self._take_down()) is not None:
            channel.close()

    # -- a call --------------------------------------------------------------------------------

    def _carry(self, route: Route, request: Any, options: Any, replies: list[Any]) -> Any:
        if not route.many_requests and not route.many_replies:
            return route.call(request, **options)
        begin = route.call if route.many_replies else route.call.future
        call = begin(request, **options)
        try:
            if not route.many_replies:
                return call.result()
            for reply in call:
                replies.append(reply)
                self._hear()
            return replies
        except BaseException:
            call.cancel()
            raise

    def _meaning(
        self, error: Any, method: str, channel: Any, started: float, *, once: bool
    ) -> Exception:
        meaning = self._plain(error, method, channel, once=once)
        if meaning is not None:
            return meaning
        if error.code() is not Code.DEADLINE_EXCEEDED:
            return lost(error, self, method) if self._left(channel, error) else error
        if self._heard > started or self._lives(channel, SIGN_OF_LIFE):
            return error  # type: ignore[no-any-return]  # it is an RpcError
        return silent(self, method, self._limit(method))

    def _left(self, channel: Any, error: Any) -> bool:
        """Whether a channel is not connected any more, or notices that in a moment."""
        if error.code() in UNTOLD:
            try:
                _below(channel).watch_connectivity_state(State.READY.value[0], time.time() + NOTICE)
            except ValueError:
                return True  # it was closed meanwhile
        return self._state() is not State.READY

    def _lives(self, channel: Any, limit: float) -> bool:
        """Whether the server says anything at all."""
        try:
            options = {"timeout": limit, "metadata": self._sent_along()}
            channel.unary_unary(HEALTH)(b"", **options)
        except grpc.RpcError as error:
            if error.code() in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
                return False
        except ValueError:
            return False  # it was closed meanwhile
        self._hear()
        return True

    # -- the channel ---------------------------------------------------------------------------

    def _connect(self, channel: Any) -> None:
        due = time.monotonic() + self.connect_timeout
        below = _below(channel)
        while (state := _STATES[below.check_connectivity_state(True)]) is not State.READY:
            if state is State.TRANSIENT_FAILURE:
                raise self._unreachable(self._why(channel))
            if (left := due - time.monotonic()) <= 0:
                raise self._too_late()
            below.watch_connectivity_state(state.value[0], time.time() + min(left, TURN))

    def _why(self, channel: Any) -> str:
        """What the library says of a channel that cannot connect: it tells only a call."""
        try:
            channel.unary_unary(WHY)(b"", timeout=TURN)
        except grpc.RpcError as error:
            return str(error.details())
        return "it could not connect"

    def _state(self) -> Any:
        if (channel := self._channel) is None:
            return State.SHUTDOWN
        try:
            return _STATES[_below(channel).check_connectivity_state(False)]
        except ValueError:
            return State.SHUTDOWN  # it was closed meanwhile


def _below(channel: Any) -> Any:
    """The channel of the core beneath that of the library.

    The library tells its state only to those who subscribe to it, for each of whom a thread asks
    five times a second, and may find the channel closed: an error that nobody can catch.
    """
    return channel._channel
