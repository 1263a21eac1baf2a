"""What of a prediction contradicts itself, and how much: what makes a frame worth a person's look.

A model that says why is held against itself: a label that its surroundings, other labels or the other read-out
decide. One that does not, is held against its thresholds and its own frames before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.explanation import LINKS, OTHER_SCORES, SURROUNDINGS
from cmlr_edge.prediction import Prediction
from cmlr_edge.why import logits_of

# surroundings, links: without them the label would be decided otherwise; context: by the other read-out it is;
# flicker: it comes and goes; near: it nearly, or hardly, reaches its threshold.
Kind: TypeAlias = Literal["surroundings", "links", "context", "flicker", "near"]
CONTRADICTIONS: dict[str, Kind] = {
    SURROUNDINGS: "surroundings",
    LINKS: "links",
    OTHER_SCORES: "context",
}
_LEAST = 0.25  # logits that both sides of a contradiction are from the threshold
_NEAR = 0.5  # logits
_LEAST_CHANGES = 2.0
_FORGET_S = 10.0  # a change counts e times less after this


@dataclass(frozen=True)
class Doubt:
    """One thing that is odd about one label."""

    kind: Kind
    label: int  # its index
    # In (0, 1), of others of its kind; contradictions above 0.5, all else below: it says less.
    worth: float


def doubts_of(
    prediction: Prediction,
    thresholds: NDArray[np.float32],
    wanted: NDArray[np.bool_],
    changes: NDArray[np.float64] | None = None,
) -> list[Doubt]:
    """Look for doubts, at most one of each kind: that of the label which is the oddest.

    Args:
        prediction: A valid one.
        thresholds: (L,), from which score on a label is there.
        wanted: (L,), labels that count.
        changes: (L,), see `Flicker`.

    Returns:
        The most worthy first.
    """
    limits = logits_of(thresholds)
    reach = logits_of(prediction.scores) - limits
    worths: dict[Kind, NDArray[np.float64]] = {"near": 0.5 * (1 - np.abs(reach) / _NEAR)}
    if changes is not None:
        enough = changes >= _LEAST_CHANGES
        worths["flicker"] = np.where(enough, 0.5 - 0.5 / np.maximum(changes, 1), 0.0)
    for output, logits in (prediction.why.otherwise() if prediction.why else {}).items():
        depth = contradiction(reach, logits - limits)
        worths[CONTRADICTIONS[output]] = np.where(
            depth >= _LEAST, 0.5 + 0.5 * depth / (1 + depth), 0.0
        )
    found = []
    for kind, worth in worths.items():
        counted = np.where(wanted, worth, 0.0)
        label = int(counted.argmax())
        if counted[label] > 0:
            found.append(Doubt(kind, label, float(counted[label])))
    return sorted(found, key=lambda doubt: -doubt.worth)


def contradiction(
    reach: NDArray[np.float64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How deep two ways to decide contradict each other: by both at least so many logits; 0 where not.

    Args:
        reach: Logits above the threshold, of any shape.
        otherwise: Likewise, by the other way.
    """
    depth: NDArray[np.float64] = np.where(
        (reach >= 0) != (otherwise >= 0), np.minimum(np.abs(reach), np.abs(otherwise)), 0.0
    )
    return depth


class Flicker:
    """Counts how often labels of one source came and went lately."""

    def __init__(self, labels: int) -> None:
        """Start before the first frame of a source with so many labels."""
        self.changes = np.zeros(labels)  # each counts less the longer ago it was
        self._said: NDArray[np.bool_] | None = None
        self._last_s = 0.0

    def add(self, said: NDArray[np.bool_], time_s: float) -> None:
        """Take the next frame: which labels (L,) are said, and when."""
        if self._said is not None and time_s >= self._last_s:
            self.changes *= np.exp((self._last_s - time_s) / _FORGET_S)
            self.changes += said != self._said
        self._said, self._last_s = said, time_s
