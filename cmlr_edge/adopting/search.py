"""Which settings make a foreign model give the scores that its own runtime gave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, get_args

import numpy as np

from cmlr_edge.adopting.recipe import SCALES, Activation, Color, Recipe
from cmlr_edge.adopting.reference import Reference, activated, are_probabilities
from cmlr_edge.errors import EngineError, FrameError
from cmlr_edge.model.spec import Interpolation
from cmlr_edge.preprocess import preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CROP_SHARES = (1.0, 0.875, 0.95, 0.9)  # of the shorter side, as timm and torchvision cut
_TRIED_ON = 2  # pictures; more only cost time: each of a hundred settings is a run of the model


@dataclass(frozen=True)
class Fit:
    """How well settings explain scores."""

    recipe: Recipe
    activation: Activation
    difference: float  # the largest, of a score


def prepared(pictures: Sequence[NDArray[np.uint8]], recipe: Recipe) -> NDArray[np.uint8]:
    """Frames (N, H, W, 3), RGB, of pictures in BGR."""
    spec = recipe.spec()
    return np.stack([preprocess(picture, spec, color="bgr") for picture in pictures])


def best_fit(
    reference: Reference,
    pictures: Sequence[NDArray[np.uint8]],
    scores: NDArray[np.float32],
    recipe: Recipe,
    given: Recipe,
    activations: Sequence[Activation],
    *,
    good: float,
) -> Fit:
    """Find the settings whose scores are nearest.

    Args:
        reference: The foreign model.
        pictures: uint8 (H, W, 3), BGR.
        scores: (N, L) of its own runtime; raw ones are activated first.
        recipe: The settings to start from; they are tried first.
        given: What the user said is not tried otherwise.
        activations: Likewise.
        good: A difference that ends the search.
    """
    order = [int(i) for i in np.argsort(-np.ptp(scores, axis=1))[:_TRIED_ON]]
    few, wanted = [pictures[i] for i in order], scores[order]
    best = Fit(recipe, activations[0], np.inf)
    # The filter of the resize matters least: it is looked for once everything else is found.
    for stage in (_scales_and_frames, _filters):
        for tried in stage(best.recipe, given):
            if best.difference <= good:
                return best
            try:
                raw = reference.raw(prepared(few, tried), tried)
            except (EngineError, FrameError):
                continue  # such as a size that the model cannot take
            for activation in activations:
                found = Fit(tried, activation, difference(raw, wanted, activation))
                best = found if found.difference < best.difference else best
    return best


def difference(
    raw: NDArray[np.float32], scores: NDArray[np.float32], activation: Activation
) -> float:
    """The largest difference between what a model gives and scores that are given, as probabilities."""
    if activation != "none" and not are_probabilities(scores):
        scores = activated(scores, activation)
    gap = float(np.abs(activated(raw, activation) - scores).max())
    return gap if gap == gap else np.inf  # noqa: PLR0124 (a NaN explains nothing)


def _scales_and_frames(recipe: Recipe, given: Recipe) -> Iterator[Recipe]:
    """The settings themselves, then those that differ in what nobody said."""
    yield recipe
    scales = [recipe] if given.mean or given.std else [*SCALES.values()]
    colors: Sequence[Color] = [given.color] if given.color else get_args(Color)
    frames = [recipe]
    if given.resize is None:
        side = max(recipe.size)
        cuts = [int(side / share) if share < 1 else 0 for share in _CROP_SHARES]
        frames = [replace(recipe, resize="stretch", short_side=0)]
        frames += [replace(recipe, resize="crop", short_side=cut) for cut in cuts]
        frames += [replace(recipe, resize="letterbox", short_side=0, fill=f) for f in (0, 114)]
    for scale, color, frame in product(scales, colors, frames):
        yield replace(frame, mean=scale.mean, std=scale.std, color=color)


def _filters(recipe: Recipe, given: Recipe) -> Iterator[Recipe]:
    if given.interpolation is None:
        for how in get_args(Interpolation):
            yield replace(recipe, interpolation=how)
