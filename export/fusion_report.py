"""What folding did, part by part of the network: operations, multiply-adds and bytes before and after."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, shape_inference

from export.attention import DOMAIN
from export.fold_attention import Note

_FACTORS = re.compile(r"(?<!\w)\d+")
_LAYERS = "decoder.layers."


@dataclass
class Count:
    """Of one part of a graph."""

    operators: Counter[str] = field(default_factory=Counter)
    multiply_adds: int = 0  # per image, in matrix products and convolutions
    bytes: int = 0  # of the constants that it reads


def count_parts(model: onnx.ModelProto) -> dict[str, Count]:
    """Count what each part of a graph does for one image, in the order of the network."""
    sizes = _sizes_of_one_image(model)
    constants = {t.name: 4 * math.prod(t.dims) for t in model.graph.initializer}
    parts: dict[str, Count] = {}
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        count = parts.setdefault(part_of(node.name), Count())
        count.operators[node.op_type] += 1
        count.multiply_adds += _multiply_adds(node, sizes)
        count.bytes += sum(constants.pop(name, 0) for name in node.input)
    return parts


def part_of(name: str) -> str:
    """Row of the report that a node belongs to."""
    part, *rest = name.split("/")
    if part != "head":
        return part
    module = rest[0] if len(rest) > 1 else "scores"
    depth = 3 if module.startswith(_LAYERS) else 1
    return ".".join(module.split(".")[:depth])


def _sizes_of_one_image(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of all values: as the exporter noted them, else inferred."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    graph = single.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:  # of one image 4*batch is 4
                dim.dim_value = math.prod(map(int, _FACTORS.findall(dim.dim_param)))
    inferred = shape_inference.infer_shapes(single, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    sizes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return sizes | {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}


def _multiply_adds(node: NodeProto, sizes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type not in {"MatMul", "Gemm", "Conv"} and node.domain != DOMAIN:
        return 0
    first, second = (sizes[name] for name in node.input[:2])
    if node.domain == DOMAIN:
        batch = max(sizes[name][0] for name in node.input[:3])
        return 2 * batch * first[1] * second[1] * second[2]
    if node.op_type == "MatMul" and len(second) > 1:  # a product with a vector counts for nothing
        batches = math.prod(np.broadcast_shapes(first[:-2], second[:-2]))
        return batches * math.prod(first[-2:]) * second[-1]
    if node.op_type == "Gemm":
        return math.prod(sizes[node.output[0]]) * first[0 if _is_set(node, "transA") else 1]
    if node.op_type == "Conv":
        return math.prod(sizes[node.output[0]]) * math.prod(second[1:])
    return 0


def _is_set(node: NodeProto, name: str) -> bool:
    return any(field.name == name and field.i for field in node.attribute)


@dataclass(frozen=True)
class Fold:
    """One part of the network."""

    node: str
    what: str  # was folded
    multiply_adds_saved: int = 0  # per image, in matrix products
    bytes_saved: int = 0  # of float32 constants; negative where a folded one is larger


@dataclass(frozen=True)
class FusionReport:
    """All parts, in the order of the network."""

    folds: tuple[Fold, ...]

    @staticmethod
    def of(
        before: dict[str, Count], after: dict[str, Count], notes: Iterable[Note]
    ) -> FusionReport:
        """Compare a graph as it was traced with what became of it.

        Args:
            before: Counts of the parts.
            after: Likewise.
            notes: Which fold touched which node.
        """
        what: dict[str, Counter[str]] = {name: Counter() for name in before}
        for node, note in notes:
            what[part_of(node)][note] += 1
        folds = []
        for name, was in before.items():
            now = after.get(name, Count())
            words = [f"{was.operators.total()} operations are {now.operators.total()}"]
            words += [f"{note} ({number})" for note, number in what[name].items()]
            saved = was.multiply_adds - now.multiply_adds, was.bytes - now.bytes
            folds.append(Fold(name, "; ".join(words), *saved))
        return FusionReport(tuple(folds))

    @property
    def multiply_adds_saved(self) -> int:
        """Per image."""
        return sum(fold.multiply_adds_saved for fold in self.folds)

    @property
    def bytes_saved(self) -> int:
        """Of float32 constants."""
        return sum(fold.bytes_saved for fold in self.folds)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, totals included."""
        return {
            "multiply_adds_saved": self.multiply_adds_saved,
            "bytes_saved": self.bytes_saved,
            "folds": [asdict(fold) for fold in self.folds],
        }
