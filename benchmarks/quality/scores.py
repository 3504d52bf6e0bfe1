"""Scores: what the books of a run say of how well callers were served.

Owns tables and their rows.  Refuses to know how they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

import attrs

from ..fairness import jain
from .books import Books, densest, error_of_mean, quantile
from .servers import Server


@attrs.frozen
class Score:
    """One run of one scenario.

    Seconds are waits: from asking until a server begins, but for `answer_p99`, until the answer.
    `error` is one standard error of the mean.  `useful` is the share of the servers' time that went
    into answers.  `lost` are calls that failed, `gave_up` those whose patience was over.  `burst`
    is the most `connects` that began within a second.  What is known from theory stands in `ideal`,
    the mean wait, and `ideal_p99`; nan where nothing is.  `figure` is what only this scenario has,
    and `best` what it should be.
    """

    scenario: str
    by: str
    calls: int
    mean: float
    error: float
    p50: float
    p99: float
    most: float
    answer_p99: float
    useful: float
    lost: int
    gave_up: int
    connects: int
    burst: int
    callers: float  # Jain's index of the share of his calls that each got answered
    servers: float  # and that of the calls that each answered
    ideal: float = math.nan
    ideal_p99: float = math.nan
    law: str = ""
    figure: float = math.nan
    best: float = math.nan


@attrs.frozen
class Table:
    """A scenario, played in several ways.

    `says` tells what is played.  `columns` are those of `show` that say something here; `figure` is
    the heading of a score's `figure`.
    """

    name: str
    says: str
    columns: tuple[str, ...]
    runs: tuple[Callable[[], Score], ...]
    figure: str = ""


def score(
    scenario: str,
    by: str,
    books: Books,
    servers: Sequence[Server],
    seconds: float,
    *,
    ideal: float = math.nan,
    ideal_p99: float = math.nan,
    law: str = "",
    figure: float = math.nan,
    best: float = math.nan,
) -> Score:
    """What came of a run that lasted so long, after what was let be at its beginning."""
    waits = sorted(books.waits)
    connects = [at for server in servers for at in server.connects]
    return Score(
        scenario=scenario,
        by=by,
        calls=books.asked,
        mean=fmean(waits) if waits else math.nan,
        error=error_of_mean(books.waits),
        p50=quantile(waits, 0.5),
        p99=quantile(waits, 0.99),
        most=waits[-1] if waits else math.nan,
        answer_p99=quantile(sorted(books.answers_after), 0.99),
        useful=books.useful / (seconds * len(servers)),
        lost=books.lost,
        gave_up=books.gave_up,
        connects=len(connects),
        burst=densest(connects),
        callers=evenness([books.served[who] / asked for who, asked in books.asked_by.items()]),
        servers=evenness([server.answered for server in servers]),
        ideal=ideal,
        ideal_p99=ideal_p99,
        law=law,
        figure=figure,
        best=best,
    )


def evenness(shares: Sequence[float]) -> float:
    """Jain's index, nan where nobody got anything."""
    return jain(shares) if any(shares) else math.nan
