"""The same frames on two machines: which decisions differ, and by how much the scores do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

NEAR_THRESHOLD = 1e-3  # a decision may differ where the score is no further from its threshold


def compare(first: Path, second: Path, thresholds: dict[str, float]) -> dict[str, Any]:
    """Compare two tables that `cmlr-edge label --csv` wrote.

    Args:
        first: Scores of one machine.
        second: Of the other, for the same frames.
        thresholds: By label.

    Returns:
        JSON-ready; "equal" says whether every decision is, but for those near a threshold.
    """
    labels, limits = list(thresholds), np.array(list(thresholds.values()))
    scores = [_scores(path, labels) for path in (first, second)]
    if scores[0].shape != scores[1].shape:
        raise SystemExit(
            f"{first} and {second} hold {scores[0].shape} and {scores[1].shape} scores"
        )
    differs = (scores[0] >= limits) != (scores[1] >= limits)
    near = np.abs(scores[0] - limits) <= NEAR_THRESHOLD
    return {
        "frames": len(scores[0]),
        "decisions": int(differs.size),
        "decisions_at_or_above_threshold": int((scores[0] >= limits).sum()),
        "decisions_that_differ": int(differs.sum()),
        "of_them_near_a_threshold": int((differs & near).sum()),
        "max_score_difference": float(np.abs(scores[0] - scores[1]).max()),
        "equal": not bool((differs & ~near).any()),
    }


def _scores(path: Path, labels: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    with path.open(newline="") as file:
        rows = [[float(row[label]) for label in labels] for row in csv.DictReader(file)]
    return np.array(rows, np.float64)
