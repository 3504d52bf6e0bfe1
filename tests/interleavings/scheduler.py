"""A scheduler that decides for threads: exactly one runs at a time, and a seed says which.

Owns the turns, a time of its own, and the locks, conditions and threads that know of it.  Refuses
to know what the threads do.

A thread can lose its turn at a switch point only: where it takes or leaves a lock, begins or ends
a wait, says so itself, and, where that is wanted, at the lines of the files that are traced.  Time
stands still while anybody can run, but for small leaps by chance, and jumps to the next timeout
when nobody can.  So one seed is one interleaving, a deadlock is seen at once, and nothing depends
on the machine.

Invariant: whoever runs holds the turn, and hands it to one other before it waits or ends.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Waits longer than this are for ever.
EVER = 1e8
# Who waits is told a little late, as ever; on the dot, a wait may round to none at all.
LATE = 1e-9
# Switch points after which a run goes round in circles.
MOST = 100_000
# Steps that a failure shows.
SHOWN = 60
# Real seconds; they only end a hang of the scheduler itself.
PATIENCE = 60.0


class Stuck(AssertionError):
    """Nobody can go on, or everybody goes on for ever."""


class Wait:
    """What a thread waits for."""

    __slots__ = ("deadline", "interruptible", "ready", "what")

    def __init__(
        self, what: str, ready: Callable[[], Any], deadline: float, interruptible: bool
    ) -> None:
        self.what = what
        self.ready = ready
        self.deadline = deadline
        self.interruptible = interruptible


class Thread(threading.Thread):
    """A real thread that runs when it is its turn."""

    scheduler: Scheduler

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        *,
        daemon: bool = True,
    ) -> None:
        self.number = self.scheduler.enrol(self)
        super().__init__(name=name, daemon=True)
        self._work = target, args
        self._gate = allocate_lock()
        self._gate.acquire()
        self.waits: Wait | None = None
        self.interrupted = False
        self.interruptible = False
        self.over = False
        self.error: BaseException | None = None
        self.rank = self.scheduler.chance.random()

    def __hash__(self) -> int:
        return hash(self.number)  # by its address, and sets would be in another order each time

    def __eq__(self, other: object) -> bool:
        return self is other

    def start(self) -> None:
        self.scheduler.begin(self)
        super().start()
        self.scheduler.switch("start", self.name)

    def run(self) -> None:
        self._gate.acquire()
        self.scheduler.resumed()
        target, args = self._work
        try:
            sys.settrace(self.scheduler.tracer)
            if target is not None:
                target(*args)
        except BaseException as error:
            self.error = error
            if self.number == 1:
                self.scheduler.fail(error)  # it tells the story: without it, this one has no end
                return
        finally:
            sys.settrace(None)
            del self._work, target, args
        self.scheduler.end(self)

    def join(self, timeout: float | None = None) -> None:
        self.scheduler.wait(f"join {self.name}", lambda: self.over, timeout)

    def go(self) -> None:
        """It is its turn."""
        self._gate.release()

    def stop(self) -> None:
        """Until it is its turn again."""
        self._gate.acquire()

    def bury(self) -> None:
        """Wait until it is gone for real."""
        super().join(PATIENCE)


class Lock:
    """`_thread.lock`, as far as the pools use it."""

    scheduler: Scheduler

    def __init__(self) -> None:
        self._locked = False
        self.owner = ""
        self.on_release: Callable[[], Any] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self.scheduler
        scheduler.switch("acquire", self)
        if self._locked:
            if not blocking:
                return False
            limit = None if timeout < 0 else timeout
            late = scheduler.wait(f"lock {self!r}", self._free, limit, timeout >= 0)
            # Who is let go in the moment in which his time is over may learn of either.
            if self._locked or (late and scheduler.chance.random() < 0.5):
                return False
        self._locked = True
        self.owner = threading.current_thread().name
        return True

    def release(self) -> None:
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        self._locked = False
        if self.on_release is not None:
            self.on_release()
        self.scheduler.switch("release", self)

    def locked(self) -> bool:
        return self._locked

    def _free(self) -> bool:
        return not self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"of {self.owner}" if self._locked else "free"


class Condition:
    """`threading.Condition`, as far as the crew uses it."""

    scheduler: Scheduler

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._waiters: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        told = [False]
        self._waiters.append(told)
        self._lock.release()
        try:
            self.scheduler.wait("condition", lambda: told[0], timeout, True)
        finally:
            if told in self._waiters:
                self._waiters.remove(told)
            self._lock.acquire()
        return told[0]

    def wait_for(self, true: Callable[[], Any], timeout: float | None = None) -> Any:
        due = None if timeout is None else self.scheduler.now + timeout
        while not (result := true()):
            left = None if due is None else due - self.scheduler.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, count: int = 1) -> None:
        for told in self._waiters[:count]:
            told[0] = True
        del self._waiters[:count]

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class Scheduler:
    """One run: who goes on is chosen by `seed`.

    `lines` is the chance of a switch at each line of a file in `traced`; `interrupts` that of a
    KeyboardInterrupt, each time a turn is given, for one that waits and may be interrupted;
    `leaps` that of time going on a little.
    """

    def __init__(
        self,
        seed: int,
        *,
        lines: float = 0.0,
        traced: Collection[str] = (),
        interrupts: float = 0.0,
        leaps: float = 0.02,
    ) -> None:
        self.chance = random.Random(f"schedule {seed}")
        self.now = 1000.0
        self.trace: list[tuple[float, str, str, Any]] = []
        self.threads: list[Thread] = []
        self.failure: BaseException | None = None
        self.on_idle: Callable[[Thread], Any] | None = None  # before time jumps, for all that wait
        self.interrupts = interrupts
        self._lines = lines
        self._traced = frozenset(traced)
        self.leaps = leaps
        self._living: list[Thread] = []
        self._buried: Thread | None = None
        self._hushed = False
        self._done = allocate_lock()
        self._done.acquire()
        self._limit = self.now + 10_000.0
        self._choose = self.chance.choice([self._any, self._same, self._ranked])
        self.tracer = self._trace_call if lines else None
        self.Lock = type("Lock", (Lock,), {"scheduler": self})
        self.Condition = type("Condition", (Condition,), {"scheduler": self})
        self.Thread = type("Thread", (Thread,), {"scheduler": self})

    # -- a run -----------------------------------------------------------------------------------

    def run(self, story: Callable[[], Any]) -> None:
        """Tell the story in a thread of its own, to the end of all threads."""
        collects = gc.isenabled()
        gc.disable()  # it would run finalisers at an instant that no seed decides
        try:
            teller: Thread = self.Thread(target=story, name="teller")
            self.begin(teller)
            threading.Thread.start(teller)
            teller.go()
            if not self._done.acquire(True, PATIENCE):
                raise Stuck(f"the scheduler hangs\n{self.story()}")
        finally:
            if collects:
                gc.enable()
        for thread in self.threads:
            if self.failure is None and thread.error is not None:
                self.failure = thread.error
        if self.failure is not None:
            self.failure.add_note(self.story())
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """The run is over: nobody goes on."""
        if self.failure is None:
            self.failure = error
            self._done.release()

    def story(self) -> str:
        """The last steps, and where everybody is."""
        lines = [f"  {at:.4f} {name}: {what} {of}" for at, name, what, of in self.trace[-SHOWN:]]
        for thread in self._living:
            waits = thread.waits
            where = "can go on"
            if waits is not None:
                where = f"waits for {waits.what} until {waits.deadline:g}"
            lines.append(f"  {thread.name} {where} {_where(thread)}")
        return "\n".join(["the last steps:", *lines])

    @contextmanager
    def hush(self) -> Iterator[None]:
        """No switch point in here."""
        before, self._hushed = self._hushed, True
        try:
            yield
        finally:
            self._hushed = before

    def check(self, true: Callable[[], Any]) -> None:
        """Something that must hold at every time; where it raises, the run is over."""
        try:
            with self.hush():
                true()
        except BaseException as error:
            me = threading.current_thread()
            if not isinstance(me, Thread):
                raise
            self._give_up(me, error)

    # -- switch points ---------------------------------------------------------------------------

    def switch(self, what: str, of: Any = "") -> None:
        """Here another one may go on."""
        me = threading.current_thread()
        if self._hushed or not isinstance(me, Thread) or me.scheduler is not self:
            return
        self._note(me, what, of)
        if self.chance.random() < self.leaps:
            self.now += self.chance.choice([0.0005, 0.01, 0.3])
        self._hand_on(me)

    def wait(
        self,
        what: str,
        ready: Callable[[], Any],
        timeout: float | None = None,
        interruptible: bool = False,
    ) -> bool:
        """Wait until it is ready; whether the time was over when it was this one's turn."""
        me = threading.current_thread()
        assert isinstance(me, Thread)
        assert not self._hushed
        ever = timeout is None or timeout > EVER
        deadline = float("inf") if timeout is None or ever else self.now + timeout + LATE
        me.waits = Wait(what, ready, deadline, interruptible and me.interruptible)
        self._note(me, "wait for", what)
        self._hand_on(me)
        me.waits = None
        if me.interrupted:
            me.interrupted = False
            self._note(me, "is interrupted in", what)
            raise KeyboardInterrupt
        return self.now >= deadline

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.wait("time", lambda: False, seconds, True)

    def _note(self, me: Thread, what: str, of: Any) -> None:
        self.trace.append((self.now, me.name, what, str(of)))
        if len(self.trace) > MOST or self.now > self._limit:
            self._give_up(me, Stuck("everybody goes round in circles"))

    def _give_up(self, me: Thread, error: BaseException) -> None:
        self.fail(error)
        me.stop()  # for ever: what it would do now nobody wants to see

    # -- turns -----------------------------------------------------------------------------------

    def enrol(self, thread: Thread) -> int:
        """Its number."""
        self.threads.append(thread)
        return len(self.threads)

    def begin(self, thread: Thread) -> None:
        """From now on it can go on."""
        self._living.append(thread)

    def end(self, thread: Thread) -> None:
        """It will do no more, but for handing its turn on."""
        thread.over = True
        self._living.remove(thread)
        self._buried = thread
        if not self._living:
            if self.failure is None:
                self._done.release()
            return
        try:
            self._next().go()
        except BaseException as error:
            self.fail(error)

    def resumed(self) -> None:
        """Before a thread goes on, one that has ended is gone for real."""
        ended, self._buried = self._buried, None
        if ended is not None:
            ended.bury()

    def _hand_on(self, me: Thread) -> None:
        try:
            chosen = self._next()
        except BaseException as error:
            self._give_up(me, error)
            return
        if chosen is not me:
            chosen.go()
            me.stop()
            self.resumed()

    def _next(self) -> Thread:
        if self.interrupts and self.chance.random() < self.interrupts:
            victims = [each for each in self._living if each.waits and each.waits.interruptible]
            if victims:
                victim = self.chance.choice(victims)
                victim.interrupted = True
                return victim
        able = [each for each in self._living if self._can_go_on(each)]
        while not able:
            self._jump()
            able = [each for each in self._living if self._can_go_on(each)]
        return self._choose(able)

    def _can_go_on(self, thread: Thread) -> bool:
        waits = thread.waits
        return waits is None or self.now >= waits.deadline or bool(waits.ready())

    def _jump(self) -> None:
        """Nobody can go on before some time has passed."""
        due = min(thread.waits.deadline for thread in self._living if thread.waits)
        if self.on_idle is not None:
            with self.hush():
                for thread in self._living:
                    self.on_idle(thread)
        if due == float("inf"):
            raise Stuck("a deadlock: everybody waits")
        self.now = max(self.now, due)

    # -- who goes on -----------------------------------------------------------------------------

    def _any(self, able: list[Thread]) -> Thread:
        return self.chance.choice(able)

    def _same(self, able: list[Thread]) -> Thread:
        """Mostly the one that runs."""
        me = threading.current_thread()
        if me in able and self.chance.random() < 0.85:
            assert isinstance(me, Thread)
            return me
        return self.chance.choice(able)

    def _ranked(self, able: list[Thread]) -> Thread:
        """The one that is worth most; now and then that changes."""
        first = max(able, key=lambda thread: thread.rank)
        if self.chance.random() < 0.03:
            first.rank = self.chance.random() - 1
        return first

    # -- lines -----------------------------------------------------------------------------------

    def _trace_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._traced else None

    def _trace_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and not self._hushed and self.chance.random() < self._lines:
            name = frame.f_code.co_filename.rpartition("/")[2]
            self.switch("line", f"{name}:{frame.f_lineno}")
        return self._trace_line


def _where(thread: Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    found = []
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.endswith(("/scheduler.py", "/threading.py")):
            found.append(f"{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return f"({' < '.join(found[:6])})"
