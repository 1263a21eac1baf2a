"""What collecting costs an output's thread: a frame that is looked at, and one that is kept."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.frame import Frame
from cmlr_edge.machine.facts import cpu_name
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.collect import Collect, CollectSettings
from cmlr_edge.why import Reasons

_LABELS, _SIZE_HW, _ROUNDS = 80, (720, 1280), 200


def run_cost() -> dict[str, Any]:
    """Time frames of 1280 x 720 with 80 labels, explained and not, in milliseconds of this process."""
    names = tuple(f"label {i}" for i in range(_LABELS))
    found: dict[str, Any] = {"machine": cpu_name(), "load": os.getloadavg()[0], "rounds": _ROUNDS}
    for way, is_explained in (("explained", True), ("not explained", False)):
        for what, share in (("looked at", 0.0), ("kept", 1.0)):
            with tempfile.TemporaryDirectory() as folder:
                settings = CollectSettings(every_s=0.0, random_share=share)
                sink = Collect(Path(folder) / "frames", names, settings)
                results = [_result(names, i, is_explained) for i in range(8)]
                times = []
                for number in range(_ROUNDS if not share else len(results)):
                    start = time.perf_counter()
                    sink.write(results[number % len(results)])
                    times.append((time.perf_counter() - start) * 1e3)
                found[f"{what}, {way}, median ms"] = float(np.median(times))
    return found


def _result(names: tuple[str, ...], seed: int, is_explained: bool) -> Result:
    """A frame of noise of which the model is sure."""
    rng = np.random.default_rng(seed)
    own = rng.choice([-6.0, 6.0], _LABELS).astype(np.float32)
    scores = (1 / (1 + np.exp(-own))).astype(np.float32)
    limits = np.full(_LABELS, 0.5, np.float32)
    why = None
    if is_explained:
        meaning = ExplanationSpec({}, (0.0,) * _LABELS, links="scores", surroundings="own")
        links = np.zeros((_LABELS, _LABELS), np.float32)
        parts = {"own_evidence": own, "links": links, "surroundings": links[0]}
        why = Reasons(names, scores, parts, meaning, limits)
    image = rng.integers(0, 255, (*_SIZE_HW, 3), np.uint8)
    frame = Frame(image, seed, None, 0.0, 0.0, "noise")
    said = Prediction(scores, (), Latency(), 0.0, why=why)
    return Result(frame, said, (), "noise", thresholds=limits, wanted=limits > 0)
