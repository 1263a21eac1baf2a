"""A float32 graph -> an int8 graph for CPUs: uint8 activations, int8 weights, by ONNX Runtime's quantiser.

Processors multiply unsigned by signed bytes, and a runtime computes a chain of layers in bytes only where
what lies between products is quantised too. The head stays float32, and so do the layers that lose most,
as many of them as the decisions need.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from cmlr_edge.errors import EngineError
from cmlr_edge.machine.facts import cpu_name
from cmlr_edge.model.agreement import Agreement
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from cmlr_edge.model.thresholds import reaches
from export.calibrate import head_nodes, products_of, require_numbers
from export.graph_index import constant_values

# Products, and what may lie between them.
_OPERATORS = ["Conv", "MatMul", "Add", "Mul", "Clip", "Relu", "MaxPool", "GlobalAveragePool"]
# Without one of these a processor adds two products of bytes in 16 bits, which must not overflow.
_SUMS_IN_32_BITS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
# Products at the start that stay float32: what they lose every later layer sees, and rounding the
# picture anew takes as long as they gain (docs/precision.md).
_FIRST = 2
MAX_SHARE = 0.005  # of decisions on the calibration pictures that may differ, by default
MOST_FRAMES = 100  # to calibrate on: more did not change the ranges that matter
_FRAMES_OF_ERRORS = 4  # for the order in which layers are left in float32


@dataclass(frozen=True)
class CpuInt8:
    """A quantised graph."""

    model: onnx.ModelProto
    products: int  # convolutions and matrix products of the backbone
    in_float32: tuple[str, ...]  # of these, by name


def quantize_for_cpu(
    model: onnx.ModelProto,
    frames: NDArray[np.uint8],
    spec: ModelSpec,
    *,
    max_share: float = MAX_SHARE,
    reduce_range: bool | None = None,
    report: Callable[[int], None] = lambda _done: None,
) -> CpuInt8:
    """Write a graph in int8 for CPUs.

    Args:
        model: Of `export_fused`, batch-norms folded; stays as it is.
        frames: To measure ranges and decisions on, (N, H, W, 3).
        spec: For labels and thresholds.
        max_share: Of decisions on these frames that may differ.
        reduce_range: Weights in 7 bits; None: where this processor needs that.
        report: Told how many frames were seen since.

    Raises:
        EngineError: There is nothing to quantise, an activation is not a number, or the file decides
            otherwise whatever stays in float32.
    """
    products = products_of(model.graph)
    if not products:
        raise EngineError("int8 quantises convolutions and products with constants: none is here")
    if not len(frames):
        raise EngineError("int8 needs calibration pictures: none was given")
    if reduce_range is None:
        reduce_range = not sums_in_32_bits()
    inputs = list(dict.fromkeys(node.input[0] for node in products))
    seen = _run(model, frames[:_FRAMES_OF_ERRORS], inputs)
    require_numbers(seen)
    ranges = _measure_ranges(model, frames, report)
    worst_first = _by_error(model, products, seen, ranges)
    thresholds = np.asarray(spec.thresholds, np.float32)
    expected = reaches(_scores(model, frames), thresholds)
    first = [node.name for node in products[: min(_FIRST, len(products) // 4)]]
    others = [name for name in worst_first if name not in first]
    count, objections = 0, [""]
    while count <= len(products) // 2:
        in_float32 = (*first, *others[:count])
        file = _quantize(model, ranges, in_float32, reduce_range=reduce_range)
        found = Agreement.of(spec.labels, expected, reaches(_scores(file, frames), thresholds))
        if not (objections := found.objections(max_share)):
            return CpuInt8(file, len(products), in_float32)
        count = max(1, 2 * count)
    more = (
        f"give --calibration more pictures like those to come ({len(frames)} were seen), "
        if len(frames) < MOST_FRAMES
        else ""
    )
    raise EngineError(
        f"int8 decides otherwise on the calibration pictures, even with {len(in_float32)} of "
        f"{len(products)} layers in float32 ({'; '.join(objections)}): {more}allow more with --max-flips, or "
        "export without --int8, which OpenVINO runs in bfloat16 where it is faster"
    )


def sums_in_32_bits() -> bool:
    """Whether products of bytes cannot overflow on this processor, whatever the weights."""
    return bool(_SUMS_IN_32_BITS & set(cpu_name().split(", ")))


def _measure_ranges(
    model: onnx.ModelProto, frames: NDArray[np.uint8], report: Callable[[int], None]
) -> Any:
    """Smallest and largest value of every tensor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path, _OPERATORS, augmented_model_path=str(Path(folder) / "observed.onnx")
        )
        calibrator.collect_data(_Frames(frames, report))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a range that is no number
            ranges = calibrator.compute_data()
        del calibrator
    require_numbers({name: np.asarray(r.range_value) for name, r in ranges.items()})
    return ranges


