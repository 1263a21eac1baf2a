"""Which read-out is deployed: the simplest that no other beats on held-out pictures by a margin.

A more elaborate read-out is taken if its mAP is higher by more than 1.64 standard errors of the
difference over pictures drawn again, and by half a point at least: where both are equally good,
chance gives it that lead in one of twenty comparisons.

The image's own context must gain 2 points. Held-out pictures are mostly taken where the training
pictures were, and cannot show what it costs elsewhere: 2 points on scenes whose surroundings were
drawn anew (docs/context_scenes.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.config import ModelConfig
from train.judging.bootstrap import mean_where_defined, rank_images, weighted_average_precision
from train.judging.inference import DatasetScores
from train.judging.metrics import MIN_POSITIVES

# From the simplest on. plain: a network trained without intervention; decoder: the label decoder of
# the one with it, alone; prior, own: with the links, averaged or at the image's own context.
SIMPLEST_FIRST = ("plain", "decoder", "prior", "own")
MEANING = {
    "plain": "the network that was trained without links and intervention",
    "decoder": "the label decoder alone, without links and context",
    "prior": "with links, averaged over the contexts of training",
    "own": "with links, in the picture's own context",
}
_LEAST_GAIN = {"decoder": 0.005, "prior": 0.005, "own": 0.02}  # of mAP
_STANDARD_ERRORS = 1.64
_RESAMPLES = 200
_MOST_IMAGES = 5000  # drawn again; more say the same and take minutes


@dataclass(frozen=True)
class ReadOutChoice:
    """What is deployed, and why."""

    chosen: str
    reason: str
    val_map: dict[str, float]  # of every candidate, on the held-out pictures


def read_outs_of(scores: DatasetScores, config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """What one network can deploy: name in `SIMPLEST_FIRST` -> scores (N, L).

    Args:
        scores: Of the network; those it deploys are at the averaged prior.
        config: Its settings.
    """
    if config.intervention == "none":
        return {"plain": scores.deployed}
    found = {"prior": scores.deployed, "decoder": scores.decoupled}
    if scores.own_context is not None:
        found["own"] = scores.own_context
    return found


def choose_read_out(
    candidates: Mapping[str, NDArray[np.float32]], targets: NDArray[np.float32]
) -> ReadOutChoice:
    """Compare the candidates from the simplest on.

    Args:
        candidates: Name in `SIMPLEST_FIRST` -> scores (N, L) of held-out pictures.
        targets: (N, L), 0 or 1.
    """
    names = [name for name in SIMPLEST_FIRST if name in candidates]
    labels = np.flatnonzero(targets.sum(axis=0) >= MIN_POSITIVES)
    if not len(labels):
        reason = f"no label has {MIN_POSITIVES} held-out pictures to compare on: the simplest"
        return ReadOutChoice(names[0], reason, {})
    resampled = _resampled(names, candidates, targets[:, labels], labels)
    best, steps = names[0], []
    for name in names[1:]:
        difference = resampled[name] - resampled[best]
        gain, needed = difference[0], _STANDARD_ERRORS * float(difference[1:].std())
        needed = max(_LEAST_GAIN[name], needed)
        verdict = "is better" if gain > needed else "is not better by enough"
        steps.append(
            f"`{name}` {verdict}: {100 * gain:+.1f} points of mAP against `{best}`, "
            f"needed are {100 * needed:+.1f}"
        )
        if gain > needed:
            best = name
    found = {name: round(float(values[0]), 4) for name, values in resampled.items()}
    return ReadOutChoice(best, "; ".join(steps) or "the only one", found)


def _resampled(
    names: list[str],
    candidates: Mapping[str, NDArray[np.float32]],
    targets: NDArray[np.float32],
    labels: NDArray[np.int_],
) -> dict[str, NDArray[np.float64]]:
    """Mean AP of each: first on all pictures, then on pictures drawn again, the same for all."""
    rng, number = np.random.default_rng(0), len(targets)
    drawn_from = rng.permutation(number)[:_MOST_IMAGES]
    weights = [np.ones(number, np.int64)]
    for _ in range(_RESAMPLES):
        draw = rng.choice(drawn_from, len(drawn_from))
        weights.append(np.bincount(draw, minlength=number))
    found = {}
    for name in names:
        columns = zip(candidates[name][:, labels].T, targets.T, strict=True)
        rankings = [rank_images(scores, there) for scores, there in columns]
        found[name] = np.array(
            [
                mean_where_defined(np.array([weighted_average_precision(r, w) for r in rankings]))
                for w in weights
            ]
        )
    return found
