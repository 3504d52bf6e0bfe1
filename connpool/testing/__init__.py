"""Testing aids for whoever uses a pool: a clock to turn by hand, conns that follow a script, a
proxy that misbehaves.

Owns the names that tests import.  Refuses to know what is tested: nothing in here needs a test
framework, and nothing in here sleeps.

Invariant: a scripted conn does what its script says, in order, and remembers what was asked of it;
what the script did not foresee is an AssertionError, there and again in `assert_drained`.

>>> from connpool import Pool, Reply
>>> with ManualClock() as clock, Pool() as pool:
...     conn = ScriptedConn("line", ["hello", Reply("later", cooldown=60), OSError("torn")])
...     number = pool.put(conn)
...     pool.call("line", "say")
...     pool.call("line", "say")
...     pool.info(number).cooldown
...     clock.advance(60, pool)
...     pool.info(number).state
'hello'
'later'
60.0
'ready'
>>> conn.calls, conn.closes
([('say', None), ('say', None)], 1)
>>> conn.assert_drained()
Traceback (most recent call last):
AssertionError: the script of ScriptedConn('line') was not followed: 1 of call left
"""

from .clock import ManualClock
from .proxy import FaultProxy
from .scripts import ScriptedAsyncConn, ScriptedConn
from .steps import Do, Hang

__all__ = ["Do", "FaultProxy", "Hang", "ManualClock", "ScriptedAsyncConn", "ScriptedConn"]
