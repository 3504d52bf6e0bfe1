"""The drivers under every order of events that chance can think of.

Threads take turns under a scheduler that a seed decides for; tasks run in an order that a seed
shuffles; and both are stormed for real, for as long as one likes.

A few hundred seeds run by default.  For more, from a number on, and for a longer soak::

    CONNPOOL_SEEDS=10000 python -m pytest tests/interleavings
    CONNPOOL_SEEDS=500@12000 python -m pytest tests/interleavings
    CONNPOOL_SOAK=5 python -m pytest tests/interleavings/test_soak.py  # minutes
"""

from __future__ import annotations

import os

import pytest


def seeds(usual: int) -> range:
    """Those to be tried: as many as usual, unless the environment says otherwise."""
    told = os.environ.get("CONNPOOL_SEEDS", "")
    count, _, first = told.partition("@")
    begin = int(first or 0)
    return range(begin, begin + int(count or usual))


# Seconds: a lost wake-up is found without it, and many seeds take long.
PATIENT = pytest.mark.timeout(120 + 0.2 * len(seeds(0)))
