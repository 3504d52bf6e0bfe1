"""The straight path: what is lent and taken back outside a turn, and when it takes a turn."""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest

from connpool.conn import Reply
from connpool.core import ANY, Entry, Ticket
from connpool.core.straight import Straight
from tests.core.bench import Bench, queued
from tests.core.making import Workshop

STROKES = [Straight.borrow, Straight.put_back, Straight.hold, Straight.hand_back]

# What the interpreter does without letting anybody else run.
SILENT = (
    "LOAD_", "STORE_", "COPY", "SWAP", "POP_", "IS_OP", "UNARY_NOT", "TO_BOOL", "BINARY_", "CACHE",
    "DELETE_SUBSCR", "UNPACK_SEQUENCE", "JUMP_FORWARD", "RETURN_", "EXTENDED_ARG", "PUSH_NULL",
    "NOP", "NOT_TAKEN", "PRECALL",
)  # fmt: skip


def stroke(door: Callable[..., Any]) -> tuple[str, list[dis.Instruction]]:
    """The one line of `door` that is a stroke, and its instructions."""
    lines, first = inspect.getsourcelines(door)
    (at,) = [
        n for n, line in enumerate(lines) if line.strip().startswith("if ") and "in_turn" in line
    ]
    inside: list[dis.Instruction] = []
    current: int | None = None
    for instruction in dis.get_instructions(door):
        if instruction.positions is not None:
            current = instruction.positions.lineno
        if current == first + at:
            inside.append(instruction)
    return lines[at].split("  #")[0].strip(), inside


@pytest.mark.parametrize("door", STROKES, ids=lambda door: door.__name__)
def test_nobody_comes_in_between(door: Callable[..., Any]) -> None:
    """In a stroke nothing is called but, last, the append that gives the conn away."""
    text, instructions = stroke(door)
    assert instructions
    assert "del free[0]" in text or "free.append(entry)" in text
    calls = [i for i in instructions if not i.opname.startswith(SILENT)]
    assert all(i.opname.startswith("CALL") for i in calls), calls
    if "append" in text:
        assert len(calls) == 1
        after = instructions[instructions.index(calls[0]) + 1 :]
        assert {i.opname for i in after} <= {"POP_TOP", "LOAD_CONST", "RETURN_VALUE", "CACHE"}
    else:
        assert not calls


@pytest.mark.parametrize("door", STROKES, ids=lambda door: door.__name__)
def test_a_stroke_goes_forward_only(door: Callable[..., Any]) -> None:
    """A loop would let others in as well."""
    _, instructions = stroke(door)
    for instruction in instructions:
        if "JUMP" in instruction.opname:
            assert instruction.argval > instruction.offset


def test_a_call_there_and_back() -> None:
    """The conn that is free for longest is lent, its call counted, and it goes to the end."""
    bench = Bench()
    first, second = bench.conn(), bench.conn()
    assert bench.core.borrow("a", "m", "ann", 1.0) is first
    assert (first.in_use, first.user, first.since, first.whole) == (1, "ann", 1.0, False)
    assert bench.core.put_back(first, "m", 1.0, 3.0)
    assert (first.in_use, first.last_call) == (0, 3.0)
    assert (first.stat("m").answers, first.stat("m").mean) == (1, 2.0)
    assert bench.core.borrow("a", "m", "ann", 4.0) is second


def test_a_checkout_there_and_back() -> None:
    """As long as it lasts the conn is lent whole."""
    bench = Bench()
    conn = bench.conn()
    bench.core.leasing = True
    assert bench.core.hold("a", ANY, "ann", 1.0) is conn
    assert (conn.in_use, conn.user, conn.since, conn.whole) == (1, "ann", 1.0, True)
    assert bench.core.hand_back(conn, "ann", 2.0)
    assert (conn.in_use, conn.whole, conn.checkouts, conn.last_call) == (0, False, 1, 2.0)


def nothing(bench: Bench, conn: Entry) -> None:
    """All is as usual, but there is no such conn."""
    conn.group.listings[0].offers.clear()  # type: ignore[union-attr]


def turn(bench: Bench, conn: Entry) -> None:
    """Somebody has a turn."""
    bench.core.in_turn = True


def use(bench: Bench, conn: Entry) -> None:
    """Somebody has the conn."""
    bench.ask()


def rest(bench: Bench, conn: Entry) -> None:
    """The conn rests."""
    bench.end(bench.ask(), Reply(1, cooldown=5.0))


def trouble(bench: Bench, conn: Entry) -> None:
    """Its last call failed."""
    bench.end(bench.ask(), ValueError())


