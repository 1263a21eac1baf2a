"""Exact intervals of shares and of rates, from counts: what few cases can say, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable

CONFIDENCE = 0.95


def share_between(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided interval of a share (Clopper and Pearson): it holds at least so often, however few.

    Args:
        hits: Cases that count, 0 to `trials`.
        trials: Independent cases.
        confidence: In (0, 1).
    """
    outside = (1 - confidence) / 2
    low = 0.0 if hits == 0 else share_at_least(hits, trials, miss=outside)
    high = 1.0 if hits == trials else 1 - share_at_least(trials - hits, trials, miss=outside)
    return low, high


def share_at_least(hits: int, trials: int, *, miss: float) -> float:
    """The lower bound alone, wrong with probability `miss` at most."""
    if hits == 0 or trials == 0:
        return 0.0
    return _crossing(lambda p: _more_than(hits - 1, trials, p), miss, 0.0, 1.0)


def rate_at_most(count: int, exposure: float, *, miss: float) -> float:
    """Upper bound of a Poisson rate after `count` cases in `exposure`, wrong with probability `miss` at most."""
    if exposure <= 0:
        return math.inf
    most = count + 20.0 * math.sqrt(count + 1) + 20
    return _crossing(lambda mean: 1 - _poisson_up_to(count, mean), 1 - miss, 0.0, most) / exposure


def _crossing(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def _more_than(count: int, trials: int, p: float) -> float:
    """Probability of more than `count` hits."""
    if not 0 < p < 1:
        return float(p >= 1)
    terms = (
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(p) + (trials - k) * math.log1p(-p)
        )
        for k in range(count + 1, trials + 1)
    )  # fmt: skip
    return math.fsum(terms)


def _poisson_up_to(count: int, mean: float) -> float:
    if mean <= 0:
        return 1.0
    terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
    return math.fsum(terms)
