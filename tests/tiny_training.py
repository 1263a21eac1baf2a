"""A tiny data set with something to learn, and settings that train on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save

from cmlr_edge.model.files import write_atomically
from train.config import TrainConfig
from train.network.backbones import create_backbone
from train.settings import build_config

CLASSES = ["red", "green", "blue"]


def _weights() -> Path:
    """Seeded ones of timm's smallest network, for which no package has any; a file for all workers."""
    path = Path(__file__).parents[1] / "build" / "tests" / "test_efficientnet.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        network = create_backbone("test_efficientnet", 64, pretrained=False).network
        content = save({name: t.contiguous() for name, t in network.state_dict().items()})
        write_atomically(path, content)
    return path


# PyTorch exports this network in a third of the time that the usual one takes.
TINY = [
    "model.backbone=test_efficientnet",
    f"model.weights={_weights()}",
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
# The usual network, as ImageNet made it: for tests of what a training keeps of that.
IMAGENET = ["model.backbone=tf_efficientnet_lite0", "model.weights=null"]


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
