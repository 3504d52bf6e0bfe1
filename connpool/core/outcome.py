"""What a call's end says of its conn: the table of the contract, as data.

Owns the reading of replies and errors.  Refuses to act on them.

Invariant: whatever a conn says, an `Outcome` comes of it; what makes no sense becomes an error for
the caller of that conn, and nothing else.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..conn import Reply, asked, seconds
from ..errors import Busy, CallError, Closed, PoolError, show

# Why a conn was given up: the words of on_disconnect, stats and report.
CLOSED = "closed"  # it said so: the call had not happened
DEAD = "dead"  # OSError or EOFError: its peer is lost
DONE = "done"  # it ended in good order
INTERRUPTED = "interrupted"  # a call was cut short: what it left behind is unknown
EXPIRED = "expired"  # its ttl is over
POPPED = "popped"  # handed over to who asked for it
POOL_CLOSED = "pool closed"
GAVE_UP = "gave up"  # it said that it can never be initialised again

IDLE = "idle"  # unused for longer than max_idle
WITHDRAWN = "withdrawn"  # its supply ended or was made smaller, or it was drained
EVICTED = "evicted"  # idle, and another resource needed its place

UNCLEAN = "unclean"  # its reset failed, or it has none and its user's block raised
FORSAKEN = "forsaken"  # checked out, and never given back

SUSPECT = "suspect"  # a peer of it was found dead, and it could not be asked

# Reasons that say something of the server, and so of a conn's peers.
LOST = frozenset({CLOSED, DEAD})

# Reasons after which a supply owes no other conn for the one that left.
UNWANTED = frozenset({POPPED, POOL_CLOSED, IDLE, WITHDRAWN, EVICTED})

BROKEN = frozenset({CLOSED, DEAD, INTERRUPTED, UNCLEAN, FORSAKEN})


@attrs.frozen
class Outcome:
    """The end of a call, as far as the pool is concerned.

    `end` is the reason to give the conn up, or None.  `rest` is the seconds it asked for.  `error`
    is what the caller gets, None for a reply and for a call that moves.
    """

    end: str | None = None
    rest: float = 0.0
    moves: bool = False
    refused: bool = False
    error: BaseException | None = None


def of_reply(reply: Reply[Any]) -> Outcome:
    """What a `Reply` says."""
    rest, wrong = _rest(reply.cooldown, "cooldown of a Reply")
    wrong = wrong or _unclear(reply.closed, "closed of a Reply")
    return Outcome(end=DONE if reply.closed is True else None, rest=rest, error=wrong)


def of_error(error: BaseException, survives_cancel: Any) -> Outcome:
    """What it says of a conn that its call raised `error`.

    One that raises when it is looked at says nothing: what it raises is the caller's.
    """
    try:
        return _of_error(error, survives_cancel)
    except Exception as wrong:
        return Outcome(end=None if issubclass(type(error), Exception) else INTERRUPTED, error=wrong)


def _of_error(error: BaseException, survives_cancel: Any) -> Outcome:
    if isinstance(error, Closed):
        return Outcome(end=CLOSED, moves=True)
    if isinstance(error, Busy):
        rest, wrong = _rest(error.cooldown, "cooldown of Busy")
        return Outcome(rest=rest, moves=wrong is None, refused=wrong is None, error=wrong)
    if isinstance(error, CallError):
        rest, wrong = _rest(error.cooldown, "cooldown of a CallError")
        told = wrong or _unclear(error.closed, "closed of a CallError") or error
        return Outcome(end=DEAD if error.closed is True else None, rest=rest, error=told)
    if isinstance(error, PoolError):
        # A conn that itself uses a pool: PoolTimeout is an OSError, but not of this conn's peer.
        return Outcome(error=error)
    if isinstance(error, (OSError, EOFError)):
        return Outcome(end=DEAD, error=error)
    if isinstance(error, Exception) or survives_cancel is True:
        return Outcome(error=error)
    return Outcome(end=INTERRUPTED, error=error)


def survives(conn: Any) -> bool:
    """Whether a conn says that it survives a call that is cut short."""
    return asked(conn, "survives_cancel", False) is True


def of_check(error: BaseException) -> Outcome:
    """What it says that a conn's check raised `error`, before the conn was handed over."""
    if isinstance(error, Exception):
        return Outcome(end=DEAD, moves=True)
    return Outcome(end=INTERRUPTED, error=error)


def of_lend(error: BaseException, survives_cancel: Any) -> Outcome:
    """What it says that a conn's lend raised `error`: only by `Closed` it speaks of itself."""
    if isinstance(error, Exception) and not isinstance(error, Closed):
        return Outcome(error=error)
    return of_error(error, survives_cancel)


def of_block(error: BaseException, survives_cancel: Any) -> Outcome:
    """What it says of a conn that the block of one who shares it raised `error`."""
    ended = of_error(error, survives_cancel)
    return Outcome(ended.end, ended.rest, error=error) if ended.moves else ended


def of_leaving(
    error: BaseException | None, *, shared: bool, resets: bool, survives_cancel: Any
) -> Outcome | None:
    """What it says of a conn that the block of who held it ended, with an `error` or without.

    None: nothing yet, its reset is to say.  One who shares a conn leaves it to the others, as after
    a call; a whole one without a reset is given up where anything was raised, and a block that was
    cut short may have left it in the middle of something.
    """
    if error is None:
        return None if resets and not shared else Outcome()
    if shared:
        return of_block(error, survives_cancel)
    if not isinstance(error, Exception) and survives_cancel is not True:
        return Outcome(end=INTERRUPTED)
    return None if resets else Outcome(end=UNCLEAN)


def of_reset(error: BaseException) -> Outcome:
    """What it says of a conn that its reset raised `error`."""
    if isinstance(error, (OSError, EOFError, Closed)):
        return Outcome(end=DEAD)
    return Outcome(end=UNCLEAN if isinstance(error, Exception) else INTERRUPTED)


def _rest(value: Any, what: str) -> tuple[float, Exception | None]:
    """The seconds of rest, or the error that says why they make no sense."""
    try:
        return seconds(value, what), None
    except Exception as error:  # by what it is, or by what it does when it is looked at
        return 0.0, error


def _unclear(closed: Any, what: str) -> Exception | None:
    """The error that says why it cannot be told whether a conn is closed, if so."""
    if closed is True or closed is False:
        return None
    return TypeError(f"{what}: expected True or False, got {show(closed)}")


def first_rest(value: Any) -> float:
    """What init returned, as seconds to wait: None is 0."""
    if value is None:
        return 0.0
    try:
        return seconds(value, "init")
    except (TypeError, ValueError):
        raise TypeError(
            f"init: expected None, or seconds to wait before the first call, got {show(value)}"
        ) from None
