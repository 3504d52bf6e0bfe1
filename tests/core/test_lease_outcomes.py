"""What the end of a checkout says of its conn, row by row: its check, its lend, the user's block,
and its reset."""

from __future__ import annotations

from typing import Any

import pytest

from connpool.core import Outcome, of_check, of_leaving, of_lend, of_reset
from connpool.core.outcome import of_block
from connpool.errors import Busy, CallError, Closed

OOPS = KeyError("oops")
TORN = OSError("torn")
STOP = KeyboardInterrupt()


@pytest.mark.parametrize("error", [OOPS, TORN, Closed(), TimeoutError(), CallError()], ids=repr)
def test_a_check_that_raises_says_that_the_conn_is_dead(error: Exception) -> None:
    """Whatever it raises: its user is served by another."""
    assert of_check(error) == Outcome(end="dead", moves=True)


def test_a_check_that_was_interrupted_says_nothing_of_others() -> None:
    """The conn is given up, and its user leaves."""
    assert of_check(STOP) == Outcome(end="interrupted", error=STOP)


LENDS: list[tuple[BaseException, bool, Outcome]] = [
    (Closed(), False, Outcome(end="closed", moves=True)),
    (Closed(), True, Outcome(end="closed", moves=True)),
    (OOPS, False, Outcome(error=OOPS)),
    (TORN, False, Outcome(error=TORN)),
    (STOP, False, Outcome(end="interrupted", error=STOP)),
    (STOP, True, Outcome(error=STOP)),
]


@pytest.mark.parametrize(("error", "survives", "said"), LENDS, ids=repr)
def test_a_lend_speaks_of_the_conn_by_closed_only(
    error: BaseException, survives: bool, said: Outcome
) -> None:
    """What else it raises is for its user; an interrupt is what it always is."""
    assert of_lend(error, survives) == said


def test_a_lend_that_says_busy_does_not_move() -> None:
    """It is not a call."""
    busy = Busy(2.0)
    assert of_lend(busy, False) == Outcome(error=busy)


BLOCKS: list[tuple[BaseException, bool, dict[str, Any]]] = [
    (OOPS, False, {}),
    (TORN, False, {"end": "dead"}),
    (Closed(), False, {"end": "closed"}),
    (Busy(2.0), False, {"rest": 2.0}),
    (CallError(cooldown=1.5), False, {"rest": 1.5}),
    (STOP, False, {"end": "interrupted"}),
    (STOP, True, {}),
]


@pytest.mark.parametrize(("error", "survives", "said"), BLOCKS, ids=repr)
def test_one_who_shares_leaves_as_after_a_call(
    error: BaseException, survives: bool, said: dict[str, Any]
) -> None:
    """But nothing moves: the block has run, and cannot run again."""
    ended = of_block(error, survives)
    assert ended == Outcome(error=error, **said)
    known = {"shared": True, "survives_cancel": survives}
    assert of_leaving(error, resets=False, **known) == ended
    assert of_leaving(error, resets=True, **known) == ended


WHOLE: list[tuple[BaseException | None, bool, bool, Outcome | None]] = [
    # raised, has a reset, survives an interrupt
    (None, False, False, Outcome()),
    (None, True, False, None),
    (OOPS, False, False, Outcome(end="unclean")),
    (OOPS, True, False, None),
    (TORN, False, True, Outcome(end="unclean")),
    (TORN, True, True, None),
    (STOP, False, False, Outcome(end="interrupted")),
    (STOP, True, False, Outcome(end="interrupted")),
    (STOP, False, True, Outcome(end="unclean")),
    (STOP, True, True, None),
]


@pytest.mark.parametrize(("error", "resets", "survives", "said"), WHOLE, ids=repr)
def test_one_who_had_it_whole_leaves_it_clean_or_not_at_all(
    error: BaseException | None, resets: bool, survives: bool, said: Outcome | None
) -> None:
    """None: its reset is to say; without one, what was raised spoils it."""
    assert of_leaving(error, shared=False, resets=resets, survives_cancel=survives) == said


def test_one_who_shares_needs_no_reset() -> None:
    """The others go on."""
    known = {"shared": True, "survives_cancel": False}
    assert of_leaving(None, resets=True, **known) == Outcome()


RESETS: list[tuple[BaseException, str]] = [
    (OOPS, "unclean"),
    (CallError(), "unclean"),
    (TORN, "dead"),
    (EOFError(), "dead"),
    (TimeoutError(), "dead"),
    (Closed(), "dead"),
    (STOP, "interrupted"),
]


@pytest.mark.parametrize(("error", "end"), RESETS, ids=repr)
def test_a_reset_that_raises_ends_the_conn(error: BaseException, end: str) -> None:
    """Nobody but the log is told: the block has ended well."""
    assert of_reset(error) == Outcome(end=end)
