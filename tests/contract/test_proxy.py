"""FaultProxy: each fault as a client and a server see it, byte by byte."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from connpool.testing import FaultProxy

PATIENCE = 30.0  # seconds; they only end a hang
MOMENT = 0.05  # seconds in which what is held back does not come


def eventually(true: Callable[[], object]) -> None:
    """Wait for what the proxy is about to make true."""
    due = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < due, "it did not come true"
        time.sleep(0.001)


def read(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or as many as come before the end."""
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def silent(sock: socket.socket) -> bool:
    """Whether nothing comes, not even the end."""
    sock.settimeout(MOMENT)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


def was_reset(sock: socket.socket) -> bool:
    """Whether the connection ends with a reset."""
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def abort(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@attrs.define
class Ends:
    """A proxy, and who sits on both of its sides."""

    proxy: FaultProxy
    listener: socket.socket
    _open: list[socket.socket] = attrs.field(factory=list)

    def knock(self) -> socket.socket:
        """A client of the proxy, of whom the server may not know yet."""
        client = socket.create_connection(self.proxy.address, PATIENCE)
        self._open.append(client)
        return client

    def answer(self) -> socket.socket:
        """The server's end of the next connection."""
        server, _ = self.listener.accept()
        server.settimeout(PATIENCE)
        self._open.append(server)
        return server

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection."""
        return self.knock(), self.answer()

    def close(self) -> None:
        for sock in self._open:
            sock.close()


def reset_at_once(ends: Ends) -> bool:
    """Whether a new connection is reset: it may be so soon that it is not even made."""
    try:
        return was_reset(ends.knock())
    except ConnectionResetError:
        return True


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    return listener


@pytest.fixture
def ends() -> Iterator[Ends]:
    with listen() as listener, FaultProxy(*listener.getsockname()) as proxy:
        ends = Ends(proxy, listener)
        yield ends
        ends.close()


def talks(client: socket.socket, server: socket.socket) -> bool:
    """Whether all is well between the two."""
    client.sendall(b"ask")
    asked = read(server, 3)
    server.sendall(b"answer")
    return (asked, read(client, 6)) == (b"ask", b"answer")


# -- without a fault -------------------------------------------------------------------------------


def test_it_passes_on_what_it_gets(ends: Ends) -> None:
    """Much data arrives whole and in order, in both directions at once."""
    client, server = ends.pair()
    data = bytes(range(256)) * 20_000
    senders = [threading.Thread(target=sock.sendall, args=(data,)) for sock in (client, server)]
    for sender in senders:
        sender.start()
    got: dict[str, bytes] = {}
    reader = threading.Thread(target=lambda: got.update(server=read(server, len(data))))
    reader.start()
    assert read(client, len(data)) == data
    for thread in (*senders, reader):
        thread.join(PATIENCE)
    assert got["server"] == data


def test_an_end_is_passed_on_in_its_own_direction(ends: Ends) -> None:
    """Who has sent all can still hear; when both have, the connection is over."""
    client, server = ends.pair()
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert read(server, 100) == b"last"
    server.sendall(b"reply")
    assert read(client, 5) == b"reply"
    assert (ends.proxy.connections, ends.proxy.half_open, ends.proxy.hung_up) == (1, 0, 1)
    server.close()
    assert client.recv(1) == b""
    eventually(lambda: ends.proxy.connections == 0)


def test_a_server_that_ends_first_leaves_the_connection_half_open(ends: Ends) -> None:
    """The client has got its FIN, and may still send until it closes."""
    client, server = ends.pair()
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    assert (ends.proxy.connections, ends.proxy.half_open, ends.proxy.hung_up) == (1, 1, 0)
    client.sendall(b"still")
    assert read(server, 5) == b"still"
    client.close()
    eventually(lambda: ends.proxy.connections == 0)


def test_a_reset_is_passed_on_as_a_reset(ends: Ends) -> None:
    """In both directions, and behind the replies that came before it."""
    client, server = ends.pair()
    server.sendall(b"last")
    assert read(client, 4) == b"last"
    abort(server)
    assert was_reset(client)
    client, server = ends.pair()
    abort(client)
    assert was_reset(server)


def test_a_server_that_is_not_there(ends: Ends) -> None:
    """The client is accepted, and reset; a new address holds for the next one."""
    gone = ends.proxy.upstream
    ends.listener.close()
    assert reset_at_once(ends)
    with listen() as other:
        ends.listener, ends.proxy.upstream = other, other.getsockname()
        assert talks(*ends.pair())
        assert ends.proxy.upstream != gone


def test_what_it_counts(ends: Ends) -> None:
    """Connections and bytes, also those of connections that are over."""
    proxy = ends.proxy
    client, server = ends.pair()
    assert talks(client, server)
    ends.pair()
    assert (proxy.accepted, proxy.connections) == (2, 2)
    client.close()
    server.close()
    eventually(lambda: proxy.connections == 1)
    assert (proxy.accepted, proxy.asked, proxy.answered, proxy.held) == (2, 3, 6, 0)


# -- the faults ------------------------------------------------------------------------------------


def test_refuse(ends: Ends) -> None:
    """New connections are refused, running ones go on; when healed, the same port is open again."""
    running, address = ends.pair(), ends.proxy.address
    ends.proxy.refuse()
    ends.proxy.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            ends.knock()
    assert talks(*running)
    ends.proxy.heal()
    assert ends.proxy.address == address
    assert talks(*ends.pair())
    assert talks(*running)
    assert ends.proxy.accepted == 2


def test_black_hole(ends: Ends) -> None:
    """Running and new connections go nowhere; those that lost something are reset when healed."""
    asks, hears, idle = ends.pair(), ends.pair(), ends.pair()
    ends.proxy.black_hole()
    fresh, asks_fresh = ends.knock(), ends.knock()
    asks[0].sendall(b"ask")
    asks_fresh.sendall(b"ask")
    hears[1].sendall(b"answer")
    eventually(lambda: (ends.proxy.asked, ends.proxy.answered) == (6, 6))
    assert all(map(silent, (asks[0], asks[1], hears[0], fresh, asks_fresh)))
    ends.proxy.heal()
    assert was_reset(asks[0])
    assert was_reset(asks[1])
    assert was_reset(hears[0])
    assert was_reset(asks_fresh)
    assert talks(*idle)
    assert talks(fresh, ends.answer())


def test_a_black_hole_swallows_the_end_of_a_connection(ends: Ends) -> None:
    """The client hears nothing of a server that goes, in whatever manner; a client may go."""
    (client, server), other = ends.pair(), ends.pair()
    ends.proxy.black_hole()
    server.close()
    abort(other[1])
    assert silent(client)
    assert silent(other[0])
    client.close()
    eventually(lambda: ends.proxy.connections == 1)
    ends.proxy.heal()
    assert was_reset(other[0])


def test_delay(ends: Ends) -> None:
    """Replies come that much later, requests do not; healed, what was late comes at once."""
    client, server = ends.pair()
    ends.proxy.delay(MOMENT)
    started = time.monotonic()
    assert talks(client, server)
    assert time.monotonic() - started >= MOMENT
    ends.proxy.delay(1e6)
    server.sendall(b"late")
    eventually(lambda: ends.proxy.held == 4)
    assert silent(client)
    ends.proxy.heal()
    server.sendall(b"r")
    assert read(client, 5) == b"later"


def test_delayed_replies_come_in_order(ends: Ends) -> None:
    """A shorter delay does not let a reply overtake another."""
    client, server = ends.pair()
    ends.proxy.delay(MOMENT)
    server.sendall(b"1")
    eventually(lambda: ends.proxy.held == 1)
    ends.proxy.delay(0)
    server.sendall(b"2")
    server.close()
    assert read(client, 3) == b"12"


def test_throttle(ends: Ends) -> None:
    """Replies trickle, byte by byte where the rate is low; requests do not."""
    client, server = ends.pair()
    ends.proxy.throttle(200)
    started = time.monotonic()
    server.sendall(b"x" * 21)
    assert read(client, 21) == b"x" * 21
    # The first piece, a twentieth of a second's worth, comes at once.
    assert time.monotonic() - started >= 11 / 200
    ends.proxy.throttle(0.001)
    server.sendall(b"slow")
    assert read(client, 1) == b"s"
    assert silent(client)
    ends.proxy.heal()
    assert read(client, 3) == b"low"


def test_cut_after(ends: Ends) -> None:
    """So many bytes of replies pass on each connection, new ones too, then both sides lose it."""
    running, exact = ends.pair(), ends.pair()
    assert talks(*running)
    ends.proxy.cut_after(3)
    fresh = ends.pair()
    for client, server in (running, fresh):
        client.sendall(b"ask")
        assert read(server, 3) == b"ask"
        server.sendall(b"an")
        server.sendall(b"swer")
        assert read(client, 100) == b"answer"[:3]
        assert read(server, 100) == b""
    exact[1].sendall(b"yes")
    assert read(exact[0], 3) == b"yes"
    assert silent(exact[0])
    ends.proxy.heal()
    assert talks(*exact)
    assert ends.proxy.connections == 1


def test_cut_after_nothing(ends: Ends) -> None:
    """The request has arrived, and the first byte of the reply is one too many."""
    client, server = ends.pair()
    ends.proxy.cut_after(0)
    client.sendall(b"ask")
    assert read(server, 3) == b"ask"
    assert silent(client)
    server.sendall(b"a")
    assert client.recv(1) == b""


def test_stall_after(ends: Ends) -> None:
    """So many bytes pass, then none and no end either; healed, the rest comes."""
    client, server = ends.pair()
    ends.proxy.stall_after(2)
    server.sendall(b"answer")
    server.close()
    assert read(client, 2) == b"an"
    assert silent(client)
    assert ends.proxy.held == 4
    ends.proxy.heal()
    assert read(client, 100) == b"swer"


def test_a_stalled_reset_comes_behind_the_replies(ends: Ends) -> None:
    """What the server sent before it broke the connection can still be read."""
    client, server = ends.pair()
    ends.proxy.stall_after(0)
    server.sendall(b"last")
    eventually(lambda: ends.proxy.held == 4)
    abort(server)
    assert silent(client)
    ends.proxy.heal()
    assert read(client, 4) == b"last"
    assert was_reset(client)


def test_half_close(ends: Ends) -> None:
    """Clients get a FIN and no reply; what they send arrives; new connections are as ever."""
    client, server = ends.pair()
    ends.proxy.half_close()
    assert client.recv(1) == b""
    client.sendall(b"ask")
    assert read(server, 3) == b"ask"
    server.sendall(b"in vain")
    assert talks(*ends.pair())
    assert ends.proxy.half_open == 1
    ends.proxy.heal()
    client.close()
    assert server.recv(1) == b""
    server.close()
    eventually(lambda: ends.proxy.connections == 1)


def test_reset(ends: Ends) -> None:
    """Running connections are reset, on both sides; new ones are as ever."""
    client, server = ends.pair()
    server.sendall(b"unread")
    eventually(lambda: ends.proxy.answered == 6)
    ends.proxy.reset()
    assert ends.proxy.connections == 0
    assert was_reset(server)
    read(client, 6)
    assert was_reset(client) or client.recv(1) == b""
    assert talks(*ends.pair())


def test_drop(ends: Ends) -> None:
    """Running connections end in good order, though requests are on their way; new ones live."""
    client, server = ends.pair()
    client.sendall(b"ask")
    ends.proxy.drop()
    assert ends.proxy.connections == 0
    assert client.recv(1) == b""
    assert read(server, 100) in (b"", b"ask")
    assert talks(*ends.pair())


def test_faults_add_up(ends: Ends) -> None:
    """A reply that is both late and cut is late, and cut."""
    client, server = ends.pair()
    ends.proxy.cut_after(3)
    ends.proxy.delay(MOMENT)
    started = time.monotonic()
    server.sendall(b"answer")
    assert read(client, 100) == b"answer"[:3]
    assert time.monotonic() - started >= MOMENT


# -- scripts ---------------------------------------------------------------------------------------


def test_script(ends: Ends) -> None:
    """The n-th connection from now on gets the n-th fault; those after the last get none."""
    running = ends.pair()
    ends.proxy.script("refuse", ("cut_after", 3), None, "black_hole", "drop", "half_close")
    assert reset_at_once(ends)
    client, server = ends.pair()
    server.sendall(b"answer")
    assert read(client, 100) == b"answer"[:3]
    assert talks(*ends.pair())
    assert silent(ends.knock())
    assert ends.knock().recv(1) == b""
    assert ends.knock().recv(1) == b""
    ends.answer()
    assert talks(*ends.pair())
    assert talks(*running)


def test_healing_ends_a_script(ends: Ends) -> None:
    """What had not happened does not, and what had is over."""
    ends.proxy.script(("stall_after", 0), "refuse", "refuse")
    client, server = ends.pair()
    server.sendall(b"held")
    assert silent(client)
    ends.proxy.heal()
    assert read(client, 4) == b"held"
    assert talks(*ends.pair())


def test_a_script_goes_with_what_holds_for_all(ends: Ends) -> None:
    """A connection has both faults, the others the common one."""
    ends.proxy.stall_after(4)
    ends.proxy.script(("cut_after", 2))
    for passes in (2, 4):
        client, server = ends.pair()
        server.sendall(b"answer")
        assert read(client, passes) == b"answer"[:passes]
    assert silent(client)


# -- wrong arguments, beginning and end ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "kind", "says"),
    [
        ("delay", (-1,), ValueError, "delay: expected seconds"),
        ("delay", ("1",), TypeError, "delay: expected seconds"),
        ("throttle", (0,), ValueError, "bytes_per_second: expected a number above 0"),
        ("throttle", (None,), TypeError, "bytes_per_second: expected a number above 0"),
        ("throttle", (float("nan"),), ValueError, "bytes_per_second: expected a number above 0"),
        ("cut_after", (-1,), ValueError, "count: expected a whole number of bytes"),
        ("stall_after", (1.5,), TypeError, "count: expected a whole number of bytes"),
        ("stall_after", (True,), TypeError, "count: expected a whole number of bytes"),
        ("script", ("rain",), ValueError, "expected one of black_hole, .*, got 'rain'"),
        ("script", (7,), TypeError, "script: expected None, a name or a tuple, got 7"),
        ("script", (("cut_after",),), TypeError, r"cut_after: expected 1 argument, got \(\)"),
        ("script", (("refuse", 1),), TypeError, r"refuse: expected no argument, got \(1,\)"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    ends: Ends, name: str, args: Any, kind: type[Exception], says: str
) -> None:
    """A wrong argument is an error in the caller, at once."""
    with pytest.raises(kind, match=says):
        getattr(ends.proxy, name)(*args)
    assert talks(*ends.pair())


def threads_of(proxy: FaultProxy) -> list[str]:
    return [thread.name for thread in threading.enumerate() if str(proxy.port) in thread.name]


def test_it_ends_with_all_that_is_its_own(ends: Ends) -> None:
    """Clients are reset, whatever was going on, and the thread is gone; it can begin again."""
    client, _ = ends.pair()
    ends.proxy.black_hole()
    lost = ends.knock()
    assert threads_of(ends.proxy) == [f"connpool-fault-proxy-{ends.proxy.port}"]
    ends.proxy.close()
    ends.proxy.close()
    assert threads_of(ends.proxy) == []
    assert was_reset(client)
    assert was_reset(lost)
    with pytest.raises(ConnectionRefusedError):
        ends.knock()
    assert (ends.proxy.connections, ends.proxy.held, ends.proxy.accepted) == (0, 0, 2)
    address = ends.proxy.address
    ends.proxy.start()
    assert ends.proxy.address == address
    assert talks(*ends.pair())


def test_it_says_what_state_it_is_in(ends: Ends) -> None:
    """A fault without a proxy that runs is an error, and so is a second start."""
    with pytest.raises(RuntimeError, match="is running already"):
        ends.proxy.start()
    assert "0 connections" in repr(ends.proxy)
    ends.proxy.close()
    for fault in (ends.proxy.refuse, ends.proxy.reset, ends.proxy.heal, ends.proxy.script):
        with pytest.raises(RuntimeError, match="closed> does not run"):
            fault()


def test_it_waits_for_no_client_that_does_not_read(ends: Ends) -> None:
    """One connection that is stuck keeps neither the others nor the end."""
    client, server = ends.pair()
    server.setblocking(False)
    sent = 0
    try:
        while True:
            sent += server.send(b"x" * 65_536)
    except BlockingIOError:
        pass
    assert talks(*ends.pair())
    client.settimeout(PATIENCE)
    assert len(read(client, sent)) == sent
