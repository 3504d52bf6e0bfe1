"""Ready-made conns, one transport a file.

An adapter imports :mod:`connpool.conn`, :mod:`connpool.errors` and the library it speaks through,
never the core and never a pool: whatever it has to say to a pool, it says through the contract.
Nothing is re-exported here, so that a transport whose library is missing harms nobody else::

    from connpool.adapters.agent import AgentConn
    from connpool.adapters.text import TextConn

What a thread's `Pool` takes needs no event loop.  The twins for an `AsyncPool` of the two that
need no library beside our own are in modules whose names begin with "async"; those over a library
are in the same module, since that is loaded anyway::

    from connpool.adapters.async_agent import AsyncAgentConn
    from connpool.adapters.postgres import AsyncPostgresConn, PostgresConn

Each library is an extra: ``pip install "connpool[postgres,redis,http,websocket,grpc]"``.
"""
