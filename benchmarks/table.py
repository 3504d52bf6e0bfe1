"""How results are shown: to people as a table, to programs as JSON.

Owns the words of the output, and what is said of the machine.  Refuses to measure.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .harness import Result

VERDICTS = {True: "met", False: "MISSED", None: "-"}
HEAD = ("name", "measured / against", "aim", "figure", "quartiles", "ns, or i", "")


def line(cells: Iterable[str]) -> str:
    """One line of the table, in columns that fit."""
    name, what, aim, figure, quartiles, took, verdict = cells
    text = f"{name:<33} {what:<54} {aim:>7} {figure:>10} {quartiles:>15} {took:>19}  {verdict}"
    return text.rstrip()


def head() -> str:
    """The first lines of the table."""
    return f"{line(HEAD)}\n{'-' * len(line((*HEAD[:-1], VERDICTS[False])))}"


def row(result: Result, before: Mapping[str, float]) -> str:
    """A result as a line, with the figure of an earlier run at its end where there is one."""
    verdict = result.absent or VERDICTS[result.met]
    if result.name in before:
        verdict += f"  (before: {_figure(before[result.name], result.unit)})"
    return line(
        (
            result.name,
            result.what,
            "" if result.aim is None else str(result.aim),
            "" if result.absent else _figure(result.measured, result.unit),
            _spread(result),
            _sides(result),
            verdict,
        )
    )


def _sides(result: Result) -> str:
    """What one operation of either side takes: nanoseconds, or instructions with an i."""
    if result.counted is not None:
        return " / ".join(f"{count:,.0f}" for count in result.counted) + " i"
    return "" if result.took is None else " / ".join(f"{1e9 * s:,.0f}" for s in result.took)


def _spread(result: Result) -> str:
    if result.absent or result.low == result.high:
        return ""
    return f"{_figure(result.low)} .. {_figure(result.high)}"


def _figure(value: float, unit: str = "") -> str:
    counted = unit not in {"", "x"} and value.is_integer()
    text = f"{value:.0f}" if value >= 100 or counted else f"{value:.3f}"
    return f"{text} {unit}".rstrip()


def machine(libraries: Iterable[str] = ()) -> dict[str, Any]:
    """What the figures hold for: the machine, how busy it is, and the versions.

    `libraries` are distributions whose versions matter beside connpool's own.
    """
    return {
        "machine": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {sys.version}",
        "connpool": _version("connpool"),
        "attrs": _version("attrs"),
        "libraries": {name: _version(name) for name in libraries},
    }


def _processor() -> str:
    """What Linux calls the processor; elsewhere Python knows best."""
    try:
        for entry in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def foot(facts: Mapping[str, Any]) -> str:
    """The machine and the versions, for people."""
    return "\n".join(f"{name}: {_fact(value)}" for name, value in facts.items())


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{part:.2f}" for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return f"{value}"


def save(path: Path, results: Iterable[Result], facts: Mapping[str, Any], *, quick: bool) -> None:
    """Write it all down for programs."""
    rows = [
        {
            "name": result.name,
            "what": result.what,
            "aim": None if result.aim is None else str(result.aim),
            "measured": _number(result.measured),
            "low": _number(result.low),
            "high": _number(result.high),
            "unit": result.unit,
            "seconds": result.took,
            "instructions": result.counted,
            "met": result.met,
            "absent": result.absent or None,
        }
        for result in results
    ]
    document = {**facts, "quick": quick, "rows": rows}
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _number(figure: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(figure) else figure


def load(path: Path) -> dict[str, float]:
    """The figures of an earlier run, by name; a row that had none is left out."""
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return {row["name"]: row["measured"] for row in rows if row["measured"] is not None}
