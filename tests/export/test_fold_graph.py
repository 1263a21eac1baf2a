"""Folds on the graph: the same scores, and only where they are exact."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.deploy import DeployModel
from export.fold_graph import fold_graph
from export.onnx_graph import export_onnx
from tests.export.networks import BACKBONES, input_spec, on_backbone, random_frames

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def conv_graph(nodes: list[onnx.NodeProto], **constants: NDArray[Any]) -> onnx.ModelProto:
    """x (2, 3, 6, 7) -> y."""
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 3, 6, 7])
    y = helper.make_tensor_value_info("y", FLOAT, ["n", "c", "h", "w"])
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    norm = {name: RNG.uniform(0.5, 2, 4).astype(np.float32) for name in ("s", "b", "m", "v")}
    tensors = {"weight": weight, **norm, **constants}
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "conv", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def conv(source: str, out: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "weight", *inputs], [out], **attributes)


def norm(source: str, out: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, "s", "b", "m", "v"], [out], epsilon=1e-3)


def pads(*amounts: int) -> NDArray[np.int64]:
    return np.array(amounts, np.int64)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 7)).astype(np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert isinstance(y, np.ndarray)
    return y


FOLDED = {
    "norm behind a convolution": ([conv("x", "c"), norm("c", "y")], {}, {"Conv"}),
    "norm behind a convolution with a bias": (
        [conv("x", "c", "bias"), norm("c", "y")],
        {"bias": np.arange(4, dtype=np.float32)},
        {"Conv"},
    ),
    "padding on two sides of a stride of two": (
        [helper.make_node("Pad", ["x", "p", "zero"], ["w"]), conv("w", "y", strides=[2, 2])],
        {"p": pads(0, 0, 0, 0, 0, 0, 1, 1), "zero": np.float32(0)},
        {"Conv"},
    ),
    "padding before a convolution that pads": (
        [helper.make_node("Pad", ["x", "p"], ["w"]), conv("w", "y", pads=[1, 1, 1, 1])],
        {"p": pads(0, 0, 1, 2, 0, 0, 0, 0)},
        {"Conv"},
    ),
}
KEPT = {
    "norm of the input": ([norm("x", "n"), conv("n", "y")], {"BatchNormalization", "Conv"}),
    "convolution with another reader": (
        [conv("x", "c"), norm("c", "n"), helper.make_node("Add", ["c", "n"], ["y"])],
        {"BatchNormalization", "Conv", "Add"},
    ),
    "padding with another number": (
        [helper.make_node("Pad", ["x", "p", "half"], ["w"]), conv("w", "y")],
        {"Pad", "Conv"},
    ),
    "padding that mirrors": (
        [helper.make_node("Pad", ["x", "p"], ["w"], mode="reflect"), conv("w", "y")],
        {"Pad", "Conv"},
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_folds_gives_the_same_numbers(name: str) -> None:
    nodes, constants, left = FOLDED[name]
    model = conv_graph(nodes, **constants)
    expected = run(model)
    fold_graph(model, norms=True)
    assert {node.op_type for node in model.graph.node} == left
    np.testing.assert_allclose(run(model), expected, atol=1e-5)


@pytest.mark.parametrize("name", KEPT)
def test_what_would_change_the_numbers_stays(name: str) -> None:
    nodes, left = KEPT[name]
    if name == "norm of the input":
        nodes = [helper.make_node("BatchNormalization", ["x", *"stuv"], ["n"]), conv("n", "y")]
    three = {name: RNG.uniform(0.5, 2, 3).astype(np.float32) for name in "stuv"}
    if name != "norm of the input":
        three = {}
    constants = {
        "p": pads(0, 0, 1, 1, 0, 0, 1, 1),
        "half": np.float32(0.5),
    }
    model = conv_graph(nodes, **three, **constants)
    expected = run(model)
    fold_graph(model, norms=True)
    assert {node.op_type for node in model.graph.node} == left
    np.testing.assert_allclose(run(model), expected, atol=1e-5)


def test_norms_stay_where_weights_have_to_keep_their_trained_bits() -> None:
    model = conv_graph([conv("x", "c"), norm("c", "y")])
    assert fold_graph(model, norms=False) == []
    assert Counter(node.op_type for node in model.graph.node)["BatchNormalization"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES[:2])
def test_a_folded_backbone_has_no_norm_no_padding_and_no_computed_shape(backbone: str) -> None:
    model = on_backbone(backbone)
    spec = input_spec(model)
    exported = export_onnx(DeployModel(model, spec).eval(), spec.size_hw)
    frames = random_frames(3)
    with torch.no_grad():
        expected = DeployModel(model, spec).eval()(frames).numpy()
    notes = [note for _, note in fold_graph(exported, norms=True)]
    # Three numbers along the rows take ONNX Runtime far longer.
    means = next(node.input[1] for node in exported.graph.node if node.op_type == "Sub")
    (row,) = (t.dims for t in exported.graph.initializer if t.name == means)
    assert list(row) == [1, 1, spec.size_hw[1], 3]
    (scores,) = ReferenceEvaluator(exported).run(None, {"frames": frames.numpy()})
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    left = Counter(node.op_type for node in exported.graph.node)
    assert not left.keys() & {"BatchNormalization", "Pad", "Shape", "Gather"}
    # Frames to channels first, and feature maps to tokens; test_fold_network.py looks at the head.
    moved = [node.name for node in exported.graph.node if node.op_type == "Transpose"]
    assert len([name for name in moved if not name.startswith("head/")]) == 2
    assert notes.count("batch-norm in the convolution") > 20
