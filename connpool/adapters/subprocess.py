"""Conns to a program that runs for long, and answers over its stdin and stdout.

Owns the process from its start to its end.  Refuses to know of pools, and of what is said.

Invariants: a request is written at most once; a program that may still answer one for which nobody
waits any more is ended before anybody else can read that; every process is waited for.

Both conns are for Unix.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any

import anyio
import attrs

from .subprocess_client import ProgramEnded, SubprocessClient, end_of
from .subprocess_wire import Exchange, Pipes, ProtocolError

__all__ = ["AsyncSubprocessConn", "ProgramEnded", "ProtocolError", "SubprocessConn"]

STEP = 0.002  # seconds between two looks whether stderr was read to its end
LOOK = 1.0  # seconds after which a call that waits looks whether its conn was closed meanwhile


@attrs.define(eq=False)
class _Child:
    """A process, its pipes, and whether somebody has ended it."""

    process: Any
    pipes: Pipes
    over: bool = False
    owner: int = attrs.field(factory=os.getpid)

    @property
    def ours(self) -> bool:
        """Whether this process started it; in a forked child it is the parent's."""
        return self.owner == os.getpid()

    def signal(self, which: signal.Signals) -> None:
        """To the program and to what it has started; not once it was waited for."""
        if self.process.returncode is None:
            try:
                os.killpg(self.process.pid, which)
            except (ProcessLookupError, PermissionError):
                pass  # it has ended this very moment


