"""The book: what users ask of the pool, and what they change in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from connpool.core import Core, Standing
from connpool.errors import FilterError, IdError, MethodError
from tests.core.bench import Bench, error_of, granted, holder, queued


def red(info: Any) -> bool:
    return bool(info.extra == "red")


def broken(info: Any) -> bool:
    raise ZeroDivisionError


# -- questions -------------------------------------------------------------------------------------


def test_what_is_alive_counts() -> None:
    """Resting ones do; those that are being opened, revived or closed do not."""
    bench = Bench()
    ready, resting = bench.conn(), bench.conn(["a", "b"], rest=9.0)
    dead = bench.conn("c", revive=True)
    bench.end(bench.ask("c"), OSError("torn"))
    opening = bench.admit("d").entry
    assert bench.core.count(0.0) == 2
    assert [bench.core.count(0.0, resource) for resource in "abcde"] == [2, 1, 0, 0, 0]
    assert bench.core.resources(0.0) == ["a", "b"]
    alive = [bench.core.alive(entry.id, 0.0) for entry in (ready, resting, dead, opening)]
    assert alive == [True, True, False, False]
    assert not bench.core.alive(99, 0.0)


def test_pictures_of_all_and_of_some() -> None:
    """Alive or to be alive again; a filter chooses, and its error is its caller's."""
    bench = Bench()
    one, two = bench.conn(extra="red"), bench.conn("b", extra="red", revive=True)
    bench.conn(extra="blue")
    bench.admit()
    bench.end(bench.ask("b"), OSError("torn"))
    core = bench.core
    assert [info.id for info in core.infos(None, 0.0)] == [1, 2, 3]
    assert [info.id for info in core.infos(red, 0.0)] == [one.id, two.id]
    assert [info.id for info in core.infos(red, 0.0, "a")] == [one.id]
    assert core.infos(None, 0.0, "x") == []
    assert [entry.id for entry in core.search("a", None, 0.0)] == [1, 3]
    for resource in ((), ("a",)):
        with pytest.raises(ZeroDivisionError):
            core.infos(broken, 0.0, *resource)


def test_an_unknown_id_is_an_id_error() -> None:
    """Of whatever type it is; the error says which, and is a LookupError."""
    bench = Bench()
    for id in (7, None, "one"):
        with pytest.raises(IdError, match="holds no conn") as caught:
            bench.core.info(id, 0.0)  # type: ignore[arg-type]
        assert caught.value.id == id
    with pytest.raises(LookupError):
        bench.core.set_extra(7, "red", 0.0)


