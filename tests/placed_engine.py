"""A tiny engine that tells surroundings, of a formula that a test can compute: which colours a picture has.

The context is each colour's share of the picture's light. own = 8 times a colour's mean; bias -4; surroundings
say context @ weight + bias of the training below; scores are those of the picture's own context. Its tokens,
that a label can be taught on, are the mean colours of patches of 8 x 8 pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.backends.onnx_rows import TOKENS
from cmlr_edge.model.explanation import OUTPUTS, ExplanationSpec, TrainedSurroundings
from cmlr_edge.model.spec import GoldenSample, ModelSpec
from tests.conftest import SIZE_HW, make_spec, write_engine

BIAS = -4.0
PATCHES = SIZE_HW[0] * SIZE_HW[1] // 64
TRAINING = TrainedSurroundings(
    contexts=((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6)),
    prior=(0.4, 0.3, 0.3),
    spread=(0.003, 0.003, 0.003),
    weight=((3.0, 0.0, -1.0), (0.0, 3.0, 0.0), (0.0, 0.0, 3.0)),
    bias=(-1.0, -1.0, -0.5),
)


def placed_model() -> bytes:
    """uint8 frames to scores (n, 3), own_evidence, surroundings, context and other_scores."""
    names = ("scores", "own_evidence", "surroundings", "context", "other_scores")
    values = {
        "rows": np.array([-1, 3, PATCHES]), "one": np.array([1]), "unit": np.float32(1 / 255),
        "tiny": np.float32(1e-3), "eight": np.float32(8), "bias": np.float32(BIAS),
        "weight": np.array(TRAINING.weight, np.float32), "shift": np.array(TRAINING.bias, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Mul", ["pixels", "unit"], ["scaled"]),
        node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["pooled", "rows"], ["columns"]),
        node("Transpose", ["columns"], [TOKENS], perm=[0, 2, 1]),
        node("ReduceMean", [TOKENS, "one"], ["means"], keepdims=0),
        node("Add", ["means", "tiny"], ["light"]),
        node("ReduceSum", ["light", "one"], ["whole"], keepdims=1),
        node("Div", ["light", "whole"], ["context"]),
        node("MatMul", ["context", "weight"], ["raw"]),
        node("Add", ["raw", "shift"], ["surroundings"]),
        node("Mul", ["means", "eight"], ["own_evidence"]),
        node("Add", ["own_evidence", "bias"], ["effect"]),
        node("Sigmoid", ["effect"], ["other_scores"]),
        node("Add", ["effect", "surroundings"], ["logits"]),
        node("Sigmoid", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "placed colours",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", *SIZE_HW, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in names],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
        value_info=[helper.make_tensor_value_info(TOKENS, TensorProto.FLOAT, ["n", PATCHES, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def context_of(image_bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of a picture (H, W, 3): (3,), red first."""
    light = image_bgr.reshape(-1, 3).mean(axis=0)[::-1] / 255 + 1e-3
    shares: NDArray[np.float64] = light / light.sum()
    return shares


def _scores_of(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    means = frames.reshape(len(frames), -1, 3).mean(axis=1) / 255
    light = means + 1e-3
    said = (light / light.sum(axis=1, keepdims=True)) @ np.array(TRAINING.weight) + TRAINING.bias
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-(8 * means + BIAS + said)))
    return scores


def meaning(training: TrainedSurroundings | None = TRAINING) -> ExplanationSpec:
    spec = ExplanationSpec(
        {}, (BIAS,) * 3, surroundings="own", num_confounders=3, training=training
    )
    return replace(spec, outputs={name: OUTPUTS[name] for name in spec.shapes})


def spec_of_places() -> ModelSpec:
    """What a watch of places needs to know of the model."""
    return replace(make_spec(b""), explanation=meaning())


def write_placed_engine(folder: Path, training: TrainedSurroundings | None = TRAINING) -> Path:
    """model.onnx and its spec; thresholds are 0.5."""
    folder.mkdir(parents=True, exist_ok=True)
    content = placed_model()
    spec = make_spec(content)
    golden = _scores_of(golden_frames(7, SIZE_HW))[0]
    built = replace(
        spec.files["model.onnx"], golden=GoldenSample(7, tuple(golden.tolist()), tolerance=1e-3)
    )
    spec = replace(spec, files={"model.onnx": built}, explanation=meaning(training))
    return write_engine(folder, content, spec)
