"""Why a label was said, for the messages of its visit: when it came, and at its best moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cmlr_edge.events.event import Event
from cmlr_edge.prediction import Prediction
from cmlr_edge.why import Why


class VisitReasons:
    """Follows the open visits of one source."""

    def __init__(self) -> None:
        """Start without one."""
        self._best: dict[str, Why] = {}  # of the highest score of a frame, by the event's id

    def explain(self, events: Sequence[Event], prediction: Prediction) -> list[Event]:
        """Look at a frame, and add to its events why their labels were said.

        Args:
            events: That the frame brings about.
            prediction: Of the frame; where it does not say why, what was said before counts.
        """
        if prediction.valid and (why := prediction.why) is not None:
            for visit, best in self._best.items():
                if (now := why[best.label]).score > best.score:
                    self._best[visit] = now
            started = [event for event in events if event.kind == "start"]
            self._best |= {event.id: why[event.label] for event in started}
        return [self._explained(event) for event in events]

    def _explained(self, event: Event) -> Event:
        best = self._best.pop(event.id, None) if event.kind == "end" else self._best.get(event.id)
        return event if best is None else replace(event, why=best.to_dict())
