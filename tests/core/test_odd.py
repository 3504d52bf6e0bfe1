"""What odd things have found in the core, each as the shortest story."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest

from connpool.conn import Reply, asked, describe, has, hashable, places, seconds
from connpool.core import (
    ANY,
    Backoff,
    Outcome,
    State,
    Supply,
    check_revive,
    of_error,
    of_reply,
    sticky,
    survives,
)
from connpool.core.report import report
from connpool.core.revive import advice
from connpool.errors import Busy, CallError, InitError, PoolTimeout, ResourceError
from tests.core.bench import Bench, Line, error_of, granted, holder, queued
from tests.core.making import Workshop
from tests.odd import OddError, OddFailure, OddTorn, Proxy, Spoilt, spoilt

# -- keys that raise, or become others -------------------------------------------------------------


@pytest.mark.parametrize("way", ["hash", "eq"])
def test_a_key_that_raises_is_not_let_in(way: str) -> None:
    """It would raise at whoever looks for another one of its hash."""
    odd = spoilt(way)
    with pytest.raises(TypeError, match=r"resource of .*expected a hashable that can be compared"):
        describe(Line(odd, ["m"], 1), ["m"])
    with pytest.raises(TypeError, match="expected hashables in the collection"):
        describe(Line("a", [odd], 1), [odd])
    with pytest.raises(TypeError, match="resource: expected a hashable"):
        Supply(odd, object)
    assert hashable("a", "key") == "a"
    assert not has(frozenset({"m"}), spoilt("hash"))


def change_hash(key: Spoilt) -> None:
    key.hashed += 1


def raise_always(key: Spoilt) -> None:
    key.raises.update(("hash", "eq", "repr"))


BECOMES = pytest.mark.parametrize("becomes", [change_hash, raise_always])
Becomes = Callable[[Spoilt], None]


@BECOMES
def test_a_conn_leaves_though_its_resource_and_method_have_become_others(becomes: Becomes) -> None:
    """Who gave such keys finds the conn no more; that it goes harms nobody."""
    bench = Bench()
    resource, method = Spoilt("resource", 1), Spoilt("method", 2)
    entry, other = bench.conn([resource, "a"], [method, "m"], capacity=2), bench.conn("a")
    held = bench.ask("a", filter=lambda info: info.id == entry.id)
    becomes(resource)
    becomes(method)
    bench.end(held, OSError("torn"))
    bench.work()
    assert list(bench.core.entries.values()) == [other]
    assert [listing.resource for listing in bench.core.listings()] == ["a"]
    assert granted(bench.ask("a"))


@BECOMES
def test_who_waits_with_a_method_that_has_become_another(becomes: Becomes) -> None:
    """He waits in vain, others are served, and his time ends as any; the conn is there again."""
    bench = Bench()
    method = Spoilt("method", 2)
    bench.conn(methods=["m", method])
    running, odd = bench.ask(), bench.ask(method=method, timeout=5.0)
    same = bench.ask(method=method, timeout=5.0)
    becomes(method)
    usual = bench.ask()
    bench.answer(running)
    assert (granted(usual), queued(odd)) == (True, True)
    bench.cancel(same)
    bench.answer(usual)
    bench.at(5.0)
    assert isinstance(error_of(odd), PoolTimeout)
    assert granted(bench.ask())
    assert not list(bench.core.listings()[0].line)


def test_a_method_that_has_become_equal_to_another_is_told_from_it() -> None:
    """Two needs, one of which would be taken for the other."""
    bench = Bench()
    first, second = Spoilt("method", 1), Spoilt("method", 2)
    bench.conn(methods=["m", first, second])
    running = bench.ask()
    one, two = bench.ask(method=first), bench.ask(method=second)
    first.hashed = 2
    bench.cancel(one)
    bench.answer(running)
    assert granted(two)


@BECOMES
def test_a_call_ends_though_its_method_has_become_another(becomes: Becomes) -> None:
    """Its place is back, whatever can be counted of it."""
    bench = Bench()
    method = Spoilt("method", 2)
    entry = bench.conn(methods=[method, "m"], capacity=2)
    for end in (bench.answer, lambda call: bench.end(call, ValueError("no"))):
        method.raises.clear()
        bench.update(methods=[method, "m"])
        bench.answer(bench.ask())
        call = bench.ask(method=method)
        becomes(method)
        end(call)
        assert entry.in_use == 0
        assert entry.mean(method) is None or becomes is change_hash
    assert granted(bench.ask())


def test_a_supply_goes_on_though_its_key_has_become_another() -> None:
    """What is asked of its conns is asked of the key by those who ask, and of nobody else."""
    bench = Workshop()
    key = Spoilt("key", 1)
    bench.supply(key, min_size=1, max_size=2)
    entry = bench.born()
    held = bench.lease(key)
    change_hash(key)
    bench.forfeit(held, Outcome(end="dead", error=OSError()), OSError())
    bench.settle()
    (born,) = bench.core.entries.values()
    assert born is not entry
    bench.close()
    bench.settle()
    assert not bench.core.entries


def test_a_supply_whose_key_raises_opens_no_more() -> None:
    """Each attempt fails, and is closed; the pause grows, and others go on."""
    bench = Workshop()
    key = Spoilt("key", 1)
    supply = bench.supply(key, min_size=1)
    raise_always(key)
    with pytest.raises(OddError):
        bench.born()
    bench.look()
    bench.closed(bench.closing())
    assert supply.failures == 1
    assert supply.retry_at > bench.now
    bench.conn("a")
    assert granted(bench.ask("a"))


class Touchy(Spoilt):
    """One that lets itself be compared once, as when it is let in."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Touchy):
            raise OddError("eq")
        return False

    def __hash__(self) -> int:
        return self.hashed


