"""What the demo looks like: a picture that moves on a terminal, plain lines elsewhere, a table.

Owns every word and sign that is drawn, and all that depends on where it goes.  Refuses to know
where the figures come from.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TextIO

import attrs

from .core import SinceStart
from .demo_ledger import Audit

News = Sequence[tuple[float, str]]  # seconds since the start, and what happened then

BAR = 12  # signs
FASTEST = 100.0  # calls/s that fill a bar until there are more
NEWEST = 6  # how much of the news stays in sight
BLANK = " " * 39  # what stands before a remark in the table
MOST_DIFFERENCES = 10  # how many are written out

# What a conn does: the sign for it, what to draw where that sign cannot be, and its colour.
SIGNS = {
    "busy": ("●", "*", "32"),
    "ready": ("○", "o", "32"),
    "cooling": ("◌", "-", "33"),
    "reviving": ("✕", "x", "31"),
}
FULL, EMPTY = ("█", "#"), ("░", ".")
PAINT = {sign: colour for sign, _, colour in SIGNS.values()} | {"█": "36", "░": "2", "DOWN": "1;31"}


@attrs.frozen
class Row:
    """A server, as it stands: `conns` holds the keys of SIGNS, `rate` is in calls/s."""

    name: str
    up: bool
    conns: list[str]
    rate: float
    remark: str


@attrs.frozen
class Glance:
    """All there is to see at one moment."""

    seconds: float
    seed: int
    elapsed: float
    rows: list[Row]
    answered: int
    moved: int
    revived: int
    in_flight: int
    waiting: int
    took: list[float]  # seconds of the last calls, sorted


class Screen(Protocol):
    """Where a glance goes."""

    def show(self, glance: Glance, news: News) -> None:
        """Draw how it stands; `news` is all that has happened so far."""


def chosen_screen(out: TextIO) -> Screen:
    """`Live` on a terminal that can be drawn on, else `Plain`."""
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        return Plain(out)
    live = Live(out)
    return live if shutil.get_terminal_size().lines > Live.LINES else Plain(out)


class Plain:
    """A line for all that happens, and one a second for how it goes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told = 0
        self._due = 1.0

    def show(self, glance: Glance, news: News) -> None:
        """Print what is new."""
        if not self._told:
            print(_title(glance), file=self._out)
        lines = [_item(item) for item in news[self._told :]]
        self._told = len(news)
        if glance.elapsed >= self._due:
            self._due = int(glance.elapsed) + 1
            servers = "  ".join(
                f"{row.name} {f'{row.rate:4.0f}/s' if row.up else '  down'}" for row in glance.rows
            )
            lines.append(_item((glance.elapsed, f"{servers}  | {_figures(glance)}")))
        if lines:
            print(*lines, sep="\n", file=self._out, flush=True)


class Live:
    """One picture, drawn over and over in place."""

    LINES = 11 + NEWEST

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = 0
        self._most = FASTEST
        self._fancy = _can_write(out, "●○◌✕█░")
        self._colours = self._fancy and "NO_COLOR" not in os.environ

    def show(self, glance: Glance, news: News) -> None:
        """Draw it over the last one."""
        width = shutil.get_terminal_size().columns - 1
        self._most = max([self._most, *(row.rate for row in glance.rows)])
        lines = [line[:width] for line in self._lines(glance, news)]
        picture = "".join(f"\x1b[K{line}\n" for line in lines)
        if self._colours:
            picture = re.sub("|".join(PAINT), _painted, picture)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(f"\r{up}{picture}\x1b[J")
        self._out.flush()
        self._drawn = len(lines)

    def _lines(self, glance: Glance, news: News) -> Iterator[str]:
        clock = f"{min(glance.elapsed, glance.seconds):.1f} of {glance.seconds:g} s"
        yield f"{_title(glance)}   {clock}"
        yield ""
        for row in glance.rows:
            conns = "".join(self._sign(SIGNS[state]) for state in row.conns if state in SIGNS)
            yield (
                f"  {row.name}  {'up  ' if row.up else 'DOWN'}  {conns:4} {row.rate:4.0f} calls/s "
                f"{self._bar(row.rate)}  {row.remark}"
            )
        busy, ready, cooling, reviving = (self._sign(sign) for sign in SIGNS.values())
        yield (
            f"           conns: {busy} in a call  {ready} free  {cooling} rests  "
            f"{reviving} is being revived"
        )
        yield ""
        yield f"  {_figures(glance)}"
        yield ""
        for item in news[-NEWEST:]:
            yield _item(item)

    def _sign(self, signs: tuple[str, ...]) -> str:
        return signs[0 if self._fancy else 1]

    def _bar(self, rate: float) -> str:
        full = round(BAR * rate / self._most)
        return self._sign(FULL) * full + self._sign(EMPTY) * (BAR - full)


