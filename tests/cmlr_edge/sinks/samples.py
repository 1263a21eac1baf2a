"""A frame, a prediction and an event to write."""

from __future__ import annotations

import numpy as np

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import LabelScore, Latency, Prediction
from tests.conftest import solid


def frame(index: int, size_hw: tuple[int, int] = (48, 64)) -> Frame:
    return Frame(solid(9, 9, 9, size_hw), index, index / 10, 1.7e9, 1.5, "clip.mp4")


def prediction(*labels: str) -> Prediction:
    items = tuple(LabelScore(label, 0.75) for label in labels)
    return Prediction(np.zeros(3, np.float32), items, Latency(1.5, 2.0, 3.0, 0.25), 1.7e9)


def event(number: int, kind: str = "start") -> Event:
    return Event(
        kind, str(number), "door", "dog", 1.0, 0.5, None, 0.75, 0.75, 1.7e9  # type: ignore[arg-type]
    )  # fmt: skip
