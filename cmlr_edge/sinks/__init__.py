"""Where results go: each sink is one small class with `write` or `write_event`, and `close`."""

from __future__ import annotations

from typing import Protocol

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction

__all__ = ["EventSink", "Sink"]


class Sink(Protocol):
    """Takes every frame with its prediction, in order. Creates its file at the first one."""

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Take one result.

        Raises:
            OutputError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the output. Calling it twice is harmless.

        Raises:
            OutputError: It cannot be finished.
        """
        ...


class EventSink(Protocol):
    """Takes every event, in order."""

    def write_event(self, event: Event) -> None:
        """Take one event.

        Raises:
            OutputError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the output; see `Sink`."""
        ...
