"""An interrupt at any instant of a call or a checkout that need not wait: nothing is lost.

The interpreter handles signals where a function is called, and where one that is written in C
returns: just there it tells a profiler.  So a profiler can do what Ctrl-C does, each time one event
later.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from connpool import Pool

# Where signals are handled.
EVENTS = ("call", "c_return")


class Echo:
    """A conn."""

    resource = "line"

    def init(self) -> None:
        """Nothing to open."""

    def methods(self) -> list[str]:
        return ["say"]

    def call(self, method: str, payload: Any = None) -> Any:
        return payload


def interrupted(act: Callable[[], Any], at: int) -> bool:
    """Do it, and interrupt it at the so many-th event; whether it took so long."""
    left = at

    def strike(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal left
        # In a finaliser Python itself ignores whatever is raised.
        if event in EVENTS and frame.f_code.co_name != "__del__":
            left -= 1
            if not left:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(strike)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return left <= 0


def call(pool: Pool) -> None:
    """A call."""
    assert pool.call("line", "say", 5) == 5


def checkout(pool: Pool) -> None:
    """A checkout, and a call while it lasts."""
    with pool.checkout("line") as conn:
        conn.call("say", 5)


@pytest.mark.parametrize("act", [call, checkout])
def test_the_place_is_there_again(act: Callable[[Pool], None]) -> None:
    """Whenever the interrupt comes, the only conn can be had, and nobody holds it."""
    with warnings.catch_warnings(), Pool(timeout=5) as pool:
        warnings.simplefilter("ignore", ResourceWarning)  # one that was left as it began
        pool.init(Echo(), revive=True)
        act(pool)
        checkout(pool)  # the first one begins what the others find
        at = 0
        while True:
            at += 1
            struck = interrupted(lambda: act(pool), at)
            gc.collect()
            call(pool)
            checkout(pool)
            assert pool.stats().now.in_use == 0
            if not struck:
                break
        assert at > 8, "it was never interrupted in the midst of it"
