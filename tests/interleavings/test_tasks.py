"""Tasks, in every order that chance can think of: nothing is lost, and nobody is forgotten."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest

from ..cancellation.loops import on_both
from . import PATIENT, seeds
from .async_story import AsyncStory
from .loops import Watch, run


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """Garbage is collected where the story says, and quickly; what goes wrong is not logged."""
    logger = logging.getLogger("connpool")
    told = logger.level
    logger.setLevel(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
    logger.setLevel(told)


def tell(backend: str, seed: int) -> None:
    """One story."""

    async def story(watch: Watch) -> None:
        await AsyncStory(seed, watch).tell()

    try:
        run(backend, story, seed)
    except BaseException as error:
        error.add_note(f"seed {seed} on {backend}")
        raise


@PATIENT
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@on_both
def test_every_place_is_there_again(backend: str) -> None:
    """Calls, checkouts, pops, sizes, cancellations: then all that there is can be had."""
    for seed in seeds(50):
        tell(backend, seed)