class _Frames(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, frames: NDArray[np.uint8], report: Callable[[int], None]) -> None:
        self._frames: Iterator[NDArray[np.uint8]] = iter(frames)
        self._report = report

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame = next(self._frames, None)
        if frame is None:
            return None
        self._report(1)
        return {INPUT_NAME: frame[None]}


def _by_error(
    model: onnx.ModelProto,
    products: list[onnx.NodeProto],
    values: dict[str, NDArray[np.float32]],
    ranges: Any,
) -> list[str]:
    """Names of the products, first the one whose input and weight lose most in eight bits."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    errors = {}
    for node in products:
        weight = constant_values(constants[node.input[1]])
        axes = tuple(range(1, weight.ndim)) if node.op_type == "Conv" else (0,)
        steps = np.abs(weight).max(axis=axes, keepdims=True) / 127
        low, high = (float(np.min(bound)) for bound in ranges[node.input[0]].range_value)
        step = (max(high, 0.0) - min(low, 0.0)) / 255  # 0 keeps its own step
        value = values[node.input[0]]
        if node.op_type == "Conv":
            value = np.moveaxis(value, 1, -1)
        errors[node.name] = _loss(value, step) + _loss(weight, steps)
    return sorted(errors, key=lambda name: -errors[name])


def _loss(values: NDArray[Any], step: Any) -> float:
    """Share of the power of the values that is lost where they are rounded to steps: mean over the last axis.

    A channel that is small beside others is lost first, and may be all that a label hangs on.
    """
    steps = np.where(np.asarray(step) > 0, step, 1)
    lost = np.rint(values / steps) * steps - values
    axes = tuple(range(values.ndim - 1))
    power, lost_power = (np.square(each).sum(axis=axes) for each in (values, lost))
    return float((lost_power / np.where(power > 0, power, 1)).mean())


def _quantize(
    model: onnx.ModelProto, ranges: Any, in_float32: tuple[str, ...], *, reduce_range: bool
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[
            *(node.name for node in head_nodes(model.graph)),
            *_with_clips(model.graph, in_float32),
        ],
        op_types_to_quantize=_OPERATORS,
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    _read_before_rounding(result.graph, set(in_float32))
    onnx.checker.check_model(result, full_check=True)
    return result


def _with_clips(graph: onnx.GraphProto, names: tuple[str, ...]) -> list[str]:
    """These nodes and the clips before and behind them.

    The quantiser drops a clip for a range that does the same; whoever stays float32 needs the clip.
    """
    nodes = [node for node in graph.node if node.name in names]
    reads = {name for node in nodes for name in node.input}
    writes = {name for node in nodes for name in node.output}
    clips = [
        node.name
        for node in graph.node
        if node.op_type in {"Clip", "Relu"} and (node.input[0] in writes or node.output[0] in reads)
    ]
    return [*names, *clips]


def _read_before_rounding(graph: onnx.GraphProto, names: set[str]) -> None:
    """Let these nodes read what was not rounded for the sake of others."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name not in names:
            continue
        back = producers.get(node.input[0])
        if back is not None and back.op_type == "DequantizeLinear":
            rounding = producers.get(back.input[0])
            if rounding is not None and rounding.op_type == "QuantizeLinear":
                node.input[0] = rounding.input[0]


def _run(
    model: onnx.ModelProto, frames: NDArray[np.uint8], names: list[str]
) -> dict[str, NDArray[np.float32]]:
    """Values of these tensors on the frames."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    known = {value.name for value in observed.graph.output}
    for name in names:
        if name not in known:
            observed.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    session = onnxruntime.InferenceSession(
        observed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(names, {INPUT_NAME: frames})
    return dict(zip(names, found, strict=True))


def _scores(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graph optimisation
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows = [session.run([OUTPUT_NAME], {INPUT_NAME: frame[None]})[0] for frame in frames]
    return np.concatenate(rows)
