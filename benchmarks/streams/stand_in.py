"""A model of the same contract that costs almost nothing: the mean of each colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.spec import (
    INPUT_NAME,
    OUTPUT_NAME,
    BuiltFile,
    GoldenSample,
    MethodSpec,
    ModelSpec,
    ParityReport,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)

SIZE_HW = (96, 96)
_THRESHOLD = 0.1  # every label is there in every picture of test://


def write_stand_in(folder: Path) -> Path:
    """Write model and spec; return the model's path."""
    content = _build()
    means = golden_frames(7, SIZE_HW)[0].reshape(-1, 3).mean(axis=0) / 255
    spec = ModelSpec(
        name="mean colour, a stand-in",
        labels=("red", "green", "blue"),
        thresholds=(_THRESHOLD,) * 3,
        preprocess=PreprocessSpec(SIZE_HW, (0.0,) * 3, (1.0,) * 3),
        method=MethodSpec("none", "none", "prior", 0, 1, 0),
        provenance=Provenance("none", 0, 0, 0, "none"),
        threshold_fit=ThresholdFit("fixed", "none", 0, "float32", 0.0),
        files={
            "model.onnx": BuiltFile(
                sha256=sha256_of(content),
                runtime="onnx",
                precision="float32",
                parity=ParityReport(1, 0.0, 0),
                golden=GoldenSample(7, tuple(means.tolist()), 1e-3),
            )
        },
    )
    path = folder / "model.onnx"
    path.write_bytes(content)
    spec.save(folder / "model.json")
    return path


def _build() -> bytes:
    frames = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", *SIZE_HW, 3])
    scores = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "white"], [OUTPUT_NAME]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2]), "axes"),
        numpy_helper.from_array(np.array(255, np.float32), "white"),
    ]
    graph = helper.make_graph(nodes, "mean_color", [frames], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
