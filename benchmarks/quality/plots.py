"""The scores as pictures, by matplotlib (the extra ``plot``).

Owns the drawing.  Refuses to play, and to be needed.

Invariant: the same scores give the same bytes: no date, and names of parts that are not drawn by
chance.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import chart
from .scores import Score

if TYPE_CHECKING:
    from .fleet import Toll

BAR, BEST = "#6b7a8f", "#b3423a"


def save(figure: Any, path: Path) -> None:
    """Write it, without what differs from day to day."""
    settings = importlib.import_module("matplotlib").rcParams
    settings["svg.hashsalt"], settings["svg.fonttype"] = "connpool", "none"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    chart.library().close(figure)


def draw_scenarios(where: Path, scores: Mapping[str, Sequence[Score]]) -> None:
    """The waits of lines and of a slow server, against what theory says."""
    waits = {name: of_one for name, of_one in scores.items() if name in PANELS}
    if waits:
        save(panels(waits), where / "waits.svg")


PANELS = (
    "steady 0.8", "shared 0.5", "shared 0.8", "shared 0.9", "route 0.8", "one slow, shared",
)  # fmt: skip
ACROSS = 3


def panels(waits: Mapping[str, Sequence[Score]]) -> Any:
    """A panel for each scenario, on a scale that shows small waits and large ones."""
    rows = math.ceil(len(waits) / ACROSS)
    figure, grid = chart.library().subplots(
        rows, ACROSS, figsize=(3.6 * ACROSS, 2.2 * rows), squeeze=False, layout="constrained"
    )
    spare = list(grid.flat)
    for (name, scores), axes in zip(waits.items(), spare, strict=False):
        panel(axes, name, scores)
    for axes in spare[len(waits) :]:
        axes.set_visible(False)
    return figure


def panel(axes: Any, name: str, scores: Sequence[Score]) -> None:
    """Bars from the mean to the p99, and a mark where theory has the mean."""
    low, rows = 0.01, range(len(scores))
    means, p99s, ideals = (
        [value if math.isnan(value) else max(low, 1000 * value) for value in values]
        for values in zip(*((s.mean, s.p99, s.ideal) for s in scores), strict=True)
    )
    widths = [p99 - mean for mean, p99 in zip(means, p99s, strict=True)]
    axes.barh(rows, widths, left=means, height=0.6, color=BAR)
    axes.plot(means, rows, "o", color="black", markersize=4)
    axes.plot(ideals, rows, "|", color=BEST, markersize=12)
    axes.set_xscale("log")
    axes.set_xlim(low, 1e5)
    axes.minorticks_off()  # there are hundreds
    axes.set_yticks(range(len(scores)), [score.by for score in scores], fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(name, fontsize=8)
    axes.set_xlabel("wait, ms: mean, p99, | theory", fontsize=7)


def draw_fleet(where: Path, tolls: Sequence[Toll]) -> None:
    """Connects a second over time, of those that bound connecting differently."""
    drawn = [toll for toll in tolls if toll.plan.label.split(",")[0] in {"restart", "full", "ttl"}]
    if drawn:
        save(over_time(drawn), where / "fleet.svg")


def over_time(tolls: Sequence[Toll]) -> Any:
    """A panel for each event."""
    from .fleet import BIN

    events = dict.fromkeys(toll.plan.label.split(",")[0] for toll in tolls)
    figure, grid = chart.library().subplots(
        1, len(events), figsize=(4.5 * len(events), 3), squeeze=False
    )
    for event, axes in zip(events, grid.flat, strict=True):
        for toll in tolls:
            first, _, rest = toll.plan.label.partition(", ")
            if first == event:
                at = [number * BIN for number in range(len(toll.series))]
                axes.plot(at, [count / BIN for count in toll.series], linewidth=1, label=rest)
        axes.set_yscale("symlog", linthresh=10)
        axes.minorticks_off()
        axes.set_title(event, fontsize=9)
        axes.set_xlabel("seconds", fontsize=8)
        axes.set_ylabel("connects a second, whole fleet", fontsize=8)
        axes.legend(fontsize=7)
    figure.tight_layout()
    return figure
