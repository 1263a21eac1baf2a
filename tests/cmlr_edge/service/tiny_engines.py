"""Engines with a known formula that load in no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import load_model_from_string, numpy_helper

from cmlr_edge.model.spec import GoldenSample
from tests.conftest import golden_scores, make_spec, mean_color_model, write_engine


def scaled_engine(folder: Path, scale: float) -> Path:
    """An engine whose scores are those of `engine`, times `scale`."""
    model = load_model_from_string(mean_color_model())
    select = next(item for item in model.graph.initializer if item.name == "select")
    select.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(select) * scale, "select"))
    content = model.SerializeToString()
    spec = make_spec(content)
    golden = GoldenSample(7, tuple(value * scale for value in golden_scores()), 1e-3)
    files = {"model.onnx": replace(spec.files["model.onnx"], golden=golden)}
    folder.mkdir()
    return write_engine(folder, content, replace(spec, files=files))
