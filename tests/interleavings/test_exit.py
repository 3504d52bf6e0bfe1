"""The interpreter ends while pools are busy: no hang, no traceback, and exit code 0."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from ..drivers import PATIENCE

BEGIN = """
    import threading, time
    from connpool import Pool, AsyncPool
    from connpool.testing import Hang, ScriptedConn, ScriptedAsyncConn

    def background(work, *args, **kwargs):
        threading.Thread(target=work, args=args, kwargs=kwargs, daemon=True).start()

    def until(true):
        while not true():
            time.sleep(0.001)

    pool, hang = Pool(), Hang()
"""
PROGRAMS = {
    "threads in calls and waiting": """
        pool.init(ScriptedConn("a", [hang]), ttl=60, revive=True)
        for _ in range(5):
            background(pool.call, "a", "say", timeout=None)
        until(lambda: hang.inside == 1 and pool.stats().now.waiting == 4)
    """,
    "leases held": """
        pool.init(ScriptedConn("a", capacity=3), ttl=60)
        pool.init(ScriptedConn("b"), ttl=60)
        held = [pool.checkout("a", shared=True), pool.checkout("b")]
        for lease in held:
            lease.__enter__()
        background(pool.checkout("b", timeout=None).__enter__)
        until(lambda: pool.stats().now.waiting == 0 or True)
    """,
    "leases in a cycle": """
        pool.init(ScriptedConn("a"), ttl=60)
        lease = pool.checkout("a")
        lease.__enter__()
        pool.lease = lease
        lease.__class__.pool_again = pool
        del lease
    """,
    "supplies connecting": """
        pool.supply("a", lambda: ScriptedConn("a", init=[hang]), min_size=2, max_size=4)
        background(pool.call, "a", "say", timeout=None)
        until(lambda: hang.inside == 2)
    """,
    "a close that hangs": """
        pool.init(ScriptedConn("a", close=[hang]))
        background(pool.close, 60)
        until(lambda: hang.inside == 1)
    """,
    "a keeper at work": """
        for number in range(20):
            pool.init(ScriptedConn("a"), ttl=0.001, revive=True)
        time.sleep(0.05)
    """,
    "an AsyncPool in a thread": """
        import anyio

        async def main():
            async with AsyncPool() as tasks:
                conn = ScriptedAsyncConn("a", [Hang()])
                await tasks.init(conn, ttl=60, revive=True)
                await tasks.supply("b", lambda: ScriptedAsyncConn("b"), min_size=1)
                async with anyio.create_task_group() as group:
                    group.start_soon(tasks.call, "a", "say")
                    group.start_soon(tasks.call, "a", "say")
                    ready.set()
                    await anyio.sleep_forever()

        ready = threading.Event()
        background(anyio.run, main)
        ready.wait()
    """,
    "leases in threads that the interpreter waits for": """
        from connpool import PoolClosed

        pool.init(ScriptedConn("a"), ttl=60, revive=True)
        go = threading.Event()

        def hold():
            with pool.checkout("a"):
                go.wait()

        def lose():
            try:
                pool.checkout("a", timeout=None).__enter__()
            except PoolClosed:
                pass

        for work in (hold, lose, lose):
            threading.Thread(target=work).start()
            until(lambda: pool.stats().now.in_use)
        until(lambda: pool.stats().now.waiting == 2)
        threading.Timer(0.05, go.set).start()
        threading.Timer(0.1, pool.close, (0,)).start()
    """,
    "a supply, its callers and a pop, in threads that are daemons": """
        pool.init(ScriptedConn("b", [hang]))
        pool.supply("a", lambda: ScriptedConn("a", init=[hang]), min_size=1, max_size=2)
        for _ in range(3):
            background(lambda: pool.checkout("a", timeout=None).__enter__())
        background(pool.call, "b", "say")
        until(lambda: hang.inside == 3 and pool.stats().now.waiting == 3)
        background(pool.pop, 1, timeout=None)
        until(lambda: pool.stats().now.draining)
    """,
    "asyncio.run that ends with leases out": """
        import asyncio, logging

        logging.disable(logging.WARNING)

        async def hold(tasks, taken):
            async with tasks.checkout("a", shared=True):
                taken.set()
                await asyncio.sleep(3600)

        async def serve(tasks, ready):
            async with tasks:
                await tasks.init(ScriptedAsyncConn("a", capacity=2), ttl=60)
                ready.set()
                await asyncio.sleep(3600)

        async def main():
            tasks, ready, taken = AsyncPool(timeout=0.05), asyncio.Event(), asyncio.Event()
            kept.append(asyncio.create_task(serve(tasks, ready)))
            await ready.wait()
            kept.append(asyncio.create_task(hold(tasks, taken)))
            kept.append(asyncio.create_task(tasks.call("a", "say")))
            kept.append(tasks.checkout("a", shared=True))
            await kept[-1].__aenter__()
            await taken.wait()

        kept = []
        asyncio.run(main())
    """,
    "an AsyncPool that is kept": """
        import asyncio

        async def main():
            tasks = AsyncPool()
            await tasks.__aenter__()
            await tasks.init(ScriptedAsyncConn("a"), ttl=60)
            await tasks.supply("b", lambda: ScriptedAsyncConn("b"), min_size=1)
            globals()["kept"] = tasks
            await tasks.close()
            await tasks.__aexit__(None, None, None)

        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_an_interpreter_exits(program: str) -> None:
    """Whatever hangs in the pool's threads, or in its users'."""
    text = textwrap.dedent(BEGIN) + textwrap.dedent(program) + '\nprint("done")\n'
    ended = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