def width(bench: Bench, conn: Entry) -> None:
    """It has several places."""
    bench.update(capacity=2)


def expiry(bench: Bench, conn: Entry) -> None:
    """It has expired, and nobody has come to see it."""
    bench.update(ttl=1.0)


def test_the_first_checkout_takes_a_turn() -> None:
    """From then on somebody looks whether leases are lost."""
    bench = Bench()
    bench.conn()
    assert bench.core.hold("a", ANY, "ann", 0.0) is None
    bench.release(bench.lease())
    assert bench.core.hold("a", ANY, "ann", 0.0) is not None


@pytest.mark.parametrize("odd", [nothing, turn, use, rest, trouble, width, expiry])
def test_what_is_out_of_the_ordinary_is_not_lent(odd: Callable[[Bench, Entry], None]) -> None:
    """It takes a turn to say what is to be done, and nothing has changed."""
    bench = Bench(audited=False)
    conn = bench.conn()
    bench.core.leasing = True
    odd(bench, conn)
    before = (conn.in_use, conn.user, conn.whole, conn.listed)
    assert bench.core.borrow("a", "m", "ann", 1.0) is None
    assert bench.core.hold("a", "m", "ann", 1.0) is None
    assert (conn.in_use, conn.user, conn.whole, conn.listed) == before


def line(bench: Bench, conn: Entry) -> None:
    """Somebody waits."""
    assert queued(bench.submit(Ticket("a", "m", who="bob")))


def death(bench: Bench, conn: Entry) -> None:
    """The conn has been lost meanwhile."""
    bench.core.lost(conn, conn.lives, OSError(), bench.now)


@pytest.mark.parametrize("odd", [turn, line, death, width])
def test_what_is_out_of_the_ordinary_is_not_taken_back(odd: Callable[[Bench, Entry], None]) -> None:
    """The conn stays with its user until a turn sees to it; a call is counted all the same."""
    for whole in (False, True):
        bench = Bench(audited=False)
        conn = bench.conn()
        bench.core.leasing = True
        lend = bench.core.hold if whole else bench.core.borrow
        assert lend("a", "m", "ann", 0.0) is conn
        odd(bench, conn)
        if whole:
            assert not bench.core.hand_back(conn, "ann", 1.0)
            bench.core.in_turn = False
            bench.core.release(conn, "ann", 1.0)
            assert conn.checkouts == 1
        else:
            assert not bench.core.put_back(conn, "m", 0.0, 1.0)
            assert conn.in_use == 1
            bench.core.in_turn = False
            bench.core.returned(conn, "ann", 1.0)
        waits = odd is line
        assert conn.in_use == waits
        bench.look()


def test_what_is_over_is_not_ended_again() -> None:
    """A checkout that was taken back, and whose conn somebody else has, changes nothing."""
    bench = Bench()
    conn = bench.conn()
    lease = bench.lease(who="ann")
    bench.release(lease)
    other = bench.lease(who="bob")
    assert not bench.core.hand_back(conn, "ann", 1.0)
    assert (other.entry, conn.in_use, conn.user) == (conn, 1, "bob")


def test_no_stroke_where_the_interpreter_promises_nothing() -> None:
    """Then all takes turns."""
    bench = Bench()
    bench.conn()
    bench.core.turns_only = True
    bench.core.end_turn()
    assert bench.core.borrow("a", "m", "ann", 0.0) is None
    assert bench.ask().entry is not None


def test_no_stroke_while_a_resource_starves() -> None:
    """A conn that comes back may have to give way to another one."""
    bench = Workshop(max_size=1)
    bench.conn("b")
    ticket = bench.ask("b")
    bench.supply("a")
    waiting = bench.ask("a")
    assert queued(waiting)
    assert not bench.core.put_back(ticket.entry, "m", 0.0, 0.0)  # type: ignore[arg-type]
    bench.core.returned(ticket.entry, ticket.who, 0.0)  # type: ignore[arg-type]
    bench.look()
    assert math.isfinite(bench.core.due)


def test_whether_a_call_still_holds_its_place() -> None:
    """Asked by one that was interrupted: the conn may be back, or somebody else's."""
    bench = Bench()
    conn = bench.conn()
    assert bench.core.borrow("a", "m", "ann", 1.0) is conn
    assert conn.held_since(1.0, "ann")
    assert not conn.held_since(0.5, "ann")
    assert not conn.held_since(1.0, "bob")
    assert bench.core.put_back(conn, "m", 1.0, 2.0)
    assert not conn.held_since(1.0, "ann")
    bench.update(capacity=2)
    bench.ask(who="ann")
    assert conn.held_since(0.0, "ann")
    assert not conn.held_since(0.0, "bob")
