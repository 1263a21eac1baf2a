"""Every provider computes what the model should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model, numpy_helper

from cmlr_edge import Recognizer, demo_engine
from cmlr_edge.backends import find_providers, load_backend
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from export.attention import DOMAIN, NAME, VERSION, add_body
from tests.conftest import SIZE_HW, mean_color_model, solid

# By NumPy in float64: pixels of a small picture attend from 2 labels, with a bias for each pixel.
_QUERIES = np.random.default_rng(1).standard_normal((1, 2, 6)).astype(np.float32)


def attention_model(*, biased: bool) -> bytes:
    """Two labels attend to the rows of a picture 4 x 2, each row a token of 6 numbers."""
    bias = np.linspace(-1, 1, 4).astype(np.float32)
    tensors = {"queries": _QUERIES, "bias": bias, "scale": np.array([1 / 255], np.float32)}
    tensors |= {"rows": np.array([0, 4, 6]), "flat": np.array([0, -1])}
    names = ["queries", "tokens", "tokens", "bias"][: 4 if biased else 3]
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["unit"]),
        helper.make_node("Reshape", ["unit", "rows"], ["tokens"]),
        helper.make_node(
            NAME,
            names,
            ["mixed"],
            domain=DOMAIN,
            num_heads=3,
            scale=0.5,
            plugin_version=VERSION,
            plugin_namespace=DOMAIN,
        ),
        helper.make_node("Reshape", ["mixed", "flat"], ["joined"]),
        helper.make_node("Sigmoid", ["joined"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 4, 2, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 12])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
        value_info=[helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["n", 4, 6])],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, int(VERSION))]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    add_body(model)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("biased", [False, True], ids=["no-bias", "bias"])
def test_our_attention_node_computes_its_formula(provider: str, biased: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 2, 3), np.uint8)
    tokens = frames.reshape(4, 6) / 255
    bias = np.linspace(-1, 1, 4) if biased else np.zeros(4)
    mixed = np.empty((2, 6))
    for head in range(3):
        part = slice(2 * head, 2 * head + 2)
        weights = np.exp(0.5 * _QUERIES[0, :, part] @ tokens[:, part].T + bias)
        mixed[:, part] = weights / weights.sum(axis=1, keepdims=True) @ tokens[:, part]
    backend = load_backend(Path("a.onnx"), attention_model(biased=biased), provider=provider)
    expected = 1 / (1 + np.exp(-mixed.reshape(1, 12)))
    np.testing.assert_allclose(backend.infer(frames), expected, rtol=1e-5)
    backend.close()


@pytest.mark.slow
def test_openvino_gives_the_scores_of_onnx_runtime_whatever_the_batch() -> None:
    content = demo_engine().read_bytes()
    size_hw = ModelSpec.load(spec_path(demo_engine())).preprocess.size_hw
    frames = np.concatenate([golden_frames(seed, size_hw) for seed in range(4)])
    scores = {}
    for provider in ("cpu", "openvino"):
        backend = load_backend(demo_engine(), content, provider=provider)
        scores[provider] = [backend.infer(frames[:batch]) for batch in (1, 2, 4)]
        backend.close()
    for expected, actual in zip(scores["cpu"], scores["openvino"], strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.slow
def test_the_description_says_in_which_type_the_layers_run() -> None:
    with Recognizer.from_engine(demo_engine(), provider="openvino") as recognizer:
        assert "layers f32" in recognizer.runtime
    if "openvino-bf16" not in find_providers():
        pytest.skip("this CPU does not compute in bfloat16")
    with Recognizer.from_engine(demo_engine(), provider="openvino-bf16") as recognizer:
        assert "layers bf16" in recognizer.runtime


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_frames_of_another_size_and_closed_engines_are_named(engine: Path, provider: str) -> None:
    backend = load_backend(engine, engine.read_bytes(), provider=provider)
    with pytest.raises(EngineError, match=engine.name):
        backend.infer(np.zeros((1, 5, 5, 3), np.uint8))
    backend.close()
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        backend.infer(np.zeros((1, *SIZE_HW, 3), np.uint8))


def test_openvino_refuses_what_is_no_model_of_ours(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load"):
        load_backend(tmp_path / "model.onnx", b"not onnx", provider="openvino")
    model = mean_color_model().replace(b"frames", b"images")
    with pytest.raises(EngineError, match="not a model of this SDK"):
        load_backend(tmp_path / "model.onnx", model, provider="openvino")


def test_scores_stay_when_the_next_frame_is_recognised(engine: Path) -> None:
    with Recognizer.from_engine(engine, provider="openvino") as recognizer:
        first = recognizer(solid(255, 0, 0))
        recognizer(solid(0, 0, 255))
    np.testing.assert_allclose(first.scores, [1, 0, 0], atol=1e-6)


_OPEN_AND_CLOSE = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
from cmlr_edge.backends import load_backend
path = Path(sys.argv[1])
for _ in range(30):
    backend = load_backend(path, path.read_bytes(), provider="openvino")
    backend.infer(np.zeros((5, 24, 32, 3), np.uint8))
    backend.close()
    del backend
"""


_CLOSE_ELSEWHERE = """
import os, signal, sys
from threading import Thread
import numpy as np
from cmlr_edge import Recognizer

signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
held = [Recognizer.from_engine(sys.argv[1], provider="openvino")]
held[0](np.zeros((24, 32, 3), np.uint8))
for _ in range(2):
    closing = Thread(target=lambda: held.pop().close())
    closing.start()
    closing.join()
    os.kill(os.getpid(), signal.SIGTERM)
    opening = Thread(target=lambda: held.append(Recognizer.from_engine(sys.argv[1], provider="openvino")))
    opening.start()
    opening.join()
"""


def test_signals_are_handled_after_openvino_was_closed_in_another_thread(engine: Path) -> None:
    # Its plugin once unmapped the stack on which the main thread takes signals: SIGSEGV without a word.
    command = [sys.executable, "-c", _CLOSE_ELSEWHERE, str(engine)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "handled\n" * 2


def test_openvino_can_be_closed_right_after_a_batch(engine: Path) -> None:
    # It once waited for a thread of its own that was on its way out of a callback, for ever.
    command = [sys.executable, "-c", _OPEN_AND_CLOSE, str(engine)]
    subprocess.run(command, check=True, timeout=60)


def test_a_sum_and_the_norm_behind_it_stay_two_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime makes one node of them, whose kernel is slower than the two."""
    from cmlr_edge.backends import onnxruntime as backend

    optimized, options_of = tmp_path / "optimized.onnx", backend._session_options

    def writing(ort: Any) -> Any:
        options = options_of(ort)
        options.optimized_model_filepath = str(optimized)
        return options

    monkeypatch.setattr(backend, "_session_options", writing)
    path = demo_engine()
    load_backend(path, path.read_bytes(), provider="cpu").close()
    operators = {node.op_type for node in load_model(optimized).graph.node}
    assert "LayerNormalization" in operators
    assert "SkipLayerNormalization" not in operators
