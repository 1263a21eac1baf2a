"""Folds around the nodes of the attention operator. All are identities of attention.

A key's bias adds the same number to every score of a query, which the softmax does not see. Weights
that sum to 1 let a value's bias pass unchanged. With one head, the output projection commutes with the
weights and joins the value's, and a query's projection joins a constant key.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto

from export.attention import DOMAIN
from export.graph_index import GraphIndex

Note = tuple[str, str]  # name of a node, and what was folded there


def attention_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    """Of whatever head width."""
    return [node for node in graph.node if node.domain == DOMAIN]


def fold_attention_biases(graph: onnx.GraphProto) -> list[Note]:
    """Drop the key's bias, and add the value's behind the output projection."""
    index, notes = GraphIndex(graph), []
    for node in attention_nodes(graph):
        key = index.affine(node.input[1])
        if key is not None:
            index.read(node, 1, key.product)
            notes.append((node.name, "key bias dropped"))
        value = index.affine(node.input[2])
        out = index.reader(node.output[0], "MatMul")
        weight = None if out is None else index.constant(out.input[1])
        add = None if out is None else index.reader(out.output[0], "Add")
        bias = None if add is None else index.constant(add.input[1])
        if value is None or weight is None or add is None or bias is None:
            continue
        index.read(node, 2, value.product)
        index.read(add, 1, index.add(f"{add.output[0]}.bias", value.bias @ weight + bias))
        notes.append((node.name, "value bias behind the output projection"))
    return notes


def fold_one_head(graph: onnx.GraphProto) -> list[Note]:
    """With one head: output projection into the value's, query projection into a constant key."""
    index, notes = GraphIndex(graph), []
    for node in attention_nodes(graph):
        if next(field.i for field in node.attribute if field.name == "num_heads") != 1:
            continue
        if _fold_output(index, node):
            notes.append((node.name, "output projection in the value's"))
        if _fold_query(index, node):
            notes.append((node.name, "query projection in the constant key"))
    return notes


def _fold_output(index: GraphIndex, node: NodeProto) -> bool:
    out = index.reader(node.output[0], "MatMul")
    weight = None if out is None else index.constant(out.input[1])
    project, values = index.producers.get(node.input[2]), index.constant(node.input[2])
    if values is None and project is not None and project.op_type == "MatMul":
        values = index.constant(project.input[1])
    if out is None or weight is None or values is None:
        return False
    folded = index.add(f"{out.output[0]}.value", values @ weight)
    if project is not None:  # a product of its own, for others may read the former one
        own = index.insert(project, [project.input[0], folded], f"{folded}s")
        folded = own.output[0]
    index.read(node, 2, folded)
    node.output[0] = out.output[0]
    index.graph.node.remove(out)
    return True


def _fold_query(index: GraphIndex, node: NodeProto) -> bool:
    if len(node.input) < 4:
        return False
    key, key_bias = index.constant(node.input[1]), index.constant(node.input[3])
    query = index.affine(node.input[0])
    project = None if query is None else index.producers[query.product]
    weight = None if project is None else index.constant(project.input[1])
    if key is None or key_bias is None or query is None or project is None or weight is None:
        return False
    scale = next(field.f for field in node.attribute if field.name == "scale")
    index.read(node, 3, index.add(f"{node.name}.key_bias", key_bias + scale * key[0] @ query.bias))
    index.read(node, 1, index.add(f"{node.name}.key", key @ weight.T))
    index.read(node, 0, project.input[0])
    return True
