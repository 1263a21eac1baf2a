"""How each source of a run is doing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from cmlr_edge.capture.connection import SourceStats
from cmlr_edge.capture.live import SourceState
from cmlr_edge.pipeline.summary import STAGES
from cmlr_edge.place.watch import PlaceStatus
from cmlr_edge.sinks.base import Result

_RECENT = 1000  # results that percentiles look back on
_PACE_S = 10.0
_TIMED = (*STAGES, "total", "capture_to_label")


@dataclass(frozen=True)
class SourceStatus:
    """Counts since the start of one source; latencies and pace of its newest results."""

    name: str  # of the source
    state: SourceState  # in one word
    reason: str  # why the state is not OK, for people and without passwords; empty if it is
    away: bool  # a live source that gives no frames now, or gave none when it was closed
    frames: int  # results
    repeated: int  # of them without a run of the model, for the scene had not changed
    invalid: int  # of which nothing can be said
    unusable: int  # frames that were no images, and gave no result
    lost: int  # results and events that its sinks did not take
    damaged: int  # packets of the source that could not be read or decoded
    frames_per_second: float  # of the newest results
    # By stage, "total" and "capture_to_label", each with "p50", "p95" and "p99"; empty at first.
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    capture: SourceStats | None = None  # of a live source
    is_cut: bool = False  # a live source that is over before the end that it announced
    runs_per_frame: int = 1  # of the model: with tiles more than one
    place: PlaceStatus | None = None  # where it is watched


class Tally:
    """Counts results of one source, in memory of a fixed size; used under its owner's lock."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.frames = self.repeated = self.invalid = self.unusable = 0
        self._latencies_ms = np.zeros((_RECENT, len(_TIMED)), np.float32)
        self._num_latencies = 0
        self._times_s = np.full(_RECENT, -np.inf)

    def add(self, result: Result, arrived_s: float) -> None:
        """Count one result.

        Args:
            result: Finished just now.
            arrived_s: When its frame came, on time.monotonic().
        """
        now_s, prediction = time.monotonic(), result.prediction
        self._times_s[self.frames % _RECENT] = now_s
        self.frames += 1
        self.repeated += prediction.repeated
        self.invalid += not prediction.valid
        if not prediction.repeated:
            latency = prediction.latency_ms
            stages = [getattr(latency, stage) for stage in STAGES]
            row = (*stages, latency.total, (now_s - arrived_s) * 1e3)
            self._latencies_ms[self._num_latencies % _RECENT] = row
            self._num_latencies += 1

    def frames_per_second(self) -> float:
        """Pace of the newest results; 0 where they are too old to speak of one."""
        recent = self._times_s[self._times_s >= time.monotonic() - _PACE_S]
        span_s = float(np.ptp(recent)) if len(recent) > 1 else 0.0
        return (len(recent) - 1) / span_s if span_s else 0.0

    def latency_percentiles(self) -> dict[str, dict[str, float]]:
        """Median, 95th and 99th percentile of every stage, in ms."""
        if not self._num_latencies:
            return {}
        columns = self._latencies_ms[: self._num_latencies].T
        return {
            name: {f"p{rank}": float(np.percentile(values, rank)) for rank in (50, 95, 99)}
            for name, values in zip(_TIMED, columns, strict=True)
        }
