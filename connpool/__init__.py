"""One connection pool for anything that can init, call and list its methods."""

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
