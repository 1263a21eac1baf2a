"""Video files, through OpenCV."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv

_MISSING_SHARE = 0.05  # containers announce a few frames more than they hold; this is beyond that
_SILENT = 0  # OpenCV's number of it
_log = logging.getLogger(__name__)


class VideoFile(ClosesItself):
    """Every frame of a video file, in order."""

    def __init__(self, path: Path) -> None:
        """Open the file and decode its first frame.

        Raises:
            CaptureError: It is not a video, or no frame of it can be decoded.
        """
        self.name = str(path)
        self.files: Sequence[Path] = (path,)
        # Absolute, for FFmpeg takes what stands before a colon for a protocol.
        self._capture = open_quietly(str(path.absolute()))
        self._first = self._read()
        if self._first is None:
            self.close()
            raise CaptureError(
                f"{path} ({path.stat().st_size} bytes) is not a video that OpenCV can decode: it "
                "may be cut short, or its codec may be missing; try `ffmpeg -i FILE -c:v libx264 "
                "out.mp4`"
            )
        cv2 = opencv()
        self.fps = announced_fps(self._capture)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(count) if 0 < count < 2**53 else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`. Warns in the log where the file ends early."""
        index, item = 0, self._first
        while item is not None:
            image, time_s, capture_ms = item
            if time_s is None or (index > 0 and time_s <= 0):
                time_s = index / self.fps if self.fps else None
            yield Frame(image, index, time_s, time.time(), capture_ms, self.name)
            index, item = index + 1, self._read()
        expected = self.num_frames
        if expected is not None and index < expected * (1 - _MISSING_SHARE):
            _log.warning(
                "%s ended after %d of the %d frames it announces: the file may be cut short",
                self.name,
                index,
                expected,
            )

    def _read(self) -> tuple[Any, float | None, float] | None:
        cv2 = opencv()
        start = time.perf_counter()
        ok, image = self._capture.read()
        if not ok:
            return None
        position_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        time_s = position_ms / 1e3 if math.isfinite(position_ms) and position_ms >= 0 else None
        return image, time_s, (time.perf_counter() - start) * 1e3

    def close(self) -> None:
        """Release the file; see `Source`."""
        self._capture.release()

    def __enter__(self) -> VideoFile:
        """Return itself."""
        return self


def announced_fps(capture: Any) -> float | None:
    """Frames per second that an opened `cv2.VideoCapture` announces, if they can be true."""
    fps = float(capture.get(opencv().CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def open_quietly(source: int | str, backend: int = 0, parameters: Sequence[int] = ()) -> Any:
    """Open without OpenCV's own lines on stderr: our exceptions say what went wrong.

    Args:
        source: As `cv2.VideoCapture` takes it.
        backend: One of OpenCV's numbers; 0 for any.
        parameters: Pairs of property and value, for opening.
    """
    cv2 = opencv()
    # Debian's and JetPack's OpenCV may have the older of the two names only.
    logging_of = getattr(cv2.utils, "logging", None)
    set_level = cv2.setLogLevel if logging_of is None else logging_of.setLogLevel
    set_level(_SILENT)
    return cv2.VideoCapture(source, backend, list(parameters))
