"""Pictures that move, as films: WebP, PNG and AVIF, read by Pillow; FFmpeg reads GIF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.capture.endings import is_cut
from cmlr_edge.capture.film import Picture
from cmlr_edge.capture.images import check_bytes
from cmlr_edge.errors import CaptureError, FrameError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.machine.pillow import open_picture, rgb_pixels
from cmlr_edge.packet_ring import PacketRing
from cmlr_edge.redaction import printable

_FORMATS = {"AVIF", "PNG", "WEBP"}  # a TIFF of several has pages
_MILLI = 1e-3
_USUAL_MS = 100.0  # of a picture that is to be shown for no time, as browsers have it


def is_animation(path: Path) -> bool:
    """Whether a file is a picture that moves; False also where it cannot be read."""
    try:
        check_bytes(path.stat().st_size, printable(path))
        with path.open("rb") as file:
            return _moves(open_picture(file))
    except (OSError, FrameError, CaptureError):
        return False


def _moves(image: Any) -> bool:
    return image.format in _FORMATS and getattr(image, "n_frames", 1) > 1


class AnimatedPicture:
    """A picture that moves; see `Film`."""

    may_jump = is_encrypted = False
    num_videos = 1
    ring: PacketRing | None = None

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            CaptureError: It is no such picture, or too large.
        """
        self._file = path.open("rb")
        try:
            self._image = open_picture(self._file)
            width, height = self._image.size
            check_size(width, height, MAX_STREAM_PIXELS, "it has pictures")
            self.num_frames: int | None = self._image.n_frames
        except FrameError as error:
            raise CaptureError(str(error)) from error
        finally:
            if not hasattr(self, "num_frames"):
                self._file.close()
        self.damaged, self.is_cut = 0, is_cut(path)
        self._index, self._shown_ms = 0, 0.0  # of the next picture
        self.fps: float | None = None
        self._next = self._decode()
        if self._shown_ms:
            self.fps = 1 / (self._shown_ms * _MILLI)  # as the first one is shown

    def read(self) -> Picture | None:
        """Decode the next picture; see `Film`."""
        picture, self._next = self._next, None
        if picture is None:
            return None
        self._next = self._decode()
        return picture

    def missing_s(self) -> float:
        """Nothing is announced in seconds; see `Film`."""
        return 0.0

    def close(self) -> None:
        """Release the file; see `Film`."""
        self._image.close()
        self._file.close()

    def _decode(self) -> Picture | None:
        if self._index == self.num_frames:
            return None
        try:
            self._image.seek(self._index)
            pixels = rgb_pixels(self._image)
        except (
            FrameError,
            EOFError,
            OSError,
            SyntaxError,
            ValueError,
        ):  # each builds upon those before it
            self.damaged += 1
            return None
        start_s = self._shown_ms * _MILLI
        self._shown_ms += float(self._image.info.get("duration") or _USUAL_MS)
        self._index += 1
        cv2 = opencv()
        return Picture(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), start_s)
