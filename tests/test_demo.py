"""The demo: what it shows, how it ends, and that it would tell if a call were lost."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from connpool import Busy, demo
from connpool.__main__ import main
from connpool.demo_ledger import Audit, Notes, Station, audit
from connpool.demo_screen import Glance, Live, Plain, Row

HERE = Path(__file__).resolve().parent.parent
PYTHON = (sys.executable, "-X", "dev", "-W", "error")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A Python of its own, for which every warning is an error."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*PYTHON, *arguments], cwd=HERE, text=True, **pipes)


# -- a whole run


def test_it_runs_to_its_end_and_nothing_is_lost() -> None:
    """B is killed and comes back, every rest is kept, and both sides agree; no ANSI in a pipe."""
    process = start("-m", "connpool", "demo", "--seconds", "3", "--seed", "1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out + err
    assert "(seed 1)" in out
    order = ["B is killed", "in flight there, and told so", "B is back", "B's 3 conns are revived"]
    assert [line for line in order if line in out] == order
    assert "\n0 lost, 0 done twice, 0 answers mixed up, 0 rests cut short.\n" in out
    kept, asked = re.search(r"cooldowns respected +(\d+) of (\d+)", out).groups()  # type: ignore[union-attr]
    assert kept == asked != "0"
    assert "\x1b" not in out


def test_it_leaves_no_thread_and_no_socket() -> None:
    """When main is back, the process is as it was before."""
    check = (
        "import os, threading\n"
        "from connpool.__main__ import main\n"
        "assert main(['demo', '--seconds', '1', '--seed', '1']) == 0\n"
        "assert threading.enumerate() == [threading.main_thread()], threading.enumerate()\n"
        "fds = '/proc/self/fd/'\n"
        "for fd in os.listdir(fds) if os.path.isdir(fds) else []:\n"
        "    if os.path.lexists(fds + fd):\n"
        "        assert not os.readlink(fds + fd).startswith('socket:')\n"
    )
    process = start("-c", check)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out + err


def test_an_interrupt_ends_it_with_the_table_so_far() -> None:
    """Ctrl-C is no error: the callers end the call they are in, and the books are compared."""
    process = start("-u", "-m", "connpool", "demo", "--seconds", "60", "--seed", "1")
    assert process.stdout is not None
    while "answered" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, ""), out + err
    assert "calls answered" in out
    assert "0 lost" in out


def test_on_a_terminal_it_draws_one_picture_in_place() -> None:
    """Each picture begins where the last one began, and the table comes below."""
    pty = pytest.importorskip("pty")
    mine, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "LINES": "40", "COLUMNS": "80"}
    process = start("-m", "connpool", "demo", "--seconds", "1", stdout=theirs, env=env)
    os.close(theirs)
    drawn = bytearray()
    try:
        while data := os.read(mine, 65536):
            drawn += data
    except OSError:
        pass  # how a terminal says on Linux that nobody writes to it any more
    os.close(mine)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert drawn.count(b"\x1b[K") > drawn.count(b"A\x1b[K") > 5
    assert b"0 lost" in drawn[drawn.rindex(b"\x1b[J") :]


def test_a_server_that_does_a_call_behind_its_own_back_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where servers and callers differ the exit status is 1, and the differences are named."""
    honest = Station._next

    def forgetful(station: Station, args: str) -> str:
        number = honest(station, args)
        if args.endswith(" 3-2"):
            station.done.remove(("3-2", number))
        return number

    monkeypatch.setattr(Station, "_next", forgetful)
    assert demo.run(seconds=0.5, seed=1) == 1
    out = capsys.readouterr().out
    assert "SERVERS AND CALLERS DIFFER, 2 times" in out
    assert re.search(r"3-2: answered with [ABC]-\d+, but no server had done it", out)
    assert re.search(r"[ABC] counted \d+ calls, not \d+", out)
    assert "2 lost" in out


# -- the comparing

DONE = {"A": [("1", "A-1"), ("2", "A-2")], "B": [("3", "B-1")]}


def notes() -> Notes:
    """What the callers of DONE know; two more calls were not done."""
    return Notes(
        asked=["1", "2", "3", "4", "5"],
        answers={"1": "A-1", "2": "A-2"},
        in_flight={"3": "it died", "4": "it died"},
        refused={"5": "no conn"},
    )


def compared(done: dict[str, list[tuple[str, str]]], *sheets: Notes, most: int = 2) -> Audit:
    """The audit, where each server counts what is in its ledger."""
    counted = {name: len(ledger) for name, ledger in done.items()}
    return audit(done, sheets, counted=counted, most_in_flight=most)


def test_books_that_agree() -> None:
    """A call in flight may have been done or not; any other was done if it was answered."""
    found = compared(DONE, notes())
    assert found.differences == []
    assert (found.done, found.answered, found.refused) == (3, 2, 1)
    assert (found.in_flight, found.in_flight_done) == (2, 1)


def test_a_call_that_was_done_and_not_told() -> None:
    """It is lost, however its caller was left in the dark."""
    sheet = notes()
    del sheet.in_flight["3"]
    assert compared(DONE, sheet).lost == ["3: its caller was never told what became of it"]
    sheet.refused["3"] = "no conn"
    assert compared(DONE, sheet).lost == ["3: done, but its caller was told that it was not"]
    sheet.asked.remove("3")
    del sheet.refused["3"]
    assert compared(DONE, sheet).lost == ["3: done, but nobody asked for it"]


