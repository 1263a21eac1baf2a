"""A float32 graph -> an int8 graph for GPUs: the backbone's products between QuantizeLinear and DequantizeLinear.

Symmetric, zero points 0, weights with a scale for each output channel, biases float32: the form that
TensorRT builds, and that ONNX Runtime and OpenVINO run as well, the former slowly: `quantize_cpu.py`
writes what CPUs run fast. What is added up between products stays float32, and so does the head.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector

from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import INPUT_NAME
from export.graph_index import constant_values

RangeMethod = Literal["percentile", "entropy"]
# docs/precision.md has what they were compared on.
METHOD: RangeMethod = "percentile"
PERCENTILE = 99.99
_LEVELS = 127  # on either side of 0
_BINS = 2048
_SAMPLED = 2**16  # values of a tensor and picture
# The first that the ONNX reference evaluator has QuantizeLinear for; the graph's other operators
# mean in it what they mean in 18.
_OPSET = 19
_HEAD = "head/"  # what the names of the nodes behind the backbone begin with
# Where the weight stands in the inputs of a product, and the axis of its output channels.
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1}


def quantize(
    model: onnx.ModelProto,
    frames: Iterable[NDArray[np.uint8]],
    *,
    method: RangeMethod = METHOD,
    percentile: float = PERCENTILE,
    with_head: bool = False,
    report: Callable[[int], None] = lambda _done: None,
) -> onnx.ModelProto:
    """Write a graph in int8.

    Args:
        model: Of `export_onnx`, batch-norms folded; stays as it is.
        frames: To measure ranges on, (H, W, 3) each; taken one at a time.
        method: "percentile" cuts off what is further out; "entropy" keeps the distribution.
        percentile: 100 cuts nothing off.
        with_head: The head's products as well.
        report: Told how many frames were seen since.

    Raises:
        EngineError: There is nothing to quantise, no frame, or an activation is not a number.
    """
    products = products_of(model.graph, with_head=with_head)
    if not products:
        raise EngineError("int8 quantises convolutions and products with constants: none is here")
    names = list(dict.fromkeys(node.input[0] for node in products))
    ranges = _measure_ranges(model, frames, names, method, percentile, report)
    return insert_quantization(model, {node.output[0] for node in products}, ranges)


def head_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    """Nodes behind the backbone."""
    return [node for node in graph.node if node.name.startswith(_HEAD)]


def products_of(graph: onnx.GraphProto, *, with_head: bool = False) -> list[NodeProto]:
    """Convolutions, and products with a constant matrix, of the backbone."""
    constants = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    head = set() if with_head else {node.output[0] for node in head_nodes(graph)}
    found = []
    for node in graph.node:
        if node.op_type not in _CHANNEL_AXIS or node.output[0] in head:
            continue
        rank = constants.get(node.input[1], 0)
        if node.input[0] not in constants and (node.op_type == "Conv" or rank == 2):
            found.append(node)
    return found


def require_numbers(values: Mapping[str, NDArray[Any]]) -> None:
    """Refuse tensors that overflowed, by their names.

    Raises:
        EngineError: One is not a number.
    """
    if bad := [name for name, value in values.items() if not np.isfinite(value).all()]:
        raise EngineError(f"{bad[0]} is not a number on a calibration picture")


def _measure_ranges(
    model: onnx.ModelProto,
    frames: Iterable[NDArray[np.uint8]],
    names: list[str],
    method: RangeMethod,
    percentile: float,
    report: Callable[[int], None],
) -> dict[str, float]:
    """Largest magnitude to keep of each tensor."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    for name in names:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        observed.graph.output.append(value)
    session = onnxruntime.InferenceSession(
        observed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=_BINS,
        num_quantized_bins=_LEVELS + 1,
        percentile=percentile,
        scenario="same",
    )
    seen = 0
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        for frame in frames:
            outputs = session.run(names, {INPUT_NAME: frame[None]})
            values = dict(zip(names, outputs, strict=True))
            require_numbers(values)
            collector.collect({name: [_sample(value)] for name, value in values.items()})
            seen += 1
            report(1)
        if not seen:
            raise EngineError("int8 needs calibration pictures: none was given")
        found: dict[str, Any] = collector.compute_collection_result()
    return {name: max(abs(float(found[name][0])), abs(float(found[name][1]))) for name in names}


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most 65,536 of them, evenly spread: a histogram of all takes longer than the network."""
    # An odd step does not keep to the same columns of a feature map.
    step = -(-values.size // _SAMPLED) | 1
    return values.ravel()[::step]


def insert_quantization(
    model: onnx.ModelProto, products: set[str], ranges: dict[str, float]
) -> onnx.ModelProto:
    """Put Q/DQ before the products.

    Args:
        model: Stays as it is.
        products: Outputs of the nodes to quantise.
        ranges: Largest magnitude of what they read.

    Returns:
        A copy, checked by onnx.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = _Writer(result.graph, ranges)
    for node in list(result.graph.node):
        writer.add(node, quantized=node.output[0] in products)
    writer.finish()
    for opset in (*result.opset_import, *(o for f in result.functions for o in f.opset_import)):
        if opset.domain == "":
            opset.version = max(opset.version, _OPSET)
    onnx.checker.check_model(result, full_check=True)
    return result


@dataclass
class _Writer:
    graph: onnx.GraphProto
    ranges: dict[str, float]
    nodes: list[NodeProto] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)  # name -> its quantised and back copy

    def __post_init__(self) -> None:
        """Look the constants up."""
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}

    def add(self, node: NodeProto, *, quantized: bool) -> None:
        """Take a node over, in order."""
        if quantized:
            node.input[0] = self._activation(node.input[0])
            node.input[1] = self._weight(node.input[1], _CHANNEL_AXIS[node.op_type])
        self.nodes.append(node)

    def finish(self) -> None:
        """Put nodes and constants into the graph."""
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def _activation(self, name: str) -> str:
        if name not in self.made:
            # A tensor that is always 0 has no range; any scale keeps it.
            scale = np.float32((self.ranges[name] or 1.0) / _LEVELS)
            parameters = [
                self._constant(f"{name}.scale", scale),
                self._constant(f"{name}.zero", np.int8(0)),
            ]
            steps = [f"{name}.int8", f"{name}.back"]
            self.nodes += [
                helper.make_node("QuantizeLinear", [name, *parameters], steps[:1]),
                helper.make_node("DequantizeLinear", [steps[0], *parameters], steps[1:]),
            ]
            self.made[name] = steps[1]
        return self.made[name]

    def _weight(self, name: str, axis: int) -> str:
        if name not in self.made:
            weight = constant_values(self.constants[name])
            others = tuple(i for i in range(weight.ndim) if i != axis)
            largest = np.abs(weight).max(axis=others, keepdims=True)
            scale = (np.where(largest > 0, largest, 1) / _LEVELS).astype(np.float32)
            integers = np.rint(weight / scale).clip(-_LEVELS, _LEVELS).astype(np.int8)
            inputs = [
                self._constant(f"{name}.int8", integers),
                self._constant(f"{name}.scale", scale.ravel()),
                self._constant(f"{name}.zero", np.zeros(scale.size, np.int8)),
            ]
            back = f"{name}.back"
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [back], axis=axis))
            self.made[name] = back
        return self.made[name]

    def _constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name
