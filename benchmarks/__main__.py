"""The command: ``python -m benchmarks``.

Owns the options.  Refuses to judge: it exits with 0 whatever the figures are, unless ``--check``
says that a missed aim is a failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import chart, profiling, rows, table
from .harness import Absent


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
    add("--before", metavar="FILE", type=Path, help="show the figures of FILE beside the new ones")
    add("--plot", metavar="FILE", type=Path, help="draw the ratios, as .svg or .png: matplotlib")
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
    if said.plot is not None:
        refused = chart.refusal(said.plot)
        if refused:
            options.error(f"--plot: {refused}")
    before = table.load(said.before) if said.before is not None else {}
    facts = table.machine(rows.LIBRARIES)
    results = []
    print(table.head(), flush=True)
    for result in rows.run(said.only, quick=said.quick):
        results.append(result)
        print(table.row(result, before), flush=True)
    if said.json is not None:
        table.save(said.json, results, facts, quick=said.quick)
    if said.plot is not None:
        chart.draw(said.plot, results, f"{facts['processor']}, {facts['python'].split(' (')[0]}")
    print(f"\n{table.foot(facts)}")
    missed = any(result.met is False for result in results)
    return 1 if said.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
