"""The scheduler: what it finds, and that a seed tells the same story twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .ruled import DRIVER
from .scheduler import Scheduler, Stuck
from .test_threads import WAYS, tell

Story = Callable[[Scheduler], Callable[[], Any]]


def threads(scheduler: Scheduler, *works: Callable[[], Any]) -> None:
    """Have all of these done, each by a thread."""
    all_of_them = [scheduler.Thread(target=work) for work in works]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()


def ends(story: Callable[[Scheduler], Any], **options: Any) -> set[Any]:
    """What comes of it, over many seeds."""
    found = set()
    for seed in range(40):
        scheduler = Scheduler(seed, **options)
        results: list[Any] = []
        scheduler.run(lambda s=scheduler, r=results: r.append(story(s)))  # type: ignore[misc]
        found.update(results)
    return found


def test_a_lost_update_is_found() -> None:
    """Two read and then write: both orders of these come up, and with a lock only one."""

    def count(scheduler: Scheduler, guard: Any) -> int:
        number = 0

        def add() -> None:
            nonlocal number
            with guard:
                before = number
                scheduler.switch("between")
                number = before + 1

        threads(scheduler, add, add)
        return number

    class Nothing:
        __enter__ = __exit__ = staticmethod(lambda *_: None)

    assert ends(lambda scheduler: count(scheduler, Nothing())) == {1, 2}
    assert ends(lambda scheduler: count(scheduler, scheduler.Lock())) == {2}


def test_a_lost_update_between_two_lines_is_found() -> None:
    """Without any switch point, where the file is traced."""

    def count(scheduler: Scheduler) -> int:
        number = 0

        def add() -> None:
            nonlocal number
            before = number
            number = before + 1

        threads(scheduler, add, add)
        return number

    assert ends(count) == {2}
    assert ends(count, lines=0.3, traced=[__file__]) == {1, 2}


def test_a_deadlock_is_a_failure_that_says_who_waits() -> None:
    """Two locks, taken in two orders."""

    def cross(scheduler: Scheduler) -> None:
        one, two = scheduler.Lock(), scheduler.Lock()

        def take(first: Any, second: Any) -> None:
            with first, second:
                pass

        threads(scheduler, lambda: take(one, two), lambda: take(two, one))

    with pytest.raises(Stuck, match="everybody waits") as raised:
        ends(cross)
    (note,) = raised.value.__notes__
    assert "waits for lock of" in note
    assert "take:" in note


def test_time_passes_when_nobody_can_run() -> None:
    """And only then, but for leaps; a wait that is over says so."""

    def sleep(scheduler: Scheduler) -> Any:
        lock, begun = scheduler.Lock(), scheduler.now
        lock.acquire()
        told: list[Any] = []
        threads(
            scheduler,
            lambda: told.append(lock.acquire(True, 5.0)),
            lambda: scheduler.sleep(7.0),
        )
        return (*told, round(scheduler.now - begun, 6))

    assert ends(sleep, leaps=0.0) == {(False, 7.0)}


def test_a_waiting_thread_can_be_interrupted() -> None:
    """Where it allows that: a KeyboardInterrupt comes out of its wait."""

    def story(scheduler: Scheduler) -> str:
        end = "slept"

        def sleep() -> None:
            nonlocal end
            try:
                scheduler.sleep(1.0)
            except KeyboardInterrupt:
                end = "interrupted"

        sleeper = scheduler.Thread(target=sleep)
        sleeper.interruptible = True
        sleeper.start()
        scheduler.switch("here")
        sleeper.join()
        return end

    assert ends(story, interrupts=0.3) == {"slept", "interrupted"}


def test_an_error_of_the_story_ends_it() -> None:
    """With the last steps as a note, though other threads still wait."""

    def fail(scheduler: Scheduler) -> None:
        scheduler.Thread(target=lambda: scheduler.sleep(9.0), name="sleeper").start()
        raise ValueError("the end")

    with pytest.raises(ValueError, match="the end") as raised:
        ends(fail)
    assert "sleeper" in raised.value.__notes__[0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_a_seed_tells_the_same_story_twice(way: str) -> None:
    """Step by step."""
    for seed in range(3):
        first, second = (
            [(at, name, what) for at, name, what, _ in tell(seed, **WAYS[way]).trace]
            for _ in range(2)
        )
        assert first == second


def test_the_files_that_are_traced_are_there() -> None:
    """Their names are written by hand."""
    for name in DRIVER:
        with open(name) as file:
            assert file.read()
