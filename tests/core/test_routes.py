"""A live conn without a lease, by all strategies."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from connpool.core import ANY, sticky
from connpool.errors import FilterError, MethodError, PoolClosed, ResourceError
from tests.core.bench import Bench


def pick(bench: Bench, by: Any = None, *, method: Any = ANY, filter: Any = None) -> Any:
    """What a driver does: a glance, and where that gives nothing, a turn."""
    core = bench.core
    named = None if method is ANY else method
    found = core.glance("a", named, by, bench.now) if filter is None else None
    return core.route("a", method, filter, by, bench.now) if found is None else found


def crew(number: int, **known: Any) -> Bench:
    """A bench with so many conns."""
    bench = Bench()
    bench.chances = iter(random.Random(5).random, None)  # type: ignore[assignment]
    for _ in range(number):
        bench.conn(**known)
    return bench


@pytest.mark.parametrize("by", [None, "round_robin"])
def test_each_in_turn(by: Any) -> None:
    """Exactly."""
    bench = crew(5)
    assert set(Counter(pick(bench, by) for _ in range(50)).values()) == {10}


def test_the_first_turn_is_drawn() -> None:
    """50 pools over 5 conns do not all begin with the same."""
    firsts: Counter[int] = Counter()
    chance = random.Random(3)
    for _ in range(50):
        bench = Bench()
        bench.chances = iter(chance.random, None)  # type: ignore[assignment]
        conns = [bench.conn().conn for _ in range(5)]
        firsts[conns.index(pick(bench))] += 1
    assert len(firsts) == 5
    assert max(firsts.values()) < 25


@pytest.mark.parametrize("by", ["random", "two_choices", "least_used", "least_wait"])
@pytest.mark.parametrize("number", [1, 2, 30])
def test_every_strategy_gives_a_live_conn(by: str, number: int) -> None:
    """Of few and of many; all get their share."""
    bench = crew(number)
    assert len({pick(bench, by) for _ in range(40 * number)}) == number


@pytest.mark.parametrize("by", ["two_choices", "least_used", "least_wait"])
def test_one_that_is_used_is_passed_over(by: str) -> None:
    """As long as there is another."""
    bench = crew(2, capacity=2)
    used = bench.ask().entry
    assert used is not None
    assert used.conn not in {pick(bench, by) for _ in range(10)}


@pytest.mark.parametrize("by", ["least_used", "least_wait"])
@pytest.mark.parametrize("number", [3, 30])
def test_where_all_are_used_some_are_compared(by: str, number: int) -> None:
    """And where none idles at the head of the rotation."""
    bench = crew(number)
    for _ in range(number):
        bench.ask()
    everybody = {info.conn for info in bench.core.infos(None, 0.0)}
    assert {pick(bench, by), pick(bench, by)} <= everybody


def test_a_key_sticks_to_its_conn() -> None:
    """And only the keys of a conn that has left move."""
    bench = crew(4)
    before = {key: pick(bench, sticky(key)) for key in range(60)}
    assert before == {key: pick(bench, sticky(key)) for key in range(60)}
    gone = bench.core.find(1, 0.0)
    bench.pop(gone)
    after = {key: pick(bench, sticky(key)) for key in range(60)}
    assert all(after[key] is conn for key, conn in before.items() if conn is not gone.conn)
    assert gone.conn not in after.values()


def test_not_all_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were forgotten go where they went."""
    monkeypatch.setattr("connpool.core.machine.MOST_STUCK", 3)
    bench = crew(4)
    before = [pick(bench, sticky(key)) for key in range(10)]
    assert [pick(bench, sticky(key)) for key in range(10)] == before


def test_a_function_chooses() -> None:
    """It is given the views."""
    bench = crew(3)
    assert pick(bench, lambda views: views[-1]) is bench.core.find(3, 0.0).conn


def test_a_filter_is_heeded() -> None:
    """With each strategy."""
    bench = crew(2)
    blue = bench.conn(extra="blue")
    for by in (None, "random", "least_wait", sticky("key")):
        assert pick(bench, by, filter=lambda info: info.extra == "blue") is blue.conn


def test_errors_are_precise() -> None:
    """Resource before method before filter; and never a division by zero."""
    bench = crew(0)
    with pytest.raises(ResourceError):
        pick(bench)
    entry = bench.conn(revive=True)
    with pytest.raises(MethodError):
        pick(bench, method="x")
    with pytest.raises(FilterError):
        pick(bench, filter=lambda info: False)
    caller = bench.ask()
    bench.end(caller, OSError("torn"))
    with pytest.raises(ResourceError):
        pick(bench)
    bench.work()
    assert pick(bench) is entry.conn
    bench.close()
    with pytest.raises(PoolClosed):
        pick(bench)


def test_what_is_due_is_done_first() -> None:
    """An expired conn is not given."""
    bench = Bench()
    bench.conn(ttl=5)
    lasting = bench.conn()
    pick(bench)
    bench.now = 5.0
    assert {pick(bench) for _ in range(4)} == {lasting.conn}


def test_what_has_no_hash_is_no_strategy_at_a_glance() -> None:
    """It is looked at where there is time."""
    bench = crew(1)
    pick(bench)
    assert bench.core.glance("a", ANY, [], bench.now) is None


def test_turns_go_on_when_conns_come_and_go() -> None:
    """The counter is not set back."""
    bench = crew(3)
    seen = list(itertools.islice((pick(bench) for _ in range(3)), 3))
    new = bench.conn()
    assert new.conn in {pick(bench) for _ in range(4)}
    assert len(set(seen)) == 3


def test_a_key_is_known_to_route_as_well() -> None:
    """Whoever comes without a glance gets the same."""
    bench = crew(3)
    core = bench.core
    first = core.route("a", ANY, None, sticky("key"), 0.0)
    assert core.route("a", ANY, None, sticky("key"), 0.0) is first


def test_a_glance_that_meets_a_used_conn_is_no_answer() -> None:
    """There may be another that is idle."""
    bench = crew(1, capacity=2)
    pick(bench)
    bench.ask()
    assert bench.core.glance("a", ANY, "least_used", 0.0) is None
    assert pick(bench, "least_used") is bench.core.find(1, 0.0).conn
