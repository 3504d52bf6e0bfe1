"""The text protocol: its wire without a socket, then TextConn and TextServer over loopback."""

from __future__ import annotations

import os
import pickle
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connpool.adapters import text
from connpool.adapters.text import TextConn
from connpool.adapters.text_server import TextServer
from connpool.adapters.text_wire import (
    Err,
    Exchange,
    Inbox,
    Malformed,
    Message,
    Ok,
    ProtocolError,
    ReplyLost,
    Request,
    encode,
    parse,
)
from connpool.conn import Conn, Reply, check_conn, describe
from connpool.errors import Busy, CallError, Closed

from . import eventually

# -- the wire

LINES = [
    (b":GET", Request("GET")),
    (b":GET:", Request("GET", "")),
    (b":INC:2", Request("INC", "2")),
    (b":SAY:a:b: c", Request("SAY", "a:b: c")),
    (b":snake_case-1:\xc3\xa9\r", Request("snake_case-1", "\xe9\r")),
    (b"ok", Ok()),
    (b"ok:", Ok("")),
    (b"ok:a:b", Ok("a:b")),
    (b"err:", Err("")),
    (b"err:no:way", Err("no:way")),
    (b"err:busy 0.5", Err("busy 0.5")),
]
GARBAGE = [
    b"",
    b":",
    b"::",
    b":two words",
    b":GET\r",
    b"GET",
    b"OK",
    b"okay",
    b"err",
    b"\xff",
    b" ok",
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_a_line_is_a_message(line: bytes, message: Message) -> None:
    """Colons after the one that begins it belong to the text."""
    assert parse(line + b"\n:NEXT") == (message, b":NEXT")


@pytest.mark.parametrize(("line", "message"), LINES)
def test_a_message_is_that_line(line: bytes, message: Request | Ok | Err) -> None:
    """encode is the other way round."""
    assert encode(message) == line + b"\n"


@pytest.mark.parametrize("line", GARBAGE)
def test_any_other_line_is_malformed(line: bytes) -> None:
    """It never raises, whatever comes in."""
    message, _ = parse(line + b"\n")
    assert isinstance(message, Malformed)


@pytest.mark.parametrize("line", [line for line, _ in LINES] + GARBAGE)
def test_a_line_without_its_newline_needs_more(line: bytes) -> None:
    """However much it looks like a message already."""
    assert parse(line) == (None, line)


def test_a_longest_line() -> None:
    """A line may have max_line bytes; one more is malformed, before its newline has come."""
    assert parse(b"ok:45678\n", max_line=8) == (Ok("45678"), b"")
    assert parse(b"ok:45678", max_line=8) == (None, b"ok:45678")
    for data in (b"ok:456789", b"ok:456789\n", b"ok:456789\nok\n"):
        assert parse(data, max_line=8) == (Malformed("a line of more than 8 bytes"), b"")


@pytest.mark.parametrize(
    ("reason", "cooldown"),
    [("busy 2", 2.0), ("busy 0.25", 0.25), ("busy", None), ("busy -1", None), ("busy 1 s", None)],
)
def test_a_reason_may_be_a_cooldown(reason: str, cooldown: float | None) -> None:
    """Only "busy" and a plain number of seconds is one."""
    assert Err(reason).cooldown == cooldown


@pytest.mark.parametrize(
    "message",
    [
        Request(""),
        Request("A:B"),
        Request("A B"),
        Request("A\n"),
        Request("A", "b\n"),
        Ok("a\nb"),
        Err("\n"),
        Ok("\udc80"),
        Ok("12345678"),
    ],
)
def test_what_cannot_be_sent(message: Request | Ok | Err) -> None:
    """Whatever parse would not read as the same message is a ValueError."""
    with pytest.raises(ValueError, match=r"expected|surrogates"):
        encode(message, max_line=10)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8)
commands = st.text("GETnx09_-", min_size=1, max_size=5)
messages = (
    st.builds(Request, commands, st.none() | texts)
    | st.builds(Ok, st.none() | texts)
    | st.builds(Err, texts)
)
streams = st.lists(messages.map(encode) | st.binary(max_size=30)).map(b"".join)


