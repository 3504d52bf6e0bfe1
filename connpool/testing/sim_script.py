"""Scripts: a history as a list of actions, each of them data, that can be played again.

Owns what an action does in a world.  Refuses to know where actions come from.

Invariant: an action that makes no sense in the world as it is does nothing, so that a script from
which some were taken out can still be played.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import attrs

from .sim_actor import Actor
from .sim_backstage import PLAIN, Habits
from .sim_cards import HOPEFUL, Card
from .sim_engine import Setup
from .sim_wishes import BUSY, Wish
from .sim_world import World

# With so many callers under way no more come, and with so many conns no more are put in.
MOST_CALLERS, MOST_CONNS = 40, 9

# Seconds that a child process goes on before it is brought to its end.
CHILDHOOD = 3.0


@attrs.frozen
class Comes:
    """A conn comes, with what `init` or `put` is told of it."""

    make: Callable[[], Any]
    puts: bool = False
    known: dict[str, Any] = attrs.field(factory=dict)
    habits: Habits = PLAIN


@attrs.frozen
class Supplied:
    """A supply begins."""

    resource: Hashable
    make: Callable[[], Any]
    known: dict[str, Any] = attrs.field(factory=dict)
    habits: Habits = PLAIN


@attrs.frozen
class Action:
    """Something that is done at an instant; `number` is who does it."""

    at: float
    number: int
    verb: str
    what: Any = None


@attrs.frozen
class Forked:
    """A fork, and what happens in the child; `at` of its actions counts from the fork.

    `which` of those who are in the middle of something forks; `ends` is how it ends in the child.
    """

    which: int
    ends: str = ""
    actions: tuple[Action, ...] = ()


class Player(World):
    """A world that is told by a script what happens."""

    def __init__(self, setup: Setup, *, told: bool = False) -> None:
        super().__init__(setup, told=told)
        self.script: list[Action] = []
        self.until: float | None = None  # when its end began
        self._verbs: dict[str, Callable[[int, Any], None]] = {
            "call": self._do_call,
            "checkout": self._do_call,
            "comes": self._do_comes,
            "supply": self._do_supply,
            "resize": self._do_resize,
            "withdraw": self._do_withdraw,
            "drain": self._do_drain,
            "pin": self._do_pin,
            "update": self._do_update,
            "pop": self._do_pop,
            "pop all": self._do_pop_all,
            "route": self._do_route,
            "question": self._do_question,
            "outage": self._do_outage,
            "close": self._do_close,
            "fork": self._do_fork,
        }

    def play(self, actions: Iterable[Action], steps: float, until: float) -> None:
        """Do the actions, each at its instant, until the core was entered `steps` times or it is
        `until`; then bring the world to its end."""
        actor = Actor(-1)
        coming = iter(actions)

        def act(action: Action) -> None:
            if self.until is not None:
                return  # it comes too late
            self.script.append(action)
            self._verbs[action.verb](action.number, action.what)
            plan()

        def plan() -> None:
            action = next(coming, None)
            if action is not None:
                self.plan(action.at, actor, act, action)

        plan()
        most = 4 * steps + 1000
        while self.steps < steps and self.next <= until and not self.ledger.abandoned:
            if len(self.script) > most:
                break  # nothing can be done in here any more
            self.happen()
        self.until = self.now if until == math.inf else until
        self.finish()

    # -- verbs ---------------------------------------------------------------------------------

    def _do_call(self, number: int, wish: Wish) -> None:
        if len(self.active) < MOST_CALLERS:
            self.begin(wish, number)

    def _do_comes(self, number: int, what: Comes) -> None:
        if len(self.ledger.cards) < MOST_CONNS:
            door = self.put if what.puts else self.init
            door(what.make(), **what.known, habits=what.habits, number=number)

    def _do_supply(self, number: int, what: Supplied) -> None:
        if what.resource not in self.ledger.sources and not self.ledger.closed:
            self.supply(what.resource, what.make, **what.known, habits=what.habits, number=number)

    def _do_resize(self, number: int, what: tuple[Hashable, int, int]) -> None:
        if what[0] in self.ledger.sources:
            self.resize(*what)

    def _do_withdraw(self, number: int, resource: Hashable) -> None:
        if resource in self.ledger.sources:
            self.withdraw(resource)

    def _do_drain(self, number: int, what: int | str) -> None:
        if isinstance(what, str):
            self.drain(what)
        elif card := self._nth(what):
            self.drain(id=card.id)

    def _do_pin(self, number: int, what: tuple[int, Any]) -> None:
        if card := self._nth(what[0]):
            self.extra(card.id, what[1])

    def _do_update(self, number: int, what: tuple[Hashable, Any, dict[str, Any]]) -> None:
        self.update(what[0], what[1], **what[2])

    def _do_pop(self, number: int, what: tuple[int, dict[str, Any]]) -> None:
        if card := self._nth(what[0]):
            self.pop(card.id, number=number, **what[1])

    def _do_pop_all(self, number: int, what: tuple[Hashable, Any, dict[str, Any]]) -> None:
        self.pop_all(what[0], what[1], number=number, **what[2])

    def _do_route(self, number: int, what: tuple[Any, ...]) -> None:
        for _ in range(2):
            self.route(*what)

    def _do_question(self, number: int, what: None) -> None:
        self.question()

    def _do_outage(self, number: int, what: tuple[Hashable, float]) -> None:
        self.outage(*what)

    def _do_close(self, number: int, timeout: float) -> None:
        if not self.ledger.closed:
            self.close(timeout)

    def _do_fork(self, number: int, what: Forked) -> None:
        alone = [c for c in self.active if c.outer is None and (c.inner is None or c.inner.done)]
        forkers = [caller for caller in alone if caller.phase in BUSY]
        child = self.fork(forkers[what.which % len(forkers)] if forkers else None, what.ends)
        actions = [attrs.evolve(action, at=self.now + action.at) for action in what.actions]
        child.play(actions, math.inf, self.now + CHILDHOOD)
        self.steps += child.steps

    def _nth(self, which: int) -> Card | None:
        """One of the conns that are there."""
        cards = [c for c in self.ledger.cards.values() if c.seen in HOPEFUL]
        # It may be due to leave: the pool is asked first, as it is by who has its id.
        self.core.tick(self.now)
        self.leave()
        cards = [card for card in cards if card.seen in HOPEFUL]
        return cards[which % len(cards)] if cards else None
