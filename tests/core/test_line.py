"""The desk, where conns meet those who wait: what is waited for, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Standing, Ticket
from connpool.errors import (
    Busy,
    Closed,
    FilterError,
    InitError,
    MethodError,
    NestedCall,
    PoolTimeout,
    ResourceError,
)
from tests.core.bench import Bench, error_of, granted, holder, queued


class Colour:
    """A filter that counts how often it is asked."""

    def __init__(self, colour: str) -> None:
        self.colour = colour
        self.asked = 0

    def __call__(self, info: Any) -> bool:
        self.asked += 1
        return bool(info.extra == self.colour)


def red(info: Any) -> bool:
    return bool(info.extra == "red")


def moody(info: Any) -> bool:
    if info.extra == "odd":
        raise ZeroDivisionError("odd")
    return bool(info.extra == "red")


# -- what can still come ---------------------------------------------------------------------------


def test_a_busy_conn_is_waited_for() -> None:
    """Its return serves who waits."""
    bench = Bench()
    bench.conn()
    running, waiting = bench.ask(), bench.ask()
    bench.answer(running)
    assert granted(waiting)
    assert bench.woken == [waiting]


def test_a_resting_conn_is_waited_for() -> None:
    """The end of its rest serves who waits."""
    bench = Bench()
    bench.conn(rest=5.0)
    waiting = bench.ask()
    bench.at(4.9)
    assert queued(waiting)
    bench.at(5.0)
    assert granted(waiting)


def test_a_conn_that_is_being_revived_is_waited_for() -> None:
    """However long its server is away."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    waiting = bench.ask()
    bench.closed(bench.closing())
    bench.failed(bench.opening())
    assert queued(waiting)
    bench.at(5.0)
    bench.opened(bench.opening())
    assert granted(waiting)


def test_a_conn_that_is_opened_for_the_first_time_is_not_waited_for() -> None:
    """It may never come, and nobody knows yet what it can do; but who waits anyway gets it."""
    bench = Bench()
    permit = bench.admit()
    with pytest.raises(ResourceError):
        bench.ask()
    bench.conn()
    bench.ask()
    waiting = bench.ask()
    bench.opened(permit)
    assert holder(waiting) is permit.entry


def test_what_will_never_come_is_not_waited_for() -> None:
    """The precise error comes at once, however patient the caller is."""
    bench = Bench()
    bench.conn(extra="blue")
    bench.ask()
    with pytest.raises(ResourceError):
        bench.ask("b")
    with pytest.raises(MethodError):
        bench.ask("a", "n")
    with pytest.raises(FilterError):
        bench.ask(filter=red)
    assert bench.core.waiting == 0


def test_when_the_last_hope_dies_the_waiting_ends() -> None:
    """At once, with the error that is true then."""
    bench = Bench()
    bench.conn(["a", "b"], ["m", "n"])
    bench.conn("b", ["m"], extra="blue")
    running = bench.ask("b", "n")
    bench.ask("b", "m")
    in_vain = (
        bench.ask("a", "m"),
        bench.ask("b", "n"),
        bench.ask("b", "m", filter=lambda i: not i.extra),
    )
    waiting = bench.ask("b", "m")
    bench.end(running, OSError("torn"))
    kinds = [type(error_of(ticket)) for ticket in in_vain]
    assert kinds == [ResourceError, MethodError, FilterError]
    assert queued(waiting)


def test_when_one_hope_dies_another_is_looked_for() -> None:
    """Who waits need not notice."""
    bench = Bench()
    one, two = bench.conn(), bench.conn()
    running = [bench.ask(), bench.ask()]
    waiting = bench.ask(), bench.ask()
    bench.end(running[0], OSError("torn"))
    assert queued(waiting[0])
    assert {one.state.value, two.state.value} == {"draining", "ready"}
    bench.answer(running[1])
    assert holder(waiting[0]) is two