@given(messages)
def test_what_is_sent_is_what_is_read(message: Request | Ok | Err) -> None:
    """parse gives back what encode was given."""
    assert parse(encode(message)) == (message, b"")


@given(streams, st.data())
def test_packets_do_not_matter(stream: bytes, data: st.DataObject) -> None:
    """However a stream is cut up, it gives the same messages, and the same rest."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    whole, pieces = Inbox(16), Inbox(16)
    expected = whole.feed(stream)
    ends = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    assert [m for start, end in ends for m in pieces.feed(stream[start:end])] == expected
    assert pieces.rest == whole.rest


@given(streams)
def test_nothing_is_read_behind_what_is_malformed(stream: bytes) -> None:
    """There may be one Malformed, and it comes last."""
    inbox = Inbox(16)
    read = inbox.feed(stream)
    assert not any(isinstance(message, Malformed) for message in read[:-1])
    if read and isinstance(read[-1], Malformed):
        assert inbox.feed(b"ok\n") == []
        assert inbox.rest == b""


# -- one exchange


def exchanged(method: str, *packets: bytes) -> Any:
    """What a call gives for these packets."""
    exchange = Exchange(method, max_line=64)
    for packet in packets[:-1]:
        assert not exchange.feed(packet)
    assert exchange.feed(packets[-1])
    return exchange.reply()


def test_an_exchange_needs_no_socket() -> None:
    """A line to send, bytes in, a reply out."""
    assert Exchange("INC", "2").line == b":INC:2\n"
    assert exchanged("INC", b"o", b"k:", b"4\n") == "4"
    assert exchanged("SAY", b"ok\n") is None
    assert exchanged("SAY", b"ok:\n") == ""
    assert exchanged("STOP", b"ok\n") == Reply(None, closed=True)


@pytest.mark.parametrize(
    ("packet", "error", "text"),
    [
        (b"err:no\n", CallError, "no"),
        (b"err:busy 0.5\n", Busy, "busy"),
        (b"", ReplyLost, "before the reply to GET came: it may have been carried out"),
        (b"garbage\n", ProtocolError, "expected a reply to GET, got Malformed"),
        (b"garbage\nok\n", ProtocolError, "expected a reply to GET, got Malformed"),
        (b"x" * 65, ProtocolError, "more than 64 bytes"),
        (b":GET\n", ProtocolError, "expected a reply to GET, got Request"),
        (b"ok\nok\n", ProtocolError, "expected one reply to GET"),
        (b"ok\no", ProtocolError, "expected one reply to GET"),
    ],
)
def test_an_exchange_that_fails(packet: bytes, error: type[Exception], text: str) -> None:
    """Each way to fail has an error of its own; those that end the connection are OSErrors."""
    with pytest.raises(error, match=text) as caught:
        exchanged("GET", packet)
    assert isinstance(caught.value, OSError) is (error not in {CallError, Busy})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("method", "payload", "error"),
    [
        (1, None, TypeError),
        (None, None, TypeError),
        ("INC", 1, TypeError),
        ("SAY", b"x", TypeError),
        ("A:B", None, ValueError),
        ("SAY", "one\ntwo", ValueError),
        ("SAY", "x" * 99, ValueError),
    ],
)
def test_an_exchange_that_cannot_begin(method: Any, payload: Any, error: type[Exception]) -> None:
    """What cannot be sent is refused before there is anything to send."""
    with pytest.raises(error, match="expected"):
        Exchange(method, payload, max_line=64)


# -- TextConn and TextServer


def refuse(args: str) -> str:
    raise ValueError(args)


def rest(args: str) -> str:
    raise Busy(float(args))


COMMANDS: dict[str, Callable[[str], str | None]] = {
    "SAY": lambda s: s,
    "FAIL": refuse,
    "REST": rest,
}


@pytest.fixture
def server() -> Iterator[TextServer]:
    with TextServer(COMMANDS, max_line=200) as server:
        yield server


@pytest.fixture
def connect(server: TextServer) -> Iterator[Callable[..., TextConn]]:
    """Makes initialised conns, and closes them."""
    made: list[TextConn] = []

    def connect(**options: Any) -> TextConn:
        made.append(TextConn(*server.address, **{"timeout": 30, **options}))
        made[-1].init()
        return made[-1]

    yield connect
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect: Callable[..., TextConn]) -> TextConn:
    return connect()


@contextmanager
def peer(*replies: bytes | None, timeout: float = 30) -> Iterator[TextConn]:
    """A conn whose server answers each request with the next of `replies`; None: it goes away."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, sock.makefile("rb") as lines:
            for reply in replies:
                if not lines.readline() or reply is None:
                    return
                sock.sendall(reply)
            lines.read()  # until the conn is closed

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        conn = TextConn(*listener.getsockname(), timeout=timeout)
        conn.init()
        try:
            yield conn
        finally:
            conn.close()
            thread.join(30)
            assert not thread.is_alive()


