"""The node `cmlr::CmlrAttention` in a file: its names, its body, and who agrees on what it gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cmlr_edge import _native
from export import attention
from tests.export.runtimes import run_everywhere

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Array = NDArray[np.float32]
SHAPES = {  # batch of query, of key, of value; L, T, d, heads
    "one label, one token": (1, 2, 2, 1, 1, 8, 2),
    "constant queries": (1, 3, 3, 5, 33, 16, 4),
    "constant keys and values": (3, 1, 1, 5, 7, 16, 1),
    "constant queries and keys": (1, 1, 2, 5, 9, 16, 2),
    "no constants": (2, 2, 2, 17, 49, 64, 2),
}


def draw(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def one_node(inputs: dict[str, Array], num_heads: int, scale: float) -> onnx.ModelProto:
    """A file with the node alone, or twice: with and without a bias."""
    kind = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    names, graph_inputs = list(inputs), []
    for name, array in inputs.items():
        graph_inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    fields: dict[str, Any] = {"num_heads": num_heads, "scale": scale, "domain": attention.DOMAIN}
    fields |= {"plugin_version": attention.VERSION, "plugin_namespace": attention.DOMAIN}
    node = helper.make_node(attention.NAME, names, ["out"], name="node", **fields)
    plain = helper.make_node(attention.NAME, names[:3], ["plain"], name="plain", **fields)
    outputs = [helper.make_tensor_value_info(n, kind, ["n", "l", "d"]) for n in ("out", "plain")]
    graph = helper.make_graph([node, plain], "attention", graph_inputs, outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(attention.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    attention.add_body(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def formula(
    query: Array, key: Array, value: Array, heads: int, scale: float, bias: Array | None
) -> NDArray[np.float64]:
    batch = max(len(query), len(key), len(value))
    q, k, v = (
        np.broadcast_to(x.astype(np.float64), (batch, *x.shape[1:])) for x in (query, key, value)
    )
    q, k, v = (x.reshape(batch, x.shape[1], heads, -1) for x in (q, k, v))
    scores = scale * np.einsum("blhw,bthw->bhlt", q, k)
    scores += 0 if bias is None else bias.astype(np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhlt,bthw->blhw", weights, v).reshape(batch, query.shape[1], -1)


def test_the_contract_header_the_native_module_and_export_use_the_same_names() -> None:
    header = (ROOT / "csrc/include/cmlr/attention.h").read_text()
    for constant, ours, native in (
        ("kAttentionName", attention.NAME, _native.ATTENTION_NAME),
        ("kAttentionDomain", attention.DOMAIN, _native.ATTENTION_DOMAIN),
        ("kAttentionVersion", attention.VERSION, _native.ATTENTION_VERSION),
    ):
        found = re.search(rf'{constant} = "(.*)"', header)
        assert found is not None
        assert found[1] == ours == native


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_runtimes_agree_with_the_formula_and_the_native_operator(
    name: str, with_bias: bool
) -> None:
    nq, nk, nv, labels, tokens, width, heads = SHAPES[name]
    arrays = (draw(nq, labels, width), draw(nk, tokens, width), draw(nv, tokens, width))
    inputs = dict(zip(("query", "key", "value"), arrays, strict=True))
    bias = draw(tokens) if with_bias else None
    model = one_node(inputs | ({} if bias is None else {"key_bias": bias}), heads, 0.3)
    native = _native.attention(*arrays, num_heads=heads, scale=0.3, key_bias=bias)
    for out, plain in run_everywhere(model, inputs | ({} if bias is None else {"key_bias": bias})):
        np.testing.assert_allclose(out, formula(*arrays, heads, 0.3, bias), atol=1e-5)
        np.testing.assert_allclose(out, native, atol=1e-5)
        np.testing.assert_allclose(plain, formula(*arrays, heads, 0.3, None), atol=1e-5)


def test_the_body_sums_the_softmax_in_float32_between_float16_tensors() -> None:
    # In float16, 5000 weights of 1/5000 would be summed to 4096/5000 at best, one after the other.
    wide = (draw(1, 2, 8), np.zeros((1, 5000, 8), np.float32), np.ones((1, 5000, 8), np.float32))
    inputs = {n: x.astype(np.float16) for n, x in zip(("query", "key", "value"), wide, strict=True)}
    model = one_node(inputs, 2, 0.5)  # type: ignore[arg-type]
    casts = [n.attribute[0].i for n in model.functions[0].node if n.op_type == "Cast"]
    assert casts == [TensorProto.FLOAT]
    for out, _ in run_everywhere(model, inputs):
        assert out.dtype == np.float16
        np.testing.assert_allclose(out, 1, atol=2e-3)


def test_the_torch_operator_is_well_formed() -> None:
    arguments = (torch.randn(1, 3, 8), torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(4))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(attention.attention, (*arguments, 2, 0.5), test_utils=checks)
