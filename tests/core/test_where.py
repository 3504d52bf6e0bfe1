"""Filters given as data: what they mean, and which are the same."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from connpool.core import Where, check_filter


class Sour:
    """A value that cannot be compared."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("not with me")


class Broken(Mapping[str, Any]):
    """A mapping that raises whatever it is asked."""

    def __getitem__(self, key: str) -> Any:
        raise OSError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError("iter")

    def __len__(self) -> int:
        return 1


def where(filter: Any) -> Where:
    made = check_filter(filter)
    assert isinstance(made, Where)
    return made


NAN = float("nan")


@pytest.mark.parametrize(
    ("filter", "extra", "passes"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3, "a": 1}, True),
        ({"a": None}, {}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": 1}, None, False),
        ({"a": 1}, "a", False),
        ({"a": 1}, [("a", 1)], False),
        ({"a": 1}, MappingProxyType({"a": 1}), True),
        ({"a": 1}, ChainMap({}, {"a": 1}), True),
        ({"a": 1}, ChainMap({}, {"b": 1}), False),
        ({"a": frozenset({1})}, {"a": {1}}, True),
        ({"a": NAN}, {"a": NAN}, True),
        ({"a": NAN}, {"a": float("nan")}, False),
        ({"a": 1}, {"a": Sour()}, False),
        ({"a": Sour()}, {"a": 1}, False),
        ({"a": 1}, Broken(), False),
        ({1: 1}, {1: 1}, True),
    ],
)
def test_what_passes(filter: Any, extra: Any, passes: bool) -> None:
    """An extra that is a mapping and has each key, and under it the same or an equal value."""
    test = where(filter)
    assert test.passes(extra) is passes


def test_it_is_a_function_of_an_info_as_well() -> None:
    """It looks at the extra."""

    class Shown:
        extra: Any = {"a": 1}

    assert where({"a": 1})(Shown())
    assert not where({"a": 2})(Shown())


def test_equal_ones_are_equal_keys() -> None:
    """However they are written: the order, the kind of mapping and of number do not matter."""
    one, other = where({"a": 1, "b": 2}), where(ChainMap({"b": 2.0}, {"a": 1}))
    assert one == other
    assert {one: "found"}[other] == "found"
    assert one != where({"a": 1})


def test_it_shows_as_it_was_written() -> None:
    """In errors."""
    assert repr(where({"region": "eu"})) == "{'region': 'eu'}"


def test_an_empty_mapping_is_no_filter() -> None:
    """It asks for nothing: whoever gathers conditions need not count them."""
    assert check_filter({}) is None


def test_a_function_and_none_stay_what_they_are() -> None:
    """So does what has been checked already."""
    assert check_filter(None) is None
    assert check_filter(len) is len
    test = where({"a": 1})
    assert check_filter(test) is test


@pytest.mark.parametrize("wrong", [1, "region", [("region", "eu")], {"region"}])
def test_what_is_neither_a_function_nor_a_mapping_is_refused(wrong: Any) -> None:
    """With what was expected and what came."""
    with pytest.raises(
        TypeError, match=r"expected a function of a conn's Info, or a mapping .* got"
    ):
        check_filter(wrong)


def test_values_that_are_not_hashable_are_refused() -> None:
    """With what was expected and what came."""
    with pytest.raises(
        TypeError, match=r"expected hashable values in a mapping, got \{'a': \[1\]\}"
    ):
        check_filter({"a": [1]})
