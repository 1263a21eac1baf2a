"""How each source of a run is doing."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from cmlr_edge.capture.live import SourceState, SourceStats
from cmlr_edge.stream import Result
from cmlr_edge.summary import STAGES

_RECENT = 1000  # results that percentiles look back on
_PACE_S = 10.0


@dataclass(frozen=True)
class SourceStatus:
    """Counts since the start of one source; latencies and pace of its newest results."""

    name: str
    state: SourceState
    reason: str  # why the state is not OK, for people and without passwords; empty if it is
    frames: int  # results
    repeated: int  # of them without a run of the model, for the scene had not changed
    invalid: int
    unusable: int  # frames that were no images, and gave no result
    lost: int  # results and events that its sinks did not take
    frames_per_second: float
    # By stage, "total" and "capture_to_label", each with "p50", "p95" and "p99"; empty at first.
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    capture: SourceStats | None = None  # of a live source


class Tally:
    """Counts results of one source; used under its owner's lock."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.frames = self.repeated = self.invalid = self.unusable = 0
        self._latencies_ms: deque[tuple[float, ...]] = deque(maxlen=_RECENT)
        self._times_s: deque[float] = deque(maxlen=_RECENT)

    def add(self, result: Result, arrived_s: float) -> None:
        """Count one result.

        Args:
            result: Finished just now.
            arrived_s: When its frame came, on time.monotonic().
        """
        now_s, prediction = time.monotonic(), result.prediction
        self.frames += 1
        self.repeated += prediction.repeated
        self.invalid += not prediction.valid
        self._times_s.append(now_s)
        if not prediction.repeated:
            latency = prediction.latency_ms
            stages = [getattr(latency, stage) for stage in STAGES]
            self._latencies_ms.append((*stages, latency.total, (now_s - arrived_s) * 1e3))

    def frames_per_second(self) -> float:
        """Pace of the newest results; 0 where they are too old to speak of one."""
        since_s = time.monotonic() - _PACE_S
        recent = [time_s for time_s in self._times_s if time_s >= since_s]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    def latency_percentiles(self) -> dict[str, dict[str, float]]:
        """Median, 95th and 99th percentile of every stage, in ms."""
        if not self._latencies_ms:
            return {}
        columns = np.asarray(self._latencies_ms).T
        names = (*STAGES, "total", "capture_to_label")
        return {
            name: {f"p{rank}": float(np.percentile(values, rank)) for rank in (50, 95, 99)}
            for name, values in zip(names, columns, strict=True)
        }
