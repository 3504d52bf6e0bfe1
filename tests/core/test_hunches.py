"""Conns that passed a function lately are asked before others, and each time anew."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from connpool.core import hunches, index
from tests.core.bench import Bench, granted, holder


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few conns are taken for many."""
    monkeypatch.setattr(index, "FEW", 0)


def coloured(*colours: str, **options: Any) -> Bench:
    bench = Bench(audited=False)  # an audit asks functions as well
    for colour in colours:
        bench.conn(extra=colour, **options)
    return bench


def asking(bench: Bench, colour: str, **wish: Any) -> tuple[int | None, list[int]]:
    """Who is lent to somebody with a function, and who was asked before."""
    asked: list[int] = []

    def is_it(info: Any) -> bool:
        if info.id not in asked:  # the head of the rotation is asked twice
            asked.append(info.id)
        return bool(info.extra == colour)

    ticket = bench.ask(filter=is_it, **wish)
    if not granted(ticket):
        bench.cancel(ticket)
        return None, asked
    entry = holder(ticket)
    bench.answer(ticket)
    return entry.id, asked


def test_who_passed_is_asked_first() -> None:
    """After the head of the rotation; the others are left in peace."""
    bench = coloured("blue", "blue", "red", "red")
    assert asking(bench, "red") == (3, [1, 2, 3])
    assert asking(bench, "red") == (3, [1, 3])
    assert asking(bench, "blue") == (1, [1])
    assert asking(bench, "red") == (3, [2, 3])


def test_several_that_passed_take_turns() -> None:
    """As many as are remembered."""
    bench = coloured("blue", "red", "red")
    call = bench.ask(filter=lambda info: info.id == 2)
    assert asking(bench, "red") == (3, [1, 3])
    bench.answer(call)
    call = bench.ask(filter=lambda info: info.id == 3)
    assert asking(bench, "red") == (2, [1, 2])
    bench.answer(call)
    assert [asking(bench, "red")[0] for _ in range(4)] == [3, 2, 3, 2]


def test_a_hunch_that_is_wrong_costs_a_question() -> None:
    """The conn has changed, or it is gone."""
    bench = coloured("blue", "blue", "red")
    one, _, other = bench.core.entries.values()
    assert asking(bench, "red") == (3, [1, 2, 3])
    bench.extra(other, "blue")
    bench.conn(extra="red")
    assert asking(bench, "red") == (4, [1, 3, 2, 4])
    bench.pop(bench.core.entries[4])
    bench.extra(other, "red")
    assert asking(bench, "red") == (3, [1, 3])
    bench.extra(one, "red")
    assert asking(bench, "red") == (1, [1])


def test_shared_conns_are_compared_as_ever() -> None:
    """Where none of those that pass is idle."""
    bench = coloured("red", "red", capacity=9)
    for _ in range(2):
        bench.ask()
    assert asking(bench, "red")[0] in {1, 2}
    assert asking(bench, "red")[0] in {1, 2}


def test_who_waits_is_given_hope_by_who_passed() -> None:
    """The others need not be asked."""
    bench = coloured("blue", "blue", "red")
    assert asking(bench, "red")[0] == 3
    for _ in range(3):
        bench.ask()
    assert asking(bench, "red") == (None, [3])


def test_other_callables_are_known_by_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """And too many functions are forgotten together."""
    monkeypatch.setattr(hunches, "MOST_FUNCTIONS", 1)
    bench = coloured("blue", "red")
    for _ in range(2):
        call = bench.ask(filter=partial(_has, "red"))
        assert holder(call).id == 2
        bench.answer(call)
    assert asking(bench, "red") == (2, [1, 2])
    group = bench.core.entries[1].group
    assert group is not None
    assert group.hunches is not None
    assert len(group.hunches.passed) == 1


def _has(extra: Any, info: Any) -> bool:
    return bool(info.extra == extra)
