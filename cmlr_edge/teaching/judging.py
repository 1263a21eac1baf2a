"""What is to be expected of a label that was taught: on pictures it was not taught from, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.shares import share_between
from cmlr_edge.model.spec import TaughtLabel
from cmlr_edge.model.thresholds import written
from cmlr_edge.teaching.fitting import Array, Fitted

_FOLDS = 5
_DRAWS = 500  # of pictures, for the interval of the threshold
Fit = Callable[[Array, NDArray[np.bool_]], Fitted]


@dataclass(frozen=True)
class Judgement:
    """A threshold, and what it did on pictures that were held out when it and the row were fitted."""

    threshold: float
    threshold_between: tuple[float, float]
    hits: int
    positives: int
    false_alarms: int
    negatives: int

    @property
    def recall_between(self) -> tuple[float, float]:
        """Of pictures with the label, the share that is found; 95 %, exact."""
        return share_between(self.hits, self.positives)

    @property
    def false_alarms_between(self) -> tuple[float, float]:
        """Of pictures without it, the share on which it is said; likewise."""
        return share_between(self.false_alarms, self.negatives)

    @property
    def tells(self) -> bool:
        """Whether it says more than chance: the two intervals lie apart."""
        return self.recall_between[0] > self.false_alarms_between[1]

    def described(self, label: str) -> TaughtLabel:
        """As a spec keeps it."""

        def rounded(pair: tuple[float, float]) -> tuple[float, float]:
            return round(pair[0], 4), round(pair[1], 4)

        return TaughtLabel(
            name=label,
            positives=self.positives,
            negatives=self.negatives,
            threshold_between=rounded(self.threshold_between),
            recall=round(self.hits / self.positives, 4),
            recall_between=rounded(self.recall_between),
            false_alarms=round(self.false_alarms / self.negatives, 4),
            false_alarms_between=rounded(self.false_alarms_between),
        )


def judge(bags: Array, present: NDArray[np.bool_], fit: Fit, *, seed: int = 0) -> Judgement:
    """Fit on four fifths and look at the others, five times.

    Args:
        bags: Coordinates of pictures, (N, T, R).
        present: (N,), at least 5 of each.
        fit: What is done with all of them in the end.
        seed: Of the division.
    """
    folds = _divide(present, seed)
    logits = np.zeros(len(present))
    for fold in range(_FOLDS):
        out = folds == fold
        logits[out] = fit(bags[~out], present[~out]).logits(bags[out])
    # The threshold of each fifth is chosen on the others, so that its own pictures judge it.
    said = np.zeros(len(present), bool)
    for fold in range(_FOLDS):
        out = folds == fold
        said[out] = logits[out] >= best_cut(logits[~out], present[~out])
    rng = np.random.default_rng(seed)
    where = np.flatnonzero(present), np.flatnonzero(~present)
    cuts = []
    for _ in range(_DRAWS):
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in where])
        cuts.append(best_cut(logits[drawn], present[drawn]))
    low, high = (_probability(float(x)) for x in np.quantile(cuts, [0.025, 0.975]))
    found = _probability(best_cut(logits, present))
    [threshold] = written(np.array([found], np.float32))
    return Judgement(
        threshold=threshold,
        threshold_between=(min(low, threshold), max(high, threshold)),
        hits=int((said & present).sum()),
        positives=int(present.sum()),
        false_alarms=int((said & ~present).sum()),
        negatives=int((~present).sum()),
    )


def best_cut(logits: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Where the share that is found least the share of false alarms is largest.

    It does not depend on how many pictures with the label were given for one without. Half way to the next
    lower logit; of several as good the middle one.
    """
    order = np.argsort(-logits, kind="stable")
    ranked, there = logits[order], present[order]
    gain = np.cumsum(np.where(there, 1 / present.sum(), -1 / (~present).sum()))
    cuttable = np.append(ranked[:-1] > ranked[1:], True)
    gain = np.where(cuttable, gain, -np.inf)
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    last = int(best[len(best) // 2])
    below = ranked[last + 1] if last + 1 < len(ranked) else ranked[last] - 1
    return float((ranked[last] + below) / 2)


def _divide(present: NDArray[np.bool_], seed: int) -> NDArray[np.int_]:
    """A fifth for each picture, with and without the label in the same shares."""
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(present), int)
    for rows in (np.flatnonzero(present), np.flatnonzero(~present)):
        folds[rng.permutation(rows)] = np.arange(len(rows)) % _FOLDS
    return folds


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -15.0), 15.0)))
