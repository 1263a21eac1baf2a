"""Multi-label image recognition on edge devices: frames in, label names out.

Importing it needs NumPy alone; runtimes and OpenCV are imported when they are first used.
"""

from __future__ import annotations

import cmlr_edge.machine.safe_path  # before anything is imported by name

# isort: split
import cmlr_edge.machine.no_telemetry  # noqa: F401 (before any runtime is imported)

# isort: split
from cmlr_edge.capture import open_source
from cmlr_edge.errors import (
    CaptureError,
    CmlrError,
    DependencyError,
    EngineError,
    FrameError,
    OutputError,
    SpecError,
)
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.stability import LabelStability, StabilityChange, StabilityRules
from cmlr_edge.pipeline import IntakeSettings, SourceStatus, Streams, StreamsSettings
from cmlr_edge.prediction import LabelScore, Latency, Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import Result, Sink
from cmlr_edge.why import Explain, Why

__version__ = "0.2.0"

__all__ = [
    "CaptureError",
    "CmlrError",
    "DependencyError",
    "EngineError",
    "Event",
    "Explain",
    "Frame",
    "FrameError",
    "IntakeSettings",
    "LabelScore",
    "LabelStability",
    "Latency",
    "OutputError",
    "Prediction",
    "Recognizer",
    "Result",
    "Sink",
    "SourceStatus",
    "SpecError",
    "StabilityChange",
    "StabilityRules",
    "Streams",
    "StreamsSettings",
    "Why",
    "demo_engine",
    "open_source",
]
