"""From scores that flicker to events that last: hysteresis and durations, all in seconds.

Every frame speaks for the time since the frame before it, up to `max_step_s`; an invalid frame speaks
for nothing. Durations add up that observed time, so they mean the same at any frame rate, and an outage
of the source neither starts nor ends an event.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.events.event import Event, EventKind
from cmlr_edge.model.stability import LabelStability

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING_S = 1e-9  # sums of frame times miss the exact value by less than this


@dataclass
class _Visit:
    """A label that is there, may be coming, or may be going."""

    present: bool
    changed_clock_s: float  # observed time when `present` last changed
    changed_s: float  # time of the frame that changed it
    max_score: float
    id: str = ""  # empty until the visit has lasted long enough to be an event
    start_s: float = 0.0
    told_clock_s: float = 0.0  # observed time of the last message


class EventTracker:
    """Turns the scores of one source's frames, in order, into events."""

    def __init__(
        self,
        settings: Mapping[str, LabelStability],
        *,
        source: str = "",
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Start with no label present.

        Args:
            settings: For every label, in the order of the scores.
            source: Written into every event.
            new_id: Gives each event its id.
        """
        self._labels = tuple(settings)
        self.change_settings(settings)
        self._source = source
        self._new_id = new_id
        self._smoothed: NDArray[np.float64] | None = None
        self._clock_s = np.zeros(len(self._labels))  # observed time, per label
        self._last_s: float | None = None
        self._captured_at = 0.0
        self._visits: dict[int, _Visit] = {}

    def change_settings(self, settings: Mapping[str, LabelStability]) -> None:
        """Judge the next frames by other settings of the same labels; open events go on."""
        assert tuple(settings) == self._labels
        self._settings = tuple(settings.values())
        self._enter = np.array(
            [item.enter if item.enter < 1 else np.inf for item in self._settings]  # 1: switched off
        )
        self._smoothing_s = np.array([item.smoothing_s for item in self._settings])
        self._max_step_s = np.array([item.max_step_s for item in self._settings])

    def add(
        self,
        scores: NDArray[np.float32],
        time_s: float,
        *,
        valid: bool = True,
        captured_at: float = 0.0,
    ) -> list[Event]:
        """Take the scores of one frame; return what they bring about.

        Args:
            scores: (L,), in [0, 1]; not looked at if the frame is invalid.
            time_s: The frame's time. A step back counts as no time.
            valid: False for frames that say nothing: stale, frozen, or without finite scores.
            captured_at: Seconds since the epoch.
        """
        step_s = 0.0 if self._last_s is None else max(0.0, time_s - self._last_s)
        self._last_s = time_s
        self._captured_at = captured_at
        if not valid:
            return []
        self._observe(np.asarray(scores, np.float64), np.minimum(step_s, self._max_step_s))
        assert self._smoothed is not None
        reached = np.flatnonzero(self._smoothed >= self._enter).tolist()
        concerned = sorted(self._visits.keys() | set(reached))
        events = (self._advance(index, time_s) for index in concerned)
        return [event for event in events if event is not None]

    def finish(self) -> list[Event]:
        """End the open events, because the source ends; the tracker is then as new."""
        events = []
        for index, visit in sorted(self._visits.items()):
            if visit.id:
                end_s = self._last_s if visit.present else visit.changed_s
                events.append(self._event("end", index, visit, self._last_s or 0.0, end_s))
        self._visits.clear()
        self._smoothed, self._last_s = None, None
        return events

    def _observe(self, scores: NDArray[np.float64], steps_s: NDArray[np.float64]) -> None:
        self._clock_s = self._clock_s + steps_s
        if self._smoothed is None:
            self._smoothed = scores.copy()
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.where(self._smoothing_s > 0, np.exp(-steps_s / self._smoothing_s), 0.0)
        self._smoothed = scores + kept * (self._smoothed - scores)

    def _advance(self, index: int, time_s: float) -> Event | None:
        """Bring one label up to date with its smoothed score."""
        settings, clock_s = self._settings[index], float(self._clock_s[index])
        assert self._smoothed is not None
        score = float(self._smoothed[index])
        visit = self._visits.get(index)
        if visit is None:
            visit = self._visits[index] = _Visit(True, clock_s, time_s, score)
        elif visit.present != (score >= (settings.leave if visit.present else self._enter[index])):
            visit.present = not visit.present
            visit.changed_clock_s, visit.changed_s = clock_s, time_s
        visit.max_score = max(visit.max_score, score)
        lasted_s = clock_s - visit.changed_clock_s + _ROUNDING_S
        if not visit.id:
            return self._maybe_start(index, visit, lasted_s, time_s)
        if not visit.present and lasted_s >= settings.min_gap_s:
            del self._visits[index]
            return self._event("end", index, visit, time_s, visit.changed_s)
        if clock_s - visit.told_clock_s + _ROUNDING_S >= settings.update_every_s:
            return self._event("update", index, visit, time_s, None)
        return None

    def _maybe_start(
        self, index: int, visit: _Visit, lasted_s: float, time_s: float
    ) -> Event | None:
        if not visit.present:
            del self._visits[index]
            return None
        if lasted_s < self._settings[index].min_duration_s:
            return None
        visit.id, visit.start_s = self._new_id(), visit.changed_s
        return self._event("start", index, visit, time_s, None)

    def _event(
        self, kind: EventKind, index: int, visit: _Visit, time_s: float, end_s: float | None
    ) -> Event:
        assert self._smoothed is not None
        visit.told_clock_s = float(self._clock_s[index])
        return Event(
            kind=kind,
            id=visit.id,
            source=self._source,
            label=self._labels[index],
            time_s=time_s,
            start_s=visit.start_s,
            end_s=end_s,
            score=float(self._smoothed[index]),
            max_score=visit.max_score,
            captured_at=self._captured_at,
        )
