"""A tiny engine whose tokens are known: the mean colours of twelve patches, and pictures for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.backends.onnx_rows import TOKENS
from cmlr_edge.model.embedded import names_entry, with_metadata
from cmlr_edge.model.spec import ModelSpec
from tests.conftest import SIZE_HW, golden_scores, make_spec, write_engine

NUMBER, WIDTH = 12, 3


def patch_model(tokens: str = TOKENS) -> bytes:
    """Score of label i: the mean of channel i over the patches."""
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", *SIZE_HW, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    seen = helper.make_tensor_value_info(tokens, TensorProto.FLOAT, ["n", NUMBER, WIDTH])
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Reshape", ["pooled", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], [tokens], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", [tokens, "axis"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "head.select"], ["scores"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1 / 255), "scale"),
        numpy_helper.from_array(np.array([-1, 3, NUMBER]), "shape"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.eye(3, dtype=np.float32), "head.select"),
    ]
    graph = helper.make_graph(nodes, "patches", [frames], [scores], constants, value_info=[seen])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return with_metadata(model.SerializeToString(), names_entry(("red", "green", "blue")))


def patch_spec(content: bytes) -> ModelSpec:
    spec = make_spec(content)
    [(name, built)] = spec.files.items()
    golden = replace(built.golden, scores=tuple(round(x, 7) for x in golden_scores()))
    return replace(spec, files={name: replace(built, golden=golden)})


def write_patch_engine(folder: Path, content: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = patch_model() if content is None else content
    return write_engine(folder, content, patch_spec(content))


def picture(rng: np.random.Generator, *, yellow: bool) -> NDArray[np.uint8]:
    """(H, W, 3), BGR: dull patches, one of them yellow or none."""
    patches = rng.integers(60, 160, (3, 4, 3))
    if yellow:
        patches[rng.integers(3), rng.integers(4)] = (20, 230, 230)
    return np.repeat(np.repeat(patches.astype(np.uint8), 8, axis=0), 8, axis=1)


def write_pictures(folder: Path, count: int, *, yellow: bool, seed: int = 0) -> Path:
    """Pictures of the size that the engine takes; a folder for them is made."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, yellow])
    for i in range(count):
        cv2.imwrite(str(folder / f"{seed}_{i}.png"), picture(rng, yellow=yellow))
    return folder


def patterns(count: int) -> NDArray[np.uint8]:
    """Frames as the model sees them, (count, H, W, 3)."""
    return np.concatenate([golden_frames(seed, SIZE_HW) for seed in range(count)])
