"""How scores are shown: to people as tables, to programs as JSON.

Owns the columns and their words.  Refuses to know what is played.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from .scores import Score, Table


def milliseconds(seconds: float) -> str:
    """So many, as far as they matter.

    >>> milliseconds(0.0123456), milliseconds(1.2345678), milliseconds(math.nan)
    ('12.35', '1235', '')
    """
    if math.isnan(seconds):
        return ""
    value = 1000 * seconds
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def percent(share: float) -> str:
    """A share of something."""
    return "" if math.isnan(share) else f"{100 * share:.1f}%"


def index(value: float) -> str:
    """Jain's index."""
    return "" if math.isnan(value) else f"{value:.3f}"


def whole(number: float) -> str:
    """A number of things."""
    return "" if math.isnan(number) else f"{number:,.0f}"


# What is shown of a score's `figure` and `best`, by its heading.
FIGURES: dict[str, Callable[[float], str]] = {
    "its share": percent,
    "lost": whole,
    "last ms": milliseconds,
    "densest": percent,
    "no wait": percent,
}

# Heading and cell, by the name of the column.
COLUMNS: dict[str, tuple[str, Callable[[Score], str]]] = {
    "mean": ("wait ms", lambda s: f"{milliseconds(s.mean)} ±{milliseconds(s.error)}"),
    "average": ("wait ms", lambda s: milliseconds(s.mean)),
    "ideal": ("theory", lambda s: milliseconds(s.ideal)),
    "p50": ("p50", lambda s: milliseconds(s.p50)),
    "p99": ("p99", lambda s: milliseconds(s.p99)),
    "ideal_p99": ("theory", lambda s: milliseconds(s.ideal_p99)),
    "most": ("max", lambda s: milliseconds(s.most)),
    "answer_p99": ("answer p99", lambda s: milliseconds(s.answer_p99)),
    "law": ("law", lambda s: s.law),
    "useful": ("useful", lambda s: percent(s.useful)),
    "lost": ("lost", lambda s: whole(s.lost)),
    "gave_up": ("gave up", lambda s: whole(s.gave_up)),
    "connects": ("connects", lambda s: whole(s.connects)),
    "burst": ("in 1 s", lambda s: whole(s.burst)),
    "callers": ("Jain", lambda s: index(s.callers)),
    "servers": ("Jain", lambda s: index(s.servers)),
}


def heads(table: Table) -> list[str]:
    """The headings of a table."""
    named = {"figure": table.figure, "best": "best"}
    return ["by", *(named[c] if c in named else COLUMNS[c][0] for c in table.columns)]


def cells(table: Table, score: Score) -> list[str]:
    """The cells of a row."""
    found = [score.by]
    for column in table.columns:
        if column in {"figure", "best"}:
            found.append(FIGURES[table.figure](getattr(score, column)))
        else:
            found.append(COLUMNS[column][1](score))
    return found


def text(table: Table, scores: Sequence[Score]) -> str:
    """The table, as it is printed and stands in the docs."""
    rows = [heads(table), *(cells(table, score) for score in scores)]
    return "\n".join((f"{table.name}: {table.says}", "", *aligned(rows)))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns: the first to the left, the others to the right.

    >>> aligned([["by", "p50"], ["random", "1"]])
    ['by      p50', 'random    1']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        line = first.ljust(widths[0])
        for cell, width in zip(others, widths[1:], strict=True):
            line += "  " + cell.rjust(width)
        lines.append(line.rstrip())
    return lines


def save(path: Path, results: Iterable[Any], seed: int) -> None:
    """Everything as JSON, nothing left out."""
    found = [attrs.asdict(result) for result in results]
    path.write_text(json.dumps({"seed": seed, "results": found}, indent=1) + "\n", "utf-8")