def test_a_revival_that_ends_for_good_ends_the_waiting() -> None:
    """And its error is the cause that those who waited are told."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    waiting = bench.ask()
    bench.closed(bench.closing())
    never = InitError("wrong password", retry_after=float("inf"))
    bench.failed(bench.opening(), never)
    assert isinstance(error_of(waiting), ResourceError)
    assert error_of(waiting).__cause__ is never


def test_who_waits_learns_why_it_takes_so_long() -> None:
    """The last failure is the cause of the timeout."""
    bench = Bench()
    bench.conn(revive=True)
    bench.end(bench.ask(), OSError("torn"))
    waiting = bench.ask(timeout=0.5)
    bench.closed(bench.closing())
    refused = OSError("refused")
    bench.failed(bench.opening(), refused)
    bench.at(0.5)
    assert isinstance(error_of(waiting), PoolTimeout)
    assert error_of(waiting).__cause__ is refused


def test_twenty_conns_whose_server_went_away_cost_a_call_no_more_than_a_reconnect() -> None:
    """It meets each of them once at most, and is served by the first that is back."""
    bench = Bench()
    for _ in range(20):
        bench.conn(revive=True)
    ticket, hops = bench.ask(), 0
    while granted(ticket):
        ticket = bench.move(ticket, Closed())
        hops += 1
    assert hops == 20
    bench.closed(bench.closing())
    bench.opened(bench.opening())
    assert granted(ticket)
    assert bench.now == 0.0


def test_a_return_between_the_look_and_the_queueing_is_seen() -> None:
    """Who found nothing and then queues is given what came back in between."""
    bench = Bench()
    entry = bench.conn()
    running = bench.ask()
    assert bench.core.take("a", "m", None, None, None, bench.now) is None
    bench.answer(running)
    assert holder(bench.ask()) is entry


@pytest.mark.parametrize("end", [Closed(), OSError("torn"), Reply(1, closed=True)])
def test_a_lost_conn_wakes_those_who_wait_for_another_resource_of_it(end: Any) -> None:
    """Nobody sleeps on, though nothing can come: on this resource or on another."""
    bench = Bench()
    bench.conn(["a", "b"])
    running = bench.ask("a")
    here, there = bench.ask("a"), bench.ask("b")
    bench.end(running, end)
    assert [here.standing, there.standing] == [Standing.FAILED] * 2


# -- filters ---------------------------------------------------------------------------------------


def test_those_who_wait_with_one_filter_are_asked_about_together() -> None:
    """A return costs one question, not one for each of them."""
    bench = Bench(audited=False)
    bench.conn(extra="red")
    bench.conn(extra="blue")
    wish = Colour("red")
    running, other = bench.ask(filter=wish), bench.ask()
    waiting = [bench.ask(filter=wish) for _ in range(100)]
    wish.asked = 0
    bench.answer(other)
    assert wish.asked == 1
    bench.answer(running)
    assert wish.asked == 2
    assert granted(waiting[0])


def test_equal_filters_are_told_apart() -> None:
    """By what they are, not by the user's idea of equality."""

    class Same(Colour):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    bench = Bench()
    bench.conn(extra="red")
    running = bench.ask()
    waiting = bench.ask(filter=Same("red"))
    with pytest.raises(FilterError):
        bench.ask(filter=Same("blue"))
    bench.answer(running)
    assert granted(waiting)


def test_a_filter_that_raises_when_asking_tells_its_caller() -> None:
    """Whether a conn is free or busy; nothing else changes."""
    bench = Bench()
    entry = bench.conn(extra="odd")
    bench.conn(methods=["n"], extra="odd")
    with pytest.raises(ZeroDivisionError):
        bench.ask(filter=moody)
    with pytest.raises(ZeroDivisionError):
        bench.ask("a", ANY, filter=moody)
    running = bench.ask()
    with pytest.raises(ZeroDivisionError):
        bench.ask(filter=moody)
    waiting = bench.ask()
    bench.answer(running)
    assert holder(waiting) is entry


def test_a_filter_that_raises_later_tells_its_own_callers_only() -> None:
    """The conn goes on to the next who wants it."""
    bench = Bench(audited=False)
    bench.conn(extra="odd")
    hope = bench.conn(extra="red")
    running, _ = bench.ask(), bench.ask()
    in_trouble = [queue_with_a_moody_filter(bench) for _ in range(2)]
    even = bench.ask()
    assert hope.in_use
    bench.answer(running)
    assert [type(error_of(ticket)) for ticket in in_trouble] == [ZeroDivisionError] * 2
    assert granted(even)


def queue_with_a_moody_filter(bench: Bench) -> Ticket:
    """A caller whose filter meets its odd conn only later."""
    odd = next(e for e in bench.core.entries.values() if e.extra == "odd")
    odd.extra = "blue"
    ticket = bench.ask(filter=moody)
    odd.extra = "odd"
    return ticket


def test_a_filter_that_raises_when_a_new_hope_is_looked_for_tells_its_callers() -> None:
    """One after the other, and nobody else."""
    bench = Bench(audited=False)
    hope = bench.conn(extra="red")
    bench.conn(extra="odd")
    running = bench.ask(filter=lambda info: info.id == hope.id)
    other = bench.ask()
    in_trouble = [queue_with_a_moody_filter(bench) for _ in range(2)]
    waiting = bench.ask()
    bench.end(running, OSError("torn"))
    assert [type(error_of(ticket)) for ticket in in_trouble] == [ZeroDivisionError] * 2
    bench.answer(other)
    assert granted(waiting)


