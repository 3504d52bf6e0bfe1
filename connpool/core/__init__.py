"""The pure core: decides everything, does nothing.

Theory of operation
===================

**The rules of the room.**

1. No clock, thread, loop, socket, logging or global random in here.  Time comes in as `now`, chance
   as a function, the identity of a caller as an opaque `who`.
2. A driver enters through a door (a public method of `Core`), one at a time: that is a *turn*.  It
   finds the core consistent, and leaves it consistent, whatever the door raises.  The doors of
   `straight` need no turn: where nothing is out of the ordinary a conn changes hands in a *stroke*,
   in which nobody can come in between, and which gives way to any turn.
3. What is to be done outside (wake somebody, open or close a conn, look at the clock earlier) is
   left in `steps`.  The driver takes them before it lets go, and carries them out afterwards.
4. Everything that is due at `now` is done before anything else at `now`.  One comparison with `due`
   at each door sees to that, so a conn that has expired is never lent and a caller whose time is
   over is never served, however late the driver comes.

**Entries.**  A conn in the pool is an `Entry` with one explicit state::

    OPENING ──> READY <──> COOLING          alive: may be lent, rests
                  ^ (and CHECKING: is asked whether it is well)
                  │ └────────┐ │
                  v          v v
              REVIVING <── (dies) ──> DRAINING ──> GONE
                  │                      ^
                  └──> READY, COOLING    └── popped, dropped, or the pool closes

   `entry.move` holds the table and is the only writer.  Whether a READY entry is full is a count,
   not a state.  Expired and dead are not states either, but reasons to leave one.

**Permits.**  To open or close a conn takes a driver time, so the core gives a `Permit` and goes on.
It comes back exactly once (`opened`, `open_failed`, `closed_one`).  An entry out of service goes
one step on only when nobody uses it and no permit for it is out (`life._onward`): close, then,
where it is revived, open again.  What became of the entry meanwhile decides what a late result
means; an overdue permit frees its slot and is otherwise waited for.

**Tickets.**  Who finds no free conn queues a `Ticket`.  Those who want the same method through the
same filter share a `Need`, and the need holds a *witness*: one conn that can still come and would
serve them.  Only when the witness is lost is another one looked for, and where there is none the
waiting ends at once with the precise error.  Who holds the witness himself has a need alone, with
another witness: where there is none he would wait for himself, and is told so.

**Two facts carry the fairness.**  A conn with a free place lies in the rotation only while nobody
who waits can be served by it; so a newcomer who finds one overtakes nobody.  And each change of
what can be served (a return, an opening, the end of a rest, a change of `extra`) goes through
`desk._serve`, which gives the place to whoever has waited longest.

**The storeys**, each a file, each knowing only those below::

    machine    Core: take, give, submit, conclude, cancel, route
    straight   a free conn is taken and comes back, outside a turn
    leasing    conns that users hold themselves
    book       questions and updates
    leaving    pops, the close of the pool
    supplying  conns that the pool makes by itself
    life       births, deaths, rests, the passing of time
    care       checks, suspicion, permits that take too long
    openings   entries, permits, slots
    desk       entries meet tickets
    hoping     what can still come for who waits
    lending    which of the free conns a newcomer gets

and beside them, knowing nothing of each other's workings: `entry` (states, Info), `candidates`
(who can serve whom), `where` (filters given as data), `index` (who passes them), `hunches` (who
passed others lately), `prospects` (what can still come), `waiting` (the line), `sieve` (whom in
line a conn may serve), `patience` (until when), `routing` (which of several), `timers`, `permits`,
`outcome` (what a call's end says), `revive` (when to try again), `supply` (how many, and when),
`options` (what callers say), `stats`, `report`.

>>> from connpool.conn import describe
>>> import random
>>> core = Core(Options(name="demo"), random.Random(7).random, lambda: None)
>>> class Line:
...     resource = "line"
>>> permit = core.admit(Line(), ttl=60.0, now=0.0)
>>> core.opened(permit, describe(permit.entry.conn, ["say"]), 0.0, now=0.0).state
'ready'
>>> first = core.submit(Ticket("line", "say"), now=1.0)
>>> second = core.submit(Ticket("line", "say", deadline=5.0), now=1.0)
>>> first.standing.value, second.standing.value
('granted', 'queued')
>>> core.give(first.entry, "say", None, 1.0, now=2.0)
>>> second.standing.value
'granted'
"""

from .entry import Entry, Info, State
from .machine import Core
from .options import (
    Options,
    Revive,
    Timeout,
    check_filter,
    check_limit,
    check_revive,
    check_timeout,
    check_ttl,
)
from .outcome import (
    POPPED,
    Outcome,
    first_rest,
    of_check,
    of_error,
    of_leaving,
    of_lend,
    of_reply,
    of_reset,
    survives,
)
from .permits import ALARM, LOOK, Forsaken, Permit, Work
from .revive import Backoff
from .routing import check_by, sticky
from .stats import Now, PoolStats, SinceStart, Stat
from .supply import Supply
from .waiting import ANY, QUEUED, Pop, Standing, Ticket
from .where import Filter, Test, Where

__all__ = [
    "ALARM",
    "ANY",
    "LOOK",
    "POPPED",
    "QUEUED",
    "Backoff",
    "Core",
    "Entry",
    "Filter",
    "Forsaken",
    "Info",
    "Now",
    "Options",
    "Outcome",
    "Permit",
    "PoolStats",
    "Pop",
    "Revive",
    "SinceStart",
    "Standing",
    "Stat",
    "State",
    "Supply",
    "Test",
    "Ticket",
    "Timeout",
    "Where",
    "Work",
    "check_by",
    "check_filter",
    "check_limit",
    "check_revive",
    "check_timeout",
    "check_ttl",
    "first_rest",
    "of_check",
    "of_error",
    "of_leaving",
    "of_lend",
    "of_reply",
    "of_reset",
    "sticky",
    "survives",
]
