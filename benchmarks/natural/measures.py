"""Exclusive, Co-occur and All of one table of scores, on the photos and on resampled ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.natural.sampling import Pair
from train.judging.bootstrap import (
    Ranking,
    mean_where_defined,
    rank_images,
    weighted_average_precision,
)
from train.judging.metrics import MIN_POSITIVES

_LEAST_PHOTOS = 2  # of a pair's label without c, or with c: fewer are not ranked
MEASURES = ("exclusive", "co_occur", "all")


@dataclass(frozen=True)
class Rankings:
    """The photos in the order of their scores: per pair without c and with c, and per label."""

    groups: dict[str, list[Ranking]]


def rank(
    scores: NDArray[np.float32], targets: NDArray[np.float32], pairs: tuple[Pair, ...]
) -> Rankings:
    """Rank the photos once; what weights say of them then takes little.

    Args:
        scores: (N, L).
        targets: (N, L), 0 or 1. Labels with fewer than `MIN_POSITIVES` do not count in All.
        pairs: (b, c).
    """
    there = targets > 0

    def ranking(label: int, rows: NDArray[np.bool_]) -> Ranking:
        return rank_images(scores[:, label], targets[:, label], rows)

    def of_pair(label: int, rows: NDArray[np.bool_]) -> Ranking:
        enough = (there[:, label] & rows).sum() >= _LEAST_PHOTOS
        return ranking(label, rows & enough)

    everyone = np.ones(len(scores), bool)
    scored = np.flatnonzero(there.sum(axis=0) >= MIN_POSITIVES)
    return Rankings(
        {
            "exclusive": [of_pair(b, ~(there[:, b] & there[:, c])) for b, c in pairs],
            "co_occur": [of_pair(b, ~there[:, b] | there[:, c]) for b, c in pairs],
            "all": [ranking(label, everyone) for label in scored.tolist()],
        }
    )


def measure(rankings: Rankings, weights: NDArray[np.int_]) -> dict[str, float]:
    """Mean average precisions in percent where photo i counts `weights[i]` times."""
    return {
        name: 100
        * mean_where_defined(np.array([weighted_average_precision(r, weights) for r in group]))
        for name, group in rankings.groups.items()
    }


def measure_pairs(rankings: Rankings, num_photos: int) -> dict[str, list[float | None]]:
    """Average precision in percent of every pair, without c and with c; None of too few photos."""
    once = np.ones(num_photos, np.int_)

    def percent(ranking: Ranking) -> float | None:
        value = weighted_average_precision(ranking, once)
        return None if math.isnan(value) else round(100 * value, 2)

    return {
        name: [percent(ranking) for ranking in rankings.groups[name]]
        for name in ("exclusive", "co_occur")
    }
