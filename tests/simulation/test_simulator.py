"""A slice of the simulator: some histories that are always the same, and a few new ones each time.

The whole of it is a command: python -m connpool.testing.simulate --seeds 1000 --steps 1000
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from connpool.core import Core
from connpool.errors import PoolTimeout
from connpool.testing.simulate import RULES, Took, Violation, World, simulate

FRESH = random.Random().randrange(10**6, 10**9)


class Line:
    """A conn that answers after half a second."""

    resource = "line"

    def init(self) -> None:
        """Nothing to do."""

    def methods(self) -> list[str]:
        return ["say"]

    def call(self, method: Any, payload: Any = None) -> Any:
        return Took(payload, 0.5)


@pytest.mark.parametrize("seed", range(40))
def test_all_rules_are_kept_in_known_histories(seed: int) -> None:
    """The same seeds each time, so that a change that breaks one is to blame."""
    simulate(seed, 300)


@pytest.mark.parametrize("seed", range(FRESH, FRESH + 10))
def test_all_rules_are_kept_in_new_histories(seed: int) -> None:
    """Seeds that nobody has seen before: the name of a test that fails holds the seed."""
    simulate(seed, 300)


def test_known_histories_have_everything_in_them() -> None:
    """Calls and checkouts, forks too, and not only in a few of them."""
    histories = [simulate(seed, 300) for seed in range(40)]
    assert sum(history.calls > 0 for history in histories) > 30
    assert sum(history.checkouts > 3 for history in histories) > 15
    assert sum(history.forks for history in histories) > 3


def test_new_histories_have_checkouts_in_them() -> None:
    """Whatever the seeds are."""
    histories = [simulate(seed, 300) for seed in range(FRESH, FRESH + 10)]
    assert sum(history.checkouts for history in histories) > 3


def test_a_seed_gives_the_same_history_again() -> None:
    """Everything that is left to chance follows from the seed."""
    assert simulate(5, 300) == simulate(5, 300)


@pytest.mark.parametrize("driver", ["threads", "tasks"])
def test_a_world_of_ones_own(driver: str) -> None:
    """Who waits longer than he may gets his error, at the very instant; others their replies."""
    world = World(driver=driver)
    world.init(Line())
    world.run(0)  # an init begins at once, and ends when it is time
    first = world.call("line", "say", "one")
    second = world.call("line", "say", "two", timeout=0.25)
    third = world.call("line", "say", "three")
    world.run(0.75)
    assert first.reply == "one"
    assert isinstance(second.error, PoolTimeout)
    assert not third.done
    world.finish()
    assert third.reply == "three"


def test_a_broken_core_is_found_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that is never given back is a broken rule, with a short story and the way there."""

    def keep(self: Core, ticket: Any, now: float) -> None:
        """Cancels nothing."""

    monkeypatch.setattr(Core, "cancel", keep)
    with pytest.raises(Violation) as caught:
        for seed in range(40):
            simulate(seed, 300)
    violation = caught.value
    assert violation.rule in RULES
    assert 0 < len(violation.script) <= 8
    assert "gives up" in str(violation)
    assert f"seed {violation.seed}" in str(violation)
