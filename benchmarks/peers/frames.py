"""What every route is given. Imports no more than the SDK does, as the routes are timed to load."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.golden import golden_frames

SIZE_HW = (480, 640)  # as a network camera gives them
NUM_FRAMES = 16


def frames() -> NDArray[np.uint8]:
    """Seeded BGR frames of coloured blocks under noise: (16, 480, 640, 3)."""
    rng = np.random.default_rng(0)
    blocks = np.concatenate([golden_frames(seed, SIZE_HW) for seed in range(NUM_FRAMES)])
    noise = rng.integers(-24, 25, blocks.shape, np.int16)
    return np.clip(blocks.astype(np.int16) + noise, 0, 255).astype(np.uint8)
