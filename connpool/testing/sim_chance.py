"""Chance: a world and its history, drawn from a seed.

Owns how often what is drawn.  Refuses to know what comes of it.

Invariant: the same seed draws the same, and what is drawn is data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from ..core import ANY, Backoff, sticky
from .sim_backstage import Deed, Habits
from .sim_conns import AskedPeer, CleanPeer, LentPeer, Peer, is_echo
from .sim_engine import Setup
from .sim_script import Action, Comes, Forked, Supplied
from .sim_wishes import Checkout, Wish

T = TypeVar("T")

RESOURCES = ("a", "b", "c")
METHODS = (("m",), ("m",), ("n",), ("m", "n"))
EXTRAS = (None, None, "red", "bad")
TTLS = (None, None, None, 0.25, 2.0, 6.0)
REVIVES = (False, True, True, "force")
LENGTHS = (0.0, 0.125, 0.125, 0.25, 0.25, 0.5, 1.0, 3.0)
TIMEOUTS = (0.0, 0.125, 0.5, 0.5, 1.0, 2.0, 8.0, None)
CALL_FAULTS = (
    "rest", "rest", "long rest", "done", "bad rest", "closed", "busy", "busy", "busy, no idea",
    "busy, nonsense", "dead", "dead", "end of file", "timed out", "error", "error", "told",
    "told to rest", "told dead", "told nonsense", "pool error", "interrupt", "hangs",
)  # fmt: skip
BLOCK_FAULTS = (
    "dies", "dies", "dies", "drops", "drops", "error", "error", "error", "dead", "closed", "busy",
    "told to rest", "told dead", "interrupt", "interrupt", "hangs", "hangs",
)  # fmt: skip
INIT_FAULTS = (
    "refused", "refused", "at once", "soon", "late", "nonsense", "mute", "hangs", "refused",
    "refused", "never",
)  # fmt: skip


LEASE_FAULTS = ("closed", "dead", "error", "hangs")


def echoes(conn: Any, payload: Any) -> Any:
    """A block that sends something, and reads what comes."""
    return conn.call("m", payload)


def answers_itself(payload: Any, reply: Any) -> bool:
    """Whether a block that asked anything got the answer to that."""
    return reply is None or reply == payload


def is_red(info: Any) -> bool:
    """Passes conns with the extra "red"."""
    return bool(info.extra == "red")


def is_even(info: Any) -> bool:
    """Passes every other conn."""
    return bool(info.id % 2 == 0)


def raises_on_bad(info: Any) -> bool:
    """Passes all, and raises where the extra is "bad"."""
    if info.extra == "bad":
        raise ValueError("a bad conn")
    return True


def picks_last(infos: Sequence[Any]) -> Any:
    """A router of the user's."""
    return infos[-1]


def is_wide(info: Any) -> bool:
    """Passes conns that can do several calls at once."""
    return bool(info.conn.capacity > 1)


# Calls from inside calls from inside calls.
DEEPEST = 2

FILTERS = (is_red, is_even, is_even, raises_on_bad)
BYS = ("least_wait", "round_robin", "random", "least_used", "two_choices", picks_last)


