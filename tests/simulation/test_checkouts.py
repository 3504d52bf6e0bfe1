"""Checkouts in worlds of one's own: each fault that can befall one, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from connpool.core import Core
from connpool.errors import NestedCall, PoolTimeout, ResourceError
from connpool.testing.simulate import Checkout, Gone, Habits, Took, Violation, Wish, World

DRIVERS = ("threads", "tasks")


class Session:
    """A conn with all that a checkout may ask of it."""

    resource = "db"

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self.inits = 0
        self.resets = 0

    def init(self) -> None:
        self.inits += 1

    def methods(self) -> list[str]:
        return ["query"]

    def call(self, method: Any, payload: Any = None) -> Any:
        return Took(payload, 0.5)

    def check(self) -> bool:
        return True

    def lend(self) -> Any:
        return [self]

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture(params=DRIVERS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world that comes to a good end."""
    made = World(driver=request.param)
    yield made
    made.finish()


def born(world: World, conn: Any = None, **habits: Any) -> Session:
    """A conn that is revived, and open."""
    made: Session = Session() if conn is None else conn
    world.init(made, revive=True, habits=Habits(**habits))
    world.run(0)
    return made


def test_a_block_gets_what_lend_gives_and_is_followed_by_a_reset(world: World) -> None:
    """And its reply is what it came to."""
    conn = born(world)
    holder = world.checkout("db", payload=7, does=lambda given, payload: Took((given, payload), 1))
    world.run(2)
    assert holder.reply == ([conn], 7)
    assert (conn.resets, conn.inits) == (1, 1)


def test_who_shares_a_conn_does_not_have_it_reset(world: World) -> None:
    """The others would not like it."""
    conn = born(world, Session(capacity=2))
    both = [world.checkout("db", shared=True, block=(1.0, "")) for _ in range(2)]
    third = world.checkout("db", shared=True, timeout=0.5)
    world.run(2)
    assert [holder.error for holder in both] == [None, None]
    assert isinstance(third.error, PoolTimeout)
    assert conn.resets == 0


def test_a_check_that_fails_gives_him_another_conn(world: World) -> None:
    """With the same place in line."""
    spoilt = born(world, checks=((0.0, "false"),))
    world.run(1)
    well = born(world)
    holder = world.checkout("db", does=lambda given, payload: given[0])
    world.run(0.25)
    assert holder.reply is well
    world.run(9)
    assert spoilt.inits == 2


def test_a_check_that_lies(world: World) -> None:
    """His block meets a server that is gone, and the conn is closed."""
    conn = born(world, checks=((0.0, "lies"),), lends=((0.0, ""),))
    world.run(1)
    world.outage("db", 0.0)
    holder = world.checkout("db", timeout=0)
    world.run(5)
    assert holder.error is not None
    assert conn.inits == 2


def test_a_check_that_hangs(world: World) -> None:
    """Among tasks it is given up; a thread hangs until it is let go."""
    conn = born(world, checks=((None, "hangs"),))
    world.run(1)
    holder = world.checkout("db")
    world.run(5)
    assert holder.done is world.tasks
    assert conn.inits == 1 + world.tasks


def test_what_lend_raises_reaches_him_and_the_conn_stays(world: World) -> None:
    """Only by Closed it speaks of itself."""
    conn = born(world, lends=((0.0, "error"), (0.0, "closed"), (0.0, "")))
    first, second = world.checkout("db"), world.checkout("db")
    world.run(5)
    assert isinstance(first.error, KeyError)
    assert second.error is None
    assert conn.inits == 2


@pytest.mark.parametrize("fault", ["closed", "dead", "error", "hangs"])
def test_a_reset_that_fails_costs_the_conn_and_nobody_else(world: World, fault: str) -> None:
    """The block ends as if nothing had happened."""
    conn = born(world, resets=((0.0, fault),))
    holder = world.checkout("db")
    world.run(5)
    hangs = fault == "hangs" and not world.tasks
    assert (holder.done, holder.error) == (not hangs, None)
    assert conn.inits == 1 + (not hangs)


@pytest.mark.parametrize("survives", [False, True])
def test_a_block_that_is_cut_short(world: World, survives: bool) -> None:
    """The conn is closed, unless it says that it survives that: then it is reset."""
    conn = Session()
    conn.survives_cancel = survives  # type: ignore[attr-defined]
    born(world, conn)
    world.checkout("db", block=(3.0, ""), gives_up=1.0)
    world.run(5)
    assert (conn.resets, conn.inits) == ((1, 1) if survives else (0, 2))


