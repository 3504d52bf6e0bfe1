"""Agent and AgentConn: whoever asks is answered."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from connpool.adapters.agent import Agent, AgentConn
from connpool.conn import Conn, Reply, check_conn, describe
from connpool.errors import Busy, CallError, Closed, InitError

from . import eventually


def same(value: Any) -> Any:
    return value


def unasked(value: Any) -> Any:
    raise AssertionError("this function was not to be called")


@pytest.fixture
def agent() -> Iterator[Agent[int]]:
    with Agent(42) as agent:
        yield agent


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as crowd:
        yield crowd


class Hold:
    """Keeps an agent occupied for the length of a with block."""

    def __init__(self, agent: Agent[Any], crowd: ThreadPoolExecutor) -> None:
        self.running, self.over = threading.Event(), threading.Event()
        self.future: Future[Any] = crowd.submit(agent.get, self.wait)

    def wait(self, value: Any) -> Any:
        self.running.set()
        assert self.over.wait(30)
        return value

    def __enter__(self) -> Hold:
        assert self.running.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()


# -- Agent


def test_get_gives_what_the_function_gives(agent: Agent[int]) -> None:
    """get replies, and leaves the value alone."""
    assert agent.get(lambda value: value + 1) == 43
    assert agent.get(same) == 42


def test_update_changes_the_value(agent: Agent[int]) -> None:
    """What update's function gives is the new value."""
    agent.update(lambda value: value + 1)
    assert agent.get(same) == 43


def test_get_and_update_does_both_at_once(agent: Agent[int]) -> None:
    """get_and_update's function gives the reply and the new value."""
    assert agent.get_and_update(lambda value: (f"was {value}", 0)) == "was 42"
    assert agent.get(same) == 0


@pytest.mark.parametrize("wrong", [None, 1, (1,), (1, 2, 3), [1, 2]])
def test_get_and_update_wants_a_pair(agent: Agent[int], wrong: Any) -> None:
    """Anything but a pair is a TypeError for the caller, and the value stays."""
    with pytest.raises(TypeError, match="expected the pair"):
        agent.get_and_update(lambda _: wrong)
    assert agent.get(same) == 42


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no"), SystemExit(1)])
@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
def test_an_error_reaches_the_caller(agent: Agent[int], method: str, error: Any) -> None:
    """A function that raises harms neither the value nor the agent."""

    def fail(_: int) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        getattr(agent, method)(fail)
    assert caught.value is error
    assert agent.get(same) == 42


@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
def test_a_request_is_a_function(agent: Agent[int], method: str) -> None:
    """Anything else is refused in the caller's thread."""
    with pytest.raises(TypeError, match=f"{method}: expected a function .* got 1"):
        getattr(agent, method)(1)


async def awaited(value: Any) -> Any:
    raise AssertionError("a function to be awaited")


def test_a_coroutine_function_is_refused(agent: Agent[int]) -> None:
    """Called in a thread it would give a coroutine that nobody awaits."""
    wrong: Any = awaited
    with pytest.raises(TypeError, match="get: expected a function"):
        agent.get(wrong)


def test_a_callable_makes_the_value_in_the_agents_own_thread() -> None:
    """A callable is called once, where the value will live; that thread has a clear name."""
    with Agent(threading.current_thread, name="home") as agent:
        thread = agent.get(same)
        assert agent.get(lambda _: threading.current_thread()) is thread
        assert (thread.name, thread.daemon) == ("connpool-home", True)


def test_an_agent_whose_value_cannot_be_made() -> None:
    """The error of the callable is raised by Agent(), and no thread is left."""
    started: list[threading.Thread] = []

    def fail() -> None:
        started.append(threading.current_thread())
        raise ValueError("no value today")

    with pytest.raises(ValueError, match="no value today"):
        Agent(fail)
    started[0].join(30)
    assert not started[0].is_alive()


def test_many_threads_lose_no_update(crowd: ThreadPoolExecutor) -> None:
    """Requests run one at a time, so counting with many threads adds up."""
    with Agent(0) as agent:
        seen = list(crowd.map(lambda _: agent.get_and_update(lambda n: (n, n + 1)), range(400)))
        assert sorted(seen) == list(range(400))
        assert agent.get(same) == 400


def test_stop_ends_the_thread(agent: Agent[int]) -> None:
    """When stop returns, the thread is gone and the repr says so."""
    thread = agent.get(lambda _: threading.current_thread())
    assert "running" in repr(agent)
    agent.stop()
    assert not thread.is_alive()
    assert not agent.alive
    assert "stopped" in repr(agent)


@pytest.mark.parametrize("method", ["get", "get_and_update", "update"])
def test_a_request_after_stop_did_not_happen(agent: Agent[int], method: str) -> None:
    """It raises Closed, and its function is never called."""
    agent.stop()
    with pytest.raises(Closed, match="has stopped"):
        getattr(agent, method)(unasked)


