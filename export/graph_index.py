"""Who makes, who reads and what is constant in an ONNX graph, for the folds on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper


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

    def split(self, node: NodeProto | None) -> tuple[str, NDArray[np.float64]] | None:
        """What is computed and what is constant, of a node of two inputs."""
        if node is None:
            return None
        constants = [self.constant(name) for name in node.input]
        if constants[1] is not None:
            return node.input[0], constants[1]
        if constants[0] is not None and node.op_type in {"Add", "Mul"}:
            return node.input[1], constants[0]
        return None

    def add(self, name: str, values: NDArray[Any]) -> str:
        """Keep a constant, numbers as float32; its name."""
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        self.tensors[name] = self.graph.initializer[-1]
        return name

    def read(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node read something else."""
        self.readers[node.input[place]] -= 1
        self.readers[name] += 1
        node.input[place] = name

    def skip(self, node: NodeProto, name: str) -> None:
        """Let everybody read `name` in the place of what this node makes, and drop it."""
        for reader in self.graph.node:
            for place, read in enumerate(reader.input):
                if read == node.output[0]:
                    self.read(reader, place, name)
        self.drop(node)

    def drop(self, node: NodeProto) -> None:
        """Take a node out."""
        for name in node.input:
            self.readers[name] -= 1
        for name in node.output:
            self.producers.pop(name, None)
        self.graph.node.remove(node)


def constant_values(tensor: TensorProto) -> NDArray[np.float64]:
    """A constant's numbers."""
    return numpy_helper.to_array(tensor).astype(np.float64)
