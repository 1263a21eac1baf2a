"""Tokens as a backbone would leave them, with labels that can be read off them."""

from __future__ import annotations

import numpy as np

from tests.tiny_training import tiny_config
from train.config import TrainConfig
from train.fitting.frozen import TokenSet

LABELS, WIDTH, FEATURES = 5, 8, 12


def tokens(images: int, seed: int = 0) -> TokenSet:
    """Labels that can be read off the tokens, whose first half plays the finer stage."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, LABELS)) < 0.4).astype(np.float32)
    features = rng.standard_normal((images, 9, FEATURES))
    features[:, :3, :LABELS] += 3 * targets[:, None]
    return TokenSet(features.astype(np.float16), targets, finer_channels=6)


def small_config(*settings: str) -> TrainConfig:
    return tiny_config("model.pooled_skip=false", "epochs=6", "lr=5e-3", *settings)
