"""Tokens of a frozen backbone for every part of a set of scenes, stored as float16.

Each stage's channels are standardised and reduced to their first principal components, fitted on
training tokens: a head starts with a linear projection anyway, and trains faster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from cmlr_edge.model_spec import PreprocessSpec
from train.amp import choose_autocast
from train.backbones import Backbone, create_backbone
from train.config import ModelConfig
from train.datasets import LabeledImages, read_dataset
from train.frozen import TokenSet
from train.inference import iterate_tokens
from train.transforms import ImageTensors

COMPONENTS = (256, 128)  # of the finer and of the last stage
_SAMPLE = 60_000  # training tokens that the components are fitted on

Tokens = NDArray[np.float16]
Reduce = Callable[[Tokens], Tokens]


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
        config: Its backbone and image size; tokens are those of two stages.
        report: Told a part's name and how many of its images were finished since.
    """
    data = read_dataset(scenes)
    listing = (scenes / "labels.json").read_bytes() + (scenes / "graph.json").read_bytes()
    what = f"{config.backbone}-{config.image_size}-{sum(COMPONENTS)}"
    folder = cache / f"{what}-{hashlib.sha256(listing).hexdigest()[:16]}"
    whole = folder / "whole"  # written last: the parts are there
    if not whole.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _extract(data, folder, config, report)
        whole.touch()
    return {
        split: TokenSet(
            np.load(folder / f"{split}.npy", mmap_mode="r"),
            data.split(split).targets(),
            finer_channels=COMPONENTS[0],
        )
        for split in data.splits
    }


def _extract(
    data: LabeledImages, folder: Path, config: ModelConfig, report: Callable[[str, int], None]
) -> None:
    backbone = create_backbone(config.backbone, config.image_size, stages=2, pretrained=True).eval()
    reduce: Reduce | None = None
    for split in sorted(data.splits, key=lambda name: name != "train"):
        tokens = extract_tokens(backbone, data.split(split), config, partial(report, split))
        if reduce is None:  # the first is train
            reduce = fit_reduction(tokens, backbone.finer_channels)
        np.save(folder / f"{split}.npy", reduce(tokens))


def extract_tokens(
    backbone: Backbone, data: LabeledImages, config: ModelConfig, report: Callable[[int], None]
) -> Tokens:
    """Tokens (N, T, D) of a frozen backbone, in the order of `data`."""
    side = config.image_size
    spec = PreprocessSpec(size_hw=(side, side), mean=backbone.mean, std=backbone.std)
    images = ImageTensors(data, spec, cache_bytes=0)
    fast = choose_autocast("auto", backbone, side)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        batches = iterate_tokens(backbone, images, spec, report=report)
        return np.concatenate([tokens.half().numpy() for tokens in batches])


def fit_reduction(tokens: Tokens, finer_channels: int) -> Reduce:
    """Fit mean, deviation and principal components of each stage's channels.

    Args:
        tokens: (N, T, D), of training images.
        finer_channels: Leading channels that come from the finer stage.

    Returns:
        Maps tokens (N, T, D) to (N, T, sum of COMPONENTS).
    """
    flat = tokens.reshape(-1, tokens.shape[2])
    rows = np.random.default_rng(0).permutation(len(flat))[:_SAMPLE]
    sample = flat[np.sort(rows)].astype(np.float32)
    mean, deviation = sample.mean(axis=0), np.maximum(sample.std(axis=0), 1e-4)
    scaled = (sample - mean) / deviation
    stages = (slice(0, finer_channels), slice(finer_channels, None))
    matrix = np.zeros((flat.shape[1], sum(COMPONENTS)), np.float32)
    for stage, number, start in zip(stages, COMPONENTS, (0, COMPONENTS[0]), strict=True):
        pca = PCA(number, svd_solver="covariance_eigh").fit(scaled[:, stage])
        matrix[stage, start : start + number] = pca.components_.T
    weight = torch.from_numpy(matrix / deviation[:, None])
    shift = torch.from_numpy(mean) @ weight

    def reduce(raw: Tokens) -> Tokens:
        batches = (torch.tensor(raw[i : i + 250]) for i in range(0, len(raw), 250))
        return np.concatenate([(b.float() @ weight - shift).half().numpy() for b in batches])

    return reduce
