"""A story for threads: what may happen to a pool, by chance; then it must be whole."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from connpool import (
    Backoff,
    Busy,
    CallError,
    Closed,
    InitError,
    Pool,
    PoolClosed,
    PoolError,
    PoolTimeout,
    ResourceError,
    sticky,
)

from .conns import Checked, Lent, Line, World
from .ledger import Trouble
from .ruled import watch
from .scheduler import Scheduler, Thread

# What a user may get.  A PoolTimeout is a TimeoutError, and an OSError.
EXPECTED = (
    *(PoolError, OSError, InitError, CallError, Busy, Closed, Trouble),
    *(KeyboardInterrupt, SystemExit),
)
LIMITS = (0, 0.001, 0.05, 1.0, None, None, None)
BY = (None, None, None, "round_robin", "random", "least_used", "least_wait", sticky(1))


class Gone(Exception):
    """A user whose thread ends in the middle of something."""


class Story:
    """One pool, its conns and its users."""

    def __init__(self, scheduler: Scheduler, *, closes: bool = False) -> None:
        self.scheduler = scheduler
        self.chance = scheduler.chance
        self.world = World(scheduler)
        self.closes = closes
        self.payloads = 0
        self.told: dict[int, int] = {}  # by id: how often it came, less how often it went
        self.heirs: list[Thread] = []
        self.pool: Pool
        self.acts: list[tuple[float, Callable[[], Any]]] = [
            (8, self.call),
            (3, self.exclusive),
            (3, self.shared),
            (1, self.nested),
            (1, self.again),
            (1, self.lose),
            (1, self.hand_on),
            (1, self.pop),
            (0.3, self.pop_all),
            (1, self.add),
            (1, self.resize),
            (0.5, self.drain),
            (1, self.route),
            (1, self.extra),
            (0.5, self.update),
            (1, self.sweep),
            (0.5, self.wait_ready),
            (1, self.ask),
            (1, self.tear),
            (0.2, self.withdraw),
        ]

    # -- beginning and end -----------------------------------------------------------------------

    def tell(self) -> None:
        """From the first conn to the last check."""
        self.pool = Pool(
            name="story",
            timeout=20,
            max_connecting=self.chance.choice([1, 2]),
            max_size=self.chance.choice([None, None, 4]),
            check_after=self.chance.choice([0.0, 0.02, 0.5]),
            connect_timeout=self.chance.choice([0.1, 10]),
            backoff=Backoff(first=0.01, factor=1.5, jitter=0.2, most=0.1),
            on_connect=lambda info: self.tally(info.id, 1),
            on_disconnect=self.gone,
        )
        watch(self.scheduler, self.pool)
        self.world.calm = True
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            self.add()
        self.supplied = self.chance.random() < 0.5
        if self.supplied:
            self.supply()
        self.world.calm = False
        users = [self.user(number) for number in range(self.chance.randint(2, 5))]
        for user in users:
            user.start()
        for user in users:
            user.join()
        for heir in self.heirs:
            heir.join()
        for thread in users + self.heirs:
            if thread.error is not None:
                raise thread.error
        self.world.calm = True
        self.scheduler.interrupts = self.scheduler.leaps = 0
        self.payoff()
        self.end()

    def user(self, number: int) -> Thread:
        """Somebody who does a few things."""
        user: Thread = self.scheduler.Thread(target=self.live, name=f"user {number}")
        user.interruptible = True
        return user

    def live(self) -> None:
        acts = [act for _, act in self.acts]
        weights = [weight for weight, _ in self.acts]
        if self.closes:
            acts.append(self.close)
            weights.append(2)
        for _ in range(self.chance.randint(2, 7)):
            act = self.chance.choices(acts, weights)[0]
            self.scheduler.switch("act", act.__name__)
            try:
                act()
            except Gone:
                return
            except EXPECTED as error:
                self.scheduler.switch("gets", type(error).__name__)
            if act == self.lose:
                with self.scheduler.hush():
                    gc.collect()  # one that had moved before it was lost lies in a cycle

    def payoff(self) -> None:
        """Where the pool is still open, everything it has can be had at the same time."""
        if self.pool._core.closed:
            return
        for line in self.world.books:
            if line.popped:
                line.popped = False
                line.closing()
        self.pool.update("line", ttl=None)
        if self.supplied:
            self.pool.resize("made", max_size=3)
        self.pool._look()  # as if somebody waited: an error may keep alive what was lost
        self.scheduler.sleep(1)
        while not self.at_rest():
            self.pool.sweep()
            self.scheduler.sleep(0.13)
            with self.scheduler.hush():
                gc.collect()
        places = sum(info.capacity for info in self.pool.infos("line"))
        room = self.pool._options.max_size
        with ExitStack() as held:
            for _ in range(places):
                held.enter_context(self.pool.checkout("line", shared=True, timeout=0))
            assert self.fails(lambda: self.pool.call("line", "say", 0, timeout=0))
            if self.supplied and room is None:
                for _ in range(3):
                    held.enter_context(self.pool.checkout("made", timeout=60))
                assert self.fails(lambda: self.pool.call("made", "say", 0, timeout=0))
        while not self.at_rest():
            self.scheduler.sleep(0.13)

    def end(self) -> None:
        """The pool is closed, and with it everything, once."""
        self.pool.close()
        for line in self.world.books:
            line.end()
        repeated = [payload for payload, times in self.world.done.items() if times > 1]
        assert not repeated, f"calls that happened twice: {repeated}"
        assert all(count <= 0 for count in self.told.values()), (
            f"told of as often as they left: {self.told}"
        )

    def at_rest(self) -> bool:
        """Whether nobody uses the pool or waits, and every conn is ready.  Those of a supply may
        come and go."""
        seen = self.pool.stats().now
        states = {info.state for info in self.pool.infos("line")}
        return states <= {"ready"} and not (seen.in_use or seen.waiting)

    @staticmethod
    def fails(act: Callable[[], Any]) -> bool:
        """Whether there is nothing to be had."""
        try:
            act()
        except (PoolTimeout, ResourceError):
            return True
        return False

    def tally(self, id: int, change: int) -> None:
        """A callback of the pool."""
        self.told[id] = self.told.get(id, 0) + change
        self.scheduler.switch("told of", f"conn {id}: {change:+}")

    def gone(self, info: Any, reason: str) -> None:
        """Another one.  One that is popped while it is being revived had gone before."""
        if reason != "popped" or info.conn.is_open:
            self.tally(info.id, -1)

    # -- what users do ---------------------------------------------------------------------------

    def asked(self) -> dict[str, Any]:
        """What somebody asks for."""
        wishes: dict[str, Any] = {"timeout": self.chance.choice(LIMITS)}
        if self.pool._options.max_size is not None:
            wishes["timeout"] = wishes["timeout"] or 5.0  # there may be no room for what is made
        if self.chance.random() < 0.2:
            wishes["filter"] = self.passes
        if self.chance.random() < 0.3:
            wishes["by"] = self.chance.choice(BY)
        return wishes

    def passes(self, info: Any) -> bool:
        """A filter, in which others may go on."""
        self.scheduler.switch("filter")
        return bool(info.extra != 1)

    def payload(self) -> int:
        """What tells a call from all others."""
        self.payloads += 1
        return self.payloads

    def resource(self) -> str:
        return self.chance.choice(["line", "made"] if self.supplied else ["line"])

    def call(self) -> None:
        asked = self.payload()
        answered = self.pool.call(self.resource(), "say", asked, **self.asked())
        if answered != asked:
            self.world.wrong(f"{asked} was answered {answered}")
        if self.world.done[asked] != 1:
            self.world.wrong(f"a call was answered that happened {self.world.done[asked]} times")

    def exclusive(self) -> None:
        with self.pool.checkout(self.resource(), **self.asked()) as conn:
            self.use(conn, whole=True)

    def shared(self) -> None:
        with self.pool.checkout(self.resource(), shared=True, **self.asked()) as conn:
            self.use(conn, whole=False)

    def use(self, conn: Line, *, whole: bool) -> None:
        """The body of a block."""
        conn.enter(whole or None)
        try:
            self.world.linger("is held")
            conn.fail_before()
            conn.fail_after()
        finally:
            conn.leave()

    def nested(self) -> None:
        with self.pool.checkout(self.resource(), shared=True, **self.asked()):
            self.scheduler.switch("nested")
            asked = self.asked() | {"timeout": 0.05}  # two such users may wait for each other
            self.pool.call(self.resource(), "ask", self.payload(), **asked)

    def again(self) -> None:
        """Somebody who holds a conn for himself asks for another, which may be the same."""
        with self.pool.checkout(self.resource(), **self.asked()):
            self.scheduler.switch("asks for another")
            asked = self.asked() | {"timeout": 0.05}
            with self.pool.checkout(self.resource(), **asked) as conn:
                self.use(conn, whole=True)

    def begun(self, *, shared: bool) -> Any:
        """A checkout that is begun by hand."""
        lease: Any = self.pool.checkout(self.resource(), shared=shared, **self.asked())
        lease.__enter__()
        self.scheduler.switch("has begun", repr(lease))
        return lease

    def lose(self) -> None:
        """A checkout that nobody ends: it is dropped, or its thread dies and leaves it in a ring,
        which is looked for where it is known that the thread has ended."""
        ring: list[Any] = [self.begun(shared=self.chance.random() < 0.4)]
        if self.chance.random() < 0.6:
            ring.append(ring)
            raise Gone

    def hand_on(self) -> None:
        """A checkout that another thread ends, when this one is perhaps long gone."""
        shared = self.chance.random() < 0.4
        lease = self.begun(shared=shared)
        heir = self.scheduler.Thread(target=self.inherit, args=(lease, shared), name="heir")
        self.heirs.append(heir)
        heir.start()
        if self.chance.random() < 0.6:
            raise Gone

    def inherit(self, lease: Any, shared: bool) -> None:
        """Use what another one has checked out."""
        try:
            with ExitStack() as stack:
                stack.push(lease)
                self.world.linger("is handed on")
                self.use(lease.conn, whole=not shared)
        except EXPECTED as error:
            self.scheduler.switch("gets", type(error).__name__)

    def pop(self) -> None:
        infos = self.pool.infos("line")
        if infos:
            conn = self.pool.pop(
                self.chance.choice(infos).id, timeout=self.chance.choice([0, 0.001, 1.0])
            )
            self.have(conn)

    def pop_all(self) -> None:
        for conn in self.pool.pop_all("line"):
            self.have(conn)

    def have(self, conn: Line) -> None:
        """A conn was handed over."""
        conn.hand_over()
        if not conn.is_open:
            return  # it was being revived
        conn.popped = True
        self.scheduler.switch("has", "a conn")
        conn.popped = False
        try:
            self.pool.put(conn, revive=self.chance.choice([True, "force"]))
        except PoolError:
            conn.popped = True

    def add(self) -> None:
        kind = self.chance.choice([Line, Line, Checked, Lent])
        conn = kind(self.world, "line", self.chance.choice([1, 1, 2, 3]))
        self.pool.init(
            conn,
            revive=self.chance.choice([False, True, True, "force"]),
            ttl=self.chance.choice([None, None, 0.05, 1.0]),
        )

    def supply(self) -> None:
        kind = self.chance.choice([Line, Checked, Lent])
        self.pool.supply(
            "made",
            lambda: kind(self.world, "made"),
            min_size=self.chance.choice([0, 1]),
            max_size=self.chance.choice([1, 2, 3]),
            max_idle=self.chance.choice([0.05, 600]),
            ttl=self.chance.choice([None, 0.3]),
            revive=self.chance.choice([False, True]),
            connect_timeout=self.chance.choice([0.01, 10.0]),
            ping_interval=self.chance.choice([None, 0.02]),
        )

    def resize(self) -> None:
        most = self.chance.choice([1, 2, 3])
        self.pool.resize("made", min_size=self.chance.choice([0, 1]), max_size=most)

    def withdraw(self) -> None:
        if self.supplied:
            self.pool.withdraw("made")
            self.scheduler.switch("withdrawn")
            self.supply()

    def drain(self) -> None:
        self.pool.drain(self.resource())

    def route(self) -> None:
        by = self.chance.choice(BY)
        for _ in range(3):
            conn = self.pool.route(self.resource(), method="say", by=by)
            self.scheduler.switch("routed", conn.resource)

    def extra(self) -> None:
        for info in self.pool.infos(self.resource()):
            self.pool.extra(info.id, self.chance.choice([0, 1, 2]))

    def update(self) -> None:
        changes: dict[str, list[Any]] = {
            "capacity": [1, 2, 3],
            "ttl": [None, 0.05],
            "revive": [True, "force"],
        }
        name = self.chance.choice(list(changes))
        value = self.chance.choice(changes[name])
        if name == "capacity":
            for conn in self.world.books:
                conn.most = max(conn.most, value)
        self.pool.update("line", **{name: value})

    def sweep(self) -> None:
        self.pool.sweep()

    def wait_ready(self) -> None:
        self.pool.wait_ready(self.chance.choice([0, 0.05, 1.0]))

    def ask(self) -> None:
        self.pool.report(trace=True)
        self.pool.stats()

    def tear(self) -> None:
        """A conn notices by itself that its connection is gone."""
        conn = self.chance.choice(self.world.books)
        if isinstance(conn, Line) and conn.on_lost is not None:
            conn.on_lost(OSError("gone"))

    def close(self) -> None:
        """Closed in the middle of everything; and again, if the first one was interrupted."""
        timeout = self.chance.choice([0, 0.05, 1.0])
        try:
            self.pool.close(timeout)
        except KeyboardInterrupt:
            self.pool.close(timeout)
        if not self.pool._core.closed:
            raise PoolClosed
