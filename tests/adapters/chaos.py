"""Chaos: what every adapter must survive, played through a proxy that misbehaves.

An adapter is described once, by a `Rig` (see chaos_rig.py): its server, how to make a conn, a
request whose reply tells whose it is.  `SCENARIOS` then play on every driver it supports: the
server restarts, the wire is cut, stalls or leads nowhere, callers leave.  After each the books are
compared: no place of the pool is lost, no reply went to another caller, no call was done twice.

The test of an adapter is one function, with its rig as a fixture (see test_text_chaos.py)::

    @pytest.mark.parametrize(("scenario", "driver", "seed"), chaos.cases(DRIVERS))
    def test_chaos(rig: Rig, scenario: Scenario, driver: str, seed: int) -> None:
        chaos.run(rig, scenario, driver, seed)

Seeds matter to the random mix alone: a few by default, as many as CONNPOOL_CHAOS says.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol, TypeVar

import anyio
import pytest

from connpool.testing import FaultProxy

from . import PATIENCE
from .chaos_bench import SHORT, Asked, Bench
from .chaos_rig import DRIVERS, Rig, Server

__all__ = ["DRIVERS", "SCENARIOS", "Bench", "Rig", "Scenario", "Server", "cases", "run"]


class Scenario(Protocol):
    """A story told on a bench, which `run` settles when it is over."""

    __name__: str

    def __call__(self, bench: Bench) -> Awaitable[None]: ...


SCENARIOS: list[Scenario] = []

SEEDS = int(os.environ.get("CONNPOOL_CHAOS", "3"))

IDLE = 20  # conns that a restart finds idle
CALLERS = 6  # in the random mix, at once
ROUNDS = 8  # of one or two faults each
PARTS = (0, 1, 3)  # bytes of a reply that arrive before it is cut or stalls


def cases(drivers: Collection[str] = DRIVERS) -> list[Any]:
    """Parameters (scenario, driver, seed) for pytest: every scenario on each of these drivers."""
    return [
        pytest.param(play, driver, seed, id=f"{driver}-{play.__name__}-{seed}")
        for driver in drivers
        for play in SCENARIOS
        for seed in (range(SEEDS) if play is random_mix else (0,))
    ]


def run(rig: Rig, scenario: Scenario, driver: str, seed: int = 0) -> None:
    """Play a scenario from beginning to end, and compare the books."""
    assert driver in rig.drivers, f"{rig.name} is not for {driver}"

    async def main() -> None:
        failure = None
        with FaultProxy(*rig.server.address) as proxy:
            bench = Bench(rig, driver, seed, proxy)
            async with anyio.create_task_group() as bench.tasks:
                try:
                    await scenario(bench)
                    await bench.settle()
                except BaseException as error:  # out of the group, which would wrap it
                    failure = error
                    await bench.abandon()
                    bench.tasks.cancel_scope.cancel()
        if failure is not None:
            assert not bench.wrong, bench.wrong  # and so the scenario was cancelled
            raise failure

    anyio.run(main, backend="trio" if driver == "trio" else "asyncio")


S = TypeVar("S", bound=Scenario)


def scenario(play: S) -> S:
    """One more scenario."""
    SCENARIOS.append(play)
    return play


# -- the server ------------------------------------------------------------------------------------


@scenario
async def restart_with_idle_conns(bench: Bench) -> None:
    """Of twenty conns that died while nobody used them one is met, the others are found out."""
    await bench.open(IDLE)
    calls = await bench.fill()  # one that connects late has connected now
    bench.proxy.heal()
    await bench.ended(*calls)
    await bench.stop_server()
    await bench.until(lambda: bench.proxy.connections == bench.proxy.half_open)
    await bench.start_server()
    moved = bench.so_far.moved
    lost = await _lost_until_served(bench)
    if all(hasattr(info.conn, "check") for info in bench.pool.infos(bench.rig.name)):
        met = lost + bench.so_far.moved - moved
        assert met <= 1, f"{met} dead conns were met, one by one"


async def _is_served(bench: Bench) -> None:
    call = await bench.ask()
    assert call.replied, call


async def _lost_until_served(bench: Bench) -> int:
    """Ask until somebody is served: how many were not."""
    lost = 0
    while not (await bench.ask()).replied:
        lost += 1
        assert lost <= bench.size, f"more callers than conns got an error; {bench.report()}"
    return lost


@scenario
async def restart_with_busy_conns(bench: Bench) -> None:
    """Calls under way are lost, and done no second time; those behind them are served."""
    await bench.open()
    busy, behind = await _busy_and_behind(bench)
    await bench.stop_server()
    bench.proxy.reset()
    await bench.ended(*busy)
    await bench.start_server()
    bench.proxy.heal()
    await _lost_and_served(bench, busy, behind)


# -- connections -----------------------------------------------------------------------------------


@scenario
async def reset_with_busy_conns(bench: Bench) -> None:
    """The same where only the wire was broken, and the server has done what it was asked."""
    await bench.open()
    busy, behind = await _busy_and_behind(bench)
    bench.proxy.reset()
    await bench.ended(*busy)
    bench.proxy.heal()
    await _lost_and_served(bench, busy, behind)


async def _busy_and_behind(bench: Bench) -> tuple[list[Asked], list[Asked]]:
    """Calls that the server has done though their replies do not come, and others in line."""
    busy = await bench.fill()
    await bench.carried_out(busy)
    behind = [bench.start() for _ in range(bench.size)]
    await bench.until(lambda: bench.now.waiting == len(behind))
    return busy, behind


async def _lost_and_served(bench: Bench, busy: list[Asked], behind: list[Asked]) -> None:
    await bench.ended(*behind)
    assert all(call.error for call in busy), busy
    if bench.rig.greets:
        assert all(call.replied for call in behind), behind


@scenario
async def half_close_with_idle_conns(bench: Bench) -> None:
    """Conns that the other side has ended, in good order, cost as little as dead ones."""
    await bench.open()
    bench.proxy.half_close()
    await _lost_until_served(bench)


@scenario
async def black_hole_in_connect(bench: Bench) -> None:
    """An opening that hangs is given up, and meanwhile the others serve."""
    bench.proxy.script(None, "black_hole")
    if not bench.rig.greets:  # then it is a call that hangs
        await bench.open(2, timeout=SHORT)
        calls = [bench.start() for _ in range(8)]
        await bench.ended(*calls)
        return
    await bench.open(2, connect_timeout=SHORT, ready=False)
    await bench.until(lambda: bench.now.ready)
    for _ in range(3):
        await _is_served(bench)
    await bench.until(lambda: bench.so_far.open_failed)
    await _is_served(bench)


@scenario
async def refused_then_healed(bench: Bench) -> None:
    """Who waits for a server that is not there is served when it comes."""
    bench.proxy.refuse()
    await bench.open(ready=False)
    calls = [bench.start() for _ in range(bench.size)]
    if bench.rig.greets:
        await bench.until(lambda: bench.so_far.open_failed >= 2)
    else:
        await bench.until(lambda: bench.so_far.open_failed or all(call.over for call in calls))
    bench.proxy.heal()
    await bench.ended(*calls)
    if bench.rig.greets:
        assert all(call.replied for call in calls), calls


# -- replies ---------------------------------------------------------------------------------------


@scenario
async def cut_in_mid_reply(bench: Bench) -> None:
    """Its caller gets an error; the next one gets its own reply."""
    await bench.open(1)
    for count in PARTS:
        await bench.use_all()
        await _cut_after(bench, count)
        await _is_served(bench)


async def _cut_after(bench: Bench, count: int) -> None:
    bench.proxy.cut_after(count)
    accepted, moved = bench.proxy.accepted, bench.so_far.moved
    call = bench.start()
    # What the library itself is told may be cut as well: then the call moves, and would wait.
    await bench.until(lambda: call.over or bench.proxy.accepted > accepted)
    bench.proxy.heal()
    await bench.ended(call)
    assert call.error or bench.so_far.moved > moved, call


@scenario
async def slow_loris(bench: Bench) -> None:
    """A reply that comes byte by byte ends with the library's patience; others are served."""
    await bench.open(1, timeout=SHORT)
    bench.timeout = PATIENCE  # of the conn that will take its place
    bench.proxy.throttle(1)
    call = await bench.ask()
    assert call.error, call
    behind = bench.start()
    bench.proxy.heal()
    await bench.ended(behind)
    assert behind.replied, behind


