"""How strongly each label moves each other one: do-swaps, and co-occurrence to compare them with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.fitting.frozen import TokenSet
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead

_IMAGES, _DONORS = 200, 2000


@torch.inference_mode()
def swap_effects(head: CausalHead, data: TokenSet) -> NDArray[np.float32]:
    """Effect of label i on the probability of label j by do-swap.

    What the causal branch reads of label i is replaced, image by image, by that of a donor image
    with label i and of one without; everything else of the image stays. The effect is the mean
    difference in p_j at the same decoupled logit.

    Args:
        head: With a causal branch.
        data: Images to change and donors.

    Returns:
        (L, L): row j, column i; the diagonal is 0.

    Raises:
        ValueError: The head has no causal branch.
    """
    features, logits, targets = _read_sources(head, data)
    images = min(_IMAGES, len(logits))
    rng = np.random.default_rng(0)
    number = logits.shape[1]
    effects = np.zeros((number, number), np.float32)
    for cause in range(number):
        moved = []
        for present in (1, 0):
            pool = np.flatnonzero(targets[:, cause] == present)
            if len(pool) == 0:
                break
            donors = torch.from_numpy(rng.choice(pool, images))
            swapped = logits[:images].clone()
            swapped[:, cause] = logits[donors, cause]
            swapped_features = None
            if features is not None:
                swapped_features = features[:images].clone()
                swapped_features[:, cause] = features[donors, cause]
            causal = head.causal_logits(swapped_features, swapped)
            if causal is None:
                raise ValueError("the head has no causal branch whose links could be measured")
            moved.append(_probability(head, logits[:images], causal))
        if len(moved) == 2:
            effects[:, cause] = (moved[0] - moved[1]).mean(dim=0).numpy()
    np.fill_diagonal(effects, 0)
    return effects


def _read_sources(
    head: CausalHead, data: TokenSet
) -> tuple[Tensor | None, Tensor, NDArray[np.float32]]:
    features, logits = [], []
    for tokens in data.batches():
        output = head.head(tokens)
        logits.append(output.decoupled_logits)
        if output.label_features is not None:
            features.append(output.label_features)
        if sum(map(len, logits)) >= _DONORS:
            break
    joined = torch.cat(logits)
    return torch.cat(features) if features else None, joined, data.targets[: len(joined)]


def _probability(head: CausalHead, decoupled: Tensor, causal: Tensor) -> Tensor:
    if head.config.intervention == "back-door" or head.config.fusion == "sum":
        effect = decoupled + causal
        if isinstance(head.intervention, BackDoorIntervention):
            return head.intervention.average(effect)
        return effect.sigmoid()
    return causal.sigmoid()


def cooccurrence(
    targets: NDArray[np.float32], known: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Raw co-occurrence as a map of effects: P(j | i) - P(j | not i), (L, L), diagonal 0.

    Where i is on no picture, or on all, one of the two is unknown, and the difference is 0.

    Args:
        targets: (N, L), 0 or 1.
        known: (N, L), whether somebody looked for the label; a picture counts where both are known.
    """
    looked = np.ones_like(targets) if known is None else np.maximum(known, targets)
    absent = looked - targets
    there, away = looked.T @ targets, looked.T @ absent  # [j, i]
    with_cause = targets.T @ targets / np.maximum(there, 1)
    without = targets.T @ absent / np.maximum(away, 1)
    is_known = (there > 0) & (away > 0)
    difference = np.where(is_known, with_cause - without, 0).astype(np.float32)
    np.fill_diagonal(difference, 0)
    return difference
