"""One connection pool for anything that can init, call and list its methods.

A *conn* is an object that talks to something: it says to what (`resource`), how to begin (`init`),
what it can do (`methods`) and how (`call`).  Nobody inherits anything:

>>> class Clerk:
...     resource = "counter"
...     def __init__(self, name):
...         self.name = name
...     def init(self):
...         self.open = True
...     def methods(self):
...         return ["ask", "stamp"]
...     def call(self, method, payload=None):
...         if not self.open:
...             raise Closed(f"{self.name} has gone home")
...         if method == "stamp":
...             return Reply(f"{payload}, stamped by {self.name}", cooldown=60)
...         return f"{self.name}: {payload}? Yes"

A pool looks after conns and lets callers use them, in any number of threads:

>>> pool = Pool(name="office")
>>> ann, ben = pool.init(Clerk("Ann"), extra="ground floor"), pool.init(Clerk("Ben"))
>>> pool.call("counter", "ask", "tea", filter=lambda conn: conn.extra == "ground floor")
'Ann: tea? Yes'

One that asks for a rest gets it, and callers go to another.  One that is closed is dropped, and the
call, which did not happen, moves on:

>>> pool.call("counter", "stamp", "a letter", filter=lambda conn: conn.id == ann)
'a letter, stamped by Ann'
>>> pool.call("counter", "ask", "and now")
'Ben: and now? Yes'
>>> pool.info(ann).state, pool.info(ben).state
('cooling', 'ready')
>>> pool.info(ben).conn.open = False
>>> pool.call("counter", "ask", "anybody", timeout=0)
Traceback (most recent call last):
connpool.errors.PoolTimeout: pool 'office': no conn to 'counter' became free in ...

With a timeout the caller would have waited for Ann: first come, first served.  What can never come
is said at once:

>>> pool.call("counter", "sing")
Traceback (most recent call last):
connpool.errors.MethodError: pool 'office': of ... no conn has the method 'sing'; they have ...
>>> pool.close()

Where to read on:

- `connpool.Pool` and `connpool.AsyncPool`: every method.
- `connpool.Conn`: what a conn may do.
- `connpool.errors`: what may go wrong, and whose fault it is.
- `connpool.adapters`: conns that are ready to be used.
- `connpool.core`: the theory of operation.
- In the source tree, `doctests/`: a guided tour, writing a conn, ttl and revive, how it works, and
  a glossary.
"""

from typing import TYPE_CHECKING, Any

from .conn import AsyncConn, Conn, Reply
from .core import Backoff, Info, PoolStats, sticky
from .errors import (
    Busy,
    CallError,
    Closed,
    ConnError,
    FilterError,
    IdError,
    InitError,
    MethodError,
    NestedCall,
    PoolClosed,
    PoolError,
    PoolFull,
    PoolTimeout,
    ResourceError,
)
from .pool import Pool

if TYPE_CHECKING:
    from .async_pool import AsyncPool

__all__ = [
    "AsyncConn",
    "AsyncPool",
    "Backoff",
    "Busy",
    "CallError",
    "Closed",
    "Conn",
    "ConnError",
    "FilterError",
    "IdError",
    "Info",
    "InitError",
    "MethodError",
    "NestedCall",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "Reply",
    "ResourceError",
    "sticky",
]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: who uses threads only does not pay for importing anyio.
    if name == "AsyncPool":
        from .async_pool import AsyncPool

        return AsyncPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