def test_an_answer_out_of_the_blue() -> None:
    """An answer to a call that no server had done is a difference too."""
    found = compared({"A": DONE["A"][:1], "B": DONE["B"]}, notes())
    assert found.lost == ["2: answered with A-2, but no server had done it"]


def test_a_call_that_was_done_twice() -> None:
    """It is found out, though its caller got a right answer."""
    found = compared({"A": DONE["A"], "B": [("3", "B-1"), ("1", "B-2")]}, notes())
    assert found.differences == found.twice == ["1: done 2 times, as A-1 and B-2"]


def test_an_answer_that_reached_two_callers() -> None:
    """A call is one caller's."""
    found = compared(DONE, notes(), Notes(asked=["1"], answers={"1": "A-1"}))
    assert found.twice == ["1: its caller was told more than once what became of it"]
    sheet = notes()
    sheet.in_flight["1"] = "it died"
    assert compared(DONE, sheet, most=3).twice == found.twice


def test_answers_that_were_mixed_up() -> None:
    """Two callers that got each other's answers do not make up for each other."""
    sheet = notes()
    sheet.answers = {"1": "A-2", "2": "A-1"}
    assert compared(DONE, sheet).mixed == [
        "1: answered with A-2, not A-1",
        "2: answered with A-1, not A-2",
    ]


def test_more_errors_than_one_dead_server_explains() -> None:
    """A server that is killed can take no more calls with it than it had conns."""
    found = compared(DONE, notes(), most=1)
    assert found.lost == [
        "2 calls were said to be in flight when a server died, but at most 1 can have been"
    ]


def test_a_ledger_that_the_servers_own_count_does_not_bear_out() -> None:
    """The ledger is checked against what the server counted by itself."""
    found = audit(DONE, [notes()], counted={"A": 3, "B": 1}, most_in_flight=2)
    assert found.lost == ["A counted 3 calls, not 2"]


# -- a server


def test_a_key_that_comes_back_too_early_is_caught() -> None:
    """After a burst a key is sent away, and the server itself checks that it stays away."""
    station = Station("C", ["C1", "C2"], takes=0.0, burst=2, rng=random.Random(1))
    assert [station._next("C1 a"), station._next("C1 b")] == ["C-1", "C-2"]
    with pytest.raises(Busy) as sent_away:
        station._next("C1 c")
    assert (station.rests, station.early) == (1, [])
    with pytest.raises(Busy):
        station._next("C1 c")
    assert (station.rests, len(station.early)) == (1, 1)
    assert station._next("C2 d") == "C-3"
    time.sleep(sent_away.value.cooldown)
    assert station._next("C1 c") == "C-4"
    assert len(station.early) == 1


# -- the screens


def glance(elapsed: float) -> Glance:
    """Some moment or other."""
    rows = [
        Row("A", up=True, conns=["busy", "ready"], rate=120.0, remark="as ever"),
        Row("B", up=False, conns=["reviving", "cooling"], rate=0.0, remark="killed"),
    ]
    return Glance(
        seconds=7.0,
        seed=1,
        elapsed=elapsed,
        rows=rows,
        answered=1234,
        moved=5,
        revived=6,
        in_flight=2,
        waiting=3,
        took=[0.001, 0.25],
    )


def test_plain_lines_say_each_thing_once() -> None:
    """A line for each piece of news, and one for each second that has passed."""
    out = io.StringIO()
    screen = Plain(out)
    news = [(0.0, "it begins")]
    screen.show(glance(0.1), news)
    screen.show(glance(1.02), news)
    screen.show(glance(1.1), [*news, (1.1, "B is killed")])
    assert out.getvalue().splitlines() == [
        "connpool demo: 2 servers, 4 conns, one Pool (seed 1)",
        "  0.0 s  it begins",
        "  1.0 s  A  120/s  B   down  | answered 1,234  moved 5  revived 6  waiting  3  "
        "p99 250.0 ms",
        "  1.1 s  B is killed",
    ]


@pytest.mark.parametrize(("encoding", "conns"), [("utf-8", "●○"), ("ascii", "*o")])
def test_the_picture_is_drawn_with_what_the_terminal_can_write(
    encoding: str, conns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sign that would fail, no colour where it is not wanted, no line too wide."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    raw = io.BytesIO()
    screen = Live(io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    screen.show(glance(1.0), [(0.0, "it begins")])
    lines = raw.getvalue().decode(encoding).split("\n")
    assert f"A  up    {conns} " in lines[2]
    assert "B  DOWN" in lines[3]
    assert max(len(line.removeprefix("\r").removeprefix("\x1b[K")) for line in lines) == 59


# -- the command line


def test_no_arguments_give_help_that_names_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger learns what there is to run."""
    assert main([]) == 0
    assert "python -m connpool demo" in capsys.readouterr().out


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It names both options and the exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--seconds N" in out
    assert "--seed N" in out
    assert "Exit status" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("dmeo", "invalid choice: 'dmeo'"),
        ("demo --fast", "unrecognized arguments: --fast"),
        ("demo --sec 1", "unrecognized arguments: --sec 1"),
        ("demo --seconds soon", "expected seconds, a number above 0"),
        ("demo --seconds -1", "expected seconds, a number above 0"),
        ("demo --seconds nan", "expected seconds, a number above 0"),
        ("demo --seconds 1e9", "up to 3600, got '1e9'"),
        ("demo --seed x", "invalid int value: 'x'"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, the usage and the reason on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
