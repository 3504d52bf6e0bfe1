"""Ready-made conns, one transport a file.

An adapter imports :mod:`connpool.conn`, :mod:`connpool.errors` and the library it speaks through,
never the core and never a pool: whatever it has to say to a pool, it says through the contract.
Nothing is re-exported here, so that a transport whose library is missing harms nobody else::

    from connpool.adapters.agent import AgentConn
    from connpool.adapters.text import TextConn

What a thread's `Pool` takes needs no event loop; its twins for an `AsyncPool` are in modules whose
names begin with "async"::

    from connpool.adapters.async_agent import AsyncAgentConn
    from connpool.adapters.async_text import AsyncTextConn

What a thread's `Pool` takes needs no event loop; its twins for an `AsyncPool` are in modules whose
names begin with "async"::

    from connpool.adapters.async_agent import AsyncAgentConn
    from connpool.adapters.async_text import AsyncTextConn
"""
