"""Chance: a world and its history, drawn from a seed.

Owns how often what is drawn.  Refuses to know what comes of it.

Invariant: the same seed draws the same, and what is drawn is data.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

from ..core import ANY, Backoff, Filter, sticky
from .sim_backstage import Deed, Habits
from .sim_conns import AskedPeer, CleanPeer, LentPeer, Peer, is_echo
from .sim_dice import (
    BLOCK_FAULTS,
    BYS,
    CALL_FAULTS,
    DEEPEST,
    EXTRAS,
    FILTERS,
    HARMLESS,
    INIT_FAULTS,
    LEASE_FAULTS,
    LENGTHS,
    METHODS,
    RESOURCES,
    REVIVES,
    TIMEOUTS,
    TTLS,
    Dice,
    answers_itself,
    echoes,
    is_wide,
)
from .sim_engine import Setup
from .sim_script import Action, Comes, Forked, Supplied
from .sim_wishes import Checkout, Wish

# Of so many worlds one is scarce: several supplies want more than the pool may hold.  In one other
# many callers call from inside their calls, and conns become fewer and fewer; and in one conns are
# often asked whether they are well, and taken out meanwhile.
KINDS = 8
SCARCE, NESTED, ASKED = 3, 5, 6


def draw_setup(seed: int) -> Setup:
    """A world."""
    dice = Dice(seed * 2 + 1)
    scarce = seed % KINDS == SCARCE
    jitter = dice.pick((0.0, 0.0, 0.2))
    first, most = dice.pick(((0.5, 4.0), (0.5, 4.0), (0.5, 4.0), (6.0, 12.0)))
    return Setup(
        seed=seed,
        driver=dice.pick(("threads", "tasks")),
        max_size=dice.pick((2, 3, 3, 4, 5, 6) if scarce else (None, None, None, 2, 3, 5)),
        max_waiting=None if scarce else dice.pick((None, None, None, 2, 6)),
        max_connecting=dice.pick((1, 2, 2, 4)),
        connect_timeout=dice.pick((1.0, 2.0)),
        timeout=8.0,
        backoff=Backoff(first=first, most=most, jitter=jitter),
        check_after=dice.pick((0.0, 0.5, 0.5, None)),
        lags=dice.chance(0.5),
        few=dice.pick((0, 0, 1, 4)),
    )


class Draw:
    """The history of one world."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = Dice(seed * 2)
        self.resources = RESOURCES[: dice.pick((1, 1, 2, 3))]
        self.pace = dice.pick((0.03, 0.06, 0.125, 0.25))  # seconds between actions, on average
        self.harm = dice.pick((0.0, 0.05, 0.15, 0.3))  # share of calls that do not go well
        self.trouble = dice.pick((0.0, 0.1, 0.4))  # the same of inits and checks
        self.haste = dice.pick((0.0, 0.1, 0.3))  # share of callers who give up
        self.pickiness = dice.pick((0.0, 0.1, 0.3))  # share of callers with a filter
        self.change = dice.pick((0.0, 0.05, 0.15))  # share of actions that are not calls
        self.holding = dice.pick((0.05, 0.2, 0.4, 0.8))  # share of callers who check out
        self.sharing = dice.pick((0.0, 0.3, 0.7))  # share of those who share
        self.losing = dice.pick((0.0, 0.1, 0.3))  # share of checkouts that do not end well
        self.places: Sequence[int] = (1, 1, 1, 2, 3)  # of conns
        self.own_ttls: Sequence[float | None] = TTLS  # of conns that come by themselves
        self.supplies = dice.pick((0.0, 0.5, 1.0))  # share of resources that have a supply
        self.fashion = 0.0  # share of callers who want what most want at the time
        self.peers: Sequence[Any] = (Peer, AskedPeer, CleanPeer, LentPeer)
        self.ttls: Sequence[Any] = (None, None, None, 0.25, 4.0)  # of supplies
        self.revives: Sequence[Any] = REVIVES
        self.faults: Sequence[str] = CALL_FAULTS
        self.lengths: Sequence[float] = LENGTHS  # of calls
        self.nesting = 0.06  # share of callers who ask for something while they have a conn
        self.changes = CHANGES
        self.number = 0
        if seed % KINDS not in (NESTED, SCARCE, ASKED) and dice.chance(0.5):
            self._crowd()
        if seed % KINDS == NESTED:
            self._make_nested()
        if seed % KINDS == SCARCE:
            self._make_scarce()
        if seed % KINDS == ASKED:
            self._make_asked()

    def _make_scarce(self) -> None:
        """Several supplies, and traffic that goes now here, now there; little goes wrong."""
        dice = self.dice
        self.resources = RESOURCES[: dice.pick((2, 3))]
        self.supplies, self.fashion = 1.0, dice.pick((0.0, 0.7, 0.9))
        self.pace = dice.pick((0.125, 0.25, 0.5))  # or all would be busy all the time
        self.harm, self.faults = dice.pick((0.0, 0.1)), ("rest", "rest", "busy", "long rest")
        self.trouble = dice.pick((0.0, 0.0, 0.2))
        self.haste, self.pickiness = 0.0, dice.pick((0.0, 0.0, 0.1))
        self.change, self.changes = dice.pick((0.0, 0.02)), SIZES
        self.ttls, self.holding = (None,), 0.0  # whose turn it is, is told of calls

    def _make_nested(self) -> None:
        """A few conns that are not always replaced, and callers who want a second one."""
        dice = self.dice
        self.resources, self.supplies = RESOURCES[:1], dice.pick((0.0, 0.0, 1.0))
        self.nesting, self.revives = dice.pick((0.3, 0.5)), (False, False, True)
        self.harm, self.trouble = dice.pick((0.05, 0.15)), 0.0

    def _make_asked(self) -> None:
        """Conns that live for a while, and are asked at length; most changes are pops."""
        dice = self.dice
        self.peers, self.ttls, self.supplies = (AskedPeer,), (None, 2.0, 4.0), 1.0
        self.harm, self.faults = dice.pick((0.1, 0.3)), ("dead", "done", "done", "interrupt")
        self.lengths = (0.0, 0.0, 0.125, 0.25, 1.0)
        self.trouble, self.revives = 0.0, (True, "force")
        self.change, self.changes = dice.pick((0.15, 0.3)), POPS

    def _crowd(self) -> None:
        """Many who want a few conns with several places, some of them for themselves."""
        dice = self.dice
        self.resources = RESOURCES[:1]
        self.places, self.own_ttls = (2, 3, 4), (None, None, None, 6.0)
        self.ttls = self.own_ttls
        self.pace = dice.pick((0.03, 0.06))
        self.holding, self.sharing = dice.pick((0.3, 0.6)), dice.pick((0.3, 0.6))
        self.losing, self.nesting = dice.pick((0.1, 0.3)), 0.25

    def actions(self) -> Iterator[Action]:
        """What happens, without end."""
        dice, at = self.dice, 0.0
        for resource in self.resources:
            if dice.chance(self.supplies):
                yield self._action(at, "supply", self._supplied(resource))
            for _ in range(0 if self.fashion else dice.below(3) + (dice.random() > self.supplies)):
                yield self._action(at, "comes", self._comes(resource))
        if not self.fashion:
            yield self._action(at, "comes", self._comes(self.resources[0]))
        while True:
            if dice.chance(0.7):
                at += int(dice.random() * self.pace * 32) * 0.0625
            elif dice.chance(0.02):
                at += 5.0  # nothing new, only what is due
            if dice.chance(self.change):
                verb, draw = dice.pick(self.changes)
                yield self._action(at, verb, draw(self))
            elif not self.fashion and dice.chance(0.04):
                yield self._action(at, "comes", self._comes(dice.pick(self.resources)))
            else:
                wish = self._wish(0)
                verb = "checkout" if isinstance(wish, Checkout) else "call"
                yield self._action(at, verb, wish)

    def _action(self, at: float, verb: str, what: Any) -> Action:
        self.number += 1
        return Action(at, self.number, verb, what)

    # -- callers -------------------------------------------------------------------------------

    def _wish(self, depth: int) -> Wish:
        dice = self.dice
        if dice.chance(self.holding):
            return self._checkout(depth)
        calls: tuple[Deed, ...] = ((dice.pick(self.lengths), self._fault()),)
        if dice.chance(0.3):
            calls += ((dice.pick(self.lengths), self._fault()),)
        gives_up = dice.pick(LENGTHS) if dice.chance(self.haste) else None
        timeout = dice.pick(TIMEOUTS)
        if gives_up is None and (timeout is None or any(fault == "hangs" for _, fault in calls)):
            gives_up = 12.0  # or a world would be full of those who wait
        who = ... if dice.chance(0.95) else None
        inner = None  # who cannot be told from others cannot be told that he waits for himself
        if depth < DEEPEST and who is ... and dice.chance(self.nesting):
            inner = (dice.pick((0.0, 0.125)), self._wish(depth + 1))
        return Wish(
            resource=self._wanted(),
            method="m" if dice.chance(0.8) else dice.pick(("n", ANY, "o")),
            payload=self.number + 1 + depth * 1_000_000,
            filter=dice.pick(FILTERS) if dice.chance(self.pickiness) else None,
            by=self._by() if dice.chance(0.15) else None,
            timeout=timeout,
            who=who,
            calls=calls,
            gives_up=gives_up,
            inner=inner,
            expects=is_echo,
        )

    def _wanted(self) -> Hashable:
        """What somebody wants: most want the same for a while."""
        if self.dice.chance(self.fashion):
            return self.resources[self.number // 25 % len(self.resources)]
        return self.dice.pick(self.resources)

    def _checkout(self, depth: int) -> Checkout:
        dice = self.dice
        fault = dice.pick(BLOCK_FAULTS) if dice.chance(self.losing) else ""
        gives_up = dice.pick(LENGTHS) if dice.chance(self.haste) else None
        timeout = dice.pick(TIMEOUTS)
        if gives_up is None and (timeout is None or fault == "hangs"):
            gives_up = 12.0
        inner = None
        if depth < DEEPEST and dice.chance(self.nesting):
            inner = (dice.pick((0.0, 0.125)), self._wish(depth + 1))
        return Checkout(
            resource=self._wanted(),
            method=ANY if dice.chance(0.7) else dice.pick(("m", "n")),
            payload=self.number + 1 + depth * 1_000_000,
            filter=dice.pick(FILTERS) if dice.chance(self.pickiness) else None,
            by=self._by() if dice.chance(0.15) else None,
            timeout=timeout,
            shared=dice.chance(self.sharing),
            does=echoes if dice.chance(0.7) else None,
            block=(dice.pick(LENGTHS), fault),
            notices=dice.chance(0.6),
            gives_up=gives_up,
            inner=inner,
            expects=answers_itself,
        )

    def _fault(self) -> str:
        return self.dice.pick(self.faults) if self.dice.chance(self.harm) else ""

    def _by(self) -> Any:
        dice = self.dice
        return sticky(dice.below(3)) if dice.chance(0.2) else dice.pick(BYS)

    # -- conns ---------------------------------------------------------------------------------

    def _maker(self, resource: Any) -> Callable[[], Any]:
        dice = self.dice
        return partial(
            dice.pick(self.peers),
            resource,
            dice.pick(METHODS),
            dice.pick(self.places),
            survives=dice.chance(0.2),
        )

    def _habits(self) -> Habits:
        dice = self.dice

        def deeds(lengths: Sequence[float], faults: Sequence[str]) -> tuple[Deed, ...]:
            return tuple(
                (dice.pick(lengths), dice.pick(faults) if dice.chance(self.trouble) else "")
                for _ in range(1 + dice.below(3))
            )

        return Habits(
            inits=deeds((0.0, 0.125, 0.125, 0.5, 3.0), INIT_FAULTS),
            checks=deeds((0.0, 0.125, 0.5, 3.0), ("false", "raises", "hangs", "lies", "lies")),
            closes=deeds((0.0, 0.0, 0.125, 0.5), ("raises", "hangs")),
            lends=deeds((0.0, 0.0, 0.125), LEASE_FAULTS),
            resets=deeds((0.0, 0.0, 0.125, 3.0), LEASE_FAULTS),
        )

    def _comes(self, resource: Hashable) -> Comes:
        dice = self.dice
        named: Any = resource
        if len(self.resources) > 1 and dice.chance(0.15):
            named = list(self.resources[:2])
        known = {
            "extra": dice.pick(EXTRAS),
            "ttl": dice.pick(self.own_ttls),
            "revive": dice.pick(self.revives),
        }
        return Comes(self._maker(named), dice.chance(0.3), known, self._habits())

    def _supplied(self, resource: Hashable) -> Supplied:
        dice = self.dice
        least = dice.pick((0, 0, 1, 2))
        known = {
            "min_size": least,
            "max_size": max(1, least) + dice.below(4),
            "max_idle": dice.pick((None, 0.5, 3.0)),
            "ttl": dice.pick(self.ttls),
            "ping_interval": dice.pick((None, 1.0)),
            "connect_timeout": dice.pick((1.0, 2.0)),
            "revive": dice.pick(self.revives),
            "extra": dice.pick(EXTRAS),
        }
        return Supplied(resource, self._maker(resource), known, self._habits())

    # -- changes -------------------------------------------------------------------------------

    def _resize(self) -> Any:
        least = self.dice.pick((0, 1, 2))
        return (self.dice.pick(self.resources), least, max(1, least) + self.dice.below(3))

    def _update(self) -> Any:
        dice = self.dice
        changes: dict[str, Any] = dice.pick(
            (
                {"extra": dice.pick(EXTRAS)},
                {"ttl": dice.pick(TTLS)},
                {"revive": dice.pick(REVIVES)},
                {"methods": frozenset(dice.pick(METHODS))},
                {"capacity": 1 + dice.below(3)},
            )
        )
        filter: Filter = dice.pick(FILTERS) if dice.chance(0.3) else None
        if "capacity" in changes:
            filter = is_wide
        return (dice.pick(self.resources), filter, changes)

    def _patience(self) -> dict[str, Any]:
        dice = self.dice
        gives_up = dice.pick((0.0, 0.125, 0.5)) if dice.chance(0.3) else None
        return {"timeout": dice.pick((0.0, 0.5, 4.0)), "gives_up": gives_up}

    def _pop(self) -> Any:
        return (self.dice.below(6), self._patience())

    def _pop_all(self) -> Any:
        filter = self.dice.pick(HARMLESS) if self.dice.chance(0.5) else None
        return (self.dice.pick(self.resources), filter, self._patience())

    def _pin(self) -> Any:
        return (self.dice.below(6), self.dice.pick(EXTRAS))

    def _route(self) -> Any:
        dice = self.dice
        filter = dice.pick(HARMLESS) if dice.chance(0.2) else None
        return (dice.pick(self.resources), dice.pick(("m", "n", ANY)), filter, self._by())

    def _drain(self) -> Any:
        return self.dice.below(6) if self.dice.chance(0.6) else self.dice.pick(self.resources)

    def _outage(self) -> Any:
        return (self.dice.pick(self.resources), self.dice.pick((0.0, 0.5, 2.0)))

    def _supply(self) -> Any:
        return self._supplied(self.dice.pick(self.resources))

    def _withdraw(self) -> Any:
        return self.dice.pick(self.resources)

    def _question(self) -> Any:
        return None

    def _fork(self) -> Any:
        dice, actions, at = self.dice, [], 0.0
        for _ in range(3 + dice.below(4)):
            at += dice.pick((0.0, 0.0625, 0.25))
            actions.append(self._action(at, "call", self._wish(0)))
        ends = dice.pick(("", "", "error", "dead", "closed", "busy", "drops", "interrupt"))
        return Forked(dice.below(6), ends, tuple(actions))

    def _close(self) -> Any:
        return self.dice.pick((0.0, 0.5, 4.0))


CHANGES: Sequence[tuple[str, Callable[[Draw], Any]]] = (
    *[("pin", Draw._pin)] * 4,
    *[("update", Draw._update)] * 5,
    *[("pop", Draw._pop)] * 3,
    ("pop all", Draw._pop_all),
    *[("route", Draw._route)] * 6,
    *[("drain", Draw._drain)] * 2,
    *[("outage", Draw._outage)] * 3,
    *[("supply", Draw._supply)] * 3,
    *[("resize", Draw._resize)] * 3,
    ("withdraw", Draw._withdraw),
    *[("question", Draw._question)] * 4,
    *[("fork", Draw._fork)] * 2,
    ("close", Draw._close),
)
SIZES = tuple(change for change in CHANGES if change[0] in ("resize", "question", "drain"))
POPS = tuple(change for change in CHANGES if change[0] in ("pop", "question", "outage"))
