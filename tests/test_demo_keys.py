"""The demo's second scene: limits are learnt, keys go and come back, and the books agree."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator

import pytest

from connpool import Pool
from connpool.demo_keys import CALLS, KEYS, PER, KeyConn, Keys, Service

PATIENCE = 30.0  # seconds; they only end a hang


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that knows the keys "a" and "b"."""
    service = Service(["a", "b"])
    thread = threading.Thread(target=service.serve_forever, args=(0.01,))
    thread.start()
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


def connect(pool: Pool, service: Service, key: str) -> KeyConn:
    """A conn with this key, which comes back when the key does."""
    conn = KeyConn(service.address, key)
    pool.init(conn, revive=True)
    return conn


def test_the_whole_scene() -> None:
    """Every conn learns its limit, nothing is lost, and no thread is left."""
    before = set(threading.enumerate())
    out = io.StringIO()
    scene = Keys(2.5, out)
    found = scene.play()
    assert found.differences == [], out.getvalue()
    assert found.answered == found.done == scene.service.answered.total() > 0
    assert "0 lost, 0 done twice, 0 answers mixed up, 0 rests cut short." in out.getvalue()
    assert re.search(r"\n  429 since +\d+ ", out.getvalue())
    assert set(scene.service.answered) == {conn.key for conn in scene.conns}
    assert len(scene.conns) == KEYS
    assert set(threading.enumerate()) <= before


def test_a_scene_that_is_stopped_compares_what_there_is() -> None:
    """However early that is."""
    out = io.StringIO()
    scene = Keys(3600, out)
    timer = threading.Timer(0.2, scene.stop)
    timer.start()
    assert scene.play().differences == []
    timer.join()
    assert "calls answered" in out.getvalue()


def test_a_service_that_forgets_a_call_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a caller was told has to be in the service's books."""
    honest = Service.ask

    def forgetful(service: Service, key: str, token: str) -> tuple[int, float, str]:
        answer = honest(service, key, token)
        if token == "3-2":
            service.done.remove((token, answer[2]))
        return answer

    monkeypatch.setattr(Service, "ask", forgetful)
    scene = Keys(3600, io.StringIO())
    threading.Timer(0.3, scene.stop).start()
    assert len(scene.play().lost) == 2


def test_a_limit_is_learnt_from_a_refusal(service: Service) -> None:
    """After it the conn is used no faster than it may be."""
    with Pool(timeout=PATIENCE) as pool:
        conn = connect(pool, service, "a")
        assert conn.pace.interval == 0
        while not service.refused["a"]:
            pool.call("answers", "ASK", f"token-{len(service.done)}")
        assert conn.pace.interval > 0
        told = len(service.done)
        began = time.monotonic()
        while len(service.done) < told + 2 * CALLS:
            pool.call("answers", "ASK", f"token-{len(service.done)}")
        assert time.monotonic() - began >= PER
    assert service.early == []


def test_a_key_that_comes_back_too_early_is_caught(service: Service) -> None:
    """The service tells how long to stay away, and sees whether that is kept."""
    service._windows["a"] = (time.monotonic() + 3600, CALLS)  # all its calls are used up
    status, rest, _ = service.ask("a", "token-1")
    assert (status, service.early) == (429, [])
    assert 3500 < rest < 3600
    assert service.ask("a", "token-2")[0] == 429
    assert len(service.early) == 1
    assert service.ask("b", "token-3")[0] == 200


def test_a_call_that_meets_a_revoked_key_moves(service: Service) -> None:
    """Its caller gets an answer by another key; the conn comes back when its key does."""
    with Pool(timeout=PATIENCE) as pool:
        for key in ("a", "b"):
            connect(pool, service, key)
        service.valid.remove("a")
        tokens = [f"token-{n}" for n in range(4)]
        for token in tokens:
            assert pool.call("answers", "ASK", token).startswith("answer-")
        assert (service.turned_away, service.answered) == (1, {"b": 4})
        service.valid.add("a")
        due = time.monotonic() + PATIENCE
        while not service.answered["a"]:
            pool.call("answers", "ASK", "more")
            assert time.monotonic() < due
        assert pool.stats().since_start.revived == 1
    assert [token for token, _ in service.done[:4]] == tokens