class SubprocessConn(SubprocessClient):
    """A conn to a program that answers each request on its stdin with one reply on its stdout.

    Parameters:
        command: the program and its arguments, a list.  There is no shell.
        resource: what callers name; default: the program, without its arguments.
        framing: "lines", each message ends in a newline and has no other; or "frames", each begins
            with four bytes that count the rest of it, the highest byte first.
        methods: the names of the calls.
        encode: ``encode(method, payload)`` gives the bytes of a request; default: the payload, a
            str or bytes, or nothing at all where it is None.
        decode: ``decode(data)`` makes the reply of its bytes; default: a str.
        env: the environment of the program; default: ours.  It is never shown.
        cwd: the folder in which it is started; default: ours.
        timeout: seconds a call may take, then the program is killed; None: no limit.
        grace: seconds that the program has to end by itself, after it was asked to.
        max_size: bytes that a request or a reply may have.

    The program is asked one thing at a time.  Its stderr is read all the time, and what it said
    last is part of the errors.  It has a session of its own: a Ctrl-C in a terminal is not for it.

    >>> conn = SubprocessConn(["cat"])
    >>> conn.init()
    >>> conn.call("ask", "hello"), conn.check()
    ('hello', True)
    >>> conn.close()
    """

    _locks = threading.RLock  # under a pool nobody ever waits for it

    def init(self) -> None:
        """Start the program; one that ran before is ended first.

        Returns once it runs, whether or not it is ready; an OSError says why it cannot be started.
        """
        self.close()
        pipes = Pipes.open()
        stdin, stdout, stderr = pipes.theirs
        try:
            process = subprocess.Popen(
                self._command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        except BaseException:
            pipes.close()
            raise
        pipes.hand_over()
        self._child = _Child(process, pipes)

    def call(self, method: Any, payload: Any = None) -> Any:
        """Write one request and wait for its reply; nothing is ever written twice.

        The conn lives on after what `encode` and `decode` raise (OSError, EOFError and the errors
        of conns come as the cause of a CallError), and after what cannot be written, and was not.
        It is dead after all others: `Closed`, the program had ended before anything was written;
        `ProgramEnded`, it ended later; TimeoutError, it did not answer and was killed; and
        `ProtocolError`, it said what is no reply.  So it is where the wait is interrupted.
        """
        exchange = self._exchange(method, payload)
        with self._lock:
            child = self._idle()
            try:
                done = self._carry(child, exchange)
            except (OSError, EOFError) as error:
                code = self._end(child, waits=not isinstance(error, ProtocolError))
                raise self._broken(error, exchange, code, child.pipes.tail) from error
            except BaseException:
                self._end(child)
                raise
            if not done:
                self._end(child)
                raise self._late(method, child.pipes.tail)
        return self._reply(exchange)

    def methods(self) -> frozenset[Any]:
        """Those that were named."""
        return self._methods

    def check(self) -> bool:
        """Whether the program runs, listens, and has said nothing that nobody asked for.

        Writes nothing, and waits only for a call that runs in another thread.
        """
        with self._lock:
            child: _Child | None = self._child
            return child is not None and child.ours and not self._trouble(child)

    def reset(self) -> None:
        """Raise `Closed` unless the program can be asked by others."""
        with self._lock:
            self._idle()

    def close(self) -> None:
        """Have the program end: its stdin is closed, it gets a SIGTERM, and in the end a SIGKILL.

        Waits until it has ended; calling it again is fine.  A call in another thread is woken.
        """
        if (child := self._child) is None:
            return
        child.over = True
        if not self._lock.acquire(blocking=False):
            child.signal(signal.SIGKILL)  # a call in another thread must be out before it closes
            self._lock.acquire()
        try:
            if self._child is child:
                self._end(child, polite=True)
        finally:
            self._lock.release()

    @staticmethod
    def _trouble(child: _Child) -> str:
        return "it had ended" if child.process.poll() is not None else child.pipes.trouble()

    def _idle(self) -> _Child:
        """The program, running and silent; else the error of a call that surely did not happen."""
        child: _Child | None = self._child
        if child is None:
            raise self._unfit("it is not running")
        if not child.ours:
            raise self._unfit("it is the parent's of this process")
        if not (trouble := self._trouble(child)):
            return child
        code = self._end(child, waits=True)
        raise self._unfit(trouble, end_of(code, child.pipes.tail))

    def _carry(self, child: _Child, exchange: Exchange) -> bool:
        """Do it; False: it is too late."""
        due = None if self.timeout is None else time.monotonic() + self.timeout
        while not exchange.over:
            exchange.push(child.pipes)
            if exchange.pull(child.pipes):
                continue
            if child.over:
                raise EOFError("the conn was closed")
            left = LOOK if due is None else due - time.monotonic()
            if left <= 0:
                return False
            child.pipes.wait(exchange.sending, min(left, LOOK))
        return True

    def _end(self, child: _Child, *, waits: bool = False, polite: bool = False) -> int | None:
        """End the program, and give its exit code, or None where it had to be ended.

        `waits`: it is about to end by itself; `polite`: it is asked to.
        """
        if self._child is child:
            self._child = None
        child.pipes.hang_up()
        if not child.ours:
            child.pipes.close()
            return None
        if polite:
            child.signal(signal.SIGTERM)
        code: int | None = None
        try:
            code = child.process.wait(self.grace if waits or polite else 0)
        except subprocess.TimeoutExpired:
            pass
        finally:
            child.signal(signal.SIGKILL)
            child.process.wait()
            if waits:
                child.pipes.tail.wait(self.grace)
            child.pipes.close()
        return code


class AsyncSubprocessConn(SubprocessClient):
    """The same for an `AsyncPool`, on asyncio and trio, with the parameters of `SubprocessConn`.

    >>> async def main():
    ...     conn = AsyncSubprocessConn(["cat"])
    ...     await conn.init()
    ...     reply = await conn.call("ask", "hello")
    ...     await conn.close()
    ...     return reply
    >>> anyio.run(main)
    'hello'
    """

    _locks = anyio.Lock
    _running: tuple[_Child, anyio.CancelScope] | None = None  # the call that waits

    async def init(self) -> None:
        """As `SubprocessConn.init`."""
        await self.close()
        pipes = Pipes.open()
        stdin, stdout, stderr = pipes.theirs
        try:
            process = await anyio.open_process(
                self._command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        except BaseException:
            pipes.close()
            raise
        pipes.hand_over()
        await self.close()  # what another task started meanwhile
        self._child = _Child(process, pipes)

    async def call(self, method: Any, payload: Any = None) -> Any:
        """As `SubprocessConn.call`.

        A call that is cancelled once it has begun to write may have been carried out.  Its program
        is killed, and waited for, before the cancellation goes on.
        """
        exchange = self._exchange(method, payload)
        async with self._lock:
            child = await self._idle()
            try:
                with anyio.move_on_after(self.timeout) as scope:
                    self._running = child, scope
                    await self._carry(child, exchange)
                if child.over:  # who closes leaves it to us
                    if not exchange.over:
                        raise EOFError("the conn was closed")
                    await self._end(child)
            except (OSError, EOFError) as error:
                code = await self._end(child, waits=not isinstance(error, ProtocolError))
                raise self._broken(error, exchange, code, child.pipes.tail) from error
            except BaseException:
                await self._end(child)
                raise
            finally:
                self._running = None
            if not exchange.over:
                await self._end(child)
                raise self._late(method, child.pipes.tail)
        return self._reply(exchange)

    async def methods(self) -> frozenset[Any]:
        """Those that were named."""
        return self._methods

    async def check(self) -> bool:
        """As `SubprocessConn.check`."""
        async with self._lock:
            return self._child is not None and not self._trouble(self._child)

    async def reset(self) -> None:
        """As `SubprocessConn.reset`."""
        async with self._lock:
            await self._idle()

    async def close(self) -> None:
        """As `SubprocessConn.close`; where it is cancelled, the program is killed at once."""
        child: _Child | None = self._child
        if child is None:
            return
        child.over = True
        if self._running is not None and self._running[0] is child:
            # A call waits for these pipes; it ends the program on its way out.
            child.signal(signal.SIGKILL)
            self._running[1].cancel()
        else:
            await self._end(child, polite=True)

    @staticmethod
    def _trouble(child: _Child) -> str:
        return "it had ended" if child.process.returncode is not None else child.pipes.trouble()

    async def _idle(self) -> _Child:
        child: _Child | None = self._child
        if child is None:
            raise self._unfit("it is not running")
        if not (trouble := self._trouble(child)):
            return child
        code = await self._end(child, waits=True)
        raise self._unfit(trouble, end_of(code, child.pipes.tail))

    @staticmethod
    async def _carry(child: _Child, exchange: Exchange) -> None:
        while not exchange.over:
            exchange.push(child.pipes)
            if not exchange.pull(child.pipes):
                await _ready(child.pipes, exchange.sending)

    async def _end(self, child: _Child, *, waits: bool = False, polite: bool = False) -> int | None:
        """As that of `SubprocessConn`; where it is cancelled, the program is killed at once."""
        if self._child is child:
            self._child = None
        child.pipes.hang_up()
        if polite:
            child.signal(signal.SIGTERM)
        code: int | None = None
        try:
            if waits or polite:
                with anyio.move_on_after(self.grace):
                    code = await child.process.wait()
        finally:
            child.signal(signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await child.process.wait()
                if waits:
                    await self._last_words(child)
                child.pipes.close()
        return code

    async def _last_words(self, child: _Child) -> None:
        with anyio.move_on_after(self.grace):
            while child.pipes.tail.reading:
                await anyio.sleep(STEP)


async def _ready(pipes: Pipes, sending: bool) -> None:
    """Until there is something to be read, or while `sending` to be written."""
    if not sending:
        await anyio.wait_readable(pipes.out)
        return

    async def one(wait: Any, number: int) -> None:
        await wait(number)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, anyio.wait_readable, pipes.out)
        tasks.start_soon(one, anyio.wait_writable, pipes.into)
