"""What it costs to be choosy: filters that are functions, and filters given as data.

Owns the rows of filters.  Refuses to know what a call without one costs against something bare
(`calls`): here it is the measure.

Each conn has a number in its extra.  How many pass a filter is said in the name of a row; where few
do, they lie spread among the others.  Where none does, the call is refused with `timeout=0`, or
after the question whether it may wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

from connpool import FilterError, Pool

from .conns import TTL, Trivial, caller
from .harness import Bench, Heat, Row, Work, Workload, at_most

Filter = Callable[[Any], Any] | Mapping[str, Any]


@contextmanager
def numbered(conns: int) -> Iterator[Pool]:
    """A pool of that many conns, each of which has answered a call."""
    with Pool(name="benchmark") as pool:
        for number in range(conns):
            extra = {
                "number": number,
                "any": True,
                "tenth": number % 10 == 5,
                "thousandth": number % 1000 == 500,
            }
            pool.put(Trivial(), ttl=TTL, extra=extra)
        for _ in range(conns):
            pool.call("r", "m", 5)
        yield pool


@contextmanager
def unfiltered(conns: int) -> Iterator[Work]:
    """Calls by somebody to whom all conns are the same."""
    with numbered(conns) as pool:
        yield caller(pool)


@contextmanager
def filtered(conns: int, filter: Filter) -> Iterator[Work]:
    """Calls by somebody who is choosy."""
    with numbered(conns) as pool:

        def work(count: int) -> None:
            for _ in repeat(None, count):
                pool.call("r", "m", 5, filter=filter)

        work(10)  # the first question makes the index
        yield work


@contextmanager
def each_in_turn(conns: int) -> Iterator[Work]:
    """Calls by many, each of whom wants a conn of his own, and writes his filter out anew."""
    with numbered(conns) as pool:

        def work(count: int) -> None:
            for number in range(count):
                pool.call("r", "m", 5, filter={"number": number * 7 % conns})

        work(10)  # the first question makes the index
        yield work


@contextmanager
def refused(conns: int, filter: Filter, timeout: float) -> Iterator[Work]:
    """Calls by somebody whom no conn suits."""
    with numbered(conns) as pool:

        def work(count: int) -> None:
            for _ in repeat(None, count):
                try:
                    pool.call("r", "m", 5, filter=filter, timeout=timeout)
                except FilterError:
                    continue
                raise AssertionError("somebody was served")

        work(10)  # the first question makes the index
        yield work


FUNCTIONS: dict[str, Filter] = {
    "all": lambda info: info.extra["any"],
    "a tenth": lambda info: info.extra["tenth"],
    "a thousandth": lambda info: info.extra["thousandth"],
    "one": lambda info: info.extra["number"] == 5,
    "none": lambda info: info.extra["number"] < 0,
}
DATA: dict[str, Filter] = {
    "all": {"any": True},
    "a tenth": {"tenth": True},
    "a thousandth": {"thousandth": True},
    "one": {"number": 5},
    "one by two items": {"any": True, "number": 5},
    "none": {"number": -1},
}


def heat(conns: int, kind: str, filters: Mapping[str, Filter], aims: Mapping[str, float]) -> Heat:
    """Filters of one kind over so many conns, each against a call without one."""
    works: dict[str, Workload] = {"no filter": partial(unfiltered, conns)}
    rows = []

    def add(name: str, what: str, workload: Workload) -> None:
        subject = f"{kind}, {what} of {conns:,}"
        works[subject] = workload
        aim = at_most(aims[name]) if name in aims else None
        rows.append(Row(f"filter.{kind}.{name}.{conns}", subject, "no filter", aim))

    for what, filter in filters.items():
        name = what.replace(" ", "-")
        if what == "none":
            add(name, "none", partial(refused, conns, filter, 0.0))
            add(f"{name}.waiting", "none, may wait", partial(refused, conns, filter, 30.0))
        elif what != "a thousandth" or conns >= 1000:
            add(name, what, partial(filtered, conns, filter))
    if kind == "data":
        add("each", "each another one", partial(each_in_turn, conns))
    return Heat(works, rows, processes=1)


BENCHES: list[Bench] = [
    heat(10, "function", FUNCTIONS, {}),
    heat(10_000, "function", FUNCTIONS, {}),
    heat(10, "data", DATA, {"one": 2.0}),
    heat(10_000, "data", DATA, {"one": 2.0}),
]
