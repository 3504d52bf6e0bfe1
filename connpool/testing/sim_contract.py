"""What a conn says, read a second time: the contract, without the core's own reading of it.

Owns `Took`, the faults that a world can inject, and `Verdict`, what a call's end means by the
letter of the contract.  Refuses to know of worlds.

Invariant: nothing in here asks the core what it made of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from ..conn import Reply, seconds
from ..errors import Busy, CallError, Closed, InitError, PoolError
from .steps import Do


class Cancelled(BaseException):
    """What a simulated caller is given up with: like a task's cancellation, or an interrupt."""


class Gone(BaseException):
    """What becomes of a simulated holder who never gives back what he holds."""


@attrs.frozen
class Took:
    """What a conn of a simulated world may give: something, after some time.

    Parameters:
        value: what the call answers; an error is raised; a `Do` is asked when the time is over.
        seconds: how long that takes; `math.inf`: it hangs.

    What is given plain takes the world's `latency`.

    >>> Took("hello", 0.5)
    Took(value='hello', seconds=0.5)
    """

    value: Any = None
    seconds: float = attrs.field(default=0.0, converter=float)


def perform(act: Callable[..., Any], args: Any, kwargs: Any, latency: float) -> tuple[Any, float]:
    """Do something of a conn's: what comes of it (an error is raised then), and after how long."""
    try:
        value = act(*args, **kwargs)
    except BaseException as error:
        return Raised(error), latency
    if isinstance(value, Took):
        if isinstance(value.value, BaseException):
            return Raised(value.value), value.seconds
        return value.value, value.seconds
    return value, latency


class Raised:
    """An error on its way to whoever has called."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def settle(value: Any, *args: Any) -> Any:
    """What has come of it in the end: a `Do` is asked now."""
    while isinstance(value, Do):
        try:
            value = value.function(*args)
        except BaseException as error:
            return Raised(error)
        if isinstance(value, BaseException):
            return Raised(value)
    return value


# -- faults: each makes what a conn would say, whoever the conn is --------------------------------

# Faults of calls.  Those in `BEFORE` keep the call from happening at all.
FAULTS: dict[str, Callable[[], Any]] = {
    "rest": lambda: 0.5,
    "long rest": lambda: 2.0,
    "done": lambda: True,
    "bad rest": lambda: -1.0,
    "closed": Closed,
    "busy": lambda: Busy(0.5),
    "busy, no idea": Busy,
    "busy, nonsense": lambda: Busy(-1.0),
    "dead": lambda: ConnectionResetError("torn"),
    "end of file": lambda: EOFError("torn"),
    "timed out": lambda: TimeoutError("no answer"),
    "error": lambda: KeyError("no harm"),
    "told": lambda: CallError("told"),
    "told to rest": lambda: CallError("told", cooldown=0.5),
    "told dead": lambda: CallError("told", closed=True),
    "told nonsense": lambda: CallError("told", cooldown=math.nan),
    "pool error": lambda: PoolError("of another pool"),
    "interrupt": KeyboardInterrupt,
}
BEFORE = frozenset({"closed", "busy", "busy, no idea", "busy, nonsense"})
REPLIES = frozenset({"rest", "long rest", "done", "bad rest"})

# Faults of inits, checks and closes; "hangs" is known to all of them.
INIT_FAULTS: dict[str, Callable[[], Any]] = {
    "refused": lambda: ConnectionRefusedError("refused"),
    "at once": lambda: InitError("again", retry_after=0.0),
    "soon": lambda: InitError("later", retry_after=1.5),
    "late": lambda: InitError("much later", retry_after=5.0),
    "never": lambda: InitError("never", retry_after=math.inf),
    "nonsense": lambda: InitError("what", retry_after=-1.0),
}


# Faults of lends and resets.
LEASE_FAULTS: dict[str, Callable[[], Any]] = {
    "closed": Closed,
    "dead": lambda: ConnectionResetError("torn"),
    "error": lambda: KeyError("no harm"),
}


def call_fault(fault: str, value: Any) -> Any:
    """What a call comes to with this fault, where it would have answered `value`."""
    made = FAULTS[fault]()
    if fault not in REPLIES:
        return Raised(made)
    if isinstance(value, Raised):
        return value
    if made is True:
        return Reply(value, closed=True)
    return Reply(value, cooldown=made)


# -- the reading ----------------------------------------------------------------------------------


@attrs.frozen
class Verdict:
    """What the end of a call means for its conn.

    `end` is why the conn leaves, or "".  `rest` are seconds that it rests at least.  `moves`: the
    call did not happen.  `wrong`: the conn said what makes no sense, and the caller is told.
    """

    end: str = ""
    rest: float = 0.0
    moves: bool = False
    wrong: bool = False


def read(said: Any, survives: bool) -> Verdict:
    """The verdict on a `Reply` or a `Raised`."""
    if isinstance(said, Reply):
        rest = _sense(said.cooldown)
        return Verdict("done" if said.closed else "", rest or 0.0, wrong=rest is None)
    error = said.error
    if isinstance(error, Closed):
        return Verdict("closed", moves=True)
    if isinstance(error, Busy):
        rest = _sense(error.cooldown)
        return Verdict(rest=rest or 0.0, moves=rest is not None, wrong=rest is None)
    if isinstance(error, CallError):
        rest = _sense(error.cooldown)
        return Verdict("dead" if error.closed else "", rest or 0.0, wrong=rest is None)
    if isinstance(error, PoolError):
        return Verdict()
    if isinstance(error, (OSError, EOFError)):
        return Verdict("dead")
    return Verdict("" if isinstance(error, Exception) or survives else "interrupted")


def read_check(error: BaseException) -> Verdict:
    """The verdict on a check that has failed before the conn was handed over."""
    if isinstance(error, Exception):
        return Verdict("dead", moves=True)
    return Verdict("interrupted")


def read_lend(error: BaseException, survives: bool) -> Verdict:
    """The verdict on a lend that raised."""
    if isinstance(error, Closed) or not isinstance(error, Exception):
        return read(Raised(error), survives)
    return Verdict()


def read_block(
    error: BaseException | None, *, whole: bool, resets: bool, survives: bool
) -> Verdict | None:
    """The verdict on a block that has ended; None: that is for the conn's reset to say."""
    if not whole:
        if error is None:
            return Verdict()
        said = read(Raised(error), survives)
        return Verdict(said.end, said.rest)  # a block never moves
    if error is not None and not isinstance(error, Exception) and not survives:
        return Verdict("interrupted")
    if resets:
        return None
    return Verdict() if error is None else Verdict("unclean")


def read_reset(error: BaseException) -> Verdict:
    """The verdict on a reset that raised."""
    if isinstance(error, (OSError, EOFError, Closed)):
        return Verdict("dead")
    return Verdict("unclean" if isinstance(error, Exception) else "interrupted")


def _sense(cooldown: Any) -> float | None:
    try:
        return seconds(cooldown, "cooldown")
    except (TypeError, ValueError):
        return None
