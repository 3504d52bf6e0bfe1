"""JSON-RPC without a connection: whose reply is whose, and what makes no sense."""

from __future__ import annotations

import json
import pickle
import random
from typing import Any

import pytest

from connpool import Busy, CallError
from connpool.adapters.websocket_rpc import (
    Call,
    Calls,
    CallTimeout,
    JsonRpcError,
    Numbers,
    ProtocolError,
    Push,
    ReplyLost,
    busy_rests,
    listed,
)


@pytest.fixture
def calls() -> Calls:
    return Calls(Numbers(), {-32005: 1.5})


def begin(calls: Calls, method: str = "echo", params: Any = None) -> Call:
    return calls.begin(method, params, lambda: None)


def answer(call: Call, **parts: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": call.number, **parts})


def test_replies_find_their_calls_in_any_order(calls: Calls) -> None:
    """The id tells, and nothing else."""
    under_way = [begin(calls) for _ in range(50)]
    texts = [answer(call, result=call.number) for call in under_way]
    random.Random(1).shuffle(texts)
    for text in texts:
        assert calls.feed(text) == []
    assert [call.reply() for call in under_way] == [call.number for call in under_way]
    assert len(calls) == 0


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (None, {}),
        ([1, "b"], {"params": [1, "b"]}),
        ((1,), {"params": [1]}),
        ({"a": 1}, {"params": {"a": 1}}),
    ],
)
def test_what_a_request_looks_like(calls: Calls, params: Any, said: dict[str, Any]) -> None:
    """Version, id and method; params only where there are any."""
    call = begin(calls, "add", params)
    assert json.loads(call.text) == {"jsonrpc": "2.0", "id": 1, "method": "add", **said}


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        (1, None, TypeError),
        ("echo", "text", TypeError),
        ("echo", 1, TypeError),
        ("echo", [object()], TypeError),
        ("echo", [float("nan")], ValueError),
        ("echo", ["x" * 1000], ValueError),
    ],
)
def test_what_cannot_be_said(method: Any, params: Any, error: type[Exception]) -> None:
    """It is refused before anything waits for a reply."""
    calls = Calls(Numbers(), max_size=500)
    with pytest.raises(error):
        begin(calls, method, params)
    assert len(calls) == 0


def test_a_late_reply_is_nobodys(calls: Calls) -> None:
    """The reply to a forgotten call is dropped, and so is a second one."""
    left, stays = begin(calls), begin(calls)
    calls.forget(left)
    calls.feed(answer(left, result="late"))
    calls.feed(answer(stays, result="mine"))
    calls.feed(answer(stays, result="again"))
    assert not left.over
    assert stays.reply() == "mine"


def test_ids_go_on_over_connections() -> None:
    """A reply to a request of the last connection can be taken for no other."""
    numbers = Numbers()
    first, second = Calls(numbers), Calls(numbers)
    old, new = begin(first), begin(second)
    second.feed(answer(old, result="old"))
    second.feed(answer(new, result="new"))
    assert new.reply() == "new"


def test_an_error_of_the_server(calls: Calls) -> None:
    """It is a CallError with all that the server said, and pickles."""
    call = begin(calls)
    calls.feed(answer(call, error={"code": -32601, "message": "no such method", "data": [1]}))
    with pytest.raises(JsonRpcError, match=r"no such method \(-32601\)") as caught:
        call.reply()
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.code, error.message, error.data) == (-32601, "no such method", [1])
        assert isinstance(error, CallError)
        assert (error.cooldown, error.closed) == (0.0, False)


def test_a_code_that_means_not_now(calls: Calls) -> None:
    """It becomes Busy, with the rest of its code."""
    call = begin(calls)
    calls.feed(answer(call, error={"code": -32005, "message": "too fast"}))
    with pytest.raises(Busy, match="too fast") as caught:
        call.reply()
    assert caught.value.cooldown == 1.5
    assert isinstance(caught.value.__cause__, JsonRpcError)


def test_pushes_and_replies_in_one_message(calls: Calls) -> None:
    """A batch is read in order; what is not asked for is given back."""
    call = begin(calls)
    parts = [
        {"method": "tick", "params": [1]},
        json.loads(answer(call, result=None)),
        {"jsonrpc": "2.0", "method": "tock"},
    ]
    assert calls.feed(json.dumps(parts)) == [Push("tick", [1]), Push("tock", None)]
    assert call.reply() is None


def test_a_request_of_the_server_is_ignored(calls: Calls) -> None:
    """We serve nothing, and such an id is no reply's."""
    call = begin(calls)
    assert calls.feed(answer(call, method="callback")) == []
    assert not call.over


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        b"\xff\xfe\xfd",
        "[" * 100_000,
        "[]",
        "7",
        '["x"]',
        "{}",
        '{"id": 1}',
        '{"result": 1}',
        '{"id": "1", "result": 1}',
        '{"id": true, "result": 1}',
        '{"id": 1.0, "result": 1}',
        '{"id": 0, "result": 1}',
        '{"id": 2, "result": 1}',
        '{"id": 1, "error": "text"}',
        '{"id": 1, "error": {"message": "no code"}}',
        '{"id": 1, "error": {"code": "1"}}',
        '{"id": null, "error": {"code": -32700, "message": "cannot read that"}}',
        '{"method": 1}',
        '[{"method": "tick"}, 7]',
    ],
)
def test_what_makes_no_sense(calls: Calls, text: str | bytes) -> None:
    """It is an error, short enough to be shown, and answers no call."""
    call = begin(calls)
    with pytest.raises(ProtocolError) as caught:
        calls.feed(text)
    assert len(str(caught.value)) < 300
    assert not call.over


def test_a_null_error_is_none(calls: Calls) -> None:
    """Servers of the older version send both, one of them null."""
    call = begin(calls)
    calls.feed(answer(call, result=1, error=None))
    assert call.reply() == 1


def test_the_end_of_a_connection_fails_each_call_once(calls: Calls) -> None:
    """Each gets an error of its own."""
    first, second = begin(calls, "a"), begin(calls, "b")
    calls.fail(lambda call: ReplyLost(call.method))
    calls.fail(lambda call: ReplyLost("again"))
    for call in (first, second):
        with pytest.raises(ReplyLost, match=call.method):
            call.reply()


def test_a_call_timeout_is_no_end() -> None:
    """It is a TimeoutError to its caller, and says nothing against the conn."""
    assert issubclass(CallTimeout, TimeoutError)
    assert issubclass(CallTimeout, CallError)
    assert not CallTimeout("late").closed


@pytest.mark.parametrize("reply", [None, "add", {"methods": "add"}, [1], [{"title": "add"}], {}])
def test_no_list_of_methods(reply: Any) -> None:
    """A server that lists nothing of the kind is no server of ours."""
    with pytest.raises(ProtocolError, match="expected a list of methods"):
        listed(reply)


@pytest.mark.parametrize(
    ("codes", "error"),
    [([1], TypeError), ({"1": 1}, TypeError), ({True: 1}, TypeError), ({1: -1}, ValueError)],
)
def test_wrong_busy_codes(codes: Any, error: type[Exception]) -> None:
    """They are found before anything is sent."""
    with pytest.raises(error, match="busy_codes"):
        busy_rests(codes)
