"""A real HTTP/1.1 server: connpool beside the pool of httpx, in a crowd of tasks.

Owns the rows of HTTP.  Refuses to know how a server is got (`servers`).

One operation is a crowd of requests, all made at once and all answered.  Beside the two stands the
same work without a pool: as many tasks as there are connections, each with a client of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial

from connpool import AsyncPool

from .field import find
from .harness import Bench, Heat, Row, Work, at_least
from .servers import PATIENCE, Shared, apart, at_once, warm
from .tasks import Serve, hosted, shared_out

CONNS = 20
PATH = "/status/200"

SERVER = Shared(partial(apart, "http", "HttpServer"))


async def called(url: str, crowd: int, serve: Serve) -> None:
    """`AsyncPool.call`."""
    adapter = find("connpool.adapters.http", "httpx")
    async with AsyncPool(name="benchmark") as pool:
        await pool.supply("web", lambda: adapter.AsyncHttpConn(url), min_size=CONNS, max_size=CONNS)
        await pool.wait_ready()
        await serve(partial(at_once, partial(pool.call, "web", "GET", PATH), crowd, crowd))


async def httpx(url: str, crowd: int, serve: Serve) -> None:
    """One client of httpx, with a pool of its own."""
    library = find("httpx", "httpx")
    async with library.AsyncClient(
        base_url=url,
        limits=library.Limits(max_connections=CONNS, max_keepalive_connections=CONNS),
        timeout=library.Timeout(10.0, pool=PATIENCE),
    ) as client:
        await serve(partial(at_once, partial(client.get, PATH), crowd, crowd))


async def alone(url: str, crowd: int, serve: Serve) -> None:
    """A client with one connection for each of as many tasks."""
    library = find("httpx", "httpx")
    limits = library.Limits(max_connections=1)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(library.AsyncClient(base_url=url, limits=limits))
            for _ in range(CONNS)
        ]

        async def job(times: int) -> None:
            free = list(clients)

            async def calls(quota: Iterator[None]) -> None:
                client = free.pop()
                for _ in quota:
                    await client.get(PATH)

            await shared_out(calls, CONNS, times * crowd)

        await serve(job)


@contextmanager
def crowded(build: Callable[[str, int, Serve], Awaitable[None]], crowd: int) -> Iterator[Work]:
    """So many requests at once."""
    find("httpx", "httpx")
    with SERVER() as url, hosted(partial(build, url, crowd)) as cold, warm(cold, 1) as work:
        yield work


def bench(crowd: int, least: float) -> Heat:
    """The rows of a crowd, of which connpool should do at least so many times what httpx does."""
    name = f"http.{crowd}"
    ours = f"{crowd:,} requests, AsyncPool over {CONNS} conns"
    theirs, without = "httpx's pool", f"{CONNS} clients, no pool"
    works: dict[str, Callable[[str, int, Serve], Awaitable[None]]] = {
        ours: called,
        theirs: httpx,
        without: alone,
    }
    return Heat(
        {what: partial(crowded, build, crowd) for what, build in works.items()},
        [
            Row(name, ours, theirs, at_least(least), rate=True),
            Row(f"{name}.alone", ours, without, rate=True),
            Row(f"{name}.peer.alone", theirs, without, rate=True),
        ],
        sample=0.5,
        rounds=7,
        processes=2,
        clock=time.perf_counter,
    )


BENCHES: list[Bench] = [bench(200, 1.0), bench(1_000, 2.0)]
