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

_INSIDE = 0.5  # share of an event that lies in visits, or it is false


@dataclass(frozen=True)
class Counts:
    """What S settings did on R recordings, each counted apart."""

    found_in: NDArray[np.int_]  # (R, S), visits that an event meets that is not false
    visits_in: NDArray[np.int_]  # (R,)
    false_in: NDArray[np.int_]  # (R, S), events of which less than half lies in visits
    repeats_in: NDArray[np.int_]  # (R, S), further events of a visit that was found already
    merged_in: NDArray[np.int_]  # (R, S), further visits that one event ran through
    hours_in: NDArray[np.float64]  # (R,)

    @classmethod
    def joined(cls, parts: Sequence[Counts]) -> Counts:
        """Those of several recordings."""
        return cls(*(np.concatenate([vars(part)[name] for part in parts]) for name in _FIELDS))

    def of(self, setting: int) -> Counts:
        """Of one setting alone."""
        one = slice(setting, setting + 1)
        found, false_events, repeats, merged = (
            table[:, one]
            for table in (self.found_in, self.false_in, self.repeats_in, self.merged_in)
        )
        return Counts(found, self.visits_in, false_events, repeats, merged, self.hours_in)

    @property
    def found(self) -> NDArray[np.int_]:
        """Of all recordings, by setting, (S,)."""
        return np.asarray(self.found_in.sum(axis=0))

    @property
    def false_events(self) -> NDArray[np.int_]:
        """Likewise."""
        return np.asarray(self.false_in.sum(axis=0))

    @property
    def repeats(self) -> NDArray[np.int_]:
        """Likewise."""
        return np.asarray(self.repeats_in.sum(axis=0))

    @property
    def merged(self) -> NDArray[np.int_]:
        """Likewise."""
        return np.asarray(self.merged_in.sum(axis=0))

    @property
    def visits(self) -> int:
        """Of all recordings."""
        return int(self.visits_in.sum())

    @property
    def hours(self) -> float:
        """Likewise."""
        return float(self.hours_in.sum())


_FIELDS = ("found_in", "visits_in", "false_in", "repeats_in", "merged_in", "hours_in")


def count_events(recording: Recording, settings: Sequence[LabelStability]) -> Counts:
    """Replay a recording; each setting stands for a label of the tracker, all with the same scores."""
    events = find_events(recording, settings)
    results = np.array([_match(found, recording.visits) for found in events], int).reshape(-1, 4)
    found, false_events, repeats, merged = results.T[:, None]
    visits, hours = np.array([len(recording.visits)]), np.array([recording.hours])
    return Counts(found, visits, false_events, repeats, merged, hours)


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


def _match(events: list[tuple[float, float]], visits: tuple[Visit, ...]) -> tuple[int, ...]:
    """Visits found, false events, repeats, and visits that an event ran on into."""
    seen: set[int] = set()
    false_events = repeats = merged = 0
    for start_s, end_s in events:
        shared = [
            min(end_s, visit.end_s) - max(start_s, visit.begin_s)
            if _meets(visit, start_s, end_s)
            else -1.0
            for visit in visits
        ]
        met = {i for i, seconds in enumerate(shared) if seconds >= 0}
        # Else one event without an end would find every visit.
        if not met or sum(shared[i] for i in met) < _INSIDE * (end_s - start_s):
            false_events += 1
            continue
        repeats += met <= seen
        merged += len(met) - 1
        seen |= met
    return len(seen), false_events, repeats, merged


def _meets(visit: Visit, start_s: float, end_s: float) -> bool:
    return start_s <= visit.end_s and end_s >= visit.begin_s
