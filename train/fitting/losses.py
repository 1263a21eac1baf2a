"""The training loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from train.config import TrainConfig


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 2.0,
    probability_clip: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021), summed over labels, averaged over images.

    With both gammas and the clip at 0 it is binary cross-entropy. The focusing weights carry no
    gradient, as in the authors' recipe.

    Args:
        logits: (B, L), before the sigmoid.
        targets: (B, L), 0 or 1.
        gamma_positive: Focusing exponent of positives.
        gamma_negative: Focusing exponent of negatives.
        probability_clip: Margin by which negatives' probabilities are lowered, in [0, 1).
        weight: (B, L), multiplies the loss of each decision.
    """
    logits = logits.float()
    positive = F.logsigmoid(logits)
    negative = F.logsigmoid(-logits)
    if probability_clip > 0:
        negative = (negative.exp() + probability_clip).clamp(max=1).log()
    with torch.no_grad():
        missed = 1 - logits.sigmoid()  # of positives
        claimed = 1 - negative.exp()  # of negatives, after the margin
        focus = targets * missed**gamma_positive + (1 - targets) * claimed**gamma_negative
        if weight is not None:
            focus = focus * weight
    loss = -(targets * positive + (1 - targets) * negative) * focus
    return loss.sum(dim=1).mean()


def training_loss(
    read_outs: Iterable[Tensor], targets: Tensor, config: TrainConfig, weight: Tensor | None
) -> Tensor:
    """The sum of the losses of all read-outs, logits (B, L) each; see `asymmetric_loss`."""
    losses = [
        asymmetric_loss(
            logits,
            targets,
            gamma_positive=config.gamma_positive,
            gamma_negative=config.gamma_negative,
            probability_clip=config.probability_clip,
            weight=weight,
        )
        for logits in read_outs
    ]
    return sum(losses[1:], losses[0])
