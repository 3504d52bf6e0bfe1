"""Runs: one seed is one history; where a rule is broken the history is made short and told.

Owns running, replaying and shrinking.  Refuses to know what is drawn.

Invariant: a violation that leaves this module carries a script that leads to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import attrs

from .sim_engine import Setup
from .sim_script import Action, Player
from .sim_story import Violation

# How often a broken history is played again, at most, to make it shorter.
MOST_REPLAYS = 600


@attrs.frozen
class History:
    """What a world was like that came to its end.

    `steps` is how often the core was entered, `seconds` how much time went by in the world; `calls`
    were answered or blocks ended well, `opened` conns were opened, `checkouts` were over, lost ones
    and those that were spoilt too; and so often it has forked.
    """

    seed: int
    steps: int
    seconds: float
    actions: int
    calls: int
    opened: int
    checkouts: int
    forks: int


def run(
    setup: Setup,
    actions: Iterable[Action],
    *,
    steps: float = math.inf,
    until: float = math.inf,
    told: bool = False,
) -> History:
    """Play one history; a broken rule is raised as it is."""
    world = Player(setup, told=told)
    try:
        world.play(actions, steps, until)
    except Violation as violation:
        violation.seed, violation.setup = setup.seed, setup
        violation.steps, violation.script = world.steps, tuple(world.script)
        violation.until = world.now if world.until is None else world.until
        if world.story is not None:
            violation.story = tuple(world.story.lines)
        raise
    return History(
        setup.seed,
        world.steps,
        world.now,
        len(world.script),
        world.answered,
        world.ledger.counts["opened"],
        world.ledger.counts["checkouts"],
        world.forks,
    )


def replay(violation: Violation, *, told: bool = True) -> History:
    """Play the script of a violation once more."""
    return run(violation.setup, violation.script, until=violation.until, told=told)


def shrunk(violation: Violation) -> Violation:
    """The same rule broken in a shorter history, and told."""
    setup, rule = violation.setup, violation.rule
    best = violation
    left = MOST_REPLAYS

    def breaks(script: Sequence[Action]) -> Violation | None:
        nonlocal left
        left -= 1
        try:
            run(setup, script, until=violation.until)
        except Violation as found:
            return found if found.rule == rule else None
        return None

    first = breaks(violation.script)
    if first is None:
        return _told(violation)
    best = first
    size = max(1, len(best.script) // 2)
    while left > 0:
        found = _without(best.script, size, breaks, lambda: left > 0)
        if found is not None:
            best = found
            size = min(size, max(1, len(best.script) // 2))
        elif size == 1:
            break
        else:
            size = max(1, size // 2)
    return _told(best)


def _without(
    script: Sequence[Action],
    size: int,
    breaks: Callable[[Sequence[Action]], Violation | None],
    goes_on: Callable[[], bool],
) -> Violation | None:
    """The first violation that some part of `script` is not needed for."""
    for start in reversed(range(0, len(script), size)):
        if not goes_on():
            return None
        shorter = (*script[:start], *script[start + size :])
        found = breaks(shorter)
        if found is not None:
            return found
    return None


def _told(violation: Violation) -> Violation:
    try:
        replay(violation)
    except Violation as found:
        return found
    return violation
