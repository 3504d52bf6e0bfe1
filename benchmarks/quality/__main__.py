"""The command: ``python -m benchmarks.quality``.

Owns the options.  Refuses to judge.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from .. import chart
from . import births, faults, fleet_plans, lines, page, plots, show
from .scores import Score, Table

SEED = 1


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Play scenarios against the pool's core in invented time, and score them.",
        epilog="Scenarios: " + ", ".join(table.name for table in tables(SEED, quick=True)),
    )
    add = options.add_argument
    add("what", nargs="?", choices=["scenarios", "fleet"], default="scenarios")
    add("--only", metavar="PATTERN", default="*", help="those with such a name: part of it, or a *")
    add("--quick", action="store_true", help="rough figures, in seconds rather than minutes")
    add("--seed", type=int, default=SEED, help="the same seed gives the same figures")
    add("--pools", type=int, default=fleet_plans.POOLS, help="of the fleet; time grows with them")
    add("--json", metavar="FILE", type=Path, help="write the scores to FILE as well")
    add("--plot", metavar="DIR", type=Path, help="draw them as .svg into DIR: needs matplotlib")
    add("--write-docs", action="store_true", help="put tables and plots into doctests/quality.rst")
    return options


def tables(seed: int, *, quick: bool) -> list[Table]:
    """All that is played."""
    return [
        table for room in (lines, faults, births) for table in room.scenarios(seed, quick=quick)
    ]


def wanted(name: str, pattern: str) -> bool:
    """Whether a name is meant."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*{pattern}*")


def play(said: argparse.Namespace) -> tuple[list[str], dict[str, list[Score]]]:
    """Play what is wanted; gives what was printed, and the scores by scenario."""
    printed, scores = [], {}
    for table in tables(said.seed, quick=said.quick):
        if wanted(table.name, said.only):
            scores[table.name] = [run() for run in table.runs]
            printed.append(show.text(table, scores[table.name]))
            print(printed[-1], end="\n\n", flush=True)
    return printed, scores


def main(arguments: list[str] | None = None) -> int:
    """Run what is wanted; gives the exit code."""
    options = parser()
    said = options.parse_args(arguments)
    where = page.PLOTS if said.write_docs else said.plot
    if where is not None and (refused := chart.refusal(where / "quality.svg")):
        options.error(f"--plot: {refused}")
    if said.write_docs and (said.quick or said.only != "*"):
        options.error("--write-docs: the page shows whole runs, so neither --quick nor --only")
    if said.what == "fleet":
        return fleet_plans.command(said, where)
    printed, scores = play(said)
    if not printed:
        options.error(f"--only: no scenario matches {said.only!r}")
    if said.json is not None:
        show.save(said.json, [score for of_one in scores.values() for score in of_one], said.seed)
    if where is not None:
        plots.draw_scenarios(where, scores)
    if said.write_docs:
        page.write("scenarios", printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
