"""Tokens of a frozen backbone for every part of a set of scenes, stored as float16.

Each stage's channels are standardised and reduced to their first principal components, fitted on
training tokens: a head starts with a linear projection anyway, and trains faster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.spec import PreprocessSpec
from train.config import ModelConfig
from train.data import LabeledImages, read_dataset
from train.data.transforms import ImageTensors
from train.fitting.frozen import TokenSet
from train.judging.inference import iterate_tokens
from train.network.backbones import Backbone, create_backbone

COMPONENTS = (256, 128)  # of the finer and of the last stage
_SAMPLE = 60_000  # training tokens that the components are fitted on
_THREADS = 2

Tokens = NDArray[np.float16]


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
    """Store every part that an interrupted run has not stored."""
    backbone = create_backbone(config.backbone, config.image_size, stages=2, pretrained=True).eval()
    fitted = folder / "reduction.npz"
    # The first is train: the reduction is fitted on it.
    for split in sorted(data.splits, key=lambda name: name != "train"):
        part = folder / f"{split}.npy"
        if part.is_file():
            report(split, len(data.split(split).images))
            continue
        tokens = extract_tokens(backbone, data.split(split), config, partial(report, split))
        if not fitted.is_file():
            reduction = fit_reduction(tokens, backbone.finer_channels)
            _save(fitted, partial(np.savez, **vars(reduction)))
        with np.load(fitted) as arrays:
            reduced = Reduction(**arrays)(tokens)
        _save(part, partial(np.save, arr=reduced))


def _save(path: Path, write: Callable[[BytesIO], object]) -> None:
    buffer = BytesIO()
    write(buffer)
    write_atomically(path, buffer.getvalue())


def extract_tokens(
    backbone: Backbone, data: LabeledImages, config: ModelConfig, report: Callable[[int], None]
) -> Tokens:
    """Tokens (N, T, D) of a frozen backbone, in the order of `data`."""
    side = config.image_size
    spec = PreprocessSpec(size_hw=(side, side), mean=backbone.mean, std=backbone.std)
    images = ImageTensors(data, spec, cache_bytes=0)
    # In float32 whatever the machine: one that finds bfloat16 faster would get other tokens.
    found = []
    for tokens in iterate_tokens(backbone, images, spec):
        found.append(tokens.half().numpy())
        report(len(tokens))
    return np.concatenate(found)


@dataclass(frozen=True)
class Reduction:
    """Tokens (N, T, D) to the principal components of each stage's channels."""

    weight: NDArray[np.float32]  # (D, sum of COMPONENTS)
    shift: NDArray[np.float32]  # (sum of COMPONENTS,)

    def __call__(self, tokens: Tokens) -> Tokens:
        """Reduce (N, T, D) to (N, T, sum of COMPONENTS)."""
        weight, shift = torch.from_numpy(self.weight), torch.from_numpy(self.shift)
        batches = (torch.tensor(tokens[i : i + 250]) for i in range(0, len(tokens), 250))
        return np.concatenate([(b.float() @ weight - shift).half().numpy() for b in batches])


def fit_reduction(tokens: Tokens, finer_channels: int) -> Reduction:
    """Fit mean, deviation and principal components of each stage's channels.

    Args:
        tokens: (N, T, D), of training images.
        finer_channels: Leading channels that come from the finer stage.
    """
    flat = tokens.reshape(-1, tokens.shape[2])
    rows = np.random.default_rng(0).permutation(len(flat))[:_SAMPLE]
    sample = flat[np.sort(rows)].astype(np.float32)
    mean, deviation = sample.mean(axis=0), np.maximum(sample.std(axis=0), 1e-4)
    scaled = (sample - mean) / deviation
    stages = (slice(0, finer_channels), slice(finer_channels, None))
    matrix = np.zeros((flat.shape[1], sum(COMPONENTS)), np.float32)
    for stage, number, start in zip(stages, COMPONENTS, (0, COMPONENTS[0]), strict=True):
        # The last bits depend on the number of threads: a fixed one gives every run the same.
        with threadpool_limits(_THREADS, "blas"):
            pca = PCA(number, svd_solver="covariance_eigh").fit(scaled[:, stage])
        matrix[stage, start : start + number] = pca.components_.T
    weight = torch.from_numpy(matrix / deviation[:, None])
    return Reduction(weight.numpy(), (torch.from_numpy(mean) @ weight).numpy())
