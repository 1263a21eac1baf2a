"""What is fixed before the first gradient step: token scale, confounders, context term, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmlr_edge.errors import DataError
from train.baselines import CcdClassifier
from train.config import ModelConfig
from train.confounders import (
    Confounders,
    ContextTerm,
    assign_context,
    build_confounders,
    fit_context_term,
    sample_tokens,
)
from train.intervention import BackDoorIntervention
from train.model import CausalHead


@dataclass(frozen=True)
class Preparation:
    """Results of `prepare`; None where the configuration has no use for one."""

    token_mean: Tensor | None  # (D,)
    token_scale: Tensor | None  # (D,), one over the deviation
    confounders: Confounders | None
    context_term: ContextTerm | None
    label_means: Tensor | None  # (L, D), mean tokens of each label's images

    @property
    def context_logits(self) -> Tensor | None:
        """Context term of every training image, held out, (N, L); the back-door trains beside it."""
        return None if self.context_term is None else self.context_term.held_out_logits


@torch.no_grad()
def prepare(
    config: ModelConfig,
    read_tokens: Callable[[], Iterable[Tensor]],
    targets: NDArray[np.float32],
    *,
    finer_channels: int,
    seed: int,
) -> Preparation:
    """Look at the training images through the frozen backbone, twice at most.

    Args:
        config: Of the network.
        read_tokens: Gives the backbone's tokens of all training images, in batches (B, T, D).
        targets: (N, L), 0 or 1.
        finer_channels: Leading channels of a token that come from the finer stage.
        seed: Of sampling and clustering.

    Raises:
        DataError: Early confounders without a finer stage, or fewer tokens than clusters.
    """
    settings = config.confounders
    with_confounders = config.intervention != "none" and settings.kind != "none"
    if not (with_confounders or config.standardize_tokens or config.head == "ccd"):
        return Preparation(None, None, None, None, None)
    sample = sample_tokens(read_tokens(), settings.tokens_per_image, seed)
    mean = scale = None
    if config.standardize_tokens:
        deviation = np.maximum(sample.std(axis=0), 1e-4)
        mean, scale = torch.from_numpy(sample.mean(axis=0)), torch.from_numpy(1 / deviation)
        sample = (sample - mean.numpy()) * scale.numpy()
    confounders = term = label_means = None
    if config.head == "ccd":
        pooled = sample.reshape(len(targets), -1, sample.shape[1]).mean(axis=1)
        counts = np.maximum(targets.sum(axis=0), 1)[:, None]
        label_means = torch.from_numpy((targets.T @ pooled) / counts).float()
    if with_confounders:
        if settings.kind == "early" and finer_channels == 0:
            raise DataError("early confounders are those of a second stage: token_stages=2")
        confounders = build_confounders(
            sample, settings, seed, targets=targets, finer_channels=finer_channels
        )
    if confounders is not None and config.intervention == "back-door":
        contexts = [
            assign_context(
                tokens if mean is None or scale is None else (tokens - mean) * scale,
                confounders.centres,
            )
            for tokens in read_tokens()
        ]
        term = fit_context_term(torch.cat(contexts), torch.from_numpy(targets), settings, seed)
    return Preparation(mean, scale, confounders, term, label_means)


def install(head: CausalHead, prepared: Preparation) -> None:
    """Put the results of `prepare` into a head built from the same configuration."""
    if prepared.token_mean is not None and prepared.token_scale is not None:
        head.token_mean, head.token_scale = prepared.token_mean, prepared.token_scale
    if isinstance(head.classifier, CcdClassifier) and prepared.label_means is not None:
        head.classifier.memory = prepared.label_means
    intervention, confounders = head.intervention, prepared.confounders
    if intervention is None or confounders is None:
        return
    if isinstance(intervention, BackDoorIntervention):
        assert prepared.context_term is not None
        intervention.set_confounders(confounders, prepared.context_term)
    else:
        intervention.set_confounders(confounders)
