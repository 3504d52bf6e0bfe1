"""The processor's instructions for one operation, beside the times: they repeat where times do not.

Owns the rows named ``instr.``, and how valgrind is made to count.  Refuses to say what an
instruction takes: one that waits for memory counts like any other, and so does none of the kernel's
work.  A ratio of instructions is a map of a change; the ratio of times is what is paid.

The counting is done by ``valgrind --tool=callgrind``, which needs no rights and no counters of the
processor (virtual machines seldom hand those out, so ``perf stat`` is not asked).  It runs one
process for each bench.  The process marks where a measurement begins and ends by a call of the C
library that nobody else makes, and callgrind writes down what it has counted since the last one;
so start-up does not count.  Each work is done so many times and then three times as often: the
difference is free of what a round costs, and of the first operations, which cost more.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from .harness import (
    Absent,
    Bench,
    Heat,
    Pick,
    Result,
    Row,
    Work,
    collector_off,
    versus,
    without_figure,
)

PREFIX = "instr."
#: What valgrind looks for, and what makes it happen.
MARK = "getpriority"
WARM_UP, ONCE, AGAIN = 0.3, 1, 3  # times the operations that are asked for


@attrs.frozen
class Counted:
    """Rows of the heats of a module, counted instead of timed.

    `operations` is for one round: more than a few hundred change nothing but the patience it takes.
    """

    module: str
    rows: Sequence[str]
    operations: int = attrs.field(default=1_000, kw_only=True)
    processes: int = attrs.field(default=1, kw_only=True)

    def names(self) -> list[str]:
        """The same names, with a prefix."""
        return [PREFIX + name for name in self.rows]

    def run(self, pick: Pick, *, quick: bool) -> Iterator[Result]:
        """Count what the wanted rows compare, in one process."""
        rows = [row for row in found(self.module, self.rows) if pick(PREFIX + row.name)]
        if not rows:
            return
        try:
            counts = counted(self.module, [row.name for row in rows], self.operations)
        except Absent as why:
            for row in rows:
                yield without_figure(PREFIX + row.name, versus(row), None, why)
            return
        for row in rows:
            yield _result(row, counts)


def _result(row: Row, counts: dict[str, float | str]) -> Result:
    subject, against = counts[row.subject], counts[row.against]
    for side in (subject, against):
        if isinstance(side, str):
            return without_figure(PREFIX + row.name, versus(row), None, Absent(side))
    assert isinstance(subject, float)
    assert isinstance(against, float)
    ratio = subject / against
    return Result(
        PREFIX + row.name, versus(row), None, ratio, ratio, ratio, counted=(subject, against)
    )


def found(module: str, names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of the heats they are in."""
    return [row for heat in _heats(module) for row in heat.rows if row.name in names]


def _heats(module: str) -> list[Heat]:
    benches = importlib.import_module(f"{__package__}.{module}").BENCHES
    return [bench for bench in benches if isinstance(bench, Heat)]


# -- the process that counts -----------------------------------------------------------------------


def counted(module: str, names: Sequence[str], operations: int) -> dict[str, float | str]:
    """Instructions for one operation of each workload, or why there is none."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Absent("not installed: valgrind")
    with tempfile.TemporaryDirectory(prefix="connpool-counted-") as folder:
        command = [valgrind, "-q", "--tool=callgrind", f"--dump-before={MARK}"]
        command += [f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", f"{__package__}.counted", module, str(operations), *names]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise Absent(f"valgrind failed: {(done.stderr.splitlines() or ['?'])[-1]}")
        return read(done.stdout.splitlines(), totals(Path(folder)), operations)


def totals(folder: Path) -> list[int]:
    """What callgrind counted up to each mark: one file for each, numbered from 1."""
    counts = []
    for number, path in enumerate(sorted(folder.glob("out.*"), key=_number), 1):
        assert _number(path) == number, path
        lines = path.read_text("utf-8").splitlines()
        counts.append(int(next(line for line in lines if line.startswith("totals:")).split()[1]))
    return counts


def _number(path: Path) -> int:
    return int(path.suffix.removeprefix("."))


def read(said: Sequence[str], counts: Sequence[int], operations: int) -> dict[str, float | str]:
    """What the process said of each workload, with its counts: before, once, three times."""
    figures: dict[str, float | str] = {}
    at = iter(counts)
    for line in said:
        name, _, why = line.partition("\t")
        if why:
            figures[name] = why
        else:
            _, once, again = next(at), next(at), next(at)
            figures[name] = (again - once) / operations / (AGAIN - ONCE)
    return figures


def count(module: str, operations: int, names: Sequence[str]) -> None:
    """In that process: do the work of these rows, with marks, and say which it was."""
    heats = [heat for heat in _heats(module) if set(heat.names()) & set(names)]
    for heat in heats:
        rows = [row for row in heat.rows if row.name in names]
        for name in dict.fromkeys(name for row in rows for name in (row.subject, row.against)):
            with ExitStack() as stack:
                try:
                    work = stack.enter_context(heat.workloads[name]())
                except Absent as why:
                    print(name, why, sep="\t")
                else:
                    _in_rounds(work, operations)
                    print(name)


def _in_rounds(work: Work, operations: int) -> None:
    work(max(1, int(WARM_UP * operations)))
    with collector_off():
        _mark()
        for times in (ONCE, AGAIN):
            work(times * operations)
            _mark()


def _mark() -> None:
    os.getpriority(os.PRIO_PROCESS, 0)


BENCHES: list[Bench] = [
    Counted(
        "calls",
        [
            "pool.call",
            "pool.call.filter",
            "pool.checkout",
            "pool.checkout.call",
            "pool.call.psycopg",
            "pool.checkout.psycopg",
        ],
    ),
    Counted("parts", ["parts.call", "parts.lock", "parts.clock", "parts.who", "parts.core"]),
    Counted("routes", ["route.default"]),
    Counted("peers", ["peers.SimpleQueue", "peers.LifoQueue"]),
    Counted("tasks", ["async.call", "async.checkout"]),
    Counted("peers", ["peers.async.psycopg_pool", "peers.async.psycopg_pool.with"]),
]


if __name__ == "__main__":
    count(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