@pytest.mark.parametrize("given", [False, True])
def test_a_conn_that_cannot_be_listed_was_not_opened(given: bool) -> None:
    """Its error reaches who adds it; it is closed, unless it was open when it came."""
    bench = Bench()
    bench.conn(Touchy("key", 1), ["m", Touchy("method", 2)])
    permit = bench.admit(["b", Touchy("key", 1)], given=given)
    with pytest.raises(OddError):
        bench.opened(permit)
    bench.look()
    assert [closing.info for closing in bench.permits] == ([] if given else [None])
    bench.work()
    assert len(bench.core.entries) == len(bench.core.listings()) == 1
    with pytest.raises(ResourceError):
        bench.ask("b")
    bench.conn("b", ["m", Touchy("method", 2)])
    permit = bench.admit("b", ["x", Touchy("method", 2)])
    with pytest.raises(OddError):
        bench.opened(permit)
    bench.look()
    assert bench.core.stats(bench.now).since_start.open_failed == 2
    assert granted(bench.ask("b"))


def test_a_conn_that_cannot_be_listed_when_it_is_back_is_tried_again() -> None:
    """It is closed first, and opened when its time has come."""
    bench = Bench()
    bench.conn(Touchy("key", 1))
    entry = bench.conn("b", revive=True)
    bench.end(bench.ask("b"), OSError("torn"))
    bench.closed(bench.closing())
    entry.conn.resource = ["b", Touchy("key", 1)]
    with pytest.raises(OddError):
        bench.opened(bench.opening())
    bench.look()
    closing = bench.closing()
    assert (entry.state, closing.entry, closing.info) == (State.REVIVING, entry, None)
    bench.closed(closing)
    entry.conn.resource = "b"
    bench.at(bench.now + 10.0)
    bench.work()
    assert holder(bench.ask("b")) is entry


def test_an_update_to_a_method_that_raises_changes_nothing() -> None:
    """All or none, whenever it is noticed."""
    bench = Bench()
    first, second = bench.conn(methods=["m"]), bench.conn(methods=["n"])
    bench.conn("b", ["x", Touchy("method", 2)])
    bench.conn(methods=["m", Touchy("method", 2)])

    def change(info: Any) -> dict[str, Any]:
        methods = ["new"] if info.id == first.id else ["m", Touchy("method", 2)]
        return {"extra": "changed", "methods": methods}

    with pytest.raises(OddError):
        bench.update("a", change)
    assert (first.extra, second.extra) == (None, None)
    assert granted(bench.ask(method="n"))


def test_a_pop_that_is_given_up_for_a_conn_whose_key_raises() -> None:
    """Nobody could ask for it: it is closed."""
    bench = Bench()
    key = Spoilt("key", 1)
    entry = bench.conn(key)
    held = bench.ask(key)
    pop = bench.pop(entry)
    raise_always(key)
    bench.unpop(pop)
    bench.answer(held)
    bench.work()
    assert not bench.core.entries


