"""The driver: leads the core through its doors in invented time, and checks nothing.

Owns what a driver owns: it asks, queues, wakes, opens, checks and closes, and looks at the core
when something is due.  Refuses to know why callers come and servers stop.

It follows the driver of tasks: who finds nothing free queues in the same turn.  Background work is
done by as many hands as there is work; a real driver has one more than `max_connecting`, which only
checks and closes could notice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from connpool.core import (
    Core,
    Entry,
    Options,
    Permit,
    Standing,
    Supply,
    Ticket,
    Work,
    of_error,
)
from connpool.errors import CallError, Closed, PoolError
from connpool.testing.sim_time import INF, Timeline

from .books import Books
from .servers import METHOD, ROUND_TRIP, Conn, Server
from .streams import Call

GRANTED = Standing.GRANTED

# A server that stops while a conn opens: said once, for there are many.
RESET = ConnectionResetError("the server has stopped")
REFUSED = ConnectionRefusedError("the server is down")
LATE = TimeoutError("the connect took too long")
HUNG_UP = Closed("the server has hung up")
FAILS = CallError("fails at once")


class Drive:
    """One pool in invented time; several may share one."""

    def __init__(self, time: Timeline, options: Options, seed: int, books: Books) -> None:
        self.time = time
        self.books = books
        self.core = Core(options, random.Random(seed).random, lambda: None)
        self._wakes = INF  # when the keeper will look at the core

    # -- conns ---------------------------------------------------------------------------------

    def put(self, conn: Conn, *, revive: bool = False) -> None:
        """Add a conn that is open already."""
        now = self.time.now
        permit = self.core.admit(conn, revive=revive, now=now)
        self.core.opened(permit, conn.describe(conn.resource), 0.0, now)
        self.leave()

    def supply(self, supply: Supply) -> None:
        """Let the pool make conns by itself; the factory gives a `Conn`."""
        self.core.supply(supply, self.time.now)
        self.leave()

    # -- callers -------------------------------------------------------------------------------

    def feed(self, calls: Iterable[Call]) -> None:
        """Let calls come, each when its time has come."""
        self._feed(iter(calls), None)

    def _feed(self, calls: Iterator[Call], come: Call | None) -> None:
        if come is not None:
            self.ask(come)
        following = next(calls, None)
        if following is not None:
            self.time.note(following.asked, 0, self._feed, (calls, following))

    def ask(self, call: Call) -> None:
        """Somebody wants a conn: the straight path, or else the line."""
        core, now = self.core, self.time.now
        self.books.asks(call)
        try:
            entry = core.take(call.resource, METHOD, None, call.by, call, now)
            if entry is None:
                ticket = self._ticket(call)
                core.queue(ticket, now)
                entry = ticket.entry
        except PoolError as error:
            self.books.fails(call, error)
        else:
            if entry is not None:
                call.place = core.place()
                self._begin(call, entry)
        self.leave()

    @staticmethod
    def _ticket(call: Call, cause: BaseException | None = None) -> Ticket:
        ticket = Ticket(
            call.resource, METHOD, None, call.by, call, call.asked, call.deadline, call.place, cause
        )
        ticket.waiter = call
        return ticket

    def route(self, call: Call) -> None:
        """Somebody wants to be told which conn to use, and is not counted by the pool."""
        core, now = self.core, self.time.now
        self.books.asks(call)
        conn = core.glance(call.resource, METHOD, call.by, now)
        if conn is None:
            conn = core.route(call.resource, METHOD, None, call.by, now)
        self._serve(call, conn.server, self._routed)

    def _routed(self, call: Call, server: Server) -> None:
        if server.running.pop(call, None) is not None:
            self.books.answers(call, server, self.time.now)

    # -- calls ---------------------------------------------------------------------------------

    def _begin(self, call: Call, entry: Entry) -> None:
        """A call has its conn."""
        call.entry, call.started = entry, self.time.now
        call.tries += 1
        conn: Conn = entry.conn
        if conn.alive:
            self._serve(call, conn.server, self._ends)
        else:
            self._moves(call, HUNG_UP)

    def _serve(self, call: Call, server: Server, ends: Any) -> None:
        at = server.accept(call, self.time.now)
        server.running[call] = self._torn
        self.time.note(at, 0, ends, (call, server))

    def _ends(self, call: Call, server: Server) -> None:
        """A call has come to its end, unless its server stopped before."""
        if server.running.pop(call, None) is None:
            return
        entry, now = call.entry, self.time.now
        assert entry is not None
        if server.fault:
            error = FAILS if server.fault == "fails" else RESET
            self._concludes(call, error)
            self.books.fails(call, error)
        else:
            self.core.give(entry, METHOD, call, call.started, now)
            self.books.answers(call, server, now)
        self.leave()

    def _torn(self, call: Call) -> None:
        """The server has stopped in the middle of a call."""
        if call.entry is not None:
            self._concludes(call, RESET)
        self.books.fails(call, RESET)
        self.leave()

    def _concludes(self, call: Call, error: Exception) -> None:
        assert call.entry is not None
        ended = of_error(error, False)
        now = self.time.now
        self.core.conclude(call.entry, METHOD, call, ended, call.started, now, error)

    def _moves(self, call: Call, error: Exception) -> None:
        """It had not happened: it asks again, with its place."""
        self._concludes(call, error)
        ticket = self._ticket(call, error)
        try:
            self.core.submit(ticket, self.time.now)
        except PoolError as refused:
            self.books.fails(call, refused)
            return
        if ticket.standing is GRANTED and ticket.entry is not None:
            self._begin(call, ticket.entry)

    # -- steps ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Carry out what the core wants done, and see to its alarms."""
        core = self.core
        while core.steps:
            for step in core.drain():
                if step.__class__ is Ticket:
                    self._woken(step)
                elif step.__class__ is Permit:
                    self._permitted(step)
        if core.due < self._wakes:
            self._wakes = core.due
            self.time.note(max(self.time.now, core.due), 1, self._keep, (core.due,))

    def _keep(self, due: float) -> None:
        """What the keeper does: all that is due."""
        if due == self._wakes:  # or it was told of something earlier
            self._wakes = INF
            self.core.tick(self.time.now)
            self.leave()

    def _woken(self, ticket: Ticket) -> None:
        call: Call = ticket.waiter
        if ticket.error is not None:
            self.books.fails(call, ticket.error)
        else:
            assert ticket.entry is not None
            call.place = ticket.place
            self._begin(call, ticket.entry)

    def _permitted(self, permit: Permit) -> None:
        if permit.work is Work.OPEN:
            self._open(permit)
        elif permit.work is Work.CHECK:
            self.time.note(self.time.now + ROUND_TRIP, 0, self._checked, (permit,))
        else:
            self.time.note(self.time.now, 0, self._closed, (permit,))

    def _open(self, permit: Permit) -> None:
        if permit.make is not None:
            self.core.adopt(permit, permit.make())
        server: Server = permit.entry.conn.server
        reached = server.up and not server.hangs
        needs = server.greet(self.time.now)
        life = server.life if reached else -1
        at = self.time.now + min(needs, permit.limit)
        self.time.note(at, 0, self._opened, (permit, server, life, needs > permit.limit))

    def _opened(self, permit: Permit, server: Server, life: int, late: bool) -> None:
        now = self.time.now
        if life == server.life:
            server.greeting -= 1
        if life != server.life or late:
            error: Exception = LATE if late else REFUSED if life < 0 else RESET
            self.books.unborn += 1
            self.core.open_failed(permit, error, now)
        else:
            conn: Conn = permit.entry.conn
            conn.life = life
            if conn.notices:
                entry, lives = permit.entry, permit.entry.lives + 1
                server.losses[conn] = partial(self._lost, entry, lives)
            self.books.born.append(now)
            resource = conn.resource if permit.resource is None else permit.resource
            self.core.opened(permit, conn.describe(resource), 0.0, now)
        self.leave()

    def _lost(self, entry: Entry, life: int) -> None:
        """A conn has noticed that its server is gone."""
        self.core.lost(entry, life, RESET, self.time.now)
        self.leave()

    def _checked(self, permit: Permit) -> None:
        alive = permit.entry.conn.alive
        self.core.checked(permit, None if alive else RESET, self.time.now)
        self.leave()

    def _closed(self, permit: Permit) -> None:
        self.books.ended[permit.reason] += 1
        conn: Conn = permit.entry.conn
        conn.server.losses.pop(conn, None)
        self.core.closed_one(permit, self.time.now)
        self.leave()


def outage(time: Timeline, server: Server, at: float, seconds: float) -> None:
    """Let a server be down for a while."""

    time.note(at, 0, server.stop, ())
    time.note(at + seconds, 0, server.start, ())


def run(time: Timeline, until: float = math.inf) -> None:
    """Let all happen that is to come by then."""
    while time.next <= until and time.happen():
        pass
