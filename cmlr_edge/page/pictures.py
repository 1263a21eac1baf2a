"""Frames as JPEG: made when somebody looks, once for all who look."""

from __future__ import annotations

import threading

from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import jpeg_of, opencv

_MAX_SIDE = 960  # of what a browser gets
_QUALITY = 80


class NewestPicture:
    """The JPEG of one source's newest frame."""

    def __init__(self) -> None:
        """Start without one."""
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._jpeg = b""

    def jpeg(self, frame: Frame) -> bytes:
        """Return the frame as JPEG, scaled down to what a page needs.

        Raises:
            OutputError: It cannot be encoded.
        """
        with self._lock:
            if frame is not self._frame:
                self._jpeg, self._frame = encode_jpeg(frame), frame
            return self._jpeg


def encode_jpeg(frame: Frame) -> bytes:
    """Encode one frame; see `NewestPicture.jpeg`."""
    cv2, image = opencv(), frame.image_bgr
    scale = _MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return jpeg_of(image, _QUALITY, frame.source)
