"""A source of somebody else's package, looked at closely: whatever it does becomes an error in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.capture.base import ClosesItself, Source
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.entry_points import having
from cmlr_edge.machine.waiting import answer_of
from cmlr_edge.redaction import one_line, told

_CLOSE_S = 5.0


class TheirSource(ClosesItself):
    """A source as its package opened it; see `Source`."""

    def __init__(self, source: Source) -> None:
        """Own it from here on.

        Raises:
            ValueError: It is no source, or says of itself what cannot be.
        """
        names = ("name", "num_frames", "fps", "files", "__iter__", "close")
        self._source: Source = having(*names)(source)
        self._closed = False
        self.name = one_line(_of(str, "name", source.name))
        number, fps = source.num_frames, source.fps
        self.num_frames = None if number is None else max(0, _of(int, "num_frames", number))
        self.fps = None if fps is None else _finite("fps", fps)
        if self.fps is not None and self.fps < 0:
            raise ValueError(f"fps is {fps}: expected a number from 0 on, or None")
        self.files: Sequence[Path] = [Path(file) for file in source.files]

    def __iter__(self) -> Iterator[Frame]:
        """Yield its frames, as far as they are any.

        Raises:
            CaptureError: As it raised it, or for whatever else it did.
        """
        before = np.empty(0, np.uint8)
        try:
            for given in self._source:
                frame = _checked(given)
                pixels = frame.image_bgr
                # Memory that another frame had, or that is somebody's buffer, may be filled again before
                # the model, or an output, looks at the frame.
                if np.may_share_memory(pixels, before) or not pixels.flags.owndata:
                    frame = replace(frame, image_bgr=pixels.copy())
                before = pixels
                yield frame
        except (CaptureError, GeneratorExit):
            raise
        except BaseException as error:
            raise CaptureError(f"{self.name}: {type(error).__name__}: {told(error)}") from error

    def close(self) -> None:
        """Release it, once; see `Source`. One that hangs is left behind."""
        is_first, self._closed = not self._closed, True
        try:
            if is_first:
                answer_of(self._source.close, _CLOSE_S)
        except Exception as error:
            raise CaptureError(f"{self.name} cannot be closed: {told(error)}") from error


def _checked(frame: Any) -> Frame:
    """Refuse what is no frame; where a picture has no size, the model says so."""
    if not isinstance(frame, Frame):
        raise TypeError(f"expected a Frame, got {type(frame).__name__}")
    image = _of(np.ndarray, "image_bgr", frame.image_bgr)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image_bgr is {image.dtype} {image.shape}: expected uint8 (height, width, 3)"
        )
    _of(int, "index", frame.index)
    _of((float, int, type(None)), "time_s", frame.time_s)  # a lane mends what does not rise
    _finite("captured_at", frame.captured_at)
    _finite("capture_ms", frame.capture_ms)
    return frame


def _finite(name: str, value: Any) -> float:
    number: float = _of((float, int), name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}: expected a finite number")
    return number


def _of(kind: Any, name: str, value: Any) -> Any:
    if not isinstance(value, kind):
        wanted = "a number" if isinstance(kind, tuple) else kind.__name__
        raise TypeError(f"{name} is of type {type(value).__name__}: expected {wanted}")
    return value
