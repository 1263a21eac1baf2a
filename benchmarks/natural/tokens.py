"""Tokens of all photos as a frozen backbone sees them, stored once; reduced anew for every split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.context_bias.features import COMPONENTS, extract_tokens, fit_reduction
from benchmarks.natural.sampling import Split
from cmlr_edge.model.files import write_atomically
from train.config import ModelConfig
from train.data import LabeledImages
from train.fitting.frozen import TokenSet
from train.network.backbones import create_backbone


@dataclass(frozen=True)
class Photos:
    """All photos: raw tokens (N, T, D), targets (N, L), and the labels' names."""

    tokens: NDArray[np.float16]
    targets: NDArray[np.float32]
    finer_channels: int
    classes: tuple[str, ...]


def store_tokens(
    data: LabeledImages, folder: Path, config: ModelConfig, report: Callable[[int], None]
) -> Path:
    """Compute the tokens of all photos, unless they are stored.

    Args:
        data: The photos.
        folder: Where they are stored, under a name that depends on photos and backbone.
        config: Its backbone, image size and stages.
        report: Told how many photos were finished since.
    """
    digest = hashlib.sha256(repr((data.classes, data.images)).encode()).hexdigest()[:16]
    path = folder / f"{config.backbone}-{config.image_size}-{digest}.npz"
    if path.is_file():
        return path
    backbone = create_backbone(
        config.backbone, config.image_size, stages=config.token_stages, pretrained=True
    ).eval()
    buffer = BytesIO()
    np.savez(
        buffer,
        tokens=extract_tokens(backbone, data, config, report),
        targets=data.targets(),
        finer_channels=backbone.finer_channels,
        classes=np.array(data.classes),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def load_photos(path: Path) -> Photos:
    """Read what `store_tokens` wrote."""
    with np.load(path) as arrays:
        return Photos(
            tokens=arrays["tokens"],
            targets=arrays["targets"],
            finer_channels=int(arrays["finer_channels"]),
            classes=tuple(str(name) for name in arrays["classes"]),
        )


def reduce_tokens(photos: Photos, split: Split) -> tuple[TokenSet, TokenSet]:
    """Training and test part, standardised and reduced by what the training part says."""
    train = photos.tokens[split.train]
    reduction = fit_reduction(train, photos.finer_channels)
    finer = COMPONENTS[0]
    return (
        TokenSet(reduction(train), photos.targets[split.train], finer),
        TokenSet(reduction(photos.tokens[split.test]), photos.targets[split.test], finer),
    )