HUGE = 20_000_000  # more than what the kernel takes for a server that does not read


@contextmanager
def ends(**options: Any) -> Iterator[tuple[TextConn, socket.socket]]:
    """A conn and the server's end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn = TextConn(*listener.getsockname(), timeout=30, **options)
        conn.init()
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(30)
            try:
                yield conn, sock
            finally:
                conn.close()


@contextmanager
def raw(server: TextServer) -> Iterator[Callable[[bytes], bytes]]:
    """Sends bytes, says that these were all, and reads to the end: a client without manners."""
    with socket.create_connection(server.address, timeout=30) as sock:

        def talk(data: bytes) -> bytes:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            with sock.makefile("rb") as stream:
                return stream.read()

        yield talk


def test_a_text_conn_keeps_the_contract(server: TextServer, conn: TextConn) -> None:
    """It is a Conn, and says of itself what a pool wants to know."""
    typed: Conn[str | None] = conn
    check_conn(typed, awaits=False)
    said = describe(conn, conn.methods())
    assert said.resources == (server.address,)
    assert said.methods == {"INC", "GET", "STOP", "SAY", "FAIL", "REST"}
    assert said.capacity == 1
    assert TextConn("h", 1, resource="name").resource == "name"


def test_calls_are_those_of_the_server(conn: TextConn) -> None:
    """A payload is a request's ARGS, a reply is its DATA."""
    assert conn.call("GET") == "0"
    assert conn.call("INC") == "1"
    assert conn.call("INC", "41") == "42"
    assert conn.call("INC", "-2") == "40"
    assert conn.call("SAY", "\u00e9:\u2028 ") == "\u00e9:\u2028 "


@pytest.mark.parametrize(
    ("method", "payload", "reason"),
    [
        ("LEAP", None, "unknown command LEAP"),
        ("INC", "one", "expected a whole number of at most 18 digits, got 'one'"),
        ("INC", "9" * 19, "expected a whole number of at most 18 digits"),
        ("FAIL", "no luck", "no luck"),
        ("FAIL", "", "ValueError"),
        ("FAIL", "busy 3", r"ValueError\('busy 3'\)"),
        ("REST", "nan", "Busy"),
        ("REST", "many", "could not convert"),
    ],
)
def test_an_err_fails_the_call_alone(
    conn: TextConn, method: str, payload: str, reason: str
) -> None:
    """The caller gets the server's reason, and the conn stays."""
    with pytest.raises(CallError, match=reason) as caught:
        conn.call(method, payload)
    assert not caught.value.closed
    assert conn.check()
    assert conn.call("GET") == "0"


@pytest.mark.parametrize("cooldown", [0, 0.25, 7, 1e12])
def test_a_server_may_ask_for_a_rest(conn: TextConn, cooldown: float) -> None:
    """Its Busy arrives as a Busy with the same seconds (or with 31 years), and the conn stays."""
    with pytest.raises(Busy) as caught:
        conn.call("REST", str(cooldown))
    assert caught.value.cooldown == min(cooldown, 999_999_999)
    assert conn.call("GET") == "0"


