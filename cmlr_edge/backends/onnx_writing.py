"""Writes nodes and constants of an ONNX graph without the `onnx` package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.model.protobuf import write_bytes, write_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

ADDED = "added/"  # begins the names of all that is appended to a file
# Numbers of fields in onnx.proto, and of kinds of elements.
NODE, CONSTANT = 1, 5
FLOAT, INT64 = 1, 7


def write_node(op: str, inputs: Sequence[str], outputs: Sequence[str], **numbers: int) -> bytes:
    """A node, as a field of a graph; `numbers` are its attributes."""
    texts = [(1, text) for text in inputs] + [(2, text) for text in outputs]
    texts += [(3, f"{ADDED}{op}.{outputs[0]}"), (4, op)]
    attributes = (
        write_bytes(5, write_bytes(1, key.encode()) + write_number(3, value) + write_number(20, 2))
        for key, value in numbers.items()
    )
    written = [write_bytes(number, text.encode()) for number, text in texts]
    return write_bytes(NODE, b"".join([*written, *attributes]))


def write_constant(name: str, values: NDArray[Any]) -> bytes:
    """A constant of int64 or float32, likewise."""
    kind = INT64 if values.dtype == np.int64 else FLOAT
    sizes = b"".join(write_number(1, size) for size in values.shape)
    content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return write_bytes(
        CONSTANT,
        sizes + write_number(2, kind) + write_bytes(8, name.encode()) + write_bytes(9, content),
    )
