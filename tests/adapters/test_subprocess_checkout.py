"""The conns to a program, checked out of a pool: one at a time has a dialogue with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import anyio
import pytest

from connpool import AsyncPool, Backoff, Pool, PoolTimeout
from connpool.adapters.subprocess import AsyncSubprocessConn, SubprocessConn

from . import PATIENCE, eventually
from .subprocess_ways import ended, gone, program

# Adds up what it is given, until it is asked for the sum.
ADDER = 'sum=0; while read -r n; do [ "$n" ] && sum=$((sum + n)); echo $sum; done'

BACKOFF = Backoff(first=0.01, factor=1)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """With one conn."""
    with Pool(timeout=PATIENCE, backoff=BACKOFF) as pool:
        pool.init(SubprocessConn(program(ADDER), resource="adder"), revive=True)
        yield pool


def test_a_borrower_has_the_program_alone(pool: Pool) -> None:
    """What it gets is the conn itself."""
    with pool.checkout("adder") as adder:
        assert isinstance(adder, SubprocessConn)
        assert [adder.call("ask", str(n)) for n in (1, 2, 3)] == ["1", "3", "6"]
        with pytest.raises(PoolTimeout), pool.checkout("adder", timeout=0):
            pass
    assert pool.call("adder", "ask") == "6"  # the program remembers what it was told


def test_a_block_that_raises(pool: Pool) -> None:
    """Between two requests it harms nothing."""
    with pytest.raises(ZeroDivisionError), pool.checkout("adder") as adder:
        adder.call("ask", "1")
        raise ZeroDivisionError
    assert pool.call("adder", "ask") == "1"


def test_a_program_that_dies_with_its_borrower(pool: Pool) -> None:
    """The next one gets another, however lately this one was used."""
    pids = []
    for _ in range(2):
        with pool.checkout("adder") as adder:
            pids.append(adder.pid)
            assert adder.call("ask", "2") == "2"
            os.kill(adder.pid, signal.SIGKILL)
            eventually(lambda: ended(pids[-1]))
    assert pool.call("adder", "ask", "3") == "3"
    assert pids[0] != pids[1]
    assert all(map(gone, pids))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_borrower(backend: str) -> None:
    """What it was about to be told reaches nobody else."""

    async def main() -> None:
        async with AsyncPool(timeout=PATIENCE, backoff=BACKOFF) as pool:
            slow = 'while read -r n; do [ "$n" = slow ] && sleep 0.05; echo "$n"; done'
            conn = AsyncSubprocessConn(program(slow), resource="echo")
            await pool.init(conn, revive=True)

            async def borrow() -> None:
                async with pool.checkout("echo") as echo:
                    assert await echo.call("ask", "quick") == "quick"
                    scope.cancel()
                    await echo.call("ask", "slow")

            for turn in range(3):
                with anyio.CancelScope() as scope:
                    await borrow()
                async with pool.checkout("echo") as echo:
                    assert await echo.call("ask", str(turn)) == str(turn)
                assert await pool.call("echo", "ask", "x") == "x"

    anyio.run(main, backend=backend)
