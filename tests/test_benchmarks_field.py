"""The benchmarks of contention, hand-offs and cancellation: that they do what their rows say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from threading import Lock
from time import sleep
from typing import Any

import pytest

from benchmarks import (
    cancelled,
    contended,
    field,
    field_tasks,
    field_threads,
    growth,
    handoff,
    memory,
    parts,
)
from benchmarks.harness import Absent

OURS = field_threads.ENTRANTS[1]
OUR_TASKS = field_tasks.ENTRANTS[1]

# -- contention ------------------------------------------------------------------------------------


def test_waits_are_summed_up_in_microseconds() -> None:
    """The middle one, a late one, how far apart they are, and who got how much."""
    middle, late, tail, jain = contended.summary([[1e-6] * 90 + [5e-6] * 10, [1e-6] * 100])
    assert middle == pytest.approx(1)
    assert late == pytest.approx(5)
    assert tail == pytest.approx(5)
    assert jain == 1


@pytest.mark.parametrize("hold", [0.0, contended.HOLD])
def test_a_wait_ends_when_the_conn_is_there(hold: float) -> None:
    """Nobody else is there, so it is shorter than the hold that follows it, in both kinds."""
    with contended.timed_calls(hold) as job:
        assert 0 < job() < 1
    with contended.timed_ways(OURS, hold) as job:
        assert 0 < job() < 1


def test_a_round_counts_every_thread() -> None:
    """The waits of all of them are in it."""
    rounds = iter(range(10**9))

    def job() -> float:
        next(rounds)
        return 1e-6

    middle, late, tail, jain = contended.one_round(job, seconds=0.05)
    assert middle == late == pytest.approx(1)
    assert tail == pytest.approx(1)
    assert 0 < jain <= 1


@pytest.mark.parametrize("hold", [0.0, contended.HOLD])
def test_a_crowd_does_all_its_work(hold: float) -> None:
    """By calls and by conns that are held; and without a pool."""
    with contended.callers(hold) as calls, contended.crowd(OURS, hold) as pairs:
        calls(50)
        pairs(50)
    with contended.without_pool(hold) as alone:
        alone(50)


# -- hand-offs -------------------------------------------------------------------------------------


class Recorded:
    """A conn of one lane that can be taken once, and notes by which thread."""

    def __init__(self) -> None:
        self.way = field.Way(self._take, self._give)
        self.takers: list[int] = []
        self._lane = handoff.condition(1)
        self._inner = self._lane.__enter__()

    def _take(self) -> Any:
        from threading import get_ident

        conn = self._inner.take()
        self.takers.append(get_ident())
        return conn

    def _give(self, conn: Any) -> None:
        self._inner.give(conn)


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 60])
def test_every_conn_goes_to_the_other_side(rounds: int) -> None:
    """No thread ever gets again what it has given back itself, and all is given back at the end."""
    lanes: list[Recorded] = []

    @contextmanager
    def build(conns: int) -> Any:
        lanes.append(Recorded())
        yield lanes[-1].way

    with handoff.between_threads(build) as work:
        before = [len(lane.takers) for lane in lanes]
        work(rounds)
        for lane, at in zip(lanes, before, strict=True):
            takers = lane.takers[at:]
            assert all(one != other for one, other in pairwise(takers))
        assert sum(len(lane.takers) for lane in lanes) - sum(before) == 3 + 2 * rounds


def test_conns_are_handed_over_by_threads_and_by_tasks() -> None:
    """connpool's own, which refuses whoever gives back what he does not have."""
    with handoff.between_threads(OURS.build) as work:
        for rounds in (1, 2, 3, 10):
            work(rounds)
    with handoff.between_tasks(OUR_TASKS.host) as work:
        for rounds in (1, 2, 3, 10):
            work(rounds)


# -- cancellation ----------------------------------------------------------------------------------


def queue_of(conns: int) -> asyncio.Queue[int]:
    """The conns of a simple pool."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in range(conns):
        queue.put_nowait(number)
    return queue


def careful(queue: asyncio.Queue[int]) -> field_tasks.Way:
    """A pool that gives back at once, so that nothing can come between."""

    async def give(conn: int) -> None:
        queue.put_nowait(conn)

    return field_tasks.Way(queue.get, give)


def careless(queue: asyncio.Queue[int]) -> field_tasks.Way:
    """One that lets others run before the conn is back."""

    async def give(conn: int) -> None:
        await asyncio.sleep(0)
        queue.put_nowait(conn)

    return field_tasks.Way(queue.get, give)


@pytest.mark.parametrize(("kind", "all_left"), [(careful, True), (careless, False)])
def test_the_storm_finds_what_is_lost(
    kind: Callable[[asyncio.Queue[int]], field_tasks.Way],
    all_left: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pool that can lose conns does, and one that cannot does not; each seed gives the same."""
    monkeypatch.setattr(cancelled, "WAVES", 5)
    monkeypatch.setattr(cancelled, "PATIENCE", 0.05)

    async def main() -> float:
        return await cancelled.survivors(kind(queue_of(cancelled.CONNS)), random.Random(1))

    left = [asyncio.run(main()) for _ in range(2)]
    assert left[0] == left[1]
    assert (left[0] == cancelled.CONNS) is all_left


