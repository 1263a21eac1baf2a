"""Folds on the exported graph: what only shows once the network is a list of nodes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from export.fusion_report import Fold


def fold_graph(model: onnx.ModelProto, *, norms: bool) -> list[Fold]:
    """Rewrite a graph, in place, so that it gives the same scores with fewer nodes.

    Args:
        model: Of `export_onnx`.
        norms: Fold batch-norms into the convolutions before them. Their weights are then no longer
            those that were trained, and do not fit float16 where those did.

    Returns:
        What was folded, for the fusion report.
    """
    constants_to_initializers(model.graph)
    norms_folded, bytes_saved = fold_batch_norms(model.graph) if norms else (0, 0)
    left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    what = f"{norms_folded} in the convolutions before them"
    if left:
        why = "no convolution before them" if norms else "the file stores weights as float16"
        what += f"; {left} kept: {why}"
    paddings, shapes = fold_paddings(model.graph), fix_shapes(model)
    _drop_unused(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return [
        Fold("backbone.norms", what, bytes_saved=bytes_saved),
        Fold("backbone.paddings", f"{paddings} in the convolutions behind them"),
        Fold("shapes", f"{shapes} computed at export, the batch excepted"),
    ]


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Keep every constant tensor in one place."""
    for node in [n for n in graph.node if n.op_type == "Constant"]:
        attribute = node.attribute[0]
        if attribute.name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
        elif attribute.name == "value_ints":
            values = np.array(attribute.ints, np.int64)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            continue
        graph.node.remove(node)


def fold_batch_norms(graph: onnx.GraphProto) -> tuple[int, int]:
    """Scale the weights of every convolution that a batch-norm alone reads; how many, and bytes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    count, numbers = 0, 0
    for norm in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = producers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or readers[norm.input[0]] > 1:
            continue
        weight = constant_values(tensors[conv.input[1]])
        scale, shift, mean, variance = (constant_values(tensors[name]) for name in norm.input[1:])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        bias = (
            constant_values(tensors[conv.input[2]]) if len(conv.input) > 2 else np.zeros_like(mean)
        )
        numbers += (4 if len(conv.input) > 2 else 3) * mean.size
        folded = {
            f"{norm.output[0]}.weight": weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
            f"{norm.output[0]}.bias": (bias - mean) * factor + shift,
        }
        for name, array in folded.items():
            graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        conv.input[:] = [conv.input[0], *folded]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
        count += 1
    return count, 4 * numbers


def fold_paddings(graph: onnx.GraphProto) -> int:
    """Let convolutions pad with zeros themselves; how many."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    count = 0
    for conv in [n for n in graph.node if n.op_type == "Conv"]:
        pad = producers.get(conv.input[0])
        if pad is None or pad.op_type != "Pad" or readers[conv.input[0]] > 1:
            continue
        amounts = _zero_padding(pad, tensors)
        own = next((a for a in conv.attribute if a.name == "pads"), None)
        auto = next((a.s for a in conv.attribute if a.name == "auto_pad"), b"NOTSET")
        if amounts is None or auto != b"NOTSET":
            continue
        if own is not None:
            amounts = amounts + np.array(own.ints)
            conv.attribute.remove(own)
        conv.attribute.append(helper.make_attribute("pads", amounts.tolist()))
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
        count += 1
    return count


def _zero_padding(pad: NodeProto, tensors: dict[str, TensorProto]) -> NDArray[np.int64] | None:
    """Rows and columns before and after, where nothing but zeros is put around pictures."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    constants = [tensors.get(name) for name in pad.input[1:] if name]
    if mode != b"constant" or None in constants or len(pad.input) > 3:
        return None
    amounts, *value = [numpy_helper.to_array(tensor) for tensor in constants if tensor is not None]
    before, after = np.split(amounts, 2)
    if any(v.any() for v in value) or min(amounts) < 0 or before[:2].any() or after[:2].any():
        return None
    return np.concatenate([before[2:], after[2:]])


def fix_shapes(model: onnx.ModelProto) -> int:
    """Write the shape of every Reshape as a constant, -1 for the batch; how many."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    constants = {tensor.name for tensor in graph.initializer}
    count = 0
    for node in [n for n in graph.node if n.op_type == "Reshape" and n.input[1] not in constants]:
        batch, *rest = shapes.get(node.output[0], [0, 0])
        if batch or not all(rest):
            continue
        name = f"{node.output[0]}.shape"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, *rest]), name))
        node.input[1] = name
        count += 1
    return count


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Leave nodes and constants out that lead to no output."""
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if used & set(node.output):
            used |= set(node.input)
        else:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def constant_values(tensor: TensorProto) -> NDArray[np.float64]:
    """A constant's numbers."""
    return numpy_helper.to_array(tensor).astype(np.float64)
