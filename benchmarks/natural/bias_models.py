"""Bias-only models: what pooled tokens, clusters, or a label's surroundings alone say of the labels.

Their held-out logits stand beside the head's in training (product of experts); at the test the head
stands alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.natural.batches import attention
from train.config import ConfounderConfig
from train.confounders.clustering import (
    ASSIGNMENT_SHARPNESS,
    SamplePlan,
    build_confounders,
    cosine_to_centres,
    fit_context_term,
    sample_tokens,
)
from train.fitting.frozen import TokenSet
from train.network.model import CausalHead

_COMPONENTS = 40  # of pooled tokens
_FOLDS = 5
_CLUSTERS = ConfounderConfig(kind="early")


def bias_logits(
    kind: Literal["clusters", "pooled", "surroundings"],
    train: TokenSet,
    seed: int,
    first: CausalHead | None = None,
) -> Tensor:
    """Held-out logits (N, L) of a bias-only model, without the labels' frequencies.

    Args:
        kind: What it sees. "surroundings": for label j the clusters of the tokens, weighted by
            1 - attention of j.
        train: Training tokens.
        seed: Of the folds and of the clusters.
        first: A head that was trained before, whose attention says where a label is.
    """
    if kind == "surroundings":
        assert first is not None
        return _surroundings(train, first, seed)
    features = _pooled(train) if kind == "pooled" else _shares(train, seed).mean(dim=1)
    term = fit_context_term(features, torch.from_numpy(train.targets), _CLUSTERS, seed)
    return term.held_out_logits


def _pooled(train: TokenSet) -> Tensor:
    means = torch.cat([tokens.mean(dim=1) for tokens in train.batches()]).numpy()
    scaled = (means - means.mean(axis=0)) / means.std(axis=0).clip(1e-6)
    number = min(_COMPONENTS, *scaled.shape)
    return torch.from_numpy(PCA(number, random_state=0).fit_transform(scaled))


def _shares(train: TokenSet, seed: int) -> Tensor:
    """Soft cluster of every token, (N, T, K)."""
    plan = SamplePlan.of(len(train.tokens), _CLUSTERS)
    sample = sample_tokens(train.batches(), plan, seed)
    confounders = build_confounders(
        sample.reshape(-1, sample.shape[2]), _CLUSTERS, seed, finer_channels=train.finer_channels
    )
    return torch.cat(
        [
            (ASSIGNMENT_SHARPNESS * cosine_to_centres(tokens, confounders.centres)).softmax(dim=-1)
            for tokens in train.batches()
        ]
    )


def _surroundings(train: TokenSet, first: CausalHead, seed: int) -> Tensor:
    looks = torch.cat([attention(first, tokens) for tokens in train.batches()])  # (N, L, T)
    weight = 1 - looks / looks.amax(dim=2, keepdim=True)
    contexts = (weight / weight.sum(dim=2, keepdim=True)) @ _shares(train, seed)  # (N, L, K)
    folds = np.random.default_rng(seed).permutation(len(contexts)) % _FOLDS
    logits = np.zeros(train.targets.shape)
    ridge = fit_context_term(
        contexts.mean(dim=1), torch.from_numpy(train.targets), _CLUSTERS, seed
    ).ridge
    for label, present in enumerate(train.targets.T):
        logits[:, label] = _held_out(contexts[:, label].double().numpy(), present, folds, ridge)
    return torch.from_numpy(logits).float()


def _held_out(
    features: NDArray[np.float64],
    present: NDArray[np.float32],
    folds: NDArray[np.int_],
    ridge: float,
) -> NDArray[np.float64]:
    scaled = (features - features.mean(axis=0)) / features.std(axis=0).clip(1e-6)
    logits = np.zeros(len(present))
    for fold in range(_FOLDS):
        inside = folds != fold
        if 0 < present[inside].sum() < inside.sum():
            model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", max_iter=500)
            model.fit(scaled[inside], present[inside])
            logits[~inside] = scaled[~inside] @ model.coef_[0]
    return logits
