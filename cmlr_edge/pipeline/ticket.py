"""One frame on its way through a lane, and what is known of it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cmlr_edge.frame import Frame
from cmlr_edge.pipeline.tiles import combined
from cmlr_edge.prediction import Prediction
from cmlr_edge.preprocess import Prepared

if TYPE_CHECKING:
    from cmlr_edge.pipeline.intake import Intake
    from cmlr_edge.pipeline.lane import Lane


@dataclass(eq=False)
class Ticket:
    """One frame on its way."""

    lane: Lane
    frame: Frame
    prepared: Prepared | None  # None: it repeats the prediction before
    arrived_s: float  # on time.monotonic()
    prediction: Prediction | None = None
    pauses: bool = False  # no frame: from here on none is looked at for a while
    tiles: tuple[Ticket, ...] = ()  # of the frame, each on a way of its own

    @property
    def answered(self) -> bool:
        """Whether nothing more is to be waited for."""
        is_whole_answered = self.prepared is None or self.prediction is not None
        return is_whole_answered and all(tile.answered for tile in self.tiles)

    def together(self, intake: Intake) -> Prediction | None:
        """What the model says of the frame and its tiles; None where it was not asked."""
        if self.prediction is None:
            return None
        answers = [self.prediction, *(t.prediction for t in self.tiles if t.prediction is not None)]
        if any(tile.frame.status == "stale" for tile in self.tiles):
            self.frame = replace(self.frame, status="stale")
        return combined([intake.placed(answer, look) for look, answer in enumerate(answers)])

    def freshened(self) -> Prepared:
        """Return what is to be recognised, marked as stale where it waited too long."""
        assert self.prepared is not None
        limit_s = self.lane.stale_after_s
        if limit_s is not None and time.monotonic() - self.arrived_s > limit_s:
            self.frame = replace(self.frame, status="stale")
            seen = replace(self.prepared.frame, status="stale")
            self.prepared = replace(self.prepared, frame=seen)
        return self.prepared
