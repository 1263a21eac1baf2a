"""Who makes, who reads and what is constant in an ONNX graph, for the folds on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper


@dataclass(frozen=True)
class Affine:
    """A product with a constant matrix, and a constant bias."""

    product: str  # what it gives without the bias
    bias: NDArray[np.float64]  # (d,)


class GraphIndex:
    """A graph by the names of its values. Holds as long as nodes are changed through it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Look everything up."""
        self.graph = graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(value.name for value in graph.output)

    def constant(self, name: str) -> NDArray[np.float64] | None:
        """Numbers of a constant; None of what is computed."""
        tensor = self.tensors.get(name)
        return None if tensor is None else constant_values(tensor)

    def maker(self, name: str, *operators: str) -> NodeProto | None:
        """The node that makes a value, where it is one of these operators and has no other reader."""
        node = self.producers.get(name)
        if node is None or node.op_type not in operators or self.readers[name] > 1:
            return None
        return node

    def reader(self, name: str, *operators: str) -> NodeProto | None:
        """The node that alone reads a value, where it is one of these operators."""
        if self.readers[name] != 1:
            return None
        found = (node for node in self.graph.node if name in node.input)
        node = next(found, None)
        return node if node is not None and node.op_type in operators else None

    def affine(self, name: str) -> Affine | None:
        """What a linear map with a bias makes, whoever else reads it."""
        add = self.producers.get(name)
        if add is None or add.op_type != "Add":
            return None
        product, bias = self.producers.get(add.input[0]), self.constant(add.input[1])
        if product is None or product.op_type != "MatMul" or bias is None or bias.ndim != 1:
            return None
        return Affine(product.output[0], bias)

    def add(self, name: str, values: NDArray[Any]) -> str:
        """Keep a constant, numbers as float32; its name."""
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        self.tensors[name] = self.graph.initializer[-1]
        return name

    def insert(self, like: NodeProto, inputs: list[str], output: str) -> NodeProto:
        """Put a node like this one, with other inputs, before it; itself."""
        place = next(
            i for i, node in enumerate(self.graph.node) if node.output[0] == like.output[0]
        )
        node = NodeProto()
        node.CopyFrom(like)
        node.name, node.input[:], node.output[:] = f"{like.name}.folded", inputs, [output]
        self.graph.node.insert(place, node)
        return node

    def read(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node read something else."""
        self.readers[node.input[place]] -= 1
        self.readers[name] += 1
        node.input[place] = name


def constant_values(tensor: TensorProto) -> NDArray[np.float64]:
    """A constant's numbers."""
    return numpy_helper.to_array(tensor).astype(np.float64)
