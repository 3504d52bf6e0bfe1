"""Conns that speak HTTP through httpx: one connection each, for threads, asyncio and trio.

Owns the sending, the waiting and the closing.  Refuses to know what an answer or an error means
(`http_rules`), where a request goes (`http_target`) and what comes after it (`http_errand`).

Invariant: a request is sent at most once, unless its method may be repeated and there is another
mirror to ask.  `Closed` and `Busy` say that it was surely not carried out.
"""

from __future__ import annotations

import threading
from typing import Any

import httpx

from ..conn import Reply, places
from ..errors import Closed
from .http_base import STREAMS, HttpBase, left_open, make_client
from .http_errand import Errand
from .http_pace import Limit, Pace
from .http_rules import ReplyLost, unreachable
from .http_wire import (
    Knock,
    Reached,
    Wire,
    hung_up,
    open_socket,
    readable,
    wake,
    write_in_whole,
)

__all__ = ["AsyncHttpConn", "HttpConn", "Limit", "Pace", "ReplyLost"]


class HttpConn(HttpBase):
    """A conn over an `httpx.Client` with one connection, for `Pool`; its methods are HTTP's.

    A reply is the `httpx.Response`, its body read, whatever its status; but for those statuses
    that mean "not done, come back later" (see `busy`) or "not with these credentials" (`closed`).

    A payload is a path, which is put behind the base url; or a whole URL at the same server; or a
    dict of arguments of an httpx request (url, params, json, content, headers, timeout, ...); or
    None for the base itself.  Where `url` is a function, a payload is its argument, a tuple its
    arguments, and it gives one of the above or a list of URLs.

    Parameters:
        url: the base; a list of mirrors; a function; or None, where payloads hold whole URLs.
        resource: what callers name; default: the base, without user, password.  A conn without a
            base needs one.
        methods: what it offers.
        timeout: seconds that each step of a request may take: connecting, sending, each wait for
            more of the answer; or an `httpx.Timeout`; None: no limit.
        keepalive: seconds after which an idle connection is not used again, but replaced.
        http2: speak HTTP/2 and nothing else, without TLS too.
        capacity: of HTTP/2 in tasks, see `AsyncHttpConn`; else it is 1.
        busy: the statuses that raise `Busy`, each with the seconds to rest where there is no
            ``Retry-After``; None: without that, it is a response like any other.  Default:
            ``{429: 0, 503: None}``; 0 leaves it to the pool.  ``{}``: there are none.
        closed: the statuses that raise `Closed`: with these credentials, this conn is no good.  401
            is one to think of.
        max_rest: the longest rest in seconds, whatever the server says.
        repeat: the methods that may be carried out twice: only those are tried at another mirror
            when one has answered with a status of 400 or more, or has not answered.  Where surely
            nothing was sent, any method is.
        probe: a payload; `init` then makes a GET, and fails with `InitError` if the answer is 400
            or more.  Default: `init` opens a connection to see whether that can be done.
        pace: keeps to the server's limit before it is reached; see `Pace`.
        limit: reads it from a response's headers; see `http_rules.rate_limit`.
        options: for the httpx client: headers, auth, params, cookies, verify, cert, proxy, ...
            What is in there is never shown.  Cookies that a server sets are not kept.

    One that is shared without a pool lets its users stand in line.

    >>> conn = HttpConn("https://api.example.com/v1", headers={"authorization": "Bearer s3cret"})
    >>> conn
    <HttpConn 'https://api.example.com/v1', closed>
    """

    #: A call that is interrupted leaves nothing to go on with.
    survives_cancel = False

    def _begin(self) -> None:
        self._wire: Wire | None = None
        self._lock = threading.RLock()

    def _capacity(self, capacity: int | None) -> int:
        if capacity is not None and places(capacity) != 1:
            # httpx's HTTP/2 in threads mixes up its streams: two may get the same number.
            raise ValueError(
                f"capacity: expected 1, as in threads httpx carries one request at a time over a "
                f"connection, got {capacity}"
            )
        return 1

    @property
    def _is_open(self) -> bool:
        return self._wire is not None

    def init(self) -> None:
        """Make a client, and see whether there is a server behind it.

        Raises ConnectionError or TimeoutError where no connection can be had, or what `probe` says.
        """
        self.close()
        with self._lock:
            self._wire = wire = self._new_wire()
            try:
                if self._probe is not None:
                    errand = self._trial()
                    self._run(errand)
                    self._tried(errand)
                elif self._knocks():
                    self._knock(wire)
            except BaseException:
                self.close()
                raise

    def call(self, method: Any, payload: Any = None) -> httpx.Response | Reply[httpx.Response]:
        """Make one request and wait for the whole response.

        Raises `Busy` and `Closed` where it was not carried out; `ReplyLost` or TimeoutError where
        it may have been, and `CallError` where that is so and the connection (of HTTP/2) goes on;
        ValueError and TypeError for what cannot be sent; and what else httpx has to say of a
        response that came, or of the caller's own part in it.
        """
        errand = self._errand(method, payload)
        with self._lock:
            self._run(errand)
        return errand.result()

    def methods(self) -> frozenset[Any]:
        """The verbs that it was given."""
        return self._methods

    def check(self) -> bool:
        """Whether the idle connection is as it should be, as far as this side knows.

        Sends nothing, and waits only for a call that runs in another thread.
        """
        with self._lock:
            wire = self._wire
            return wire is not None and not (hung_up if self._http2 else readable)(wire)

    def lend(self) -> httpx.Client:
        """The client, for a checkout.  Its users close or read to the end what they stream."""
        with self._lock:
            wire = self._usable()
            wire.lent = True
            client: httpx.Client = wire.client
            return client

    def reset(self) -> None:
        """Undo what a user has set on the client; `Closed` where a response is still open."""
        with self._lock:
            wire = self._usable()
            if wire.client.is_closed or left_open(wire.client):
                raise self._not_usable()
            self._tidy(wire.client)
            wire.lent = False

    def close(self) -> None:
        """Close the connection; calling it again is fine.  A call in another thread is woken."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        idle = self._lock.acquire(blocking=False)
        if wire.lent or not idle:
            # Only then: after a fork, it would end the connection of the parent too.
            wake(wire)
        if not idle:
            self._lock.acquire()
        try:
            wire.client.close()
        finally:
            self._lock.release()

    def _new_wire(self) -> Wire:
        return Wire(make_client(httpx.Client, self._settings()))

    def _usable(self) -> Wire:
        wire = self._wire
        if wire is None:
            raise self._not_open()
        if self._http2 and hung_up(wire):
            # httpx looks at an idle connection of HTTP/1.1 before it sends, but not at this one.
            wire.client.close()
            wire = self._wire = self._new_wire()
        return wire

    def _run(self, errand: Errand) -> None:
        for request in errand:
            try:
                wire = self._usable()
            except Closed:
                errand.cut_off()
                continue
            try:
                errand.answered(wire.client.request(**errand.over(wire, request, awaits=False)))
            except Exception as error:
                if not errand.failed(error):
                    raise

    def _knock(self, wire: Wire) -> None:
        """Open a connection to the first mirror that lets us, and send nothing."""
        failure: httpx.TransportError | None = None
        for base in self._target.bases:
            request = wire.client.build_request("GET", base, extensions={"trace": Knock(wire)})
            try:
                wire.client.send(request, auth=None)
            except Reached:
                return
            except httpx.TransportError as error:
                failure = error
        assert failure is not None
        raise unreachable(failure, self.resource)


class AsyncHttpConn(HttpBase):
    """The same over an `httpx.AsyncClient`, for `AsyncPool`, in asyncio and trio.

    Parameters are those of `HttpConn`, but for:

        capacity: with ``http2=True``, how many calls one connection carries at once, from 1 to 100,
            the default.  Without, it is 1.

    A call of HTTP/1.1 that is cancelled leaves the conn closed.  Of HTTP/2 it does not: the
    connection is left to the calls that are on it, and the next call opens a new one.  (httpx lets
    a connection go on after that, but it may then wait for ever: it neither tells the server to
    stop, nor takes what still comes for the cancelled call.)
    """

    def _begin(self) -> None:
        self._opened = False
        self._wire: Wire | None = None  # for the next call; None: make a new one
        self._lent: Wire | None = None
        self._wires: set[Wire] = set()  # these two, and those that are still in use

    def _capacity(self, capacity: int | None) -> int:
        most = STREAMS if self._http2 else 1
        if capacity is not None and places(capacity) > most:
            raise ValueError(
                f"capacity: expected from 1 to {most}, which is what httpx carries at once over "
                f"a connection of {'HTTP/2' if self._http2 else 'HTTP/1.1'}, got {capacity}"
            )
        return most if capacity is None else capacity

    @property
    def _is_open(self) -> bool:
        return self._opened

    @property
    def survives_cancel(self) -> bool:
        """Whether a cancelled call leaves it usable: in HTTP/2."""
        return self._http2

    async def init(self) -> None:
        """See `HttpConn.init`."""
        await self.close()
        self._opened = True
        try:
            if self._probe is not None:
                errand = self._trial()
                await self._run(errand)
                self._tried(errand)
            elif self._knocks():
                await self._knock(await self._usable())
        except BaseException:
            await self.close()
            raise

    async def call(
        self, method: Any, payload: Any = None
    ) -> httpx.Response | Reply[httpx.Response]:
        """See `HttpConn.call`."""
        errand = self._errand(method, payload)
        await self._run(errand)
        return errand.result()

    async def methods(self) -> frozenset[Any]:
        """The verbs that it was given."""
        return self._methods

    async def check(self) -> bool:
        """Whether the idle connection is as it should be, as far as this side knows.

        Sends nothing and never waits.
        """
        wire = self._wire
        if wire is None or wire.users:
            return self._opened
        return not (hung_up if self._http2 else readable)(wire)

    async def lend(self) -> httpx.AsyncClient:
        """A client, for a checkout.  Its users close or read to the end what they stream.

        Of HTTP/2 it is not that of the calls, but has a connection of its own.
        """
        wire = await self._usable()
        if self._http2:
            if self._lent is not None and hung_up(self._lent):
                await self._end(self._lent)
                self._lent = None
            wire = self._lent = self._lent or self._new_wire()
        client: httpx.AsyncClient = wire.client
        return client

    async def reset(self) -> None:
        """Undo what a user has set on the client; `Closed` where a response is still open."""
        wire = self._lent or await self._usable()
        if wire.client.is_closed or (not self._http2 and left_open(wire.client)):
            raise self._not_usable()
        self._tidy(wire.client)

    async def close(self) -> None:
        """Close the connection; calling it again is fine.  Calls in other tasks are woken."""
        self._opened, self._wire, self._lent = False, None, None
        for wire in tuple(self._wires):
            await self._end(wire)

    def _new_wire(self) -> Wire:
        client = make_client(httpx.AsyncClient, self._settings())
        wire = Wire(client, on_stream=write_in_whole if self._http2 else None)
        self._wires.add(wire)
        return wire

    async def _usable(self) -> Wire:
        """A wire for a new request; a new one where the last has been cut short or has ended."""
        wire = self._wire
        if wire is not None and self._http2 and not wire.users and hung_up(wire):
            self._wear(wire)
            await self._end(wire)
        if not self._opened:
            raise self._not_open()
        if self._wire is None or self._wire.worn:
            self._wire = self._new_wire()
        return self._wire

    def _wear(self, wire: Wire) -> None:
        wire.worn = True
        if self._wire is wire:
            self._wire = None

    async def _end(self, wire: Wire) -> None:
        self._wires.discard(wire)
        # httpx shields what it waits for in here, so that it is done in a cancelled task too.
        await wire.client.aclose()
        if open_socket(wire) is not None:  # httpcore has lost sight of it, or opened it since
            await wire.stream.aclose()

    async def _run(self, errand: Errand) -> None:
        for request in errand:
            try:
                wire = await self._usable()
            except Closed:
                errand.cut_off()
                continue
            wire.users += 1
            try:
                errand.answered(
                    await wire.client.request(**errand.over(wire, request, awaits=True))
                )
            except Exception as error:
                if not errand.failed(error):
                    raise
            except BaseException:
                self._wear(wire)
                raise
            finally:
                wire.users -= 1
                if (wire.worn or wire not in self._wires) and not wire.users:
                    await self._end(wire)

    async def _knock(self, wire: Wire) -> None:
        failure: httpx.TransportError | None = None
        for base in self._target.bases:
            trace = Knock(wire).follow
            request = wire.client.build_request("GET", base, extensions={"trace": trace})
            try:
                await wire.client.send(request, auth=None)
            except Reached:
                return
            except httpx.TransportError as error:
                failure = error
        assert failure is not None
        raise unreachable(failure, self.resource)
