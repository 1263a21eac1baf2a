"""ONNX's own Attention in the place of our operator's body: the same formula, taken by TensorRT too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from benchmarks.gpu.standard_attention import OPSET, with_standard_attention
from csrc.tensorrt import packages
from export import attention

BUILD = """
import sys, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse(sys.stdin.buffer.read()), parser.get_error(0)
layers = [network.get_layer(i).type.name for i in range(network.num_layers)]
print(sorted({name for name in layers if name.startswith("ATTENTION")}))
"""


def model(*, biased: bool, batch: str | int = "N") -> bytes:
    """One node with our body; constant queries."""
    shapes: dict[str, list[Any]] = {
        "query": [1, 5, 64],
        "key": [batch, 7, 64],
        "value": [batch, 7, 64],
    }
    if biased:
        shapes["key_bias"] = [7]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 5, 64])
    node = helper.make_node(
        attention.NAME, [*shapes], ["out"], domain=attention.DOMAIN, num_heads=2, scale=0.25,
        plugin_version=attention.VERSION, plugin_namespace=attention.DOMAIN,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(attention.DOMAIN, 1)]
    graph = helper.make_graph([node], "node", inputs, [out])
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    attention.add_body(made)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("biased", [False, True])
def test_it_computes_what_our_body_computes(biased: bool) -> None:
    random, results = np.random.default_rng(0), []
    given = {"query": (1, 5, 64), "key": (3, 7, 64), "value": (3, 7, 64), "key_bias": (7,)}
    feed = {name: random.standard_normal(shape).astype(np.float32) for name, shape in given.items()}
    if not biased:
        del feed["key_bias"]
    ours = model(biased=biased)
    for content in (ours, with_standard_attention(ours)):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        results.append(session.run(None, feed)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    changed = onnx.load_from_string(with_standard_attention(ours))
    assert [node.op_type for node in changed.functions[0].node].count("Attention") == 1
    assert {o.version for o in changed.opset_import if o.domain == ""} == {OPSET}


@pytest.mark.parametrize("biased", [False, True])
def test_nvidias_parser_makes_one_fused_layer_of_it(biased: bool, tmp_path: Path) -> None:
    folder = packages.find("rtx")
    if folder is None:
        pytest.skip("TensorRT's packages: run `python -m csrc.tensorrt.packages`")
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        input=with_standard_attention(model(biased=biased, batch=2)),
        env={**os.environ, "PYTHONPATH": str(folder)}, cwd=tmp_path, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert "ATTENTION" in done.stdout.decode()
