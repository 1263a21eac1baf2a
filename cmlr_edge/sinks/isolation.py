"""Keeps a broken sink away from the stream: its failures are counted and told, and the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.sinks import EventSink, Sink

_log = logging.getLogger(__name__)


class _Guard:
    """Counts what a sink lost; one line in the log when it breaks and one when it works again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = 0
        self._lost_in_a_row = 0

    def run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (whatever it is, the other sinks go on)
            if self._lost_in_a_row == 0:
                _log.warning("%s fails, going on without it: %s", self.name, error)
            self.lost += 1
            self._lost_in_a_row += 1
            return
        if self._lost_in_a_row:
            _log.warning("%s works again; %d results lost", self.name, self._lost_in_a_row)
            self._lost_in_a_row = 0

    def close(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (likewise)
            _log.warning("%s could not be finished: %s", self.name, error)
            self.lost += 1


class IsolatedSink:
    """A sink of frames that cannot break the stream."""

    def __init__(self, sink: Sink, name: str) -> None:
        """Take a sink, and its name for the log."""
        self._sink, self._guard = sink, _Guard(name)

    @property
    def name(self) -> str:
        """For people."""
        return self._guard.name

    @property
    def lost(self) -> int:
        """How many results it did not take, and whether it could not be closed."""
        return self._guard.lost

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Take one result, or count it as lost."""
        self._guard.run(lambda: self._sink.write(frame, prediction))

    def close(self) -> None:
        """Finish the output, or count that as lost."""
        self._guard.close(self._sink.close)


class IsolatedEventSink:
    """A sink of events that cannot break the stream."""

    def __init__(self, sink: EventSink, name: str) -> None:
        """Take a sink, and its name for the log."""
        self._sink, self._guard = sink, _Guard(name)

    @property
    def name(self) -> str:
        """For people."""
        return self._guard.name

    @property
    def lost(self) -> int:
        """How many events it did not take, and whether it could not be closed."""
        return self._guard.lost

    def write_event(self, event: Event) -> None:
        """Take one event, or count it as lost."""
        self._guard.run(lambda: self._sink.write_event(event))

    def close(self) -> None:
        """Finish the output, or count that as lost."""
        self._guard.close(self._sink.close)


def isolate(sink: Sink) -> IsolatedSink:
    """Isolate a sink, unless it is already."""
    if isinstance(sink, IsolatedSink):
        return sink
    return IsolatedSink(sink, getattr(sink, "name", type(sink).__name__))


def isolate_events(sink: EventSink) -> IsolatedEventSink:
    """Isolate a sink of events, unless it is already."""
    if isinstance(sink, IsolatedEventSink):
        return sink
    return IsolatedEventSink(sink, getattr(sink, "name", type(sink).__name__))