QUESTIONS: dict[str, Callable[[Core, float], Any]] = {
    "count": lambda core, now: core.count(now),
    "count of a resource": lambda core, now: core.count(now, "a"),
    "resources": lambda core, now: core.resources(now),
    "infos": lambda core, now: core.infos(None, now),
    "infos of a resource": lambda core, now: core.infos(None, now, "a"),
    "search": lambda core, now: core.search("a", None, now),
    "alive": lambda core, now: core.alive(1, now),
    "stats": lambda core, now: core.stats(now).now.conns,
    "update": lambda core, now: core.update("a", None, None, {"extra": 1}, now),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_expired_conn_does_not_count(question: str) -> None:
    """Whatever is asked first at that instant, with no tick before it."""
    bench = Bench()
    bench.conn(ttl=5.0)
    assert QUESTIONS[question](bench.core, 4.9)
    assert not QUESTIONS[question](bench.core, 5.0)


def test_busy_is_whatever_is_not_done_but_ones_own() -> None:
    """Who closes the pool from inside a call does not wait for that call."""
    bench = Bench()
    assert not bench.core.busy("ann")
    bench.conn()
    bench.conn("b", capacity=2)
    bench.close()
    assert bench.core.busy("ann")
    bench = Bench()
    bench.conn("b", capacity=2)
    bench.ask("b", who="ann")
    bench.close()
    assert not bench.core.busy("ann")
    assert bench.core.busy("bob")


# -- extra -----------------------------------------------------------------------------------------


def test_extra_is_replaced_in_one_step() -> None:
    """The old value is given; also for a conn that is not alive at the moment."""
    bench = Bench()
    entry = bench.conn(extra="red", revive=True)
    assert bench.extra(entry, "blue") == "red"
    bench.end(bench.ask(), OSError("torn"))
    assert bench.extra(entry, "green") == "blue"
    assert bench.info(entry).extra == "green"


def test_extra_of_a_conn_that_is_leaving_serves_nobody() -> None:
    """It is not on the lists any more."""
    bench = Bench()
    entry = bench.conn(extra="blue", capacity=2)
    hope = bench.conn(extra="red")
    bench.ask(filter=red)
    bench.ask()
    pop = bench.pop(entry)
    waiting = bench.ask(filter=red)
    assert bench.extra(entry, "red") == "blue"
    assert queued(waiting)
    assert not pop.done
    assert hope.in_use


def test_a_conn_whose_extra_changes_at_the_end_of_its_life_is_not_lent() -> None:
    """What is due comes first."""
    bench = Bench()
    entry = bench.conn(extra="blue", ttl=5.0, revive=True)
    bench.conn(extra="red")
    bench.ask(filter=red)
    waiting = bench.ask(filter=red)
    bench.now = 5.0
    bench.extra(entry, "red")
    assert queued(waiting)
    assert bench.closing().reason == "expired"


# -- update ----------------------------------------------------------------------------------------


def test_update_changes_the_matching_conns() -> None:
    """And says how many; values are checked as when a conn is put in."""
    bench = Bench()
    one, other = bench.conn(extra="red"), bench.conn(extra="blue")
    changes: dict[str, Any] = {
        "extra": "green",
        "ttl": 9,
        "revive": "force",
        "methods": ["n"],
        "capacity": 2,
    }
    assert bench.update("a", filter=red, **changes) == 1
    info = bench.info(one)
    assert (info.extra, info.ttl, info.revive) == ("green", 9.0, "force")
    assert (set(info.methods), info.capacity) == ({"n"}, 2)
    assert bench.info(other).extra == "blue"
    assert bench.update("x", extra=1) == 0
    assert bench.update("a") == 2


def test_update_by_a_function_of_each_conn() -> None:
    """What it gives comes after what is the same for all."""
    bench = Bench()
    ids = [bench.conn().id for _ in range(3)]
    assert bench.update("a", lambda info: {"extra": info.id}, extra="same", ttl=60) == 3
    assert [info.extra for info in bench.core.infos(None, 0.0)] == ids
    assert bench.update("a", lambda info: {}, extra="same") == 3
    assert {info.extra for info in bench.core.infos(None, 0.0)} == {"same"}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"ttl": -1}, ValueError),
        ({"revive": "no"}, ValueError),
        ({"capacity": 0}, ValueError),
        ({"capacity": 1.5}, TypeError),
        ({"methods": None}, TypeError),
        ({"methods": [[]]}, TypeError),
        ({"resource": "b"}, TypeError),
        ("extra", TypeError),
    ],
)
def test_an_update_is_done_whole_or_not_at_all(changes: Any, kind: type[Exception]) -> None:
    """A value that is wrong for the last conn leaves the first ones as they were."""
    bench = Bench()
    last = [bench.conn(extra="red").id for _ in range(3)][-1]
    before = bench.core.infos(None, 0.0)

    def fn(info: Any) -> Any:
        return changes if info.id == last else {"extra": "blue", "ttl": 1.0, "methods": ["n"]}

    with pytest.raises(kind):
        bench.update("a", fn)
    assert bench.core.infos(None, 0.0) == before


def test_a_function_that_raises_changes_nothing() -> None:
    """Nor a filter that does."""
    bench = Bench()
    first = bench.conn(extra="red").id
    bench.conn(extra="red")

    def fn(info: Any) -> Any:
        return {"extra": "blue"} if info.id == first else {}[info.id]

    with pytest.raises(KeyError):
        bench.update("a", fn)
    with pytest.raises(ZeroDivisionError):
        bench.update("a", filter=broken, extra="blue")
    assert [info.extra for info in bench.core.infos(None, 0.0)] == ["red", "red"]


