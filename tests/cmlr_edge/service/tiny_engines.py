"""Engines with a known formula that load in no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import helper, load_model_from_string, numpy_helper

from cmlr_edge.model.spec import GoldenSample
from tests.conftest import golden_scores, make_spec, mean_color_model, write_engine


def greedy_engine(folder: Path, num_bytes: int) -> Path:
    """An engine of a few hundred bytes with the usual scores, that fills so much memory when loaded."""
    model = load_model_from_string(mean_color_model())
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    model.graph.initializer.append(numpy_helper.from_array(np.array([num_bytes // 4]), "length"))
    (last,) = (node for node in model.graph.node if "scores" in node.output)
    last.output[:] = ["right"]
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["length"], ["filled"], value=fill),
            helper.make_node("ReduceSum", ["filled"], ["total"], keepdims=0),
            helper.make_node("Sub", ["total", "total"], ["nothing"]),
            helper.make_node("Add", ["right", "nothing"], ["scores"]),
        ]
    )
    content = model.SerializeToString()
    folder.mkdir()
    return write_engine(folder, content, make_spec(content))


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
