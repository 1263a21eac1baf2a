"""A model of the same contract that costs almost nothing: the mean of each colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.engine_files import write_engine
from cmlr_edge.model.spec import (
    INPUT_NAME,
    OUTPUT_NAME,
    MethodSpec,
    ModelSpec,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)

SIZE_HW = (96, 96)
_THRESHOLD = 0.1  # every label is there in every picture of test://


def write_stand_in(folder: Path) -> Path:
    """Write model and spec; return the model's path."""
    spec = ModelSpec(
        name="mean colour, a stand-in",
        labels=("red", "green", "blue"),
        thresholds=(_THRESHOLD,) * 3,
        preprocess=PreprocessSpec(SIZE_HW, (0.0,) * 3, (1.0,) * 3),
        method=MethodSpec("none", "none", "prior", 0, 1, 0),
        provenance=Provenance("none", 0, 0, 0, "none"),
        threshold_fit=ThresholdFit("fixed", "none", 0, "float32", 0.0),
    )
    return write_engine(folder, mean_color_model(SIZE_HW), spec)


def mean_color_model(size_hw: tuple[int, int], num_labels: int = 3) -> onnx.ModelProto:
    """Score of label i: the mean of channel i, scaled to [0, 1]; 0 of labels after the third."""
    frames = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", *size_hw, 3])
    scores = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n", num_labels])
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "select"], [OUTPUT_NAME]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2]), "axes"),
        numpy_helper.from_array(np.eye(3, num_labels, dtype=np.float32) / 255, "select"),
    ]
    graph = helper.make_graph(nodes, "mean_color", [frames], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