class Dice:
    """Draws from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, several: Sequence[T]) -> T:
        """One of several."""
        return several[int(self.random() * len(several))]

    def below(self, most: int) -> int:
        """A whole number from 0 up to below `most`."""
        return int(self.random() * most)

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.random() < share


def draw_setup(seed: int) -> Setup:
    """A world."""
    dice = Dice(seed * 2 + 1)
    jitter = dice.pick((0.0, 0.0, 0.2))
    first, most = dice.pick(((0.5, 4.0), (0.5, 4.0), (0.5, 4.0), (6.0, 12.0)))
    return Setup(
        seed=seed,
        driver=dice.pick(("threads", "tasks")),
        max_size=dice.pick((None, None, None, 2, 3, 5)),
        max_waiting=dice.pick((None, None, None, 2, 6)),
        max_connecting=dice.pick((1, 2, 2, 4)),
        connect_timeout=dice.pick((1.0, 2.0)),
        timeout=8.0,
        backoff=Backoff(first=first, most=most, jitter=jitter),
        check_after=dice.pick((0.0, 0.5, 0.5, None)),
        lags=dice.chance(0.5),
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
        self.ttls: Sequence[float | None] = TTLS
        self.nesting = 0.06  # share of callers who ask for something while they have a conn
        self.supplies = dice.pick((0.0, 0.5, 1.0))  # share of resources that have a supply
        self.number = 0
        if dice.chance(0.35):
            self._crowd()

    def _crowd(self) -> None:
        """Many who want a few conns with several places, some of them for themselves."""
        dice = self.dice
        self.resources = RESOURCES[:1]
        self.places, self.ttls = (2, 3, 4), (None, None, None, 6.0)
        self.pace = dice.pick((0.03, 0.06))
        self.holding, self.sharing = dice.pick((0.3, 0.6)), dice.pick((0.3, 0.6))
        self.losing, self.nesting = dice.pick((0.1, 0.3)), 0.25

    def actions(self) -> Iterator[Action]:
        """What happens, without end."""
        dice, at = self.dice, 0.0
        for resource in self.resources:
            if dice.chance(self.supplies):
                yield self._action(at, "supply", self._supplied(resource))
            for _ in range(dice.below(3) + (dice.random() > self.supplies)):
                yield self._action(at, "comes", self._comes(resource))
        yield self._action(at, "comes", self._comes(self.resources[0]))
        while True:
            if dice.chance(0.7):
                at += int(dice.random() * self.pace * 32) * 0.0625
            elif dice.chance(0.02):
                at += 5.0  # nothing new, only what is due
            if dice.chance(self.change):
                verb, draw = dice.pick(CHANGES)
                yield self._action(at, verb, draw(self))
            elif dice.chance(0.04):
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
        calls: tuple[Deed, ...] = ((dice.pick(LENGTHS), self._fault()),)
        if dice.chance(0.3):
            calls += ((dice.pick(LENGTHS), self._fault()),)
        gives_up = dice.pick(LENGTHS) if dice.chance(self.haste) else None
        timeout = dice.pick(TIMEOUTS)
        if gives_up is None and (timeout is None or any(fault == "hangs" for _, fault in calls)):
            gives_up = 12.0  # or a world would be full of those who wait
        who = ... if dice.chance(0.95) else None
        inner = None  # who cannot be told from others cannot be told that he waits for himself
        if depth < DEEPEST and who is ... and dice.chance(self.nesting):
            inner = (dice.pick((0.0, 0.125)), self._wish(depth + 1))
        return Wish(
            resource=dice.pick(self.resources),
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
            resource=dice.pick(self.resources),
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
        return self.dice.pick(CALL_FAULTS) if self.dice.chance(self.harm) else ""

    def _by(self) -> Any:
        dice = self.dice
        return sticky(dice.below(3)) if dice.chance(0.2) else dice.pick(BYS)

    # -- conns ---------------------------------------------------------------------------------

    def _maker(self, resource: Any) -> Callable[[], Any]:
        dice = self.dice
        return partial(
            dice.pick((Peer, AskedPeer, CleanPeer, LentPeer)),
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
            "ttl": dice.pick(self.ttls),
            "revive": dice.pick(REVIVES),
        }
        return Comes(self._maker(named), dice.chance(0.3), known, self._habits())

    def _supplied(self, resource: Hashable) -> Supplied:
        dice = self.dice
        least = dice.pick((0, 0, 1, 2))
        known = {
            "min_size": least,
            "max_size": max(1, least) + dice.below(4),
            "max_idle": dice.pick((None, 0.5, 3.0)),
            "ttl": dice.pick((None, None, None, 0.25, 4.0)),
            "ping_interval": dice.pick((None, 1.0)),
            "connect_timeout": dice.pick((1.0, 2.0)),
            "revive": dice.pick(REVIVES),
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
        filter = dice.pick(FILTERS) if dice.chance(0.3) else None
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
        filter = self.dice.pick(FILTERS[:2]) if self.dice.chance(0.5) else None
        return (self.dice.pick(self.resources), filter, self._patience())

    def _pin(self) -> Any:
        return (self.dice.below(6), self.dice.pick(EXTRAS))

    def _route(self) -> Any:
        dice = self.dice
        filter = dice.pick(FILTERS[:2]) if dice.chance(0.2) else None
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
