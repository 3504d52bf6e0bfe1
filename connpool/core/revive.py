"""When to try again: backoff, the conn's own advice, and the rule for giving up.

Owns the arithmetic of retries.  Refuses to know the time: it deals in durations.

Invariant: attempts are bounded in number per second whatever a conn advises, and only the advice
"never" ends them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import attrs

from ..conn import seconds
from ..errors import InitError

# A conn that says "again at once" is believed once; then the waits grow from here.
SHORTEST, LONGEST_FLOOR = 0.05, 1.0


def _duration(value: Any) -> float:
    return seconds(value, "backoff")


@attrs.frozen
class Backoff:
    """Waits between attempts: `first`, then `factor` times longer each time, at most `most`.

    All in seconds; `jitter` is the share by which a wait may differ either way, so that conns that
    died together do not knock together.  The defaults are those of DBAs rather than of loops: a
    server that has just come up is not helped by ten attempts a second.
    """

    first: float = attrs.field(default=1.0, converter=_duration)
    factor: float = attrs.field(default=1.6, converter=_duration)
    jitter: float = attrs.field(default=0.2, converter=_duration)
    most: float = attrs.field(default=120.0, converter=_duration)

    def delay(self, attempt: int, rng: Callable[[], float]) -> float:
        """Seconds to wait after failure number `attempt`, counted from 1.

        >>> [round(Backoff(jitter=0).delay(n, lambda: 0.5), 2) for n in (1, 2, 3, 40)]
        [1.0, 1.6, 2.56, 120.0]
        """
        try:
            wait = min(self.most, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            wait = self.most
        # Whatever the settings are: the second attempt in a row is not made at once.
        wait = max(wait * (1 + self.jitter * (2 * rng() - 1)), min(SHORTEST, floor(attempt)))
        return min(wait, sys.float_info.max)  # inf would say: never


def floor(attempt: int) -> float:
    """The shortest wait after failure number `attempt`, whatever the conn advises.

    >>> [floor(n) for n in (1, 2, 3, 9)]
    [0.0, 0.05, 0.1, 1.0]
    """
    if attempt <= 1:
        return 0.0
    return min(LONGEST_FLOOR, SHORTEST * float(2 ** min(attempt - 2, 30)))


def after_failure(
    error: BaseException | None, attempt: int, backoff: Backoff, rng: Callable[[], float]
) -> float:
    """Seconds until the next init; inf: never again."""
    wait = advice(error)
    if wait is None:
        return backoff.delay(attempt, rng)
    return wait if math.isinf(wait) else max(wait, floor(attempt))


def advice(error: BaseException | None) -> float | None:
    """The seconds that a conn asks for before the next init; None: it leaves that to the pool.

    Advice that makes no sense is no advice.
    """
    try:
        wanted = error.retry_after if isinstance(error, InitError) else None
        return None if wanted is None else seconds(wanted, "retry_after", infinite=True)
    except Exception:  # whatever comes of looking at it
        return None


def after_refusal(cooldown: float, refusals: int) -> float:
    """Seconds a conn rests that has said Busy `refusals` times in a row.

    Its own cooldown counts, unless it keeps saying Busy sooner than a growing floor allows: two
    conns that each say "not me" must not make a loop.
    """
    return max(cooldown, 0.5 * floor(refusals + 1))