def test_what_cannot_be_sent_is_not(server: TextServer, conn: TextConn) -> None:
    """It is an error of the caller's, and the conn stays."""
    with pytest.raises(ValueError, match="without a newline"):
        conn.call("SAY", "one\n:INC")
    with pytest.raises(TypeError, match="as str, got 'INC', 1"):
        conn.call("INC", 1)
    assert conn.call("GET") == "0"
    assert server.served == {"GET": 1}


def test_stop_ends_the_conn_in_good_order(server: TextServer, conn: TextConn) -> None:
    """The reply says that the conn is closed; the server lives on."""
    assert conn.call("STOP") == Reply(None, closed=True)
    assert not conn.check()
    with pytest.raises(Closed):
        conn.call("INC")
    conn.init()
    assert conn.call("INC") == "1"
    assert server.served == {"STOP": 1, "INC": 1}


def test_a_stop_that_is_refused_ends_nothing() -> None:
    """A server that says err to STOP keeps the connection."""
    with peer(b"err:not now\n", b"ok:1\n") as conn:
        with pytest.raises(CallError, match="not now"):
            conn.call("STOP")
        assert conn.call("GET") == "1"


def test_a_refused_connection(server: TextServer) -> None:
    """init raises an OSError, and the conn stays closed."""
    server.kill()
    conn = TextConn(*server.address)
    with pytest.raises(ConnectionRefusedError):
        conn.init()
    assert not conn.check()


