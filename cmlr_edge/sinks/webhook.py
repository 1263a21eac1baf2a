"""Events as HTTP POST requests, one at a time and in order."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, parse_headers
from random import SystemRandom
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.machine.addresses import HOW_TO_WRITE_PASSWORDS, as_sent, is_host
from cmlr_edge.machine.backoff import Backoff
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.redaction import redact, redact_place
from cmlr_edge.sinks.base import Result, Takes
from cmlr_edge.sinks.room import EventQueue
from cmlr_edge.sinks.tls import reason_of, tls_context
from cmlr_edge.wording import counted

_TRY_AGAIN = {408, 425, 429}  # and 500 and above
_LONGEST_PAUSE_S = 60.0  # that a server may ask for: its clock or ours may be wrong
_random = SystemRandom().random
_log = logging.getLogger(__name__)


class _Answer(HTTPResponse):
    """Passes over answers that only say that one will come (1xx), such as early hints."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            parse_headers(self.fp)


class _NoRedirect(HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body: refuse rather than lose the event."""

    def http_error_302(self, *_: Any, **_by_name: Any) -> None:
        """Do not read where to, which may be no address at all."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Deadline:
    """Ends one request at a time when its time is over, whatever the server sends drop by drop."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._socket: socket.socket | None = None

    def __enter__(self) -> _Deadline:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._timer.cancel()
            self._socket.close()
            self._socket = None

    def set(self, timeout_s: float) -> _Deadline:
        self._at_s = time.monotonic() + timeout_s
        return self

    def connect(self, address: Any, *_: Any) -> socket.socket:
        """Make the connection of a request, as `socket.create_connection` does.

        Each address of the host has its share of the time: the first is often one of an IPv6 that leads
        nowhere.
        """
        places = socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _name, place) in enumerate(places):
            left_s = max(0.01, self._at_s - time.monotonic())
            try:  # a machine without IPv6 makes no socket for such an address
                made = socket.socket(family, kind, protocol)
                _connect(made, place, left_s / (len(places) - number))
            except OSError:
                if number == len(places) - 1:
                    raise
            else:
                made.settimeout(left_s)
                self._watch(made)
                return made
        raise OSError(f"{address[0]} has no address")

    def _watch(self, made: socket.socket) -> None:
        self._socket = watched = made.dup()  # TLS takes the first one over
        left_s = max(0.01, self._at_s - time.monotonic())
        self._timer = threading.Timer(left_s, _end, [watched])
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> bool:
        return time.monotonic() >= self._at_s

    def watched(self, kind: Callable[..., HTTPConnection], *given: Any, **named: Any) -> Any:
        connection = kind(*given, **named)
        connection.response_class = _Answer
        connection._create_connection = self.connect  # type: ignore[attr-defined]
        return connection


def _connect(made: socket.socket, place: Any, timeout_s: float) -> None:
    try:
        made.settimeout(timeout_s)
        made.connect(place)
    except OSError:
        made.close()
        raise


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return


class _Http(HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._kind: Any = partial(deadline.watched, HTTPConnection)

    def http_open(self, request: Request) -> Any:
        return self.do_open(self._kind, request)


class _Https(HTTPSHandler):
    def __init__(self, deadline: _Deadline, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._kind: Any = partial(deadline.watched, HTTPSConnection, context=context)

    def https_open(self, request: Request) -> Any:
        return self.do_open(self._kind, request)


class Webhook:
    """Posts events as JSON from a thread of its own; see `Sink`.

    A server that fails or hangs is tried again, so it may see an event twice where its answer was lost:
    the header `Idempotency-Key` is then the same. An answer 3xx or 4xx means that it will never want
    the event; that is counted in `refused`, and every request in `attempts`. Where too many events
    wait, updates are left out first and ends last.
    """

    takes: Takes = "events"
    pictures = False

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 5.0,
        max_queue: int = 1000,
        flush_s: float = 5.0,
        random: Callable[[], float] = _random,
    ) -> None:
        """Start the thread; nothing here waits.

        Args:
            url: http or https; a user and password in it are sent as basic authentication.
            tls: For https, see `tls_context`; None trusts the authorities of the system.
            timeout_s: Of one request, all of it.
            max_queue: Events that wait at most.
            flush_s: How long `close` waits for them.
            random: Uniform in [0, 1), for the delays between attempts.

        Raises:
            OutputError: The URL cannot be read.
        """
        self.name = redact_place(url)
        self._url, self._headers = _parse(url)
        self._timeout_s, self._max_queue, self._flush_s = timeout_s, max_queue, flush_s
        self._deadline = deadline = _Deadline()
        is_tls = self._url.startswith("https:")
        kind = _Https(deadline, tls or tls_context()) if is_tls else _Http(deadline)
        self._opener = build_opener(_NoRedirect, kind)
        self._backoff = Backoff(0.2, 1.5, random)
        self._queue = EventQueue(max_queue)
        self._changed = self._queue.changed
        self._at_work = self._stopped = False
        self._fails, self._log = False, Rarely()
        self._asked_s = 0.0  # the pause that the server asked for last
        self.refused = self.attempts = 0
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        """Put its events into the queue; see `Sink`."""
        if lost := self._queue.put(result.events):
            error = OutputError(f"{self.name}: {self._max_queue} events wait already")
            error.lost = lost
            raise error

    def close(self) -> None:
        """Wait for the last events and stop; see `Sink`.

        Raises:
            OutputError: Some were not delivered.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._queue and not self._at_work, self._flush_s)
            self._stopped = True
            undelivered = self._queue.close() + self._at_work + self.refused
        self._thread.join(self._timeout_s)
        self.refused = 0
        if undelivered:
            error = OutputError(f"{self.name}: {counted(undelivered, 'event')} not delivered")
            error.lost = undelivered
            raise error

    def _deliver(self) -> None:
        while (event := self._next()) is not None:
            while self._attempt(event):
                pass
            with self._changed:
                self._at_work = False
                self._changed.notify_all()

    def _next(self) -> Event | None:
        with self._changed:
            event = self._queue.take()
            self._at_work = event is not None
            return event

    def _attempt(self, event: Event) -> bool:
        """Post it once; return whether to do so again, after a pause."""
        problem, again = self._post(event)
        with self._changed:
            self.attempts += 1
            if problem and not self._fails and self._log.may_say():
                _log.warning("%s: %s", self.name, problem)
            self._fails = bool(problem)
            if again:
                pause_s = max(self._backoff.next_s(), self._asked_s)
                self._changed.wait_for(lambda: self._stopped, pause_s)
                return not self._stopped
            self._backoff.reset()
            self.refused += bool(problem)
            return False

    def _post(self, event: Event) -> tuple[str, bool]:
        """Return what went wrong, empty for nothing, and whether to try again."""
        body = json.dumps(event.to_record(), allow_nan=False).encode()
        key = {"Idempotency-Key": f"{event.id}-{event.kind}-{event.time_s:.4f}"}
        request = Request(self._url, body, self._headers | key, method="POST")
        self._asked_s = 0.0
        late = f"no answer in {self._timeout_s:g} s"
        with self._deadline.set(self._timeout_s) as deadline:
            try:
                self._opener.open(request, timeout=self._timeout_s).close()
            except HTTPError as error:
                error.close()
                again = error.code >= 500 or error.code in _TRY_AGAIN
                self._asked_s = _pause_of(error.headers)
                leads = ", which leads elsewhere: give that address" * (300 < error.code < 400)
                return f"answered {error.code}{leads}", again
            except (OSError, HTTPException, ValueError) as error:  # the last: a proxy's address
                if deadline.over():
                    return late, True
                inner = getattr(error, "reason", None)  # of an URLError
                return redact(reason_of(inner if isinstance(inner, OSError) else error)), True
            # Headers that were cut off look complete.
            return (late, True) if deadline.over() else ("", False)


def _pause_of(headers: Message[str, str]) -> float:
    """How many seconds a server wants to be left alone: a number, or a date by our clock."""
    text = headers.get("Retry-After", "").strip()
    try:
        until_s = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    pause_s = until_s if text.isdecimal() else until_s - time.time()
    return min(max(pause_s, 0.0), _LONGEST_PAUSE_S)


def _parse(url: str) -> tuple[str, dict[str, str]]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_sendable = url.isprintable() and " " not in f"{parts.hostname}{parts.path}{parts.query}"
    is_sendable &= is_host(parts.hostname or "")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_sendable:
        raise OutputError(
            f"cannot read {redact_place(url)}: expected http://host/path or https://; "
            f"{HOW_TO_WRITE_PASSWORDS}"
        )
    headers = {"Content-Type": "application/json", "User-Agent": "cmlr-edge"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    path, query = as_sent(parts.path), as_sent(parts.query)
    return urlunsplit((parts.scheme, place, path, query, "")), headers
