"""The benchmarks' page in the docs, and what is kept from run to run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__, chart, page, rows, table
from benchmarks.harness import Result, at_least, at_most

RESULTS = {
    result.name: result
    for result in (
        Result("pool.call", "pool.call / bare", at_most(2.0), 3.0, 2.5, 3.5, took=(3e-6, 1e-6)),
        Result("instr.pool.call", "pool.call / bare", None, 4.0, 4.0, 4.0, counted=(400.0, 100.0)),
        Result("peers.LifoQueue", "LifoQueue / bare", None, 2.0, 2.0, 2.0, took=(2e-6, 1e-6)),
        Result("peers.z", "z / bare", None, math.nan, math.nan, math.nan, absent="not installed"),
        Result("peers.async.q", "q / Queue", None, 1.0, 1.0, 1.0, took=(1e-6, 1e-6)),
        Result("peers.jain.z", "Jain", None, 0.5, 0.5, 0.5),
        Result("growth.z.10", "z, 10 conns / z, 1 conn", None, 1.5, 1.4, 1.6, took=(3e-6, 2e-6)),
        Result("growth.async.q.10", "q, 10 conns / q, 1", None, 2.5, 2, 3, took=(5e-6, 2e-6)),
        Result("held.jain", "Jain", at_least(0.9), 0.95, 0.9, 1.0),
        Result("held.tail.z", "that / the middle", None, 3.0, 2.0, 4.0),
        Result("cancelled.z", "z, left of 10 after all", None, 9.0, 7.0, 10.0, unit="conns"),
    )
}
FACTS = {
    "processor": "abacus", "processors": 2, "machine": "M", "python": "CPython 3.11 (of today)",
    "attrs": "1", "libraries": {"z": "2"}, "quick": True,
}  # fmt: skip


# -- the page --------------------------------------------------------------------------------------


def test_the_page_shows_the_figures_that_lie_beside_it() -> None:
    """Nobody has written on it by hand, and the figures have not drifted away from it."""
    results, facts = table.load(page.DATA)
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, results, facts) == text


def test_each_plot_of_the_page_is_there() -> None:
    """And the page shows each of them."""
    text = page.PAGE.read_text("utf-8")
    for name in chart.PLOTS:
        assert (page.FIGURES / f"cost_{name}.svg").stat().st_size < 100_000
        assert f".. image:: figures/cost_{name}.svg" in text


def test_figures_go_between_the_markers_only() -> None:
    """What was there is gone, what is around it stays, and doing it again changes nothing."""
    text = "".join(f"{n}!\n\n.. figures: {n}\n\nstale\n\n.. end of {n}\n" for n in page.SECTIONS)
    filled = page.filled(text, RESULTS, FACTS)
    assert "stale" not in filled
    assert all(f"{name}!\n" in filled for name in page.SECTIONS)
    assert page.filled(filled, RESULTS, FACTS) == filled


def test_a_page_without_a_place_is_refused() -> None:
    """Or a section would be lost in silence."""
    with pytest.raises(AssertionError, match="no place for machine"):
        page.filled("nothing here", RESULTS, FACTS)


def test_a_busy_machine_is_owned_up_to() -> None:
    """Whoever reads the figures has to know; where it was idle there is nothing to say."""
    assert "Others were at work" in " ".join(page.machine(RESULTS, FACTS | {"load": [6.5]}).split())
    assert "Others" not in page.machine(RESULTS, FACTS | {"load": [0.3]})


def test_time_and_instructions_stand_side_by_side() -> None:
    """A line of the first table: ratio, both sides, the same in instructions, the aim."""
    line = page.idle(RESULTS, FACTS).splitlines()[3]
    cells = ["pool.call / bare", "3.000", "3,000", "1,000", "4.000", "400", "100", "<= 2 missed"]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == cells


def test_peers_are_sorted_and_those_that_are_absent_come_last() -> None:
    """Those for tasks, and rows of other kinds, are not among those for threads."""
    lines = page.peers("peers.")(RESULTS, FACTS).splitlines()[3:-1]
    assert [line.split("  ")[0].strip() for line in lines] == ["LifoQueue", "z"]
    assert "not installed" in lines[1]
    (line,) = page.peers("peers.async.")(RESULTS, FACTS).splitlines()[3:-1]
    assert line.startswith("q ")


def test_a_curve_is_one_line() -> None:
    """With a dash for each size that was not measured."""
    lines = page.growth(RESULTS, FACTS).splitlines()[3:-1]
    assert [line.split() for line in lines] == [
        ["z", "1.500", "-", "-", "-"],
        ["q", "(tasks)", "2.500", "-", "-", "-"],
    ]


def test_the_worst_storm_is_what_counts() -> None:
    """Not the middle one."""
    assert page.storm(RESULTS, FACTS).splitlines()[3].split() == ["z", "7"]


def test_missed_aims_are_named() -> None:
    """With how far they are away."""
    text = page.aims(RESULTS, FACTS)
    assert text.startswith("1 aims are met, 1 are missed:")
    assert "``pool.call``" in text
    assert "held.jain" not in text


def test_writing_fills_page_data_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were not measured this time keep their figures."""
    monkeypatch.setattr(page, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(page, "DATA", tmp_path / "figures" / "cost.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "cost.rst")
    monkeypatch.setattr(chart, "PLOTS", {"idle": lambda path, _: path.write_text("drawn")})
    (tmp_path / "cost.rst").write_text(page.DOCS.joinpath("cost.rst").read_text("utf-8"), "utf-8")
    page.write(RESULTS.values(), FACTS, quick=True)
    page.write([RESULTS["peers.LifoQueue"]], FACTS, quick=True)
    assert table.load(page.DATA)[0].keys() == RESULTS.keys()
    assert "<= 2 missed" in page.PAGE.read_text("utf-8")
    assert (tmp_path / "figures" / "cost_idle.svg").read_text() == "drawn"


@pytest.mark.parametrize("name", chart.PLOTS)
def test_each_plot_can_be_drawn_and_twice_the_same(name: str, tmp_path: Path) -> None:
    """Figures that have not changed leave no change behind."""
    pytest.importorskip("matplotlib")
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        chart.PLOTS[name](path, RESULTS)
    one, other = (path.read_text("utf-8") for path in paths)
    assert one == other
    assert "<svg" in one


ROUNDS = ((2, 1.9, 2.1), (2.2, 2.05, 2.3), (3, 2.8, 3.1), (2.2, 2.2, 2.2), (2.01, 2.01, 2.01))

# -- from run to run -------------------------------------------------------------------------------


def test_a_change_is_told_from_noise() -> None:
    """Quartiles that meet are noise, and so is a little where there was one round only."""
    before, same, apart, exact, near = (
        Result("a", "x", None, middle, low, high) for middle, low, high in ROUNDS
    )
    assert table.change(before, same) == "before: 2.000 x, +10 %"
    assert table.change(before, apart) == "before: 2.000 x, +50 % !"
    assert table.change(apart, before) == "before: 3.000 x, -33 % !"
    assert table.apart(before, exact)
    assert not table.apart(before, near)


def test_the_summary_names_what_is_missed_and_what_is_not_measured() -> None:
    """Rows without an aim are not counted."""
    gone = Result("g", "x", at_most(1), math.nan, math.nan, math.nan, absent="not installed")
    assert table.summary([*RESULTS.values(), gone]) == (
        "1 aims met, 1 missed: pool.call\nnot measured: g"
    )
    assert table.summary([RESULTS["held.jain"]]) == "1 aims met, 0 missed"


def test_the_last_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, rough ones apart, where git does not look; an absent row keeps its old figure."""
    monkeypatch.chdir(tmp_path)
    one, other = RESULTS["pool.call"], RESULTS["peers.LifoQueue"]
    gone = Result("pool.call", "x", None, math.nan, math.nan, math.nan, absent="gone")
    table.remember([one], FACTS, quick=True)
    table.remember([other, gone], FACTS, quick=True)
    assert table.figures(table.kept(quick=True)) == {one.name: one, other.name: other}
    assert not table.kept(quick=False).exists()
    assert (table.KEPT / ".gitignore").read_text() == "*\n"


def test_results_survive_a_file(tmp_path: Path) -> None:
    """All of each row: aims, quartiles, both sides."""
    path = tmp_path / "figures.json"
    table.save(path, RESULTS.values(), FACTS, quick=True)
    results, facts = table.load(path)
    assert {n: r for n, r in results.items() if not r.absent} == {
        n: r for n, r in RESULTS.items() if not r.absent
    }
    assert results["peers.z"].absent == "not installed"
    assert facts == FACTS


def test_the_next_run_is_compared_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing needs to be said for that."""
    monkeypatch.chdir(tmp_path)
    results = iter([Result("a", "x", None, m, m, m)] for m in (2.0, 3.0))
    monkeypatch.setattr(rows, "run", lambda *_, **__: next(results))
    for _ in range(2):
        assert __main__.main(["--quick", "--only", "pool.call"]) == 0
    assert capsys.readouterr().out.count("(before: 2.000 x, +50 % !)") == 1


def test_what_was_measured_before_an_interrupt_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes long; what it has found by then is of use."""
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object, **__: object) -> Iterator[Result]:
        yield RESULTS["pool.call"]
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        __main__.main(["--quick"])
    assert table.figures(table.kept(quick=True)).keys() == {"pool.call"}


def test_figures_of_a_file_are_shown_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that are wanted; and they are not taken for a run of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "run", pytest.fail)
    table.save(tmp_path / "f.json", RESULTS.values(), FACTS, quick=True)
    assert __main__.main(["--figures", "f.json", "--only", "pool.call"]) == 0
    out = capsys.readouterr().out
    assert "abacus" in out
    assert "peers.LifoQueue" not in out
    assert "0 aims met, 1 missed: pool.call" in out
    assert not table.KEPT.exists()
