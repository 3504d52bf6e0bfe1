"""The ratios of a run as a picture.

Owns the drawing, by matplotlib (the extra ``plot``).  Refuses to measure, and to be needed: without
matplotlib everything else works.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
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
    """matplotlib's pyplot, drawing to files only; ImportError where it is not installed."""
    importlib.import_module("matplotlib").use("agg")
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
    figure.savefig(path, bbox_inches="tight")
    plot.close(figure)