@scenario
async def left_in_mid_reply(bench: Bench) -> None:
    """The reply to a caller who left, or whose time was over, goes to nobody else."""
    await bench.open(1, timeout=PATIENCE if bench.cancels else SHORT)
    bench.timeout = PATIENCE
    for count in PARTS if bench.cancels else PARTS[1:2]:
        await _leave_after(bench, count)


async def _leave_after(bench: Bench, count: int) -> None:
    bench.proxy.stall_after(count)
    call = bench.start()
    if bench.cancels:
        await bench.until(lambda: bench.proxy.held or call.over)
        call.cancel()
    await bench.ended(call)
    behind = bench.start()
    await bench.until(lambda: bench.now.in_use or bench.now.waiting)
    bench.proxy.heal()  # the rest of the first reply comes, before the second
    await bench.ended(behind)
    assert behind.replied, behind


# -- everything ------------------------------------------------------------------------------------


@scenario
async def random_mix(bench: Bench) -> None:
    """Faults by chance, callers who leave by chance; after each fault somebody is served again."""
    await bench.open(timeout=bench.rng.choice((SHORT, PATIENCE)))
    over: list[bool] = []
    async with anyio.create_task_group() as tasks:
        for number in range(CALLERS):
            tasks.start_soon(_call_on, bench, random.Random(f"{bench.seed}-{number}"), over)
        restart = bench.rng.randrange(4 * ROUNDS)  # in one mix out of four
        for round in range(ROUNDS):
            for _ in range(bench.rng.randint(1, 2)):
                _do_harm(bench)
            await bench.pause(0.02)
            if round == restart:
                await bench.stop_server()
                await bench.start_server()
            bench.proxy.heal()
            await bench.serves_again()
        over.append(True)


async def _call_on(bench: Bench, rng: random.Random, over: list[bool]) -> None:
    while not over:
        call = bench.start()
        if bench.cancels and rng.random() < 0.3:
            await anyio.sleep(rng.uniform(0, 0.01))
            call.cancel()
        await bench.ended(call)
        await anyio.sleep(rng.uniform(0, 0.005))


def _do_harm(bench: Bench) -> None:
    proxy, rng = bench.proxy, bench.rng
    few = rng.randint(0, 40)
    kinds: list[Callable[[], None]] = [
        proxy.refuse,
        proxy.black_hole,
        lambda: proxy.delay(0.003),
        lambda: proxy.throttle(1 + 10 * few),
        lambda: proxy.cut_after(few),
        lambda: proxy.stall_after(few),
        proxy.half_close,
        proxy.reset,
        proxy.drop,
        lambda: proxy.script("refuse", ("cut_after", few), None, "black_hole", "drop"),
    ]
    rng.choice(kinds)()
