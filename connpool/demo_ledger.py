"""The two sides of the demo's books, and the comparing of them.

Owns `Station`, a server that writes down each call it has done, `Notes`, where a caller writes down
what became of each of its calls, and `audit`, which lays the two side by side.  Refuses to know of
pools: what it finds is evidence about one only because it does not ask one.

Invariant: each call has a token of its own, so nothing can make up for anything else.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from .adapters.text_server import TextServer
from .errors import Busy


class Station:
    """A server that hands out numbers, and limits each key to bursts if it is told to.

    Its command is ``:NEXT:KEY TOKEN``.  It takes a moment, replies with a number such as "B-17",
    and is written down in `done`.

    Parameters:
        name: "A".
        keys: one for each conn.
        takes: seconds per call.
        burst: calls after which a key gets ``err:busy SECONDS``; None: no limit.
        rng: chooses how many seconds that is.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        *,
        takes: float,
        burst: int | None = None,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.keys = keys
        self.takes = takes
        self.burst = burst
        self.server = TextServer({"NEXT": self._next})
        self.up = False
        self.done: list[tuple[str, str]] = []  # (token, number) of every call that was done
        self.rests = 0  # how often a key was sent away
        self.early: list[str] = []  # each time that one came back before the rest was over
        self._rng = rng
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()  # by key, since its last rest
        self._not_before: dict[str, float] = {}

    def start(self) -> None:
        """Listen, the first time and after each kill."""
        self.server.start()
        self.up = True

    def kill(self) -> None:
        """Drop all connections without a word, as a crash would; what is under way is finished."""
        self.up = False
        self.server.kill()

    def _next(self, args: str) -> str:
        key, token = args.split()
        with self._lock:
            self._let_in(key)
        time.sleep(self.takes)
        with self._lock:
            number = f"{self.name}-{len(self.done) + 1}"
            self.done.append((token, number))
        return number

    def _let_in(self, key: str) -> None:
        """Raise `Busy`, which the server sends as ``err:busy SECONDS``, unless the key may call."""
        now = time.monotonic()
        if (left := self._not_before.get(key, 0.0) - now) > 0:
            self.early.append(f"{key} came back {left:.6f} s before its rest was over")
            raise Busy(left)
        self._calls[key] += 1
        if self.burst is not None and self._calls[key] > self.burst:
            rest = round(self._rng.uniform(0.2, 0.5), 2)
            self.rests += 1
            self._calls[key] = 0
            self._not_before[key] = now + rest
            raise Busy(rest)


@attrs.define
class Notes:
    """What one caller knows of its calls.

    Each token it `asked` with comes to stand in exactly one of: `answers` (with the answer),
    `in_flight` (with the error that says that it may have been done, or not) and `refused` (with
    the error that says that it was not).
    """

    asked: list[str] = attrs.field(factory=list)
    answers: dict[str, str] = attrs.field(factory=dict)
    in_flight: dict[str, str] = attrs.field(factory=dict)
    refused: dict[str, str] = attrs.field(factory=dict)
    took: list[float] = attrs.field(factory=list)  # seconds of each call that was answered


@attrs.define
class Audit:
    """What the comparing found.  `differences` is empty where both sides tell the same story."""

    done: int = 0  # by the servers
    answered: int = 0
    in_flight: int = 0
    in_flight_done: int = 0  # those that had been done when the server died
    refused: int = 0
    lost: list[str] = attrs.field(factory=list)
    twice: list[str] = attrs.field(factory=list)
    mixed: list[str] = attrs.field(factory=list)
    early: list[str] = attrs.field(factory=list)

    @property
    def differences(self) -> list[str]:
        """All of them, each as a sentence."""
        return self.lost + self.twice + self.mixed + self.early


def audit(
    ledgers: Mapping[str, Iterable[tuple[str, str]]],
    notes: Iterable[Notes],
    *,
    counted: Mapping[str, int],
    most_in_flight: int,
) -> Audit:
    """Compare what the servers did with what the callers know.

    Parameters:
        ledgers: (token, number) of every call done, by server.
        notes: of all callers.
        counted: how many calls each server counted by itself, apart from its ledger.
        most_in_flight: how many calls can have been under way where a server was killed.

    >>> audit({"A": [("t1", "A-1")]}, [Notes(["t1"])], counted={"A": 1}, most_in_flight=0).lost
    ['t1: its caller was never told what became of it']
    """
    found = Audit()
    numbers: dict[str, list[str]] = {}
    for name, ledger in ledgers.items():
        before = found.done
        for token, number in ledger:
            numbers.setdefault(token, []).append(number)
            found.done += 1
        if found.done - before != counted[name]:
            found.lost.append(f"{name} counted {counted[name]} calls, not {found.done - before}")
    asked: set[str] = set()
    for sheet in notes:
        _compare(sheet, numbers, asked, found)
    found.lost += [f"{token}: done, but nobody asked for it" for token in numbers.keys() - asked]
    found.twice += [
        f"{token}: done {len(given)} times, as {' and '.join(given)}"
        for token, given in numbers.items()
        if len(given) > 1
    ]
    if found.in_flight > most_in_flight:
        found.lost.append(
            f"{found.in_flight} calls were said to be in flight when a server died, "
            f"but at most {most_in_flight} can have been"
        )
    return found


def _compare(sheet: Notes, numbers: Mapping[str, list[str]], asked: set[str], found: Audit) -> None:
    found.answered += len(sheet.answers)
    found.in_flight += len(sheet.in_flight)
    found.in_flight_done += len(sheet.in_flight.keys() & numbers.keys())
    found.refused += len(sheet.refused)
    for token in sheet.asked:
        told = [what for what in (sheet.answers, sheet.in_flight, sheet.refused) if token in what]
        if not told:
            found.lost.append(f"{token}: its caller was never told what became of it")
        if len(told) > 1 or token in asked:
            found.twice.append(f"{token}: its caller was told more than once what became of it")
        asked.add(token)
    for token, answer in sheet.answers.items():
        if token not in numbers:
            found.lost.append(f"{token}: answered with {answer}, but no server had done it")
        elif answer not in numbers[token]:
            found.mixed.append(f"{token}: answered with {answer}, not {numbers[token][0]}")
    for token in sheet.refused.keys() & numbers.keys():
        found.lost.append(f"{token}: done, but its caller was told that it was not")
