"""What callers say is checked before anything is done with it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.core import (
    Backoff,
    Options,
    check_filter,
    check_limit,
    check_revive,
    check_timeout,
    check_ttl,
)
from connpool.core.options import check_changes

NAN = math.nan


def test_good_values_are_given_back() -> None:
    """Seconds are floats, for ever is inf for a timeout and None for a ttl."""
    assert (check_ttl(None), check_ttl(3), check_ttl(math.inf)) == (None, 3.0, None)
    assert (check_timeout(None), check_timeout(0), check_timeout(2)) == (math.inf, 0.0, 2.0)
    assert [check_revive(value) for value in (True, False, "force")] == [True, False, "force"]
    assert (check_limit(None, "x"), check_limit(1, "x"), check_limit(0, "x", least=0)) == (
        None,
        1,
        0,
    )
    assert check_changes({"ttl": 1}) == {"ttl": 1}
    check_filter(None)
    check_filter(bool)


@pytest.mark.parametrize("check", [check_ttl, check_timeout])
@pytest.mark.parametrize(
    ("value", "kind"), [(-1, ValueError), (NAN, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_wrong_number_of_seconds_is_named(check: Any, value: Any, kind: type[Exception]) -> None:
    """Negative, nan and no number at all: what was expected and what came."""
    with pytest.raises(kind, match=r"expected seconds.*got"):
        check(value)


@pytest.mark.parametrize(
    ("value", "kind"), [("yes", ValueError), (None, TypeError), (1, TypeError)]
)
def test_revive_is_one_of_three(value: Any, kind: type[Exception]) -> None:
    """Not even 1 is True."""
    with pytest.raises(kind, match=r'False, True or "force"'):
        check_revive(value)


@pytest.mark.parametrize(
    ("value", "kind"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_limit_is_a_whole_number(value: Any, kind: type[Exception]) -> None:
    """Its name is in the message."""
    with pytest.raises(kind, match="max_size"):
        check_limit(value, "max_size")


def test_what_is_no_filter_and_no_change_is_a_type_error() -> None:
    """Both say what came."""
    with pytest.raises(TypeError, match="filter"):
        check_filter("red")
    with pytest.raises(TypeError, match="dict"):
        check_changes(None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": -1},
        {"max_size": 0},
        {"max_waiting": -1},
        {"max_connecting": 0},
        {"max_connecting": None},
        {"connect_timeout": math.inf},
        {"backoff": 1.0},
    ],
)
def test_a_pool_is_not_made_with_a_wrong_option(wrong: dict[str, Any]) -> None:
    """The parameter is named."""
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Options(name="pool", **wrong)


def test_options_have_defaults() -> None:
    """No limits but those that keep a server from a storm."""
    options = Options(name="pool", max_waiting=0)
    assert (options.max_size, options.max_connecting, options.timeout) == (None, 2, 30.0)
    assert options.backoff == Backoff()
