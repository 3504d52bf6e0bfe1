"""The harness: how a figure is got.

Owns timing side by side, medians and what a row of the table is.  Refuses to know what is timed.

Invariant: what is compared was timed in the same rounds, one right after the other, so what slows
the machine down for a while slows down both.  No figure fails anything: it is printed, or else why
there is none.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from statistics import median, quantiles
from typing import Protocol

import attrs

#: Does its operation that many times.
Work = Callable[[int], object]
#: Builds what the work needs, gives the work, and takes everything down again.
Workload = Callable[[], AbstractContextManager[Work]]
#: Gives seconds; only differences mean something.
Clock = Callable[[], float]
#: Whether the row of this name is wanted.
Pick = Callable[[str], bool]


# How often a count is tried before it is believed.
TRIES = 3
# Seconds that no start takes: who needs them is at work.
NO_START = 2.0


@attrs.frozen
class Aim:
    """What a figure should be: at most `limit`, or at least."""

    limit: float
    least: bool = False

    def met(self, figure: float) -> bool:
        """Whether the figure is as good as it should be."""
        return figure >= self.limit if self.least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.limit:g}"


def at_most(limit: float) -> Aim:
    """The figure should not be above `limit`."""
    return Aim(limit)


def at_least(limit: float) -> Aim:
    """The figure should not be below `limit`."""
    return Aim(limit, least=True)


class Absent(Exception):
    """Raised by what builds or measures: here there is nothing to measure, and this is why."""


@attrs.frozen
class Result:
    """One row of the table.

    `low` and `high` are the quartiles over the rounds: how far apart they are is the noise.  `took`
    is the seconds of one operation of either side, where time was measured, and `counted` its
    instructions, where those were.  `absent` says why there is no figure, where there is none: then
    `measured` is nan.
    """

    name: str
    what: str
    aim: Aim | None
    measured: float
    low: float
    high: float
    unit: str = "x"
    took: tuple[float, float] | None = None
    counted: tuple[float, float] | None = None
    absent: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where there is none, or no figure."""
        return None if self.aim is None or self.absent else self.aim.met(self.measured)


def without_figure(name: str, what: str, aim: Aim | None, why: Absent, unit: str = "x") -> Result:
    """A row that stays empty, and says why."""
    return Result(name, what, aim, math.nan, math.nan, math.nan, unit=unit, absent=str(why))


def merge(results: Sequence[Result]) -> Result:
    """One row out of the same row from several processes: the middle one of each figure."""
    for result in results:
        if result.absent:
            return result
    sides = list(zip(*(result.took for result in results if result.took is not None), strict=True))
    return attrs.evolve(
        results[0],
        measured=median(result.measured for result in results),
        low=median(result.low for result in results),
        high=median(result.high for result in results),
        took=(median(sides[0]), median(sides[1])) if sides else None,
    )


class Bench(Protocol):
    """Something that fills rows of the table.

    `processes` is how many processes it is to be run in, one after the other.
    """

    @property
    def processes(self) -> int: ...

    def names(self) -> list[str]:
        """The rows it can fill."""

    def run(self, pick: Pick, *, quick: bool) -> Iterator[Result]:
        """Fill the rows that are wanted."""


