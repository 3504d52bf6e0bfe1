"""The demo's second scene: twenty API keys, each with a limit that nobody has told us.

Owns the service that hands out answers, the conn over one key, and what happens to the keys.
Refuses to compare the books (`demo_ledger` does) and to draw more than lines.

`KeyConn` is what a program of yours would have; so is the pool in `Keys._fill`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

from . import Busy, Closed, InitError, Pool, PoolError, Reply
from .adapters.http_pace import Pace
from .demo_ledger import Audit, Notes, audit
from .demo_screen import row, verdict

OK, UNAUTHORIZED, TOO_MANY_REQUESTS = 200, 401, 429

RESOURCE = "answers"
KEYS = 20
CALLS, PER = 10, 0.5  # what each key is allowed: so many calls in so many seconds
REVOKED = 3
CALLERS = 24
KNOCK = 0.1  # seconds between two attempts with a key that was not valid
LOOK = 0.02


class KeyConn:
    """One API key of the service; its method is ASK."""

    resource = RESOURCE

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self.key = key
        self.pace = Pace()  # learns the limit
        self._http = HTTPConnection(*address, timeout=10)

    def init(self) -> None:
        """Connect, and see whether the key is valid."""
        self.close()
        if self._get("/")[0] != OK:
            raise InitError("the key is not valid", retry_after=KNOCK)

    def methods(self) -> list[str]:
        """What there is."""
        return ["ASK"]

    def call(self, method: Any, payload: Any = None) -> Any:
        """Ask with a token, and give the answer."""
        start = self.pace.start()  # raises Busy if it is too early
        status, rest, body = self._get(f"/{payload}")
        if status == TOO_MANY_REQUESTS:  # not done: to be called again when the rest is over
            raise Busy(self.pace.refused(start, rest))
        if status == UNAUTHORIZED:  # not done, and not with this key: to be called with another one
            raise Closed("the key was revoked")
        return Reply(body, cooldown=self.pace.answered(start))

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def _get(self, path: str) -> tuple[int, float, str]:
        self._http.request("GET", path, headers={"X-Api-Key": self.key})
        response = self._http.getresponse()
        rest = float(response.headers.get("Retry-After", 0))
        return response.status, rest, response.read().decode()


class Service(ThreadingHTTPServer):
    """Answers each key so many calls in so many seconds, and 429 to those that come too early.

    A key's seconds begin with its first call after the last ones were over.
    """

    daemon_threads = False  # so that closing it waits for them

    def __init__(self, keys: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.valid = set(keys)
        self.done: list[tuple[str, str]] = []  # (token, number) of every call that was done
        self.answered: Counter[str] = Counter()  # by key
        self.refused: Counter[str] = Counter()  # by key: 429
        self.early: list[str] = []  # each time that one came back before its rest was over
        self.turned_away = 0  # 401
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # until when, and how many calls so far
        self._refused_until: dict[str, float] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.server_address[:2]
        return str(host), port

    def ask(self, key: str, token: str) -> tuple[int, float, str]:
        """What to answer: the status, the seconds to wait, the text."""
        with self._lock:
            now = time.monotonic()
            if key not in self.valid:
                self.turned_away += bool(token)
                return UNAUTHORIZED, 0.0, ""
            if not token:
                return OK, 0.0, ""
            over, used = self._windows.get(key, (0.0, 0))
            if now >= over:
                over, used = now + PER, 0
            if used >= CALLS:
                if self._refused_until.get(key) == over:
                    self.early.append(f"{key} came back {over - now:.6f} s before it may")
                self.refused[key] += 1
                self._refused_until[key] = over
                return TOO_MANY_REQUESTS, over - now, ""
            self._windows[key] = over, used + 1
            self.answered[key] += 1
            number = f"answer-{len(self.done) + 1}"
            self.done.append((token, number))
            return OK, 0.0, number


class Handler(BaseHTTPRequestHandler):
    """What is between `Service.ask` and a socket."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet
    server: Service

    def do_GET(self) -> None:
        """Answer ``GET /TOKEN``; without a token: whether the key is valid."""
        status, rest, text = self.server.ask(self.headers.get("X-Api-Key", ""), self.path[1:])
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if rest:
            self.send_header("Retry-After", f"{rest:.6f}")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class Keys:
    """One run.  `play` is all of it; `stop`, which any thread may call, ends it early."""

    def __init__(self, seconds: float, out: TextIO) -> None:
        self.seconds = seconds
        self.service = Service([f"key-{n:02}" for n in range(1, KEYS + 1)])
        address = self.service.address
        self.conns = [KeyConn(address, key) for key in sorted(self.service.valid)]
        self.notes = [Notes() for _ in range(CALLERS)]
        self._unlucky = {conn.key for conn in self.conns[:REVOKED]}
        self._out = out
        self._over = False
        self._began = self._elapsed_at_end = 0.0
        # When the limit was known, and how many calls had been answered and refused by then.
        self._settled: tuple[float, int, int] | None = None
        self._revoked_at = self._without = 0.0
        self._pool = Pool(name="keys", timeout=10)

    def play(self) -> Audit:
        """Run it all, from the service's start to the last thread's end, and show it."""
        serving = threading.Thread(target=self.service.serve_forever, args=(LOOK,), name="service")
        with contextlib.ExitStack() as ending:
            ending.callback(self.service.server_close)
            serving.start()
            ending.callback(serving.join)
            ending.callback(self.service.shutdown)
            with self._pool:
                self._fill()
                with self._load():
                    self._follow()
        found = self._audit()
        self._print(*self._table(found), *verdict(found))
        return found

    def stop(self) -> None:
        """Let every caller end the call it is in, and no more."""
        self._over = True

    # -- the pool and those who use it ---------------------------------------------------------

    def _fill(self) -> None:
        """A conn for each key, all to one resource; those whose key was revoked come back."""
        for conn in self.conns:
            self._pool.init(conn, revive=True)

    def _caller(self, number: int) -> None:
        """What each thread does: ask as fast as the pool lets it."""
        notes = self.notes[number]
        while not self._over:
            token = f"{number}-{len(notes.asked) + 1}"
            notes.asked.append(token)
            try:
                notes.answers[token] = self._pool.call(RESOURCE, "ASK", token)
            except PoolError as error:
                notes.refused[token] = str(error)
            except OSError as error:
                notes.in_flight[token] = str(error)

    @contextlib.contextmanager
    def _load(self) -> Iterator[None]:
        callers = [
            threading.Thread(target=self._caller, args=(n,), name=f"asker-{n}", daemon=True)
            for n in range(CALLERS)
        ]
        for thread in callers:
            thread.start()
        try:
            yield
        finally:
            self.stop()
            for thread in callers:
                thread.join()

    # -- what happens when ---------------------------------------------------------------------

    def _follow(self) -> None:
        """Let things happen, until the time is over."""
        self._began = time.monotonic()
        self._print("", f"{KEYS} API keys, {CALLERS} threads, one Pool", "")
        self._tell(f"each key may be used {CALLS} times in {PER} s, but nobody has told us so")
        for part, act in (
            (0.25, self._settle),
            (0.4, self._revoke),
            (0.65, self._restore),
            (0.85, self._all_back),
            (1.0, lambda: None),
        ):
            while not self._over and self._elapsed < part * self.seconds:
                time.sleep(LOOK)
            if not self._over:
                act()
        self._elapsed_at_end = self._elapsed

    def _settle(self) -> None:
        refused = self.service.refused.total()
        self._settled = self._elapsed, len(self.service.done), refused
        knowing = sum(conn.pace.interval > 0 for conn in self.conns)
        self._tell(f"{knowing} conns have learnt it, from {refused} answers of 429 in all")

    def _revoke(self) -> None:
        self._revoked_at = self._elapsed
        self.service.valid -= self._unlucky
        self._tell(f"{REVOKED} keys are revoked: 401 to whoever uses them")

    def _restore(self) -> None:
        self._without += REVOKED * (self._elapsed - self._revoked_at)
        self.service.valid |= self._unlucky
        moved = self.service.turned_away
        self._tell(f"calls that met a 401 and moved to another key: {moved}; the keys are back")

    def _all_back(self) -> None:
        back = self._pool.stats().since_start.revived
        self._tell(f"conns revived: {back}, for the pool had kept asking whether their keys are")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, text: str) -> None:
        self._print(f"{self._elapsed:5.1f} s  {text}")

    def _print(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._out, flush=True)

    # -- the end -------------------------------------------------------------------------------

    def _audit(self) -> Audit:
        found = audit(
            {"the service": self.service.done},
            self.notes,
            counted={"the service": self.service.answered.total()},
            most_in_flight=0,
        )
        found.early += self.service.early
        return found

    def _table(self, found: Audit) -> Iterator[str]:
        service, elapsed = self.service, self._elapsed_at_end
        since, answered, refused = self._settled or (elapsed, 0, service.refused.total())
        shares = [service.answered[conn.key] for conn in self.conns]
        others, unlucky = shares[REVOKED:], shares[:REVOKED]
        # What the keys that were valid allow in the time since the limit was known.
        most = (KEYS * (elapsed - since) - self._without) * CALLS / PER
        share = f"{(found.done - answered) / most:.0%} of what the keys allow" if most > 0 else ""
        yield ""
        yield f"After {elapsed:.1f} s:"
        yield ""
        yield row("calls answered", f"{found.answered:,}", share)
        yield row("by each key", f"{min(others)}-{max(others)}", "from the least used to the most")
        yield row("by each revoked one", f"{min(unlucky)}-{max(unlucky)}", "away for a time")
        yield row(f"429 in the first {since:.1f} s", refused, "each moved, or waited its rest")
        yield row("429 since", service.refused.total() - refused, "the limit is known")
        yield row("401, key revoked", service.turned_away, "each moved to another key")
