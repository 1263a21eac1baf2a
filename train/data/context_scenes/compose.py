"""Painting one scene: a crop of a background photo, and sprites pasted on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.context_scenes.assets import SPRITE_SIDE, Assets, Image
from train.data.context_scenes.graph import Role, role_of

SIDE = 224  # of a scene, pixels
_NO_LABEL = -1
_DISTRACTORS = 1.2  # things without a label per scene, on average
_TRIES = 8  # for a place with little overlap
_LITTLE = 0.3  # overlap, as a share of the smaller object's side
_OPAQUE = 0.5  # of a sprite's pixels that are in its box
Canvas = NDArray[np.float32]
Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


@dataclass(frozen=True)
class ObjectSizes:
    """Smallest and largest side of an object, in pixels of a 224-pixel scene."""

    effect: tuple[int, int] = (34, 60)
    cause: tuple[int, int] = (48, 100)
    neutral: tuple[int, int] = (30, 70)

    def of(self, role: Role) -> tuple[int, int]:
        """Sizes of a role's objects; things without a label are sized as neutral ones."""
        return {"effect": self.effect, "cause": self.cause, "neutral": self.neutral}[role]


def compose(
    assets: Assets,
    families: tuple[str, ...],
    photos: list[list[Image]],
    labels: frozenset[int],
    sizes: ObjectSizes,
    rng: np.random.Generator,
) -> tuple[Image, dict[str, Box]]:
    """Paint a scene.

    Args:
        assets: Sprites to draw from.
        families: Art families, or groups of cut-outs, to draw from.
        photos: For each part of the scene, left to right, the backgrounds to choose from.
        labels: Labels to show, one object each.
        sizes: Of the objects.
        rng: Decides everything else.

    Returns:
        (SIDE, SIDE, 3), BGR, and the box of every label's object.
    """
    canvas = _background(photos, rng)
    shown = sorted(labels) + [_NO_LABEL] * int(rng.poisson(_DISTRACTORS))
    rng.shuffle(shown)
    # Causes are large: most of them are painted first, so that they cover little.
    shown.sort(key=lambda label: -float(role_of(label) == "cause") * rng.random())
    placed: list[tuple[float, float, float]] = []
    boxes: dict[str, Box] = {}
    for index in shown:
        label = assets.labels[index] if index != _NO_LABEL else ""
        low, high = np.log(sizes.of(role_of(index)))
        size = float(np.exp(rng.uniform(low, high)))
        x, y = _find_place(size, placed, rng)
        placed.append((x, y, size))
        choices = [s for family in families for s in assets.sprites[family].get(label, [])]
        box = _paste(canvas, choices[rng.integers(len(choices))], size, x, y, rng)
        if label and box is not None:
            boxes[label] = box
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9)).astype(np.float32)
    canvas = canvas + rng.normal(0, rng.uniform(0, 6), canvas.shape).astype(np.float32)
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _background(photos: list[list[Image]], rng: np.random.Generator) -> Canvas:
    edges = np.linspace(0, SIDE, len(photos) + 1).round().astype(int)
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    for choices, left, right in zip(photos, edges[:-1], edges[1:], strict=True):
        photo = choices[rng.integers(len(choices))]
        height, width = photo.shape[:2]
        side = int(min(height, width) * rng.uniform(0.6, 1))
        top, start = (int(rng.integers(n - side + 1)) for n in (height, width))
        crop = photo[top : top + side, start : start + side]
        view = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            view = view[:, ::-1]
        canvas[:, left:right] = view[:, left:right] * rng.uniform(0.7, 1.15)
    return canvas


def _find_place(
    size: float, placed: list[tuple[float, float, float]], rng: np.random.Generator
) -> tuple[float, float]:
    """Find a centre inside the scene where little is covered, or the best of a few."""
    best: tuple[float, float, float] | None = None
    for _ in range(_TRIES):
        x, y = (float(v) for v in rng.uniform(size * 0.35, SIDE - size * 0.35, 2))
        overlap = sum(
            max(0.0, (size + other) / 2 - max(abs(x - at_x), abs(y - at_y))) / min(size, other)
            for at_x, at_y, other in placed
        )
        if best is None or overlap < best[0]:
            best = overlap, x, y
        if overlap < _LITTLE:
            break
    assert best is not None
    return best[1], best[2]


def _paste(
    canvas: Canvas, sprite: Image, size: float, x: float, y: float, rng: np.random.Generator
) -> Box | None:
    """Blend a sprite into the canvas: mirrored or not, tilted, scaled, tinted; where it is seen."""
    scale = size / SPRITE_SIDE
    if rng.random() < 0.5:
        sprite = np.ascontiguousarray(sprite[:, ::-1])
    height, width = sprite.shape[:2]
    side = int(size * 1.5) + 2
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 15), scale)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    if scale < 0.6:  # a warp does not average: blur first, or a small object would sparkle
        sprite = cv2.GaussianBlur(sprite, (0, 0), 0.4 / scale).astype(np.uint8)
    patch = cv2.warpAffine(sprite, turn, (side, side), flags=cv2.INTER_LINEAR).astype(np.float32)
    patch[..., :3] *= rng.uniform(0.7, 1.15) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    left, top = int(x - side / 2), int(y - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, SIDE), min(top + side, SIDE)
    if x1 <= x0 or y1 <= y0:
        return None
    patch = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    opacity = patch[..., 3:] / 255
    below = canvas[y0:y1, x0:x1] * (1 - opacity)
    canvas[y0:y1, x0:x1] = below + np.minimum(patch[..., :3], 255 * opacity)
    rows, columns = np.nonzero(opacity[..., 0] >= _OPAQUE)
    if not len(rows):
        return None
    return (
        x0 + int(columns.min()),
        y0 + int(rows.min()),
        x0 + int(columns.max()) + 1,
        y0 + int(rows.max()) + 1,
    )
