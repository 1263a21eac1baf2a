"""Does a label need its usual company? Exclusive, Co-occur, All and Non-biased scores.

For a biased pair (b, c), label b is scored on the images where it stands without c (exclusive) and
with c (co-occur). Average precision ranks them among the images without b (COCO-Stuff); top-3 recall
is the share of them where b is among the image's three highest scores (DeepFashion). Definitions of
Singh et al., CVPR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from train.data.base import ContextBias
from train.judging.bootstrap import (
    RESAMPLES,
    bootstrap_intervals,
    mean_where_defined,
    rank_images,
    weighted_average_precision,
)
from train.judging.metrics import in_top3

Statistic = Callable[[NDArray[np.int_]], float]  # of weights (N,)
_Measure = Callable[[int, NDArray[np.bool_], NDArray[np.bool_]], Statistic]  # label, sets (N,)


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and its 95 % bootstrap interval over images; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairScores:
    """One biased pair; a score is None where no image belongs to its set."""

    label: str
    context: str
    exclusive: float | None
    co_occur: float | None
    num_exclusive: int  # images with the label and without the context
    num_co_occur: int


@dataclass(frozen=True)
class ContextBiasScores:
    """Means over the biased pairs, over all labels, and over the labels to compare with."""

    measure: str
    exclusive: Estimate
    co_occur: Estimate
    all_labels: float | None
    non_biased: float | None  # None where the benchmark names no such labels
    pairs: tuple[PairScores, ...]


def score_context_bias(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    labels: tuple[str, ...],
    bias: ContextBias,
    *,
    known: NDArray[np.bool_] | None = None,
    resamples: int = RESAMPLES,
) -> ContextBiasScores:
    """Score every pair, and bound the means by a bootstrap over images.

    Args:
        scores: (N, L), probabilities.
        targets: (N, L), 0 or 1.
        labels: L names.
        bias: The pairs and the measure.
        known: (N, L), as `LabeledImages.known`: where nobody looked for the company, it is not away.
        resamples: Of the bootstrap.
    """
    there = targets > 0
    away = ~there if known is None else ~there & known
    measure = _average_precision(scores, targets)
    if bias.measure == "top-3 recall":
        measure = _top3_recall(scores)
    exclusive = [measure(b, there[:, b] & away[:, c], ~there[:, b]) for b, c in bias.pairs]
    co_occur = [measure(b, there[:, b] & there[:, c], ~there[:, b]) for b, c in bias.pairs]
    once = np.ones(len(scores), np.int_)
    every = np.array([measure(k, there[:, k], ~there[:, k])(once) for k in range(len(labels))])
    means = _mean_estimates([exclusive, co_occur], len(scores), resamples)
    return ContextBiasScores(
        measure=bias.measure,
        exclusive=means[0],
        co_occur=means[1],
        all_labels=_number(mean_where_defined(every)),
        non_biased=_number(mean_where_defined(every[list(bias.non_biased)])),
        pairs=tuple(
            PairScores(
                label=labels[b],
                context=labels[c],
                exclusive=_number(alone(once)),
                co_occur=_number(together(once)),
                num_exclusive=int((there[:, b] & away[:, c]).sum()),
                num_co_occur=int((there[:, b] & there[:, c]).sum()),
            )
            for (b, c), alone, together in zip(bias.pairs, exclusive, co_occur, strict=True)
        ),
    )


def _mean_estimates(
    groups: list[list[Statistic]], num_images: int, resamples: int
) -> list[Estimate]:
    """Mean of each group of statistics, all bounded on the same resamples."""

    def means(weights: NDArray[np.int_]) -> NDArray[np.float64]:
        columns = (np.array([statistic(weights) for statistic in group]) for group in groups)
        return np.array([mean_where_defined(column) for column in columns])

    values = means(np.ones(num_images, np.int_))
    bounds = bootstrap_intervals(means, num_images, resamples=resamples)
    return [
        Estimate(_number(value), _number(low), _number(high))
        for value, (low, high) in zip(values, bounds, strict=True)
    ]


def _average_precision(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> _Measure:
    def measure(
        label: int, positives: NDArray[np.bool_], negatives: NDArray[np.bool_]
    ) -> Statistic:
        ranking = rank_images(scores[:, label], targets[:, label], positives | negatives)
        return partial(weighted_average_precision, ranking)

    return measure


def _top3_recall(scores: NDArray[np.float32]) -> _Measure:
    chosen = in_top3(scores)

    def measure(label: int, positives: NDArray[np.bool_], _: NDArray[np.bool_]) -> Statistic:
        rows = np.flatnonzero(positives)
        return partial(_weighted_share, chosen[rows, label], rows)

    return measure


def _weighted_share(
    hits: NDArray[np.bool_], rows: NDArray[np.int_], weights: NDArray[np.int_]
) -> float:
    drawn = weights[rows]
    return float((hits * drawn).sum() / drawn.sum()) if drawn.any() else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
