"""Scores for this place: the intervention averaged over the place's surroundings, not training's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.explanation import (
    LINKS,
    OTHER_SCORES,
    OWN_EVIDENCE,
    SURROUNDINGS,
    TrainedSurroundings,
)
from cmlr_edge.why import Reasons

_FAR = 80.0  # logits whose probability float64 can still tell from 0 and 1


def average_over(reasons: Reasons, prior: NDArray[np.float64]) -> Reasons:
    """What a picture's reasons and scores are, averaged over a prior: sum over c of P(c) sigmoid(f + g(c)).

    f is own evidence, other labels and bias; g(c) is what surroundings c say. Labels that were taught have
    no surroundings, and keep their scores.

    Args:
        reasons: With `meaning.training`; of a picture and its tiles each is averaged.
        prior: (C,), over training's surroundings; sums to 1.
    """
    if reasons.looks:
        return Reasons.together([average_over(look, prior) for look in reasons.looks])
    meaning = reasons.meaning
    assert meaning.training is not None
    effect = reasons.outputs[OWN_EVIDENCE].astype(np.float64) + meaning.bias
    if LINKS in reasons.outputs:
        effect = effect + reasons.outputs[LINKS].sum(axis=1)
    logits = averaged_logits(effect, meaning.training, prior)
    scores = reasons.scores.copy()
    scores[: len(logits)] = 1 / (1 + np.exp(-logits))
    outputs = {**reasons.outputs, SURROUNDINGS: (logits - effect).astype(np.float32)}
    if meaning.surroundings == "own":  # what the engine decided by is now the other read-out
        outputs[OTHER_SCORES] = reasons.scores[: len(logits)]
    return replace(
        reasons,
        scores=scores,
        outputs=outputs,
        meaning=replace(meaning, surroundings="averaged"),
    )


def averaged_logits(
    effect: NDArray[np.float64], training: TrainedSurroundings, prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logits (..., L) of the averaged probability, of f (..., L) and a prior (C,)."""
    at = np.clip(effect[..., None, :] + training.said, -_FAR, _FAR)
    # Both as sums of their own: 1 - p would lose what a score near 1 tells.
    present, absent = ((prior[:, None] / (1 + np.exp(-sign * at))).sum(axis=-2) for sign in (1, -1))
    logits: NDArray[np.float64] = np.log(present) - np.log(absent)
    return logits