def _title(glance: Glance) -> str:
    conns = sum(len(row.conns) for row in glance.rows)
    return (
        f"connpool demo: {len(glance.rows)} servers, {conns} conns, one Pool (seed {glance.seed})"
    )


def _figures(glance: Glance) -> str:
    return (
        f"answered {glance.answered:,}  moved {glance.moved}  revived {glance.revived}  "
        f"waiting {glance.waiting:2}  p99 {1000 * percentile(glance.took, 99):.1f} ms"
    )


def _item(item: tuple[float, str]) -> str:
    return f"{item[0]:5.1f} s  {item[1]}"


def _painted(found: re.Match[str]) -> str:
    return f"\x1b[{PAINT[found[0]]}m{found[0]}\x1b[0m"


def _can_write(out: TextIO, text: str) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that `percent` of the sorted values do not exceed; 0 where there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50), percentile([1.0, 2.0, 3.0, 4.0], 99)
    (2.0, 4.0)
    """
    if not ordered:
        return 0.0
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


# -- the end -----------------------------------------------------------------------------------


@attrs.frozen
class Ending:
    """What the final table is made of, when the pool is closed and the servers are down.

    `done` is calls by server, `rests` how often a server told a key to rest, `told` what a caller
    heard whose call was in flight when B died (None: there was none).
    """

    elapsed: float
    found: Audit
    pool: SinceStart
    done: Mapping[str, int]
    rests: int
    told: str | None
    took: Sequence[float]  # seconds of every call that was answered, sorted


def table(end: Ending) -> Iterator[str]:
    """The lines of the final table, the verdict last."""
    found, pool = end.found, end.pool
    yield ""
    yield f"After {end.elapsed:.1f} s:"
    yield ""
    yield row("calls answered", f"{found.answered:,}", _listed(end.done, "{} did {:,}"))
    yield row("in flight when B died", found.in_flight, "each caller got an error")
    if end.told is not None:
        yield from textwrap.wrap(f'"{end.told}"', 78, initial_indent=BLANK, subsequent_indent=BLANK)
    yield row("refused by the pool", found.refused, "no conn within the timeout")
    yield row("moved to another conn", pool.moved, f"{pool.busy} as theirs had to rest,")
    yield row("", "", f"{pool.moved - pool.busy} as theirs was found closed")
    yield row("stood in line for a conn", f"{pool.queued:,}", "first come, first served")
    yield row("conns opened", pool.opened, f"{pool.revived} of them revived")
    yield row("conns given up", sum(pool.ended.values()), _listed(pool.ended, "{} {}"))
    kept = end.rests - len(found.early)
    yield row("cooldowns respected", f"{kept} of {end.rests}", "as server C saw it")
    half, most = (f"{1000 * percentile(end.took, percent):.1f} ms" for percent in (50, 99))
    yield row("a whole call, p50", half, "from asking to having the answer")
    yield row("a whole call, p99", most, "")
    yield from verdict(found)


def verdict(found: Audit) -> Iterator[str]:
    """What comes below a table: both sides of the books, and whether they agree."""
    yield ""
    yield (
        f"Servers: {found.done:,} calls done.  Callers: {found.answered:,} answered, "
        f"{found.in_flight_done} done while in flight."
    )
    yield from _differences(found)
    yield (
        f"{len(found.lost)} lost, {len(found.twice)} done twice, "
        f"{len(found.mixed)} answers mixed up, {len(found.early)} rests cut short."
    )


def _differences(found: Audit) -> Iterator[str]:
    differences = found.differences
    if differences:
        yield ""
        yield f"SERVERS AND CALLERS DIFFER, {len(differences)} times:"
        yield from (f"  {difference}" for difference in differences[:MOST_DIFFERENCES])
        if (more := len(differences) - MOST_DIFFERENCES) > 0:
            yield f"  and {more} more"
        yield ""


def row(what: str, figure: object, remark: str) -> str:
    """A line of a table."""
    return f"  {what:24} {figure:>9}   {remark}".rstrip()


def _listed(counts: Mapping[str, int], each: str) -> str:
    return ", ".join(each.format(name, count) for name, count in counts.items())