def test_a_connection_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may connect a socket to its own port; there is no server in that."""

    def echo(address: tuple[str, int], timeout: float | None) -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        return sock

    monkeypatch.setattr(socket, "create_connection", echo)
    conn = TextConn("127.0.0.1", 1)
    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        conn.init()
    assert not conn.check()


def test_a_call_before_init_did_not_happen() -> None:
    """A conn without a connection is closed; it can be closed again."""
    conn = TextConn("127.0.0.1", 1)
    with pytest.raises(Closed, match="nothing was sent"):
        conn.call("GET")
    assert not conn.check()
    conn.close()


def test_init_again_connects_anew(server: TextServer, conn: TextConn) -> None:
    """The connection before is closed."""
    conn.call("INC")
    conn.init()
    assert conn.call("GET") == "1"
    eventually(lambda: server.clients == 1)


def test_close_may_be_called_again(server: TextServer, conn: TextConn) -> None:
    """The server sees the connection go, and calls did not happen."""
    assert "open" in repr(conn)
    conn.close()
    conn.close()
    assert "closed" in repr(conn)
    eventually(lambda: server.clients == 0)
    with pytest.raises(Closed):
        conn.call("GET")


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"max_line": 63}, ValueError),
        ({"max_line": 1e3}, TypeError),
    ],
)
def test_a_wrong_option(option: dict[str, Any], error: type[Exception]) -> None:
    """It is named at once, with what was expected and what came."""
    with pytest.raises(error, match=rf"{next(iter(option))}: expected .* got"):
        TextConn("127.0.0.1", 1, **option)


def test_a_server_that_died_while_the_conn_was_idle(server: TextServer, conn: TextConn) -> None:
    """The call surely did not happen: Closed, not an error for the caller."""
    assert conn.check()
    server.kill()
    eventually(lambda: not conn.check())
    with pytest.raises(Closed, match="nothing was sent"):
        conn.call("INC")
    server.start()
    assert server.counter == 0
    conn.init()
    assert conn.call("INC") == "1"


def test_a_server_that_dies_with_the_request() -> None:
    """The call may have happened: the caller is told, and it is not sent again."""
    with peer(None) as conn:
        with pytest.raises(ReplyLost, match="may have been carried out"):
            conn.call("INC")
        with pytest.raises(Closed):
            conn.call("INC")


def test_a_request_that_could_not_leave_did_not_happen() -> None:
    """Without its newline it is no request, so an error in sending is a Closed."""
    with ends(max_line=HUGE) as (conn, sock), ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(conn.call, "SAY", "x" * (HUGE - 5))
        assert sock.recv(99)
        sock.close()
        with pytest.raises(Closed, match="not sent in whole"):
            call.result(30)
        assert not conn.check()


def test_a_server_that_is_killed_during_a_call() -> None:
    """The reply is lost at once, however long the command takes, and the call did happen."""
    begun, over = threading.Event(), threading.Event()

    def hang(_: str) -> None:
        begun.set()
        over.wait(30)

    with TextServer({"HANG": hang}) as slow, ThreadPoolExecutor(1) as crowd:
        conn = TextConn(*slow.address, timeout=30)
        conn.init()
        call = crowd.submit(conn.call, "HANG")
        assert begun.wait(30)
        slow.kill(wait=0)
        with pytest.raises(ReplyLost, match="may have been carried out"):
            call.result(30)
        over.set()
        eventually(lambda: slow.served == {"HANG": 1})


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"what?\n", "expected a reply to GET, got Malformed"),
        (b"x" * 70_000, "more than 65536 bytes"),
        (b"ok:1\nok:2\n", "expected one reply to GET"),
    ],
)
def test_a_server_that_talks_nonsense(reply: bytes, text: str) -> None:
    """The caller is told what came, and the conn is dead."""
    with peer(reply) as conn:
        with pytest.raises(ProtocolError, match=text):
            conn.call("GET")
        assert not conn.check()
        with pytest.raises(Closed):
            conn.call("GET")


def test_a_server_that_talks_unasked() -> None:
    """What comes between two calls belongs to neither: the conn is dead, and nothing is sent."""
    with ends() as (conn, sock):
        sock.sendall(b"ok:2\n")
        eventually(lambda: not conn.check())
        with pytest.raises(ProtocolError, match="nobody had asked for; nothing was sent"):
            conn.call("GET")
        try:
            assert sock.recv(99) == b""
        except ConnectionResetError:
            pass  # it was closed with our data unread: gone all the same


def test_a_reply_cut_short() -> None:
    """Half a reply is no reply."""
    with ends() as (conn, sock), ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(conn.call, "GET")
        assert sock.recv(99) == b":GET\n"
        sock.sendall(b"ok:1")
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ReplyLost, match="may have been carried out"):
            call.result(30)


def test_a_reply_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """TimeoutError says that the call may have happened; a late reply reaches nobody."""
    with ends() as (conn, sock):
        left = iter([30.0, 0.001])  # to send, to receive
        monkeypatch.setattr(text, "_left", lambda _: next(left))
        with pytest.raises(TimeoutError, match=r"no reply to GET within 30\.0 s, it may have been"):
            conn.call("GET")
        assert sock.recv(99) == b":GET\n"
        assert not conn.check()
        assert sock.recv(99) == b""


def test_a_request_that_takes_too_long_to_send() -> None:
    """A server that does not read is not waited for longer than the timeout."""
    with ends(max_line=HUGE) as (conn, _):
        conn.timeout = 0.02
        with pytest.raises(TimeoutError, match=r"not sent within 0\.02 s"):
            conn.call("SAY", "x" * (HUGE - 5))
        assert not conn.check()


def test_no_timeout_is_no_limit(connect: Callable[..., TextConn]) -> None:
    """With timeout=None a call takes as long as it takes."""
    assert connect(timeout=None).call("INC") == "1"


def test_a_list_of_methods_that_is_none() -> None:
    """What is no list of commands is a ProtocolError, and no DATA is an empty list."""
    with peer(b"ok\n", b"ok:GET,,INC\n") as conn:
        assert conn.methods() == []
        with pytest.raises(ProtocolError, match="expected a list of commands"):
            conn.methods()
        assert not conn.check()


def test_a_close_wakes_a_call() -> None:
    """A call in another thread does not go on waiting for its reply."""
    with ends() as (conn, sock), ThreadPoolExecutor(1) as crowd:
        call = crowd.submit(conn.call, "GET")
        assert sock.recv(99) == b":GET\n"
        conn.close()
        with pytest.raises(ReplyLost):
            call.result(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_closes_its_own_copy_only(conn: TextConn) -> None:
    """The connection of the parent lives on."""
    if not (child := os.fork()):
        conn.close()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert conn.call("INC") == "1"


def test_callers_of_one_conn_take_turns(server: TextServer, conn: TextConn) -> None:
    """Each gets its own reply."""
    with ThreadPoolExecutor(8) as crowd:
        said = [f"word {n}" for n in range(200)]
        assert list(crowd.map(lambda word: conn.call("SAY", word), said)) == said


def test_parse_is_the_conns_too() -> None:
    """A conn reads its wire format, with its own longest line."""
    conn = TextConn("127.0.0.1", 1, max_line=64)
    assert conn.parse(b"ok:1\nok") == (Ok("1"), b"ok")
    assert isinstance(conn.parse(b"x" * 65)[0], Malformed)


# -- TextServer against clients without manners


@pytest.mark.parametrize(
    ("data", "replies"),
    [
        (b":INC\n:INC:2\n:GET\n", b"ok:1\nok:3\nok:3\n"),
        (b":SAY:\n:SAY\n", b"ok:\nok:\n"),
        (b"", b""),
        (b":GET\n:STOP\n:INC\n", b"ok:0\nok\n"),
        (b":GET\n:IN", b"ok:0\nerr:malformed: a line cut short\n"),
        (b":GET\nhello\n:INC\n", b"ok:0\nerr:malformed: neither a request nor a reply: b'hello'\n"),
        (b"ok\n:INC\n", b"err:malformed: not a request: Ok(data=None)\n"),
        (b"\xff\n:INC\n", b"err:malformed: a line that is not UTF-8: b'\\xff'\n"),
        (b"x" * 201, b"err:malformed: a line of more than 200 bytes\n"),
        (b"x" * 300_000, b"err:malformed: a line of more than 200 bytes\n"),
        (b":FAIL:" + b"\xc3\xa9" * 97 + b"\n:GET\n", b"err:" + b"\xc3\xa9" * 97 + b"\nok:0\n"),
    ],
)
def test_a_client_gets_what_it_asked_for(
    server: TextServer, conn: TextConn, data: bytes, replies: bytes
) -> None:
    """Requests are answered in order until one makes no sense; nobody else is harmed."""
    with raw(server) as talk:
        assert talk(data) == replies
    before = server.counter
    assert conn.call("INC") == str(before + 1)


def test_a_client_that_sends_byte_by_byte(server: TextServer) -> None:
    """A request may come in any number of packets."""
    with socket.create_connection(server.address, timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(3):
            for byte in b":INC\n":
                sock.sendall(bytes([byte]))
            assert sock.recv(99) == f"ok:{n + 1}\n".encode()


def test_a_client_that_vanishes(server: TextServer, conn: TextConn) -> None:
    """A client that resets the connection, or never reads, harms nobody."""
    with socket.create_connection(server.address) as deaf:
        deaf.setblocking(False)
        try:
            while select.select([], [deaf], [], 0)[1]:
                deaf.send((b":SAY:" + b"x" * 100 + b"\n") * 500)
        except OSError:
            pass
        assert conn.call("INC") == "1"
    eventually(lambda: server.clients == 1)
    assert conn.call("INC") == "2"


@pytest.mark.parametrize("given", [1, b"bytes", "two\nlines", "x" * 300, "\udc80"])
def test_a_command_that_gives_what_cannot_be_sent(given: Any) -> None:
    """The client gets an err that says so, and the connection goes on."""
    with TextServer({"BAD": lambda _: given}, max_line=64) as server, raw(server) as talk:
        bad, good, *_ = talk(b":BAD\n:GET\n").split(b"\n")
        assert bad.startswith(b"err:")
        assert good == b"ok:0"
        assert server.refused == {"BAD": 1}
        assert server.served == {"GET": 1}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (ValueError("two\nlines"), b"err:two lines"),
        (Unspeakable(), b"err:Unspeakable()"),
        (ValueError("\udc80"), b"err:\\udc80"),
        (OSError(2, "gone"), b"err:[Errno 2] gone"),
        (Busy(0.5), b"err:busy 0.5"),
        (Busy(1e-9), b"err:busy 0"),
        (Busy(-1), b"err:Busy('the conn is busy')"),
    ],
)
def test_a_command_that_raises(error: Exception, reply: bytes) -> None:
    """Whatever it raises becomes one line."""

    def fail(_: str) -> str:
        raise error

    with TextServer({"FAIL": fail}) as server, raw(server) as talk:
        assert talk(b":FAIL\n:GET\n") == reply + b"\nok:0\n"


@pytest.mark.parametrize("name", ["STOP", "COMMANDS", "two words", "", "A:B", "A,B"])
def test_a_name_that_no_command_can_have(name: str) -> None:
    """It is a ValueError at once; a command that is no function is a TypeError."""
    with pytest.raises(ValueError, match="expected a name"):
        TextServer({name: str.upper})
    with pytest.raises(TypeError, match="expected a function"):
        TextServer({"NAME": "upper"})  # type: ignore[dict-item]  # that is the point


def test_a_command_may_take_the_place_of_a_servers_own() -> None:
    """INC and GET are there for demos, and no more than that."""
    with TextServer({"INC": str.upper}) as server, raw(server) as talk:
        assert talk(b":INC:a\n:COMMANDS\n") == b"ok:A\nok:INC,GET,STOP\n"


def test_many_clients_lose_no_increment(server: TextServer) -> None:
    """Each value is given out once."""

    def count(_: int) -> list[str]:
        conn = TextConn(*server.address, timeout=30)
        conn.init()
        values = [str(conn.call("INC")) for _ in range(25)]
        conn.close()
        return values

    with ThreadPoolExecutor(8) as crowd:
        values = [int(value) for listed in crowd.map(count, range(8)) for value in listed]
    assert sorted(values) == list(range(1, 201))
    assert server.served == {"INC": 200}


def test_start_after_kill_is_the_same_server(server: TextServer) -> None:
    """Same port, same counter; kill may be called again, start may not."""
    address = server.address
    with pytest.raises(RuntimeError, match="running already"):
        server.start()
    for n in range(1, 6):
        conn = TextConn(*address, timeout=30)
        conn.init()
        assert conn.call("INC") == str(n)
        server.kill()
        server.kill()
        assert "down" in repr(server)
        conn.close()
        server.start()
    assert server.address == address
    assert server.served == {"INC": 5}


def test_kill_leaves_no_thread(server: TextServer, connect: Callable[..., TextConn]) -> None:
    """Its threads have names, and they end."""
    conns = [connect() for _ in range(3)]
    for conn in conns:
        conn.call("GET")
    mine = [t for t in threading.enumerate() if t.name.endswith(f"-server-{server.address[1]}")]
    assert len(mine) == 4
    assert all(thread.daemon for thread in mine)
    server.kill()
    for thread in mine:
        thread.join(30)
    assert server.clients == 0


def test_a_command_may_kill_its_own_server() -> None:
    """The client of such a command loses its reply; the rest of its packet is not begun."""
    with TextServer({"DIE": lambda _: doomed.kill()}) as doomed, raw(doomed) as talk:
        try:
            assert talk(b":DIE\n:INC\n") == b""
        except ConnectionResetError:
            pass  # as abrupt as it may be
        eventually(lambda: doomed.served == {"DIE": 1})
        assert doomed.counter == 0


def test_kill_amid_calls_loses_and_doubles_nothing(server: TextServer) -> None:
    """The server counts what callers were given, and beyond that at most the replies lost."""
    got: list[int] = []
    lost: list[OSError] = []
    done = threading.Event()

    def work(_: int) -> None:
        conn = TextConn(*server.address, timeout=30)
        while not done.is_set():
            try:
                got.append(int(str(conn.call("INC"))))
            except Closed:
                try:
                    conn.init()
                except OSError:
                    done.wait(0.001)
            except OSError as error:
                lost.append(error)
        conn.close()

    def wait_for_more() -> None:
        enough = len(got) + 20
        eventually(lambda: len(got) > enough)

    with ThreadPoolExecutor(4) as crowd:
        working = crowd.map(work, range(4))
        try:
            for _ in range(5):
                wait_for_more()
                server.kill(wait=30)
                server.start()
        finally:
            done.set()
        assert list(working) == [None] * 4
    server.kill(wait=30)
    assert len(set(got)) == len(got)
    assert len(got) <= server.counter <= len(got) + len(lost)
    assert server.served == {"INC": server.counter}
