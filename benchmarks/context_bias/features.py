"""Tokens of a frozen backbone for every part of a set of scenes, stored as float16."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cmlr_edge.model_spec import PreprocessSpec
from train.amp import choose_autocast
from train.backbones import create_backbone
from train.config import ModelConfig
from train.datasets import LabeledImages, read_dataset
from train.frozen import TokenSet
from train.inference import iterate_tokens
from train.transforms import ImageTensors


def load_tokens(
    scenes: Path,
    cache: Path,
    config: ModelConfig,
    report: Callable[[str, int], None] = lambda _part, _done: None,
) -> dict[str, TokenSet]:
    """Read the tokens of every part, and compute them first where they are not stored.

    Args:
        scenes: Folder with `labels.json`.
        cache: Where tokens are stored, under a name that depends on pictures and backbone.
        config: Its backbone, image size and stages.
        report: Told a part's name and how many of its images were finished since.
    """
    data = read_dataset(scenes)
    listing = (scenes / "labels.json").read_bytes() + (scenes / "graph.json").read_bytes()
    what = f"{config.backbone}-{config.image_size}-{config.token_stages}"
    folder = cache / f"{what}-{hashlib.sha256(listing).hexdigest()[:16]}"
    finer_path = folder / "finer_channels"
    if not finer_path.is_file():
        _extract(data, folder, config, report)
    finer = int(finer_path.read_text())
    return {
        split: TokenSet(
            np.load(folder / f"{split}.npy", mmap_mode="r"), data.split(split).targets(), finer
        )
        for split in data.splits
    }


def _extract(
    data: LabeledImages, folder: Path, config: ModelConfig, report: Callable[[str, int], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    backbone = create_backbone(
        config.backbone, config.image_size, stages=config.token_stages, pretrained=True
    ).eval()
    side = config.image_size
    spec = PreprocessSpec(size_hw=(side, side), mean=backbone.mean, std=backbone.std)
    fast = choose_autocast("auto", backbone, side)
    for split in data.splits:
        images = ImageTensors(data.split(split), spec, cache_bytes=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            batches = [
                tokens.half().numpy()
                for tokens in iterate_tokens(backbone, images, spec, report=partial(report, split))
            ]
        np.save(folder / f"{split}.npy", np.concatenate(batches))
    # Written last: its presence says that the parts are whole.
    (folder / "finer_channels").write_text(str(backbone.finer_channels))
