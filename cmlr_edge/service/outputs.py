"""The sinks of a service: one set for all sources, which a reload replaces between two frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.service.config import SinkSettings
from cmlr_edge.sinks.isolation import IsolatedEventSink, IsolatedSink
from cmlr_edge.sinks.jsonl import EventLines, JsonLines
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.webhook import Webhook

AnySink = IsolatedSink | IsolatedEventSink


def open_sinks(settings: Sequence[SinkSettings], folder: Path) -> list[AnySink]:
    """Open sinks that cannot break the run.

    Args:
        settings: From the configuration.
        folder: What relative paths start from.

    Raises:
        OutputError: One of them cannot work; none stays open.
    """
    opened: list[AnySink] = []
    try:
        opened.extend(_open_sink(item, folder) for item in settings)
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened


class Outputs:
    """Hands every frame and event to the sinks of the moment; each source takes it as its sink."""

    def __init__(self, sinks: Sequence[AnySink]) -> None:
        """Own the sinks from here on."""
        self._lock = threading.Lock()
        self._sinks = list(sinks)
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many results the sinks did not take, earlier ones included."""
        with self._lock:
            return self._lost + sum(sink.lost for sink in self._sinks)

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Hand on one result; see `Sink`."""
        with self._lock:
            for sink in self._sinks:
                if isinstance(sink, IsolatedSink):
                    sink.write(frame, prediction)

    def write_event(self, event: Event) -> None:
        """Hand on one event; see `EventSink`."""
        with self._lock:
            for sink in self._sinks:
                if isinstance(sink, IsolatedEventSink):
                    sink.write_event(event)

    def change(self, settings: Sequence[SinkSettings], folder: Path) -> None:
        """Go on with other sinks; no result is lost in between.

        Raises:
            OutputError: As for `open_sinks`; the former sinks go on then.
        """
        fresh = open_sinks(settings, folder)  # files are opened at their first line, not before
        with self._lock:
            former, self._sinks = self._sinks, fresh
            for sink in former:  # before the first line of a fresh one, for it may be the same file
                sink.close()
            self._lost += sum(sink.lost for sink in former)

    def close(self) -> None:
        """Leave the sinks open, for other sources may still write."""

    def finish(self) -> None:
        """Close the sinks."""
        with self._lock:
            for sink in self._sinks:
                sink.close()


def _open_sink(settings: SinkSettings, folder: Path) -> AnySink:
    rotate_bytes = round(settings.rotate_mb * 1e6)
    match settings.kind:
        case "jsonl":
            path = _checked(folder / settings.path)
            lines = JsonLines(path, rotate_bytes=rotate_bytes, name_source=True, keep_old=True)
            return IsolatedSink(lines, str(path))
        case "events":
            path = _checked(folder / settings.path)
            events = EventLines(path, rotate_bytes=rotate_bytes, keep_old=True)
            return IsolatedEventSink(events, str(path))
        case "mqtt":
            broker = MqttEvents(settings.url)
            return IsolatedEventSink(broker, broker.name)
        case "webhook":
            receiver = Webhook(settings.url)
            return IsolatedEventSink(receiver, receiver.name)


def _checked(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise OutputError(f"cannot write {path}: its folder must exist, and it must be a file")
    return path