def test_more_places_serve_who_waits() -> None:
    """At once; fewer take nothing from who has one."""
    bench = Bench()
    entry = bench.conn()
    running = bench.ask(who="ann")
    waiting = [bench.ask() for _ in range(3)]
    bench.update(capacity=3)
    assert [granted(ticket) for ticket in waiting] == [True, True, False]
    bench.update(capacity=1)
    bench.answer(running)
    assert entry.in_use == 2
    assert queued(waiting[2])
    bench.answer(waiting[0])
    assert queued(waiting[2])
    bench.answer(waiting[1])
    assert granted(waiting[2])


def test_other_methods_serve_who_waits_for_them_and_no_others() -> None:
    """A conn that idled for want of them is somebody's; a conn in use changes as well."""
    bench = Bench()
    idle, busy = bench.conn(methods=["x"]), bench.conn(methods=["m", "n"])
    running = bench.ask("a", "m")
    waits, in_vain = bench.ask("a", "m"), bench.ask("a", "n")
    bench.update("a", lambda info: {"methods": ["m"]})
    assert holder(waits) is idle
    assert isinstance(error_of(in_vain), MethodError)
    bench.answer(running)
    assert holder(bench.ask("a", "m")) is busy
    with pytest.raises(MethodError):
        bench.ask("a", "x")


def test_a_conn_with_other_methods_lies_in_its_new_rotation_only() -> None:
    """Once, and with the conns that can do the same."""
    bench = Bench()
    one, two = bench.conn(methods=["m"]), bench.conn(methods=["n"])
    bench.update("a", filter=lambda info: info.id == one.id, methods=["n"])
    assert {holder(bench.ask("a", "n")) for _ in range(2)} == {one, two}
    with pytest.raises(MethodError):
        bench.ask("a", "m")


def test_a_conn_that_is_being_revived_can_be_updated() -> None:
    """Who waits for it is looked at anew; it comes back with what it names itself."""
    bench = Bench()
    bench.conn(revive=True, extra="red")
    bench.end(bench.ask(), OSError("torn"))
    waiting = bench.ask(filter=red)
    assert bench.update("a", ttl=60.0, revive=False, capacity=2) == 1
    assert queued(waiting)
    bench.update("a", extra="blue")
    assert isinstance(error_of(waiting), FilterError)


def test_what_two_conns_exchange_is_never_missing() -> None:
    """Who waits for what one cannot do any more waits for the other, which can now."""
    bench = Bench()
    bench.conn(methods=["m"], extra="red")
    bench.conn(methods=["n"], extra="blue")
    bench.ask("a", "m"), bench.ask("a", "n")
    by_method, by_filter = bench.ask("a", "m"), bench.ask("a", "n", filter=lambda i: i.extra)
    colour = [bench.ask("a", "m", filter=red)]
    swap = {"red": ("blue", ["n"]), "blue": ("red", ["m"])}

    def exchange(info: Any) -> dict[str, Any]:
        extra, methods = swap[info.extra]
        return {"extra": extra, "methods": methods}

    assert bench.update("a", exchange) == 2
    assert [t.standing for t in (by_method, by_filter, *colour)] == [Standing.QUEUED] * 3


def test_a_new_ttl_counts_from_the_init() -> None:
    """A longer one prolongs, None for ever, a shorter one may end a conn at once."""
    bench = Bench()
    entry = bench.conn(ttl=5.0)
    bench.update(ttl=20.0)
    bench.at(10.0)
    assert bench.core.alive(entry.id, 10.0)
    bench.update(ttl=None)
    bench.at(50.0)
    assert bench.core.alive(entry.id, 50.0)
    bench.update(ttl=60.0)
    assert bench.core.next_due() == 60.0
    bench.update(ttl=50.0)
    assert not bench.core.alive(entry.id, 50.0)


def test_a_conn_whose_new_ttl_is_over_is_not_lent() -> None:
    """Though the same update makes it what somebody waits for."""
    bench = Bench()
    bench.conn(extra="red")
    bench.ask()
    idle = bench.conn(extra="blue")
    waiting = bench.ask(filter=red)
    bench.now = 5.0
    assert bench.update("a", filter=lambda info: info.id == idle.id, extra="red", ttl=1.0) == 1
    assert queued(waiting)
    assert not bench.core.alive(idle.id, 5.0)
    assert bench.closing().entry is idle
