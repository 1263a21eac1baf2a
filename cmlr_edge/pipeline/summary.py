"""What a whole run says, gathered frame by frame in bounded memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction

STAGES = ("capture", "preprocess", "inference", "postprocess")
_MAX_LATENCIES = 100_000  # of the newest frames, so that a camera can run for days


@dataclass
class LabelPresence:
    """Where one label was."""

    first: float  # seconds, or the frame's index for pictures
    last: float
    frames: int = 0
    seconds: float | None = None  # each frame counts until the next one; None for pictures
    score_sum: float = 0.0
    max_score: float = 0.0
    best_picture: str | None = None  # the file with that score; None of films and cameras


@dataclass
class RunSummary:
    """Counts, presences and latencies of a run."""

    frames: int = 0
    invalid_frames: int = 0
    repeated_frames: int = 0  # without a run of the model, for the scene had not changed
    labels: dict[str, LabelPresence] = field(default_factory=dict)
    highest: NDArray[np.float32] | None = None  # score of each of the model's labels
    latencies_ms: list[tuple[float, ...]] = field(default_factory=list)
    _started: float = field(default_factory=time.perf_counter)
    _elapsed: float = 0.0
    _previous: tuple[float, tuple[str, ...]] = (0.0, ())  # time and labels of the frame before

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Take one result."""
        self.frames += 1
        self.invalid_frames += not prediction.valid
        self.repeated_frames += prediction.repeated
        self._elapsed = time.perf_counter() - self._started
        at = float(frame.index) if frame.time_s is None else frame.time_s
        if frame.time_s is not None:
            before, labels = self._previous
            for label in labels:
                seen = self.labels[label]
                seen.seconds = (seen.seconds or 0.0) + max(0.0, at - before)
            self._previous = at, tuple(item.label for item in prediction.labels)
        for item in prediction.labels:
            first = LabelPresence(at, at, seconds=None if frame.time_s is None else 0.0)
            seen = self.labels.setdefault(item.label, first)
            seen.frames += 1
            seen.score_sum += item.score
            if frame.time_s is None and (item.score > seen.max_score or seen.frames == 1):
                seen.best_picture = frame.source
            seen.max_score = max(seen.max_score, item.score)
            seen.last = at
        if prediction.repeated:
            return
        if self.highest is None or len(self.highest) != len(prediction.scores):  # another model
            self.highest = prediction.scores
        self.highest = np.fmax(self.highest, prediction.scores)
        latency = prediction.latency_ms
        self.latencies_ms.append(tuple(getattr(latency, stage) for stage in STAGES))
        if len(self.latencies_ms) > 2 * _MAX_LATENCIES:
            del self.latencies_ms[:_MAX_LATENCIES]

    @property
    def frames_per_second(self) -> float:
        """Frames finished per second of wall time, drawing and writing included; 0 of a single one."""
        after_first = self.frames - 1  # the clock starts with it
        return after_first / self._elapsed if after_first > 0 < self._elapsed else 0.0

    def latency_percentiles(self) -> dict[str, dict[str, float]]:
        """Median and 95th percentile of every stage and of their sum, in ms."""
        if not self.latencies_ms:
            return {}
        table = np.asarray(self.latencies_ms)
        columns = dict(zip(STAGES, table.T, strict=True)) | {"total": table.sum(axis=1)}
        return {
            stage: {"p50": float(np.percentile(v, 50)), "p95": float(np.percentile(v, 95))}
            for stage, v in columns.items()
        }

    def ranked(self) -> list[tuple[str, LabelPresence]]:
        """Labels, most frequent first."""
        return sorted(self.labels.items(), key=lambda item: -item[1].frames)

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready report."""
        return {
            "frames": self.frames,
            "invalid_frames": self.invalid_frames,
            "repeated_frames": self.repeated_frames,
            "frames_per_second": self.frames_per_second,
            "labels": [
                {
                    "label": label,
                    "share": seen.frames / self.frames,
                    "mean_score": seen.score_sum / seen.frames,
                    **{k: v for k, v in asdict(seen).items() if k != "score_sum"},
                }
                for label, seen in self.ranked()
            ],
            "latency_ms": self.latency_percentiles(),
        }
