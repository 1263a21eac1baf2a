"""Whether a picture shows another scene than the one that the model saw last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import SpecError
from cmlr_edge.frame import Frame, mean_colors

_TOLERANCE = 5.0  # of 255; a cell beyond is a change


class SceneGate:
    """Says which frames need the model; the others may repeat its last scores.

    Every frame is compared with the one that the model saw last, not with its neighbour, so that a slow
    change is seen, too. What no comparison sees is bounded in time.
    """

    def __init__(self, max_age_s: float) -> None:
        """Start with no scene seen.

        Args:
            max_age_s: Scores are never repeated for longer, by the frames' times.

        Raises:
            SpecError: It is not above 0.
        """
        if not max_age_s > 0:
            raise SpecError(
                f"skipping unchanged frames for {max_age_s} s: expected seconds above 0"
            )
        self._max_age_s = max_age_s
        self._seen: NDArray[np.float32] | None = None
        self._seen_s = 0.0
        self._forgotten = False

    def needs_model(self, frame: Frame) -> bool:
        """Take the next frame; one without a time always needs the model."""
        if frame.time_s is None:
            return True
        cells = mean_colors(frame.image_bgr)
        age_s = frame.time_s - self._seen_s
        if (
            self._seen is None
            or self._forgotten
            or not 0 <= age_s < self._max_age_s
            or float(np.abs(cells - self._seen).max()) > _TOLERANCE
        ):
            self._seen, self._seen_s, self._forgotten = cells, frame.time_s, False
            return True
        return False

    def forget(self) -> None:
        """Let the next frame need the model. Any thread may call it."""
        self._forgotten = True
