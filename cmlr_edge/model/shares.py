"""Exact intervals of shares and of rates, from counts: what few cases can say, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable


def share_between(hits: int, trials: int) -> tuple[float, float]:
    """Two-sided 95 % interval of a share (Clopper and Pearson): it holds at least so often, however few.

    Args:
        hits: Cases that count, 0 to `trials`.
        trials: Independent cases.
    """
    outside = 0.05 / 2
    low = 0.0 if hits == 0 else share_at_least(hits, trials, miss=outside)
    high = 1.0 if hits == trials else 1 - share_at_least(trials - hits, trials, miss=outside)
    return low, high


def share_at_least(hits: int, trials: int, *, miss: float) -> float:
    """The lower bound alone, wrong with probability `miss` at most."""
    if hits == 0 or trials == 0:
        return 0.0
    return _crossing(lambda p: hits_at_least(hits, trials, p), miss, 1.0)


def rate_at_most(count: int, exposure: float, *, miss: float) -> float:
    """Upper bound of a Poisson rate after `count` cases in `exposure`, wrong with probability `miss` at most."""
    if exposure <= 0:
        return math.inf
    most = count + 20.0 * math.sqrt(count + 1) + 20
    return _crossing(lambda mean: 1 - poisson_up_to(count, mean), 1 - miss, most) / exposure


def rate_at_least(count: int, exposure: float, *, miss: float) -> float:
    """The lower bound, likewise."""
    if count == 0 or exposure <= 0:
        return 0.0
    low = _crossing(lambda mean: 1 - poisson_up_to(count - 1, mean), miss, float(count))
    return low / exposure


def _crossing(rising: Callable[[float], float], value: float, high: float) -> float:
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        if middle in {low, high}:  # no number lies between them
            break
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def hits_at_least(count: int, trials: int, share: float) -> float:
    """Probability of `count` hits or more in so many trials."""
    if not 0 < share < 1:
        return float(share >= 1 or count <= 0)
    terms = (
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(share) + (trials - k) * math.log1p(-share)
        )
        for k in range(max(0, count), trials + 1)
    )  # fmt: skip
    return math.fsum(terms)


def poisson_up_to(count: int, mean: float) -> float:
    """Probability of `count` cases or fewer where `mean` are expected."""
    if mean <= 0:
        return 1.0
    if not math.isfinite(mean):
        return 0.0
    # What lies further out than ten deviations is below 1e-20, and thousands of terms.
    far = 10 * math.sqrt(mean) + 50
    first, last = max(0, math.floor(mean - far)), min(count, math.ceil(mean + far))
    return math.fsum(
        math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(first, last + 1)
    )
