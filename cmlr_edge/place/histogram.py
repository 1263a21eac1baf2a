"""Which surroundings one source shows: a running histogram in blocks of time, of a fixed size."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.explanation import TrainedSurroundings

WINDOWS = (6, 36, 144)  # blocks that are looked back on: hours, half a day and a day of ten minutes
MOST_BLOCKS = WINDOWS[-1]
_FORGET = 1 - 1 / MOST_BLOCKS  # of the shares, with every block
_TRUST = 24  # blocks that training's own shares count as: few blocks say little of a place


class PlaceHistogram:
    """Blocks of one source, and which of training's surroundings its frames are nearest to.

    Frames of one block count as one look at the place: a camera gives thousands of almost the same.
    """

    def __init__(self, training: TrainedSurroundings) -> None:
        """Start empty."""
        self._contexts = np.array(training.contexts)  # (C, K)
        self._trained = np.array(training.prior)  # (C,)
        self.blocks: deque[NDArray[np.float64]] = deque(maxlen=MOST_BLOCKS)  # means (K,), in order
        self.num_blocks = 0  # that there ever were
        self.shares = np.zeros(len(self._trained))  # (C,), in blocks; older ones count for less
        self.clear_open()

    def clear_open(self) -> None:
        """Begin the block anew that is not yet whole."""
        self.open_sum = np.zeros(self._contexts.shape[1])
        self.open_shares = np.zeros(len(self._trained))
        self.open_frames = 0

    def add(self, context: NDArray[np.float32]) -> None:
        """Count one frame in the block that is not yet whole.

        Args:
            context: (K,), its share in each confounder.
        """
        nearest = np.square(self._contexts - context).sum(axis=1).argmin()
        self.open_sum += context
        self.open_shares[nearest] += 1
        self.open_frames += 1

    def end_block(self) -> None:
        """Take the frames since the last one as a block; nothing happens where there are none."""
        if not self.open_frames:
            return
        self.blocks.append(self.open_sum / self.open_frames)
        self.shares = _FORGET * self.shares + self.open_shares / self.open_frames
        self.num_blocks += 1
        self.clear_open()

    def mean(self, blocks: int = MOST_BLOCKS) -> NDArray[np.float64]:
        """Mean share in each confounder, (K,), of so many newest blocks; there must be one."""
        newest: NDArray[np.float64] = np.mean([*self.blocks][-blocks:], axis=0)
        return newest

    @property
    def prior(self) -> NDArray[np.float64]:
        """The place's share of each of training's surroundings, (C,): training's own at the start."""
        counted = self.shares + _TRUST * self._trained
        prior: NDArray[np.float64] = counted / counted.sum()
        return prior


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far two histograms (K,) are apart: 0 for the same, 1 for nothing in common."""
    return float(np.abs(one - other).sum() / 2)
