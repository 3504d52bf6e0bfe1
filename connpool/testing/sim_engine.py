"""The engine: a core in invented time, and its steps.

Owns the order of what happens at one instant, and what the driver of a pool does with the clock.
Refuses to know what it is that happens.

Invariants: of what happens at one instant the order is drawn, but for one actor it is always the
same, whoever else is there; after each door the steps are taken over and the ledger looks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from ..core import ALARM, LOOK, Backoff, Core, Forsaken, Options, Permit, Pop, Ticket
from .sim_actor import Actor
from .sim_ledger import Ledger
from .sim_story import Story, Violation
from .sim_time import INF, Timeline

# By how many seconds a driver that lags is late: mostly by none.
LAGS = (0.125, 0.125, 0.125, 0.25, *[0.0] * 28)


def _backoff() -> Backoff:
    return Backoff(first=0.5, most=4.0, jitter=0.0)


@attrs.frozen
class Setup:
    """How a world is made.

    Parameters:
        seed: what all that is left to chance follows from.
        driver: "threads" or "tasks", whose way of using the core is followed.
        max_size, max_waiting, max_connecting, connect_timeout, timeout, check_after, backoff:
            as for a pool.
        latency: seconds that a conn takes for what it gives plain.
        lags: whether the driver is late now and then.
        few: how many conns of a kind are looked at one by one, and not looked up, for a filter
            given as data.
    """

    seed: int = 0
    driver: str = "threads"
    max_size: int | None = None
    max_waiting: int | None = None
    max_connecting: int = 2
    connect_timeout: float = 2.0
    timeout: float | None = 30.0
    check_after: float | None = 0.5
    backoff: Backoff = attrs.field(factory=_backoff)
    latency: float = 0.0
    lags: bool = False
    few: int = 4

    def options(self) -> Options:
        """The same, as a pool has it."""
        return Options(
            name="simulated",
            timeout=self.timeout,
            max_size=self.max_size,
            max_waiting=self.max_waiting,
            max_connecting=self.max_connecting,
            connect_timeout=self.connect_timeout,
            check_after=self.check_after,
            backoff=self.backoff,
        )


class Engine(Timeline):
    """Virtual time, and a core in it."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__()
        self.setup = setup
        self.steps = 0  # how often the core was entered
        self.tasks = setup.driver == "tasks"
        options = setup.options()
        self.patience = options.timeout
        self.core = Core(options, random.Random(setup.seed).random, lambda: self.me)
        self.core.few = setup.few
        self.me: Any = None  # who asks at this moment
        self.ledger = Ledger(self.core, options)
        self.story = self.ledger.story = Story() if told else None
        self._salt = setup.seed * 0x9E3779B1 & 0xFFFFFFFF
        self._keeper = Actor(0)
        self._wakes = INF  # when the driver will look at the clock

    # -- time ----------------------------------------------------------------------------------

    def later(self, delay: float, actor: Actor, act: Callable[..., Any], *args: Any) -> None:
        """Let something happen to somebody after `delay` seconds."""
        self.plan(self.now + delay, actor, act, *args)

    def plan(self, at: float, actor: Actor, act: Callable[..., Any], *args: Any) -> None:
        """Let something happen to somebody at an instant."""
        self.note(at, self.chance(actor), act, args)

    def chance(self, actor: Actor) -> int:
        """A number below 2 ** 24 that follows from the actor and how often he was asked."""
        actor.events = events = actor.events + 1
        mixed = (actor.number * 0x85EBCA6B + events * 0xC2B2AE35 + self._salt) & 0xFFFFFFFF
        mixed = (mixed ^ (mixed >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
        return (mixed ^ (mixed >> 12)) & 0xFFFFFF

    def lag(self, actor: Actor) -> float:
        """By how many seconds the driver is late this time; mostly by none."""
        if not self.setup.lags:
            return 0.0
        return LAGS[self.chance(actor) % len(LAGS)]

    def happen(self) -> bool:
        """Let the next thing happen; what it raises breaks a rule."""
        try:
            return super().happen()
        except Violation:
            raise
        except Exception as error:
            raise Violation(15, f"{type(error).__name__}: {error}", self.now) from error

    def goes_on(self, at: float) -> None:
        """It is later now, and the ledger looks at what that has changed."""
        if at > self.ledger.due:
            self.ledger.goes_on(at)
        self.now = self.ledger.now = at

    # -- the core ------------------------------------------------------------------------------

    def leave(self) -> None:
        """The core has been entered, and the facts are noted: take over its steps, and look."""
        self.steps += 1
        core = self.core
        if core.steps:
            self.take_over()
        core.end_turn()
        self.ledger.look()

    def take_over(self) -> None:
        """Take over what the core wants done."""
        self.ledger.look_at_states()
        for step in self.core.drain():
            if isinstance(step, Ticket):
                self.wakes(step)
            elif step is ALARM:
                self._nudge()
            elif isinstance(step, Permit):
                self.ledger.issued(step)
                self.permitted(step)
            elif isinstance(step, Pop):
                self.popped(step)
            elif step is LOOK:
                self.later(self.lag(self._keeper), self._keeper, self.look_for_lost)
            elif isinstance(step, Forsaken):
                self.ledger.told_of_lost(step)
            else:
                raise TypeError(f"a step that no driver knows: {step!r}")

    def wakes(self, ticket: Ticket) -> None:
        """A caller is to be woken."""
        raise NotImplementedError

    def permitted(self, permit: Permit) -> None:
        """Something may be opened, asked or closed."""
        raise NotImplementedError

    def popped(self, pop: Pop) -> None:
        """Somebody who pops is to be woken."""
        raise NotImplementedError

    def turn(self) -> None:
        """The driver takes a turn: first it takes back what was dropped meanwhile."""

    def look_for_lost(self) -> None:
        """A step: take back what those hold who are gone."""
        raise NotImplementedError

    # -- the keeper ----------------------------------------------------------------------------

    def _nudge(self) -> None:
        """Something may be due earlier than the keeper thinks."""
        due = self.core.due if self.tasks else self.core.next_due()
        if due is None or due >= self._wakes or due == INF:
            return
        self._wakes = due
        self.plan(max(self.now, due) + self.lag(self._keeper), self._keeper, self._keep, due)

    def _keep(self, due: float) -> None:
        """What the keeper does: all that is due."""
        if due != self._wakes:
            return  # he was nudged meanwhile, and has another plan
        self._wakes = INF
        self.turn()
        self.core.tick(self.now)
        self.leave()
        self._nudge()

    def tell(self, line: str) -> None:
        """Something to be told; who calls this asks first whether anybody listens."""
        if self.story is not None:
            self.story.tell(self.now, line)
