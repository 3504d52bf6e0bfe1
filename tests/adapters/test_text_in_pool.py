"""TextConn in a Pool, over real sockets and threads: what becomes of calls when a server dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from connpool import Backoff, Pool
from connpool.adapters.text import TextConn
from connpool.adapters.text_wire import ReplyLost

from . import PATIENCE, eventually
from .ledger import Ledger

THREADS = 8
CONNS = 3
KILLS = 5


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as ledger:
        yield ledger


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        yield pool


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as crowd:
        yield crowd


def connect(pool: Pool, ledger: Ledger) -> int:
    """One more conn to the ledger's server, revived when it is lost."""
    conn = TextConn(*ledger.server.address, resource="ledger", timeout=PATIENCE)
    return pool.init(conn, revive=True)


def hold(pool: Pool, ledger: Ledger, crowd: ThreadPoolExecutor) -> Future[Any]:
    """A call that stays on the server until the ledger's `over` is set."""
    call = crowd.submit(pool.call, "ledger", "HOLD", ledger.token())
    assert ledger.held.wait(PATIENCE)
    return call


def line_up(pool: Pool, ledger: Ledger, crowd: ThreadPoolExecutor) -> dict[str, Future[Any]]:
    """Calls that wait in line, in order, by their tokens."""
    calls: dict[str, Future[Any]] = {}
    while len(calls) < THREADS - 1:
        token = ledger.token()
        calls[token] = crowd.submit(pool.call, "ledger", "DO", token)
        eventually(lambda: pool.stats().now.waiting == len(calls))
    return calls


def wait_for_replies(ledger: Ledger, more: int) -> None:
    """Until so many more have come."""
    enough = len(ledger.replied) + more
    eventually(lambda: len(ledger.replied) >= enough)


def test_a_killed_server_loses_and_doubles_no_call(
    pool: Pool, ledger: Ledger, crowd: ThreadPoolExecutor
) -> None:
    """Calls in the line move; those in flight, and no others, get an error that says so."""
    for _ in range(CONNS):
        connect(pool, ledger)
    over = threading.Event()

    def work(_: int) -> None:
        while not over.is_set():
            token = ledger.token()
            try:
                ledger.reply(token, pool.call("ledger", "DO", token))
            except OSError as error:
                ledger.loss(token, error)

    working = crowd.map(work, range(THREADS))
    try:
        for _ in range(KILLS):
            wait_for_replies(ledger, 40)
            ledger.server.kill(wait=PATIENCE)
            ledger.server.start()
    finally:
        over.set()
    assert list(working) == [None] * THREADS
    ledger.server.kill(wait=PATIENCE)
    ledger.balance()
    assert len(ledger.lost) <= CONNS * KILLS


def test_the_line_outlives_the_server(
    pool: Pool, ledger: Ledger, crowd: ThreadPoolExecutor
) -> None:
    """The call in flight fails; those behind it are served in order once the server is back."""
    connect(pool, ledger)
    held = hold(pool, ledger, crowd)
    calls = line_up(pool, ledger, crowd)
    ledger.server.kill(wait=0)
    with pytest.raises(ReplyLost, match="may have been carried out"):
        held.result(PATIENCE)
    assert pool.stats().now.waiting == len(calls)
    assert ledger.done == []
    ledger.server.start()
    assert [call.result(PATIENCE) for call in calls.values()] == list(calls)
    assert ledger.done == list(calls)
    ledger.over.set()
    eventually(lambda: len(ledger.done) == THREADS)  # it was carried out, as the error said


def test_the_line_moves_to_another_server(
    pool: Pool, ledger: Ledger, crowd: ThreadPoolExecutor
) -> None:
    """A call that stands in line when one server dies is served by the other, and there only."""
    with Ledger() as other:
        connect(pool, ledger)
        first = hold(pool, ledger, crowd)
        connect(pool, other)
        second = hold(pool, other, crowd)
        tokens = [f"moved-{n}" for n in range(4)]
        calls = [crowd.submit(pool.call, "ledger", "DO", token) for token in tokens]
        eventually(lambda: pool.stats().now.waiting == len(calls))
        ledger.server.kill(wait=0)
        with pytest.raises(ReplyLost):
            first.result(PATIENCE)
        other.over.set()
        assert second.result(PATIENCE) == other.done[0]
        assert [call.result(PATIENCE) for call in calls] == tokens
        assert sorted(other.done[1:]) == tokens
        assert ledger.done == []


def test_a_server_that_died_unnoticed_costs_no_call(pool: Pool, ledger: Ledger) -> None:
    """Calls on conns that were lost while idle had not happened: they move, and all are served."""
    for _ in range(CONNS):
        connect(pool, ledger)
    ledger.server.kill(wait=PATIENCE)
    ledger.server.start()
    for _ in range(2 * CONNS):
        token = ledger.token()
        ledger.reply(token, pool.call("ledger", "DO", token))
    assert 0 < pool.stats().since_start.moved <= CONNS
    ledger.server.kill(wait=PATIENCE)
    ledger.balance()


def test_stop_is_the_end_of_its_conn_alone(pool: Pool, ledger: Ledger) -> None:
    """A conn that ended in good order leaves the pool; its neighbour serves on."""
    number, neighbour = connect(pool, ledger), connect(pool, ledger)
    pool.call("ledger", "STOP", filter=lambda info: info.id == number)
    assert number not in pool
    assert neighbour in pool
    assert pool.call("ledger", "DO", "on") == "on"
