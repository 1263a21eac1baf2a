"""The operator `cmlr::CmlrAttention`: as a PyTorch operator, as an ONNX node, and its ONNX body.

The contract is `csrc/include/cmlr/attention.h`. The body makes the file run where the operator is
unknown; a runtime that knows it takes its own kernel instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import TensorProto, numpy_helper
from onnx.defs import OpSchema
from onnxscript import values
from torch import Tensor, nn

from train.network import attention as trained

NAME, DOMAIN, VERSION = "CmlrAttention", "cmlr", "1"
HEAD_WIDTHS = (32, 64)  # that the kernels take; a test holds them against the plugin
PLAIN_NAME = "PlainAttention"  # the same operator at another width: never anything but its body
_BODY_OPSET = 18
_ATTRIBUTES = ("num_heads", "scale", "plugin_version", "plugin_namespace")


@torch.library.custom_op("cmlr::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, num_heads: int, scale: float
) -> Tensor:
    """Multi-head attention without its projections: softmax(scale * q k^T + key_bias) v per head.

    Args:
        query: (1|B, L, d).
        key: (1|B, T, d).
        value: (1|B, T, d).
        key_bias: (T,), float32 whatever the others are, added to every scaled score.
        num_heads: Divides d; a head is a slice of d / num_heads columns.
        scale: Of the scores.

    Returns:
        (B, L, d).
    """
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = scale * (q @ k.transpose(-1, -2))
    if key_bias is not None:
        scores = scores + key_bias
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


@attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, num_heads: int, scale: float
) -> Tensor:
    del value, key_bias, num_heads, scale
    batch = key.shape[0] if query.shape[0] == 1 else query.shape[0]
    return query.new_empty(batch, *query.shape[1:])


@contextmanager
def as_operator(model: nn.Module) -> Iterator[None]:
    """Let a network's attentions be this operator for a while, where it can say what they compute.

    It has no bias for a pair of query and key: an attention with one stays plain operations.
    """

    def attend(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, num_heads: int, scale: float
    ) -> Tensor:
        paired = bias is not None and bias.ndim > 1
        function = trained.attend if paired else attention
        mixed: Tensor = function(query, key, value, bias, num_heads, scale)
        return mixed

    modules = [m for m in model.modules() if isinstance(m, trained.MultiHeadAttention)]
    for module in modules:
        module.attend = attend
    try:
        yield
    finally:
        for module in modules:
            module.attend = trained.attend


def onnx_translation() -> dict[Any, Any]:
    """What `torch.onnx.export` needs to write the operator as one node."""
    operator = values.Op(values.Opset(DOMAIN, int(VERSION)), NAME, _schema())

    def node(
        query: Any, key: Any, value: Any, key_bias: Any = None, num_heads: int = 1, scale: float = 1
    ) -> Any:
        inputs = (query, key, value) if key_bias is None else (query, key, value, key_bias)
        return operator(
            *inputs,
            num_heads=num_heads,
            scale=scale,
            plugin_version=VERSION,
            plugin_namespace=DOMAIN,
        )

    return {torch.ops.cmlr.attention.default: node}


def add_body(model: onnx.ModelProto) -> None:
    """Give the operator's nodes a body, so that the file runs everywhere; in place.

    A function's body cannot tell an input that is missing: where one node has a key bias, the
    others get one of zeros. Nodes of a head width that the kernels do not take are named
    otherwise, so that no runtime looks for a kernel.
    """
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, NAME)]
    biased = any(len(node.input) == 4 for node in nodes)
    values = [*model.graph.input, *model.graph.value_info]
    sizes = {v.name: _sizes(v) for v in values}
    sizes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in nodes:
        _, tokens, dim = sizes[node.input[1]]
        heads = next(field.i for field in node.attribute if field.name == "num_heads")
        if dim // heads not in HEAD_WIDTHS:
            node.op_type = PLAIN_NAME
        if biased and len(node.input) == 3:
            zeros = numpy_helper.from_array(np.zeros(tokens, np.float32), f"{node.name}.no_bias")
            model.graph.initializer.append(zeros)
            node.input.append(zeros.name)
    for name in sorted({node.op_type for node in nodes}):
        model.functions.append(_body(name, biased=biased))


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _body(name: str, *, biased: bool) -> onnx.FunctionProto:
    """The formula in standard operators; softmax in float32 whatever the type around it."""
    function: onnx.FunctionProto = onnx.parser.parse_function(
        f"""<domain: "{DOMAIN}", opset_import: ["" : {_BODY_OPSET}]>
        {name} <{", ".join(_ATTRIBUTES)}> (query, key, value{", key_bias" * biased}) => (out)
        {{
            heads = Constant <value_int: int = @num_heads> ()
            first = Constant <value_ints = [0]> ()
            rows = Constant <value_ints = [0, 0]> ()
            rest = Constant <value_ints = [-1]> ()
            heads_list = Unsqueeze (heads, first)
            split = Concat <axis = 0> (rows, heads_list, rest)
            joined = Concat <axis = 0> (rows, rest)
            query_heads = Reshape (query, split)
            key_heads = Reshape (key, split)
            value_heads = Reshape (value, split)
            q = Transpose <perm = [0, 2, 1, 3]> (query_heads)
            k = Transpose <perm = [0, 2, 3, 1]> (key_heads)
            v = Transpose <perm = [0, 2, 1, 3]> (value_heads)
            scale_wide = Constant <value_float: float = @scale> ()
            scale_like = CastLike (scale_wide, query)
            scaled = Mul (q, scale_like)
            products = MatMul (scaled, k)
            scores = Cast <to = {TensorProto.FLOAT}> (products)
            {"biased = Add (scores, key_bias)" if biased else "biased = Identity (scores)"}
            weights_wide = Softmax <axis = -1> (biased)
            weights = CastLike (weights_wide, value)
            mixed = MatMul (weights, v)
            mixed_rows = Transpose <perm = [0, 2, 1, 3]> (mixed)
            out = Reshape (mixed_rows, joined)
        }}"""
    )
    return function


def _schema() -> OpSchema:
    parameter, optional = OpSchema.FormalParameter, OpSchema.FormalParameterOption.Optional
    inputs = [parameter(name, "T") for name in ("query", "key", "value")]
    kinds = (OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT, *[OpSchema.AttrType.STRING] * 2)
    return OpSchema(
        NAME,
        DOMAIN,
        int(VERSION),
        inputs=[*inputs, parameter("key_bias", "tensor(float)", param_option=optional)],
        outputs=[parameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            OpSchema.Attribute(name, kind) for name, kind in zip(_ATTRIBUTES, kinds, strict=True)
        ],
    )
