"""Small things: a picture is also looked at in parts, which overlap, and each label's best score counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmlr_edge.errors import SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.why import Box, Reasons

_FINE = 10_000  # steps of a share
_OVERLAP = 0.2  # of a tile: what one cuts, its neighbour shows whole
_MOST = 16  # beyond, no device keeps up


@dataclass(frozen=True)
class Tiles:
    """A grid of parts."""

    columns: int
    rows: int

    @classmethod
    def read(cls, text: str) -> Tiles:
        """Read "2x2": columns and rows.

        Raises:
            SpecError: It is written otherwise, or there are too many.
        """
        found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text.strip().lower(), re.ASCII)
        tiles = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 2 <= tiles.columns * tiles.rows <= _MOST:
            raise SpecError(
                f"cannot use the tiles {text!r}: expected columns and rows as 2x2, from 2 to {_MOST} tiles"
            )
        return tiles

    def cut(self, frame: Frame) -> list[Frame]:
        """The parts of a frame, views of its pixels; all together they are the frame."""
        height, width = frame.image_bgr.shape[:2]
        return [
            replace(frame, image_bgr=frame.image_bgr[top:bottom, left:right])
            for top, bottom in _spans(height, self.rows)
            for left, right in _spans(width, self.columns)
        ]

    def boxes(self) -> list[Box]:
        """The parts of any picture, in the order of `cut`, as shares of it."""
        return [
            (left / _FINE, top / _FINE, right / _FINE, bottom / _FINE)
            for top, bottom in _spans(_FINE, self.rows)
            for left, right in _spans(_FINE, self.columns)
        ]


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """Where so many spans of one size begin and end that overlap and cover a length; none is empty."""
    size = length / (count - (count - 1) * _OVERLAP)
    starts = [round(number * size * (1 - _OVERLAP)) for number in range(count)]
    ends = [round(number * size * (1 - _OVERLAP) + size) for number in range(count)]
    starts = [min(start, length - 1) for start in starts]
    return [
        (start, min(length, max(end, start + 1))) for start, end in zip(starts, ends, strict=True)
    ]


def combined(predictions: Sequence[Prediction]) -> Prediction:
    """What a frame and its tiles say together: each label's best score; labels are still to be chosen.

    Args:
        predictions: Of the whole frame, then of its tiles. One without a number makes all invalid.
    """
    whole = predictions[0]
    if len(predictions) == 1:
        return whole
    stages = [item.latency_ms for item in predictions]
    reasons = [item.why for item in predictions if item.why is not None]
    return replace(
        whole,
        scores=np.max([item.scores for item in predictions], axis=0),  # NaN stays NaN
        labels=(),
        latency_ms=Latency(
            whole.latency_ms.capture,
            sum(item.preprocess for item in stages),
            sum(item.inference for item in stages),
            sum(item.postprocess for item in stages),
        ),
        valid=all(item.valid for item in predictions),
        why=Reasons.together(reasons) if reasons else None,
    )
