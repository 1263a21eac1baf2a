"""Leaves outputs of an ONNX file out, with every node and constant that leads to them alone.

An engine that can say why it gave a score computes nothing of that where nobody asks: runtimes are
handed the file without those outputs. Needs no `onnx` package.
"""

from __future__ import annotations

from collections.abc import Collection

from cmlr_edge.errors import EngineError
from cmlr_edge.model.protobuf import fields, write_bytes

_GRAPH = 7  # numbers of fields: in ModelProto,
_NODE, _CONSTANT, _OUTPUT, _TYPE = 1, 5, 12, 13  # in GraphProto,
_NODE_INPUT, _NODE_OUTPUT, _VALUE_NAME, _CONSTANT_NAME = 1, 2, 1, 8  # in what it holds


def with_outputs(content: bytes, wanted: Collection[str]) -> bytes:
    """Return the file with these outputs alone; the same bytes where it has no others.

    Args:
        content: An ONNX file that `check_structure` has passed: nodes in order, without branches.
        wanted: Names of outputs.

    Raises:
        EngineError: It is not a protocol buffer.
    """
    try:
        parts = []
        for number, value, whole in fields(memoryview(content)):
            graph = _pruned(value, {name.encode() for name in wanted}) if number == _GRAPH else None
            parts.append(whole if graph is None else write_bytes(_GRAPH, graph))
        return b"".join(parts)
    except ValueError as error:
        raise EngineError(f"not an ONNX file: {error}. Export the model again") from error


def _pruned(graph: memoryview, wanted: set[bytes]) -> bytes | None:
    """The graph with these outputs alone; None where it stays as it is."""
    parts = list(fields(graph))
    outputs = {
        i: _name(value, _VALUE_NAME) for i, (n, value, _) in enumerate(parts) if n == _OUTPUT
    }
    if wanted >= {*outputs.values()} or not wanted & {*outputs.values()}:
        return None  # nothing to leave out, or no file of ours: its runtime says what is wrong
    used, dropped = {*wanted}, {i for i, name in outputs.items() if name not in wanted}
    for i in reversed(range(len(parts))):
        number, value, _ = parts[i]
        if number == _NODE:
            inner = [(n, bytes(text)) for n, text, _ in fields(value) if n in {1, 2}]
            if used & {text for n, text in inner if n == _NODE_OUTPUT}:
                used |= {text for n, text in inner if n == _NODE_INPUT}
            else:
                dropped.add(i)
    for i, (number, value, _) in enumerate(parts):
        if number == _CONSTANT and _name(value, _CONSTANT_NAME) not in used:
            dropped.add(i)
        if number == _TYPE and _name(value, _VALUE_NAME) not in used:
            dropped.add(i)
    return b"".join(whole for i, (_, _, whole) in enumerate(parts) if i not in dropped)


def _name(message: memoryview, field: int) -> bytes:
    return next((bytes(text) for number, text, _ in fields(message) if number == field), b"")