@pytest.mark.parametrize("how", ["dies", "drops"])
def test_what_is_lost_is_taken_back(world: World, how: str) -> None:
    """Within a second of when somebody waits for it."""
    conn = born(world)
    lost = world.checkout("db", block=(0.5, how))
    waiting = world.checkout("db")
    world.run(2)
    assert isinstance(lost.error, Gone)
    assert waiting.done
    assert waiting.error is None
    assert conn.inits == 2
    assert world.core.stats(world.now).since_start.lost == 1


def test_the_number_of_one_who_has_died_may_be_given_to_another(world: World) -> None:
    """He is not taken for the other, and waits for what that has lost."""
    born(world)
    world.checkout("db", who=7, block=(0.5, "dies"))
    world.run(1)
    heir = world.checkout("db", who=7)
    world.run(3)
    assert heir.error is None
    assert heir.done


def test_who_would_wait_for_himself_is_told(world: World) -> None:
    """He holds the only conn there is."""
    born(world)
    inner = Checkout("db", timeout=None)
    holder = world.checkout("db", block=(1.0, ""), inner=(0.5, inner))
    world.run(2)
    assert holder.inner is not None
    assert isinstance(holder.inner.error, NestedCall)
    assert holder.error is None


def test_who_shares_a_conn_may_call_on_it_though_it_is_kept_for_another(world: World) -> None:
    """That one waits for him."""
    born(world, Session(capacity=3))
    inner = Wish("db", "query", "inside")
    holder = world.checkout("db", shared=True, block=(2.0, ""), inner=(1.5, inner))
    for _ in range(2):
        world.checkout("db", shared=True, block=(0.5, ""))
    whole = world.checkout("db")
    stranger = world.call("db", "query", "outside")
    world.run(4)
    assert holder.inner is not None
    assert holder.inner.reply == "inside"
    assert (whole.done, stranger.reply) == (True, "outside")
    assert whole.started == 2.0


def test_a_conn_that_is_closed_under_a_block(world: World) -> None:
    """Who notices ends at once, who does not goes on; the conn is opened anew after both."""
    conn = born(world, Session(capacity=3))
    notices = world.checkout("db", shared=True, block=(4.0, ""))
    goes_on = world.checkout("db", shared=True, block=(4.0, ""), notices=False)
    torn = world.checkout("db", shared=True, block=(1.0, "dead"))
    world.run(2)
    assert isinstance(torn.error, ConnectionError)
    assert notices.done
    assert not goes_on.done
    world.run(4)
    assert goes_on.error is None
    assert conn.inits == 2


@pytest.mark.parametrize("ends", ["", "error", "dead", "closed", "drops"])
def test_a_fork_inside_a_checkout(world: World, ends: str) -> None:
    """In the child the conn is the parent's; the supply makes another there."""
    conn = born(world)
    made: list[Session] = []

    def make() -> Session:
        made.append(Session())
        return made[-1]

    world.supply("db", make, max_size=1)
    holder = world.checkout("db", block=(1.0, ""))
    world.run(0)
    child = world.fork(holder, ends)
    there = child.checkout("db", block=(2.0, ""))
    child.run(1)
    if world.tasks:
        assert isinstance(there.error, ResourceError)
    else:
        assert there.entry is not None
        assert there.entry.conn is made[0]
    child.finish()
    world.run(2)
    assert holder.error is None
    assert (conn.resets, conn.inits) == (1, 1)


def test_a_fork_inside_a_call(world: World) -> None:
    """Where it moves in the child it goes on to a conn of the child's."""
    born(world)
    world.supply("db", Session, max_size=1)
    caller = world.call("db", "query", "asked")
    world.run(0)
    child = world.fork(caller, "closed")
    child.run(math.inf)
    child.finish()
    world.run(1)
    assert caller.reply == "asked"


def test_a_lost_checkout_that_nobody_takes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a broken rule, while somebody waits."""

    def sleep(self: Core, entry: Any, who: Any, where: Any, now: float) -> None:
        """Takes back nothing."""

    monkeypatch.setattr(Core, "forsake", sleep)
    world = World()
    born(world)
    world.checkout("db", block=(0.5, "dies"))
    world.checkout("db", timeout=None)
    with pytest.raises(Violation) as caught:
        world.run(9)
    assert caught.value.rule == 5
