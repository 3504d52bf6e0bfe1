"""What a gRPC server says of retrying, read from its metadata; and descriptions of methods."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connpool.adapters.grpc_rules import Method, methods_of, pairs, rest

DETAIL = "grpc-status-details-bin"


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message of protocol buffers."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def detail(kind: str, message: bytes) -> bytes:
    return field(3, field(1, f"type.googleapis.com/{kind}".encode()) + field(2, message))


def retry_info(seconds: int, nanos: int = 0) -> bytes:
    delay = field(1, seconds) + field(2, nanos)
    return detail("google.rpc.RetryInfo", field(1, delay))


STATUS = field(1, 8) + field(2, b"too much")
FIXED = varint(9 << 3 | 1) + bytes(8) + varint(9 << 3 | 5) + bytes(4)  # of 8 and of 4 bytes


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        (STATUS + retry_info(3), 3.0),
        (STATUS + detail("google.rpc.QuotaFailure", b"x") + retry_info(0, 250_000_000), 0.25),
        (STATUS + retry_info(10**9), 3600.0),
        (STATUS + retry_info(-1), 0.0),
        (STATUS + detail("google.rpc.RetryInfo", b""), 0.0),
        (
            STATUS + varint(9 << 3 | 1) + bytes(8) + varint(9 << 3 | 5) + bytes(4) + retry_info(1),
            1.0,
        ),
        (STATUS, None),
        (b"", None),
        (STATUS + retry_info(3)[:-1], None),
        (varint(1 << 3 | 3), None),
        (b"\xff" * 20, None),
        ("text", None),
    ],
)
def test_a_status_in_detail(status: Any, seconds: float | None) -> None:
    """Its RetryInfo counts, whatever else it holds; what is broken says nothing."""
    assert rest([(DETAIL, status)]) == seconds


@given(st.binary(max_size=60))
def test_no_bytes_are_an_error(data: bytes) -> None:
    """Whatever a server sends, reading it does not fail."""
    for status in (data, STATUS + data, STATUS + detail("google.rpc.RetryInfo", data)):
        seconds = rest([(DETAIL, status)])
        assert seconds is None or 0 <= seconds <= 3600


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        (None, None),
        ([("retry-after", "1.5")], 1.5),
        ([("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], None),
        ([("retry-after", "-1")], None),
        ([("retry-after", "inf")], None),
        ([("grpc-retry-pushback-ms", "-1"), ("retry-after", "5")], None),
        ([("grpc-retry-pushback-ms", "0")], 0.0),
        ([("retry-after", "soon"), (DETAIL, STATUS + retry_info(2))], 2.0),
    ],
)
def test_metadata(metadata: Any, seconds: float | None) -> None:
    """The first that can be read counts; a pushback below 0 says: not again."""
    assert rest(metadata) == seconds


@pytest.mark.parametrize("path", ["Echo", "a/b", "/a", "/a/b/c", "/a b/c", "", None, 7])
def test_a_wrong_path(path: Any) -> None:
    """It is a full one."""
    with pytest.raises(ValueError, match=r"path: expected /package\.Service/Method"):
        Method(path)


def test_methods_by_path_or_in_full() -> None:
    """Both are Methods in the end."""
    many = Method("/a.B/Many", many_replies=True)
    assert methods_of({"one": "/a.B/One", "many": many}) == {
        "one": Method("/a.B/One"),
        "many": many,
    }


def test_pairs() -> None:
    """Mappings, and whatever holds pairs."""
    assert (
        pairs({"a": 1}, "x") == pairs([("a", 1)], "x") == pairs(iter([["a", 1]]), "x") == [("a", 1)]
    )
