"""The measurement of ONNX's Attention beside our body, on a small decoder, and the record of the large ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.standard_operator import ENGINES, RESULTS, TOLERANCE, decoder, measure, write_files
from cmlr_edge.backends import load_backend

ROOT = Path(__file__).parents[2]


def test_both_files_give_the_decoders_scores(tmp_path: Path) -> None:
    write_files(decoder(5, 7, dim=64, heads=2), tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 7, 64, 3), np.uint8)
    scores = []
    for name in ("graph", "standard operator"):
        path = tmp_path / f"{name}.float32.onnx"
        backend = load_backend(path, path.read_bytes(), provider="cpu")
        scores.append(backend.infer(frames))
        backend.close()
    assert np.ptp(scores[0]) > 0.01
    np.testing.assert_allclose(scores[1], scores[0], atol=TOLERANCE)
    assert b"CmlrAttention" not in (tmp_path / "standard operator.float32.onnx").read_bytes()


def test_a_runtime_says_whether_it_takes_the_operator_and_as_what() -> None:
    found = measure(5, 7, rounds=5, seconds=0.001)
    assert {*found} == {*ENGINES}
    for entry in found.values():
        assert entry["supported"]
        assert entry["equal"]
        assert entry["ratio"] > 0
    assert "Attention" in found["ort f32"]["operations"]


def test_the_record_is_of_both_runtimes_with_80_and_600_labels() -> None:
    record = json.loads((ROOT / RESULTS).read_text())
    assert {key.split()[0] for key in record["decoders"]} == {"80", "600"}
    for found in record["decoders"].values():
        assert all(entry["equal"] for entry in found.values())
