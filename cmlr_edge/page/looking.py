"""Recognises pictures that visitors send, a few at a time: the cameras come first."""

from __future__ import annotations

import io
import threading
from typing import Any

from cmlr_edge.backends.base import no_explanation
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.errors import CaptureError, EngineError, FrameError
from cmlr_edge.machine.pillow import open_picture, rgb_pixels
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.why import Explain

_AT_ONCE = 2  # each holds a decoded picture
_WAIT_S = 5.0


class TooBusyError(Exception):
    """Other pictures are being recognised, and waiting did not help."""


class NoExplanationError(Exception):
    """A visitor wants to know why, and the engine cannot say."""


class PictureDesk:
    """Takes pictures from any thread."""

    def __init__(self, recognizer: Recognizer, explain: Explain | None = None) -> None:
        """Let this one recognise; it stays its owner's.

        Args:
            recognizer: Of the run.
            explain: How, unless a visitor says otherwise; None: not.
        """
        self._recognizer, self._explain = recognizer, explain
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    def use(self, recognizer: Recognizer) -> None:
        """Let another one go on."""
        self._recognizer = recognizer

    def look(self, encoded: bytes, *, scores: bool, why: bool | None = None) -> dict[str, Any]:
        """Decode a picture and recognise it.

        Args:
            encoded: A JPEG, PNG, WebP or other file of a picture.
            scores: Tell all of them.
            why: Say why; None: as the run does.

        Returns:
            `Prediction.to_dict()`, and the picture's size in pixels.

        Raises:
            FrameError: It is no picture, or too large.
            TooBusyError: Too many are sent at once.
            NoExplanationError: The engine cannot say why.
        """
        if not self._places.acquire(timeout=_WAIT_S):
            raise TooBusyError
        try:
            image = open_picture(io.BytesIO(encoded))
            width, height = image.size
            check_size(width, height, MAX_STREAM_PIXELS, "it is a picture")
            pixels = rgb_pixels(image)
            prediction = self._recognize(pixels, self._explanation(why))
        except CaptureError as error:
            raise FrameError(str(error)) from error
        finally:
            self._places.release()
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        return {**prediction.to_dict(scores=scores), **size}

    def _explanation(self, why: bool | None) -> bool | Explain:
        if why is False or (why is None and self._explain is None):
            return False
        if not self._recognizer.explains:
            raise NoExplanationError(str(no_explanation(self._recognizer.spec.name)))
        return self._explain or True

    def _recognize(self, pixels: Any, explain: bool | Explain) -> Any:
        recognizer = self._recognizer
        try:
            return recognizer(pixels, color="rgb", explain=explain)
        except EngineError:
            if recognizer is self._recognizer:
                raise
            return self._recognizer(
                pixels, color="rgb", explain=explain
            )  # an update closed the former one
