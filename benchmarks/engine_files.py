"""A network that nobody trained, written as export/build_engine.py writes a trained one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import onnx

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import GOLDEN_TOLERANCE, golden_frames
from cmlr_edge.model.files import sha256_of, spec_path, write_atomically
from cmlr_edge.model.spec import BuiltFile, GoldenSample, ModelSpec, ParityReport

_SEED = 7


def write_engine(
    folder: Path, model: onnx.ModelProto, spec: ModelSpec, precision: str = "float32"
) -> Path:
    """Write model and spec, which gets the file's entry; return the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path, content = folder / "model.onnx", model.SerializeToString()
    with closing(load_backend(path, content, provider="cpu")) as backend:
        scores = backend.infer(golden_frames(_SEED, spec.preprocess.size_hw))[0].tolist()
    golden = GoldenSample(_SEED, tuple(scores), GOLDEN_TOLERANCE[precision])
    built = BuiltFile(sha256_of(content), "onnx", precision, ParityReport(1, 0.0, 0), golden)
    write_atomically(path, content)
    replace(spec, files={path.name: built}).save(spec_path(path))
    return path
