"""Exported engines, whatever their precision, can be taught, and their old scores keep their bits."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.onnx_rows import TOKENS, Row, features_of, find_tokens, with_rows
from export.onnx_graph import export_fused, store_as_float16
from export.precision import to_float16
from export.quantize_cpu import quantize_for_cpu
from tests.conftest import make_spec
from tests.export.networks import LABELS, TRACED, input_spec, random_frames, randomized, small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    model = randomized(small(*TRACED["gated-attention, own, plain"]))
    return export_fused(model, input_spec(model))[0]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return random_frames(3).numpy()


def infer(content: bytes, provider: str, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    backend = load_backend(Path("model.onnx"), content, provider=provider)
    with closing(backend):
        return backend.infer(frames)


@pytest.mark.parametrize("precision", ["float32", "stored as float16", "float16", "int8"])
def test_a_label_can_be_added_and_moves_no_old_score(
    exported: onnx.ModelProto, frames: NDArray[np.uint8], precision: str
) -> None:
    if precision == "int8":
        spec = make_spec(b"", tuple(f"label {i}" for i in range(LABELS)))
        model = quantize_for_cpu(exported, random_frames(4).numpy(), spec, max_share=1.0).model
    else:
        change = {"float16": to_float16, "stored as float16": store_as_float16}
        model = change.get(precision, lambda same: same)(exported)
    content = model.SerializeToString()
    places = find_tokens(content, "model.onnx")
    assert places[-1].name == TOKENS
    tokens = places[0].of(infer(features_of(content, places[0], "model.onnx"), "cpu", frames))
    vector = np.float32(np.random.default_rng(0).normal(size=places[0].width) / 30)
    row = Row(vector, vector, -vector, 0.25)
    for provider in ("cpu", "openvino"):
        old = infer(content, provider, frames)
        kept = []
        for place in places:
            new = infer(with_rows(content, [row], LABELS, "model.onnx", place), provider, frames)
            kept.append(np.array_equal(old, new[:, :LABELS]))
            if provider == "cpu":
                looks = np.exp(tokens @ vector)
                shares = looks / looks.sum(axis=1, keepdims=True)
                logits = (shares * (tokens @ vector)).sum(axis=1) - tokens.mean(axis=1) @ vector
                wanted = 1 / (1 + np.exp(-(logits + 0.25)))
                np.testing.assert_allclose(new[:, LABELS], wanted, atol=1e-3)
        assert any(kept), (precision, provider)
