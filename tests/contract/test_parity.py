"""Two pools, one face: `Pool` and `AsyncPool` have the same names, parameters and first lines.

What differs is in a table, each with its reason; a difference that is gone must leave the table.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from connpool import AsyncPool, Pool

# Names that only one of the two has.
ONLY = {
    "__enter__": "a thread's pool is opened with `with`",
    "__exit__": "a thread's pool is opened with `with`",
    "__aenter__": "a task's pool is opened with `async with`",
    "__aexit__": "a task's pool is opened with `async with`",
}

# Methods that only AsyncPool awaits: those that may wait, and three that are awaited like the
# others of their family.
AWAITED = {
    "call": "waits for a conn",
    "close": "waits for running calls",
    "init": "waits for conn.init",
    "pop": "waits for running calls",
    "pop_all": "waits for running calls",
    "put": "waits for conn.methods",
    "supply": "a conn gets in as with init and put",
    "sweep": "waits for inits and closes",
    "update": "changes what callers wait for; kept awaitable",
    "wait_ready": "waits for the supplies",
}

# Parameters whose annotation differs: (method, parameter).
ANNOTATIONS = {
    ("init", "conn"): "its conns are of another kind",
    ("put", "conn"): "its conns are of another kind",
}

# Docstrings whose first line differs.
FIRST_LINES = {
    "__doc__": "the two classes say whom they are for",
}

# Methods whose parameters are explained elsewhere.
LIKE = {"put": "init"}

# Special methods that come from `object` or serve the class only.
PLUMBING = set(dir(object)) - {"__init__", "__repr__"} | {
    "__annotations__",
    "__dict__",
    "__module__",
    "__weakref__",
}


def names(pool: type[Any]) -> set[str]:
    """What users of a pool see."""
    found = {name for name in dir(pool) if not name.startswith("_")}
    special = {name for name in dir(pool) if name.startswith("__") and name.endswith("__")}
    return found | (special - PLUMBING)


SHARED = sorted(names(Pool) & names(AsyncPool))
METHODS = [name for name in SHARED if callable(getattr(Pool, name))]
PUBLIC = [name for name in METHODS if not name.startswith("_")]


def test_the_names_are_the_same() -> None:
    """But for those in the table."""
    assert names(Pool) ^ names(AsyncPool) == set(ONLY)


@pytest.mark.parametrize("name", METHODS)
def test_the_parameters_are_the_same(name: str) -> None:
    """Names, order, kinds, defaults and annotations."""
    one, other = (inspect.signature(getattr(pool, name)).parameters for pool in (Pool, AsyncPool))
    for pair in zip(one.values(), other.values(), strict=True):
        first, second = ((p.name, p.kind, p.default) for p in pair)
        assert first == second
        same = pair[0].annotation == pair[1].annotation
        assert same is ((name, pair[0].name) not in ANNOTATIONS)


@pytest.mark.parametrize("name", METHODS)
def test_what_they_give_is_the_same(name: str) -> None:
    """Down to the annotation."""
    one, other = (inspect.signature(getattr(pool, name)) for pool in (Pool, AsyncPool))
    assert one.return_annotation == other.return_annotation


@pytest.mark.parametrize("name", METHODS)
def test_async_is_what_the_table_says(name: str) -> None:
    """No method of Pool is; of AsyncPool those in the table, and no other."""
    assert not inspect.iscoroutinefunction(getattr(Pool, name))
    assert inspect.iscoroutinefunction(getattr(AsyncPool, name)) is (name in AWAITED)


def test_the_tables_name_what_there_is() -> None:
    """A name that is gone must leave them."""
    assert set(AWAITED) <= set(METHODS)
    assert {method for method, _ in ANNOTATIONS} <= set(METHODS)
    assert all([*ONLY.values(), *AWAITED.values(), *ANNOTATIONS.values(), *FIRST_LINES.values()])


@pytest.mark.parametrize("name", ["__doc__", *SHARED])
def test_docstrings_begin_alike(name: str) -> None:
    """The same first line, or a row in the table."""
    lines = []
    for pool in (Pool, AsyncPool):
        doc = pool.__doc__ if name == "__doc__" else getattr(pool, name).__doc__
        lines.append((doc or "").strip().partition("\n")[0])
    assert (lines[0] == lines[1]) is (name not in FIRST_LINES)


@pytest.mark.parametrize("pool", [Pool, AsyncPool])
@pytest.mark.parametrize("name", PUBLIC)
def test_each_method_says_whether_it_waits(pool: type[Any], name: str) -> None:
    """In the words "Waits" or "Never waits"."""
    assert re.search(r"\b(Waits|Never\s+waits)\b", getattr(pool, name).__doc__ or "")


@pytest.mark.parametrize("pool", [Pool, AsyncPool])
@pytest.mark.parametrize("name", PUBLIC)
def test_each_parameter_is_explained(pool: type[Any], name: str) -> None:
    """In the docstring, or in that of another method, to which it points."""
    doc = getattr(pool, name).__doc__
    if name in LIKE:
        assert f"as for `{LIKE[name]}`" in doc
        doc += getattr(pool, LIKE[name]).__doc__
    for parameter in list(inspect.signature(getattr(pool, name)).parameters)[1:]:
        assert re.search(rf"\b{parameter}\b", doc), parameter