def test_a_second_stop_did_not_happen(agent: Agent[int]) -> None:
    """Only one stop is the one that stopped it."""
    agent.stop()
    with pytest.raises(Closed):
        agent.stop()


def test_stop_takes_its_turn(agent: Agent[int], crowd: ThreadPoolExecutor) -> None:
    """Requests before a stop are served, those behind it raise Closed."""
    with Hold(agent, crowd):
        before = crowd.submit(agent.get, same)
        eventually(lambda: agent.waiting == 1)
        stop = crowd.submit(agent.stop)
        eventually(lambda: agent.waiting == 2)
        behind: list[Future[Any]] = [crowd.submit(agent.get, unasked), crowd.submit(agent.stop)]
        eventually(lambda: agent.waiting == 4)
    assert before.result(30) == 42
    assert stop.result(30) is None
    for future in behind:
        with pytest.raises(Closed):
            future.result(30)


def test_close_turns_away_those_in_line(agent: Agent[int], crowd: ThreadPoolExecutor) -> None:
    """close waits for nobody's turn; only the function that runs may finish."""
    with Hold(agent, crowd) as hold:
        behind = crowd.submit(agent.get, unasked)
        eventually(lambda: agent.waiting == 1)
        agent.close(0)
        with pytest.raises(Closed):
            behind.result(30)
    assert hold.future.result(30) == 42


def test_close_may_be_called_again(agent: Agent[int]) -> None:
    """close is for cleaning up, and says nothing of an agent that has stopped."""
    agent.close()
    agent.close()
    assert not agent.alive


def test_a_function_may_close_its_own_agent(agent: Agent[int]) -> None:
    """The caller of such a function still gets its reply."""
    assert agent.get(lambda _: agent.close()) is None
    assert not agent.alive


@pytest.mark.parametrize("attempt", range(20))
def test_asking_and_stopping_at_once(attempt: int, crowd: ThreadPoolExecutor) -> None:
    """However they meet, each request is either served or told that it was not."""
    agent = Agent(0)

    def ask(_: int) -> int:
        try:
            return agent.get_and_update(lambda n: (1, n + 1))
        except Closed:
            return 0

    last: list[int] = []
    asking = crowd.map(ask, range(100))
    agent.get(last.append)
    stop = crowd.submit(agent.stop)
    served = sum(asking)
    stop.result(30)
    assert last[0] <= served <= 100


