"""Does the simulator find a core that is wrong?  The core, broken on purpose in many ways.

    python -m tests.simulation.mutants

breaks a copy of the core in each way that is listed, one at a time, and lets the simulator look for
it, in a fresh process each.  It says for each after how many steps it was found, and by which rule;
where one survives, either the ledger is blind or that line of the core is of no use.

Invariant: the text that a mutant replaces occurs exactly once in its file.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs

from .mutations import MUTATIONS

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = "connpool"
AT_ONCE = 2

# Seconds after which a simulator that has said nothing hangs: the mutant is a busy loop, and found.
HANGS = 400.0

# What runs in the process: the first seed that breaks a rule, within so many seeds, and seconds of
# its own: the machine may be busy.
HUNT = """
import time
from connpool.testing.simulate import Violation, simulate
made, until = 0, time.process_time() + 60
for seed in range(2000):
    try:
        made += simulate(seed, 300, shrink=False).steps
    except Violation as violation:
        print("found", made + violation.steps, "rule", violation.rule)
        break
    except Exception as error:
        print("found", made, type(error).__name__)
        break
    if time.process_time() > until:
        break
"""


@attrs.frozen
class Mutant:
    """One way in which the core is broken."""

    name: str
    module: str
    old: str
    new: str

    def broken(self, text: str) -> str:
        """The module, broken."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: expected its text once in {self.module}, got {count}")
        return text.replace(self.old, self.new)


@attrs.frozen
class Fate:
    """What became of a mutant: `how` it was found, or "" where it has survived."""

    mutant: Mutant
    how: str
    seconds: float


MUTANTS = tuple(Mutant(*mutation) for mutation in MUTATIONS)


def hunt(mutant: Mutant) -> Fate:
    """Break a copy of the core, and let the simulator look for it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / PACKAGE
        shutil.copytree(ROOT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        module = copy / "core" / mutant.module
        module.write_text(mutant.broken(module.read_text()))
        how = _looked_for(folder)
    return Fate(mutant, how, time.perf_counter() - began)


def _looked_for(folder: str) -> str:
    environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", HUNT]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANGS,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode:
        raise RuntimeError(f"the simulator could not be run:\n{done.stderr}")
    words = done.stdout.split()
    return f"{words[1]} steps, {' '.join(words[2:])}" if words else ""


def main(names: Sequence[str]) -> int:
    """Hunt all mutants, or those whose names have one of `names` in them; 1 if one survives."""
    chosen = [m for m in MUTANTS if not names or any(name in m.name for name in names)]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        survivors = 0
        for fate in workers.map(hunt, chosen):
            survivors += not fate.how
            print(f"{fate.how or 'SURVIVES':28} {fate.seconds:5.1f} s  {fate.mutant.name}")
            sys.stdout.flush()
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants found, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
