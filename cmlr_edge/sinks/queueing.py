"""Keeps an output that hangs away from the stream: a thread of its own writes from a short queue.

An output that is only slow makes its writers wait, so that nothing is lost; one that does nothing for a
while costs results instead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.sinks import EventSink, Sink

_PATIENCE_S = 1.0  # with an output that does nothing; one that is only slow makes its writers wait


class _Queue:
    """Runs actions in order, in a thread; refuses what does not fit while nothing is done."""

    def __init__(self, name: str, max_waiting: int, flush_s: float) -> None:
        self._name, self._max_waiting, self._flush_s = name, max_waiting, flush_s
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[Callable[[], None]] = deque()  # the first is being run
        self._error: Exception | None = None
        self._closing = False
        self._progress_s = 0.0  # when something was last done, or began to wait to be
        self._thread = threading.Thread(target=self._run, name=f"write {name}", daemon=True)
        self._thread.start()

    def put(self, action: Callable[[], None]) -> None:
        with self._changed:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            while len(self._waiting) >= self._max_waiting:
                left_s = self._progress_s + _PATIENCE_S - time.monotonic()
                if left_s <= 0:
                    raise OutputError(f"{self._name} hangs: {len(self._waiting)} results wait")
                self._changed.wait(left_s)
            if not self._waiting:
                self._progress_s = time.monotonic()
            self._waiting.append(action)
            self._changed.notify_all()

    def close(self, finish: Callable[[], None]) -> None:
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, self._flush_s)
            unwritten = len(self._waiting)
            for _ in range(unwritten - 1):
                self._waiting.pop()
        if unwritten:
            raise OutputError(f"{self._name} hangs: {unwritten} results were not written")
        finish()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 (told to whoever comes next)
                self._error = error
            with self._changed:
                self._waiting.popleft()
                self._progress_s = time.monotonic()
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting[0] if self._waiting else None


class QueuedSink:
    """Writes frames from a thread of its own, for several sources; see `Sink`.

    A failure is raised to the next writer: put the sink itself into an `IsolatedSink` to count each.
    """

    def __init__(
        self, sink: Sink, name: str, *, max_waiting: int = 16, flush_s: float = 5.0
    ) -> None:
        """Take a sink.

        Args:
            sink: Used by the thread alone from here on.
            name: For people.
            max_waiting: Frames that wait at most; each holds its picture.
            flush_s: How long `close` waits for them.
        """
        self._sink, self._queue = sink, _Queue(name, max_waiting, flush_s)

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Put one result into the queue; see `Sink`."""
        self._queue.put(lambda: self._sink.write(frame, prediction))

    def close(self) -> None:
        """Wait for the last results and finish the output; see `Sink`."""
        self._queue.close(self._sink.close)


class QueuedEventSink:
    """Writes events from a thread of its own, for several sources; see `QueuedSink`."""

    def __init__(
        self, sink: EventSink, name: str, *, max_waiting: int = 1000, flush_s: float = 5.0
    ) -> None:
        """Take a sink; see `QueuedSink`."""
        self._sink, self._queue = sink, _Queue(name, max_waiting, flush_s)

    def write_event(self, event: Event) -> None:
        """Put one event into the queue; see `EventSink`."""
        self._queue.put(lambda: self._sink.write_event(event))

    def close(self) -> None:
        """Wait for the last events and finish the output; see `EventSink`."""
        self._queue.close(self._sink.close)
