"""The conn over a gRPC channel in tasks: `grpc` with tasks for threads.

Owns a channel from `init` to `close`, and the task that watches it.  Refuses to know of pools; what
methods and errors mean is in `grpc_rules`, and what can be said without waiting in `grpc_client`.

Invariant: a call is begun at most once, and only on a connection that was there.  `Closed` says
that it was not begun, `Busy` that the server refused it; where it may have been carried out the
caller gets another error.

The library waits through asyncio and nothing else, so on trio `init` refuses at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import Any

import grpc

from ..errors import Closed, InitError
from .grpc_client import HEALTH, NOTICE, SIGN_OF_LIFE, WHY, GrpcClient, State
from .grpc_rules import UNTOLD, Code, Route, lost, silent

GRACE = 1.0  # seconds for the library to come to an end; it takes a moment

logger = logging.getLogger("connpool")


class AsyncGrpcConn(GrpcClient):
    """A conn over a channel of ``grpc.aio``, for `AsyncPool` on asyncio.

    Parameters, payloads and replies are those of `GrpcConn`; the payload of a method with a stream
    of requests may be an async iterable too, and interceptors are those of ``grpc.aio``.

    The conn itself retries nothing, and has the library retry nothing.  A cancelled call is
    cancelled on the server too, and leaves the conn as it is.

    >>> AsyncGrpcConn("127.0.0.1:50051", methods={"hello": "/helloworld.Greeter/SayHello"})
    <AsyncGrpcConn '127.0.0.1:50051'>
    """

    #: Called with the error when a connection is found to be gone, once for each; or None.
    on_lost: Callable[..., object] | None = None

    _watch: _Watch | None = None
    _tasks: set[asyncio.Task[Any]]

    async def init(self) -> None:
        """Connect, and wait until that is done.  A channel that was there is closed first.

        ConnectionError says why it failed, as far as the library knows; TimeoutError that it took
        too long.  Where asyncio does not run, `InitError` says that this can never be.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InitError(f"{self!r}: it needs asyncio", retry_after=math.inf) from None
        await self.close()
        self._tasks = set()
        more = {"options": self._options, "interceptors": self._interceptors}
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(self.target, **more)
        else:
            channel = grpc.aio.secure_channel(self.target, self._credentials, **more)
        watch = _Watch(channel, self._tell_lost)
        try:
            await self._connect(channel, watch)
            self._settle(channel, channel)
        except BaseException:
            await watch.close()
            raise
        self._watch = watch

    async def call(self, method: Any, payload: Any = None) -> Any:
        """Call a method of the server, and wait for its reply or for all of its replies.

        The connection lives on after an RpcError of the library (a status of the server, or a
        deadline that is over although the server lives), `Busy` (RESOURCE_EXHAUSTED, with the time
        to wait), `CallError` (no such method) and TypeError (what cannot be sent).  It is gone
        after `Closed` (the call was not begun), `ReplyLost` (it may have been carried out) and
        TimeoutError (the deadline is over, and the server gave no sign of life).
        """
        channel, route, options = self._begin(method)
        request = route.request(payload, streams=(Iterable, AsyncIterable))
        replies: list[Any] = []
        started = time.monotonic()
        try:
            reply = await self._carry(route, request, options, replies)
        except grpc.RpcError as error:
            # What it went through in the library would keep the call alive, and that keeps the
            # connection open: a failure may be remembered for long.
            error.__traceback__ = None
            once = bool(replies) or not route.repeats(payload)
            meaning = await self._meaning(error, method, channel, started, once=once)
            try:
                raise meaning from (None if meaning is error else error)
            finally:
                del meaning  # its traceback holds this frame, and would hold itself through it
        except grpc.aio.UsageError as error:
            if self._channel is channel:
                raise
            raise Closed(f"{self!r} was closed, nothing was sent") from error
        except asyncio.CancelledError as error:
            error.__traceback__ = None
            task = asyncio.current_task()
            if self._channel is channel or task is None or task.cancelling():
                raise
            raise self._closed_under(method) from None
        self._hear()
        return reply

    async def methods(self) -> list[str]:
        """The methods of the stub, and those that were described; never waits."""
        return self._names()

    async def check(self) -> bool:
        """Whether the channel is connected and, within `check_timeout`, the server gives a sign of
        life: whatever it answers to gRPC's question for its health."""
        if self._state() is not State.READY:
            return False
        limit = self.check_timeout
        return limit is None or await self._lives(self._channel, limit)

    async def lend(self) -> Any:
        """What a checkout hands over: the stub, or the channel where there is none."""
        return self._lent()

    async def close(self) -> None:
        """Close the channel; calling it again is fine.  Calls in other tasks are cancelled."""
        self._take_down()
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=GRACE)

    # -- a call --------------------------------------------------------------------------------

    async def _carry(self, route: Route, request: Any, options: Any, replies: list[Any]) -> Any:
        call = route.call(request, **options)
        if not route.many_replies:
            return await self._apart(call, _reply(call))
        await self._apart(call, self._collect(call, replies))
        return replies

    async def _apart(self, call: Any, work: Coroutine[Any, Any, Any]) -> Any:
        """Await a call of the library in a task of its own, and cancel it where ours is cancelled.

        Awaited in our task, the library would take a cancellation for itself and raise another one
        in its place, in which those who sent the first do not know it again.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        finally:
            if not task.done():
                call.cancel()
            del task  # its error's traceback holds this frame, which would hold the error in turn

    async def _collect(self, call: Any, replies: list[Any]) -> None:
        async for reply in call:
            replies.append(reply)
            self._hear()

    async def _meaning(
        self, error: Any, method: str, channel: Any, started: float, *, once: bool
    ) -> Exception:
        meaning = self._plain(error, method, channel, once=once)
        if meaning is not None:
            return meaning
        if error.code() is not Code.DEADLINE_EXCEEDED:
            return lost(error, self, method) if await self._left(channel, error) else error
        if self._heard > started or await self._lives(channel, SIGN_OF_LIFE):
            return error  # type: ignore[no-any-return]  # it is an RpcError
        return silent(self, method, self._limit(method))

    async def _left(self, channel: Any, error: Any) -> bool:
        """Whether a channel is not connected any more, or notices that in a moment."""
        if (watch := self._watch) is not None and error.code() in UNTOLD:
            try:
                async with asyncio.timeout(NOTICE):
                    await watch.left.wait()
            except TimeoutError:
                pass
        return self._channel is not channel or self._state() is not State.READY

    async def _lives(self, channel: Any, limit: float) -> bool:
        """Whether the server says anything at all."""
        try:
            call = channel.unary_unary(HEALTH)(b"", timeout=limit, metadata=self._sent_along())
            await self._apart(call, _reply(call))
        except grpc.RpcError as error:
            if error.code() in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
                return False
        except grpc.aio.UsageError:
            return False  # it was closed meanwhile
        self._hear()
        return True

    # -- the channel ---------------------------------------------------------------------------

    async def _connect(self, channel: Any, watch: _Watch) -> None:
        await asyncio.wait([watch.first], timeout=self.connect_timeout)
        if not watch.first.done():
            raise self._too_late()
        if watch.first.result() is not State.READY:
            raise self._unreachable(await self._why(channel))

    async def _why(self, channel: Any) -> str:
        """What the library says of a channel that cannot connect: it tells only a call."""
        try:
            call = channel.unary_unary(WHY)(b"", timeout=NOTICE)
            await self._apart(call, _reply(call))
        except grpc.RpcError as error:
            return str(error.details())
        return "it could not connect"

    def _state(self) -> Any:
        return State.SHUTDOWN if self._channel is None else self._channel.get_state()

    def _tell_lost(self, channel: Any) -> None:
        if self._channel is channel and (on_lost := self.on_lost) is not None:
            try:
                on_lost(ConnectionError(f"{self!r}: its connection is gone"))
            except Exception:
                logger.exception("%r: on_lost failed", self)


class _Watch:
    """Follows the state of a channel, from its beginning to its end.

    `first` is what its attempt to connect came to, `left` is set when it is not connected any more;
    `lost` is called then.
    """

    def __init__(self, channel: Any, lost: Callable[[Any], object]) -> None:
        self.first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.left = asyncio.Event()
        self._channel = channel
        self._lost = lost
        self._task = asyncio.create_task(self._follow(), name="connpool-grpc-watch")

    async def _follow(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        while state is not State.SHUTDOWN:
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state()
            if state in (State.READY, State.TRANSIENT_FAILURE) and not self.first.done():
                self.first.set_result(state)
            elif self.first.done() and not self.left.is_set():
                self.left.set()
                self._lost(self._channel)

    async def close(self) -> None:
        """Close the channel, and wait until the library has told all that it has to tell.

        Whatever came later it would tell to the next loop that runs, and fail.
        """
        await self._channel.close()
        await asyncio.wait([self._task], timeout=GRACE)


async def _reply(call: Any) -> Any:
    return await call
