"""The operator CmlrAttention by ONNX's own Attention (opset 23), which TensorRT 10.14 and newer fuse.

The rival of our kernel: the same file, with another body for the same nodes.
"""

from __future__ import annotations

import onnx
import onnx.parser

from export.attention import DOMAIN

OPSET = 23
OLDEST_TENSORRT = (10, 14)


def with_standard_attention(content: bytes) -> bytes:
    """The file with every body of ours replaced; everything else as it is."""
    model = onnx.load_from_string(content)
    for function in model.functions:
        if function.domain == DOMAIN:
            function.CopyFrom(_body(function))
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, OPSET)
    return model.SerializeToString()


def _body(ours: onnx.FunctionProto) -> onnx.FunctionProto:
    """Batches of one are spread: Attention wants the same for all. The mask has a row a query."""
    biased = len(ours.input) == 4
    masked = """
            queries = Shape <start = 1, end = 2> (query)
            tokens = Shape <start = 1, end = 2> (key)
            mask_shape = Concat <axis = 0> (queries, tokens)
            typed = CastLike (key_bias, query)
            mask = Expand (typed, mask_shape)"""
    function: onnx.FunctionProto = onnx.parser.parse_function(
        f"""<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
        {ours.name} <{", ".join(ours.attribute)}> ({", ".join(ours.input)}) => (out)
        {{
            query_batch = Shape <start = 0, end = 1> (query)
            key_batch = Shape <start = 0, end = 1> (key)
            value_batch = Shape <start = 0, end = 1> (value)
            batch = Max (query_batch, key_batch, value_batch)
            query_item = Shape <start = 1> (query)
            key_item = Shape <start = 1> (key)
            query_shape = Concat <axis = 0> (batch, query_item)
            key_shape = Concat <axis = 0> (batch, key_item)
            q = Expand (query, query_shape)
            k = Expand (key, key_shape)
            v = Expand (value, key_shape){masked * biased}
            out = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads,
                             scale: float = @scale> (q, k, v{", mask" * biased})
        }}"""
    )
    return function
