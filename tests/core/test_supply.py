"""The arithmetic of a supply: how many more, and when."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from connpool.core import Backoff, Supply
from connpool.core.supply import SPREAD, WANTED, YOUNG
from connpool.errors import InitError
from tests.core.making import Made

STEADY = Backoff(jitter=0)
REFUSED = OSError("refused")


def half() -> float:
    return 0.5


def supply(**known: Any) -> Supply:
    return Supply("db", Made, **known)


def failed(one: Supply, error: BaseException = REFUSED, waiting: int = 0, now: float = 0.0) -> None:
    """One is begun, and cannot be opened."""
    one.began()
    one.failed(error, waiting, now, STEADY, half)
    one.size -= 1


def died(one: Supply, number: int, newest: int, now: float, *, waiting: int = 0) -> None:
    """A conn born just before has died."""
    one.died_young(now, number, newest, waiting, now, STEADY, half)


@pytest.mark.parametrize(
    ("sizes", "size", "unborn", "waiting", "owed", "wanted"),
    [
        ((0, 10), 0, 0, 0, 0, 0),  # nobody asks
        ((2, 10), 0, 0, 0, 0, 2),  # kept ready
        ((2, 10), 2, 2, 0, 0, 0),  # on their way
        ((0, 10), 0, 0, 3, 0, 3),  # one for each who waits
        ((0, 10), 2, 2, 3, 0, 1),  # less those on their way, which will serve whoever is first
        ((2, 4), 0, 0, 99, 0, 4),  # never more than the most
        ((0, 4), 3, 3, 99, 0, 1),  # those on their way take room
        ((0, 4), 4, 0, 99, 9, 0),  # full
        ((0, 10), 1, 0, 0, 2, 2),  # those that died are replaced
        ((0, 4), 5, 0, 9, 0, 0),  # it was made smaller, and one is still in use
    ],
)
def test_how_many_are_wanted(
    sizes: tuple[int, int],
    size: int,
    unborn: int,
    waiting: int,
    *,
    owed: int,
    wanted: int,
) -> None:
    """As many as wait, are to be kept or are to be replaced, within the most."""
    one = supply(min_size=sizes[0], max_size=sizes[1])
    one.size, one.unborn, one.owed = size, unborn, owed
    assert one.wanted(waiting, 0.0) == wanted


def test_after_a_failure_one_is_wanted_at_a_time() -> None:
    """Until one goes well: then as many as ever."""
    one = supply(max_size=9)
    failed(one)
    assert one.wanted(9, 0.9) == 0
    assert one.wanted(9, 1.0) == 1
    one.began()
    assert one.wanted(9, 1.0) == 0
    one.succeeded()
    assert one.wanted(8, 1.0) == 8


def test_a_pause_that_the_conn_asked_for_is_kept_though_somebody_waits() -> None:
    """It knows what its server can bear; the first success ends it."""
    one = Supply("db", object)
    one.began()
    one.failed(InitError("full", retry_after=30.0), 1, 100.0, Backoff(jitter=0), lambda: 0.0)
    assert one.retry_at == 130.0
    one.hurry(101.0)
    assert one.retry_at == 130.0
    one.began()
    one.succeeded()
    assert (one.advised, one.wanted(1, 102.0)) == (False, 1)


@pytest.mark.parametrize(
    ("waiting", "pauses"), [(0, [1.0, 1.6, 2.56, 4.096]), (1, [1.0, 1.6, WANTED, WANTED])]
)
def test_pauses_grow(waiting: int, pauses: list[float]) -> None:
    """But not beyond two seconds while somebody waits."""
    one, now = supply(), 0.0
    for pause in pauses:
        failed(one, waiting=waiting, now=now)
        assert one.retry_at - now == pytest.approx(pause)
        now = one.retry_at


def test_who_comes_in_a_long_pause_cuts_it_short() -> None:
    """And never makes it longer."""
    one = supply()
    one.pause(600.0)
    one.hurry(100.0)
    assert one.retry_at == 100.0 + WANTED
    one.hurry(101.5)
    assert one.retry_at == 100.0 + WANTED


def test_advice_to_try_at_once_makes_no_busy_loop() -> None:
    """Attempts in a minute are few, though each may be followed by the next at once."""
    one, now = supply(), 0.0
    attempts = 0
    while now < 60:
        attempts += 1
        failed(one, InitError(retry_after=0), waiting=9, now=now)
        now = max(now, one.retry_at)
    assert attempts < 80


def test_never_again_ends_it() -> None:
    """Whatever is asked for later."""
    one = supply(min_size=1)
    error = InitError(retry_after=math.inf)
    failed(one, error)
    assert one.over is error
    assert not one.has_room
    assert not one.may_serve("m", any_method=True)
    assert one.wanted(9, math.inf) == 0


def test_it_is_known_what_its_conns_can_once_one_was_opened() -> None:
    """Before that they may be able to do anything."""
    one = supply()
    assert one.may_serve("m", any_method=False)
    one.methods = frozenset({"n"})
    assert one.may_serve("m", any_method=True)
    assert not one.may_serve("m", any_method=False)
    one.withdrawn = True
    assert not one.may_serve("n", any_method=False)


@pytest.mark.parametrize(
    ("revive", "replace", "owed"),
    [(False, True, 0), (True, True, 1), (True, False, 0), ("force", False, 1), ("force", True, 1)],
)
def test_what_died_is_owed(revive: bool | str, replace: bool, owed: int) -> None:
    """By what was said of the conn; and never more than there may be."""
    one = supply(max_size=3)
    one.lost(revive, replace=replace)
    assert one.owed == owed
    for _ in range(9):
        one.lost("force", replace=True)
    assert one.owed == 3
    one.resize(0, 2)
    assert one.owed == 2
    one.began()
    assert one.owed == 1


def test_the_unborn_do_not_stand_in_for_an_idle_one() -> None:
    """Else an idle conn might leave, and then the other never comes."""
    one = supply(min_size=1)
    one.size, one.unborn = 2, 1
    assert not one.has_spare
    one.unborn = 0
    assert one.has_spare


def test_one_death_after_the_other_makes_a_pause() -> None:
    """Even if no time passes; the first is free."""
    one = supply()
    for number, pause in enumerate([0.0, 1.0, 1.6, 2.56], 1):
        died(one, number, number, now=100.0)
        assert max(0.0, one.retry_at - 100.0) == pytest.approx(pause)
    one.retry_at = -math.inf
    died(one, 9, 9, now=200.0, waiting=1)
    assert one.retry_at == 200.0 + WANTED


def test_an_accident_of_many_is_one_death() -> None:
    """Those that were there, or on their way, when the first one died."""
    one = supply()
    for number in range(1, 10):
        died(one, number, 9, now=100.0)
    assert one.young == 1
    assert one.retry_at < 100.0


def test_who_dies_later_is_no_sign_of_a_server_that_hangs_up() -> None:
    """It begins anew."""
    one = supply()
    for number in range(1, 4):
        died(one, number, number, now=100.0)
    one.died_young(200.0, 9, 9, 0, 200.0 + YOUNG, STEADY, half)
    assert one.young == 0


def test_a_success_does_not_end_the_pause_after_deaths() -> None:
    """Else conns that are opened two at a time would never pause."""
    one = supply()
    one.began()
    one.pause(7.0)
    one.succeeded()
    assert one.wanted(1, 6.9) == 0
    assert one.wanted(1, 7.0) == 1


def test_a_ttl_is_spread_and_only_ever_shortened() -> None:
    """Of 100 born together no tenth of the spread sees more than a quarter expire."""
    one, rng = supply(ttl=600.0), random.Random(7).random
    lives = [one.lifetime(rng) or 0.0 for _ in range(100)]
    shortest = 600.0 * (1 - SPREAD)
    assert shortest <= min(lives) <= max(lives) <= 600.0
    tenth = 600.0 * SPREAD / 10
    for start in (shortest + tenth * step / 4 for step in range(40)):
        assert sum(start <= life < start + tenth for life in lives) <= 25
    assert supply().lifetime(rng) is None


@pytest.mark.parametrize(
    ("least", "most", "kind", "words"),
    [
        (-1, 4, ValueError, "min_size: expected a whole number from 0 up, got -1"),
        (1, 0, ValueError, "max_size: expected a whole number from 1 up, got 0"),
        (5, 4, ValueError, "min_size: expected at most max_size, 4, got 5"),
        (True, 4, TypeError, "min_size: expected a whole number or None, got True"),
        (1, 2.5, TypeError, "max_size: expected a whole number or None, got 2.5"),
        (None, 4, TypeError, "min_size: expected a whole number from 0 up, got None"),
        (1, None, TypeError, "max_size: expected a whole number from 1 up, got None"),
    ],
)
def test_wrong_sizes_change_nothing(
    least: Any, most: Any, kind: type[Exception], words: str
) -> None:
    """What was expected and what came."""
    one = supply(min_size=2, max_size=3)
    with pytest.raises(kind, match=words):
        one.resize(least, most)
    assert (one.min_size, one.max_size) == (2, 3)
