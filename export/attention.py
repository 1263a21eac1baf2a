"""The operator `cmlr::CmlrAttention`: as a PyTorch operator, as an ONNX node, and its ONNX body.

The contract is `csrc/include/cmlr/attention.h`. The body makes the file run where the operator is
unknown; a runtime that knows it takes its own kernel instead.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript import values
from torch import Tensor

NAME, DOMAIN, VERSION = "CmlrAttention", "cmlr", "1"
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
        key_bias: (T,), added to every scaled score.
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


def _schema() -> OpSchema:
    parameter, optional = OpSchema.FormalParameter, OpSchema.FormalParameterOption.Optional
    inputs = [parameter(name, "T") for name in ("query", "key", "value")]
    kinds = (OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT, *[OpSchema.AttrType.STRING] * 2)
    return OpSchema(
        NAME,
        DOMAIN,
        int(VERSION),
        inputs=[*inputs, parameter("key_bias", "T", param_option=optional)],
        outputs=[parameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            OpSchema.Attribute(name, kind) for name, kind in zip(_ATTRIBUTES, kinds, strict=True)
        ],
    )
