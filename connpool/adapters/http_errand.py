"""One call, from mirror to mirror: which request comes next, and what comes of it all.

Owns the order of things in a call, for threads and tasks alike.  Refuses to send or to wait: a conn
asks it for requests, and tells it of each response or error.

Invariant: a request that may have been carried out is followed by another only if its method may
be repeated, and what the pool is told then is never that nothing happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import httpx

from ..conn import Reply
from ..errors import Busy, Closed, show
from .http_pace import Limit, Pace, Start
from .http_rules import is_told, meaning, retry_after
from .http_target import Target
from .http_wire import Watch, Wire


@attrs.frozen(kw_only=True)
class Manners:
    """What a conn makes of answers.

    `busy` maps each status that means "not now" to the seconds to rest where the server does not
    say how long; None: without that, it is a response like any other.  `closed` are those that
    mean "not with these credentials".  No rest is longer than `max_rest`.  `repeat` are the methods
    that may be carried out twice.
    """

    busy: Mapping[int, float | None]
    closed: frozenset[int]
    max_rest: float
    repeat: frozenset[str]
    pace: Pace | None
    limit: Callable[[Mapping[str, str], float], Limit | None]

    def rest(self, response: httpx.Response) -> float | None:
        """The seconds to rest, or None: this response says nothing of the kind."""
        if response.status_code not in self.busy:
            return None
        rest = retry_after(response.headers, time.time())
        if rest is None:
            rest = self.busy[response.status_code]
        return None if rest is None else min(rest, self.max_rest)


class Errand:
    """One call of a conn.

    Parameters:
        who: the conn, for messages.
        manners, target: of the conn.

    Iterating gives the arguments of one request after another, for as long as there is need.  Call
    `over` with each one, which adds what tells us how far it comes; send it; and say what came of
    it: `answered`, `failed`, `again` or `cut_off`.  Then `result` is the reply, or raises.
    """

    def __init__(
        self, who: object, method: Any, payload: Any, manners: Manners, target: Target
    ) -> None:
        if not isinstance(method, str):
            raise TypeError(f"method: expected one of HTTP, such as 'GET', got {show(method)}")
        self._who = who
        self._method = method
        self._manners = manners
        self._target = target
        self._requests = target.requests(payload)
        self._over = self._again = False
        self._watch = Watch(Wire(None))
        self._start: Start | None = None
        self._mirror = 0
        # What there is to say in the end: the first of these that there is.
        self._reply: httpx.Response | Reply[httpx.Response] | None = None
        self._lost: Exception | None = None
        self._busy: Busy | None = None
        self._closed: Exception | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        pace = self._manners.pace
        for mirror, request in self._requests:
            self._mirror = mirror
            if pace is not None:
                try:
                    self._start = pace.start()
                except Busy as early:
                    self._busy = Busy(early.cooldown, f"{self._who!r}: {early.reason}")
                    return
            self._again = True
            while self._again:
                self._again = False
                yield request
            if self._over:
                return

    def over(self, wire: Wire, request: dict[str, Any], *, awaits: bool) -> dict[str, Any]:
        """What to give to the client of the wire."""
        self._watch = Watch(wire)
        trace = self._watch.follow if awaits else self._watch
        extensions = {**(request.get("extensions") or {}), "trace": trace}
        return {**request, "method": self._method, "extensions": extensions}

    def answered(self, response: httpx.Response) -> None:
        """A response came, with its body."""
        rest = self._manners.rest(response)
        cooldown = self._pace(response, rest)
        status = response.status_code
        if rest is not None:
            self._busy = Busy(cooldown, f"{self._who!r}: answered {status}, it has to rest")
        elif status in self._manners.closed:
            self._closed = Closed(f"{self._who!r}: answered {status}, it is not let in")
        else:
            self._reply = Reply(response, cooldown=cooldown) if cooldown else response
            self._over = status < httpx.codes.BAD_REQUEST
            if self._over:
                self._target.prefer(self._mirror)
        self._over = self._over or not self._may_repeat

    def failed(self, error: Exception) -> bool:
        """No response came: whether that is a matter of the connection, or else the caller's."""
        if self._watch.wire.worn and not self._watch.requests:
            # It was our own doing that ended this wire; nothing was sent over it.
            self._again = True
        elif is_told(error):
            self._judge(meaning(error, self._watch, self._who))
        else:
            return False
        return True

    def cut_off(self) -> None:
        """The conn was closed, so no more can be asked."""
        self._over = True
        self._judge(Closed(f"{self._who!r}: it is not open, nothing was sent"))

    def result(self) -> httpx.Response | Reply[httpx.Response]:
        """The reply, or the error.

        Any answer is better than none.  Without one the caller must be told first that something
        may have happened; only if surely nothing has, may the pool try elsewhere.
        """
        if self._reply is not None:
            return self._reply
        raise self._lost or self._busy or self._closed or AssertionError("nothing was asked")

    @property
    def _may_repeat(self) -> bool:
        return self._method.upper() in self._manners.repeat

    def _judge(self, error: Exception) -> None:
        if isinstance(error, Busy):
            self._busy = error
        elif isinstance(error, Closed):
            self._closed = error
        else:
            self._lost = error
            # A mistake of the caller's is one at every mirror.
            self._over = not self._may_repeat or isinstance(error, ValueError)

    def _pace(self, response: httpx.Response, rest: float | None) -> float:
        """The seconds that the conn rests after this response."""
        pace, start = self._manners.pace, self._start
        if pace is None or start is None:
            return rest or 0.0
        if rest is not None:
            return pace.refused(start, rest)
        limit = self._manners.limit(response.headers, time.time())
        return min(pace.answered(start, limit), self._manners.max_rest)
