"""The int8 graph: its form, its arithmetic, its ranges, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge import Recognizer
from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CaptureError, DataError, EngineError
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.thresholds import ThresholdRule
from export.build_engine import main
from export.building import build_engine
from export.calibrate import insert_quantization, quantize
from export.onnx_graph import export_fused
from export.precision import to_float16
from export.quantize_cpu import sums_in_32_bits
from tests.export.commands import build_engine_says
from tests.export.networks import TRACED, input_spec, random_frames, randomized, small
from tests.export.runtimes import RUNTIMES, run_everywhere
from train.data import read_dataset
from train.judging.refit import refit_thresholds

pytestmark = pytest.mark.slow

Array = NDArray[np.float32]
WEIGHT = np.random.default_rng(2).standard_normal((4, 3, 2, 2)).astype(np.float32)


def pixel_model() -> onnx.ModelProto:
    """scores: the mean over places of a convolution of the pixels."""
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 8, 8, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])
    nodes = [
        helper.make_node("Cast", ["frames"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pixels", "weight"], ["map"]),
        helper.make_node("ReduceMean", ["map", "axes"], ["scores"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    graph = helper.make_graph(nodes, "pixels", [frames], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_quantised_numbers_follow_the_formula_in_every_runtime(runtime: str) -> None:
    if runtime == "openvino" and not sums_in_32_bits():
        pytest.skip("OPENVINO'S INT8 IS NOT TESTED: without VNNI it sums products in 16 bits")
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    quantized = insert_quantization(pixel_model(), {"map"}, {"pixels": 190.5})
    pixels = frames.transpose(0, 3, 1, 2).astype(np.float64)
    step = 1.5  # so that no pixel falls half way between two steps
    pixels = np.clip(np.rint(pixels / step), -128, 127) * step
    steps = np.abs(WEIGHT.astype(np.float64)).max(axis=(1, 2, 3), keepdims=True) / 127
    weight = np.rint(WEIGHT / steps) * steps
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (2, 2), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weight).mean(axis=(2, 3))
    (scores,) = run_everywhere(quantized, {"frames": frames})[RUNTIMES.index(runtime)]
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_a_range_reaches_to_the_largest_value_or_to_the_percentile() -> None:
    frames = np.full((4, 8, 8, 3), 100, np.uint8)
    frames[0, 0, 0, 0] = 250  # one of 768 values
    scales = {}
    for percentile in (100.0, 99.0):
        model = quantize(pixel_model(), frames, percentile=percentile)
        scales[percentile] = float(initializers(model)["pixels.scale"]) * 127
    assert scales[100.0] == pytest.approx(250, rel=1e-3)
    assert scales[99.0] == pytest.approx(100, rel=0.02)


def test_entropy_leaves_out_what_hardly_ever_comes() -> None:
    frames = np.random.default_rng(0).integers(90, 110, (20, 8, 8, 3), np.uint8)
    frames[0, 0, 0, 0] = 255
    scale = float(initializers(quantize(pixel_model(), frames, method="entropy"))["pixels.scale"])
    assert 100 <= scale * 127 < 200


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    model = randomized(small(*TRACED["gated-attention, own, plain"]))
    spec = input_spec(model)
    return export_fused(model, spec)[0]


def test_the_backbone_is_symmetric_int8_and_the_head_stays_float32(
    exported: onnx.ModelProto,
) -> None:
    quantized = quantize(exported, random_frames(4).numpy())
    constants = initializers(quantized)
    producers = {name: node for node in quantized.graph.node for name in node.output}
    for node in quantized.graph.node:
        sources = [producers.get(name) for name in node.input]
        kinds = ["" if source is None else source.op_type for source in sources]
        if node.op_type == "Conv":
            assert kinds[:2] == ["DequantizeLinear"] * 2
            assert constants[node.input[2]].dtype == np.float32
            weight = producers[node.input[1]].input
            assert constants[weight[0]].dtype == np.int8
            assert constants[weight[1]].shape == constants[weight[0]].shape[:1]
        elif node.op_type != "DequantizeLinear":
            assert "DequantizeLinear" not in kinds, node.name
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()


def test_the_head_is_quantised_only_when_asked_for(exported: onnx.ModelProto) -> None:
    frames = random_frames(2).numpy()
    counts = [
        sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
        for quantized in (
            quantize(exported, frames),
            quantize(exported, frames, with_head=True),
        )
    ]
    assert counts[0] < counts[1]


def test_runtimes_agree_on_one_file_of_each_precision(exported: onnx.ModelProto) -> None:
    frames = random_frames(3).numpy()
    int8 = quantize(exported, random_frames(4).numpy())
    # A sum of another order rounds to another step of int8 here and there, and later layers see it.
    for model, tolerance in ((exported, 1e-4), (to_float16(exported), 5e-3), (int8, 0.02)):
        first, *others = [scores for (scores,) in run_everywhere(model, {"frames": frames})]
        for scores in others:
            np.testing.assert_allclose(scores, first, atol=tolerance)


def test_calibration_without_pictures_or_numbers_is_refused() -> None:
    with pytest.raises(EngineError, match="none was given"):
        quantize(pixel_model(), [])
    broken = pixel_model()
    nan = numpy_helper.from_array(np.float32(np.nan), "nan")
    broken.graph.initializer.append(nan)
    broken.graph.node.insert(2, helper.make_node("Mul", ["pixels", "nan"], ["spoiled"]))
    broken.graph.node[3].input[0] = "spoiled"
    with pytest.raises(EngineError, match="not a number"):
        quantize(broken, np.zeros((1, 8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def int8_engine(tiny_run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8")
    words = ["--int8", "--out", out, "--checkpoint", tiny_run, "--data", tiny_data]
    said = build_engine_says(*words, "--calibration", tiny_data, "--max-flips", "10%")
    assert "refit-thresholds" not in said
    return out


def test_the_command_writes_a_verified_int8_file_with_thresholds_of_its_own(
    int8_engine: Path, tiny_run: Path, tiny_data: Path
) -> None:
    record = json.loads((int8_engine / "model.json").read_text())
    built = record["files"]["model.onnx"]
    assert built["precision"] == "int8"
    assert built["parity"]["num_images"] == 1 + 8 + 12
    assert built["parity"]["max_score_difference"] > 1e-4
    assert record["threshold_fit"]["precision"] == "int8"
    trained = json.loads((tiny_run / "model.json").read_text())
    assert record["threshold_fit"]["rule"] == trained["threshold_fit"]["rule"]
    with Recognizer.from_engine(int8_engine) as recognizer:
        assert len(recognizer(read_image(tiny_data / "30.png")).scores) == 3


def test_thresholds_of_an_int8_engine_can_be_fitted_again(
    int8_engine: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for path in int8_engine.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = read_dataset(tiny_data).split("train")
    refit_thresholds(tmp_path, data, ThresholdRule("cost", 3.0), shrinkage=0)
    fit = ModelSpec.load(tmp_path / "model.json").threshold_fit
    assert (fit.rule, fit.precision, fit.num_images) == ("cost=3", "int8", 24)


def test_without_data_thresholds_stay(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    spec = build_engine(tiny_run, tmp_path, precision="int8", calibration=tiny_data, max_flips=0.1)
    assert spec.threshold_fit == ModelSpec.load(tiny_run / "model.json").threshold_fit


def test_a_file_has_one_precision(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exclude each other"):
        main(checkpoint=tmp_path, out=tmp_path / "out", fp16=True, int8=True)


def test_what_int8_needs_is_said(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="--calibration DIR"):
        build_engine(tiny_run, out, precision="int8")
    with pytest.raises(DataError, match="no folder"):
        build_engine(tiny_run, out, precision="int8", calibration=tmp_path / "none")
    with pytest.raises(CaptureError, match="no pictures"):
        build_engine(tiny_run, out, precision="int8", calibration=tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(CaptureError, match=r"b\.png"):
        build_engine(tiny_run, out, precision="int8", calibration=tmp_path)
    labels = tiny_data / "labels.json"
    other = json.loads(labels.read_text())
    other["classes"] = other["classes"][::-1]
    other["images"] = [{"file": "a.png", "split": "val", "labels": []}]
    (tmp_path / "labels.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="other classes"):
        build_engine(tiny_run, out, precision="int8", data=tmp_path, calibration=tiny_data)
    assert not out.exists()
