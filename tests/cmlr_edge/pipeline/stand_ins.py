"""A runtime and a sink that note what they were given."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmlr_edge import Recognizer
from cmlr_edge.events.event import Event
from cmlr_edge.sinks import Result
from tests.conftest import make_spec, mean_color_model


class SlowBackend:
    """Scores as the mean colour does, slowly, noting the batches; may wait or fail on demand."""

    description = "slow"
    provider = "cpu"
    num_labels = 3

    def __init__(self, wait: Callable[[int], object] = lambda _: None, offset: float = 0.0) -> None:
        self.wait, self.offset = wait, offset
        self.batches: list[int] = []
        self.running = self.closed = False

    def infer(self, frames: np.ndarray) -> np.ndarray:
        assert not self.closed
        self.running = True
        self.batches.append(len(frames))
        self.wait(len(frames))
        scores: np.ndarray = frames.mean(axis=(1, 2), dtype=np.float32) / 255 + self.offset
        self.running = False
        return scores

    def close(self) -> None:
        assert not self.running
        self.closed = True


def recognizer_of(backend: SlowBackend, threshold: float = 0.5) -> Recognizer:
    return Recognizer(backend, make_spec(mean_color_model()), thresholds=threshold)


class Noted:
    """A sink of frames and events that keeps what comes, and may do something first."""

    takes = "both"

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.frames: list[int] = []
        self.times_s: list[float] = []
        self.events: list[Event] = []
        self.times_closed = 0
        self._before = before

    def write(self, result: Result) -> None:
        self.events += result.events
        if not result.ending:
            self._before()
            self.frames.append(result.frame.index)
            self.times_s.append(time.monotonic())

    def close(self) -> None:
        self.times_closed += 1


class NanBackend:
    """A runtime gone wrong."""

    description = "NaN"
    provider = "cpu"
    num_labels = 3

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        return np.full((len(frames), 3), np.nan, np.float32)

    def close(self) -> None:
        """Hold nothing."""
