"""The benchmarks: that what they show is what they measured.  No figure is judged in here."""

from __future__ import annotations

import json
import math
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import metadata
from itertools import count
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest

from benchmarks import (
    __main__,
    chart,
    counted,
    fairness,
    field,
    field_tasks,
    field_threads,
    peers,
    routes,
    rows,
    storms,
    table,
    tasks,
)
from benchmarks.harness import (
    Absent,
    Bench,
    Dial,
    Gauge,
    Gauges,
    Heat,
    Result,
    Row,
    Work,
    Workload,
    at_least,
    at_most,
    merge,
)


class Stopwatch:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    @contextmanager
    def taking(self, seconds: float) -> Iterator[Work]:
        """Work whose operation takes so long."""

        def work(times: int) -> None:
            self.now += times * seconds

        yield work


def run(bench: Bench, pattern: str = "*") -> list[Result]:
    """All rows of a bench that the pattern picks."""
    return list(bench.run(lambda name: rows.wanted(name, pattern), quick=True))


@contextmanager
def nobody() -> Iterator[Work]:
    """A peer that is not there."""
    raise Absent("not installed: nobody")
    yield


# -- harness ---------------------------------------------------------------------------------------


def race_of(*wanted: Row) -> Heat:
    """A heat of a slow work, a quick one and one that is absent."""
    watch = Stopwatch()
    works: dict[str, Workload] = {
        "slow": partial(watch.taking, 3e-6),
        "quick": partial(watch.taking, 1e-6),
        "absent": nobody,
    }
    return Heat(works, list(wanted), clock=watch)


def test_a_ratio_is_time_over_time() -> None:
    """What takes three times as long has the ratio 3, and the seconds of both sides stand by."""
    (result,) = run(race_of(Row("r", "slow", "quick", at_most(2.5))))
    assert result.measured == pytest.approx(3)
    assert result.took == pytest.approx((3e-6, 1e-6))
    assert result.met is False


def test_a_rate_is_the_other_way_round() -> None:
    """What takes three times as long gets a third of it done."""
    (result,) = run(race_of(Row("r", "slow", "quick", at_least(0.3), rate=True)))
    assert result.measured == pytest.approx(1 / 3)
    assert result.met is True


def test_an_absent_workload_empties_its_own_rows_only() -> None:
    """A row without a figure says why, on whichever side the absent one stands."""
    heat = race_of(
        Row("a", "absent", "quick", at_most(1)),
        Row("b", "slow", "absent"),
        Row("c", "slow", "quick"),
    )
    first, second, third = run(heat)
    assert first.absent == second.absent == "not installed: nobody"
    assert math.isnan(first.measured)
    assert first.met is None
    assert third.absent == ""
    assert third.measured == pytest.approx(3)


def test_a_slow_start_is_not_taken_for_the_work() -> None:
    """What stalls once is then timed as often as it would have been without that."""
    watch, asked = Stopwatch(), count()
    counts: list[int] = []

    @contextmanager
    def stalling() -> Iterator[Work]:
        def work(times: int) -> None:
            counts.append(times)
            watch.now += times * 1e-6 + (0 if next(asked) else 1.0)

        yield work

    works: dict[str, Workload] = {"stalls": stalling, "not": partial(watch.taking, 1e-6)}
    (result,) = run(Heat(works, [Row("r", "stalls", "not")], clock=watch))
    assert result.measured == pytest.approx(1)
    assert counts[-1] >= 1_000


def test_gauges_fill_several_rows_from_one_run() -> None:
    """The figure is the middle of the rounds; the measuring is done once, whatever is wanted."""
    runs = count()

    def measure(quick: bool) -> list[list[float]]:
        next(runs)
        return [[1.0, 9.0, 2.0], [5.0]]

    gauges = Gauges([Dial("a", "rounds"), Dial("b", "one", at_most(4), unit="conns")], measure)
    first, second = run(gauges)
    assert (first.measured, first.low, first.high) == (2.0, 1.0, 9.0)
    assert (second.measured, second.low, second.high, second.unit) == (5.0, 5.0, 5.0, "conns")
    assert (first.met, second.met) == (None, False)
    assert [result.name for result in run(gauges, "b")] == ["b"]
    assert run(gauges, "c") == []
    assert next(runs) == 2


