"""What watching a place costs a frame: counting its surroundings, and averaging scores over them."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.frame import Frame
from cmlr_edge.machine.facts import cpu_name
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.explanation import OUTPUTS, OWN_EVIDENCE, ExplanationSpec, TrainedSurroundings
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.place.watch import PlaceWatch
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.why import Reasons

_LABELS, _CONFOUNDERS, _SURROUNDINGS = 80, 40, 64
_SIZE_HW, _FRAME_S = (720, 1280), 0.01


def run_cost(frames: int) -> dict[str, Any]:
    """Time so many frames of 1280 x 720 within a block, each way, in milliseconds of this process."""
    meaning = _meaning(np.random.default_rng(0))
    spec = replace(ModelSpec.load(spec_path(demo_engine())), explanation=meaning)
    found: dict[str, Any] = {"machine": cpu_name(), "load": os.getloadavg()[0], "frames": frames}
    found |= {"labels": _LABELS, "confounders": _CONFOUNDERS, "surroundings": _SURROUNDINGS}
    for way, average in (("counted", False), ("counted and averaged", True)):
        with tempfile.TemporaryDirectory() as folder:
            settings = PlaceSettings(block_s=600, average=average)
            watch = PlaceWatch("door", settings, Path(folder), spec, tell_why=False)
            times = [_take(watch, number, meaning) for number in range(frames)]
            found[f"{way}, median ms"] = float(np.median(times))
            watch.close()
    return found


def _take(watch: PlaceWatch, number: int, meaning: ExplanationSpec) -> float:
    rng = np.random.default_rng(number % 8)
    scores = rng.random(_LABELS).astype(np.float32)
    outputs = {OWN_EVIDENCE: rng.normal(size=_LABELS).astype(np.float32)}
    outputs["context"] = rng.dirichlet(np.ones(_CONFOUNDERS)).astype(np.float32)
    names = tuple(f"label {i}" for i in range(_LABELS))
    why = Reasons(names, scores, outputs, meaning, np.full(_LABELS, 0.5, np.float32))
    said = Prediction(scores, (), Latency(), 0.0, why=why)
    image = np.full((*_SIZE_HW, 3), number % 256, np.uint8)
    frame = Frame(image, number, number * _FRAME_S, 0.0, 0.0, "door")
    start = time.perf_counter()
    watch.take(frame, said)
    return (time.perf_counter() - start) * 1e3


def _meaning(rng: np.random.Generator) -> ExplanationSpec:
    training = TrainedSurroundings(
        contexts=_rows(rng.dirichlet(np.ones(_CONFOUNDERS), _SURROUNDINGS)),
        prior=(1 / _SURROUNDINGS,) * _SURROUNDINGS,
        spread=(0.001,) * _CONFOUNDERS,
        weight=_rows(rng.normal(size=(_CONFOUNDERS, _LABELS))),
        bias=(0.0,) * _LABELS,
    )
    bias = (0.0,) * _LABELS
    found = ExplanationSpec(
        {}, bias, surroundings="own", num_confounders=_CONFOUNDERS, training=training
    )
    return replace(found, outputs={name: OUTPUTS[name] for name in found.shapes})


def _rows(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
