"""The conns to Redis, checked out of a pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from connpool import AsyncPool, Backoff, Pool, PoolTimeout
from connpool.adapters.redis import AsyncRedisConn, RedisConn
from tests.servers.redis import RedisServer

from . import PATIENCE, soon


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


@pytest.fixture
def pool(server: RedisServer) -> Iterator[Pool]:
    """With one conn."""
    with Pool(timeout=PATIENCE, backoff=Backoff(first=0.01, factor=1)) as pool:
        pool.init(RedisConn(*server.address, resource="cache"), revive=True)
        yield pool


def number(pool: Pool) -> Any:
    """Which connection the pool's conn has now, as the server counts them."""
    return pool.call("cache", "CLIENT", "ID")


def test_a_borrower_has_the_connection_alone(pool: Pool) -> None:
    """What it gets is a client of redis-py, and nobody else is served meanwhile."""
    before = number(pool)
    with pool.checkout("cache") as client:
        assert isinstance(client, redis.Redis)
        assert client.client_id() == before
        with pytest.raises(PoolTimeout), pool.checkout("cache", timeout=0):
            pass
    assert number(pool) == before
    with pytest.raises(redis.ConnectionError, match="the checkout is over"):
        client.get("key")


def test_a_block_that_raises_cleanly(pool: Pool) -> None:
    """An error between two commands harms nothing."""
    before = number(pool)
    with pytest.raises(redis.ResponseError), pool.checkout("cache") as client:
        client.set("key", "value")
        client.lpush("key", 1)
    assert number(pool) == before


def test_a_conn_that_comes_back_unclean_is_replaced(pool: Pool, server: RedisServer) -> None:
    """In the middle of a transaction, in another database, with a subscription: never again."""
    seen = {number(pool)}
    for words in [("MULTI",), ("SELECT", 3), ("WATCH", "key")]:
        with pool.checkout("cache") as client:
            client.execute_command(*words)
        assert pool.call("cache", "SET", ("key", 1)) == b"OK"
        seen.add(number(pool))
    with pool.checkout("cache") as client:
        pubsub = client.pubsub()
        pubsub.subscribe("channel")
    server.ask("PUBLISH", "channel", "hello")
    assert pool.call("cache", "GET", "key") == b"1"
    assert len(seen) == 4
    assert number(pool) not in seen


def test_a_connection_that_ended_while_idle_is_never_lent(pool: Pool, server: RedisServer) -> None:
    """A borrower gets one that lives, however lately the other was used."""
    for _ in range(3):
        assert pool.call("cache", "PING") == b"PONG"
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pool.checkout("cache") as client:
            assert client.ping()


def test_borrowers_and_callers_share_conns(server: RedisServer) -> None:
    """A counter that is raised with and without a transaction misses nothing."""

    def work(mine: int) -> None:
        for turn in range(20):
            if (mine + turn) % 2:
                pool.call("cache", "INCR", "key")
                continue
            with pool.checkout("cache") as client:
                client.transaction(raise_it, "key")

    def raise_it(pipeline: Any) -> None:
        value = int(pipeline.get("key") or 0)
        pipeline.multi()
        pipeline.set("key", value + 1)

    with Pool(timeout=PATIENCE) as pool:
        for _ in range(3):
            pool.init(RedisConn(*server.address, resource="cache"))
        threads = [threading.Thread(target=work, args=(mine,)) for mine in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(pool) == 3
    assert server.ask("GET", "key") == "120"


def test_the_same_in_tasks(server: RedisServer) -> None:
    """An AsyncPool lends a client for asyncio, and takes it back clean."""

    async def main() -> None:
        async with AsyncPool(timeout=PATIENCE) as pool:
            await pool.init(AsyncRedisConn(*server.address, resource="cache"), revive=True)
            before = await pool.call("cache", "CLIENT", "ID")
            async with pool.checkout("cache") as client:
                assert isinstance(client, redis.asyncio.Redis)
                pipeline: Any
                async with client.pipeline() as pipeline:
                    await pipeline.watch("key")
                    pipeline.multi()
                    pipeline.incr("key")
                    assert await pipeline.execute() == [1]
            assert await pool.call("cache", "CLIENT", "ID") == before
            async with pool.checkout("cache") as client:
                await client.execute_command("MULTI")
            assert await pool.call("cache", "GET", "key") == b"1"

    asyncio.run(main())


def test_a_cancelled_borrower(server: RedisServer) -> None:
    """Whatever was on its way, the next borrower and the next caller get their own replies."""

    async def main() -> None:
        async with AsyncPool(timeout=PATIENCE) as pool:
            await pool.init(AsyncRedisConn(*server.address, resource="cache"), revive=True)

            async def borrow() -> None:
                async with pool.checkout("cache") as client:
                    with scope:
                        await client.blpop("list", 0)

            for turn in range(3):
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(borrow)
                    await soon(lambda: "cmd=blpop" in server.ask("CLIENT", "LIST"))
                    scope.cancel()
                async with pool.checkout("cache") as client:
                    assert await client.echo(str(turn)) == str(turn).encode()
                assert await pool.call("cache", "ECHO", turn) == str(turn).encode()

    asyncio.run(main())
