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

from .harness import Aim, Result

VERDICTS = {True: "met", False: "MISSED", None: "-"}
HEAD = ("name", "measured / against", "aim", "figure", "quartiles", "ns, or i", "")


def line(cells: Iterable[str]) -> str:
    """One line of the table, in columns that fit."""
    name, what, aim, shown, quartiles, took, verdict = cells
    text = f"{name:<33} {what:<54} {aim:>7} {shown:>10} {quartiles:>15} {took:>19}  {verdict}"
    return text.rstrip()


def head() -> str:
    """The first lines of the table."""
    return f"{line(HEAD)}\n{'-' * len(line((*HEAD[:-1], VERDICTS[False])))}"


def row(result: Result, before: Mapping[str, Result]) -> str:
    """A result as a line, with the figure of an earlier run at its end where there is one."""
    verdict = result.absent or VERDICTS[result.met]
    if result.name in before:
        verdict += f"  ({change(before[result.name], result)})"
    return line(
        (
            result.name,
            result.what,
            "" if result.aim is None else str(result.aim),
            "" if result.absent else figure(result.measured, result.unit),
            _spread(result),
            _sides(result),
            verdict,
        )
    )


def change(before: Result, now: Result) -> str:
    """The figure of before, and how far it is from there to now; with ! beyond the noise."""
    text = f"before: {figure(before.measured, before.unit)}"
    if now.absent or not before.measured:
        return text
    change = now.measured / before.measured - 1
    return f"{text}, {100 * change:+.0f} %{' !' if apart(before, now) else ''}"


def apart(before: Result, now: Result) -> bool:
    """Whether two figures differ by more than noise: their quartiles do not meet.

    Where there was one round only, nobody knows the noise: then it is a difference of 2 %.
    """
    if before.low == before.high or now.low == now.high:
        return abs(now.measured - before.measured) > 0.02 * abs(before.measured)
    return now.low > before.high or now.high < before.low


def summary(results: Iterable[Result]) -> str:
    """How many aims are met, and which are not."""
    judged = [result for result in results if result.aim is not None]
    missed = [result.name for result in judged if result.met is False]
    absent = [result.name for result in judged if result.absent]
    text = f"{sum(result.met is True for result in judged)} aims met, {len(missed)} missed"
    text += f": {', '.join(missed)}" if missed else ""
    return f"{text}\nnot measured: {', '.join(absent)}" if absent else text


def _sides(result: Result) -> str:
    """What one operation of either side takes: nanoseconds, or instructions with an i."""
    if result.counted is not None:
        return " / ".join(f"{count:,.0f}" for count in result.counted) + " i"
    return "" if result.took is None else " / ".join(f"{1e9 * s:,.0f}" for s in result.took)


def _spread(result: Result) -> str:
    if result.absent or result.low == result.high:
        return ""
    return f"{figure(result.low)} .. {figure(result.high)}"


def figure(value: float, unit: str = "") -> str:
    """A number with as many digits as are of use, and its unit."""
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


def load(path: Path) -> tuple[dict[str, Result], dict[str, Any]]:
    """The results of an earlier run by name, and what they hold for."""
    document = json.loads(path.read_text("utf-8"))
    results = [_result(row) for row in document.pop("rows")]
    return {result.name: result for result in results}, document


def figures(path: Path) -> dict[str, Result]:
    """Those of an earlier run that have a figure, by name."""
    return {name: result for name, result in load(path)[0].items() if not result.absent}


def _result(row: Mapping[str, Any]) -> Result:
    """A row of a file; older ones have less in it."""
    measured = math.nan if row["measured"] is None else row["measured"]
    low, high = row.get("low"), row.get("high")
    took, counted = row.get("seconds"), row.get("instructions")
    return Result(
        row["name"],
        row.get("what", ""),
        _aim(row.get("aim")),
        measured,
        measured if low is None else low,
        measured if high is None else high,
        unit=row.get("unit", ""),
        took=None if took is None else (took[0], took[1]),
        counted=None if counted is None else (counted[0], counted[1]),
        absent=row.get("absent") or ("no figure" if math.isnan(measured) else ""),
    )


def _aim(text: str | None) -> Aim | None:
    if not text:
        return None
    sign, _, limit = text.partition(" ")
    return Aim(float(limit), least=sign == ">=")


# -- the last run ----------------------------------------------------------------------------------

#: Where results are kept, in the folder that the command is given in.
KEPT = Path(".benchmarks")


def kept(*, quick: bool) -> Path:
    """The file of the last figures; rough ones are not to be compared with others."""
    return KEPT / ("quick.json" if quick else "full.json")


def remember(results: Iterable[Result], facts: Mapping[str, Any], *, quick: bool) -> None:
    """Keep them for the next run to be compared with; rows that were not measured stay."""
    path = kept(quick=quick)
    KEPT.mkdir(exist_ok=True)
    (KEPT / ".gitignore").write_text("*\n", "utf-8")
    merged = load(path)[0] if path.exists() else {}
    merged |= {result.name: result for result in results if not result.absent}
    save(path, merged.values(), facts, quick=quick)
