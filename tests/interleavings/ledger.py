"""The books that every conn here keeps, and that must balance; and what conns raise by chance."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from connpool import Busy, CallError, Closed, Reply


class Trouble(Exception):
    """What a conn raises that stays well."""


class Ledger:
    """What all conns of a story share."""

    # What a call may raise that interrupts whoever made it.
    interrupts: tuple[type[BaseException], ...] = ()

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False
        self.books: list[Book] = []
        self.done: Counter[Any] = Counter()  # how often a call has happened, by its payload

    def wrong(self, what: str) -> None:
        """Something was done to a conn that must not be: the run is over."""
        raise NotImplementedError


class Book:
    """One conn: whether it is open, and who uses it."""

    def __init__(self, ledger: Ledger, capacity: int) -> None:
        self.ledger = ledger
        self.capacity = self.most = capacity  # `most`: what it was ever told that it carries
        self.opens = self.closes = self.inside = 0
        self.is_open = self.initialising = self.popped = False
        self.whole: Any = None  # who holds it for himself
        ledger.books.append(self)
        self.number = len(ledger.books)

    def opening(self) -> None:
        """Its init begins."""
        if self.is_open or self.initialising or self.inside:
            self.wrong(f"init, open: {self.is_open}, {self.inside} inside")
        self.initialising = True

    def opened(self) -> float | None:
        """Its init has gone well."""
        self.opens += 1
        self.is_open = True
        return 0.01 if self.dice() > 0.9 else None

    def closing(self) -> None:
        """Its close begins; from here on it is closed."""
        if not self.is_open:
            self.wrong("closed while it is not open")
        if self.popped:
            self.wrong("closed though it was handed over")
        self.is_open = False
        self.closes += 1

    def enter(self, whole: Any = None) -> None:
        """Somebody begins to use it."""
        if not self.is_open:
            raise Closed  # under one who shares it
        if self.whole is not None:
            self.wrong("used while another one has it for himself")
        self.inside += 1
        if self.inside > (1 if whole else self.most):
            self.wrong(f"{self.inside} users, {self.most} places")
        self.whole = whole

    def leave(self) -> None:
        """And ends."""
        self.inside -= 1
        self.whole = None

    def hand_over(self) -> None:
        """It was popped."""
        if self.inside or self.initialising:
            self.wrong(f"popped, {self.inside} inside, init: {self.initialising}")

    def end(self) -> None:
        """After everything: it was opened and closed in turn, and is closed."""
        state = f"{self.opens} opened, {self.closes} closed, open: {self.is_open}"
        assert self.opens == self.closes + self.is_open, state
        assert not self.is_open or self.popped, state
        assert not self.inside

    def wrong(self, what: str) -> None:
        self.ledger.wrong(f"conn {self.number}: {what}")

    # -- chance ----------------------------------------------------------------------------------

    def dice(self) -> float:
        """A number up to 1; in the middle when it is calm."""
        return 0.5 if self.ledger.calm else self.ledger.chance.random()

    def fail_before(self) -> None:
        """Perhaps what was asked does not happen."""
        if self.dice() < 0.12:
            raise self.ledger.chance.choice([Closed(), Busy(), Busy(0.01), Busy(0.3)])

    def fail_after(self) -> None:
        """Perhaps it fails half way."""
        if self.dice() < 0.15:
            raise self.ledger.chance.choice(
                [
                    OSError("torn"),
                    CallError("no"),
                    CallError("no", cooldown=0.01),
                    CallError("no", closed=True),
                    Trouble(),
                    *(interrupt() for interrupt in self.ledger.interrupts),
                ]
            )

    def fail(self, *errors: BaseException, below: float = 0.15) -> None:
        """Perhaps one of these, or an interrupt."""
        if self.dice() < below:
            interrupts = (interrupt() for interrupt in self.ledger.interrupts[:1])
            raise self.ledger.chance.choice([*errors, *interrupts])

    def reply(self, payload: Any) -> Any:
        """The answer, now and then in a wrapping."""
        dice = self.dice()
        if dice < 0.05:
            return Reply(payload, closed=True)
        return Reply(payload, cooldown=0.01) if dice < 0.1 else payload
