"""Forks: a world goes on in two, as a program does after `os.fork`.

Owns what a child gets, and who is in the middle of something in both.  Refuses to know who forks.

Invariant: a child knows no conn of its parent's, and what ends in the child that began in the
parent changes nothing in either.
"""

from __future__ import annotations

from typing import Self

import attrs

from ..core import Supply
from ..errors import Closed
from .sim_backstage import Opening
from .sim_contract import FAULTS, Raised, call_fault
from .sim_end import Ending
from .sim_engine import Setup
from .sim_story import Story
from .sim_wishes import CALLING, HOLDING, LENDING, Caller, Holder

# Seconds after which in a child that ends which the one who forked was about.
SOON = 0.125

# What a supply is told, and keeps in a child.
TOLD = (
    "resource", "factory", "setup", "extra", "ttl", "revive", "min_size", "max_size", "max_idle",
    "connect_timeout", "ping_interval",
)  # fmt: skip


class Forks(Ending):
    """The eighth storey of a world."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self.forks = 0

    def fork(self, forker: Caller | None = None, ends: str = "") -> Self:
        """The world of a child process; this one goes on as if nothing had been.

        Parameters:
            forker: who forks, in the middle of his call or block: in a world of threads he is there
                in the child too, and in both what he is about comes to its end.
            ends: how it ends in the child: "" well, or a fault as of a call; or "drops".

        In the child the pool begins anew: the conns are the parent's, and supplies make new ones.
        A pool of tasks is empty there, for its loop is the parent's.  Bring both worlds to their
        end: the child's shares nothing but its story.
        """
        self.forks += 1
        child = type(self)(self.setup, told=False)
        child.now = child.ledger.now = self.now
        child.dark, child.struck = dict(self.dark), dict(self.struck)
        if self.story is not None:
            self.tell(f"{forker or 'somebody'} forks")
            child.story = child.ledger.story = Story(self.story, "in the child: ")
        if not self.tasks:
            for supply in self.core.supplies():
                child._supply_anew(supply, self._suppliers[supply.resource])
            if self.core.closed:
                child.close(0.0)
            if forker is not None:
                child._goes_on_in_child(forker, ends)
        return child

    def _supply_anew(self, old: Supply, by: Opening) -> None:
        supply = old.anew()
        for what in TOLD:
            if getattr(supply, what) != getattr(old, what):
                self.ledger.fail(14, f"in the child the supply has another {what}")
        self._suppliers[supply.resource] = Opening(by.number, None, by.habits, False)
        self.core.supply(supply, self.now)
        self.ledger.supplied(supply)
        self.leave()

    def _goes_on_in_child(self, forker: Caller, ends: str) -> None:
        """Whoever forks is in both, in the middle of the same."""
        wish = attrs.evolve(forker.wish, who=forker.number, inner=None, expects=None)
        ghost = self.somebody(forker.number, wish)
        ghost.inherits = True
        ghost.entry = forker.entry  # but not his place: who comes first there cannot be told
        ghost.arrived, ghost.started = forker.arrived, forker.started
        ghost.deadline = forker.deadline
        self.active[ghost] = None
        self._phase(ghost, forker.phase)
        if isinstance(ghost, Holder):
            self._block_in_child(ghost, ends)
        elif forker.phase is CALLING:
            value = call_fault(ends, None) if ends in FAULTS else None
            self.later(SOON, ghost, self._call_ends, ghost, ghost.turn, value, "")

    def _block_in_child(self, ghost: Holder, ends: str) -> None:
        if ghost.phase is HOLDING:
            self.later(SOON, ghost, self._block_ends, ghost, ghost.turn, None, ends)
        elif ghost.phase is LENDING:
            self.later(SOON, ghost, self._lent, ghost, ghost.turn, Raised(Closed()))
        else:
            self.later(SOON, ghost, self._cleaned, ghost, ghost.turn, None)
