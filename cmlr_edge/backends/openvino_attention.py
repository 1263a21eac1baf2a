"""The operator `cmlr::CmlrAttention` for OpenVINO, whose ONNX reader does not look into a file's functions.

The formula is that of the function body which `export/attention.py` writes into the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlr_edge.machine.needed import needed

# The second is the same operator at a width that no kernel of ours takes.
_NAMES, _DOMAIN = ("CmlrAttention", "PlainAttention"), "cmlr"


def attention_extensions() -> list[Any]:
    """What `openvino.Core.add_extension` needs before it reads an exported file.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    with needed("OpenVINO is needed and cannot be imported", "pip install 'cmlr-edge[openvino]'"):
        from openvino.frontend.onnx import ConversionExtension
    return [ConversionExtension(name, _DOMAIN, _convert) for name in _NAMES]


def _convert(node: Any) -> Any:
    """softmax(scale * q k^T + key_bias) v per head, the softmax in float32."""
    import openvino.opset13 as ops

    heads = node.get_attribute("num_heads")

    def split(x: Any, order: list[int]) -> Any:
        shape = np.array([0, 0, heads, -1], np.int64)
        return ops.transpose(ops.reshape(x, shape, special_zero=True), np.array(order))

    query, key, value = (node.get_input(i) for i in range(3))
    scale = ops.convert_like(ops.constant(np.float32(node.get_attribute("scale"))), query)
    scaled = ops.multiply(split(query, [0, 2, 1, 3]), scale)
    products = ops.matmul(scaled, split(key, [0, 2, 3, 1]), transpose_a=False, transpose_b=False)
    scores = ops.convert(products, "f32")
    if node.get_input_size() == 4:
        scores = ops.add(scores, ops.convert(node.get_input(3), "f32"))
    weights = ops.convert_like(ops.softmax(scores, -1), value)
    mixed = ops.matmul(weights, split(value, [0, 2, 1, 3]), transpose_a=False, transpose_b=False)
    rows = ops.transpose(mixed, np.array([0, 2, 1, 3]))
    joined = ops.reshape(rows, np.array([0, 0, -1], np.int64), special_zero=True)
    return joined.outputs()
