"""The ratios of a run as a picture, and the plots of the docs.

Owns the drawing, by matplotlib (the extra ``plot``).  Refuses to measure, and to be needed: without
matplotlib everything else works.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .harness import Result

MET, MISSED, PLAIN = "#3a7d44", "#b3423a", "#6b7a8f"
FORMATS = (".svg", ".png")
COLOURS = {True: MET, False: MISSED, None: PLAIN}


def refusal(path: Path) -> str:
    """Why no picture can be drawn there, known before anything is measured; empty: it can."""
    if path.suffix not in FORMATS:
        return f"expected a name that ends in {' or '.join(FORMATS)}, got {str(path)!r}"
    try:
        library()
    except ImportError:
        return "matplotlib is not installed (the extra `plot`)"
    return ""


def library() -> Any:
    """matplotlib's pyplot, drawing to files only; ImportError where it is not installed.

    The same figures make the same file, and text stays text, which is small.
    """
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "connpool", "svg.fonttype": "none"})
    return importlib.import_module("matplotlib.pyplot")


def draw(path: Path, results: Sequence[Result], title: str) -> None:
    """A bar for each ratio, from 1, and a line at what it should be; the ending says which format.

    The scale is logarithmic: twice as dear is as far from 1 as twice as cheap.
    """
    plot = library()
    ratios = [result for result in results if result.unit == "x" and not result.absent]
    figure, axes = plot.subplots(figsize=(10, 1 + 0.28 * max(1, len(ratios))))
    for at, result in enumerate(ratios):
        axes.barh(at, result.measured - 1, left=1, color=COLOURS[result.met])
        axes.plot([result.low, result.high], [at, at], color="black", linewidth=1)
        if result.aim is not None:
            axes.plot([result.aim.limit] * 2, [at - 0.4, at + 0.4], color="black", linewidth=2)
        right = max(result.high, 1, result.aim.limit if result.aim is not None else 1)
        axes.annotate(f" {result.measured:.3g}", (right, at), va="center", fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_yticks(range(len(ratios)), [result.name for result in ratios], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio, with quartiles; a thick line is the aim")
    axes.set_title(title, fontsize=9)
    _save(plot, figure, path)


def _save(plot: Any, figure: Any, path: Path) -> None:
    """Without the date, or no two files would be the same."""
    undated = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, bbox_inches="tight", metadata=undated)
    plot.close(figure)


# -- the plots of the docs -------------------------------------------------------------------------

OURS, THEIRS = "#b3423a", "#6b7a8f"


def _ours(what: str) -> bool:
    return what.startswith(("pool.", "AsyncPool."))


def idle(path: Path, results: Mapping[str, Result]) -> None:
    """What an idle conn costs with each peer, for threads and for tasks."""
    plot = library()
    figure, both = plot.subplots(1, 2, figsize=(11, 4))
    kinds = (
        ("peers.", "threads, x a lock and a deque"),
        ("peers.async.", "tasks, x asyncio.Queue"),
    )
    for axes, (prefix, title) in zip(both, kinds, strict=True):
        rows = [
            result
            for name, result in results.items()
            if name.startswith(prefix)
            and not result.absent
            and name.removeprefix(prefix).partition(".")[0] not in {"async", "served", "jain"}
        ]
        rows.sort(key=lambda result: result.measured)
        names = [result.what.partition(" / ")[0] for result in rows]
        figures = [result.measured for result in rows]
        axes.barh(names, figures, color=[OURS if _ours(name) else THEIRS for name in names])
        for at, value in enumerate(figures):
            axes.annotate(f" {value:.3g}", (value, at), va="center", fontsize=7)
        axes.set_xscale("log")
        axes.tick_params(labelsize=7)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
    figure.tight_layout()
    _save(plot, figure, path)


def growth(path: Path, results: Mapping[str, Result]) -> None:
    """What an idle conn costs in pools of 1 conn to 10,000, for threads and for tasks."""
    plot = library()
    figure, both = plot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axes, prefix in zip(both, ("growth.", "growth.async."), strict=True):
        curves: dict[str, list[tuple[int, float]]] = {}
        for name, result in results.items():
            whose, _, size = name.removeprefix(prefix).rpartition(".")
            if name.startswith(prefix) and not whose.startswith("async.") and not result.absent:
                assert result.took is not None
                line = curves.setdefault(result.what.partition(",")[0], [(1, result.took[1])])
                line.append((int(size), result.took[0]))
        for what, line in curves.items():
            xs, ys = zip(*((size, 1e9 * took) for size, took in line), strict=True)
            axes.plot(xs, ys, marker=".", label=what, linewidth=2.5 if _ours(what) else 1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("conns")
        axes.set_title("threads" if prefix == "growth." else "tasks", fontsize=9)
        axes.legend(fontsize=6)
    both[0].set_ylabel("ns for one idle conn")
    figure.tight_layout()
    _save(plot, figure, path)


def fairness(path: Path, results: Mapping[str, Result]) -> None:
    """How evenly threads are served, and how long they wait."""
    plot = library()
    figure, both = plot.subplots(1, 2, figsize=(11, 3.6), sharey=True)
    names = [name for name in results if name.startswith("peers.jain.")]
    whose = [name.removeprefix("peers.jain.") for name in names if not results[name].absent]
    colours = [OURS if _ours(name) else THEIRS for name in whose]
    both[0].barh(whose, [results[f"peers.jain.{name}"].measured for name in whose], color=colours)
    both[0].set_title("Jain's index, 32 threads over 2 conns: 1 is fair", fontsize=9)
    tails = [results.get(f"held.tail.{name}") for name in whose]
    heights = [0 if tail is None or tail.absent else tail.measured for tail in tails]
    both[1].barh(whose, heights, color=colours)
    both[1].set_xscale("log")
    both[1].set_title("99th of 100 waits / the middle one, 8 threads over 4 conns", fontsize=9)
    both[0].invert_yaxis()
    for axes in both:
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    _save(plot, figure, path)


PLOTS: dict[str, Callable[[Path, Mapping[str, Result]], None]] = {
    "idle": idle,
    "growth": growth,
    "fairness": fairness,
}