def test_two_rounds_have_no_quartiles_beyond_them() -> None:
    """Nothing is shown that was not measured."""
    (result,) = run(Gauges([Dial("a", "two rounds")], lambda quick: [[1.0, 9.0]]))
    assert (result.low, result.measured, result.high) == (1.0, 5.0, 9.0)


def test_gauges_that_cannot_measure_say_why() -> None:
    """Every row of theirs is empty then."""

    def measure(quick: bool) -> Any:
        raise Absent("no wind")

    several = run(Gauges([Dial("a", "x", at_most(1)), Dial("b", "y")], measure))
    alone = run(Gauge("c", "z", measure, at_most(1)))
    assert [(r.name, r.absent, r.met) for r in several + alone] == [
        ("a", "no wind", None),
        ("b", "no wind", None),
        ("c", "no wind", None),
    ]


def test_rows_of_several_processes_are_merged() -> None:
    """The middle of each figure; absent where it was absent anywhere."""
    results = [Result("r", "x / y", None, m, m - 1, m + 1, took=(m, 1.0)) for m in (3.0, 1.0, 2.0)]
    merged = merge(results)
    assert (merged.measured, merged.low, merged.high, merged.took) == (2.0, 1.0, 3.0, (2.0, 1.0))
    (gone,) = run(race_of(Row("r", "absent", "quick")))
    assert merge([results[0], gone, results[1]]) is gone


# -- instructions ----------------------------------------------------------------------------------


# Runs what it is told to, and counts as callgrind does: into a file at each mark.
VALGRIND = """\
#!/bin/sh
for said; do case "$said" in --callgrind-out-file=*) out=${said#*=};; esac; done
while [ "$1" != "-q" ]; do shift; done
while case "$1" in -*) true;; *) false;; esac; do shift; done
"$@" || exit
for number in 1 2 3 4 5 6; do
    case $number in 3) total=600;; 6) total=300;; 2|5) total=100;; *) total=9999;; esac
    printf 'events: Ir\\ntotals: %s\\n' $total > "$out.$number"
done
"""


def test_instructions_are_the_difference_of_two_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file for each mark: up to the first, once the operations, three times the operations."""
    program = tmp_path / "valgrind"
    program.write_text(VALGRIND, "utf-8")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (result,) = run(counted.Counted("calls", ["pool.call"], operations=10))
    assert (result.name, result.what) == ("instr.pool.call", "pool.call / bare")
    assert result.counted == (25.0, 10.0)
    assert result.measured == 2.5
    assert "25 / 10 i" in table.row(result, {})


def test_the_files_of_callgrind_are_read_in_their_order(tmp_path: Path) -> None:
    """By number, not by name: the tenth is not the second."""
    for number in range(1, 12):
        (tmp_path / f"out.{number}").write_text(f"events: Ir\ntotals: {number}\n", "utf-8")
    assert counted.totals(tmp_path) == list(range(1, 12))


def test_a_workload_that_is_absent_is_not_counted() -> None:
    """It says why in the place of its figure, and takes no marks from the next one."""
    said = ["a", "b\tnot installed: b", "c"]
    assert counted.read(said, [999, 15, 35, 999, 25, 65], operations=10) == {
        "a": 1.0,
        "b": "not installed: b",
        "c": 2.0,
    }


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row says why."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    results = run(counted.Counted("calls", ["pool.call", "pool.call.filter"]))
    assert {result.absent for result in results} == {"not installed: valgrind"}
    assert len(results) == 2


def test_what_is_counted_is_there() -> None:
    """Each name is that of a row of a heat of the module."""
    for bench in counted.BENCHES:
        assert isinstance(bench, counted.Counted)
        assert len(counted.found(bench.module, bench.rows)) == len(bench.rows)


# -- table, JSON, picture --------------------------------------------------------------------------


RESULTS = [
    Result("a", "x / y", at_most(2.0), 3.0, 2.5, 3.5, took=(3e-6, 1e-6), unit="x"),
    Result("b", "extra", at_most(3.0), 2.0, 2.0, 2.0, unit="conns"),
    Result("c", "z / y", None, math.nan, math.nan, math.nan, absent="not installed: z"),
]


def test_figures_survive_a_file(tmp_path: Path) -> None:
    """Saved figures are loaded by name; a row without a figure is left out, in proper JSON."""
    path = tmp_path / "figures.json"
    table.save(path, RESULTS, {"libraries": {"z": "not installed"}}, quick=True)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert {n: r.measured for n, r in table.figures(path).items()} == {"a": 3.0, "b": 2.0}
    assert document["libraries"] == {"z": "not installed"}
    assert [row["absent"] for row in document["rows"]] == [None, None, "not installed: z"]


def test_files_of_before_are_understood(tmp_path: Path) -> None:
    """A file that was written when no row could be absent is compared with like any other."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"rows": [{"name": "a", "measured": 2.0}]}), "utf-8")
    assert table.row(RESULTS[0], table.figures(path)).endswith("MISSED  (before: 2.000, +50 % !)")


