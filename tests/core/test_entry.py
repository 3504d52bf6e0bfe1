"""Entry: its moves, its places, and the pictures of it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from connpool.core import Entry, Info, Stat, State
from connpool.core.entry import MOVES, View, move, snapshot, view
from connpool.core.stats import MEMORY
from tests.core.bench import Bench


def an_entry(**known: Any) -> Entry:
    return Entry(1, SimpleNamespace(resource="a"), None, None, False, **known)


LEGAL = [(state, other) for state, others in MOVES.items() for other in others]
ILLEGAL = [pair for pair in itertools.product(State, State) if pair not in LEGAL]


@pytest.mark.parametrize(("state", "other"), LEGAL)
def test_a_move_of_the_table_is_made(state: State, other: State) -> None:
    """What the table allows is done."""
    entry = an_entry(state=state)
    move(entry, other)
    assert entry.state is other


@pytest.mark.parametrize(("state", "other"), ILLEGAL)
def test_a_move_that_is_not_in_the_table_raises_and_changes_nothing(
    state: State, other: State
) -> None:
    """What it does not allow is an error that names both states."""
    entry = an_entry(state=state)
    with pytest.raises(RuntimeError, match=f"from {state.value} to {other.value}"):
        move(entry, other)
    assert entry.state is state


def test_the_table_names_every_state_and_only_gone_is_final() -> None:
    """No state is forgotten in it, and an entry can leave each but the last."""
    assert set(MOVES) == set(State)
    assert [state for state, others in MOVES.items() if not others] == [State.GONE]


# -- places ----------------------------------------------------------------------------------------


def test_who_holds_the_places_is_known() -> None:
    """Each place has its holder; one who holds two is there twice."""
    entry = an_entry()
    entry.set_capacity(3)
    for who in ("ann", "bob", "ann"):
        entry.take_place(who, now=1.0)
    assert entry.holders == ["ann", "bob", "ann"]
    assert entry.held_by("bob")
    assert not entry.held_by_only("ann")
    entry.leave_place("bob")
    assert entry.held_by_only("ann")
    assert (entry.in_use, entry.since) == (2, 1.0)


def test_nobody_holds_a_conn_that_is_not_used() -> None:
    """Who used it last holds nothing any more."""
    entry = an_entry()
    entry.take_place("ann", now=1.0)
    entry.leave_place("ann")
    assert not entry.held_by("ann")
    assert not entry.held_by_only("ann")


def test_a_conn_that_gets_more_places_while_it_is_used_knows_its_user() -> None:
    """Who has the only place keeps it when there are more."""
    entry = an_entry()
    entry.take_place("ann", now=1.0)
    entry.set_capacity(2)
    entry.take_place("bob", now=2.0)
    assert entry.holders == ["ann", "bob"]


def test_a_conn_that_gets_fewer_places_while_it_is_used_knows_its_users() -> None:
    """Who has a place keeps it when there are fewer; the list goes when nobody needs it."""
    entry = an_entry()
    entry.set_capacity(2)
    entry.take_place("ann", now=1.0)
    entry.take_place("bob", now=1.0)
    entry.set_capacity(1)
    assert entry.holders == ["ann", "bob"]
    entry.leave_place("ann")
    entry.leave_place("bob")
    entry.set_capacity(1)
    assert entry.users is None


# -- figures ---------------------------------------------------------------------------------------


def test_the_mean_is_that_of_the_answered_calls() -> None:
    """Failed calls are counted, but do not make the answered ones look quick."""
    stat = Stat()
    stat.errors = 9
    stat.answered(1.0)
    stat.answered(3.0)
    assert (stat.count, stat.errors, stat.mean) == (11, 9, 2.0)


def test_the_mean_forgets() -> None:
    """A conn that has become ten times slower is known for it after a while."""
    stat = Stat()
    for _ in range(1000):
        stat.answered(1.0)
    for _ in range(3 * MEMORY):
        stat.answered(10.0)
    assert stat.mean > 9.0


def test_a_mean_that_nobody_has_asked_for_forgets_from_then_on() -> None:
    """The straight path only adds calls up: the first who asks gets the mean of them all."""
    stat = Stat(answers=4 * MEMORY, spent=4.0 * MEMORY)
    assert stat.mean == 1.0
    for _ in range(3 * MEMORY):
        stat.answered(10.0)
    assert stat.mean > 9.0
    assert Stat().mean == 0.0


def test_a_conn_without_an_answer_has_no_mean() -> None:
    """Neither before its first call nor after failures only."""
    entry = an_entry()
    assert entry.mean("m") is None
    entry.stat("n").answered(1.0)
    assert entry.mean("m") is None
    entry.stat("m").errors += 1
    assert entry.mean("m") is None
    entry.stat("m").answered(0.5)
    assert entry.mean("m") == 0.5


# -- pictures --------------------------------------------------------------------------------------


def test_info_is_a_snapshot() -> None:
    """It says all there is to say, and does not change afterwards."""
    bench = Bench()
    bench.now = 5.0
    entry = bench.conn(["a", "b"], ["m", "n"], 2, ttl=60.0, revive=True, extra="red")
    ticket = bench.ask()
    bench.now = 7.0
    bench.answer(ticket)
    bench.ask("b", "n")
    info = bench.info(entry)
    bench.extra(entry, "blue")
    bench.answer(bench.ask())
    assert (info.id, info.conn, info.resource) == (entry.id, entry.conn, ("a", "b"))
    assert info.methods == {"m", "n"}
    assert (info.extra, info.ttl, info.revive) == ("red", 60.0, True)
    assert (info.capacity, info.in_use, info.state) == (2, 1, "ready")
    assert (info.last_init, info.last_call, info.cooldown) == (5.0, 7.0, 0.0)
    assert (info.stats["m"].count, info.stats["m"].mean) == (1, 2.0)
    with pytest.raises(TypeError):
        info.stats["m"] = Stat()  # type: ignore[index]


def test_a_conn_that_is_not_open_yet_has_a_picture() -> None:
    """Its resource is what the conn says; its methods are not known yet."""
    info = snapshot(an_entry(), now=0.0)
    assert (info.resource, info.methods, info.state) == ("a", frozenset(), "opening")


def test_a_view_has_the_names_of_info_and_is_live() -> None:
    """A filter reads the same names, as they are now."""
    bench = Bench()
    entry = bench.conn(extra="red")
    shown = view(entry, 0.0)
    entry.stat("m").answered(2.0)
    for field in attrs.fields(Info):
        assert getattr(shown, field.name) == getattr(bench.info(entry), field.name) or (
            field.name == "stats"
        )
    bench.extra(entry, "blue")
    assert shown.extra == "blue"
    assert shown.stats["m"].mean == 2.0
    assert repr(shown) == repr(snapshot(entry, 0.0))


def test_a_view_is_read_only_and_made_once() -> None:
    """A filter cannot change a conn by its view."""
    entry = Bench().conn()
    shown = view(entry, 0.0)
    for field in attrs.fields(Info):
        with pytest.raises(AttributeError):
            setattr(shown, field.name, None)
    with pytest.raises(TypeError):
        shown.stats["m"] = Stat()  # type: ignore[index]
    assert view(entry, 1.0) is shown
    assert isinstance(shown, View)


def test_what_is_left_of_a_rest_is_never_negative() -> None:
    """A rest that is over long since is no rest."""
    bench = Bench()
    entry = bench.conn(rest=5.0)
    assert bench.info(entry).cooldown == 5.0
    bench.at(2.0)
    assert bench.info(entry).cooldown == 3.0
    assert view(entry, 2.0).cooldown == 3.0
    bench.at(50.0)
    assert bench.info(entry).cooldown == 0.0
    assert view(entry, 50.0).cooldown == 0.0
