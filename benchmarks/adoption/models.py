"""Classifiers as other tools write them, with random weights, and those tools' way to read a picture."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.adoption.small import LABELS, Case, small_cases

_SPREAD = 2.0  # of the logits: with those of untrained weights all scores would be alike


class _Spread(nn.Module):
    """Random weights whose logits differ."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = model.eval()
        torch.manual_seed(1)
        with torch.no_grad():
            found = model(torch.randn(8, 3, side, side))
        self.mean, self.std = float(found.mean()), float(found.std())

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = (self.model(images) - self.mean) / self.std * _SPREAD
        return logits


class _Nhwc(nn.Module):
    """Takes the channels last, as converted models do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.permute(0, 3, 1, 2))
        return logits


def _network(name: str, side: int, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return _Spread(timm.create_model(name, num_classes=len(LABELS), **settings), side).eval()


def _export(model: nn.Module, shape: tuple[int, ...], path: Path, dynamic: dict[int, str]) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    dims = {axis: Dim(name, min=1) for axis, name in dynamic.items()}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (torch.zeros(2 if 0 in dynamic else 1, *shape[1:]),),
            dynamo=True,
            opset_version=18,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(dims,) if dims else None,
        )
    assert program is not None
    program.save(str(path))


def _timm(name: str, side: int, preprocess: str, *, nhwc: bool = False, **how: Any) -> Case:
    """A model of timm, with timm's own transform before it."""
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    dynamic, settings = how.pop("dynamic", {}), how.pop("settings", {})
    config = resolve_data_config({}, model=timm.create_model(name, **settings))
    config |= {"input_size": (3, side, side), **how}
    transform = create_transform(**config)

    def write(path: Path) -> None:
        model = _network(name, side, **settings)
        shape = (1, side, side, 3) if nhwc else (1, 3, side, side)
        _export(_Nhwc(model) if nhwc else model, shape, path, dynamic)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        array = transform(picture)[None].numpy()
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if nhwc else array

    return Case(f"timm {name}{' NHWC' if nhwc else ''}", preprocess, write, prepare, "output")


def cases() -> list[Case]:
    """All of them."""
    usual = "imagenet,pillow-bicubic"
    half = "-1..1,pillow-bicubic"
    batch = {0: "batch"}
    return [
        _timm("resnet18", 224, "imagenet,pillow-bilinear,crop=256", interpolation="bilinear", crop_pct=0.875),
        _timm("mobilenetv3_small_050", 224, f"{usual},crop=256", interpolation="bicubic", crop_pct=0.875, dynamic=batch),
        _timm("vit_tiny_patch16_224", 224, f"{half},crop=248", interpolation="bicubic", crop_pct=0.9),
        _timm("convnext_atto", 192, f"{usual},crop=192,size=192", interpolation="bicubic", crop_pct=1.0, dynamic={0: "batch", 2: "height", 3: "width"}),
        _timm("regnetx_002", 224, f"{usual},crop=256", interpolation="bicubic", crop_pct=0.875, nhwc=True, dynamic=batch),
        _timm("swin_tiny_patch4_window7_224", 224, f"{usual},stretch", interpolation="bicubic", crop_pct=1.0, crop_mode="squash", settings={"depths": (1, 1, 1, 1), "embed_dim": 24}),
        *small_cases(),
    ]  # fmt: skip
