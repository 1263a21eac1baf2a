"""Small whole files to damage: ONNX files of every precision, and engines.

What an engine holds does not matter where there is no driver: nothing may read it. On the made-up
GPU it is an ONNX file, which the made-up TensorRT runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.engine_files import write_engine
from benchmarks.fuzz.machines import CPU, GPU, Machine, without_driver
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import (
    EngineBuild,
    MethodSpec,
    ModelSpec,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)
from export.calibrate import quantize
from export.deploy import DeployModel
from export.fold_graph import fold_graph
from export.onnx_graph import export_onnx
from export.precision import to_float16
from train.config import ModelConfig
from train.network.model import CausalHead, CausalRecognizer

SIZE_HW = (16, 16)
_LABELS, _WIDTH = 3, 8
_INPUT = PreprocessSpec(SIZE_HW, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class _Tokens(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = super().forward(images)
        return tokens.flatten(2).transpose(1, 2)


class _Recognizer(CausalRecognizer):
    """The parts that a network has, as small as can be."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = ModelConfig(embed_dim=_WIDTH, num_heads=2, ffn_dim=_WIDTH, intervention="none")
        CausalHead.__init__(self, config, _LABELS, _WIDTH)
        self.backbone = _Tokens(  # type: ignore[assignment]
            nn.Conv2d(3, _WIDTH, 3, stride=4, padding=1), nn.BatchNorm2d(_WIDTH), nn.ReLU6()
        )


@dataclass(frozen=True)
class Seed:
    """A whole file, its spec beside it, and the machine to open damaged copies on."""

    path: Path
    machine: Machine


def write_seeds(folder: Path) -> list[Seed]:
    """Write an ONNX file for each precision, and an engine or two for each machine that has them."""
    deploy = DeployModel(_Recognizer(), _INPUT).eval()
    plain = export_onnx(deploy, SIZE_HW)
    fold_graph(plain, norms=True)
    frames = np.concatenate([golden_frames(seed, SIZE_HW) for seed in range(4)])
    files = {"float32": plain, "float16": to_float16(plain), "int8": quantize(plain, frames)}
    seeds = [
        Seed(write_engine(folder / name, model, _spec(name), name), CPU)
        for name, model in files.items()
    ]
    engines = [
        Seed(_write_engine(seed.path, folder / f"engine {i}"), machine)
        for i, (machine, seed) in enumerate(zip([*without_driver(), GPU, GPU], cycle(seeds)))
    ]
    return seeds + engines


def _spec(precision: str) -> ModelSpec:
    return ModelSpec(
        name="fuzz",
        labels=("a", "b", "c"),
        thresholds=(0.5, 0.5, 0.5),
        preprocess=_INPUT,
        method=MethodSpec("none", "none", "prior", 0, _WIDTH, 1),
        provenance=Provenance("none", 0, 0, 0, "0"),
        threshold_fit=ThresholdFit("fixed", "none", 0, precision, 0.0),
    )


def _write_engine(onnx_path: Path, folder: Path) -> Path:
    """The same file as an engine for the GPU of `machines.py`; both are in its spec."""
    folder.mkdir()
    path, spec = folder / "model.engine", ModelSpec.load(spec_path(onnx_path))
    built = spec.files[onnx_path.name]
    engine = EngineBuild("10.3.0", "8.7", "Orin", None, (1, 1, 8), onnx_path.name, built.sha256)
    path.write_bytes(onnx_path.read_bytes())
    files = {**spec.files, path.name: replace(built, runtime="tensorrt", engine=engine)}
    replace(spec, files=files).save(spec_path(path))
    return path