def test_a_row_shows_its_figure_or_why_there_is_none() -> None:
    """Ratios with digits, counts without, and the reason in the place of a verdict."""
    before = Result("c", "z / y", None, 4.0, 4.0, 4.0)
    ratio, conns, absent = (table.row(result, {"c": before}) for result in RESULTS)
    assert "3.000 x" in ratio
    assert "2.500 .. 3.500" in ratio
    assert "3,000 / 1,000" in ratio
    assert "2 conns" in conns
    assert "nan" not in absent
    assert absent.endswith("not installed: z  (before: 4.000 x)")


def test_the_foot_names_versions_of_peers() -> None:
    """Installed or not, every peer is listed."""
    foot = table.foot(table.machine([*rows.LIBRARIES, "no-such-thing"]))
    assert "no-such-thing not installed" in foot
    assert all(library in foot for library in rows.LIBRARIES)
    assert f"attrs: {metadata.version('attrs')}" in foot


@pytest.mark.parametrize("ending", chart.FORMATS)
def test_a_picture_is_drawn(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar for each ratio, none for counts and absent ones."""
    plot = Plot()
    monkeypatch.setattr(chart, "library", lambda: plot)
    path = tmp_path / f"ratios{ending}"
    assert chart.refusal(path) == ""
    chart.draw(path, RESULTS, "here")
    assert plot.bars == [2.0]  # from 1 to 3
    assert plot.saved == path


class Plot:
    """As much of pyplot as is used."""

    def __init__(self) -> None:
        self.bars: list[float] = []
        self.saved: Path | None = None

    def subplots(self, **_: Any) -> tuple[Plot, Plot]:
        return self, self

    def barh(self, at: float, width: float, **_: Any) -> None:
        self.bars.append(width)

    def savefig(self, path: Path, **_: Any) -> None:
        self.saved = path

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def test_a_picture_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A strange ending, or no matplotlib, is an error on the command line."""

    def missing() -> Any:
        raise ImportError

    monkeypatch.setattr(chart, "library", missing)
    monkeypatch.setattr(rows, "run", pytest.fail)
    for name, words in (("a.txt", "expected a name that ends in"), ("a.svg", "not installed")):
        with pytest.raises(SystemExit):
            __main__.main(["--plot", name])
        assert words in capsys.readouterr().err


def test_the_command_measures_shows_and_saves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One row for each result, the figures in the file, and 1 where an aim is missed and judged."""
    asked: list[tuple[str, bool]] = []

    def measured(pattern: str, *, quick: bool) -> list[Result]:
        asked.append((pattern, quick))
        return RESULTS

    monkeypatch.setattr(rows, "run", measured)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "figures.json"
    arguments = ["--quick", "--only", "pool.call", "--json", str(path)]
    assert __main__.main(arguments) == 0
    assert __main__.main([*arguments, "--check", "--before", str(path)]) == 1
    assert asked == [("pool.call", True)] * 2
    assert "not installed: z" in capsys.readouterr().out
    assert {n: r.measured for n, r in table.figures(path).items()} == {"a": 3.0, "b": 2.0}


def test_rows_have_names_of_their_own() -> None:
    """No name is given twice, or --before would compare what is not the same."""
    assert len(set(rows.NAMES)) == len(rows.NAMES)


def test_what_is_compared_is_there() -> None:
    """Both sides of every row of every heat are workloads of that heat."""
    heats = [bench for bench in rows.BENCHES if isinstance(bench, Heat)]
    for heat in heats:
        assert {row.subject for row in heat.rows} <= set(heat.workloads)
        assert {row.against for row in heat.rows} <= set(heat.workloads)


# -- routes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", routes.WAYS)
def test_each_way_of_choosing_routes(way: str) -> None:
    """The work asks the pool so often, and the pool has no objection."""
    with routes.routed_by(routes.WAYS[way], 3) as work:
        work(7)


def test_routes_by_default_and_by_new_keys() -> None:
    """The other two kinds of work; each key is new."""
    with routes.routed(3) as work, routes.routed_by_new_keys(3) as other:
        work(7)
        other(7)


# -- storms ----------------------------------------------------------------------------------------


def test_the_densest_tenth() -> None:
    """The share of all instants in the fullest window, wherever that begins."""
    assert storms.densest([0, 50, 52, 55, 58, 60, 100], part=0.1) == 5 / 7
    assert storms.densest(range(101), part=0.1) == 11 / 101
    assert storms.densest([5.0, 5.0, 5.0], part=0.1) == 1


def test_all_conns_die_within_their_ttl() -> None:
    """Each once, none late, and not in one moment."""
    ends = storms.deaths(20, ttl=100.0, seed=1)
    assert len(ends) == 20
    assert max(ends) <= 100
    assert len(set(ends)) > 10
    assert ends == storms.deaths(20, ttl=100.0, seed=1)


@pytest.mark.parametrize(
    ("storm", "alone"),
    [
        (storms.threads_storm, storms.threads_alone),
        (storms.tasks_storm, storms.tasks_alone),
    ],
)
def test_a_storm_does_all_its_work(
    storm: Callable[[], storms.Storm], alone: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes at least what its conns are busy for; conns beyond the first are counted."""
    monkeypatch.setattr(storms, "CONNECT", 0.0)  # so some may come in time
    took, extra = storm()
    assert took >= storms.BUSY * 0.99
    assert 0 <= extra <= storms.MOST - storms.WARM
    assert alone() >= storms.IDEAL * 0.99


# -- fairness --------------------------------------------------------------------------------------


def test_shares_are_counted_thread_by_thread() -> None:
    """Nobody is left out where there is enough for all."""
    done = fairness.shares(lambda: None, threads=3, seconds=0.05)
    assert len(done) == 3


def test_the_counting_begins_though_somebody_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not been served when patience is over has a share of nothing."""
    first, counted = Lock(), Event()

    class Over(Event):
        def set(self) -> None:
            counted.set()
            super().set()

    monkeypatch.setattr(fairness, "Event", Over)

    def job() -> None:
        if first.acquire(blocking=False):
            counted.wait(30)  # this thread gets nothing done as long as it is counted

    done = fairness.shares(job, threads=3, seconds=0.2, patience=0.05)
    assert 0 in done
    assert any(done)


def test_an_error_of_a_job_reaches_the_caller() -> None:
    """A pool that fails in a fight is not a pool where nobody was served."""

    def job() -> None:
        raise queue.Empty

    with pytest.raises(queue.Empty):
        fairness.shares(job, threads=2, seconds=0.01)


# -- peers -----------------------------------------------------------------------------------------


ENTRANTS = {
    **{f"threads: {entrant.name}": entrant for entrant in field_threads.ENTRANTS},
    **{f"tasks: {entrant.name}": entrant for entrant in field_tasks.ENTRANTS},
}


@pytest.mark.parametrize("name", ENTRANTS)
def test_each_peer_works_or_says_that_it_is_not_installed(name: str) -> None:
    """Taken and given back again and again, as many as it has; nothing else is a reason to fail."""
    try:
        with field.tried(ENTRANTS[name].build, 3) as work:
            work(10)
    except Absent as why:
        assert str(why).startswith("not installed: ")  # noqa: PT017 - it is no error


@pytest.mark.parametrize("entrants", [field_threads.ENTRANTS, field_tasks.ENTRANTS])
def test_the_own_rows_are_there(entrants: list[field.Entrant]) -> None:
    """connpool's own rows cannot be absent."""
    for entrant in entrants[:2]:
        with field.tried(entrant.build, 3) as work:
            work(10)


def test_a_peer_that_has_changed_is_absent() -> None:
    """Whatever it raises before it is timed is the reason in its row."""

    @contextmanager
    def other(conns: int) -> Iterator[Work]:
        raise AttributeError("getconn")
        yield

    with (
        pytest.raises(Absent, match="cannot be measured: AttributeError: getconn"),
        field.tried(other, 3),
    ):
        pass


def test_an_error_while_a_peer_is_timed_is_an_error() -> None:
    """Only the first round is a trial."""
    rounds = count()

    @contextmanager
    def tired(conns: int) -> Iterator[Work]:
        def work(times: int) -> None:
            if next(rounds):
                raise OSError("tired")

        yield work

    with pytest.raises(OSError, match="tired"), field.tried(tired, 3) as work:
        work(1)


def test_what_is_not_installed_is_absent() -> None:
    """By the name of the distribution; and what is installed may still not be importable."""
    with pytest.raises(Absent, match="not installed: no-such-thing"):
        field.find("json", "no-such-thing")
    with pytest.raises(Absent, match=r"cannot be imported: .*no_such_module"):
        field.find("no_such_module", "attrs")
    assert field.find("attr", "attrs").__name__ == "attr"


def test_pairs_and_blocks_take_and_give_as_often_as_they_are_told() -> None:
    """All conns once at the beginning, then one for each operation."""
    line: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(3):
        line.put(number)
    taken, given, entered = [], [], count()

    def take() -> int:
        taken.append(line.get(timeout=5))
        return taken[-1]

    def give(number: int) -> None:
        given.append(number)
        line.put(number)

    def open() -> AbstractContextManager[None]:
        next(entered)
        return nullcontext()

    field.in_pairs(take, give, 3)(4)
    field.in_blocks(open, 3)(4)
    assert taken == given == [0, 1, 2, 0, 1, 2, 0]
    assert next(entered) == 7


def test_a_host_that_fails_does_not_hang_its_work() -> None:
    """What it raised reaches whoever waits for the job."""

    async def host(serve: tasks.Serve) -> None:
        raise OSError("no such host")

    with pytest.raises(OSError, match="no such host"), tasks.hosted(host) as work:
        work(1)


def test_a_host_that_fails_on_its_way_out_is_heard() -> None:
    """The work was done, but the pool could not be taken down."""

    async def host(serve: tasks.Serve) -> None:
        async def job(times: int) -> None:
            """Nothing to do."""

        await serve(job)
        raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"), tasks.hosted(host) as work:
        work(1)


def test_a_fight_counts_who_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows from one run: how many threads, and how evenly."""
    monkeypatch.setattr(peers, "shares", lambda *_: [4, 0, 4, 0])
    served, jain = run(peers.fight(field_threads.ENTRANTS[0]))
    assert (served.measured, served.unit) == (2.0, "served")
    assert jain.measured == pytest.approx(0.5)
    monkeypatch.setattr(peers, "shares", lambda *_: [0, 0])
    assert {result.absent for result in run(peers.fight(field_threads.ENTRANTS[0]))} == {
        "nobody was served"
    }
