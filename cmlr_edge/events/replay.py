"""Recordings replayed through the product's own tracker, many settings at a time, and held against the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.events.recordings import Recording, Visit
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.model.stability import LabelStability


@dataclass(frozen=True)
class Counts:
    """What settings did on recordings; arrays are by setting, (S,)."""

    found: NDArray[np.int_]  # visits that an event overlaps
    visits: int
    false_events: NDArray[np.int_]  # events that overlap no visit
    repeats: NDArray[np.int_]  # further events of a visit that was found already
    hours: float

    def __add__(self, other: Counts) -> Counts:
        """Join what was counted on other recordings."""
        return Counts(
            self.found + other.found,
            self.visits + other.visits,
            self.false_events + other.false_events,
            self.repeats + other.repeats,
            self.hours + other.hours,
        )

    def of(self, setting: int) -> Counts:
        """Of one setting alone."""
        one = slice(setting, setting + 1)
        return Counts(
            self.found[one], self.visits, self.false_events[one], self.repeats[one], self.hours
        )


def count_events(recording: Recording, settings: Sequence[LabelStability]) -> Counts:
    """Replay a recording; each setting stands for a label of the tracker, all with the same scores."""
    events = find_events(recording, settings)
    results = np.array([_match(found, recording.visits) for found in events], int).reshape(-1, 3)
    found, false_events, repeats = results.T
    return Counts(found, len(recording.visits), false_events, repeats, recording.hours)


def find_events(
    recording: Recording, settings: Sequence[LabelStability]
) -> list[list[tuple[float, float]]]:
    """Start and end in seconds of every event, by setting."""
    tracker = EventTracker({str(i): setting for i, setting in enumerate(settings)})
    found: list[list[tuple[float, float]]] = [[] for _ in settings]
    told = []
    for time_s, score in zip(recording.times_s.tolist(), recording.scores.tolist(), strict=True):
        scores = np.full(len(settings), score, np.float32)
        told += tracker.add(scores, time_s, valid=math.isfinite(score))
    for event in (*told, *tracker.finish()):
        if event.kind == "end" and event.end_s is not None:
            found[int(event.label)].append((event.start_s, event.end_s))
    return [sorted(events) for events in found]


def _match(events: list[tuple[float, float]], visits: tuple[Visit, ...]) -> tuple[int, int, int]:
    """Visits found, false events, and repeats."""
    seen: set[int] = set()
    false_events = repeats = 0
    for start_s, end_s in events:
        met = {
            i for i, visit in enumerate(visits) if start_s <= visit.end_s and end_s >= visit.begin_s
        }
        false_events += not met
        repeats += bool(met) and met <= seen
        seen |= met
    return len(seen), false_events, repeats