def test_an_interrupt_out_of_a_filter_costs_the_conn_nothing() -> None:
    """It passes through, and the conn is in its place."""
    bench = Bench(audited=False)
    entry = bench.conn(extra="red")
    bench.conn("b", ["m", "n"])
    interrupted = False

    def interrupting(info: Any) -> bool:
        if interrupted:
            raise KeyboardInterrupt
        return True

    running = bench.ask()
    waiting = bench.ask(filter=interrupting)
    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        bench.answer(running)
    bench.cancel(waiting)
    assert holder(bench.ask(timeout=0)) is entry


# -- a filter may not call the pool ----------------------------------------------------------------


DOORS: dict[str, Any] = {
    "take": lambda bench, ticket: bench.core.take("a", "m", None, None, None, bench.now),
    "submit": lambda bench, ticket: bench.ask(),
    "end": lambda bench, ticket: bench.end(ticket, ValueError()),
    "admit": lambda bench, ticket: bench.admit(),
    "extra": lambda bench, ticket: bench.core.set_extra(1, None, bench.now),
    "update": lambda bench, ticket: bench.core.update("a", None, None, {}, bench.now),
    "info": lambda bench, ticket: bench.core.info(1, bench.now),
    "infos": lambda bench, ticket: bench.core.infos(None, bench.now),
    "count": lambda bench, ticket: bench.core.count(bench.now),
    "alive": lambda bench, ticket: bench.core.alive(1, bench.now),
    "resources": lambda bench, ticket: bench.core.resources(bench.now),
    "search": lambda bench, ticket: bench.core.search("a", None, bench.now),
    "stats": lambda bench, ticket: bench.core.stats(bench.now),
    "tick": lambda bench, ticket: bench.core.tick(bench.now),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("where", ["the head", "another", "waiting", "router", "fn"])
def test_a_filter_that_calls_the_pool_is_refused(door: str, where: str) -> None:
    """At whatever door, wherever it runs; nothing is changed, and who runs it can be told."""
    bench = Bench(audited=False)
    bench.me = "ann"
    bench.conn(), bench.conn()
    ticket = bench.ask()
    shielded: list[Any] = []

    def knock(info: Any) -> Any:
        if where == "another" and info.id != 1:
            return False
        shielded.append(bench.core.shielded)
        return DOORS[door](bench, ticket)

    if where == "another":
        bench.answer(ticket)
        ticket = bench.ask(filter=lambda info: info.id == 2)
        bench.conn(methods=["m", "n"])
    if where == "waiting":
        bench.ask()
    with pytest.raises(RuntimeError, match="may not call the pool"):
        if where == "router":
            bench.ask(by=knock, who="ann")
        elif where == "fn":
            bench.update(fn=knock)
        else:
            bench.ask(filter=knock, who="ann")
    assert shielded == ["ann"]
    assert bench.core.shielded is None
    assert ticket.standing is Standing.GRANTED
    bench.answer(ticket)
    assert bench.core.due > bench.now


# -- a call from inside a call ---------------------------------------------------------------------


def test_a_call_that_would_wait_for_itself_is_refused() -> None:
    """By whoever holds the only conn that could serve; others may wait for it."""
    bench = Bench()
    bench.conn()
    bench.ask(who="ann")
    with pytest.raises(NestedCall, match="wait for itself") as caught:
        bench.ask(who="ann")
    assert (caught.value.resource, caught.value.method) == ("a", "m")
    assert queued(bench.ask(who="bob"))


def test_a_call_that_would_wait_for_itself_is_refused_where_others_wait_too() -> None:
    """They wait with good reason; identities are compared by value, as those of threads must be."""
    bench = Bench()
    bench.conn()
    bench.ask(who=10**9)
    assert queued(bench.ask(who="bob"))
    with pytest.raises(NestedCall):
        bench.ask(who=int("1000000000"))


def test_who_holds_all_places_of_all_conns_is_refused() -> None:
    """And who holds all but one is not."""
    bench = Bench()
    bench.conn(capacity=2)
    bench.conn()
    bench.ask(who="ann"), bench.ask(who="ann")
    others = bench.ask(who="bob")
    waiting = bench.ask(who="ann")
    assert queued(waiting)
    bench.answer(others)
    assert granted(waiting)
    with pytest.raises(NestedCall):
        bench.ask(who="ann")


def test_a_call_from_inside_a_call_to_something_else_may_wait() -> None:
    """Another resource, another method of another conn, a filter that wants another conn."""
    bench = Bench()
    own = bench.conn(methods=["m", "n"])
    other = bench.conn("a", ["n"])
    bench.conn("b")
    bench.ask(who="ann", filter=lambda info: info.id == own.id)
    bench.ask("a", "n", who="bob")
    bench.ask("b", who="bob")
    assert queued(bench.ask("b", who="ann"))
    assert queued(bench.ask("a", "n", who="ann"))
    assert queued(bench.ask("a", "n", who="ann", filter=lambda info: info.id == other.id))
    with pytest.raises(NestedCall):
        bench.ask("a", "n", who="ann", filter=lambda info: info.id == own.id)


def test_who_cannot_be_told_is_not_refused() -> None:
    """Where nobody knows who asks, the timeout must do."""
    bench = Bench()
    bench.conn()
    bench.ask()
    assert queued(bench.ask())


def test_a_call_whose_last_other_hope_dies_does_not_wait_for_itself() -> None:
    """Then only the conn it holds is left."""
    bench = Bench()
    own, other = bench.conn(), bench.conn()
    first, second = bench.ask(who="ann"), bench.ask(who="bob")
    assert holder(first) is own
    nested = bench.ask(who="ann")
    assert holder(second) is other
    bench.end(second, OSError("torn"))
    assert isinstance(error_of(nested), NestedCall)


# -- what changes who can serve --------------------------------------------------------------------


def test_a_change_of_extra_serves_who_waits_for_it() -> None:
    """A conn that idled is what somebody waited for."""
    bench = Bench()
    bench.conn(extra="red")
    idle = bench.conn(extra="blue")
    bench.ask(filter=red)
    waiting = bench.ask(filter=red)
    assert queued(waiting)
    assert bench.extra(idle, "red") == "blue"
    assert holder(waiting) is idle


def test_a_change_of_extra_during_a_call_counts_when_the_conn_is_back() -> None:
    """And is not rolled back by the end of the call."""
    bench = Bench()
    entry = bench.conn(extra="red")
    running = bench.ask(filter=red)
    waiting = bench.ask(filter=red)
    other = bench.ask()
    assert bench.extra(entry, "blue") == "red"
    assert isinstance(error_of(waiting), FilterError)
    bench.answer(running)
    assert holder(other) is entry
    assert bench.info(entry).extra == "blue"


def test_conns_that_rest_in_turn_make_no_ping_pong() -> None:
    """Two conns that both say Busy without a cooldown: a handful of hops a second."""
    bench = Bench()
    bench.conn(), bench.conn()
    ticket, hops = bench.ask(timeout=10.0), 0
    while bench.now < 10.0:
        while granted(ticket):
            ticket = bench.move(ticket, Busy())
            hops += 1
        bench.at(min(filter(None, (bench.core.next_due(), bench.core.next_deadline(), 10.0))))
    assert isinstance(error_of(ticket), PoolTimeout)
    assert hops < 60


def test_callers_go_to_the_conn_that_is_free_soonest() -> None:
    """Of those that rest, whatever the order in which they began."""
    bench = Bench()
    late, soon = bench.conn(), bench.conn()
    ticket = bench.ask()
    assert holder(ticket) is late
    ticket = bench.move(ticket, Busy(9.0))
    assert holder(ticket) is soon
    ticket = bench.move(ticket, Busy(2.0))
    bench.at(2.0)
    assert holder(ticket) is soon


def test_an_old_cooldown_does_not_haunt() -> None:
    """When its rest is over a conn is like any other, and a shorter rest does not cut a longer."""
    bench = Bench()
    entry = bench.conn(capacity=2)
    first, second = bench.ask(), bench.ask()
    bench.end(first, Reply(1, cooldown=9.0))
    bench.end(second, Reply(1, cooldown=2.0))
    assert bench.info(entry).cooldown == 9.0
    bench.at(2.0)
    assert bench.info(entry).state == "cooling"
    bench.at(9.0)
    assert bench.info(entry).state == "ready"
    ticket = bench.ask()
    bench.end(ticket, Reply(1, cooldown=1.0))
    assert bench.info(entry).cooldown == 1.0
    bench.at(10.0)
    assert granted(bench.ask(timeout=0))


def test_a_rest_is_for_new_calls_only() -> None:
    """Who uses the conn already is not disturbed, and his return does not end the rest."""
    bench = Bench()
    entry = bench.conn(capacity=3)
    first, second = bench.ask(), bench.ask()
    bench.end(first, Busy(5.0))
    waiting = bench.ask()
    bench.now = 1.0
    bench.answer(second)
    assert queued(waiting)
    assert bench.info(entry).in_use == 0
    bench.at(5.0)
    assert granted(waiting)