@attrs.frozen
class Row:
    """A row that compares two workloads of a heat, both named by what they do.

    The figure is the time of the first over the time of the second, or with `rate` the other way
    round: operations a second over operations a second.
    """

    name: str
    subject: str
    against: str
    aim: Aim | None = None
    rate: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Heat:
    """Workloads that are timed side by side, and the rows that compare them.

    `sample` is the seconds that one timing of one workload takes, more or less.  Short and many
    beats long and few: a median shrugs off the round in which somebody else had the processor.

    `clock` counts processor time, which others on the machine cannot take away.  Work that sleeps
    or hands over to other threads needs one that counts all time.
    """

    workloads: Mapping[str, Workload]
    rows: Sequence[Row]
    sample: float = attrs.field(default=0.02, kw_only=True)
    rounds: int = attrs.field(default=17, kw_only=True)
    processes: int = attrs.field(default=3, kw_only=True)
    clock: Clock = attrs.field(default=time.process_time, kw_only=True)

    def names(self) -> list[str]:
        """The rows of this heat."""
        return [row.name for row in self.rows]

    def run(self, pick: Pick, *, quick: bool) -> Iterator[Result]:
        """Time what the wanted rows compare, and nothing else."""
        rows = [row for row in self.rows if pick(row.name)]
        taking_part = dict.fromkeys(name for row in rows for name in (row.subject, row.against))
        works: dict[str, Work] = {}
        absent: dict[str, Absent] = {}
        with ExitStack() as stack:
            for name in taking_part:
                try:
                    works[name] = stack.enter_context(self.workloads[name]())
                except Absent as why:
                    absent[name] = why
            if quick:
                times = race(works, self.sample / 4, max(5, self.rounds // 2), self.clock)
            else:
                times = race(works, self.sample, self.rounds, self.clock)
        for row in rows:
            why_not = absent.get(row.subject) or absent.get(row.against)
            if why_not is not None:
                yield without_figure(row.name, versus(row), row.aim, why_not)
            else:
                yield _compare(row, times[row.subject], times[row.against])


def race(
    works: Mapping[str, Work], sample: float, rounds: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of one operation of each work, round by round: A B C, A B C, ..."""
    with collector_off():
        counts = {name: _calibrate(work, sample, clock) for name, work in works.items()}
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                times[name].append(_seconds(work, counts[name], clock) / counts[name])
    return times


def _calibrate(work: Work, sample: float, clock: Clock) -> int:
    """How many operations take about `sample` seconds.  Finding out is the warm-up as well.

    The quickest of a few tries is believed.  A thread that has to be started, or a processor that
    somebody else has for a moment, can make the first operation take a thousand times as long as
    the next; a count that was found by that would have all rounds time the start and not the work.
    """
    count = 1
    while (took := _quickest(work, count, clock)) < sample / 2:
        count *= 2
    return max(1, round(count * sample / took))


def _quickest(work: Work, count: int, clock: Clock) -> float:
    took = _seconds(work, count, clock)
    for _ in range(TRIES - 1):
        if took > NO_START:
            break
        took = min(took, _seconds(work, count, clock))
    return took


def _seconds(work: Work, count: int, clock: Clock) -> float:
    started = clock()
    work(count)
    return clock() - started


def versus(row: Row) -> str:
    """What the row compares, in words."""
    return f"{row.subject} / {row.against}"


def _compare(row: Row, subject: list[float], against: list[float]) -> Result:
    over, under = (against, subject) if row.rate else (subject, against)
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return Result(
        row.name,
        versus(row),
        row.aim,
        middle,
        low,
        high,
        took=(median(subject), median(against)),
    )


@attrs.frozen
class Gauge:
    """A row whose figure is no ratio of times: a function measures it.

    `measure` is told whether a rough figure will do.
    """

    name: str
    what: str
    measure: Callable[[bool], float]
    aim: Aim | None = None
    unit: str = attrs.field(default="", kw_only=True)
    processes: int = attrs.field(default=1, kw_only=True)

    def names(self) -> list[str]:
        """Its one row."""
        return [self.name]

    def run(self, pick: Pick, *, quick: bool) -> Iterator[Result]:
        """Measure, as often as there are rounds."""
        if pick(self.name):
            try:
                with collector_off():
                    figure = self.measure(quick)
            except Absent as why:
                yield without_figure(self.name, self.what, self.aim, why, self.unit)
                return
            yield Result(self.name, self.what, self.aim, figure, figure, figure, unit=self.unit)


@attrs.frozen
class Dial:
    """A row of `Gauges`."""

    name: str
    what: str
    aim: Aim | None = None
    unit: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class Gauges:
    """Rows that are no ratios of times, and come from one and the same run.

    `measure` is told whether rough figures will do, and gives for each dial, in their order, what
    it showed in each round, the same number of times for all.
    """

    dials: Sequence[Dial]
    measure: Callable[[bool], Sequence[Sequence[float]]]
    processes: int = attrs.field(default=1, kw_only=True)

    def names(self) -> list[str]:
        """A row for each dial."""
        return [dial.name for dial in self.dials]

    def run(self, pick: Pick, *, quick: bool) -> Iterator[Result]:
        """Measure all, and give what is wanted."""
        wanted = [dial for dial in self.dials if pick(dial.name)]
        if not wanted:
            return
        try:
            with collector_off():
                shown = dict(zip(self.dials, self.measure(quick), strict=True))
        except Absent as why:
            for dial in wanted:
                yield without_figure(dial.name, dial.what, dial.aim, why, dial.unit)
            return
        for dial in wanted:
            low, middle, high = _quartiles(shown[dial])
            yield Result(dial.name, dial.what, dial.aim, middle, low, high, unit=dial.unit)


def _quartiles(figures: Sequence[float]) -> list[float]:
    if len(figures) < 4:  # too few to have quartiles: all of them, or they would be invented
        return [min(figures), median(figures), max(figures)]
    return quantiles(figures, n=4)


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection inside: it would hit whichever workload is timed when it is due."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
