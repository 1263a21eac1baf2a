"""Folds on the exported graph: what hangs on weights alone, and what a convolution can do itself."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from export.fold_attention import (
    Note,
    fold_attention_biases,
    fold_one_head,
)
from export.graph_index import GraphIndex, constant_values


def fold_graph(model: onnx.ModelProto, *, norms: bool, without: Collection[str] = ()) -> list[Note]:
    """Rewrite a graph, in place, so that it gives the same scores with fewer nodes.

    Args:
        model: Of `export_onnx`.
        norms: Fold batch-norms into the convolutions before them. Their weights are then no longer
            those that were trained, and do not fit float16 where those did.
        without: Names of `FOLDS` to leave out, to see what they are worth.

    Returns:
        What was folded, for the fusion report.
    """
    constants_to_initializers(model.graph)
    skipped = {*without, *([] if norms else ["norms"])}
    notes = [note for name, fold in FOLDS.items() if name not in skipped for note in fold(model)]
    _drop_unused(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return notes


def fold_constants(model: onnx.ModelProto) -> None:
    """Compute, in place, everything that hangs on constants alone."""
    graph = model.graph
    constants_to_initializers(graph)
    known = {tensor.name for tensor in graph.initializer}
    constant: list[NodeProto] = []
    for node in graph.node:
        if all(name in known for name in node.input):
            constant.append(node)
            known |= set(node.output)
    made = {name for node in constant for name in node.output}
    read = {name for node in graph.node if node.output[0] not in made for name in node.input}
    wanted = sorted(made & (read | {value.name for value in graph.output}))
    if not wanted:
        return
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.input[:], part.graph.output[:]
    part.graph.node.extend(constant)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    _drop_unused(part.graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for name, values in zip(wanted, session.run(wanted, {}), strict=True):
        graph.initializer.append(numpy_helper.from_array(values, name))
    kept = [node for node in graph.node if node.output[0] not in made]
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(graph)
    operators = {node.op_type for node in graph.node}
    for function in [f for f in model.functions if f.name not in operators]:
        model.functions.remove(function)


def fold_pixel_scale(graph: onnx.GraphProto) -> list[Note]:
    """Scale the weights of the convolution that reads the picture; zeros around it stay zeros."""
    index = GraphIndex(graph)
    for conv in [n for n in graph.node if n.op_type == "Conv"]:
        node = index.maker(conv.input[0], "Pad", "Transpose", "Div")
        while node is not None and node.op_type in {"Pad", "Transpose"}:
            node = index.maker(node.input[0], "Pad", "Transpose", "Div")
        weight = index.constant(conv.input[1])
        divisor = index.constant(node.input[1]) if node is not None else None
        if node is None or divisor is None or weight is None or divisor.size != weight.shape[1]:
            continue
        scaled = index.add(f"{conv.output[0]}.scaled", weight / divisor.reshape(1, -1, 1, 1))
        index.read(conv, 1, scaled)
        for reader in graph.node:
            for place, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[place] = node.input[0]
        return [(conv.name, "deviation of the pixels in the first convolution")]
    return []


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


def fold_batch_norms(graph: onnx.GraphProto) -> list[Note]:
    """Scale the weights of every convolution that a batch-norm alone reads."""
    index, notes = GraphIndex(graph), []
    for norm in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = index.maker(norm.input[0], "Conv")
        if conv is None:
            continue
        weight = constant_values(index.tensors[conv.input[1]])
        scale, shift, mean, variance = (
            constant_values(index.tensors[name]) for name in norm.input[1:]
        )
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        bias = constant_values(index.tensors[conv.input[2]]) if len(conv.input) > 2 else 0.0
        name, shape = norm.output[0], (-1, *[1] * (weight.ndim - 1))
        conv.input[1:] = [
            index.add(f"{name}.weight", weight * factor.reshape(shape)),
            index.add(f"{name}.bias", (bias - mean) * factor + shift),
        ]
        conv.output[0] = name
        graph.node.remove(norm)
        notes.append((conv.name, "batch-norm in the convolution"))
    return notes


def fold_paddings(graph: onnx.GraphProto) -> list[Note]:
    """Let convolutions pad with zeros themselves."""
    index, notes = GraphIndex(graph), []
    for conv in [n for n in graph.node if n.op_type == "Conv"]:
        pad = index.maker(conv.input[0], "Pad")
        amounts = None if pad is None else _zero_padding(pad, index.tensors)
        own = next((a for a in conv.attribute if a.name == "pads"), None)
        auto = next((a.s for a in conv.attribute if a.name == "auto_pad"), b"NOTSET")
        if pad is None or amounts is None or auto != b"NOTSET":
            continue
        if own is not None:
            amounts = amounts + np.array(own.ints)
            conv.attribute.remove(own)
        conv.attribute.append(helper.make_attribute("pads", amounts.tolist()))
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
        notes.append((conv.name, "padding in the convolution"))
    return notes


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


def fix_shapes(model: onnx.ModelProto) -> list[Note]:
    """Write the shape of every Reshape as a constant, -1 for the batch."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    constants = {tensor.name for tensor in graph.initializer}
    notes = []
    for node in [n for n in graph.node if n.op_type == "Reshape" and n.input[1] not in constants]:
        batch, *rest = shapes.get(node.output[0], [0, 0])
        if batch or not all(rest):
            continue
        name = f"{node.output[0]}.shape"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, *rest]), name))
        node.input[1] = name
        notes.append((node.name, "shape computed, the batch excepted"))
    return notes


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


FOLDS: dict[str, Callable[[onnx.ModelProto], list[Note]]] = {
    "attention biases": lambda model: fold_attention_biases(model.graph),
    "one head": lambda model: fold_one_head(model.graph),
    "pixels": lambda model: fold_pixel_scale(model.graph),
    "norms": lambda model: fold_batch_norms(model.graph),
    "paddings": lambda model: fold_paddings(model.graph),
    "shapes": fix_shapes,
}
