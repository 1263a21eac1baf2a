"""A tiny data set with something to learn, and settings that train on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from train.config import TrainConfig
from train.settings import build_config

CLASSES = ["red", "green", "blue"]
TINY = [
    "model.image_size=64",
    "model.embed_dim=32",
    "model.num_heads=4",
    "model.ffn_dim=32",
    "model.pooled_skip=true",
    "model.confounders.num_confounders=4",
    "model.confounders.tokens_per_image=4",
    "model.confounders.num_contexts=6",
    "epochs=3",
    "batch_size=8",
    "backbone_lr=1e-5",
    "amp=off",
]
# PyTorch takes a third of the time to export this network; for tests of what stands behind it.
QUICK_TO_EXPORT = "model.backbone=test_efficientnet"


def tiny_config(*settings: str) -> TrainConfig:
    return build_config({}, [*TINY, *settings])


def write_dataset(root: Path, *, num_train: int = 24, num_val: int = 12) -> Path:
    """Pictures with a random set of coloured squares; labels say which colours are there."""
    rng = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    root.mkdir(parents=True, exist_ok=True)
    for i in range(num_train + num_val):
        image = rng.integers(90, 130, (80, 96, 3), np.uint8)
        present = [c for c in range(3) if rng.random() < 0.5]
        for c in present:
            y, x = rng.integers(0, 50, 2)
            image[y : y + 28, x : x + 28] = np.eye(3, dtype=np.uint8)[c][::-1] * 255
        cv2.imwrite(str(root / f"{i}.png"), image)
        split = "train" if i < num_train else "val"
        labels = [CLASSES[c] for c in present]
        entries.append({"file": f"{i}.png", "split": split, "labels": labels})
    (root / "labels.json").write_text(json.dumps({"classes": CLASSES, "images": entries}))
    return root
