"""Confounders: k-means clusters of a frozen pre-trained backbone's tokens, and contexts over them.

A confounder is a cluster of image tokens (grass, road, kitchen wall); the context of an image is
the share of its tokens in each. Both are fixed before training starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cmlr_edge.errors import DataError
from train.config import ConfounderConfig

ASSIGNMENT_SHARPNESS = 20.0  # of the cosine in the soft assignment
_FOLDS = 5
_RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_RIDGE_IMAGES, _RIDGE_LABELS = 2000, 500  # at most, to choose one by


@dataclass(frozen=True)
class Confounders:
    """Cluster centres and their prior."""

    centres: Tensor  # (K, D), means of the raw tokens of each cluster
    prior: Tensor  # (K,), share of tokens in each cluster, sums to 1


@dataclass(frozen=True)
class ContextTerm:
    """What context alone says about the labels: g(c) = c @ weight + bias, and P(c) as samples."""

    weight: Tensor  # (K, L)
    bias: Tensor  # (L,); centres g, so that it averages to 0 over the training images
    contexts: Tensor  # (C, K), representative training contexts
    prior: Tensor  # (C,), share of training images near each, sums to 1
    spread: Tensor  # (K,), variance of the training images' contexts about the nearest of these
    held_out_logits: Tensor  # (N, L), g of every training image, fitted without that image
    ridge: float


@dataclass(frozen=True)
class SamplePlan:
    """Which images tokens are drawn from, and how many of each: memory stays bounded."""

    per_image: int
    stride: int  # every stride-th image is drawn from

    @staticmethod
    def of(num_images: int, config: ConfounderConfig) -> SamplePlan:
        """Draw `tokens_per_image`, or what `max_tokens` leaves to each of so many images."""
        per_image = min(config.tokens_per_image, config.max_tokens // num_images)
        return SamplePlan(max(1, per_image), -(-num_images // config.max_tokens))


def sample_tokens(
    batches: Iterable[Tensor], plan: SamplePlan, seed: int, *, first_image: int = 0
) -> NDArray[np.float32]:
    """Draw tokens evenly from all images.

    Args:
        batches: Tokens, each (B, T, D), of successive images.
        plan: How many.
        seed: Of the draw, which is the same for an image wherever the batches begin.
        first_image: Index of the first image of the batches.

    Returns:
        (N, T', D): T' tokens of each image that is drawn from.
    """
    rng, index, kept = np.random.default_rng(seed), 0, []
    for tokens in batches:
        while index < first_image:
            rng.permutation(tokens.shape[1])
            index += 1
        for image in tokens:
            chosen = rng.permutation(len(image))[: plan.per_image]
            if index % plan.stride == 0:
                kept.append(image[chosen].float().numpy())
            index += 1
    return np.stack(kept) if kept else np.zeros((0, 0, 0), np.float32)


def build_confounders(
    tokens: NDArray[np.float32],
    config: ConfounderConfig,
    seed: int,
    *,
    targets: NDArray[np.float32] | None = None,
    finer_channels: int = 0,
) -> Confounders:
    """Build the confounders of the configured kind.

    Args:
        tokens: (N, D), the same number from every image, image by image.
        config: Kind, number and prior.
        seed: Of the k-means start, or of the random directions.
        targets: (images, L), for the kind "label".
        finer_channels: How many leading channels come from the finer stage, for "early".

    Raises:
        DataError: Fewer tokens than clusters.
    """
    if config.kind == "label":
        assert targets is not None
        confounders = _label_means(tokens, targets)
    elif config.kind == "random":
        centres = torch.randn(
            config.num_confounders, tokens.shape[1], generator=torch.Generator().manual_seed(seed)
        )
        deviation = torch.from_numpy(tokens.std(axis=0))
        share = torch.full((len(centres),), 1 / len(centres))
        confounders = Confounders(centres * deviation, share)
    else:
        if config.kind == "early":
            tokens = tokens.copy()
            tokens[:, finer_channels:] = 0
        confounders = _cluster(tokens, config.num_confounders, seed)
    if config.prior == "uniform":
        count = len(confounders.centres)
        return Confounders(confounders.centres, torch.full((count,), 1 / count))
    return confounders


def _cluster(tokens: NDArray[np.float32], number: int, seed: int) -> Confounders:
    """Cluster tokens by direction; a centre is the mean of its cluster's raw tokens."""
    if len(tokens) < number:
        raise DataError(
            f"{len(tokens)} tokens cannot form {number} confounders: give more images or ask for "
            "fewer"
        )
    from sklearn.cluster import MiniBatchKMeans  # seconds that only building confounders needs

    directions = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
    kmeans = MiniBatchKMeans(number, n_init=3, batch_size=4096, random_state=seed).fit(directions)
    counts = np.bincount(kmeans.labels_, minlength=number)
    sums = np.stack([np.bincount(kmeans.labels_, channel, number) for channel in tokens.T], axis=1)
    used = counts > 0  # k-means may leave a cluster empty
    return Confounders(
        centres=torch.from_numpy(sums[used] / counts[used, None]).float(),
        prior=torch.from_numpy(counts[used] / counts.sum()).float(),
    )


def _label_means(tokens: NDArray[np.float32], targets: NDArray[np.float32]) -> Confounders:
    """Mean features of every label's images, and the share of each label among all labels."""
    pooled = tokens.reshape(len(targets), -1, tokens.shape[1]).mean(axis=1)
    counts = targets.sum(axis=0)
    used = counts > 0
    means = (targets.T @ pooled)[used] / counts[used, None]
    prior = counts[used] / counts.sum()
    return Confounders(torch.from_numpy(means).float(), torch.from_numpy(prior).float())


def assign_context(tokens: Tensor, centres: Tensor) -> Tensor:
    """Soft share of an image's tokens in each confounder, by cosine.

    Args:
        tokens: (B, T, D).
        centres: (K, D).

    Returns:
        (B, K); rows sum to 1.
    """
    similarity = ASSIGNMENT_SHARPNESS * cosine_to_centres(tokens, centres)
    return similarity.softmax(dim=-1).mean(dim=1)


def cosine_to_centres(tokens: Tensor, centres: Tensor) -> Tensor:
    """Cosine of tokens (B, T, D) and centres (K, D): (B, T, K)."""
    # Channels that no centre has a value in are not looked at: those of the other stage. The product
    # is divided, not the tokens, which have thirty times as many numbers.
    tokens, seen = tokens.float(), (centres != 0).any(dim=0)
    length = (tokens * seen).norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return tokens @ F.normalize(centres.float(), dim=-1).T / length


def fit_context_term(
    contexts: Tensor,
    targets: Tensor,
    config: ConfounderConfig,
    seed: int,
    known: NDArray[np.bool_] | None = None,
    first: NDArray[np.int_] | None = None,
) -> ContextTerm:
    """Fit what context alone explains: ridge logistic regression of every label on the context.

    The network is trained beside `held_out_logits`: a g fitted on the very image would explain
    its labels too well, most of all with few images, and the network then learns too little from them.

    Args:
        contexts: (N, K), of the training images.
        targets: (N, L), 0 or 1.
        config: Ridge, strength, and number of representative contexts.
        seed: Of the folds and of the k-means that chooses the contexts.
        known: (N, L), whether somebody looked for the label; each is fitted where that is so.
        first: (N,), of the images equal to each the first one: they are held out together.

    Raises:
        DataError: Fewer images than folds.
    """
    if len(contexts) < _FOLDS:
        raise DataError(
            f"{len(contexts)} training images are too few to tell what context says about labels: "
            f"give {_FOLDS} or more, or take model.confounders.kind=none"
        )
    features, labels = contexts.double().numpy(), targets.numpy()
    if known is not None:
        labels = np.where(known, labels, np.float32(np.nan))
    scale = features.std(axis=0).clip(min=1e-6)
    scaled = (features - features.mean(axis=0)) / scale
    folds = np.random.default_rng(seed).permutation(len(features)) % _FOLDS
    if first is not None:
        folds = folds[first]
    ridge = config.ridge if config.ridge is not None else _choose_ridge(scaled, labels, folds)
    weight = config.strength * _fit_logistic(scaled, labels, ridge)[0] / scale[:, None]
    held_out = _held_out_logits(scaled, labels, folds, ridge, with_intercept=False)
    representative, prior, spread = _representative_contexts(features, config.num_contexts, seed)
    if config.prior == "uniform":
        prior = np.full_like(prior, 1 / len(prior))
    return ContextTerm(
        weight=torch.from_numpy(weight).float(),
        bias=torch.from_numpy(-(features @ weight).mean(axis=0)).float(),
        contexts=torch.from_numpy(representative).float(),
        prior=torch.from_numpy(prior).float(),
        spread=torch.from_numpy(spread).float(),
        held_out_logits=torch.from_numpy(config.strength * held_out).float(),
        ridge=ridge,
    )


def _fit_logistic(
    features: NDArray[np.float64], labels: NDArray[np.float32], ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K, L) and intercepts (L,); a label that never varies gets weight 0, NaN is not looked at."""
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(labels)
    positives, number = np.where(known, labels, 0).sum(axis=0), known.sum(axis=0)
    rate = (positives / np.maximum(number, 1)).clip(1e-3, 1 - 1e-3)
    weight, intercept = np.zeros((features.shape[1], labels.shape[1])), np.log(rate / (1 - rate))
    for label in range(labels.shape[1]):
        if 0 < positives[label] < number[label]:
            # Newton steps on (K, K): thrice as fast as L-BFGS where images outnumber confounders.
            model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", max_iter=500)
            rows = known[:, label]
            model.fit(features[rows], labels[rows, label])
            weight[:, label], intercept[label] = model.coef_[0], model.intercept_[0]
    return weight, intercept


def _held_out_logits(
    features: NDArray[np.float64],
    labels: NDArray[np.float32],
    folds: NDArray[np.int_],
    ridge: float,
    *,
    with_intercept: bool,
) -> NDArray[np.float64]:
    """(N, L): every image's logits from the fit on the other folds."""
    logits = np.zeros(labels.shape)
    for fold in range(_FOLDS):
        inside = folds != fold
        weight, intercept = _fit_logistic(features[inside], labels[inside], ridge)
        logits[~inside] = features[~inside] @ weight + intercept * with_intercept
    return logits


def _choose_ridge(
    features: NDArray[np.float64], labels: NDArray[np.float32], folds: NDArray[np.int_]
) -> float:
    """Take the strength with the lowest held-out log loss: of the first images, and of labels from all of them."""
    chosen, stride = slice(0, _RIDGE_IMAGES), -(-labels.shape[1] // _RIDGE_LABELS)
    features, labels, folds = features[chosen], labels[chosen, ::stride], folds[chosen]

    def held_out_loss(ridge: float) -> float:
        logits = _held_out_logits(features, labels, folds, ridge, with_intercept=True)
        return float(np.nanmean(np.logaddexp(0, logits) - labels * logits))

    return min(_RIDGES, key=held_out_loss)


def _representative_contexts(
    contexts: NDArray[np.float64], number: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Summarise P(c) by cluster means of the training contexts, their shares, and what they leave out."""
    if len(contexts) <= number:
        return contexts, np.full(len(contexts), 1 / len(contexts)), np.zeros(contexts.shape[1])
    from sklearn.cluster import KMeans

    kmeans = KMeans(number, n_init=1, random_state=seed).fit(contexts)
    counts = np.bincount(kmeans.labels_, minlength=number)
    spread = np.square(contexts - kmeans.cluster_centers_[kmeans.labels_]).mean(axis=0)
    return kmeans.cluster_centers_[counts > 0], counts[counts > 0] / counts.sum(), spread
