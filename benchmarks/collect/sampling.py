"""Ways to choose the frames of a pool that are labelled next."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.events.doubts import doubts_of
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks.collect_record import SUFFIX, KeptName
from cmlr_edge.sinks.frame_ranking import FrameRanking
from cmlr_edge.why import Reasons, logits_of

RANDOM, ENTROPY, MARGIN = "random", "uncertainty: entropy", "uncertainty: near a threshold"
CONTRADICTION = "contradictions"
WAYS = (RANDOM, CONTRADICTION, ENTROPY, MARGIN)


def choose(way: str, pool: list[Reasons], count: int, seed: int) -> NDArray[np.int_]:
    """Rows of the pool to label next.

    Args:
        way: One of `WAYS`.
        pool: What the model says of each frame, and why.
        count: How many.
        seed: Of the random way, and of ties.
    """
    rng = np.random.default_rng(seed)
    if way == RANDOM:
        return rng.permutation(len(pool))[:count]
    if way == CONTRADICTION:
        return _as_the_device_keeps(pool, count)
    scores = np.clip(np.stack([reasons.scores for reasons in pool]), 1e-7, 1 - 1e-7)
    if way == ENTROPY:
        doubt = -(scores * np.log(scores) + (1 - scores) * np.log(1 - scores)).sum(axis=1)
    else:
        limits = logits_of(np.asarray(pool[0].thresholds, np.float32))
        doubt = -np.abs(logits_of(scores) - limits).min(axis=1)
    return np.lexsort((rng.random(len(pool)), -doubt))[:count]


def _as_the_device_keeps(pool: list[Reasons], count: int) -> NDArray[np.int_]:
    """What `Collect` would keep of the pool, were there room for so many."""
    kept = []
    for row, reasons in enumerate(pool):
        said = Prediction(reasons.scores, (), Latency(), 0.0, why=reasons)
        limits = np.asarray(reasons.thresholds, np.float32)
        for doubt in doubts_of(said, limits, np.ones(len(limits), bool))[:1]:
            worth = f"{round(doubt.worth * 1e4):05d}"
            name = KeptName(reasons.labels[doubt.label], doubt.kind, worth, f"{row:032d}")
            kept.append(Path("pool", "_".join(name) + SUFFIX))
    ranking = FrameRanking()
    for path in kept:
        ranking.add(path)
    for _ in range(len(kept) - count):
        ranking.remove(least := ranking.least())
        kept.remove(least)
    return np.array([int(KeptName.of(path).digest) for path in kept], int)


def kinds_of(pool: list[Reasons], rows: NDArray[np.int_]) -> dict[str, int]:
    """Which doubts are the first ones of these rows."""
    found: Counter[str] = Counter()
    for row in rows:
        reasons = pool[row]
        said = Prediction(reasons.scores, (), Latency(), 0.0, why=reasons)
        limits = np.asarray(reasons.thresholds, np.float32)
        found.update(d.kind for d in doubts_of(said, limits, np.ones(len(limits), bool))[:1])
    return dict(found)
