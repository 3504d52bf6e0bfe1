"""The scenarios: that the driver is honest, theory is theory, and the pool serves as well as it
can.  All in invented time and with fixed seeds, so nothing here depends on the machine."""

from __future__ import annotations

import doctest
import importlib
import json
import math
import pkgutil
import random
from pathlib import Path

import attrs
import pytest

from benchmarks import quality
from benchmarks.quality import (
    __main__,
    births,
    choices,
    faults,
    fleet,
    fleet_plans,
    lines,
    page,
    show,
    theory,
)
from benchmarks.quality.books import Books
from benchmarks.quality.drive import outage, run
from benchmarks.quality.scores import Score, Table
from benchmarks.quality.servers import Conn, Server
from benchmarks.quality.streams import WORK, Call, poisson

SEED = 3
MODULES = [f"benchmarks.quality.{module.name}" for module in pkgutil.iter_modules(quality.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_a_module_are_true(name: str) -> None:
    """They are not found by themselves, since benchmarks are no tests."""
    assert not doctest.testmod(importlib.import_module(name)).failed


# -- theory ----------------------------------------------------------------------------------------


def test_one_server_is_the_same_by_every_law() -> None:
    """Whether there is one line or one for each."""
    for load in (0.3, 0.8, 0.95):
        best = theory.own_lines(load)
        for law in (theory.common_line(1, load), theory.in_turn(1, load)):
            assert law.mean == pytest.approx(best.mean)
            assert law.quantile(0.99) == pytest.approx(best.quantile(0.99))


def test_erlang_is_in_the_tables() -> None:
    """The chance to wait with 10 servers and 8 of them busy on average is 0.4092."""
    assert theory.common_line(10, 0.8).p == pytest.approx(0.4092, abs=1e-4)


@pytest.mark.parametrize(("load", "time"), [(0.5, 1.2657), (0.8, 1.9475), (0.9, 2.6141)])
def test_two_choices_are_in_the_tables(load: float, time: float) -> None:
    """Times until the answer, as published."""
    assert 1 + theory.shorter_of(2, load) == pytest.approx(time, abs=1e-3)


def test_a_quantile_is_where_so_many_wait_longer() -> None:
    """And none where more than that do not wait at all."""
    law = theory.common_line(10, 0.8)
    assert law.p * math.exp(-law.rate * law.quantile(0.99)) == pytest.approx(0.01)
    assert law.quantile(1 - law.p) == 0.0


def test_turns_are_better_than_chance_and_worse_than_one_line() -> None:
    """And the more servers there are, the more even are the gaps."""
    waits = [theory.in_turn(servers, 0.8).mean for servers in (1, 2, 10, 50)]
    assert waits == sorted(waits, reverse=True)
    assert theory.common_line(50, 0.8).mean < waits[-1]


def test_a_replay_of_one_server_is_lindleys() -> None:
    """Each waits for what is left of the work before."""
    chance = random.Random(SEED)
    calls, at = [], 0.0
    for _ in range(300):
        at += chance.expovariate(0.9)
        calls.append((at, chance.expovariate(1.0)))
    expected, left, last = [], 0.0, 0.0
    for at, work in calls:
        left = max(0.0, left - (at - last))
        expected.append(left)
        left, last = left + work, at
    assert list(theory.replay(calls, 1)) == pytest.approx(expected)


# -- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", choices.NAMES)
def test_a_common_line_is_exact(by: str) -> None:
    """However a conn is chosen, the very same callers wait just as long as in one ideal line."""
    phases = [(4.0, 10 * 0.9 / WORK)]
    books = Books()
    drive = lines.pool([Server() for _ in range(10)], SEED, books=books)
    drive.feed(choices.choosing(poisson(SEED, phases), by))
    run(drive.time)
    best = theory.replay(((c.asked, c.work) for c in poisson(SEED, phases)), 10)
    assert sorted(books.waits) == pytest.approx(sorted(best), abs=1e-9)
    assert books.lost == books.gave_up == 0


def agrees(score: Score, errors: float = 4.0) -> bool:
    """Whether a mean wait is what theory says, as far as the sample can tell."""
    return abs(score.mean - score.ideal) < errors * score.error


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_steady_load_waits_as_erlang_says(load: float) -> None:
    """Mean and p99, from a stream of chance."""
    score = lines.steady("default", load, SEED, calls=40_000)
    assert agrees(score)
    assert score.p99 == pytest.approx(score.ideal_p99, rel=0.15)
    assert score.servers > 0.999


@pytest.mark.parametrize("by", ["random", "round_robin", "two_choices"])
def test_lines_of_their_own_wait_as_theory_says(by: str) -> None:
    """M/M/1, E/M/1 and the limit of two choices."""
    score = lines.shared(by, 0.8, SEED, calls=25_000)
    assert score.error < score.ideal / 10
    assert agrees(score)


@pytest.mark.parametrize("by", ["default", "round_robin", "random"])
def test_routing_waits_as_theory_says(by: str) -> None:
    """By turns, or by chance."""
    assert agrees(lines.shared(by, 0.8, SEED, calls=40_000, way="route"))


def test_shared_conns_by_default_are_better_than_two_choices() -> None:
    """A few are compared, and not the same few each time."""
    default = lines.shared("default", 0.8, SEED, calls=20_000)
    assert default.mean < 0.4 * theory.shorter_of(2, 0.8) * WORK


def test_the_least_of_all_is_near_to_one_line() -> None:
    """A few times the ideal, where chance is hundreds of times."""
    for by in ("least_used", "least_wait"):
        score = lines.shared(by, 0.8, SEED, calls=8_000)
        assert score.mean < 6 * score.ideal


def test_a_spike_is_over_as_soon_as_can_be() -> None:
    """No server stands still while somebody waits."""
    score = lines.spike("default", SEED, scale=0.2)
    assert (score.mean, score.p99) == pytest.approx((score.ideal, score.ideal_p99))


@pytest.mark.parametrize("by", choices.NAMES)
def test_ten_times_overload_wastes_nothing(by: str) -> None:
    """Conns work on answers for callers who are still there, and no caller is starved."""
    score = lines.overload(by, SEED, seconds=1.0)
    assert score.useful > 0.98
    assert score.most <= lines.PATIENCE
    assert score.callers > 0.9  # with some 20 answers each


def test_a_limited_line_keeps_waits_short_under_overload() -> None:
    """As long as those before need, and not as long as patience lasts."""
    score = lines.overload("default", SEED, 2.0, most=50)
    assert score.useful > 0.98
    assert score.mean < 1.1 * score.ideal_p99


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", choices.NAMES)
@pytest.mark.parametrize("shared", [False, True])
def test_one_that_fails_at_once_does_not_draw_all_calls(by: str, shared: bool) -> None:
    """It gets the share of a healthy one, give or take what chance and keys do."""
    score = faults.fails(by, SEED, 10.0, shared=shared)
    assert score.figure < (0.3 if by == "sticky" else 0.24)
    assert score.lost == pytest.approx(score.figure * score.calls)


@pytest.mark.parametrize("by", choices.NAMES)
def test_one_that_hangs_up_gets_probes_only(by: str) -> None:
    """A few of thousands, further and further apart."""
    score = faults.hangs_up(by, SEED, 10.0)
    assert score.figure < 0.01


def test_a_slow_one_is_avoided_where_waits_are_compared() -> None:
    """And not where calls are dealt out."""
    waits = {by: faults.slow(by, SEED, 10.0, shared=True).p99 for by in choices.NAMES}
    assert max(waits["least_wait"], waits["least_used"]) < waits["round_robin"] / 50
    assert min(waits, key=lambda by: waits[by]) in {"least_wait", "default"}


@pytest.mark.parametrize("by", choices.NAMES)
def test_a_rolling_restart_costs_the_calls_that_run_and_no_more(by: str) -> None:
    """Others move, and find that their server's conns have been opened again."""
    score = faults.rolling(by, SEED)
    assert score.lost == score.figure == score.best > 0
    assert score.most < 0.1


# -- births ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("connecting", [1, 2, 5, 50])
def test_a_cold_start_takes_as_long_as_it_must(connecting: int) -> None:
    """And opens few conns more than can be of use."""
    score = births.cold("default", connecting, SEED)
    assert score.figure == pytest.approx(score.best)
    assert score.connects <= min(50, 2 * connecting)


def test_conns_of_one_age_do_not_die_together() -> None:
    """No tenth of the spread sees more than a quarter of them go; nobody waits for it."""
    score = births.expiry("default", SEED, 61.0)
    assert score.connects == births.BORN
    assert score.figure <= 0.25
    assert score.most == score.lost == 0


def test_a_long_tail_finds_its_conns_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly as often as if those that were used last were open, and nobody used them."""
    monkeypatch.setattr(births, "RESOURCES", 500)
    monkeypatch.setattr(births, "PLACES", 50)
    monkeypatch.setattr(births, "RATE", 100.0)
    score = births.tail(20, SEED, 40.0)
    assert score.best - 0.1 < score.figure < score.best + 0.05
    assert score.gave_up == score.lost == 0


def test_chance_comes_from_the_seed() -> None:
    """The same seed gives the same score, to the last digit, and another one another."""
    first, again, other = (lines.steady("random", 0.8, seed, 500) for seed in (1, 1, 2))
    assert str(first) == str(again)  # which knows that nan is nan
    assert first.mean != other.mean


# -- the driver ------------------------------------------------------------------------------------


def test_a_call_on_a_dead_conn_moves_and_one_that_runs_is_lost() -> None:
    """The driver tells the pool what a good conn would tell it."""
    books = Books()
    first, second = Server(), Server()
    drive = lines.pool((), SEED, books=books)
    for server in (first, second):
        drive.put(Conn(server), revive=True)
    outage(drive.time, first, 1.0, 1.0)
    drive.feed([Call(0.999, 0.5, 1), Call(2.5, 0.5, 2), Call(2.5, 0.5, 3)])
    run(drive.time, 10.0)
    assert list(books.failures) == [0.999]
    assert books.served == {2: 1, 3: 1}
    assert first.connects  # by itself: its death was noticed


def test_a_server_that_handles_some_connects_at_once_is_slower_with_more() -> None:
    """As behind an accept queue."""
    server = Server(connect=1.0, logins=2)
    assert [server.greet(0.0) for _ in range(4)] == [1.0, 1.0, 1.5, 2.0]
    assert server.greeted == 4


# -- the fleet -------------------------------------------------------------------------------------

SMALL = fleet.Plan("small", servers=40, pools=4, conns=2, rate=50.0, after=15.0)


def test_a_fleet_is_whole_again_after_a_restart() -> None:
    """All conns are there, only calls that ran are lost, and all servers have their part."""
    toll = fleet.play(attrs.evolve(SMALL, min_size=2, notices=True), SEED)
    assert toll.conns == 320
    assert toll.connects - toll.refused == 320
    assert toll.lost < 10
    assert toll.gave_up == 0
    assert 0 < toll.full < 15
    assert sum(toll.series) == toll.connects


def test_few_slots_are_held_by_servers_that_hang() -> None:
    """Callers of servers that are well have to wait for them, unless there are more slots."""
    few, many = (
        fleet.play(attrs.evolve(SMALL, hang=4, max_connecting=most), SEED) for most in (2, 20)
    )
    assert many.quiet < few.quiet
    assert many.p99 < few.p99


def test_a_rolling_restart_and_an_expiry_are_played() -> None:
    """Each with its own clock."""
    rolling = fleet.play(attrs.evolve(SMALL, event="rolling", after=5.0), SEED)
    assert rolling.refused > 0
    expiry = attrs.evolve(SMALL, event="expiry", ttl=20.0, min_size=2, after=30.0)
    even, together = (
        fleet.play(attrs.evolve(expiry, spread=spread), SEED) for spread in (0.25, 0.0)
    )
    assert even.refused == even.lost == 0
    assert even.burst < together.burst / 2


def test_many_pools_do_not_route_first_to_the_same_server() -> None:
    """By any choice that does not look at use."""
    for by in choices.NAMES:
        assert max(fleet_plans.first_picks(by, "route", SEED)) < 30


# -- what is shown ---------------------------------------------------------------------------------


def test_the_command_plays_what_is_wanted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It prints a table and keeps everything."""
    kept = tmp_path / "scores.json"
    assert __main__.main(["--only", "cold", "--quick", "--json", str(kept)]) == 0
    assert "max_connecting=50" in capsys.readouterr().out
    scores = json.loads(kept.read_text("utf-8"))["results"]
    assert [score["connects"] for score in scores[:4]] == [2, 4, 10, 50]


@pytest.mark.parametrize(
    "arguments", [["--only", "nothing"], ["--write-docs", "--quick"], ["--write-docs", "--only=x"]]
)
def test_the_command_refuses_what_makes_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is played or written."""
    with pytest.raises(SystemExit):
        __main__.main(arguments)
    assert "error: --" in capsys.readouterr().err


def test_the_same_scores_are_drawn_in_the_same_bytes(tmp_path: Path) -> None:
    """So that a picture in the docs changes only with what it shows."""
    pytest.importorskip("matplotlib")
    for where in ("a", "b"):
        __main__.main(["--only", "one slow, shared", "--quick", "--plot", str(tmp_path / where)])
    first, second = (tmp_path / where / "waits.svg" for where in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_page_without_its_marks_is_not_written() -> None:
    """Rather than losing what stands there."""
    with pytest.raises(ValueError, match="expected the marks"):
        page.put("nothing", "fleet", [])


PAGE = page.PAGE.read_text("utf-8")


@pytest.mark.parametrize("table", __main__.tables(__main__.SEED, quick=False), ids=lambda t: t.name)
def test_the_page_shows_what_is_played_today(table: Table) -> None:
    """Scenario, columns and ways; whoever changes one writes the page anew."""
    assert f"    {table.name}: {table.says}\n" in PAGE
    _, _, rest = PAGE.partition(f"    {table.name}: {table.says}\n\n")
    heading, *rows = rest.partition("\n\n")[0].splitlines()
    assert heading.split() == " ".join(show.heads(table)).split()
    assert len(rows) == len(table.runs)


def test_the_page_shows_the_figures_of_today() -> None:
    """Those that are quick to get are got anew."""
    (table,) = (t for t in births.scenarios(__main__.SEED, quick=False) if t.name == "cold start")
    shown = show.text(table, [run() for run in table.runs])
    assert page.put(PAGE, "scenarios", [shown]) != PAGE
    assert all(f"    {line}\n" in PAGE for line in shown.splitlines() if line)


def test_the_page_shows_the_fleets_of_today() -> None:
    """Plans and columns."""
    for plan in fleet_plans.plans(quick=False):
        assert f"    {plan.label} " in PAGE
    assert all(head in PAGE for head in fleet_plans.HEADS)
    assert fleet_plans.herd(__main__.SEED).splitlines()[-1] in PAGE
