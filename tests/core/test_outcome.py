"""What a call's end says of its conn: the table of the contract, row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import Outcome, first_rest, of_error, of_reply
from connpool.errors import Busy, CallError, Closed, InitError, PoolTimeout


def test_a_reply_says_whether_the_conn_rests_or_is_done() -> None:
    """Its value is none of the pool's business."""
    assert of_reply(Reply(1)) == Outcome()
    assert of_reply(Reply(1, cooldown=2)) == Outcome(rest=2.0)
    assert of_reply(Reply(1, closed=True)) == Outcome(end="done")


ROWS: list[tuple[BaseException, dict[str, Any]]] = [
    (Closed(), {"end": "closed", "moves": True, "error": None}),
    (Busy(2.0), {"rest": 2.0, "moves": True, "refused": True, "error": None}),
    (CallError(), {}),
    (CallError(cooldown=1.5), {"rest": 1.5}),
    (CallError(closed=True), {"end": "dead"}),
    (OSError(), {"end": "dead"}),
    (TimeoutError(), {"end": "dead"}),
    (EOFError(), {"end": "dead"}),
    (KeyError(), {}),
    (InitError(), {}),
    (PoolTimeout(), {}),  # of another pool that the conn uses
    (KeyboardInterrupt(), {"end": "interrupted"}),
    (GeneratorExit(), {"end": "interrupted"}),
]


@pytest.mark.parametrize(("error", "said"), ROWS, ids=lambda part: type(part).__name__)
def test_what_an_error_says(error: BaseException, said: dict[str, Any]) -> None:
    """Each row of the table; where the call had happened its caller gets the error."""
    assert of_error(error, False) == Outcome(**{"error": error, **said})


def test_a_conn_that_survives_an_interrupt_stays() -> None:
    """But only where it says so in so many words; a lost peer is lost in any case."""
    interrupt = KeyboardInterrupt()
    assert of_error(interrupt, True) == Outcome(error=interrupt)
    assert of_error(interrupt, "no").end == "interrupted"
    assert of_error(OSError(), True).end == "dead"


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None])
def test_a_cooldown_that_makes_no_sense_is_an_error_for_its_caller(value: Any) -> None:
    """The conn neither rests nor leaves for it; the call may have happened and does not move."""
    replies = of_reply(Reply(1, cooldown=value))
    assert isinstance(replies.error, (TypeError, ValueError))
    assert "cooldown" in str(replies.error)
    for error in (Busy(value), CallError(cooldown=value)):
        ended = of_error(error, False)
        assert isinstance(ended.error, (TypeError, ValueError))
        assert (ended.end, ended.rest, ended.moves, ended.refused) == (None, 0.0, False, False)


def test_what_init_returns_is_a_rest() -> None:
    """None is none."""
    assert [first_rest(value) for value in (None, 0, 2)] == [0.0, 0.0, 2.0]
    for value in (-1, "soon", True, math.inf):
        with pytest.raises(TypeError, match=r"init: expected None, or seconds"):
            first_rest(value)
