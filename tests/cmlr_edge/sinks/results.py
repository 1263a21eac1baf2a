"""Results for outputs, made from their parts."""

from __future__ import annotations

import numpy as np

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks import Result


def result(frame: Frame, prediction: Prediction, source: str = "") -> Result:
    """A frame without events."""
    return Result(frame, prediction, (), source)


def of_events(*events: Event) -> Result:
    """Events without a frame."""
    frame = Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0, 0.0, 0.0, "door")
    prediction = Prediction(np.zeros(3, np.float32), (), Latency(), 0.0)
    return Result(frame, prediction, events, "door", ending=True)
