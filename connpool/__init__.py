"""One connection pool for anything that can init, call and list its methods."""

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

__all__ = [
    "AsyncConn",
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
