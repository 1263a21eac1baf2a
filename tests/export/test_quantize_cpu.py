"""The int8 graph for CPUs: its form, what stays float32, and what is said where nothing helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends import load_backend
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.errors import DataError, EngineError
from cmlr_edge.model.spec import ModelSpec
from export.build_engine import main
from export.building import Int8For, build_engine
from export.onnx_graph import export_fused
from export.quantize_cpu import MOST_FRAMES, quantize_for_cpu
from export.verify import remedy_of
from tests.conftest import make_spec
from tests.export.networks import TRACED, input_spec, random_frames, randomized, small

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
SPEC = replace(make_spec(b"", ("red", "green")), thresholds=(0.2, 0.2))


def uneven_model(*, products: int) -> onnx.ModelProto:
    """Scores: means of two channels, one of which is lost beside the other where eight bits hold both."""
    gain = np.array([1e3, 1e-3], np.float32)
    weights: list[NDArray[Any]] = [np.eye(2, dtype=np.float32)] * products
    weights[min(2, products - 1)] = np.diag(1 / gain)
    constants: dict[str, NDArray[Any]] = {
        "scale": np.float32(255) / gain.reshape(1, 2, 1, 1),
        "two": np.array([0, 1]),
        "axes": np.array([2, 3]),
        **{f"w{i}": np.reshape(w, (2, 2, 1, 1)) for i, w in enumerate(weights)},
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["wide"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "two"], ["pixels"], "pixels", axis=1),
        helper.make_node("Div", ["pixels", "scale"], ["x0"], "uneven"),
        *(
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"conv{i}")
            for i in range(products)
        ),
        helper.make_node("ReduceMean", [f"x{products}", "axes"], ["scores"], "mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "uneven",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def scores_of(
    model: onnx.ModelProto, provider: str, frames: NDArray[np.uint8]
) -> NDArray[np.float32]:
    backend = load_backend(Path("model.onnx"), model.SerializeToString(), provider=provider)
    try:
        return np.concatenate([backend.infer(frame[None]) for frame in frames])
    finally:
        backend.close()


@pytest.fixture(scope="module")
def exported() -> tuple[onnx.ModelProto, ModelSpec]:
    model = randomized(small(*TRACED["gated-attention, own, plain"]))
    preprocess = input_spec(model)
    graph, _ = export_fused(model, preprocess)
    labels = tuple(
        f"label {i}" for i in range(graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    )
    return graph, make_spec(b"", labels)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_activations_are_uint8_weights_int8_by_channel_and_the_head_stays_float32(
    exported: tuple[onnx.ModelProto, ModelSpec], reduce_range: bool
) -> None:
    graph, spec = exported
    found = quantize_for_cpu(
        graph, random_frames(4).numpy(), spec, max_share=1.0, reduce_range=reduce_range
    )
    constants = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    producers = {name: node for node in found.model.graph.node for name in node.output}
    convolutions = [node for node in found.model.graph.node if node.op_type == "Conv"]
    assert found.products >= len(convolutions) > 0
    assert found.in_float32 == tuple(node.name for node in convolutions[:2])
    for node in convolutions[2:]:
        frames, weight = (producers[name] for name in node.input[:2])
        assert frames.op_type == weight.op_type == "DequantizeLinear"
        assert constants[frames.input[2]].dtype == np.uint8
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == constants[weight.input[0]].shape[:1]
        assert np.abs(constants[weight.input[0]].astype(int)).max() <= (64 if reduce_range else 127)
    for node in found.model.graph.node:
        if node.name.startswith("head/"):
            kinds = {producers[name].op_type for name in node.input if name in producers}
            assert node.op_type not in {"QuantizeLinear", "DequantizeLinear"}, node.name
            assert "DequantizeLinear" not in kinds or node.op_type != "MatMul" or len(kinds) == 1


def test_both_runtimes_of_a_cpu_agree_on_the_file(
    exported: tuple[onnx.ModelProto, ModelSpec],
) -> None:
    graph, spec = exported
    frames = random_frames(3).numpy()
    model = quantize_for_cpu(graph, frames, spec, max_share=1.0, reduce_range=False).model
    ours, theirs = (scores_of(model, provider, frames) for provider in ("cpu", "openvino"))
    np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_a_layer_that_silences_a_label_stays_float32() -> None:
    found = quantize_for_cpu(uneven_model(products=8), FRAMES, SPEC, reduce_range=False)
    assert found.products == 8
    assert found.in_float32 == ("conv0", "conv1", "conv2")
    np.testing.assert_array_equal(
        scores_of(found.model, "cpu", FRAMES) >= 0.2,
        scores_of(uneven_model(products=8), "cpu", FRAMES) >= 0.2,
    )


def test_where_no_layer_may_be_quantised_the_label_and_the_remedy_are_named() -> None:
    words = r"'green' falls silent on 6 of the 6 frames .*give --calibration more pictures .*\(6 were seen\), allow more with --max-flips"
    with pytest.raises(EngineError, match=words):
        quantize_for_cpu(uneven_model(products=1), FRAMES, SPEC, reduce_range=False)


def test_without_pictures_or_numbers_it_is_refused() -> None:
    with pytest.raises(EngineError, match="none was given"):
        quantize_for_cpu(uneven_model(products=1), FRAMES[:0], SPEC)
    broken = uneven_model(products=2)
    for tensor in broken.graph.initializer:
        if tensor.name == "scale":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 2, 1, 1), np.float32), "scale"))
    with pytest.raises(EngineError, match="not a number"):
        quantize_for_cpu(broken, FRAMES, SPEC)


def test_a_refused_file_names_what_to_do() -> None:
    assert "--max-flips" in remedy_of("int8", SPEC)
    assert "--calibration" in remedy_of("int8", SPEC)
    assert "--fp16" in remedy_of("float16", SPEC)
    assert remedy_of("float32", SPEC) == ""


def test_a_remedy_that_was_taken_is_not_named_again() -> None:
    assert "--data to fit thresholds" in remedy_of("int8", SPEC)
    fitted = replace(SPEC, threshold_fit=replace(SPEC.threshold_fit, precision="int8"))
    assert "--data" not in remedy_of("int8", fitted)
    many = np.repeat(FRAMES[:1], MOST_FRAMES, axis=0)
    with pytest.raises(EngineError, match=r"frames with it\): allow more with --max-flips, or"):
        quantize_for_cpu(uneven_model(products=1), many, SPEC, reduce_range=False)


def test_the_target_of_int8_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --int8 too"):
        main(checkpoint=tmp_path, out=tmp_path / "out", int8_for=Int8For.gpu)
    with pytest.raises(DataError, match="--for gpu"):
        build_engine(tmp_path, tmp_path / "out", precision="int8", tensorrt=BuildOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_command_line_writes_either_form(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    types = {}
    for target in Int8For:
        out = tmp_path / target.value
        build_engine(
            tiny_run, out, precision="int8", calibration=tiny_data, max_flips=0.1, int8_for=target
        )
        graph = onnx.load(out / "model.onnx").graph
        zeros = {n.input[2] for n in graph.node if n.op_type == "QuantizeLinear"}
        types[target] = {t.data_type for t in graph.initializer if t.name in zeros}
    assert types == {Int8For.cpu: {TensorProto.UINT8}, Int8For.gpu: {TensorProto.INT8}}
