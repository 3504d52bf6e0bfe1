"""What a simulated world has to tell: the rules, the story, and the violation of a rule.

Owns the words.  Refuses to know how a world goes on.

Invariant: a story is told in the order in which things happened, and each line begins with the
instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What must always hold, in words; the first ten are those of the design.
RULES: dict[int, str] = {
    1: "a place of a conn is in one pair of hands, and no more are taken than there are",
    2: "a pool and its supplies stay within their sizes",
    3: "while a conn can serve a caller, that caller does not wait",
    4: "first come, first served",
    5: "no place is lost",
    6: "a call happens at most once, and its reply reaches its own caller",
    7: "an expired conn is never lent, and no wait exceeds its timeout",
    8: "every conn that was opened is closed once, or handed over by a pop",
    9: "a pool closes in time and leaves nothing behind",
    10: "what a user's code does wrong harms its own conn only",
    11: "a conn rests, is revived and leaves as its contract says, and for no other reason",
    12: "who waits may hope, and who is refused is told what is true",
    13: "conns are opened as they are needed, in time, and never in a storm",
    14: "what the pool says of itself is true",
    15: "the core does not break",
}


class Violation(AssertionError):
    """A rule was broken in a simulated world.

    `rule` is its number in `RULES`, `what` says what happened, `at` when.  `seed` and `steps` lead
    there again; `story` is what happened before, a list of lines; `script` the actions that are
    enough to get there, for `replay`.
    """

    def __init__(self, rule: int, what: str, at: float) -> None:
        super().__init__(rule, what, at)
        self.rule = rule
        self.what = what
        self.at = at
        self.seed: int | None = None
        self.steps = 0
        self.setup: Any = None
        self.until = 0.0  # when the world was brought to its end, or else when it broke
        self.script: Sequence[Any] = ()
        self.story: Sequence[str] = ()

    def __str__(self) -> str:
        where = "" if self.seed is None else f"seed {self.seed}, "
        head = (
            f"{where}step {self.steps}, at {self.at:.3f}: rule {self.rule} is broken: "
            f"{RULES[self.rule]}.\n{self.what}"
        )
        if not self.story:
            return head
        numbered = [f"{number:4d}  {line}" for number, line in enumerate(self.story, 1)]
        cause = f", from {len(self.script)} actions" if self.script else ""
        return "\n".join([head, f"What happened{cause}:", *numbered])


class Story:
    """The lines of what happens; a world that nobody reads keeps none.

    That of a child process is part of its parent's, and each line says so.
    """

    def __init__(self, parents: Story | None = None, prefix: str = "") -> None:
        self.lines: list[str] = [] if parents is None else parents.lines
        self.prefix = prefix

    def tell(self, now: float, line: str) -> None:
        """Something happened at `now`."""
        self.lines.append(f"{now:.3f}  {self.prefix}{line}")
