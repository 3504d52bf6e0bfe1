"""The simulator: a pool in invented time, its rules checked in every step.

Owns the front door: `World` for a history told by hand, `simulate` for histories drawn from a seed,
and the command line.  Refuses to know how a rule is checked.

Invariant: the same seed gives the same history.

::

    python -m connpool.testing.simulate --seeds 1000 --steps 1000

plays a thousand histories of a thousand steps, each with conns, servers and callers that misbehave
in every way that is known, and says how long it took.  A broken rule is told as a story, made as
short as it can be, and the seed leads there again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence

import attrs

from .sim_backstage import Habits
from .sim_chance import Draw, draw_setup
from .sim_contract import Cancelled, Gone, Took
from .sim_engine import Setup
from .sim_run import History, replay, run, shrunk
from .sim_script import Action, Comes, Forked, Supplied
from .sim_story import RULES, Violation
from .sim_wishes import Checkout, Wish
from .sim_world import World

__all__ = [
    "RULES",
    "Action",
    "Cancelled",
    "Checkout",
    "Comes",
    "Forked",
    "Gone",
    "Habits",
    "History",
    "Setup",
    "Supplied",
    "Took",
    "Violation",
    "Wish",
    "World",
    "replay",
    "run",
    "shrunk",
    "simulate",
]


def simulate(seed: int, steps: int = 1000, *, shrink: bool = True) -> History:
    """Play the history of a seed.

    Parameters:
        seed: what world it is, and what happens there.
        steps: how often the core is entered before the world is brought to its end.
        shrink: whether a history that breaks a rule is made short, which takes a while.

    A broken rule is a `Violation`, with its story.

    >>> history = simulate(seed=6, steps=200)
    >>> history.seed, history.steps >= 200, history.calls > 0
    (6, True, True)
    """
    try:
        return run(draw_setup(seed), Draw(seed).actions(), steps=steps)
    except Violation as violation:
        if not shrink:
            raise
        found = violation
    raise shrunk(found)


@attrs.frozen
class _Job:
    """Some seeds for one process."""

    seeds: Sequence[int]
    steps: int


def _work(job: _Job) -> tuple[int, int | None]:
    """Play some histories: the steps made, and the first seed that broke a rule."""
    made = 0
    for seed in job.seeds:
        try:
            made += simulate(seed, job.steps, shrink=False).steps
        except Violation:
            return made, seed
    return made, None


def _all(jobs: Iterable[_Job], processes: int) -> tuple[int, int | None]:
    made, broken = 0, None
    if processes == 1:
        results = map(_work, jobs)
        for steps, seed in results:
            made += steps
            if seed is not None:
                return made, seed
        return made, None
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for steps, seed in workers.imap_unordered(_work, jobs):
            made += steps
            if seed is not None:
                broken = seed
                break
    return made, broken


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 where all rules were kept, 1 where one was broken."""
    parser = argparse.ArgumentParser(prog="python -m connpool.testing.simulate")
    parser.add_argument("--seeds", type=int, default=100, help="how many histories")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each, at least")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    seeds = range(asked.first, asked.first + asked.seeds)
    jobs = [_Job(seeds[start : start + 10], asked.steps) for start in range(0, len(seeds), 10)]
    made, broken = _all(jobs, asked.processes)
    took = time.perf_counter() - began
    print(f"{made} steps, {len(seeds)} seeds, {took:.1f} s: {made / took:.0f} steps/s")
    if broken is None:
        print("all rules were kept")
        return 0
    try:
        simulate(broken, asked.steps)
    except Violation as violation:
        print(violation)
    return 1


if __name__ == "__main__":
    sys.exit(main())
