"""The report: a text that says who holds what, and who waits for what and why."""

from __future__ import annotations

from typing import Any

from connpool.core import ANY, Ticket
from connpool.core.report import report
from connpool.errors import PoolTimeout
from tests.core.bench import Bench, error_of
from tests.core.making import Workshop


def text(bench: Bench, *, trace: bool = False) -> str:
    def trace_of(who: Any, where: Any) -> list[str]:
        return [f"{who} is at {where}"]

    return report(bench.core, bench.now, lambda who: f"<{who}>", trace_of if trace else None)


def advice(bench: Bench) -> str:
    """The line of advice."""
    return line(bench, "advice:")


def line(bench: Bench, start: str) -> str:
    """The line of a report that begins so."""
    return next(line for line in text(bench).splitlines() if line.strip().startswith(start))


def test_the_first_line_is_the_pool() -> None:
    """Its name, whether it is open, and the numbers."""
    bench = Bench()
    bench.conn()
    bench.ask(), bench.ask()
    first = text(bench).splitlines()[0]
    for part in ("'bench'", "open", "1 conns alive", "1 places in use", "1 callers waiting"):
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


def test_who_has_checked_a_conn_out_is_named_once() -> None:
    """Though he holds all its places."""
    bench = Bench()
    bench.conn(capacity=3)
    entry = bench.core.lease("a", ANY, None, None, "ann", 0.0, True)
    assert entry is not None
    bench.at(2.0)
    assert "3 of 3 in use, checked out by <ann> for 2.00 s" in line(bench, "conn 1")
    bench.submit(Ticket("a", ANY, whole=True))
    assert "the whole conn" in line(bench, "1 wait for method any method")


def test_a_trace_says_where_holders_are() -> None:
    """And where they checked the conn out, if they did."""
    bench = Bench()
    bench.conn(), bench.conn()
    entry = bench.core.lease("a", ANY, None, None, "ann", 0.0, True)
    assert entry is not None
    entry.where = "line 7"
    bench.ask(who="bob")
    traced = text(bench, trace=True)
    assert "ann is at line 7" in traced
    assert "bob is at None" in traced
    assert "is at" not in text(bench)


def test_the_last_failures_are_told_with_their_age() -> None:
    """Those of conns that have recovered too, and no more than a few."""
    bench = Bench()
    bench.conn(revive=True)
    for number in range(7):
        bench.end(bench.ask(), OSError(f"torn {number}"))
        bench.at(bench.now + 100.0)
        bench.work()
        bench.answer(bench.ask())
    told = [line for line in text(bench).splitlines() if " s ago" in line]
    assert len(told) == 5
    assert "torn 6" in told[-1]
    assert "'a'" in told[-1]
    assert "100.0 s ago" in told[-1]


def test_advice_where_nobody_waits() -> None:
    """All is well, or something is being mended, or it is all over."""
    bench = Bench()
    bench.conn(revive=True)
    assert "nobody waits" in advice(bench)
    bench.end(bench.ask(), OSError("torn"))
    assert "1 conns are being revived" in advice(bench)
    bench.close()
    assert "closed" in advice(bench)


def test_advice_names_who_holds_a_conn_for_long() -> None:
    """That is the likeliest cause of a line."""
    bench = Bench()
    bench.conn()
    bench.ask(who="ann"), bench.ask()
    assert "add conns" in advice(bench)
    bench.at(6.0)
    assert "6 s: look at <ann>" in advice(bench)


def test_advice_where_conns_rest() -> None:
    """More of them, or fewer questions."""
    bench = Bench()
    bench.conn(rest=9.0)
    bench.ask()
    assert "ask less often" in advice(bench)


def test_advice_where_no_conn_is_alive() -> None:
    """Why is in the last failure, if there was one."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    bench.ask()
    assert "see the last failure" in advice(bench)
    shop = Workshop()
    shop.supply()
    shop.ask("db")
    assert "fast enough" in advice(shop)


def test_advice_about_a_supply() -> None:
    """It is full, or its conns are on their way."""
    shop = Workshop()
    shop.supply(max_size=2)
    shop.ask("db")
    shop.settle()
    shop.ask("db")
    assert "max_connecting" in advice(shop)
    shop.settle()
    shop.ask("db")
    assert "max_size is 2" in advice(shop)


def test_a_timeout_carries_a_summary() -> None:
    """What there was instead of a free conn, and what would help."""
    bench = Bench()
    bench.conn(), bench.conn(revive=True), bench.conn(rest=99.0)
    bench.ask()
    bench.end(bench.ask(), OSError("torn"))
    patient = bench.ask(filter=lambda info: info.id == 1, timeout=3.0)
    bench.at(3.0)
    error = error_of(patient)
    assert isinstance(error, PoolTimeout)
    for part in ("2 alive", "1 in use", "3.00 s", "1 resting", "1 being revived", "0 other"):
        assert part in error.summary


def test_a_summary_says_what_is_being_opened() -> None:
    """Where a supply is at work."""
    shop = Workshop()
    shop.supply()
    patient = shop.ask("db", timeout=3.0)
    shop.at(3.0)
    error = error_of(patient)
    assert isinstance(error, PoolTimeout)
    assert "1 being opened" in error.summary
