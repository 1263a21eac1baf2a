"""A float32 graph -> a typed float16 graph: every tensor's type is written in the file.

Kept in float32: normalisations, softmax and what feeds it, sums, and the logits with everything
behind them. A runtime that builds strongly typed then has nothing left to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from cmlr_edge.errors import EngineError
from export.attention import NAME, PLAIN_NAME
from export.fold_graph import constants_to_initializers, fold_batch_norms
from export.graph_index import constant_values

_WIDE = {
    "LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization",
    "ReduceSum", "ReduceL2", "Sqrt", "ConstantOfShape",
}  # fmt: skip
# Between a matrix product and the scores, or a softmax: what is kept in float32 with them.
_BEHIND_A_PRODUCT = {
    "Add", "Sub", "Mul", "Div", "Neg", "Sigmoid", "Log", "Sqrt", "Max", "Min", "Clip", "ReduceSum",
    "ReduceMean", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Concat", "Softmax",
}  # fmt: skip


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write a graph in float16.

    Args:
        model: Of `export_onnx`; stays as it is.

    Returns:
        A copy, checked by onnx: its frames are uint8 and its scores float32 as before, batch
        normalisation is folded into the convolutions before it.

    Raises:
        EngineError: The graph has branches or loops.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if nested := [n.name for n in graph.node if any(a.HasField("g") for a in n.attribute)]:
        raise EngineError(f"float16 needs a graph without branches or loops, it has {nested}")
    constants_to_initializers(graph)
    fold_batch_norms(graph)
    typed = shape_inference.infer_shapes(result)
    values = [*typed.graph.input, *typed.graph.output, *typed.graph.value_info]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    rewriter = _Rewriter(graph, floats, _wide_nodes(graph))
    for node in list(graph.node):
        rewriter.add(node)
    rewriter.finish()
    onnx.checker.check_model(result, full_check=True)
    return result


def _wide_nodes(graph: onnx.GraphProto) -> set[str]:
    """First outputs of the nodes that stay in float32."""
    producers = {name: node for node in graph.node for name in node.output}
    constants = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    outside = {
        name for name, tensor in constants.items() if not _fits_float16(constant_values(tensor))
    }
    # A computed divisor is a length, kept above 0 by less than float16 can tell from 0.
    ratios = [n for n in graph.node if n.op_type == "Div" and n.input[1] not in constants]
    wide = {n.output[0] for n in graph.node if n.op_type in _WIDE or outside & set(n.input)}
    wide |= {node.output[0] for node in ratios}
    todo = [value.name for value in graph.output] + [node.input[1] for node in ratios]
    todo += [n.output[0] for n in graph.node if n.op_type == "Softmax"]
    reached: set[str] = set()
    while todo:
        node = producers.get(todo.pop())
        if node is None or node.output[0] in reached or node.op_type not in _BEHIND_A_PRODUCT:
            continue
        reached.add(node.output[0])
        todo += node.input
    # Probabilities of such logits, on their way to the label links.
    links = {n.output[0] for n in graph.node if n.op_type == "Sigmoid" and n.input[0] in reached}
    return wide | reached | links


def _fits_float16(values: NDArray[np.float64]) -> bool:
    """No number too large, and no lone number that would become 0."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float16)
    return bool(np.isfinite(narrow).all()) and not (
        values.size == 1 and values.any() > narrow.any()
    )


@dataclass
class _Rewriter:
    """Gives every node the type it is to run in, with a Cast wherever two types meet."""

    graph: onnx.GraphProto
    floats: set[str]  # names that were float32
    wide: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)  # of computed values
    made: dict[tuple[str, int], str] = field(default_factory=dict)  # converted copies

    def __post_init__(self) -> None:
        """Look the constants up."""
        self.constants = {
            tensor.name: tensor
            for tensor in self.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }

    def add(self, node: NodeProto) -> None:
        """Convert one node; its inputs have been."""
        wanted = TensorProto.FLOAT if node.output[0] in self.wide else TensorProto.FLOAT16
        if node.op_type == "Cast":
            self._convert_cast(node, wanted)
        else:
            # By definition the sizes of a Resize are float32, and so is the bias of our attention.
            count = {"Resize": 1, NAME: 3, PLAIN_NAME: 3}.get(node.op_type, len(node.input))
            node.input[count:] = [self._as(name, TensorProto.FLOAT) for name in node.input[count:]]
            node.input[:count] = [self._as(name, wanted) for name in node.input[:count]]
        self.nodes.append(node)
        for name in node.output:
            if name in self.floats:
                self.types[name] = wanted

    def finish(self) -> None:
        """Put nodes, constants and types into the graph."""
        for value in self.graph.output:
            if self.types.get(value.name) == TensorProto.FLOAT16:
                raise EngineError(f"{value.name} would be float16: no sum of logits leads to it")
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)
        for value in self.graph.value_info:
            if value.name in self.types:
                value.type.tensor_type.elem_type = self.types[value.name]

    def _type(self, name: str) -> int:
        """Of a value that was float32; an input of the graph still is."""
        return self.types.get(name, TensorProto.FLOAT)

    def _convert_cast(self, node: NodeProto, wanted: int) -> None:
        if node.output[0] in self.floats:
            node.attribute[0].i = wanted

    def _as(self, name: str, wanted: int) -> str:
        """The value in the wanted type: itself, a converted constant, or a Cast."""
        if name not in self.constants and (name not in self.floats or self._type(name) == wanted):
            return name
        if name in self.constants and wanted == TensorProto.FLOAT:
            return name
        if (name, wanted) not in self.made:
            suffix = "float16" if wanted == TensorProto.FLOAT16 else "float32"
            self.made[name, wanted] = converted = f"{name}.{suffix}"
            if name in self.constants:
                narrow = numpy_helper.to_array(self.constants[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(narrow, converted))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [converted], to=wanted))
        return self.made[name, wanted]
