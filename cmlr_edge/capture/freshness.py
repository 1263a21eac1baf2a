"""Tells a live picture from one that a stuck encoder or driver repeats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROW_STEP = 8  # a live sensor's noise is in every row; comparing each would cost more


class FrozenDetector:
    """A picture that stays the same, bit by bit, for too long is frozen."""

    def __init__(self, after_s: float | None) -> None:
        """Remember the limit; None never calls a picture frozen."""
        self._after_s = after_s
        self._rows: NDArray[np.uint8] | None = None
        self._since_s = 0.0

    def is_frozen(self, image_bgr: NDArray[np.uint8], now_s: float) -> bool:
        """Take the next picture of the source.

        Args:
            image_bgr: (H, W, 3), of any size.
            now_s: On a monotonic clock.
        """
        if self._after_s is None:
            return False
        rows = image_bgr[::_ROW_STEP]
        if self._rows is None or not np.array_equal(rows, self._rows):
            self._rows, self._since_s = rows.copy(), now_s
            return False
        return now_s - self._since_s >= self._after_s
