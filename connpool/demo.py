"""A pool at work, to look at: three servers, a dozen threads, and what goes wrong between them.

Owns the story of the first scene, who serves, who calls, and what happens when; and the order of
the two (the other one is `demo_keys`).  Refuses to draw (`demo_screen` does) and to judge
(`demo_ledger` does).

The pool is used here as a program of yours would use it; `Session`, `Demo._fill` and
`Demo._caller` are all there is to it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from . import Backoff, Info, Pool, PoolError
from .adapters.text import TextConn
from .demo_keys import Keys
from .demo_ledger import Audit, Notes, Station, audit
from .demo_screen import Ending, Glance, Row, Screen, chosen_screen, table

RESOURCE = "numbers"  # what the callers ask for; they do not care which server answers
CALLERS = 12
THINK = 0.006  # mean seconds between two calls of a caller
TTL = 1.2  # seconds a conn to A may live
LOOK = 0.1  # seconds between two looks at how it goes
LATEST_KILL = 0.4  # of all the time
WINDOW = 10  # looks that "calls/s" goes back
KEYS_SECONDS = 4.0  # of the second scene


class Session(TextConn):
    """A conn of our own: as TextConn, but each call says with which key it is made."""

    def __init__(self, station: Station, key: str) -> None:
        super().__init__(*station.server.address, resource=RESOURCE)
        self.key = key

    def call(self, method: Any, payload: Any = None) -> Any:
        """Send ``:NEXT:KEY TOKEN`` and give the number; other commands go as they are."""
        return super().call(method, f"{self.key} {payload}" if method == "NEXT" else payload)


class Demo:
    """One run.  `play` is all of it; `stop`, which any thread may call, ends it early."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.seed = seed
        self.a = Station("A", ["A1", "A2", "A3"], takes=0.003, rng=self._rng("A"))
        self.b = Station("B", ["B1", "B2", "B3"], takes=0.005, rng=self._rng("B"))
        self.c = Station("C", ["C1", "C2"], takes=0.002, burst=50, rng=self._rng("C"))
        self.stations = [self.a, self.b, self.c]
        self.notes = [Notes() for _ in range(CALLERS)]
        self.news: list[tuple[float, str]] = []
        self._fate = "will not live long"
        self._over = False
        self._began = self._ended_at = 0.0
        self._lock = threading.Lock()
        self._ready: Counter[str] = Counter()  # how often a conn to a server became ready
        self._ended: Counter[tuple[str, str]] = Counter()  # and how often given up, and why
        self._history: deque[tuple[float, Counter[str]]] = deque(maxlen=WINDOW + 1)
        self._pool = Pool(
            name="demo",
            timeout=5,  # seconds that a call may wait for a conn
            backoff=Backoff(first=0.1, factor=1.5, most=0.4),  # how often to knock at a dead server
            on_connect=self._on_connect,
            on_disconnect=self._on_disconnect,
        )

    def play(self, screen: Screen) -> Ending:
        """Run it all, from the first server's start to the last thread's end."""
        with contextlib.ExitStack() as servers:
            for station in self.stations:
                servers.callback(station.kill)
                station.start()
            with self._pool:
                self._fill()
                with self._load():
                    self._follow(screen)
                screen.show(self._glance(), self.news)
        return self._ending()

    def stop(self) -> None:
        """Let every caller end the call it is in, and no more."""
        self._over = True

    # -- the pool and those who use it ---------------------------------------------------------

    def _fill(self) -> None:
        """Three conns to A, three to B, two to C: one pool, one resource.

        All of them are revived when they expire or die.
        """
        for station in self.stations:
            ttl = TTL if station is self.a else None
            for key in station.keys:
                conn = Session(station, key)
                self._pool.init(conn, extra=station.name, ttl=ttl, revive=True)

    def _caller(self, number: int) -> None:
        """What each thread does: call, note what came of it, think, call again."""
        notes, rng = self.notes[number], self._rng(f"caller {number}")
        while not self._over:
            token = f"{number}-{len(notes.asked) + 1}"
            notes.asked.append(token)
            started = time.monotonic()
            try:
                answer = self._pool.call(RESOURCE, "NEXT", token)
            except PoolError as error:
                # The pool had no conn for it in time: it was not done.
                notes.refused[token] = str(error)
            except OSError as error:
                # Its conn died with the call on it, and nobody can know whether it was done.  So
                # the pool does not try again behind our back: that is ours to decide.
                notes.in_flight[token] = str(error)
            else:
                notes.took.append(time.monotonic() - started)
                notes.answers[token] = answer
            time.sleep(rng.expovariate(1 / THINK))

    def _on_connect(self, info: Info) -> None:
        """The pool calls this each time a conn is ready, and `extra` says whose it is."""
        with self._lock:
            self._ready[info.extra] += 1

    def _on_disconnect(self, info: Info, reason: str) -> None:
        """And this each time one is given up, be it for good or to be revived."""
        with self._lock:
            self._ended[info.extra, reason] += 1

    @contextlib.contextmanager
    def _load(self) -> Iterator[None]:
        callers = [
            threading.Thread(target=self._caller, args=(n,), name=f"caller-{n}", daemon=True)
            for n in range(CALLERS)
        ]
        for thread in callers:
            thread.start()
        try:
            yield
        finally:
            self.stop()
            for thread in callers:
                thread.join()

    # -- what happens when ---------------------------------------------------------------------

    def _follow(self, screen: Screen) -> None:
        """Show how it goes and let things happen, until the time is over."""
        acts = iter(self._acts())
        due, act = next(acts)
        self._began = time.monotonic()
        self._tell(f"{CALLERS} threads call, and do not care which server answers")
        while not self._over and self._elapsed < self.seconds:
            if self._elapsed >= due * self.seconds and act():
                due, act = next(acts)
            screen.show(self._glance(), self.news)
            time.sleep(LOOK)
        self._ended_at = self._elapsed

    def _acts(self) -> Iterator[tuple[float, Callable[[], bool]]]:
        """What happens, at which part of the time; one that gives False is tried again."""
        yield 0.3, self._kill
        yield 0.45, self._look_at_the_damage
        yield 0.6, self._bring_back
        yield 0.6, self._all_revived
        yield math.inf, lambda: False

    def _kill(self) -> bool:
        # A moment when not every conn to B carries a call shows both: those that were in flight,
        # and one that finds its conn closed and moves to another.  We do not wait for it for long.
        free = self._pool.infos(RESOURCE, lambda info: info.extra == "B" and not info.in_use)
        if not free and self._elapsed < LATEST_KILL * self.seconds:
            return False
        self._tell("B is killed: its connections are cut, whatever is on them")
        self._fate = f"killed at {self._elapsed:.1f} s"
        self.b.kill()
        return True

    def _look_at_the_damage(self) -> bool:
        told, moved = self._in_flight, self._ended["B", "closed"]
        self._tell(f"calls in flight there, and told so: {told}; calls moved elsewhere: {moved}")
        return True

    def _bring_back(self) -> bool:
        try:
            self.b.start()
        except OSError:
            return False  # somebody has its port just now
        self._tell("B is back")
        self._fate = "is back"
        return True

    def _all_revived(self) -> bool:
        revived = self._ready["B"] - len(self.b.keys)
        if revived < len(self.b.keys):
            return False
        self._tell(f"B's {revived} conns are revived: the pool had kept knocking")
        self._fate = "is back, all conns revived"
        return True

    # -- how it goes ---------------------------------------------------------------------------

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    @property
    def _in_flight(self) -> int:
        return sum(len(notes.in_flight) for notes in self.notes)

    def _tell(self, text: str) -> None:
        self.news.append((self._elapsed, text))

    def _rng(self, whose: str) -> random.Random:
        return random.Random(f"{self.seed} {whose}")

    def _glance(self) -> Glance:
        elapsed, infos, stats = self._elapsed, self._pool.infos(), self._pool.stats()
        rates = self._rates(elapsed)
        kept = self.c.rests - len(self.c.early)
        remarks = {
            "A": f"conns live {TTL} s: {self._ended['A', 'expired']} renewed",
            "B": self._fate,
            "C": f"{self.c.burst} calls, then a rest: {kept} of {self.c.rests} kept",
        }
        return Glance(
            seconds=self.seconds,
            seed=self.seed,
            elapsed=elapsed,
            rows=[
                Row(
                    station.name,
                    up=station.up,
                    conns=[
                        "busy" if info.in_use else info.state
                        for info in infos
                        if info.extra == station.name
                    ],
                    rate=rates[station.name] if station.up else 0.0,
                    remark=remarks[station.name],
                )
                for station in self.stations
            ],
            answered=sum(len(notes.answers) for notes in self.notes),
            moved=stats.since_start.moved,
            revived=stats.since_start.revived,
            in_flight=self._in_flight,
            waiting=stats.now.waiting,
            took=sorted(took for notes in self.notes for took in notes.took[-100:]),
        )

    def _rates(self, elapsed: float) -> dict[str, float]:
        """Calls a second that each server does, of late."""
        now = Counter({station.name: len(station.done) for station in self.stations})
        self._history.append((elapsed, now))
        since, before = self._history[0]
        return {name: (now[name] - before[name]) / max(elapsed - since, LOOK) for name in now}

    # -- the end -------------------------------------------------------------------------------

    def _ending(self) -> Ending:
        told = next((error for notes in self.notes for error in notes.in_flight.values()), None)
        return Ending(
            elapsed=self._ended_at,
            found=self._audit(),
            pool=self._pool.stats().since_start,
            done={station.name: len(station.done) for station in self.stations},
            rests=self.c.rests,
            told=told,
            took=sorted(took for notes in self.notes for took in notes.took),
        )

    def _audit(self) -> Audit:
        found = audit(
            {station.name: station.done for station in self.stations},
            self.notes,
            counted={s.name: s.server.served.get("NEXT", 0) for s in self.stations},
            most_in_flight=len(self.b.keys),
        )
        found.early += self.c.early
        return found


def run(seconds: float = 7.0, seed: int | None = None) -> int:
    """Play both scenes on stdout; gives 0 where servers and callers agree, else 1.

    The second scene, `demo_keys`, is as long as the first, but for at most `KEYS_SECONDS`.
    Ctrl-C ends the demo early, in good order; a second one at once.  For the main thread only.
    """
    # The attempts to reach a dead server are logged; here the screen tells that story.
    logging.getLogger("connpool").addHandler(logging.NullHandler())
    scene: Demo | Keys
    scene = demo = Demo(seconds, random.SystemRandom().randrange(10_000) if seed is None else seed)
    on_time = True

    def interrupted(*_: object) -> None:
        nonlocal on_time
        signal.signal(signal.SIGINT, before)
        on_time = False
        scene.stop()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        ending = demo.play(chosen_screen(sys.stdout))
        differences = ending.found.differences
        print(*table(ending), sep="\n", flush=True)
        if on_time:
            scene = Keys(min(seconds, KEYS_SECONDS), sys.stdout)
            differences += scene.play().differences
    finally:
        signal.signal(signal.SIGINT, before)
    return 1 if differences else 0
