"""Made-up sprites and backgrounds, in place of those that are fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from train.data.context_scenes.graph import CONTEXTS, LABELS


def write_assets(folder: Path) -> Path:
    """White squares as sprites; photo i has 0.15 i times as much green as blue."""
    folder.mkdir(parents=True)
    square = np.full((120, 120, 4), 255, np.uint8)
    sprites: dict[str, Any] = {
        f"{family}|{label}|a": square
        for family in ("fluent", "google", "twemoji", "openmoji")
        for label in (*LABELS, "")
    }
    photos: dict[str, Any] = {
        f"{context}|{i}": np.full((420, 430, 3), (200, 30 * i, 20 * c), np.uint8)
        for c, context in enumerate(CONTEXTS)
        for i in range(6)
    }
    np.savez(folder / "sprites.npz", **sprites)
    np.savez(folder / "backgrounds.npz", **photos)
    return folder
