"""Whether two engines decide alike: as a whole, and for each label where it matters.

Most labels are absent from most frames, so the share of all decisions that differ says little of one
label: an engine that never says "person" again may differ in 1 of 100. So each label is also counted
over the frames on which either engine says it. Each engine decides by its own thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A label that one of the engines does not say on more than this share of the frames on which the
# other does is no longer the same label, unless more than this was allowed of the whole.
LABEL_SHARE = 0.5
# On fewer frames with the label than this, a score that lies on its threshold could decide it.
MIN_FRAMES = 5
_NEVER_SAID, _ALWAYS_SAID = 0.999, 0.001  # thresholds that scores hardly ever reach, or miss
# Share of all decisions that may differ, by the precision of the file: for its own build, for an engine
# made of it, and for another runtime that takes it.
MAX_SHARE = {"float32": 0.005, "float16": 0.005, "int8": 0.02}


@dataclass(frozen=True)
class Agreement:
    """What two engines said on the same frames; counts are by label, (L,)."""

    labels: tuple[str, ...]
    frames: int
    lost: NDArray[np.int64]  # frames on which only the first engine says it
    gained: NDArray[np.int64]  # only the second
    said: NDArray[np.int64]  # either

    @classmethod
    def of(cls, labels: Sequence[str], first: NDArray[Any], second: NDArray[Any]) -> Agreement:
        """Compare decisions: arrays of booleans, (N, L)."""
        lost, gained, said = first & ~second, second & ~first, first | second
        counts = (mask.sum(axis=0, dtype=np.int64) for mask in (lost, gained, said))
        return cls(tuple(labels), len(first), *counts)

    def __add__(self, other: Agreement) -> Agreement:
        """Join what was counted on other frames of the same engines."""
        return Agreement(
            self.labels,
            self.frames + other.frames,
            self.lost + other.lost,
            self.gained + other.gained,
            self.said + other.said,
        )

    @property
    def decisions(self) -> int:
        """Frames times labels."""
        return self.frames * len(self.labels)

    @property
    def flips(self) -> int:
        """Decisions that differ."""
        return int(self.lost.sum() + self.gained.sum())

    @property
    def flips_by_label(self) -> dict[str, int]:
        """Frames that differ, of the labels that have some, most first."""
        flips = self.lost + self.gained
        order = np.argsort(-flips, kind="stable")
        return {self.labels[i]: int(flips[i]) for i in order if flips[i]}

    def differs(self, max_share: float) -> bool:
        """Whether more of all decisions differ than this share; one may, but for a share of 0."""
        return self.flips > (max(1.0, max_share * self.decisions) if max_share else 0)

    def objections(self, max_share: float) -> list[str]:
        """Every reason why the second engine may not take the place of the first; empty if none."""
        differs = self.differs(max_share)
        whole = f"{self.flips} of {self.decisions} decisions differ, more than {max_share:.1%}"
        return [whole] * differs + self.changed_labels(max_share)

    def changed_labels(self, max_share: float) -> list[str]:
        """Labels that fell silent, or speak where they did not: a sentence for each, with its name.

        Args:
            max_share: What is allowed of the whole; a label may differ by as much, or LABEL_SHARE.
        """
        allowed = max(LABEL_SHARE, max_share)
        sentences = []
        for i in np.flatnonzero(self.said >= MIN_FRAMES):
            said, lost, gained = int(self.said[i]), int(self.lost[i]), int(self.gained[i])
            if lost > allowed * said:
                sentences.append(
                    f"{self.labels[i]!r} falls silent on {lost} of the {said} frames with it"
                )
            if gained > allowed * said:
                sentences.append(
                    f"{self.labels[i]!r} is said anew on {gained} of the {said} frames with it"
                )
        return sentences


def threshold_objections(former: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """What speaks against new thresholds, whatever was in view: labels that can hardly be said any more.

    Args:
        former: By label, of the engine in service.
        now: Of the one that would take its place.
    """
    return [
        f"the threshold of {label} is {now[label]:g}, it was {threshold:g}: it would hardly ever be "
        f"{'said' if now[label] > _NEVER_SAID else 'missing'}"
        for label, threshold in former.items()
        if label in now
        and (now[label] > _NEVER_SAID >= threshold or now[label] < _ALWAYS_SAID <= threshold)
    ]
