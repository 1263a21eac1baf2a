"""The float16 graph: its types, its scores, and when it is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from cmlr_edge.backends import load_backend
from cmlr_edge.errors import EngineError
from export.deploy import DeployModel
from export.onnx_graph import export_fused
from export.precision import to_float16
from export.verify import verify
from tests.export.commands import build_engine_says
from tests.export.networks import TRACED, input_spec, random_frames, randomized, small
from train.network.checkpoint import load_model

pytestmark = pytest.mark.slow

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
Array = NDArray[np.float32]


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def small_graph(nodes: list[onnx.NodeProto], **constants: NDArray[Any]) -> onnx.ModelProto:
    """x (2, 4) -> scores."""
    x = helper.make_tensor_value_info("x", FLOAT, [2, 4])
    scores = helper.make_tensor_value_info("scores", FLOAT, ["n", "m"])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "small", [x], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: Array) -> Array:
    (scores,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert isinstance(scores, np.ndarray)
    return scores


@pytest.mark.parametrize(
    "name",
    [
        "matrix, own, two stages",
        "expectation, sum, pooled skip",
        "explicit, sum, class maps alone",
        "ccd",
    ],
)
def test_products_are_float16_and_norms_softmax_and_logits_float32(name: str) -> None:
    model = randomized(small(*TRACED[name]))
    spec = input_spec(model)
    wide, _ = export_fused(model, spec, norms=False)
    narrow = to_float16(wide)
    found, wide_alone = types(narrow), {"LayerNormalization", "Softmax", "ReduceSum"}
    sigmoids = (node.name for node in narrow.graph.node if node.op_type == "Sigmoid")
    logits = {name for name in sigmoids if name.startswith("head/")}  # others are activations
    for node in narrow.graph.node:
        names = [*node.input[:3], *node.output] if node.domain else [*node.input, *node.output]
        kinds = {found[x] for x in names if found.get(x) in {FLOAT, HALF}}
        if node.op_type in {"Conv", "MatMul", "CmlrAttention", "PlainAttention"}:
            assert all(found[bias] == FLOAT for bias in node.input[3:] if node.domain)
            assert kinds == {HALF}, node.name
        elif node.op_type in wide_alone or node.name in logits:
            assert kinds == {FLOAT}, node.name
        elif node.op_type != "Cast":
            assert len(kinds) < 2, node.name
    assert not any(node.op_type == "BatchNormalization" for node in narrow.graph.node)
    assert narrow.ByteSize() < 0.55 * wide.ByteSize()
    with torch.no_grad():
        frames = random_frames(3)
        expected = DeployModel(model, spec).eval()(frames).numpy()
    backend = load_backend(Path("m.onnx"), narrow.SerializeToString(), provider="cpu")
    np.testing.assert_allclose(backend.infer(frames.numpy()), expected, atol=5e-3)


def test_lengths_and_their_lower_bounds_stay_float32() -> None:
    nodes = [
        helper.make_node("ReduceL2", ["x", "axis"], ["length"]),
        helper.make_node("Clip", ["length", "least"], ["bounded"]),
        helper.make_node("Expand", ["bounded", "shape"], ["wide"]),
        helper.make_node("Div", ["x", "wide"], ["unit"]),
        helper.make_node("MatMul", ["unit", "weight"], ["product"]),
        helper.make_node("Sigmoid", ["product"], ["scores"]),
    ]
    constants = {
        "axis": np.array([1]),
        "shape": np.array([2, 4]),
        "least": np.array(1e-12, np.float32),
        "weight": np.eye(4, dtype=np.float32),
    }
    model = to_float16(small_graph(nodes, **constants))
    x = np.array([[0, 0, 0, 0], [3, 0, 4, 0]], np.float32)
    scores = run(model, x)
    expected = 1 / (1 + np.exp(-np.array([[0, 0, 0, 0], [0.6, 0, 0.8, 0]])))
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_a_constant_beyond_float16_keeps_its_node_in_float32() -> None:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["scores"])]
    weight = np.full((4, 1), 1e5, np.float32)
    model = to_float16(small_graph(nodes, weight=weight))
    scores = run(model, np.ones((2, 4), np.float32))
    np.testing.assert_allclose(scores, 4e5)


def test_the_float32_graph_is_left_alone() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("Sigmoid", ["y"], ["scores"]),
    ]
    model = small_graph(nodes, weight=np.eye(4, dtype=np.float32))
    before = model.SerializeToString()
    to_float16(model)
    assert model.SerializeToString() == before


def test_the_command_writes_a_verified_float16_file(tiny_run: Path, tmp_path: Path) -> None:
    build_engine_says("--fp16", "--out", tmp_path, "--checkpoint", tiny_run)
    built = json.loads((tmp_path / "model.json").read_text())["files"]["model.onnx"]
    assert built["precision"] == "float16"
    assert 0 < built["parity"]["max_score_difference"] < 0.05
    assert built["parity"]["decision_flips"] <= 1
    assert json.loads((tmp_path / "fusion.json").read_text())["bytes_saved"] > 0
    assert HALF in {
        tensor.data_type for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
    }


def test_a_float16_file_that_flips_too_many_decisions_is_refused(tiny_run: Path) -> None:
    model, spec = load_model(tiny_run)
    deploy, frames = DeployModel(model, spec.preprocess).eval(), random_frames(4).numpy()
    with torch.no_grad():
        scores = deploy(torch.from_numpy(frames)).numpy()
        # Every score a little lower, by less than the tolerance, and thresholds just below them.
        lowered = copy.deepcopy(model)
        assert lowered.readout is not None
        lowered.readout.bias.sub_(0.02)
    close = replace(spec, thresholds=tuple(float(t) - 1e-4 for t in scores.min(axis=0)))
    exported, _ = export_fused(lowered, spec.preprocess, norms=False)
    content = to_float16(exported).SerializeToString()
    with pytest.raises(EngineError, match="of 15 label decisions"):
        verify(Path("m.onnx"), content, deploy, close, frames, precision="float16")


def test_the_gate_names_a_label_whose_threshold_was_raised_out_of_reach(tiny_run: Path) -> None:
    model, spec = load_model(tiny_run)
    deploy, frames = DeployModel(model, spec.preprocess).eval(), random_frames(6).numpy()
    content = export_fused(model, spec.preprocess, norms=False)[0].SerializeToString()
    low = (0.0, *spec.thresholds[1:])
    raised = replace(spec, thresholds=(0.99999, *spec.thresholds[1:]))
    label = spec.labels[0]
    with pytest.raises(EngineError, match=f"'{label}' falls silent on 7 of the 7 frames with it"):
        verify(
            Path("m.onnx"),
            content,
            deploy,
            raised,
            frames,
            precision="int8",
            trained_thresholds=low,
            max_flips=0.5,
        )
