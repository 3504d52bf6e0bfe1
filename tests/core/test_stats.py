"""Numbers: what is true now, and what has happened since the start."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from connpool.conn import Reply
from connpool.core import Now
from connpool.errors import Busy, CallError, Closed, PoolTimeout
from tests.core.bench import Bench


def test_now_counts_conns_by_state_and_callers() -> None:
    """One of each."""
    bench = Bench()
    bench.conn("ready", capacity=2)
    bench.conn("cooling", rest=9.0)
    bench.conn("reviving", revive=True)
    bench.conn("draining")
    bench.admit("opening")
    bench.end(bench.ask("reviving"), OSError("torn"))
    bench.end(bench.ask("draining"), OSError("torn"))
    bench.ask("ready"), bench.ask("ready"), bench.ask("ready"), bench.ask("cooling")
    now = bench.core.stats(0.0).now
    assert now == Now(
        conns=2, ready=1, in_use=2, cooling=1, reviving=1, draining=1, opening=1, waiting=2
    )


def test_what_has_happened_is_counted_each_under_its_name() -> None:
    """Nothing twice, and nothing is lost with the conn that it happened to."""
    bench = Bench()
    conn = bench.conn(revive=True)
    bench.conn()
    bench.failed(bench.admit())
    bench.answer(bench.ask())
    bench.end(bench.ask(), CallError("no"))
    bench.end(bench.ask(), Reply(1, cooldown=1.0))
    bench.at(1.0)

    def only(info: Any) -> bool:
        return bool(info.id == conn.id)

    moved = bench.move(bench.ask(filter=only), Busy(1.0))
    bench.at(2.0)
    again = bench.move(moved, Closed())
    bench.closed(bench.closing())
    bench.opened(bench.opening())
    bench.cancel(bench.ask(filter=only))
    bench.at(3.0)
    late = bench.ask(timeout=1.0, filter=only)
    bench.at(4.0)
    assert isinstance(late.error, PoolTimeout)
    with pytest.raises(PoolTimeout):
        bench.ask(timeout=0, filter=only)
    bench.answer(again)
    expected = {
        "calls": 4,
        "errors": 1,
        "queued": 2,
        "moved": 2,
        "busy": 1,
        "rests": 2,
        "checkouts": 0,
        "lost": 0,
        "timeouts": 2,
        "cancelled": 1,
        "opened": 3,
        "open_failed": 1,
        "revived": 1,
        "ended": {"closed": 1},
    }
    assert attrs.asdict(bench.core.stats(4.0).since_start) == expected
    bench.pop(*bench.core.entries.values())
    expected["ended"] = {"closed": 1, "popped": 2}
    assert attrs.asdict(bench.core.stats(4.0).since_start) == expected


def test_pictures_do_not_change_afterwards() -> None:
    """Nor can they be changed."""
    bench = Bench()
    bench.conn()
    picture = bench.core.stats(0.0).since_start
    bench.answer(bench.ask())
    bench.pop(*bench.core.entries.values())
    assert (picture.calls, dict(picture.ended)) == (0, {})
    with pytest.raises(TypeError):
        picture.ended["dead"] = 1  # type: ignore[index]


def test_calls_of_each_method_are_counted_apart() -> None:
    """By their conn; those that did not happen are not counted."""
    bench = Bench()
    entry = bench.conn(methods=["m", "n"])
    bench.answer(bench.ask("a", "m"), took=2.0)
    bench.answer(bench.ask("a", "n"), took=4.0)
    bench.end(bench.ask("a", "n"), CallError("no"))
    bench.end(bench.ask("a", "n"), Busy(0.0))
    stats = bench.info(entry).stats
    counted = {method: (stat.count, stat.errors, stat.mean) for method, stat in stats.items()}
    assert counted == {"m": (1, 0, 2.0), "n": (2, 1, 4.0)}
