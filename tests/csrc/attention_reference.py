"""Attention by the formula, in NumPy float64: what every implementation is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def reference(
    query: NDArray[np.floating],
    key: NDArray[np.floating],
    value: NDArray[np.floating],
    heads: int,
    scale: float,
    bias: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    batch = max(len(query), len(key), len(value))

    def split(x: NDArray[np.floating]) -> NDArray[np.float64]:
        wide = np.broadcast_to(x, (batch, *x.shape[1:])).astype(np.float64)
        return wide.reshape(batch, x.shape[1], heads, -1).transpose(0, 2, 1, 3)

    scores = scale * split(query) @ split(key).transpose(0, 1, 3, 2)
    if bias is not None:
        scores = scores + bias.astype(np.float64)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = weights / weights.sum(axis=-1, keepdims=True) @ split(value)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, query.shape[1], -1)
