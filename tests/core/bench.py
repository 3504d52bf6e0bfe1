"""A bench to try the core on: conns that do nothing, an invented `now`, and a short word for each
door.  After each step the core is audited."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Hashable
from typing import Any

from connpool.conn import Reply, describe
from connpool.core import (
    ALARM,
    ANY,
    LOOK,
    Backoff,
    Core,
    Entry,
    Forsaken,
    Info,
    Options,
    Outcome,
    Permit,
    Pop,
    Standing,
    Ticket,
    Work,
    of_error,
    of_reply,
)
from tests.core.audit import audit


class Line:
    """A conn that says what it is, and does nothing."""

    def __init__(self, resource: Any, methods: Collection[Hashable], capacity: int) -> None:
        self.resource = resource
        self.names = methods
        self.capacity = capacity


class Bench:
    """A core, the time it is told, and the steps it has left."""

    def __init__(self, *, audited: bool = True, **options: Any) -> None:
        options.setdefault("backoff", Backoff(jitter=0))
        self.now = 0.0
        self.me: Any = None  # whom a filter that calls the pool belongs to
        self.chances = itertools.repeat(0.0)
        self.core = Core(
            Options(name="bench", **options), lambda: next(self.chances), lambda: self.me
        )
        self.woken: list[Ticket] = []
        self.permits: list[Permit] = []  # to be carried out
        self.popped: list[Pop] = []
        self.collects = True  # who pops comes for the conns at once
        self.alarms = 0
        self.looks = 0  # at whether those who hold conns are still there
        self.forsaken: list[Forsaken] = []
        self.straight = True  # what can be done outside a turn is, as drivers do
        self._callers = itertools.count(1)
        self._audited = audited

    # -- time and steps ------------------------------------------------------------------------

    def look(self) -> None:
        """Take over the steps, and audit."""
        for step in self.core.drain():
            if step is ALARM:
                self.alarms += 1
            elif isinstance(step, Permit):
                self.permits.append(step)
            elif isinstance(step, Pop):
                self.popped.append(step)
                if step.done and step.error is None and self.collects:
                    self.core.popped(step, 0.0, 0.0, self.now)
            elif step is LOOK:
                self.looks += 1
            elif isinstance(step, Forsaken):
                self.forsaken.append(step)
            else:
                assert step.standing is not Standing.QUEUED
                self.woken.append(step)
        if self._audited:
            audit(self.core, self.now)

    def enter(self, door: str, *args: Any) -> Any:
        """Through a door of the core, now; the audit follows, whatever it raises."""
        try:
            return getattr(self.core, door)(*args, self.now)
        finally:
            self.look()

    def at(self, now: float) -> None:
        """It is `now`, and the driver comes to do what is due."""
        self.now = now
        self.core.tick(now)
        self.core.end_turn()
        self.look()

    # -- conns ---------------------------------------------------------------------------------

    def admit(
        self,
        resource: Any = "a",
        methods: Collection[Hashable] = ("m",),
        capacity: int = 1,
        **known: Any,
    ) -> Permit:
        """The permit to open a new conn."""
        permit = self.core.admit(Line(resource, methods, capacity), now=self.now, **known)
        self.look()
        return permit

    def conn(
        self,
        resource: Any = "a",
        methods: Collection[Hashable] = ("m",),
        capacity: int = 1,
        *,
        rest: float = 0.0,
        **known: Any,
    ) -> Entry:
        """A new conn, open."""
        permit = self.admit(resource, methods, capacity, **known)
        self.opened(permit, rest)
        return permit.entry

    def opened(self, permit: Permit, rest: float = 0.0) -> Info | None:
        """The conn of a permit is open."""
        conn = permit.entry.conn
        info = self.core.opened(permit, describe(conn, conn.names), rest, self.now)
        self.look()
        return info

    def failed(self, permit: Permit, error: BaseException | None = None) -> None:
        """The conn of a permit could not be opened."""
        error = OSError("refused") if error is None else error
        self.core.open_failed(permit, error, self.now)
        self.look()

    def closed(self, permit: Permit) -> None:
        """The conn of a permit is closed."""
        self.core.closed_one(permit, self.now)
        self.look()

    def next(self, work: Work) -> Permit:
        """The next permit of this kind that is to be carried out."""
        permit = next(permit for permit in self.permits if permit.work is work)
        self.permits.remove(permit)
        return permit

    def opening(self) -> Permit:
        """The next conn to be opened."""
        return self.next(Work.OPEN)

    def closing(self) -> Permit:
        """The next conn to be closed."""
        return self.next(Work.CLOSE)

    def work(self) -> None:
        """Do all that is to be opened and closed, until there is nothing more."""
        while self.permits:
            permit = self.permits.pop(0)
            if permit.work is Work.OPEN:
                self.opened(permit)
            else:
                self.closed(permit)

    # -- callers -------------------------------------------------------------------------------

    def ask(
        self,
        resource: Hashable = "a",
        method: Hashable = "m",
        *,
        filter: Callable[[Any], Any] | None = None,
        by: Any = None,
        who: Any = ...,
        timeout: float = math.inf,
        whole: bool = False,
    ) -> Ticket:
        """A caller asks for a place of a conn, or for all: somebody new, unless it is said who."""
        who = next(self._callers) if who is ... else who
        due = self.now + timeout
        ticket = Ticket(resource, method, filter, by, who, self.now, due, whole=whole)
        straight = self.straight and filter is None and by is None and not whole
        entry = self.core.borrow(resource, method, who, self.now) if straight else None
        return self.submit(ticket) if entry is None else self._had(ticket, entry)

    def _had(self, ticket: Ticket, entry: Entry | None) -> Ticket:
        """What was to be had outside a turn, or else the ticket is handed in."""
        if entry is None:
            return self.submit(ticket)
        ticket.entry, ticket.standing = entry, Standing.GRANTED
        ticket.place = self.core.place()
        self.look()
        return ticket

    def submit(self, ticket: Ticket) -> Ticket:
        """A ticket is handed in."""
        try:
            return self.core.submit(ticket, self.now)
        finally:
            self.look()

    def answer(self, ticket: Ticket, took: float | None = None) -> None:
        """A granted call was answered; it began when it was granted, or `took` seconds ago."""
        entry = holder(ticket)
        started = entry.since if took is None else self.now - took
        if not self.straight:
            self.core.give(entry, ticket.method, ticket.who, started, self.now)
        elif not self.core.put_back(entry, ticket.method, started, self.now):
            self.core.returned(entry, ticket.who, self.now)
        ticket.standing = Standing.OVER
        self.look()

    def end(
        self, ticket: Ticket, said: BaseException | Reply[Any], *, survives: bool = False
    ) -> Outcome:
        """A granted call ended with a `Reply`, or raised."""
        entry = holder(ticket)
        error = None if isinstance(said, Reply) else said
        ended = of_reply(said) if isinstance(said, Reply) else of_error(said, survives)
        who, since = ticket.who, entry.since
        self.core.conclude(entry, ticket.method, who, ended, since, self.now, error)
        ticket.standing = Standing.OVER
        self.look()
        return ended

    def move(self, ticket: Ticket, said: BaseException) -> Ticket:
        """A granted call did not happen: it ends so, and asks again."""
        assert self.end(ticket, said).moves
        return self.submit(ticket.again(said))

    def cancel(self, ticket: Ticket) -> None:
        """A caller gives up."""
        self.core.cancel(ticket, self.now)
        self.look()

    # -- checkouts -----------------------------------------------------------------------------

    def lease(
        self,
        resource: Hashable = "a",
        method: Hashable = ANY,
        *,
        filter: Callable[[Any], Any] | None = None,
        by: Any = None,
        who: Any = ...,
        timeout: float = math.inf,
        whole: bool = True,
    ) -> Ticket:
        """A user checks a conn out, whole or a place of it; where none is free he waits."""
        who = next(self._callers) if who is ... else who
        ticket = Ticket(resource, method, filter, by, who, self.now, self.now + timeout)
        ticket.whole = whole
        if self.straight and filter is None and by is None and whole and self.core.leasing:
            return self._had(ticket, self.core.hold(resource, method, who, self.now))
        try:
            entry = self.core.lease(resource, method, filter, by, who, self.now, whole)
        finally:
            self.look()
        return self._had(ticket, entry)

    def release(self, lease: Ticket) -> None:
        """A checkout is over, and its conn is well; or it was over, and this is said too late."""
        assert lease.entry is not None
        if not (self.straight and self.core.hand_back(lease.entry, lease.who, self.now)):
            self.core.release(lease.entry, lease.who, self.now)
        lease.standing = Standing.OVER
        self.look()

    def forfeit(self, lease: Ticket, ended: Outcome, cause: BaseException | None = None) -> None:
        """A checkout is over, and `ended` says what its conn is good for."""
        assert lease.entry is not None
        self.core.forfeit(lease.entry, lease.who, ended, self.now, cause)
        lease.standing = Standing.OVER
        self.look()

    def forsake(self, lease: Ticket, where: Any = None) -> None:
        """A checkout is lost."""
        assert lease.entry is not None
        self.core.forsake(lease.entry, lease.who, where, self.now)
        lease.standing = Standing.OVER
        self.look()

    # -- what users do -------------------------------------------------------------------------

    def extra(self, entry: Entry, value: Any) -> Any:
        """Replace what is pinned to a conn."""
        old = self.core.set_extra(entry.id, value, self.now)
        self.look()
        return old

    def update(
        self,
        resource: Hashable = "a",
        fn: Callable[[Info], Any] | None = None,
        filter: Callable[[Any], Any] | None = None,
        **changes: Any,
    ) -> int:
        """Change conns."""
        return self.enter("update", resource, fn, filter, changes)  # type: ignore[no-any-return]

    def pop(self, *entries: Entry, who: Any = None) -> Pop:
        """Begin to take conns out."""
        return self.enter("pop", entries, who)  # type: ignore[no-any-return]

    def unpop(self, pop: Pop) -> None:
        """Give that up."""
        self.core.unpop(pop, self.now)
        self.look()

    def close(self) -> None:
        """Close the pool."""
        self.core.close(self.now)
        self.look()

    def abandon(self) -> list[Info]:
        """The time to close is over."""
        left = self.core.abandon(self.now)
        self.look()
        return left

    def info(self, entry: Entry) -> Info:
        """The picture of a conn."""
        return self.core.info(entry.id, self.now)


def holder(ticket: Ticket) -> Entry:
    """The conn that was granted to a ticket."""
    assert ticket.standing is Standing.GRANTED, f"{ticket.standing}: {ticket.error!r}"
    assert ticket.entry is not None
    return ticket.entry


def granted(ticket: Ticket) -> bool:
    """Whether a caller has a conn."""
    return ticket.standing is Standing.GRANTED


def queued(ticket: Ticket) -> bool:
    """Whether a caller waits."""
    return ticket.standing is Standing.QUEUED


def error_of(ticket: Ticket) -> BaseException:
    """What a caller who waited in vain was told."""
    assert ticket.standing is Standing.FAILED
    assert ticket.error is not None
    return ticket.error
