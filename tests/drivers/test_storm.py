"""Everything at once: threads, failing conns and chance; then every place can be had again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from connpool import Backoff, Busy, Closed, Pool, PoolError, Reply

from . import Crowd, eventually

FAST = Backoff(first=0.001, factor=1.5, most=0.02)


class Moody:
    """A conn that fails in every way there is, by chance, and notes what is done to it wrongly."""

    def __init__(self, seed: int) -> None:
        self.resource = ["line", "other"][: 1 + seed % 2]
        self.capacity = 1 + seed % 3
        self.open = True
        self.calm = False
        self.wrongs: list[str] = []
        self._running = 0
        self._random = random.Random(seed)
        self._guard = threading.Lock()

    def init(self) -> float | None:
        with self._guard:
            if self.open:
                self.wrongs.append("initialised again without being closed")
            if self._running:
                self.wrongs.append("initialised under a call")
            if not self.calm and self._random.random() < 0.2:
                raise OSError("refused")
            self.open = True
            return self._random.choice([None, None, 0.001])

    def call(self, method: Any, payload: Any = None) -> Any:
        with self._guard:
            self._running += 1
            if self._running > self.capacity:
                self.wrongs.append("used by too many")
            mood = 10 if self.calm else self._random.randrange(100)
        try:
            return self._react(mood, payload)
        finally:
            with self._guard:
                self._running -= 1

    def _react(self, mood: int, payload: Any) -> Any:
        if mood > 8:
            return payload
        if mood < 3:
            return Reply(payload, cooldown=0.001 * mood, closed=mood == 2)
        errors = [Closed(), Busy(0.001), Busy(), OSError(), ValueError("no"), SystemExit()]
        raise errors[mood - 3]

    def methods(self) -> list[str]:
        return ["say", "ask"]

    def close(self) -> None:
        with self._guard:
            if not self.open:
                self.wrongs.append("closed twice")
            self.open = False


def operate(pool: Pool, chance: random.Random, turn: int) -> None:
    """One thing that a user might do."""
    what, resource = chance.random(), chance.choice(["line", "other"])
    if what < 0.94:
        call(pool, chance, resource, turn)
    elif what < 0.96:
        pool.update(resource, ttl=chance.choice([0.05, 0.1, None]))
    elif infos := pool.infos(resource):
        id = chance.choice(infos).id
        if what < 0.98:
            pool.extra(id, turn)
        else:
            conn = pool.pop(id, timeout=0.001)
            conn.open = True  # whoever puts a conn says that it is open
            pool.put(conn, revive="force", ttl=0.1)


def call(pool: Pool, chance: random.Random, resource: str, turn: int) -> None:
    passes: Callable[[Any], Any] | None = None
    if chance.random() < 0.2:
        passes = lambda info: info.id % 2  # noqa: E731 - a new function each time is meant
    payload = (turn, chance.random())
    reply = pool.call(
        resource,
        chance.choice(["say", "ask"]),
        payload,
        filter=passes,
        timeout=chance.choice([0, 0.001, 1]),
        by=chance.choice([None, None, "random", "least_used", "round_robin"]),
    )
    assert reply == payload


@attrs.frozen
class Only:
    """A filter that one conn passes."""

    id: int

    def __call__(self, info: Any) -> bool:
        return bool(info.id == self.id)


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_storm_every_place_can_be_had_again(seed: int) -> None:
    """8 threads, 16,000 random operations, failing conns: nothing is lost and nothing is left."""
    conns = [Moody(seed * 100 + number) for number in range(6)]
    pool = Pool(backoff=FAST, timeout=5)
    for conn in conns:
        pool.put(conn, revive="force", ttl=0.1)

    def stir(number: int) -> int:
        chance, answered = random.Random(seed * 1000 + number), 0
        for turn in range(2000):
            try:
                operate(pool, chance, turn)
                answered += 1
            except (PoolError, OSError, ValueError, SystemExit):
                pass
        return answered

    answered = Crowd(8, stir).join()
    assert all(isinstance(count, int) and count > 200 for count in answered), answered
    for conn in conns:
        conn.calm = True
    for resource in ("line", "other"):
        pool.update(resource, ttl=None)
    eventually(lambda: pool.stats().now.ready == 6)
    now = pool.stats().now
    assert (now.in_use, now.waiting, now.conns) == (0, 0, 6)
    for id in [info.id for info in pool.infos()]:
        assert pool.call("line", "say", 1, filter=Only(id), timeout=0) == 1
    pool.close()
    assert [conn.wrongs for conn in conns] == [[]] * 6
    assert not any(conn.open for conn in conns)
