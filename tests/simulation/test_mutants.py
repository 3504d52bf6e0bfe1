"""The simulator finds a core that is broken on purpose: a few ways each time, others each time.

All of them are a command: python -m tests.simulation.mutants
"""

from __future__ import annotations

import random

import pytest

from .mutants import MUTANTS, ROOT, Mutant, hunt
from .mutations import SELDOM_SEEN

SEEN = [mutant for mutant in MUTANTS if mutant.name not in SELDOM_SEEN]
SAMPLE = random.Random().sample(SEEN, 3)


@pytest.mark.parametrize("mutant", SAMPLE, ids=lambda mutant: mutant.name)
def test_a_broken_core_is_found(mutant: Mutant) -> None:
    """Whichever it is."""
    assert hunt(mutant).how


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_fits_the_core(mutant: Mutant) -> None:
    """What it replaces is there once, and what it makes is Python."""
    text = (ROOT / "connpool" / "core" / mutant.module).read_text()
    compile(mutant.broken(text), mutant.module, "exec")


def test_the_seldom_seen_are_mutants() -> None:
    """None of them is excused under a name that is gone."""
    assert {mutant.name for mutant in MUTANTS} >= SELDOM_SEEN


def test_a_mutant_that_does_not_fit_is_refused() -> None:
    """Nothing is broken in two places, or in none."""
    with pytest.raises(ValueError, match="expected its text once"):
        Mutant("any", "desk.py", "self", "").broken("self, self")
