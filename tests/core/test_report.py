"""The report: a text that says who holds what, and who waits for what and why."""

from __future__ import annotations

from typing import Any

from connpool.core import ANY
from connpool.core.report import report
from tests.core.bench import Bench


def text(bench: Bench) -> str:
    return report(bench.core, bench.now, lambda who: f"<{who}>")


def line(bench: Bench, start: str) -> str:
    """The line of a report that begins so."""
    return next(line for line in text(bench).splitlines() if line.strip().startswith(start))


def test_the_first_line_is_the_pool() -> None:
    """Its name, whether it is open, and the numbers."""
    bench = Bench()
    bench.conn()
    bench.ask(), bench.ask()
    first = text(bench).splitlines()[0]
    for part in ("'bench'", "open", "1 conns alive", "1 calls running", "1 callers waiting"):
        assert part in first
    bench.close()
    assert "closed" in text(bench).splitlines()[0]


def test_each_conn_has_a_line_under_its_resource() -> None:
    """With its state, its users and its rest."""
    bench = Bench()
    one, two = bench.conn(), bench.conn("b", capacity=2)
    resting = bench.conn("b", rest=9.0)
    bench.ask(who="ann")
    bench.ask("b", who="bob"), bench.ask("b", who="cid")
    bench.at(2.5)
    assert "1 alive" in line(bench, "'a'")
    assert "2 alive" in line(bench, "'b'")
    mine = line(bench, f"conn {one.id}")
    assert "1 of 1" in mine
    assert "<ann>" in mine
    assert "2.5" in mine
    shared = line(bench, f"conn {two.id}")
    assert "2 of 2" in shared
    assert "<bob>, <cid>" in shared
    assert "6.5" in line(bench, f"conn {resting.id}")


def test_who_waits_is_named_by_what_is_waited_for() -> None:
    """How many, for how long, and whether with a filter."""
    bench = Bench()
    bench.conn()
    bench.ask()
    bench.ask(), bench.ask("a", ANY), bench.ask(filter=lambda info: True)
    bench.at(1.0)
    bench.ask()
    bench.at(3.0)
    waiting = [line for line in text(bench).splitlines() if " wait for " in line]
    assert len(waiting) == 3
    assert "2 wait for method 'm'" in waiting[0]
    assert "for 3" in waiting[0]
    assert "any method" in waiting[1]
    assert "filter" in waiting[2]


def test_conns_on_their_way_in_or_out_are_there_too() -> None:
    """Under no resource."""
    bench = Bench()
    leaving, coming = bench.conn(), bench.admit().entry
    bench.ask()
    bench.pop(leaving)
    assert "draining" in line(bench, f"conn {leaving.id}")
    assert "opening" in line(bench, f"conn {coming.id}")


def test_the_last_failure_of_a_resource_is_told() -> None:
    """While there is somebody to tell it of."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn by rats"))
    assert "torn by rats" in text(bench)


def test_no_conn_and_no_extra_is_shown() -> None:
    """They may hold secrets."""

    class Secret(str):
        def __repr__(self) -> str:
            raise AssertionError("shown")

    bench = Bench()
    entry = bench.conn(extra=Secret())
    entry.conn.__class__ = type("Safe", (entry.conn.__class__,), {"__repr__": Secret.__repr__})
    assert "conn 1" in text(bench)


def test_a_broken_repr_does_not_break_the_report() -> None:
    """What cannot be shown is said to be so."""

    class Odd:
        def __repr__(self) -> Any:
            raise ZeroDivisionError

    bench = Bench()
    bench.conn(Odd())
    assert "repr fails" in text(bench)
