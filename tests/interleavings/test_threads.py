"""Threads, in every order that chance can think of: nothing is lost, and nobody is forgotten."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from . import PATIENT, seeds
from .ruled import CORE, DRIVER, ruled
from .scheduler import Scheduler
from .story import Story

# How finely the threads are interleaved, and what else happens.
WAYS: dict[str, dict[str, Any]] = {
    "turns": {},
    "interrupts": {"interrupts": 0.01},
    "lines": {"lines": 0.05, "traced": DRIVER},
    "core": {"lines": 0.01, "traced": DRIVER | CORE},
}


def tell(seed: int, **way: Any) -> Scheduler:
    """One story."""
    scheduler = Scheduler(seed, **way)
    with ruled(scheduler):
        story = Story(scheduler, closes=scheduler.chance.random() < 0.2)
        try:
            scheduler.run(story.tell)
        except BaseException as error:
            error.add_note(f"seed {seed} of {way}")
            raise
    return scheduler


@pytest.fixture(autouse=True)
def small_heap() -> Iterator[None]:
    """Collecting garbage takes no longer than the garbage is large."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@PATIENT
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_every_place_is_there_again(way: str) -> None:
    """Calls, checkouts, pops, sizes, interrupts, failures: then all that there is can be had."""
    for seed in seeds(80 if way in ("turns", "interrupts") else 30):
        tell(seed, **WAYS[way])
