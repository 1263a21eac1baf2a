"""What a frame becomes, in NumPy and float64, before any rounding."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_frame(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth shapes and noise, with black and white reached."""
    rng = np.random.default_rng(height + width)
    coarse = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (width, height))
    noise = rng.integers(-60, 60, (height, width, 3))
    image: NDArray[np.uint8] = np.clip(coarse.astype(int) * 1.4 - 40 + noise, 0, 255).astype("u1")
    return image


def nv12_of(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Luma (H, W) and chroma (H / 2, W): all values, those outside the video range too."""
    image = draw_frame(height, width)
    return [image[..., 0].copy(), image[: height // 2, :, 1].copy()]


def resized(image: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W, 3) -> (*size_hw, 3) by area; linearly, as OpenCV does, where a side grows."""
    shrinks = size_hw[0] <= image.shape[0] and size_hw[1] <= image.shape[1]
    rows, columns = (
        (_area if shrinks else _linear)(size, out)
        for size, out in zip(image.shape[:2], size_hw, strict=True)
    )
    result: NDArray[np.float64] = np.einsum("ah,hwc,bw->abc", rows, image, columns, optimize=True)
    return result


def _area(size: int, out: int) -> NDArray[np.float64]:
    scale = size / out
    begin = np.arange(out)[:, None] * scale
    end, pixel = np.minimum(begin + scale, size), np.arange(size)
    share = np.clip(np.minimum(end, pixel + 1) - np.maximum(begin, pixel), 0, None)
    weights: NDArray[np.float64] = share / (end - begin)
    return weights


def _linear(size: int, out: int) -> NDArray[np.float64]:
    inverse, index = out / size, np.arange(out)
    first = np.minimum((index * (1 / inverse)).astype(int), size - 1)
    reach = (index + 1) - (first + 1) * inverse
    second = np.where((reach > 0) & (first + 1 < size), reach - np.floor(reach), 0)
    weights = np.zeros((out, size))
    weights[index, first] = 1 - second
    weights[index, np.minimum(first + 1, size - 1)] += second
    return weights