@pytest.mark.parametrize("entrant", cancelled.ENTRANTS[:2])
def test_our_own_conns_are_all_left(
    entrant: field.Entrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By calls and by checkouts; and nothing is left running."""
    monkeypatch.setattr(cancelled, "WAVES", 2)
    assert cancelled.in_a_loop(entrant, seed=1) == cancelled.CONNS
    assert not cancelled.STRANDED


def test_a_peer_that_never_ends_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been counted, and that is what it was there for."""
    monkeypatch.setattr(cancelled, "WAVES", 1)
    monkeypatch.setattr(cancelled, "PATIENCE", 0.05)
    monkeypatch.setattr(cancelled, "STRANDED", [])
    gate: list[asyncio.Event] = []

    def host(conns: int) -> field_tasks.Host:
        async def live(serve: Any) -> None:
            await serve(careful(queue_of(conns)))
            gate.append(asyncio.Event())
            await gate[0].wait()

        return live

    entrant = field_tasks.entrant("stuck", "stuck", host, "")
    assert cancelled.in_a_loop(entrant, seed=1) == cancelled.CONNS
    (loop,) = cancelled.STRANDED
    gate[0].set()
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))
    loop.close()


def test_a_peer_that_cannot_be_had_is_absent() -> None:
    """With the reason."""

    def host(conns: int) -> field_tasks.Host:
        async def live(serve: Any) -> None:
            raise OSError("no such pool")

        return live

    with pytest.raises(Absent, match="cannot be measured: OSError: no such pool"):
        cancelled.in_a_loop(field_tasks.entrant("gone", "gone", host, ""), seed=1)


def test_what_is_left_behind_is_found() -> None:
    """A wait that keeps a thousand bytes each time is told from one that keeps none."""
    kept: list[bytearray] = []
    assert cancelled.timed_out(lambda: None, 50)[1] < 64
    assert cancelled.timed_out(lambda: kept.append(bytearray(1000)), 50)[1] > 1000


def test_the_rows_of_those_who_give_up_are_filled() -> None:
    """Threads that time out and tasks that are cancelled, by the processor and by bytes."""
    (took,), (left,) = cancelled.in_a_thread(cancelled.our_thread, True)
    assert took > 0
    assert left >= 0


# -- growth, parts, memory -------------------------------------------------------------------------


def test_a_pool_that_takes_too_long_to_fill_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says so, instead of holding up all others."""
    monkeypatch.setattr(field, "WARM_UP", -1)
    with pytest.raises(Absent, match="to have 3 conns out once"), field.tried(OURS.build, 3):
        pass
    with pytest.raises(Absent, match="to have 3 conns out once"), field.tried(OUR_TASKS.build, 3):
        pass


def test_every_curve_is_of_somebody() -> None:
    """Each name that has a curve is one of the field."""
    assert set(growth.THREADS) <= {entrant.name for entrant in field_threads.ENTRANTS}
    assert set(growth.TASKS) <= {entrant.name for entrant in field_tasks.ENTRANTS}


@pytest.mark.parametrize("name", parts.PARTS)
def test_each_part_of_a_call_works(name: str) -> None:
    """Or says why not, where the core has other doors by now."""
    _, build = parts.PARTS[name]
    try:
        with build() as work:
            work(3)
    except Absent as why:
        assert str(why).startswith("cannot be measured: ")  # noqa: PT017 - it is no error


def test_a_task_that_waits_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds while it waits is counted, and nothing of it is left."""
    monkeypatch.setattr(memory, "TASKS", 50)

    async def wait(size: int) -> None:
        ballast = bytearray(size)
        await asyncio.Event().wait()
        del ballast

    async def main(job: Callable[[], Awaitable[None]]) -> float:
        return await memory.bytes_per_task(job)

    light, heavy = (asyncio.run(main(partial(wait, size))) for size in (10, 10_010))
    assert 9_000 < heavy - light < 11_000


# -- nobody lends what he does not have ------------------------------------------------------------

MANY = [entrant for entrant in field_threads.ENTRANTS[1:] if entrant.fights]
MANY_TASKS = [entrant for entrant in field_tasks.ENTRANTS if entrant.fights]


@pytest.mark.parametrize("entrant", MANY, ids=lambda entrant: entrant.name)
def test_threads_never_hold_more_conns_than_there_are(entrant: field.Entrant) -> None:
    """Or what a peer gets done with 4 conns would be compared with what others do."""
    lock, out, most = Lock(), 0, 0

    def live(way: Any) -> None:
        nonlocal out, most
        for _ in range(20):
            conn = way.take()
            with lock:
                out += 1
                most = max(most, out)
            sleep(0.0001)
            with lock:
                out -= 1
            way.give(conn)

    try:
        with field.tried(entrant.build, 2) as way, ThreadPoolExecutor(6) as team:
            for future in [team.submit(live, way) for _ in range(6)]:
                future.result()
    except Absent as why:
        assert str(why).startswith("not installed: ")  # noqa: PT017 - it is no error
    else:
        assert 1 <= most <= 2


@pytest.mark.parametrize("entrant", MANY_TASKS, ids=lambda entrant: entrant.name)
def test_tasks_never_hold_more_conns_than_there_are(entrant: field.Entrant) -> None:
    """The same for tasks."""
    out = most = 0

    async def live(way: Any) -> None:
        nonlocal out, most
        for _ in range(5):
            conn = await way.take()
            out += 1
            most = max(most, out)
            await asyncio.sleep(0)
            out -= 1
            await way.give(conn)

    async def all_of_them(way: Any) -> None:
        await asyncio.gather(*(live(way) for _ in range(6)))

    try:
        with field.tried(entrant.build, 2) as built:
            guest: Any = built
            guest.do(all_of_them)
    except Absent as why:
        assert str(why).startswith("not installed: ")  # noqa: PT017 - it is no error
    else:
        assert most == 2