def test_a_key_of_sticky_that_raises_is_not_remembered() -> None:
    """It goes to the same conn all the same, and so do others of its hash."""
    bench = Bench()
    bench.conn(), bench.conn()
    key = Spoilt("key", hash("other"))
    core = bench.core
    first = core.route("a", ANY, None, sticky(key), 0.0)
    key.raises.add("eq")
    assert core.glance("a", ANY, sticky("other"), 0.0) is None
    assert core.route("a", ANY, None, sticky("other"), 0.0) is not None
    assert core.route("a", ANY, None, sticky(key), 0.0) is first


# -- what conns say --------------------------------------------------------------------------------


class Unwilling:
    """A conn that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise OddError(name)


def test_what_a_conn_need_not_say_it_has_not_said_if_it_raises() -> None:
    """Whether it survives an interrupt, what its resource is when it was never opened."""
    assert not survives(Unwilling())
    assert asked(Unwilling(), "resource") is None
    bench = Bench()
    bench.core.admit(Unwilling(), now=0.0)
    (info,) = bench.core.abandon(0.0)
    assert info.resource is None


ODD_ERRORS = (
    CallError(closed="yes"),  # type: ignore[arg-type]
    CallError(closed=spoilt()),  # type: ignore[arg-type]
    CallError(cooldown=Proxy()),  # type: ignore[arg-type]
    Busy(Proxy()),  # type: ignore[arg-type]
)


@pytest.mark.parametrize("error", ODD_ERRORS, ids=["str", "odd", "proxy", "busy"])
def test_an_error_that_makes_no_sense_is_told_to_its_caller(error: Any) -> None:
    """And the conn stays."""
    ended = of_error(error, False)
    assert ended.error is not error
    assert (ended.end, ended.rest, ended.moves) == (None, 0.0, False)


def test_an_error_that_raises_when_it_is_looked_at() -> None:
    """What it raises is the caller's; a conn that was cut short is given up all the same."""

    class Bad(Busy):
        @property
        def cooldown(self) -> Any:
            raise OddError("cooldown")

        @cooldown.setter
        def cooldown(self, value: Any) -> None:
            """Not kept."""

    class Cut(BaseException):
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise OddError("class")

    assert isinstance(of_error(Bad(), False).error, OddError)
    assert of_error(Bad(), False).end is None
    assert of_error(Cut(), False).end == "interrupted"


@pytest.mark.parametrize("closed", ["yes", 1, spoilt()], ids=["str", "int", "odd"])
def test_a_reply_that_makes_no_sense_is_told_to_its_caller(closed: Any) -> None:
    """What was expected, and what came."""
    ended = of_reply(Reply(1, closed=closed))
    assert isinstance(ended.error, TypeError)
    assert "closed of a Reply: expected True or False, got " in str(ended.error)
    assert ended.end is None


def test_an_error_with_a_truth_of_its_own_is_a_cause_like_others() -> None:
    """It is not asked for it: those who wait in vain are shown it."""
    bench = Bench()
    bench.conn(revive=True)
    running, late = bench.ask(), bench.ask(timeout=1.0)
    torn = OddTorn()
    bench.end(running, torn)
    bench.at(1.0)
    assert error_of(late).__cause__ is torn
    assert "last failures" in report(bench.core, 1.0, str)


def test_advice_that_raises_is_none() -> None:
    """The pool's own pause is taken."""

    class Bad(InitError):
        @property
        def retry_after(self) -> Any:
            raise OddError("retry_after")

        @retry_after.setter
        def retry_after(self, value: Any) -> None:
            """Not kept."""

    assert advice(Bad()) is None
    assert advice(InitError(retry_after=Proxy())) is None  # type: ignore[arg-type]


# -- numbers ---------------------------------------------------------------------------------------


def test_a_conn_with_a_billion_places_can_be_held_whole() -> None:
    """That takes no more than one."""
    bench = Bench()
    entry = bench.conn(capacity=sys.maxsize)
    held = bench.lease()
    assert (entry.in_use, entry.holders) == (sys.maxsize, [held.who])
    bench.update(capacity=10**9)
    bench.release(held)
    assert [granted(bench.ask()), granted(bench.ask())] == [True, True]
    with pytest.raises(ValueError, match="capacity: expected at most"):
        places(sys.maxsize + 1)


class Number(int):
    """A whole number with an arithmetic of its own."""

    def __float__(self) -> float:
        raise OddError("float")

    def __lt__(self, other: object) -> bool:
        raise OddError("lt")

    __gt__ = __le__ = __ge__ = __lt__