def test_a_function_that_asks_its_own_agent(agent: Agent[int]) -> None:
    """It would wait for itself: an error that says so, and the agent goes on."""
    with pytest.raises(RuntimeError, match="wait for itself"):
        agent.get(lambda _: agent.get(same))
    assert agent.get(same) == 42


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="there are no signals here")
def test_an_interrupted_caller_takes_its_request_back(
    agent: Agent[int], crowd: ThreadPoolExecutor
) -> None:
    """What stands in line when its caller is interrupted is never run."""
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    main = threading.get_ident()

    def interrupt() -> None:
        eventually(lambda: agent.waiting == 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    try:
        with Hold(agent, crowd):
            crowd.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                agent.update(lambda _: 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert agent.get(same) == 42


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_not_left_waiting(agent: Agent[int]) -> None:
    """A fork leaves the agent's thread behind, so that in the child it has stopped."""
    if not (child := os.fork()):
        try:
            agent.get(same)
        except Closed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# -- AgentConn


@pytest.fixture
def conn() -> Iterator[AgentConn]:
    conn = AgentConn(42, resource="number")
    conn.init()
    yield conn
    conn.close()


def test_an_agent_conn_keeps_the_contract(conn: AgentConn) -> None:
    """It is a Conn, and says of itself what a pool wants to know."""
    typed: Conn[Any] = conn
    check_conn(typed, awaits=False)
    said = describe(conn, conn.methods())
    assert said.resources == ("number",)
    assert said.methods == {"get", "get_and_update", "update", "stop"}
    assert said.capacity == 1


def test_calls_are_those_of_the_agent(conn: AgentConn) -> None:
    """get, get_and_update and update take a function as their payload."""
    assert conn.call("get", same) == 42
    assert conn.call("update", lambda value: value + 1) is None
    assert conn.call("get_and_update", lambda value: (value, 0)) == 43
    assert conn.call("get", same) == 0


def test_a_call_of_stop_ends_the_conn_in_good_order(conn: AgentConn) -> None:
    """It replies None and says that the conn is closed; later calls did not happen."""
    assert conn.check()
    assert conn.call("stop") == Reply(None, closed=True)
    assert not conn.check()
    for method, payload in (("get", unasked), ("stop", None)):
        with pytest.raises(Closed):
            conn.call(method, payload)


@pytest.mark.parametrize("method", ["set", "close", "_ask", None, ["get"]])
def test_an_unknown_method(conn: AgentConn, method: Any) -> None:
    """The call fails, naming what there is, and the conn stays."""
    with pytest.raises(CallError, match="expected one of get, get_and_update") as caught:
        conn.call(method, same)
    assert not caught.value.closed
    assert conn.call("get", same) == 42


@pytest.mark.parametrize(
    ("method", "payload"), [("get", None), ("update", 43), ("get_and_update", "f"), ("stop", same)]
)
def test_a_wrong_payload(conn: AgentConn, method: str, payload: Any) -> None:
    """It is a TypeError that names the method, and the conn stays."""
    with pytest.raises(TypeError, match=f"{method}: expected"):
        conn.call(method, payload)
    assert conn.call("get", same) == 42


@pytest.mark.parametrize("error", [ValueError("no"), CallError("no"), Busy(0.5)])
def test_a_functions_error_reaches_the_caller(conn: AgentConn, error: Exception) -> None:
    """It comes as it is, and the conn stays."""

    def fail(_: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        conn.call("get", fail)
    assert caught.value is error
    assert conn.call("get", same) == 42


@pytest.mark.parametrize("error", [TimeoutError("late"), EOFError("end"), Closed("elsewhere")])
def test_a_functions_error_is_not_taken_for_the_agents(conn: AgentConn, error: Exception) -> None:
    """What would tell a pool that the conn is lost comes as the cause of a CallError."""

    def fail(_: int) -> None:
        raise error

    with pytest.raises(CallError, match=str(error)) as caught:
        conn.call("update", fail)
    assert caught.value.__cause__ is error
    assert conn.call("get", same) == 42


def test_the_agent_is_the_resource_unless_one_is_named(agent: Agent[int]) -> None:
    """Before init too, where the agent is given; a name that was given stays."""
    given, named, made = AgentConn(agent), AgentConn(agent, resource="name"), AgentConn(1)
    assert given.resource is agent
    assert made.resource is None
    for conn in (given, named, made):
        conn.init()
    assert given.resource is agent
    assert named.resource == "name"
    assert isinstance(made.agent, Agent)
    assert made.resource is made.agent
    made.close()


def test_the_source_may_be_left_to_init(agent: Agent[int]) -> None:
    """init takes an agent, a value or a callable as well, and there it counts."""
    conn = AgentConn()
    for source, value in ((agent, 42), (1, 1), (lambda: 2, 2), (None, None)):
        conn.init(source)
        assert conn.call("get", same) == value
    conn.close()


def test_init_needs_a_source() -> None:
    """Without one it is a TypeError."""
    with pytest.raises(TypeError, match="expected an Agent, a value or a callable"):
        AgentConn().init()


def test_init_again_starts_a_fresh_agent() -> None:
    """The value is made anew, and the agent before is ended."""
    conn = AgentConn(list, resource="list")
    conn.init()
    first = conn.agent
    assert first is not None
    conn.call("update", lambda value: [*value, 1])
    conn.call("stop")
    for _ in range(2):  # after a stop, and without one
        before = conn.agent
        conn.init()
        assert conn.agent is not before
        assert before is not None
        assert not before.alive
        assert conn.call("get", same) == []
    conn.close()


def test_a_given_agent_that_has_stopped_is_not_tried_again(agent: Agent[int]) -> None:
    """init says that waiting will not help."""
    agent.stop()
    with pytest.raises(InitError, match="will not start again") as caught:
        AgentConn(agent).init()
    assert caught.value.retry_after == math.inf


def test_a_callable_that_fails_leaves_the_conn_closed() -> None:
    """Its error is the error of init."""
    conn = AgentConn(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        conn.init()
    assert not conn.check()


def test_close_ends_only_what_the_conn_started(agent: Agent[int]) -> None:
    """An agent that was given belongs to its giver; closing twice is fine."""
    for conn, survives in ((AgentConn(agent), True), (AgentConn(42), False)):
        conn.init()
        asked = conn.agent
        assert asked is not None
        conn.close()
        conn.close()
        assert asked.alive is survives
        assert "closed" in repr(conn)


@pytest.mark.parametrize("method", ["get", "stop"])
def test_a_call_before_init_did_not_happen(method: str) -> None:
    """A conn without an agent is closed."""
    with pytest.raises(Closed, match="never initialised"):
        AgentConn(1).call(method, None if method == "stop" else same)


def test_a_close_during_a_call(conn: AgentConn, crowd: ThreadPoolExecutor) -> None:
    """The function that runs is let finish, and those in line are told that they were not run."""
    agent = conn.agent
    assert agent is not None
    with Hold(agent, crowd) as hold:
        behind = crowd.submit(conn.call, "get", unasked)
        eventually(lambda: agent.waiting == 1)
        closing = crowd.submit(conn.close)
        with pytest.raises(Closed):
            behind.result(30)
    closing.result(30)
    assert hold.future.result(30) == 42
