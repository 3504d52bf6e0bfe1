"""The command: ``python -m benchmarks``.

Owns the options.  Refuses to judge: it exits with 0 whatever the figures are, unless ``--check``
says that a missed aim is a failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import chart, page, profiling, rows, table
from .harness import Absent, Result


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure connpool against something simple, in one and the same run.",
        epilog="Rows: " + ", ".join(rows.NAMES),
    )
    add = options.add_argument
    add("--only", metavar="PATTERN", default="*", help="rows with such a name: part of it, or a *")
    add("--quick", action="store_true", help="rough figures, in a few seconds")
    add("--json", metavar="FILE", type=Path, help="write the figures to FILE as well")
    add("--before", metavar="FILE", type=Path, help="compare with FILE; default: the last run here")
    add("--figures", metavar="FILE", type=Path, help="take the figures of FILE, measure nothing")
    add("--plot", metavar="FILE", type=Path, help="draw the ratios, as .svg or .png: matplotlib")
    add("--write-docs", action="store_true", help="put figures and plots into doctests/cost.rst")
    add("--check", action="store_true", help="exit with 1 where an aim is missed")
    add("--profile", metavar="ROW", help="show where the time goes, by cProfile, which distorts")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run what is wanted; gives the exit code."""
    options = parser()
    said = options.parse_args(arguments)
    if said.profile is not None:
        build = profiling.workload(rows.BENCHES, said.profile)
        if build is None:
            options.error(f"--profile: expected a row that compares times, got {said.profile!r}")
        try:
            profiling.profile(build)
        except Absent as why:
            options.error(f"--profile: {why}")
        return 0
    if not any(rows.wanted(name, said.only) for name in rows.NAMES):
        options.error(f"--only: no row matches {said.only!r}; there are {', '.join(rows.NAMES)}")
    if said.plot is not None or said.write_docs:
        refused = chart.refusal(said.plot or Path("cost.svg"))
        if refused:
            options.error(f"{'--plot' if said.plot is not None else '--write-docs'}: {refused}")
    results, facts = show(said)
    if said.json is not None:
        table.save(said.json, results, facts, quick=said.quick)
    if said.plot is not None:
        chart.draw(said.plot, results, f"{facts['processor']}, {facts['python'].split(' (')[0]}")
    if said.write_docs:
        page.write(results, facts, quick=said.quick)
    print(f"\n{table.foot(facts)}\n\n{table.summary(results)}")
    missed = any(result.met is False for result in results)
    return 1 if said.check and missed else 0


def show(said: argparse.Namespace) -> tuple[list[Result], dict[str, Any]]:
    """The table, row by row as they come, and what it holds for; fresh figures are kept."""
    past = said.before or (None if said.figures else table.kept(quick=said.quick))
    before = table.figures(past) if past is not None and (said.before or past.exists()) else {}
    fresh: Iterable[Result]
    if said.figures is not None:
        old, facts = table.load(said.figures)
        fresh = [result for name, result in old.items() if rows.wanted(name, said.only)]
        said.quick = facts.pop("quick", False)
    else:
        facts = table.machine(rows.LIBRARIES)
        fresh = rows.run(said.only, quick=said.quick)
    results: list[Result] = []
    print(table.head(), flush=True)
    try:
        for result in fresh:
            results.append(result)
            print(table.row(result, before), flush=True)
    finally:  # who is interrupted has lost the rest, and no more
        if said.figures is None and results:
            table.remember(results, facts, quick=said.quick)
    return results, facts


if __name__ == "__main__":
    sys.exit(main())