def test_of_a_number_only_its_value_counts() -> None:
    """Not what its class makes of it."""
    assert seconds(Number(3), "ttl") == 3.0
    assert type(places(Number(3))) is int
    assert type(Supply("a", object, min_size=Number(1), max_size=Number(2)).max_size) is int
    assert type(check_revive(type("Text", (str,), {})("force"))) is str


@pytest.mark.parametrize("jitter", [0.0, 1.0, 5.0, 1e308])
def test_pauses_are_finite(jitter: float) -> None:
    """Whatever the settings: an endless one would mean that the conn is given up."""
    huge = Backoff(first=1e308, factor=1e308, jitter=jitter, most=sys.float_info.max)
    for attempt in (1, 2, 3, 1000):
        for chance in (0.0, 0.5, 0.99):
            wait = huge.delay(attempt, lambda chance=chance: chance)  # type: ignore[misc]
            assert 0 <= wait < math.inf


# -- filters and routers ---------------------------------------------------------------------------


class Result:
    """A filter's answer that does something when it is asked whether it is true."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __bool__(self) -> bool:
        self.act()
        return True


@pytest.mark.parametrize("free", [1, 0])
def test_the_truth_of_what_a_filter_says_is_asked_behind_the_shield(free: int) -> None:
    """It may no more call the pool than the filter itself."""
    bench = Bench()
    bench.conn()
    if not free:
        bench.ask()
    with pytest.raises(RuntimeError, match="may not call the pool it serves"):
        bench.ask(filter=lambda info: Result(lambda: bench.core.tick(bench.now)))


def test_a_router_may_sort_what_it_is_given() -> None:
    """Its choice is found by what it is, not by where it lies."""
    bench = Bench()
    first, second = bench.conn(), bench.conn()

    def last(infos: list[Any]) -> Any:
        infos.sort(key=lambda info: -info.id)
        return infos.pop(0)

    assert holder(bench.ask(by=last)) is second
    assert holder(bench.ask(by=last)) is first


class Empty:
    """A filter that is false."""

    def __call__(self, info: Any) -> bool:
        return True

    def __len__(self) -> int:
        raise OddError("len")


def test_a_filter_is_not_asked_whether_it_is_true() -> None:
    """The report says that there is one."""
    bench = Bench()
    bench.conn()
    bench.ask(), bench.ask(filter=Empty())
    assert "with a filter" in report(bench.core, 0.0, str)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, OddFailure])
@pytest.mark.parametrize("when", ["served", "looked for"])
def test_what_a_filter_raises_reaches_those_who_gave_it(
    error: type[BaseException], when: str
) -> None:
    """Whatever it is, unless it is an interrupt of the one at the keyboard."""
    bench = Bench()
    entry, other = bench.conn(), bench.conn()
    wrong: list[BaseException] = []

    def filter(info: Any) -> bool:
        if wrong:
            raise wrong[0]
        return bool(info.id == entry.id)

    running, others = bench.ask(filter=filter), bench.ask()
    waiting, behind = bench.ask(filter=filter), bench.ask()
    wrong.append(error())
    if when == "served":
        bench.answer(running)
    else:
        bench.end(running, OSError("torn"))
    assert error_of(waiting) is wrong[0]
    bench.answer(others)
    assert granted(behind)
    assert other.in_use + entry.in_use == 1


@pytest.mark.parametrize("when", ["served", "looked for"])
def test_an_interrupt_in_a_filter_goes_its_way(when: str) -> None:
    """It is of the one at the keyboard, whoever's filter it meets."""
    bench = Bench(audited=False)
    bench.conn(), bench.conn()
    wrong: list[BaseException] = []

    def filter(info: Any) -> bool:
        if wrong:
            raise wrong[0]
        return True

    running, _, waiting = bench.ask(), bench.ask(), bench.ask(filter=filter)
    wrong.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        if when == "served":
            bench.answer(running)
        else:
            bench.end(running, OSError("torn"))
    assert queued(waiting)


def test_a_repr_that_calls_the_pool_is_refused() -> None:
    """An error is told all the same, without it."""
    bench = Bench()

    class Nosy(Spoilt):
        def __repr__(self) -> str:
            bench.core.tick(bench.now)
            return "never"

    with pytest.raises(ResourceError, match="repr fails"):
        bench.ask(Nosy("key", 1))
    with pytest.raises(ResourceError, match="repr fails"):
        bench.core.route(Nosy("key", 1), ANY, None, None, 0.0)
