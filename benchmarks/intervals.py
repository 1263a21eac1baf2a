"""95 % intervals of paired gains: over divisions and trainings, and over photos drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]

_LEVEL = 0.95
RESAMPLES = 200  # of photos, the same for every run


def photo_draws(num_photos: int) -> NDArray[np.int_]:
    """(RESAMPLES, N): how often each photo was drawn, whatever split it is tested in."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(num_photos, size=(RESAMPLES, num_photos))
    return np.stack([np.bincount(draw, minlength=num_photos) for draw in drawn])


def t_interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    """Student's t over gains (S,); NaN of one."""
    number = len(gains)
    if number < 2:
        return float("nan"), float("nan")
    reach = student.ppf((1 + _LEVEL) / 2, number - 1) * gains.std(ddof=1) / number**0.5
    return float(gains.mean() - reach), float(gains.mean() + reach)


def mean_with_interval(values: ArrayLike) -> dict[str, Any]:
    """JSON-ready mean of values (S,) and its interval by `t_interval`."""
    given = np.asarray(values, np.float64)
    return {"mean": float(given.mean()), "interval": [*t_interval(given)]}


def photo_interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """Percentiles over resamples of photos (S, R), each with the S runs drawn anew."""
    rng = np.random.default_rng(0)
    number, draws = resampled.shape
    means = [resampled[rng.integers(number, size=number), r].mean() for r in range(draws)]
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
