"""Supply: how many conns to a resource there should be, and when to open one more.

Owns the sizes, the pauses between failures and what conns of one supply have in common.  Refuses
to know entries, tickets and time as such: it is asked with numbers and answers with numbers.

Invariant: `0 <= min_size`, `1 <= max_size`, and what `wanted` gives never leads beyond `max_size`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from ..conn import seconds
from ..errors import show
from .options import check_limit, check_revive, check_ttl
from .revive import Backoff, advice, after_failure

# While somebody waits, pauses between attempts grow no longer than this many seconds: the caller's
# patience is 30 by default, and a server that is back should not find everybody gone.
WANTED = 2.0

# A ttl is shortened by up to this share, and idle checks are brought forward by it, so that conns
# born together do not die together (a jitter of 2.5 % was too little: HikariCP).
SPREAD = 0.25

# A conn that dies sooner than this many seconds after its birth, and has answered nothing, counts
# like one that could not be opened: or a server that accepts and hangs up would be called all day.
YOUNG = 1.0


def _ttl(value: Any) -> float | None:
    return check_ttl(value)


def _idle(value: Any) -> float:
    return math.inf if value is None else seconds(value, "max_idle", infinite=True)


def _connect_timeout(value: Any) -> float:
    return math.inf if value is None else seconds(value, "connect_timeout", infinite=True)


def _interval(value: Any) -> float:
    if value is None:
        return math.inf
    interval = seconds(value, "ping_interval", infinite=True)
    if not interval:
        raise ValueError(f"ping_interval: expected more than 0 seconds, got {show(value)}")
    return interval


@attrs.define(eq=False)
class Supply:
    """Conns of one kind to one resource, made as they are needed.

    Of `size` conns `unborn` are being opened and `leaving` are on their way out.  `owed` are those
    that died and are to be replaced though nobody asks for them.  `failures` counts failed openings
    since the last one that went well, and until `retry_at` none is tried; `over`: none will
    ever be tried again.  `young` counts those that died as soon as they were born, one after the
    other; conns numbered up to `litter` were there when the last of them died.
    """

    resource: Hashable
    factory: Callable[[], Any]
    setup: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    extra: Any = None
    ttl: float | None = attrs.field(default=None, converter=_ttl)
    revive: bool | str = attrs.field(default=True, converter=check_revive)
    min_size: int = 0
    max_size: int = 10
    max_idle: float = attrs.field(default=600.0, converter=_idle)
    connect_timeout: float = attrs.field(default=10.0, converter=_connect_timeout)
    ping_interval: float = attrs.field(default=math.inf, converter=_interval)
    id: int = 0
    alarm: float = math.inf
    size: int = 0
    unborn: int = 0
    leaving: int = 0
    owed: int = 0
    failures: int = 0
    retry_at: float = -math.inf
    advised: bool = False  # the conn itself has said how long to pause
    young: int = 0
    litter: int = 0
    over: BaseException | None = None
    withdrawn: bool = False
    queued: bool = False  # stands in the queue for a slot
    methods: frozenset[Hashable] | None = None  # of the last one opened, None before that

    def __attrs_post_init__(self) -> None:
        if not callable(self.factory):
            raise TypeError(f"factory: expected a function, got {show(self.factory)}")
        self.resize(self.min_size, self.max_size)

    def anew(self) -> Supply:
        """One like it that has made nothing yet."""
        return Supply(
            self.resource, self.factory, self.setup, self.extra, self.ttl, self.revive,
            self.min_size, self.max_size, self.max_idle, self.connect_timeout, self.ping_interval,
        )  # fmt: skip

    def resize(self, min_size: Any, max_size: Any) -> None:
        """Set both sizes, or raise and change nothing."""
        for what, value, least in (("min_size", min_size, 0), ("max_size", max_size, 1)):
            if check_limit(value, what, least=least) is None:
                raise TypeError(f"{what}: expected a whole number from {least} up, got None")
        if min_size > max_size:
            raise ValueError(f"min_size: expected at most max_size, {max_size}, got {min_size}")
        self.min_size, self.max_size = min_size, max_size
        self.owed = min(self.owed, max_size)

    def may_serve(self, method: Hashable, *, any_method: bool) -> bool:
        """Whether one more of its conns would have the method, as far as is known."""
        return self.hopeful and (any_method or self.methods is None or method in self.methods)

    @property
    def has_room(self) -> bool:
        """Whether it may open one beyond those it has."""
        return self.hopeful and self.size < self.max_size

    @property
    def hopeful(self) -> bool:
        """Whether it may open another one, now or later."""
        return self.over is None and not self.withdrawn

    @property
    def has_spare(self) -> bool:
        """Whether an idle one may leave: one that is not born yet does not stand in for it, nor one
        that leaves itself."""
        return self.size - self.unborn - self.leaving > self.min_size

    def wanted(self, waiting: int, now: float) -> int:
        """How many more to begin opening, where `waiting` callers could be served by one each.

        One on its way counts for a caller, since it will serve whoever is first then.  After a
        failure one is tried at a time: a server that has just come up is not stormed.

        >>> supply = Supply("db", object, min_size=2, max_size=4)
        >>> supply.wanted(0, now=0.0), supply.wanted(9, now=0.0)
        (2, 4)
        """
        if not self.hopeful or now < self.retry_at:
            return 0
        room = self.max_size - self.size
        missing = self.min_size - (self.size - self.leaving)
        asked = max(missing, waiting - self.unborn, self.owed)
        if self.failures:
            room = min(room, 1 - self.unborn)
        return max(0, min(asked, room))

    def began(self) -> None:
        """One more is being opened."""
        self.size += 1
        self.unborn += 1
        self.owed = max(0, self.owed - 1)

    def lost(self, revive: bool | str, *, replace: bool) -> None:
        """One has died or expired; it is to be replaced, unless it ended in good order."""
        if revive == "force" or (revive and replace):
            self.owed = min(self.owed + 1, self.max_size)

    def pause(self, until: float) -> None:
        """None is opened before `until`."""
        self.retry_at = max(self.retry_at, until)

    def died_young(
        self,
        born: float,
        number: int,
        newest: int,
        waiting: int,
        now: float,
        backoff: Backoff,
        rng: Callable[[], float],
    ) -> None:
        """Conn `number`, born at `born`, died and has answered nothing; the newest is `newest`.

        The first is replaced at once.  Those that were there when it died count with it, since it
        was one accident.
        """
        if now - born >= YOUNG:
            self.young = 0
        elif number > self.litter:
            self.young, self.litter = self.young + 1, newest
            if self.young > 1:
                wait = backoff.delay(self.young - 1, rng)
                self.pause(now + (min(wait, WANTED) if waiting else wait))

    def succeeded(self) -> None:
        """One was opened: all is well again."""
        self.unborn -= 1
        if self.failures:
            self.failures = 0
            self.advised = False
            self.retry_at = -math.inf

    def failed(
        self,
        error: BaseException,
        waiting: int,
        now: float,
        backoff: Backoff,
        rng: Callable[[], float],
    ) -> None:
        """One could not be opened: when to try again, if ever."""
        self.unborn -= 1
        self.failures += 1
        wait = after_failure(error, self.failures, backoff, rng)
        self.advised = advice(error) is not None
        if math.isinf(wait):
            self.over = error
        else:
            self.retry_at = now + (min(wait, WANTED) if waiting and not self.advised else wait)

    def hurry(self, now: float) -> None:
        """Somebody has begun to wait: a long pause is cut short, unless the conn has asked for it,
        who must know what its server can bear."""
        if not self.advised:
            self.retry_at = min(self.retry_at, now + WANTED)

    def lifetime(self, rng: Callable[[], float]) -> float | None:
        """The ttl of the next one: spread, and only ever shortened."""
        return None if self.ttl is None else self.ttl * (1 - SPREAD * rng())
