"""Recognises pictures that visitors send, a few at a time: the cameras come first."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from cmlr_edge.backends.base import no_explanation
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.errors import CaptureError, EngineError, FrameError
from cmlr_edge.machine.pillow import open_picture, rgb_pixels
from cmlr_edge.page.tensors import InferAnswer, InferRequest
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.why import Explain

_AT_ONCE = 2  # each holds a decoded picture
_WAIT_S = 5.0
_T = TypeVar("_T")


class TooBusyError(Exception):
    """Other pictures are being recognised, and waiting did not help."""


class NoExplanationError(Exception):
    """A visitor wants to know why, and the engine cannot say."""


class PictureDesk:
    """Takes pictures, each in its turn."""

    def __init__(self, recognizer: Recognizer, explain: Explain | None = None) -> None:
        """Let this one recognise; it stays its owner's.

        Args:
            recognizer: Of the run.
            explain: How, unless a visitor says otherwise; None: not.
        """
        self._recognizer, self._explain = recognizer, explain
        self._places = asyncio.Semaphore(_AT_ONCE)

    @property
    def recognizer(self) -> Recognizer:
        """The one at work."""
        return self._recognizer

    def use(self, recognizer: Recognizer) -> None:
        """Let another one go on."""
        self._recognizer = recognizer

    async def in_turn(self, work: Callable[[], _T]) -> _T:
        """Do it in a thread, once others are done; whoever waits for that keeps no thread from viewers.

        Args:
            work: A call of `look`, `look_at_all` or `infer`, whose errors it raises.

        Raises:
            TooBusyError: Too many pictures are sent at once.
        """
        try:
            await asyncio.wait_for(self._places.acquire(), _WAIT_S)
        except asyncio.TimeoutError as error:
            raise TooBusyError from error
        try:
            return await asyncio.to_thread(work)
        finally:
            self._places.release()

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
            NoExplanationError: The engine cannot say why.
        """
        return self._told(encoded, scores=scores, why=why)

    def look_at_all(
        self, pictures: Sequence[tuple[str, bytes]], *, scores: bool, why: bool | None = None
    ) -> list[dict[str, Any]]:
        """Recognise several, given by name; a picture that cannot be read has an `error` in its place.

        Raises:
            NoExplanationError: The engine cannot say why.
        """
        found = []
        for name, encoded in pictures:  # one after the other: all decoded at once would be large
            try:
                told = self._told(encoded, scores=scores, why=why)
            except FrameError as error:
                told = {"error": str(error)}
            found.append({"name": name, **told})
        return found

    def infer(self, body: bytes, json_length: int | None) -> InferAnswer:
        """Answer a request of the Open Inference Protocol.

        Args:
            body: JSON, with `json_length` followed by tensors as they lie in memory.
            json_length: Of the JSON at its start; None: all of it.

        Raises:
            FrameError: It is malformed, or holds what is no picture.
            EngineError: The model failed.
        """
        request = InferRequest.read(body, json_length)
        recognizer = self._recognizer
        try:
            found = [recognizer(p, color="rgb") for p in _pixels_of(request)]
        except EngineError:
            if recognizer is self._recognizer:
                raise
            recognizer = self._recognizer  # an update closed the former one
            found = [recognizer(p, color="rgb") for p in _pixels_of(request)]
        return request.answer(found, recognizer.spec.name, recognizer.labels)

    def _explanation(self, why: bool | None) -> bool | Explain:
        if why is False or (why is None and self._explain is None):
            return False
        if not self._recognizer.explains:
            raise NoExplanationError(str(no_explanation(self._recognizer.spec.name)))
        return self._explain or True

    def _told(self, encoded: bytes, *, scores: bool, why: bool | None) -> dict[str, Any]:
        pixels, explain = _decoded(encoded), self._explanation(why)
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        return {**self._recognize(pixels, explain).to_dict(scores=scores), **size}

    def _recognize(self, pixels: Any, explain: bool | Explain) -> Prediction:
        recognizer = self._recognizer
        try:
            return recognizer(pixels, color="rgb", explain=explain)
        except EngineError:
            if recognizer is self._recognizer:
                raise
            # An update closed the former one.
            return self._recognizer(pixels, color="rgb", explain=explain)


def _decoded(encoded: bytes) -> Any:
    """Pixels, uint8 (H, W, 3), RGB, of a picture's file."""
    try:
        image = open_picture(io.BytesIO(encoded))
        width, height = image.size
        check_size(width, height, MAX_STREAM_PIXELS, "it is a picture")
        return rgb_pixels(image)
    except CaptureError as error:
        raise FrameError(str(error)) from error


def _pixels_of(request: InferRequest) -> Iterator[Any]:
    for number, picture in enumerate(request.pictures):
        if not isinstance(picture, bytes):
            yield picture
            continue
        try:
            yield _decoded(picture)
        except FrameError as error:
            raise FrameError(f"picture {number}: {error}") from error
