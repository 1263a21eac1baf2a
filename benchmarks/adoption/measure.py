"""One foreign model, adopted, beside its own runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.adoption.small import LABELS, Case
from cmlr_edge import Recognizer
from cmlr_edge.adopting.adopt import Adoption, Wishes
from cmlr_edge.adopting.recipe import parse_recipe
from cmlr_edge.adopting.reference import activated

# Of a score. In float16 ONNX Runtime leaves out a rounding of pixels that are made inside the graph.
TOLERANCE = {"float32": 1e-4, "float16": 2e-3}


def measure(case: Case, pictures: list[Image.Image]) -> dict[str, Any]:
    """Adopt one model, and compare all scores of all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "foreign.onnx"
        case.write(source)
        own = np.concatenate([_own(case, source, picture) for picture in pictures])
        wishes = Wishes(
            recipe=parse_recipe(case.preprocess),
            labels=LABELS if case.preprocess else None,  # else those of its metadata
            activation=case.activation or None,  # type: ignore[arg-type]
        )
        adoption = Adoption(source, wishes)
        engine = adoption.finish().write(Path(folder) / "engine")
        with Recognizer.from_engine(engine, provider="cpu") as recognizer:
            alone = np.stack([recognizer(picture).scores for picture in pictures])
            together = np.stack([p.scores for p in recognizer.recognize_batch(pictures)])
            assert recognizer.spec.adopted is not None
            own = activated(own, recognizer.spec.adopted.activation)
        foreign = adoption.foreign
    gaps = [float(np.abs(found - own).max()) for found in (alone, together)]
    return {
        "model": case.name,
        "input": f"{foreign.type_name} {foreign.input_dims}".replace("None", "any"),
        "activation": adoption.activation,
        "scores_from_to": [round(float(own.min()), 4), round(float(own.max()), 4)],
        "largest_difference": float(f"{max(gaps):.2g}"),
        "allowed": TOLERANCE[foreign.type_name],
    }


def _own(case: Case, path: Path, picture: Image.Image) -> NDArray[np.float32]:
    """What the model's own runtime gives for a picture, prepared as its makers do."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run([case.output], {session.get_inputs()[0].name: case.prepare(picture)})
    found: NDArray[np.float32] = scores.astype(np.float32).reshape(1, -1)
    return found
