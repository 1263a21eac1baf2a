"""Events as HTTP POST requests, one at a time and in order."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from random import SystemRandom
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.machine.backoff import Backoff
from cmlr_edge.redaction import redact
from cmlr_edge.sinks.base import Result, Takes

_TRY_AGAIN = {408, 425, 429}  # and 500 and above
_random = SystemRandom().random
_log = logging.getLogger(__name__)


class _NoRedirect(HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body: refuse rather than lose the event."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """Posts events as JSON from a thread of its own; see `Sink`.

    A server that fails or hangs is tried again, so it may see an event twice where its answer was lost:
    the header `Idempotency-Key` is then the same. An answer 3xx or 4xx means that it will never want
    the event; that is counted in `refused`, and every request in `attempts`.
    """

    takes: Takes = "events"
    pictures = False

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        max_queue: int = 1000,
        flush_s: float = 5.0,
        random: Callable[[], float] = _random,
    ) -> None:
        """Start the thread; nothing here waits.

        Args:
            url: http or https; a user and password in it are sent as basic authentication.
            timeout_s: Of one request.
            max_queue: Events that wait at most.
            flush_s: How long `close` waits for them.
            random: Uniform in [0, 1), for the delays between attempts.

        Raises:
            OutputError: The URL cannot be read.
        """
        self.name = redact(url)
        self._url, self._headers = _parse(url)
        self._timeout_s, self._max_queue, self._flush_s = timeout_s, max_queue, flush_s
        self._opener = build_opener(_NoRedirect)
        self._backoff = Backoff(0.2, 1.5, random)
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[Event] = deque()
        self._closing = self._stopped = False
        self._fails = False
        self.refused = self.attempts = 0
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        """Put its events into the queue; see `Sink`."""
        with self._changed:
            room = self._max_queue - len(self._queue)
            self._queue.extend(result.events[: max(0, room)])
            self._changed.notify_all()
        if (lost := len(result.events) - room) > 0:
            error = OutputError(f"{self.name}: {self._max_queue} events wait already")
            error.lost = lost
            raise error

    def close(self) -> None:
        """Wait for the last events and stop; see `Sink`.

        Raises:
            OutputError: Some were not delivered.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue, self._flush_s)
            self._stopped = True
            undelivered, self._queue = len(self._queue) + self.refused, deque()
            self._changed.notify_all()
        self._thread.join(self._timeout_s)
        self.refused = 0
        if undelivered:
            error = OutputError(f"{self.name}: {undelivered} events were not delivered")
            error.lost = undelivered
            raise error

    def _deliver(self) -> None:
        while (event := self._next()) is not None:
            problem, try_again = self._post(event)
            with self._changed:
                self.attempts += 1
                if problem and not self._fails:
                    _log.warning("%s: %s", self.name, problem)
                self._fails = bool(problem)
                if try_again:
                    self._changed.wait_for(lambda: self._stopped, self._backoff.next_s())
                    continue
                self._backoff.reset()
                self.refused += bool(problem)
                if self._queue:  # closing may have emptied it meanwhile
                    self._queue.popleft()
                self._changed.notify_all()

    def _next(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue[0] if self._queue else None

    def _post(self, event: Event) -> tuple[str, bool]:
        """Return what went wrong, empty for nothing, and whether to try again."""
        body = json.dumps(event.to_record(), allow_nan=False).encode()
        key = {"Idempotency-Key": f"{event.id}-{event.kind}-{event.time_s:.4f}"}
        request = Request(self._url, body, self._headers | key, method="POST")
        try:
            self._opener.open(request, timeout=self._timeout_s).close()
        except HTTPError as error:
            error.close()
            again = error.code >= 500 or error.code in _TRY_AGAIN
            return f"answered {error.code}", again
        except (OSError, HTTPException) as error:
            return redact(str(error) or type(error).__name__), True
        return "", False


def _parse(url: str) -> tuple[str, dict[str, str]]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable():
        raise OutputError(f"cannot read {redact(url)}: expected http://host/path or https://")
    headers = {"Content-Type": "application/json", "User-Agent": "cmlr-edge"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, place, parts.path, parts.query, "")), headers
