"""When to try again: backoff, advice, and the end of trying."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from connpool.core import Backoff
from connpool.core.revive import after_failure, after_refusal, floor
from connpool.errors import Closed, InitError
from tests.core.bench import Bench

PLAIN = Backoff(jitter=0)


def half() -> float:
    return 0.5


def test_backoff_grows_up_to_its_most() -> None:
    """One second, then 1.6 times as long each time, at most two minutes."""
    waits = [PLAIN.delay(attempt, half) for attempt in range(1, 2000)]
    assert waits[:3] == pytest.approx([1.0, 1.6, 2.56])
    assert waits == sorted(waits)
    assert waits[-1] == 120.0


def test_jitter_spreads_either_way() -> None:
    """By a fifth, so that what died together does not knock together."""
    backoff = Backoff()
    assert backoff.delay(1, lambda: 0.0) == pytest.approx(0.8)
    assert backoff.delay(1, lambda: 1.0) == pytest.approx(1.2)


@pytest.mark.parametrize(
    "backoff",
    [Backoff(first=0), Backoff(factor=0), Backoff(jitter=5), Backoff(most=0), Backoff(factor=0.1)],
)
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_no_settings_make_a_busy_loop(backoff: Backoff, chance: float) -> None:
    """At once is for the first attempt only, and no wait is negative."""
    waits = [backoff.delay(attempt, lambda: chance) for attempt in range(1, 50)]
    assert waits[0] >= 0.0
    assert min(waits[1:]) >= 0.05


def test_a_steep_backoff_does_not_overflow() -> None:
    """However often it fails."""
    assert Backoff(factor=1000, jitter=0).delay(5000, half) == 120.0


def test_the_floor_doubles_up_to_a_second() -> None:
    """The first attempt may be made at once."""
    assert [floor(attempt) for attempt in (1, 2, 3, 4, 99)] == [0.0, 0.05, 0.1, 0.2, 1.0]


def test_advice_is_followed() -> None:
    """A conn knows best when it can be had again; at once it is believed once."""
    assert after_failure(InitError(retry_after=7), 3, PLAIN, half) == 7.0
    waits = [after_failure(InitError(retry_after=0), n, PLAIN, half) for n in (1, 2, 3, 50)]
    assert waits == [0.0, 0.05, 0.1, 1.0]
    assert after_failure(InitError(retry_after=math.inf), 1, PLAIN, half) == math.inf


@pytest.mark.parametrize("error", [OSError(), InitError(), None])
def test_without_advice_there_is_backoff(error: BaseException | None) -> None:
    """An InitError need not advise anything."""
    assert after_failure(error, 2, PLAIN, half) == pytest.approx(1.6)


@pytest.mark.parametrize("advice", [-1, math.nan, "soon", True])
def test_advice_that_makes_no_sense_is_no_advice(advice: Any) -> None:
    """It is the conn that lies, so the pool goes on as it would without."""
    assert after_failure(InitError(retry_after=advice), 2, PLAIN, half) == pytest.approx(1.6)


def test_a_conn_that_keeps_saying_busy_rests_longer() -> None:
    """Its own cooldown counts where it is longer."""
    assert after_refusal(3.0, 9) == 3.0
    waits = [after_refusal(0.0, refusals) for refusals in range(1, 20)]
    assert waits[0] > 0.0
    assert waits == sorted(waits)
    assert waits[-1] == 0.5


# -- seen from the pool ----------------------------------------------------------------------------


def attempts(bench: Bench, until: float, error: BaseException) -> list[float]:
    """When a conn that can never be initialised is tried, as long as the driver comes in time."""
    tried = []
    while bench.now < until:
        while bench.permits:
            bench.failed(bench.opening(), error)
            tried.append(bench.now)
        bench.at(max(bench.now, bench.core.next_due() or math.inf))
    return tried


def dead(bench: Bench, **known: Any) -> None:
    """A conn that was found dead, closed, and is to be revived."""
    bench.conn(revive=True, **known)
    bench.end(bench.ask(), OSError("torn"))
    bench.closed(bench.closing())


def test_a_dead_conn_is_revived_at_once_and_then_with_backoff() -> None:
    """The first attempt may be lucky; the next ones wait."""
    bench = Bench()
    dead(bench)
    tried = attempts(bench, 20.0, OSError("refused"))
    assert tried == pytest.approx([0.0, 1.0, 2.6, 5.16, 9.256, 15.8096])


def test_advice_to_retry_at_once_is_no_busy_loop() -> None:
    """Attempts are bounded in number, whatever a conn says."""
    bench = Bench()
    dead(bench)
    tried = attempts(bench, 60.0, InitError(retry_after=0))
    assert len(tried) < 70
    assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(tried[10:]))


def test_backoff_of_zero_is_no_busy_loop() -> None:
    """Nor do settings make one."""
    bench = Bench(backoff=Backoff(first=0))
    dead(bench)
    assert len(attempts(bench, 10.0, OSError("refused"))) < 210


def test_never_again_is_never_again() -> None:
    """The conn is dropped, nothing is due any more, and it is not closed a second time."""
    bench = Bench()
    dead(bench)
    bench.failed(bench.opening(), InitError("gone for good", retry_after=math.inf))
    assert not bench.core.entries
    assert bench.core.next_due() is None
    assert not bench.permits
    assert bench.core.stats(bench.now).since_start.ended == {"dead": 1, "gave up": 1}


def test_an_outage_longer_than_every_limit_ends() -> None:
    """A day later, with nobody asking, the conn comes back and is as good as new."""
    bench = Bench()
    dead(bench)
    tried = attempts(bench, 86_400.0, OSError("refused"))
    assert tried[-1] > 86_000.0
    bench.at(bench.now + 120.0)
    bench.opened(bench.opening())
    bench.answer(bench.ask())
    assert bench.info(next(iter(bench.core.entries.values()))).state == "ready"


def test_a_conn_that_answered_since_its_last_death_is_revived_at_once() -> None:
    """However often it was closed before: only deaths in a row make it wait."""
    bench = Bench()
    bench.conn(revive=True)
    for _ in range(10):
        bench.answer(bench.ask())
        again = bench.move(bench.ask(), Closed())
        bench.closed(bench.closing())
        bench.opened(bench.opening())
        bench.answer(again)
    assert bench.now == 0.0


def test_a_conn_that_dies_before_it_answers_waits_longer_each_time() -> None:
    """To come up and to die at once is to fail to come up."""
    bench = Bench()
    dead(bench)
    waited = []
    for _ in range(4):
        bench.opened(bench.opening())
        bench.end(bench.ask(), OSError("torn"))
        bench.closed(bench.closing())
        waited.append((bench.core.next_due() or 0.0) - bench.now)
        bench.at(bench.now + waited[-1])
    assert waited == pytest.approx([1.0, 1.6, 2.56, 4.096])


def test_failed_revivals_after_an_expiry_are_forgotten_by_an_answer() -> None:
    """The next death finds a conn in good standing again."""
    bench = Bench()
    entry = bench.conn(revive=True, ttl=10.0)
    bench.at(10.0)
    bench.closed(bench.closing())
    bench.failed(bench.opening())
    bench.at(11.0)
    bench.opened(bench.opening())
    bench.answer(bench.ask())
    assert entry.trouble is None
