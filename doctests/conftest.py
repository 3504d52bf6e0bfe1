"""Keeps one page's troubles to that page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from connpool import Pool


@pytest.fixture(autouse=True)
def _tidied(request: pytest.FixtureRequest) -> Iterator[None]:
    """A page that fails half way leaves no frozen clock, open pool or server to the next one."""
    yield
    for thing in tuple(request.node.dtest.globs.values()):
        if isinstance(thing, (ExitStack, Pool)):
            thing.close()
