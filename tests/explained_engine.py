"""A tiny engine that says why, of a formula that a test can compute: where a colour is, and how much.

own = 8 times a colour's mean; bias -4; of red, green gives +2 and blue -1 by their own probability; the
surroundings add 3 times the picture's mean brightness, less 1; a colour's map is its share in 2 x 4 cells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.model.explanation import OUTPUTS, ExplanationSpec
from cmlr_edge.model.spec import GoldenSample
from tests.conftest import SIZE_HW, make_spec, write_engine

BIAS = -4.0
LINKS = np.array([[0, 2, -1], [0, 0, 0], [0, 0, 0]], np.float32)  # from column to row
MAP_HW = (2, 4)


def explained_model() -> bytes:
    """uint8 frames to scores (n, 3), own_evidence, links, surroundings and attention."""
    shapes = {
        "scores": [3], "own_evidence": [3], "links": [3, 3], "surroundings": [3],
        "attention": [3, *MAP_HW],
    }  # fmt: skip
    values = {
        "one": np.array([1]), "rows": np.array([0, -1, 3]), "last": np.array([1]), "deep": np.array([2, 3]),
        "eighth": np.float32(8 / 255), "tiny": np.float32(1e-3), "bias": np.float32(BIAS),
        "matrix": LINKS[None], "third": np.float32(1 / 255), "bright": np.float32(3),
        "less": np.float32(1), "zeros": np.zeros((1, 3), np.float32), "row": np.array([1]),
        "sides": np.array([2]), "unread": np.zeros(3, np.float32),
    }  # fmt: skip
    cells = [side // cell for side, cell in zip(SIZE_HW, MAP_HW, strict=True)]
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Reshape", ["pixels", "rows"], ["pixel_rows"]),
        node("ReduceMean", ["pixel_rows", "one"], ["means"], keepdims=0),
        node("Mul", ["means", "eighth"], ["own_evidence"]),
        node("Add", ["own_evidence", "bias"], ["first"]),
        node("Sigmoid", ["first"], ["likely"]),
        node("Unsqueeze", ["likely", "row"], ["sources"]),
        node("Mul", ["sources", "matrix"], ["links"]),
        node("ReduceSum", ["links", "sides"], ["from_others"], keepdims=0),
        node("ReduceMean", ["means", "last"], ["brightness"], keepdims=1),
        node("Mul", ["brightness", "third"], ["unit"]),
        node("Mul", ["unit", "bright"], ["scaled"]),
        node("Sub", ["scaled", "less"], ["centred"]),
        node("Add", ["centred", "zeros"], ["surroundings"]),
        node("Add", ["first", "from_others"], ["second"]),
        node("Add", ["second", "surroundings"], ["logits"]),
        node("Sigmoid", ["logits"], ["scores"]),
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["pooled"], kernel_shape=cells, strides=cells),
        node("Add", ["pooled", "tiny"], ["seen"]),
        node("ReduceSum", ["seen", "deep"], ["whole"], keepdims=1),
        node("Div", ["seen", "whole"], ["attention"]),
    ]
    graph = helper.make_graph(
        nodes,
        "explained colours",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", *SIZE_HW, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
            for name, shape in shapes.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def parts_of(frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Own evidence, links and surroundings of frames (N, H, W, 3), RGB, in float64."""
    means = frames.reshape(len(frames), -1, 3).mean(axis=1) / 255
    likely = 1 / (1 + np.exp(-(8 * means + BIAS)))
    surroundings = np.repeat(3 * means.mean(axis=1, keepdims=True) - 1, 3, axis=1)
    return {
        "own_evidence": 8 * means,
        "links": likely[:, None] * LINKS,
        "surroundings": surroundings,
    }


def scores_of(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    parts = parts_of(frames)
    logits = parts["own_evidence"] + parts["links"].sum(-1) + parts["surroundings"] + BIAS
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return scores


def meaning() -> ExplanationSpec:
    spec = ExplanationSpec({}, (BIAS,) * 3, "scores", "own", MAP_HW)
    return replace(spec, outputs={name: OUTPUTS[name] for name in spec.shapes})


def write_explained_engine(folder: Path) -> Path:
    """model.onnx and its spec; thresholds are 0.5."""
    folder.mkdir(parents=True, exist_ok=True)
    content = explained_model()
    spec = make_spec(content)
    golden = scores_of(golden_frames(7, SIZE_HW))[0]
    built = replace(
        spec.files["model.onnx"], golden=GoldenSample(7, tuple(golden.tolist()), tolerance=1e-3)
    )
    spec = replace(spec, files={"model.onnx": built}, explanation=meaning())
    return write_engine(folder, content, spec)
