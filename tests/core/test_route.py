"""A conn without a lease: who is picked, as conns come and go, and what it costs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from connpool.core import sticky
from connpool.core.candidates import WINDOW
from tests.core.bench import Bench
from tests.core.test_flatness import FEW, MANY, lines_of


def pick(bench: Bench, by: Any = None, method: str = "m", filter: Any = None) -> Any:
    """What a driver does: a glance, and where that gives nothing, a turn."""
    conn = bench.core.glance("a", method, by, bench.now) if filter is None else None
    return bench.core.route("a", method, filter, by, bench.now) if conn is None else conn


def house(count: int, **known: Any) -> Bench:
    bench = Bench(audited=False)
    for _ in range(count):
        bench.conn(**known)
    return bench


def only(id: int) -> Callable[[Any], bool]:
    return lambda info: bool(info.id == id)


@pytest.mark.parametrize("glancing", [True, False])
def test_round_robin_is_exact(glancing: bool) -> None:
    """Each gets the same number, and never twice in a row, whichever door it came by."""
    bench = house(7)

    def one() -> Any:
        return pick(bench) if glancing else bench.core.route("a", "m", None, None, bench.now)

    picks = [one() for _ in range(700)]
    assert set(Counter(picks).values()) == {100}
    assert picks[:7] == picks[7:14]


@pytest.mark.parametrize("by", [None, "round_robin", "random", "two_choices"])
def test_fifty_pools_do_not_begin_with_the_same_server(by: Any) -> None:
    """First picks over five conns are spread."""
    rng, firsts = random.Random(3), Counter[int]()
    for _ in range(50):
        bench = Bench(audited=False)
        bench.chances = iter(rng.random, None)  # type: ignore[assignment]
        conns = [bench.conn().conn for _ in range(5)]
        firsts[conns.index(pick(bench, by))] += 1
    assert len(firsts) == 5
    assert max(firsts.values()) <= 20


def test_two_choices_never_compares_one_with_itself() -> None:
    """So of two the less used one is taken always, whatever the dice say."""
    bench = house(2, capacity=9)
    busy = bench.ask().entry
    assert busy is not None
    pick(bench)  # from here on each pick draws twice
    for chance in (0.0, 0.3, 0.5, 0.99):
        for other in (0.0, 0.3, 0.5, 0.99):
            bench.chances = iter((chance, other))  # type: ignore[assignment]
            assert pick(bench, "two_choices") is not busy.conn


def test_only_its_own_keys_move_when_a_conn_comes_or_goes() -> None:
    """And when it is back they are, too."""
    bench = Bench()
    conns = [bench.conn(revive=True) for _ in range(5)]
    keys = [f"user {number}" for number in range(300)]

    def places() -> dict[str, Any]:
        return {key: pick(bench, sticky(key)) for key in keys}

    before = places()
    assert set(before.values()) == {entry.conn for entry in conns}
    lost = bench.ask()
    bench.end(lost, OSError("torn"))
    without = places()
    moved = {key for key in keys if before[key] is not without[key]}
    assert lost.entry is not None
    assert moved == {key for key in keys if before[key] is lost.entry.conn}
    bench.work()
    assert places() == before
    newcomer = bench.conn()
    after = places()
    assert {after[key] for key in keys if after[key] is not before[key]} == {newcomer.conn}


@pytest.mark.parametrize(
    "by", [None, "random", "two_choices", "least_used", "least_wait", sticky("key"), min]
)
def test_a_lost_conn_leaves_at_once_and_is_back_when_revived(by: Any) -> None:
    """However one is picked."""
    bench = Bench()
    bench.chances = iter(random.Random(5).random, None)  # type: ignore[assignment]
    router = (lambda shown: shown[-1]) if by is min else by
    first, second = bench.conn(revive=True), bench.conn(revive=True)
    for entry in (second, first):
        call = bench.ask(filter=only(entry.id))
        bench.end(call, OSError("torn"))
        left = {first.conn, second.conn} - {entry.conn}
        assert {pick(bench, router) for _ in range(20)} == left
        bench.work()
    assert {pick(bench) for _ in range(4)} == {first.conn, second.conn}


STRATEGIES = [None, "round_robin", "random", "two_choices", "least_used", "least_wait", sticky(7)]


@pytest.mark.parametrize("by", STRATEGIES)
def test_a_pick_is_flat(by: Any) -> None:
    """Of ten conns or ten thousand, by a glance."""
    few, many = house(FEW), house(MANY)
    for bench in (few, many):
        pick(bench, by)  # the roll is called, and the key finds its place
    assert lines_of(lambda: pick(few, by)) == lines_of(lambda: pick(many, by)) < 60


@pytest.mark.parametrize("by", STRATEGIES)
def test_a_pick_of_many_that_are_busy_is_flat(by: Any) -> None:
    """Where none idles some are compared, and no more than some."""

    def busy(count: int) -> Bench:
        bench = house(count, capacity=2)
        for _ in range(count):
            bench.ask()
        pick(bench, by)
        return bench

    few, many = busy(WINDOW + 1), busy(MANY)
    assert lines_of(lambda: pick(few, by)) == lines_of(lambda: pick(many, by)) < 400
