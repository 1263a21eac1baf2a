"""One output for several sources."""

from __future__ import annotations

import threading

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.sinks import EventSink, Sink


class SharedSink:
    """Lets several threads write to one sink of frames, which stays its owner's to close."""

    def __init__(self, sink: Sink) -> None:
        """Take the sink; give this object to every source."""
        self.name = getattr(sink, "name", type(sink).__name__)
        self._sink, self._lock = sink, threading.Lock()

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Take one result when nobody else writes; see `Sink`."""
        with self._lock:
            self._sink.write(frame, prediction)

    def close(self) -> None:
        """Leave the sink open, for others may still write."""


class SharedEventSink:
    """Lets several threads write to one sink of events, which stays its owner's to close."""

    def __init__(self, sink: EventSink) -> None:
        """Take the sink; give this object to every source."""
        self.name = getattr(sink, "name", type(sink).__name__)
        self._sink, self._lock = sink, threading.Lock()

    def write_event(self, event: Event) -> None:
        """Take one event when nobody else writes; see `EventSink`."""
        with self._lock:
            self._sink.write_event(event)

    def close(self) -> None:
        """Leave the sink open, for others may still write."""
