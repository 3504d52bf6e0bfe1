"""Programs in a pool that are killed, stopped and left while they work."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from connpool import Backoff
from connpool.adapters.subprocess import ProgramEnded

from . import PATIENCE, eventually
from .subprocess_ways import WAYS, Way, ended, gone, program

# Notes each number that it is given, and gives it back; as often as not some time later.
NOTES = r"""
while read -r how number; do
    printf '%s\n' "$number" >> "$NOTES"
    case $how in
        plain) printf '%s\n' "$number" ;;
        slow) sleep 0.01; printf '%s\n' "$number" ;;
        half) printf '%s' "$number"; sleep 0.01; printf '\n' ;;
        hang) exec sleep 600 ;;
        cut) printf '%s' "$number"; exec sleep 600 ;;
        leave) exit 3 ;;
    esac
done
"""

SIZE = 3
ROUNDS = 25


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with Way(request.param) as way:
        yield way


class Bench:
    """A pool of programs, and the books of what their callers were told."""

    def __init__(self, way: Way, pool: Any, notes: Path) -> None:
        self.way, self.pool, self.notes = way, pool, notes
        self.asked = 0
        self.pids: set[int] = set()
        self.timeout = PATIENCE  # of conns to be made
        self.outcomes: Counter[str] = Counter()
        way.do(self._supply)
        way.do(pool.wait_ready)

    def _supply(self) -> Any:
        return self.pool.supply("notes", self._make, min_size=SIZE, max_size=SIZE)

    def _make(self) -> Any:
        env = {**os.environ, "NOTES": str(self.notes)}
        return self.way.kind(program(NOTES), resource="notes", env=env, timeout=self.timeout)

    def conns(self) -> list[Any]:
        """Those that are in the pool now."""
        return [info.conn for info in self.way.do(self.pool.infos, "notes")]

    def processes(self) -> list[int]:
        """Those that run now."""
        pids = [conn.pid for conn in self.conns()]
        self.pids.update(pid for pid in pids if pid)
        return [pid for pid in pids if pid]

    def ask(self, how: str) -> tuple[str, Future[Any]]:
        """A call with a number of its own."""
        self.asked += 1
        number = str(self.asked)
        return number, self.way.start(self.pool.call, "notes", "ask", f"{how} {number}")

    def settle(self, calls: list[tuple[str, Future[Any]]]) -> None:
        """Wait for calls, and compare: each gets its own reply, or an error that it may get."""
        for number, call in calls:
            try:
                assert call.result(PATIENCE) == number
                self.outcomes["replied"] += 1
                assert self.noted()[number] == 1
            except CancelledError:
                self.outcomes["cancelled"] += 1
            except (TimeoutError, ProgramEnded):
                assert "may have been carried out" in str(call.exception())
                self.outcomes["lost"] += 1
        assert max(self.noted().values(), default=0) <= 1
        assert self.outcomes.total() <= self.asked

    def noted(self) -> Counter[str]:
        """How often each number was."""
        return Counter(self.notes.read_text().split()) if self.notes.exists() else Counter()

    def await_notes(self, calls: dict[str, Any]) -> None:
        """Until one of these was noted."""
        eventually(lambda: self.noted().keys() & calls.keys())


@pytest.fixture
def bench(way: Way, tmp_path: Path) -> Iterator[Bench]:
    """At the end all must serve, and then all must be gone."""
    backoff = Backoff(first=0.01, factor=1)
    with way.pool(timeout=PATIENCE, backoff=backoff, max_connecting=SIZE) as pool:
        bench = Bench(way, pool, tmp_path / "notes")
        yield bench
        eventually(lambda: len(bench.processes()) == SIZE)
        bench.settle([bench.ask("plain") for _ in range(2 * SIZE)])
        assert bench.outcomes["replied"] >= 2 * SIZE
        assert way.do(pool.stats).now.in_use == 0
        bench.processes()
    eventually(lambda: all(map(gone, bench.pids)))


def test_programs_that_were_killed_while_idle(bench: Bench) -> None:
    """Cost nobody anything: what was asked of them moves."""
    pids = bench.processes()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(map(ended, pids)))
    bench.settle([bench.ask("plain") for _ in range(10)])
    assert bench.outcomes == {"replied": 10}


@pytest.mark.parametrize("how", ["hang", "cut"])
def test_programs_that_are_killed_while_busy(bench: Bench, how: str) -> None:
    """Cost those an error whom they served, and nobody else."""
    busy = [bench.ask(how) for _ in range(SIZE)]
    eventually(lambda: len(bench.noted()) == SIZE)
    behind = [bench.ask("plain") for _ in range(10)]
    for pid in bench.processes():
        os.kill(pid, signal.SIGKILL)
    bench.settle(busy)
    assert bench.outcomes == {"lost": SIZE}
    bench.settle(behind)
    assert bench.outcomes == {"lost": SIZE, "replied": 10}


@pytest.mark.parametrize("how", ["hang", "cut"])
def test_programs_that_hang(bench: Bench, how: str) -> None:
    """The same, after a while."""
    for conn in bench.conns():
        conn.timeout = 0.1
    busy = [bench.ask(how) for _ in range(SIZE)]
    bench.settle([*busy, *(bench.ask("plain") for _ in range(10))])
    assert bench.outcomes == {"lost": SIZE, "replied": 10}


@pytest.mark.parametrize("way", ["asyncio", "trio"], indirect=True)  # a thread cannot leave
def test_callers_that_leave(bench: Bench) -> None:
    """In the middle of a reply, whose rest reaches nobody."""
    for how in ("slow", "half", "hang", "cut"):
        busy = [bench.ask(how) for _ in range(SIZE)]
        behind = [bench.ask("plain") for _ in range(5)]
        bench.await_notes(dict(busy))
        for _, call in busy:
            call.cancel()
        bench.settle(busy)
        bench.settle(behind)
    assert bench.outcomes["replied"] >= 20


def signalled(pid: int, what: int) -> None:
    """Send a signal to a program that may be ending at this moment."""
    if not gone(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def test_all_of_it_at_once(bench: Bench) -> None:
    """No place is lost, no reply goes astray, nothing is done twice."""
    rng = random.Random(7)
    bench.timeout = 0.3
    for conn in bench.conns():
        conn.timeout = bench.timeout
    stopped: list[int] = []
    for _ in range(ROUNDS):
        kinds = rng.choices(["plain", "slow", "half", "leave", "hang"], [12, 4, 4, 1, 0.3], k=6)
        calls = [bench.ask(how) for how in kinds]
        for pid in bench.processes():
            what = rng.choices([signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, None], [1, 1, 2, 3])
            if what[0] is not None:
                signalled(pid, what[0])
                stopped += [pid] * (what[0] == signal.SIGSTOP)
        if bench.way.awaits and rng.random() < 0.3:
            rng.choice(calls)[1].cancel()
        if rng.random() < 0.7:
            for pid in stopped:
                signalled(pid, signal.SIGCONT)
            stopped.clear()
        bench.settle(calls)
